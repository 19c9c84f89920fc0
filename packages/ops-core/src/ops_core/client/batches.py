"""Many tasks at once, as many as one likes."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ops_core.wire import BATCH_MOST, BatchItem, BatchResult


async def whole_batch(
    items: Sequence[BatchItem], send: Callable[[Sequence[BatchItem]], Awaitable[Sequence[BatchResult]]]
) -> Sequence[BatchResult]:
    """The results of all, sent in as many batches as it takes."""
    results = list[BatchResult]()
    for first in range(0, len(items), BATCH_MOST):
        results += await send(items[first : first + BATCH_MOST])
    return results


def with_keys(items: Sequence[BatchItem]) -> Iterator[BatchItem]:
    """Each with a key, its own or a new one: a batch that is sent again cannot make a task twice."""
    for item in items:
        if item.idempotency_key is not None:
            yield item
        else:
            yield item.model_copy(update={"idempotency_key": uuid.uuid4().hex})
