"""What a run's memory spends on embeddings: reserved before each call, settled after it, as its model's calls are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from agentkit.account import Account
from agentkit.errors import LimitReached, ModelError
from agentkit.messages import Usage
from agentkit.models.prices import Prices
from agentkit.ports import Metered
from agentkit.reserving import embedding_reservation
from agentkit.transcript import Embedded, ModelAsked, ModelFailed, Recorded, Step


@dataclass(kw_only=True, eq=False)
class RunMeter:
    """A :class:`~agentkit.ports.Meter` that records in the run's journal what was paid.

    One call at a time: what is reserved is settled before more is reserved, also where tools remember at once.

    Attributes:
        prices: what embeddings cost.
        account: what the run may still use.
        record: appends a step to the journal.
        look: raises where the run was told to stop, or its time is up; asked before each call.
    """

    prices: Prices
    account: Account
    record: Callable[[Step], Awaitable[Recorded]]
    look: Callable[[], None]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def call(self, model: str, texts: Sequence[str]) -> AsyncGenerator[Metered]:
        """Around one call of embeddings.

        Raises:
            LimitReached: the money does not last for it.
            PriceUnknown: money is limited, and nobody knows what they cost.
            JournalError: a step could not be recorded.
        """
        async with self._turn:
            self.look()
            reserved = await self._reserve(model, texts)
            try:
                self.look()
            except LimitReached:
                if reserved is not None:
                    await self.record(replace(reserved, withdrawn=True))
                raise
            began = time.monotonic()
            counted = Metered()
            try:
                yield counted
            except ModelError as error:
                if reserved is not None:
                    seconds = round(time.monotonic() - began, 6)
                    usage = _billed_for(error)
                    await self.record(
                        ModelFailed(model=model, error=error.as_run_error(), usage=usage, seconds=seconds)
                    )
                raise
            used = counted.usage
            if reserved is not None or (used is not None and used.tokens):
                paid = None if used is None else self.prices.billed(used, model)
                seconds = round(time.monotonic() - began, 6)
                await self.record(Embedded(model=model, usage=paid, seconds=seconds))

    async def _reserve(self, model: str, texts: Sequence[str]) -> ModelAsked | None:
        if not self.account.reserves_money:
            return None
        while True:  # another run may have reserved what was left
            left = self.account.nanos_left()
            asked = embedding_reservation(model, texts, prices=self.prices, left=left)
            if asked is None:
                return None
            with self.account.holding(asked) as fits:
                if fits:
                    await self.record(asked)
                    return asked


def _billed_for(error: ModelError) -> Usage | None:
    if error.billed is None:
        return None
    read, written = error.billed
    return Usage(input_tokens=read, output_tokens=written, cost_usd=0.0 if read == written == 0 else None)
