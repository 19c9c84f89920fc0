"""The loop: look at the transcript, do what is owed, record it; nothing else.

Everything the loop knows is in the steps. A crash, a deployment, an approval and a cancellation are therefore one and
the same event: the run stops, and whoever loads its journal goes on with what is still owed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, cast

from agentkit.asking import Answer, Asker, TimeUp, Unanswered, Wanted
from agentkit.calls import Caller, ToolProgress
from agentkit.compaction import Context, Gauge, Shorten, due, forced
from agentkit.errors import (
    Actor,
    ContentRefused,
    ContextTooLong,
    JournalError,
    LimitReached,
    RunError,
    RunReleased,
    UsageError,
)
from agentkit.killswitch import KillSwitch
from agentkit.limits import Limits
from agentkit.messages import (
    DECLINED,
    Delta,
    JsonValue,
    StopReason,
    ToolSpec,
)
from agentkit.metering import RunMeter
from agentkit.outcomes import Cancelled, Completed, Failed, Outcome, Waiting
from agentkit.ports import Journal, Policy, Toolset
from agentkit.remembering import Remembering
from agentkit.schema import OutputSchema
from agentkit.tally import Tally
from agentkit.transcript import (
    ApprovalAsked,
    Finished,
    ModelReplied,
    OpenCall,
    Recalled,
    Recorded,
    RunStarted,
    Step,
    Summarised,
    Transcript,
    beginning,
    ending,
    last_turn,
    open_calls,
)

Event: TypeAlias = Recorded | Delta | ToolProgress
"""What a watcher of a run sees: recorded steps, and what is shown but not recorded."""

OnEvent: TypeAlias = Callable[[Event], None]

STUBBORN_SECONDS = 5.0
"""How long a cancelled run waits for a tool that ignores its cancellation before it ends without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run needs of its agent.

    Attributes:
        asker: asks the model.
        toolsets: the toolset of each tool, by name.
        specs: the tools by name.
        policy: decides about each call.
        output: the type of the output.
        limits: the budget.
        patience: so many turns in a row may bring the run no further.
        context: what is done when the conversation outgrows the model.
        memory: what outlives the run.
        reserves: what a call may cost is recorded before it is made, whatever the limits are.
    """

    asker: Asker
    toolsets: Mapping[str, Toolset]
    specs: Mapping[str, ToolSpec]
    policy: Policy
    output: OutputSchema[Any]
    limits: Limits
    patience: int
    context: Context = Context()
    memory: Remembering | None = None
    reserves: bool = False


# --- what is owed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallModel:
    """The model is to be asked."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What is remembered is to be looked for."""


