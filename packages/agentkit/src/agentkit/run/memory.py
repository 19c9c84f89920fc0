"""Memory of a run: what is recalled before the first turn, what is remembered, and the embeddings that this costs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from typing import TypeVar, cast

from agentkit.attachments import split_input
from agentkit.budget.account import Account
from agentkit.budget.prices import Prices
from agentkit.budget.reservations import embedding_reservation
from agentkit.errors import (
    AgentkitError,
    BadArguments,
    JournalError,
    LimitReached,
    ModelError,
    PriceUnknown,
    ToolError,
    UnknownTool,
    UsageError,
)
from agentkit.memories import AgentMemory
from agentkit.messages import Effect, JsonValue, ToolCall, ToolSpec, Usage
from agentkit.planning.conversation import as_text
from agentkit.ports import Memory, Meter, Metered, Scope, ToolContext
from agentkit.run.compaction import estimated_tokens
from agentkit.run.model_turn import NoReply, TimeUp, is_the_runs_own
from agentkit.transcript.steps import (
    BEGINNINGS,
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    Note,
    Recalled,
    RunStarted,
    Transcript,
)
from agentkit.untrusted.boundary import guarded

Result = TypeVar("Result")

log = logging.getLogger("agentkit")

_NO_MONEY = frozenset({LimitReached.code, PriceUnknown.code})

MAX_CHARACTERS = 4000
"""No note is longer: neither an outcome nor what the model says. Nor is what is looked for."""

REMEMBER = ToolSpec(
    name="remember",
    description="Keep a short note for later runs: a fact, a preference or a decision that will matter again. "
    "Write it so that it can be understood by itself. Never keep passwords or keys.",
    parameters={
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}},
        "required": ["text"],
        "additionalProperties": False,
    },
    effect=Effect.IDEMPOTENT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMemory:
    """The memory of one run.

    Attributes:
        declared: what is remembered and recalled.
        memory: open.
        scope: whose it is.
    """

    declared: AgentMemory
    memory: Memory
    scope: Scope

    @classmethod
    def of(cls, declared: AgentMemory, scope: Scope) -> RunMemory:
        """The memory of a run.

        Raises:
            UsageError: it is named only, and nobody has opened it.
        """
        if isinstance(declared.memory, str):
            message = f"memory {declared.memory!r} is the name of one that a platform opens; give an open Memory here"
            raise UsageError(message)
        return cls(declared=declared, memory=declared.memory, scope=scope)

    @property
    def keeps_outcomes(self) -> bool:
        """Something is to be done between the last reply and the end of the run."""
        return self.declared.remember == "outcome"

    @property
    def toolset(self) -> RememberToolset | None:
        """What the model is given to remember with."""
        return RememberToolset(self) if self.declared.remember == "tool" else None

    def owes_recall(self, transcript: Transcript) -> bool:
        """Nothing was done yet but to begin, or to try this."""
        done = islice(transcript, 1, None)
        return self.declared.recall > 0 and all(isinstance(one.step, BEGINNINGS) for one in done)

    async def recall(
        self, transcript: Transcript, seconds: float | None, meter: Meter
    ) -> Recalled | TimeUp | NoReply:
        """What is known that resembles the input of the run, as it is to be recorded.

        Args:
            transcript: all steps so far.
            seconds: after so many it is given up; ``None`` for never.
            meter: counts what the embeddings cost.
        """
        began = _now()
        query = _shown(_first(transcript).input)[:MAX_CHARACTERS]
        found = await _under(
            seconds, lambda: self.memory.recall(self.scope, query, self.declared.recall, meter)
        )
        if isinstance(found, TimeUp | NoReply):
            return found
        return Recalled(notes=tuple(self._fitting(found)), seconds=round(_now() - began, 6))

    def _fitting(self, found: Sequence[Note]) -> Iterator[Note]:
        room = float(self.declared.tokens)
        for note in sorted(found, key=lambda note: -note.score)[: self.declared.recall]:
            room -= estimated_tokens(note.text) + estimated_tokens(note.source) + 20
            if note.score < self.declared.min_score or room < 0:
                return
            yield replace(note, score=round(note.score, 4))

    async def keep(
        self, transcript: Transcript, ending: Finished, seconds: float | None, meter: Meter
    ) -> TimeUp | NoReply | None:
        """Remember what came of the run. Done again, it is the same note: a crash doubles nothing.

        Where the budget does not last for it, the run ends well all the same: its answer was paid for.

        Args:
            transcript: all steps so far.
            ending: what is about to be recorded.
            seconds: after so many it is given up; ``None`` for never.
            meter: counts what the embeddings cost.
        """
        if ending.status != "completed":
            return None
        first = _first(transcript)
        text = f"Asked: {_shown(first.input)}\nAnswered: {as_text(ending.output)}"
        note = _note(f"outcome of {first.run_id}", text, first.run_id, transcript[0].at)
        problem = await _under(seconds, lambda: self.memory.remember(self.scope, note, meter))
        if isinstance(problem, NoReply) and problem.final and problem.error.code in _NO_MONEY:
            log.warning("run %s is not remembered: %s", first.run_id, problem.error.message)
            return None
        return problem


class RememberToolset:
    """The tool with which a model says what is to be remembered."""

    def __init__(self, remembering: RunMemory) -> None:
        self._remembering = remembering

    async def specs(self) -> Sequence[ToolSpec]:
        """The one tool."""
        return (REMEMBER,)

    async def call(self, call: ToolCall, context: ToolContext[object]) -> JsonValue:
        """Keep a note; a repeated call keeps the same one."""
        if call.name != REMEMBER.name:
            message = f"there is no tool {call.name}"
            raise UnknownTool(message)
        text = call.arguments.get("text")
        if not isinstance(text, str) or not text.strip() or set(call.arguments) != {"text"}:
            message = "text: must be a text that is not empty, and the only argument"
            raise BadArguments(message)
        if len(text) > MAX_CHARACTERS:
            message = f"text: must have at most {MAX_CHARACTERS} characters"
            raise BadArguments(message)
        note = _note(context.idempotency_key, text, context.run_id, time.time())
        try:
            await self._remembering.memory.remember(self._remembering.scope, note, context.meter)
        except LimitReached as error:
            raise ToolError(str(error)) from None
        return "remembered"


def _note(key: str, text: str, run_id: str, at: float) -> Note:
    id_ = blake2b(key.encode(errors="replace"), digest_size=16).hexdigest()
    whole = text[:MAX_CHARACTERS].encode(errors="replace").decode()  # no halves of characters
    return Note(id=id_, text=whole, source=f"run {run_id}", at=at)


def _first(transcript: Transcript) -> RunStarted:
    return cast("RunStarted", transcript[0].step)


def _shown(given: JsonValue) -> str:
    return as_text(split_input(given)[0])


async def _under(seconds: float | None, work: Callable[[], Awaitable[Result]]) -> Result | TimeUp | NoReply:
    """The result of ``work``, unless the time is up or it fails."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            with guarded("the memory"):
                return await work()
    except TimeoutError:
        if not deadline.expired():
            raise
        return TimeUp()
    except JournalError:
        raise
    except AgentkitError as error:
        return NoReply(error.as_run_error(), final=is_the_runs_own(error))


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(kw_only=True, eq=False)
class EmbeddingMeter:
    """A :class:`~agentkit.ports.Meter` that records in the run's journal what was paid.

    One call at a time: what is reserved is settled before more is reserved, also where tools remember at once.

    Attributes:
        prices: what embeddings cost.
        account: what the run may still use; asked before each call whether it may go on.
    """

    prices: Prices
    account: Account
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
            self.account.look_in_time()
            reserved = await self._reserve(model, texts)
            try:
                self.account.look_in_time()
            except LimitReached:
                if reserved is not None:
                    await self.account.record(replace(reserved, withdrawn=True))
                raise
            began = time.monotonic()
            counted = Metered()
            try:
                yield counted
            except ModelError as error:
                if reserved is not None:
                    seconds = round(time.monotonic() - began, 6)
                    usage = _billed_for(error)
                    await self.account.record(
                        ModelFailed(model=model, error=error.as_run_error(), usage=usage, seconds=seconds)
                    )
                raise
            used = counted.usage
            if reserved is not None or (used is not None and used.tokens):
                paid = None if used is None else self.prices.billed(used, model)
                seconds = round(time.monotonic() - began, 6)
                await self.account.record(Embedded(model=model, usage=paid, seconds=seconds))

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
                    await self.account.record(asked)
                    return asked


def _billed_for(error: ModelError) -> Usage | None:
    if error.billed is None:
        return None
    read, written = error.billed
    return Usage(input_tokens=read, output_tokens=written, cost_usd=0.0 if read == written == 0 else None)
