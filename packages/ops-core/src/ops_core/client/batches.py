"""Many tasks at once, as many as one likes."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ops_core.listing import checked_key
from ops_core.wire import BATCH_MOST, BatchItem, BatchResult


async def whole_batch(
    items: Sequence[BatchItem],
    send: Callable[[Sequence[BatchItem], str | None], Awaitable[Sequence[BatchResult]]],
    idempotency_key: str | None = None,
) -> Sequence[BatchResult]:
    """The results of all, sent in as many batches as it takes.

    Args:
        items: the tasks.
        send: submits a batch under a key.
        idempotency_key: of all; each batch after the first has one that is made from it.
    """
    key = None if idempotency_key is None else checked_key(idempotency_key)
    results = list[BatchResult]()
    for first in range(0, len(items), BATCH_MOST):
        if key is not None and first:
            key = hashlib.sha256(f"{idempotency_key} {first}".encode()).hexdigest()
        results += await send(items[first : first + BATCH_MOST], key)
    return results


def with_keys(items: Sequence[BatchItem]) -> Iterator[BatchItem]:
    """Each with a key, its own or a new one: a batch that is sent again cannot make a task twice."""
    for item in items:
        if item.idempotency_key is not None:
            yield item
        else:
            yield item.model_copy(update={"idempotency_key": uuid.uuid4().hex})
