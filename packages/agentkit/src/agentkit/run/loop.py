"""Loop of a run: read the transcript, do what is owed, record it; nothing else.

Everything the loop knows is in the steps. A crash, a deployment, an approval and a cancellation are therefore one and
the same event: the run stops, and the process that loads its journal goes on with what is still owed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, cast

from agentkit.budget.account import Account
from agentkit.errors import (
    ContextTooLong,
    JournalError,
    LimitReached,
    RunError,
    RunReleased,
    UsageError,
)
from agentkit.messages import (
    Delta,
    JsonValue,
)
from agentkit.ports import Journal
from agentkit.run.compaction import Gauge, Shorten, forced
from agentkit.run.control import Control, Host, cancel_and_wait, resolve
from agentkit.run.fingerprints import changes
from agentkit.run.memory import EmbeddingMeter
from agentkit.run.model_turn import Answer, NoReply, TimeUp, TurnRequest
from agentkit.run.next_step import (
    CallModel,
    CallTools,
    Conclude,
    Ended,
    Owed,
    Recall,
    RunSpec,
    Wait,
    concluded,
    failed,
    next_owed,
    withdrawal_of,
)
from agentkit.run.outcomes import Cancelled, Completed, Failed, Outcome, Waiting
from agentkit.run.tool_call import ToolExecutor, ToolProgress, in_order, place_of
from agentkit.transcript.steps import (
    ApprovalAsked,
    Declared,
    Finished,
    ModelReplied,
    OpenCall,
    Recalled,
    Recorded,
    RunStarted,
    Step,
    Summarised,
    beginning,
    declared_in,
    ending,
)
from agentkit.transcript.usage import RunningUsage
from agentkit.untrusted.boundary import is_meant_for, task_here

Event: TypeAlias = Recorded | Delta | ToolProgress
"""What a watcher of a run sees: recorded steps, and what is shown but not recorded."""

OnEvent: TypeAlias = Callable[[Event], None]

log = logging.getLogger("agentkit")


@dataclass(kw_only=True)
class Loop:
    """One run being carried.

    Attributes:
        work: the agent.
        journal: where the steps are.
        deps: for the tools.
        control: how the run is told to stop.
        host: the task that awaits the run.
        outer: the account of the run in whose tool this one is.
        on_event: told about each step and delta; without it the model is not asked to stream.
        steps: the transcript.
        tally: its sums.
        gauge: how large its conversation is, where the model's window is known.
        at: the moment at which this was made, by the journal's clock.
    """

    work: RunSpec
    journal: Journal
    deps: object
    control: Control
    host: Host
    on_event: OnEvent | None
    outer: Account | None = None
    steps: list[Recorded] = field(default_factory=list[Recorded])
    tally: RunningUsage = field(default_factory=RunningUsage)
    gauge: Gauge | None = None
    at: float = field(default_factory=time.time)
    _began: float = field(default_factory=lambda: _now())  # noqa: PLW0108  (it is defined below)
    _last: float = 0.0
    _clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    _given: RunStarted | None = None
    _change: Declared | None = None
    _is_declared: bool = True
    _abandoned: bool = False
    _watcher_failed: bool = False

    async def carry(self, given: RunStarted) -> Outcome[JsonValue]:
        """Carry the run as far as it goes.

        Raises:
            RunReleased: it was let go.
            JournalError: a step could not be recorded; the journal can be resumed.
        """
        self._given = given
        await self._begin(given)
        async with self.account.inside():
            try:
                return await self._carry()
            finally:
                self.account.close(stopped=self._is_stopped)

    async def _carry(self) -> Outcome[JsonValue]:
        turns = asyncio.create_task(self._turns())
        over = asyncio.get_running_loop().create_future()
        turns.add_done_callback(lambda ended: resolve(over, ended))
        self.control.steer(turns, over)
        try:
            await over
        except asyncio.CancelledError:  # from outside: no end is recorded, the run can be resumed
            self.host.left = True
            await self._give_up(turns)
            raise
        return await self._outcome_of(turns)

    async def _load(self) -> None:
        self.steps = list(await self.journal.load())
        self.tally = RunningUsage.of(self.steps)
        if self.work.context.window is not None:
            self.gauge = Gauge.of(self.work.asker.brief, self.steps)
        self._last = _now()

    async def _begin(self, given: RunStarted) -> None:
        await self._load()
        if not self.steps:
            await self._record(replace(given, declared=self.work.declared))
            return
        self._look_for_changes()
        first = beginning(self.steps)
        if first is None or given.input not in (None, first.input):
            message = "the journal holds another run: its first step has another input"
            raise UsageError(message)
        if (first.earlier, first.earlier_digest) != (given.earlier, given.earlier_digest):
            message = f"the run began with {first.earlier} earlier turns of its conversation, and is given others now"
            raise UsageError(message)

    def _look_for_changes(self) -> None:
        """What the run is made of is recorded with its first reply, and a change of it before the next step."""
        before, now = declared_in(self.steps), self.work.declared
        self._is_declared = before is not None
        if before is not None and (changed := changes(before, now)):
            self._change = Declared(declared=now, changed=changed)

    async def _outcome_of(self, turns: asyncio.Task[Outcome[JsonValue]]) -> Outcome[JsonValue]:
        self._abandoned = not turns.done()  # a tool ignores its cancellation: the run ends without it
        if self.control.ending is None:
            if turns.cancelled():
                raise asyncio.CancelledError
            return turns.result()
        if turns.done() and not turns.cancelled() and (error := turns.exception()) is not None:
            log.warning("run %s was ended; %s came of its last turn", self._run_id, type(error).__name__)
        # whatever became of the turns, the run ends as it was told; what was being recorded at that moment is kept
        await self._load()
        if ending(self.steps) is None:
            await self._append(self.control.ending)
        return self._outcome()

    async def _give_up(self, turns: asyncio.Task[Any]) -> None:
        await cancel_and_wait(turns)
        self._abandoned = True

    async def _turns(self) -> Outcome[JsonValue]:
        self.account.enter()
        while True:
            now = self._clock()
            at = self.at + now - self._began
            owed = next_owed(self.steps, self.tally, self.work, now - self._last, self.gauge, at)
            if not isinstance(owed, Ended):
                self._look()
                owed = self._within_outer(owed)
            failed: Failed | None = None
            match owed:
                case Ended():
                    return self._outcome()
                case Wait(on):
                    return Waiting(run_id=self._run_id, transcript=tuple(self.steps), on=on)
                case CallTools(calls):
                    failed = await self._call_tools(calls)
                case Conclude(step):
                    failed = await self._conclude(step)
                case Recall():
                    failed = await self._recall()
                case CallModel() | Shorten():
                    failed = await self._call_model(owed)
            if failed is not None:
                return failed

    def _within_outer(self, owed: Owed) -> Owed:
        """The same, unless a run around this one has nothing left for it."""
        if self.outer is None or isinstance(owed, Conclude):
            return owed
        seconds, refusal = self.account.outer_seconds_left(), None
        if seconds is not None and seconds <= 0:
            refusal = LimitReached("the time of the run is up in a tool of which this one was called")
        elif isinstance(owed, CallModel | Shorten | Recall):
            refusal = self.account.outer_refusal()
        return owed if refusal is None else Conclude(failed(refusal.as_run_error()))

    async def _conclude(self, step: Finished) -> Failed | None:
        memory = self.work.memory
        if memory is not None and memory.keeps_outcomes:
            problem = await memory.keep(self.steps, step, self._seconds_left(), self._meter)
            if problem is not None:
                return await self._unanswered(problem)
        await self._record(step)
        return None

    async def _recall(self) -> Failed | None:
        assert self.work.memory is not None
        found = await self.work.memory.recall(self.steps, self._seconds_left(), self._meter)
        if not isinstance(found, Recalled):
            return await self._unanswered(found)
        await self._record(found)
        return None

    async def _unanswered(self, problem: TimeUp | NoReply) -> Failed | None:
        """An unrecorded failure ends the carrying, not the run."""
        self._look()
        if self._is_out_of_time:  # as next_owed will find
            return None
        match problem:
            case TimeUp():
                return None
            case NoReply(error, final=True):
                await self._record(failed(error))
                return None
            case NoReply(error):
                return Failed(run_id=self._run_id, transcript=tuple(self.steps), error=error, resumable=True)

    async def _call_model(self, owed: CallModel | Shorten) -> Failed | None:
        """One turn of the model."""
        answer = await self._ask(owed)
        if isinstance(owed, CallModel) and _is_too_long(answer):
            gauge = Gauge.of(self.work.asker.brief, self.steps)
            shorter = forced(gauge, self.work.context)
            if shorter is not None:
                answer = await self._ask(shorter)
        match answer:
            case ModelReplied():
                await self._record_reply(answer)
            case Summarised():
                await self._record(answer)
            case TimeUp() | NoReply():
                return await self._unanswered(answer)
        return None

    async def _ask(self, owed: CallModel | Shorten) -> Answer:
        wanted = TurnRequest(
            transcript=self.steps,
            tally=self.tally,
            account=self.account,
            seconds_left=self._seconds_left,
            record=self._record,
            on_delta=None if self.on_event is None else self._show,
            look=self._look,
        )
        if isinstance(owed, Shorten):
            return await self.work.asker.shorten(wanted, owed)
        return await self.work.asker.ask(wanted)

    async def _record_reply(self, reply: ModelReplied) -> None:
        """With the end of the run, where nothing else is owed after it: nothing is done between the two."""
        seconds_left = self._seconds_left()
        memory = self.work.memory
        if not self._is_declared:
            reply, self._is_declared = replace(reply, declared=self.work.declared), True
        is_last = reply.is_last_word
        if (memory is not None and memory.keeps_outcomes) or self._ends_otherwise:
            is_last = False
        if is_last and (seconds_left is None or seconds_left > 0):
            await self._record(reply, concluded(reply, self.work.output))
        else:
            await self._record(reply)

    async def _call_tools(self, calls: Sequence[OpenCall]) -> Failed | None:
        seconds_left = self._seconds_left()
        caller = ToolExecutor(
            run_id=self._run_id,
            deps=self.deps,
            policy=self.work.policy,
            toolsets=self.work.toolsets,
            specs=self.work.specs,
            offered=self.work.asker.brief.tools,
            deadline=None if seconds_left is None else _now() + seconds_left,
            record=self._record,
            show=self._show,
            meter=self._meter,
            kill_switch=self.control.kill_switch,
            is_stopped=lambda: self._is_stopped,
            is_out_of_time=lambda: self._is_out_of_time,
        )
        for together in in_order(calls, self.work.specs):
            await self._settle(caller, together)
            if (trouble := caller.machine_error) is not None:
                return await self._unanswered(NoReply(trouble.as_run_error()))
        return None

    async def _settle(self, caller: ToolExecutor, calls: Sequence[OpenCall]) -> None:
        """Calls that run side by side."""
        if len(calls) == 1:
            await caller.settle(calls[0], self.steps)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for owed in calls:
                    group.create_task(caller.settle(owed, self.steps))
        except BaseExceptionGroup as several:
            raise _first(several) from None

    async def _record(self, step: Step, *more: Step) -> Recorded:
        # nothing begins, or is decided, once the run was told to stop; what has happened all the same, a reply that was
        # paid for or the result of a call, is a fact and is kept
        if self._abandoned:
            message = "this run was given up; a tool that ignored its cancellation may not go on with it"
            raise JournalError(message)
        withdrawal = withdrawal_of(step)
        if withdrawal is not None or isinstance(step, ApprovalAsked | Finished):
            self._look()
        if withdrawal is None:
            return await self._append(step, *more)
        try:
            recorded = await self._append(step)
            self._look()  # nothing that was announced after the stop is left open
        except (asyncio.CancelledError, RunReleased):
            with suppress(JournalError):  # it is left open, as by a crash
                await self._append(withdrawal)
            raise
        return recorded

    @property
    def _ends_otherwise(self) -> bool:
        """The run was ended from outside, or nobody awaits it any more."""
        return self.control.ending is not None or self.host.has_left or self._abandoned

    @property
    def _is_stopped(self) -> bool:
        return self._ends_otherwise or self.control.stopped

    @property
    def _is_out_of_time(self) -> bool:
        seconds_left = self._seconds_left()
        return seconds_left is not None and seconds_left <= 0

    def _look(self) -> None:
        """Let nothing begin once the run was told to stop, whatever a tool has done with its CancelledError.

        Raises:
            CancelledError: it was ended, or nobody awaits it any more.
            RunReleased: it was let go, or is halted.
        """
        if self._ends_otherwise:
            raise asyncio.CancelledError
        if self.control.stopped:
            raise RunReleased
        if self.outer is not None:
            self.account.look_outside()

    async def _append(self, step: Step, *more: Step) -> Recorded:
        """The one durable line; gives the first step as recorded."""
        if self.outer is not None:
            await self.account.report_to_outer((step, *more))
        change, self._change = self._change, None
        steps = (step, *more) if change is None else (change, step, *more)
        recorded = (
            await self.journal.append_all(steps) if len(steps) > 1 else (await self.journal.append(step),)
        )
        self._last = self._clock()
        for one in recorded:
            self.steps.append(one)
            self.tally.add(one)
            if self.gauge is not None:
                self.gauge.add(one)
            if self.on_event is not None:
                self._show(one)
        return recorded[0 if change is None else 1]

    def _show(self, event: Event) -> None:
        """A watcher that raises harms nothing but what it shows: it stands between a paid reply and its record."""
        if self.on_event is None:
            return
        try:
            self.on_event(event)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError) and is_meant_for(task_here(), error):
                raise
            if not self._watcher_failed:
                log.error("on_event raised %s at %s; the run goes on", type(error).__name__, place_of(error))
            self._watcher_failed = True

    def _seconds_left(self) -> float | None:
        if self.outer is None:
            return self._own_seconds_left()
        own = self._own_seconds_left()
        around = self.account.outer_seconds_left()
        return min((seconds for seconds in (own, around) if seconds is not None), default=None)

    def _own_seconds_left(self) -> float | None:
        limits = self.work.limits
        return None if limits.seconds is None else limits.seconds_left(self.tally, self._clock() - self._last)

    @cached_property
    def account(self) -> Account:
        """What the run and those inside its tools may use."""
        work, first = self.work, beginning(self.steps) or self._given
        assert first is not None
        return Account(
            run_id=first.run_id,
            agent=first.agent,
            limits=work.limits,
            tally=lambda: self.tally,
            seconds_left=self._own_seconds_left,
            record=self._record,
            look=self._look,
            reserves=work.reserves,
            outer=self.outer,
        )

    @cached_property
    def _meter(self) -> EmbeddingMeter:
        return EmbeddingMeter(prices=self.work.asker.prices, account=self.account)

    @property
    def _run_id(self) -> str:
        first = beginning(self.steps)
        assert first is not None
        return first.run_id

    def _outcome(self) -> Outcome[JsonValue]:
        finished = ending(self.steps)
        assert finished is not None
        transcript = tuple(self.steps)
        if finished.status == "completed":
            return Completed(run_id=self._run_id, transcript=transcript, output=finished.output)
        if finished.status == "cancelled":
            return Cancelled(run_id=self._run_id, transcript=transcript)
        error = finished.error or RunError(code="error", message="no reason was recorded")
        return Failed(run_id=self._run_id, transcript=transcript, error=error)


def _is_too_long(answer: Answer) -> bool:
    return isinstance(answer, NoReply) and answer.error.code == ContextTooLong.code


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first(several: BaseExceptionGroup[Any]) -> BaseException:
    first: Any = several.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("Any", first).exceptions[0]
    return cast("BaseException", first)
