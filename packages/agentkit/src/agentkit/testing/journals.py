"""Journal that fails on demand, and the contract that every journal keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from agentkit.errors import RunError, RunInterrupted
from agentkit.messages import Reasoning, StopReason, Text, ToolCall, Usage
from agentkit.ports import Journal
from agentkit.transcript.journals import MemoryJournal
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Declared,
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Note,
    Recalled,
    Recorded,
    RunRetried,
    RunStarted,
    Step,
    Summarised,
    ToolReturned,
    ToolStarted,
)

Opened: TypeAlias = AbstractAsyncContextManager[Journal]


class Crash(RunInterrupted):
    """The process has died. Not an :class:`Exception`: nothing can survive it by catching errors."""


class CrashingJournal:
    """A journal whose process dies at one append.

    Args:
        at: number of the append that kills it, from 0.
        after: die after the step was recorded, before anybody learns of it; else die before it is.
        steps: what had been recorded earlier.
    """

    def __init__(self, *, at: int, after: bool = False, steps: Sequence[Recorded] = ()) -> None:
        self._inner = MemoryJournal(steps)
        self._at = at
        self._after = after
        self._appends = 0
        self._dead = False

    async def load(self) -> Sequence[Recorded]:
        """All steps so far."""
        return await self._inner.load()

    async def append(self, step: Step) -> Recorded:
        """Record ``step``.

        Raises:
            Crash: this append kills the process, or an earlier one has.
        """
        number, self._appends = self._appends, self._appends + 1
        if number == self._at and self._after and not self._dead:
            await self._inner.append(step)
        self._dead = self._dead or number == self._at
        if self._dead:
            raise Crash
        return await self._inner.append(step)

    async def append_all(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        """Record ``steps``; one of them may be the append that kills the process, and those before it are kept."""
        return [await self.append(step) for step in steps]

    def revived(self) -> MemoryJournal:
        """What another process finds: everything that was recorded."""
        return MemoryJournal(self._inner.steps)


EVERY_KIND: Sequence[Step] = (
    RunStarted(
        run_id="run-1", agent="tester", input={"goal": "naïve ☃ \x00 \n", "big": 2**70, "kind": "text"}
    ),
    ModelReplied(
        parts=(
            Reasoning(text="hm", data={"signature": "abc", "kind": "reasoning"}),
            Text(text="let me see"),
            ToolCall(id="c1", name="add", arguments={"a": 1, "b": [1.5, None, True]}),
            ToolCall(id="c2", name="add", invalid="{nonsense"),
        ),
        stop_reason=StopReason.TOOL_CALLS,
        usage=Usage(
            input_tokens=3,
            output_tokens=4,
            cached_tokens=1,
            reasoning_tokens=2,
            cost_usd=0.25,
            cache_write_tokens=1,
        ),
        model="scripted:model",
        seconds=0.5,
    ),
    ModelAsked(model="scripted:model", reserved_usd=0.5, input_bound=100, max_tokens=10),
    ModelFailed(
        model="scripted:model",
        error=RunError(code="model_timeout", message="late", transient=True),
        usage=Usage(input_tokens=3, cost_usd=0.1),
        seconds=0.5,
        again_after=1.5,
    ),
    ToolStarted(call_id="c1", tool="add"),
    ToolReturned(call_id="c2", tool="add", error=RunError(code="bad_arguments", message="no JSON")),
    ApprovalAsked(
        approval_id="c1.1", call_id="c1", tool="add", arguments={"a": 1}, reason="?", interrupted=True
    ),
    ApprovalGiven(approval_id="c1.1", approved=True, reason="fine", by="anna"),
    ToolReturned(
        call_id="c1", tool="add", output={"sum": 3, "nested": {"kind": "finished", "parts": []}}, seconds=1.5
    ),
    ModelReplied(parts=(), stop_reason=StopReason.LENGTH, problem="cut off"),
    RunRetried(of="task-0"),
    Embedded(model="scripted:embeddings", usage=Usage(input_tokens=7, cost_usd=0.001), seconds=0.25),
    Declared(declared={"tools": {"add": {"effect": "pure"}}}, changed=["tools.add.effect"]),
    NestedSpent(
        run="run-2",
        agent="helper",
        model="scripted:model",
        usage=Usage(output_tokens=2),
        steps=3,
        failed=True,
    ),
    Recalled(notes=(Note(id="n1", text="Kim likes tea.", source="run 1", at=2.5, score=0.75),), seconds=0.5),
    Summarised(upto=7, text="so far", usage=Usage(input_tokens=9), model="scripted:model", seconds=0.5),
    Finished(status="completed", output=[1, "two", None]),
)
"""A step of every kind, with everything in it that is hard to store."""


class JournalContract:
    """What every journal keeps. Provide a fixture ``journal_factory``.

    ``journal_factory()`` returns an async context manager that opens the same run's journal each time it is entered.
    """

    async def test_a_new_journal_is_empty(self, journal_factory: Callable[[], Opened]) -> None:
        """Nothing has happened."""
        async with journal_factory() as journal:
            assert list(await journal.load()) == []

    async def test_steps_come_back_as_they_were(self, journal_factory: Callable[[], Opened]) -> None:
        """Every kind of step, with everything in it, in order, numbered from 0."""
        async with journal_factory() as journal:
            appended = [await journal.append(step) for step in EVERY_KIND]
            assert [recorded.step for recorded in appended] == list(EVERY_KIND)
            assert [recorded.seq for recorded in appended] == list(range(len(EVERY_KIND)))
            assert list(await journal.load()) == appended

    async def test_several_steps_at_once_are_the_same_steps(
        self, journal_factory: Callable[[], Opened]
    ) -> None:
        """In their order, numbered on, and there when it is opened again."""
        async with journal_factory() as journal:
            one = await journal.append(EVERY_KIND[0])
            several = await journal.append_all(EVERY_KIND[1:3])
            none = await journal.append_all(())
            assert [recorded.step for recorded in several] == list(EVERY_KIND[1:3])
            assert [recorded.seq for recorded in several] == [1, 2]
            assert list(none) == []
        async with journal_factory() as journal:
            assert list(await journal.load()) == [one, *several]

    async def test_what_was_appended_is_there_when_opened_again(
        self, journal_factory: Callable[[], Opened]
    ) -> None:
        """An acknowledged step outlives the one who appended it; numbers go on."""
        async with journal_factory() as journal:
            first = await journal.append(EVERY_KIND[0])
        async with journal_factory() as journal:
            assert list(await journal.load()) == [first]
            second = await journal.append(EVERY_KIND[1])
            assert second.seq == 1
            assert second.at >= first.at

    async def test_concurrent_appends_are_numbered_without_gaps(
        self, journal_factory: Callable[[], Opened]
    ) -> None:
        """Parallel tools record as they end."""
        async with journal_factory() as journal:
            await journal.append(EVERY_KIND[0])
            steps = [ToolReturned(call_id=f"c{number}", tool="add", output=number) for number in range(20)]
            appended = await asyncio.gather(*(journal.append(step) for step in steps))
            assert sorted(recorded.seq for recorded in appended) == list(range(1, 21))
            assert list(await journal.load())[1:] == sorted(appended, key=lambda recorded: recorded.seq)

    async def test_a_cancelled_append_is_whole_or_nothing(
        self, journal_factory: Callable[[], Opened]
    ) -> None:
        """Whoever stops waiting leaves no half a step, and later ones come after it."""
        async with journal_factory() as journal:
            await journal.append(EVERY_KIND[0])
            pending = asyncio.ensure_future(journal.append(ToolStarted(call_id="c1", tool="add")))
            await asyncio.sleep(0)
            pending.cancel()
            await asyncio.wait({pending})
            last = await journal.append(Finished(status="cancelled"))
            steps = await journal.load()
            assert [recorded.seq for recorded in steps] == list(range(len(steps)))
            assert steps[-1] == last
            assert len(steps) in (2, 3)