@dataclass(frozen=True, slots=True)
class CallTools:
    """These calls have no result and wait for nobody."""

    calls: tuple[OpenCall, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before these questions are answered."""

    on: tuple[ApprovalAsked, ...]


@dataclass(frozen=True, slots=True)
class Conclude:
    """The run is over and this is to be recorded."""

    step: Finished


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over and that is recorded."""

    step: Finished


Owed: TypeAlias = CallModel | Recall | Shorten | CallTools | Wait | Conclude | Ended


def next_owed(
    transcript: Transcript,
    tally: Tally,
    work: Work,
    since_last: float = 0.0,
    gauge: Gauge | None = None,
    at: float = 0.0,
) -> Owed:
    """What a run with this transcript owes next. Pure.

    Args:
        transcript: all steps so far, the first of them a :class:`RunStarted`.
        tally: its sums.
        work: the agent.
        since_last: seconds since the last step was recorded or loaded.
        gauge: how large its conversation is, where the model's window is known.
        at: this moment, by the journal's clock.
    """
    finished = ending(transcript)
    if finished is not None:
        return Ended(finished)
    seconds_left = work.limits.seconds_left(tally, since_last)
    if seconds_left is not None and seconds_left <= 0:
        return Conclude(_failed(_out_of_time(work.limits)))
    calls = open_calls(transcript)
    if calls:
        ready = tuple(owed for owed in calls if not owed.waits(at))
        return (
            CallTools(ready) if ready else Wait(tuple(owed.asked for owed in calls if owed.asked is not None))
        )
    turn = last_turn(transcript)
    reply = turn[0].step if turn else None
    if isinstance(reply, ModelReplied) and not reply.tool_calls and reply.problem is None:
        return Conclude(_concluded(reply, work.output))
    if work.memory is not None and work.memory.owes_recall(transcript):
        return Recall()
    return _another_turn(tally, work, gauge)


def _another_turn(tally: Tally, work: Work, gauge: Gauge | None) -> Owed:
    """Limits are looked at between turns only: a transcript that ends here can always be carried on."""
    faults = tally.faulty_turns
    if faults > work.patience:
        message = f"{faults} turns in a row brought the run no further (malformed or repeated failing calls or replies)"
        return Conclude(_failed(RunError(code="no_progress", message=message, actor=Actor.DEVELOPER)))
    try:
        work.limits.check(tally)
    except LimitReached as error:
        return Conclude(_failed(error.as_run_error()))
    return (due(gauge, work.context) if gauge is not None else None) or CallModel()


def _concluded(reply: ModelReplied, output: OutputSchema[Any]) -> Finished:
    if reply.stop_reason in DECLINED:
        who = "the model" if reply.stop_reason is StopReason.REFUSED else "a filter of the provider"
        return _failed(
            ContentRefused(f"{who} declined: {reply.text.strip() or 'no reason given'}").as_run_error()
        )
    return Finished(status="completed", output=output.from_text(reply.text))


def _failed(error: RunError) -> Finished:
    return Finished(status="failed", error=error)


def _out_of_time(limits: Limits) -> RunError:
    return LimitReached(f"the run has used its {limits.seconds:g} seconds").as_run_error()


# --- doing it ----------------------------------------------------------------------------------------------------


class Control:
    """How a run in flight is told to stop. One control belongs to one run; call it from the run's event loop.

    Args:
        kill_switch: for the tools of the run; one that nobody has pulled where not given.
    """

    def __init__(self, kill_switch: KillSwitch | None = None) -> None:
        self.kill_switch = KillSwitch() if kill_switch is None else kill_switch
        self.ending: Finished | None = None
        self.released = False
        self._turns: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """End the run as cancelled, now: a model call or tool in flight is cancelled. Finished work is kept."""
        self.end(Finished(status="cancelled"))

    def end(self, ending: Finished) -> None:
        """End the run in this way, now. The first ending counts."""
        if self.ending is None:
            self.ending = ending
            self._stop()

    def release(self) -> None:
        """Let the run go at its next step; ``run`` then raises :class:`RunReleased`, and the journal can be resumed."""
        self.released = True

    def steer(self, turns: asyncio.Task[Any], over: asyncio.Future[None]) -> None:
        """Take over a run; for the loop itself. ``over`` is resolved when it is not to be waited for any longer."""
        self._turns, self._over = turns, over
        if self.ending is not None:
            self._stop()

    def _stop(self) -> None:
        if self._turns is not None and self._over is not None:
            self._turns.cancel()
            self._turns.get_loop().call_later(STUBBORN_SECONDS, _resolve, self._over)


@dataclass(kw_only=True)
class Loop:
    """One run being carried.

    Attributes:
        work: the agent.
        journal: where the steps are.
        deps: for the tools.
        control: how the run is told to stop.
        on_event: told about each step and delta; without it the model is not asked to stream.
        steps: the transcript.
        tally: its sums.
        gauge: how large its conversation is, where the model's window is known.
        at: the moment at which this was made, by the journal's clock.
    """

    work: Work
    journal: Journal
    deps: object
    control: Control
    on_event: OnEvent | None
    steps: list[Recorded] = field(default_factory=list[Recorded])
    tally: Tally = field(default_factory=Tally)
    gauge: Gauge | None = None
    at: float = field(default_factory=time.time)
    _began: float = field(default_factory=lambda: _now())  # noqa: PLW0108  (it is defined below)
    _last: float = 0.0
    _abandoned: bool = False

    async def carry(self, given: RunStarted) -> Outcome[JsonValue]:
        """Carry the run as far as it goes.

        Raises:
            RunReleased: it was let go.
            JournalError: a step could not be recorded; the journal can be resumed.
        """
        await self._begin(given)
        turns = asyncio.create_task(self._turns())
        over = asyncio.get_running_loop().create_future()
        turns.add_done_callback(lambda ended: _resolve(over, ended))
        self.control.steer(turns, over)
        try:
            await over
        except asyncio.CancelledError:  # from outside: nothing is recorded, the run can be resumed
            await self._give_up(turns)
            raise
        return await self._outcome_of(turns)

    async def _load(self) -> None:
        self.steps = list(await self.journal.load())
        self.tally = Tally.of(self.steps)
        if self.work.context.window is not None:
            self.gauge = Gauge.of(self.work.asker.brief, self.steps)
        self._last = _now()

    async def _begin(self, given: RunStarted) -> None:
        await self._load()
        if not self.steps:
            await self._record(given)
            return
        first = beginning(self.steps)
        if first is None or given.input not in (None, first.input):
            message = "the journal holds another run: its first step has another input"
            raise UsageError(message)
        if (first.earlier, first.earlier_digest) != (given.earlier, given.earlier_digest):
            message = f"the run began with {first.earlier} earlier turns of its conversation, and is given others now"
            raise UsageError(message)

    async def _outcome_of(self, turns: asyncio.Task[Outcome[JsonValue]]) -> Outcome[JsonValue]:
        self._abandoned = not turns.done()  # a tool ignores its cancellation: the run ends without it
        if turns.done() and not turns.cancelled():
            return turns.result()
        if self.control.ending is None:
            raise asyncio.CancelledError
        await self._load()  # what was being recorded at that moment is kept
        if ending(self.steps) is None:
            await self._append(self.control.ending)
        return self._outcome()

    async def _give_up(self, turns: asyncio.Task[Any]) -> None:
        turns.cancel()
        await asyncio.wait({turns}, timeout=STUBBORN_SECONDS)
        self._abandoned = True

    async def _turns(self) -> Outcome[JsonValue]:
        while True:
            now = _now()
            at = self.at + now - self._began
            owed = next_owed(self.steps, self.tally, self.work, now - self._last, self.gauge, at)
            if self.control.released and not isinstance(owed, Ended):
                raise RunReleased
            failed: Failed | None = None
            match owed:
                case Ended():
                    return self._outcome()
                case Wait(on):
                    return Waiting(run_id=self._run_id, transcript=tuple(self.steps), on=on)
                case CallTools(calls):
                    await self._call_tools(calls)
                case Conclude(step):
                    failed = await self._conclude(step)
                case Recall():
                    failed = await self._recall()
                case CallModel() | Shorten():
                    failed = await self._call_model(owed)
            if failed is not None:
                return failed

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

    async def _unanswered(self, problem: TimeUp | Unanswered) -> Failed | None:
        """An unrecorded failure ends the carrying, not the run."""
        match problem:
            case TimeUp():  # as next_owed will find
                return None
            case Unanswered(error, final=True):
                await self._record(_failed(error))
                return None
            case Unanswered(error):
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
            case TimeUp() | Unanswered():
                return await self._unanswered(answer)
        return None

    async def _ask(self, owed: CallModel | Shorten) -> Answer:
        wanted = Wanted(
            transcript=self.steps,
            tally=self.tally,
            limits=self.work.limits,
            seconds_left=self._seconds_left,
            record=self._record,
            on_delta=self.on_event,
            reserves=self.work.reserves,
        )
        if isinstance(owed, Shorten):
            return await self.work.asker.shorten(wanted, owed)
        return await self.work.asker.ask(wanted)

    async def _record_reply(self, reply: ModelReplied) -> None:
        """With the end of the run, where nothing else is owed after it: nothing is done between the two."""
        seconds_left = self._seconds_left()
        memory = self.work.memory
        is_last = not reply.tool_calls and reply.problem is None
        if memory is not None and memory.keeps_outcomes:
            is_last = False
        if is_last and (seconds_left is None or seconds_left > 0):
            await self._record(reply, _concluded(reply, self.work.output))
        else:
            await self._record(reply)

    async def _call_tools(self, calls: Sequence[OpenCall]) -> None:
        seconds_left = self._seconds_left()
        caller = Caller(
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
        )
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
        if self._abandoned:
            message = "this run was given up; a tool that ignored its cancellation may not go on with it"
            raise JournalError(message)
        return await self._append(step, *more)

    async def _append(self, step: Step, *more: Step) -> Recorded:
        """The one durable line; gives the first step as recorded."""
        recorded = (
            await self.journal.append_all((step, *more)) if more else (await self.journal.append(step),)
        )
        self._last = _now()
        for one in recorded:
            self.steps.append(one)
            self.tally.add(one)
            if self.gauge is not None:
                self.gauge.add(one)
            self._show(one)
        return recorded[0]

    def _show(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _seconds_left(self) -> float | None:
        return self.work.limits.seconds_left(self.tally, _now() - self._last)

    @cached_property
    def _meter(self) -> RunMeter:
        work = self.work
        return RunMeter(
            prices=work.asker.prices,
            limits=work.limits,
            tally=lambda: self.tally,
            record=self._record,
            reserves=work.reserves,
        )

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


def _resolve(over: asyncio.Future[None], ended: asyncio.Task[Any] | None = None) -> None:
    if not over.done():
        over.set_result(None)
    elif ended is not None and not ended.cancelled():
        ended.exception()  # of a run that was given up: seen, so that asyncio does not report it as overlooked


def _is_too_long(answer: Answer) -> bool:
    return isinstance(answer, Unanswered) and answer.error.code == ContextTooLong.code


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first(several: BaseExceptionGroup[Any]) -> BaseException:
    first: Any = several.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("Any", first).exceptions[0]
    return cast("BaseException", first)
