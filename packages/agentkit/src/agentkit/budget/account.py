"""Account of a run: what it and the runs inside its tools may still use, of one budget."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from agentkit.budget.limits import Limits
from agentkit.errors import JournalError, LimitReached
from agentkit.money import nanos
from agentkit.transcript.steps import (
    ASIDES,
    Embedded,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Recorded,
    Step,
    Summarised,
)
from agentkit.transcript.usage import RunningUsage

_HERE: ContextVar[Account | None] = ContextVar("agentkit_account", default=None)


def account_here() -> Account | None:
    """The account of the run that this code is a part of, as its tools are; ``None`` outside of runs.

    Threads of synchronous tools and tasks that a tool starts have it, too. A task that is to outlive the run is started
    with a context of its own: ``asyncio.create_task(work(), context=contextvars.Context())``.
    """
    account = _HERE.get()
    return None if account is None or account.is_settled else account


@dataclass(kw_only=True, eq=False)
class Account:
    """What one run may use. A run inside one of its tools has an account of its own, and draws on this one as well.

    Used in the event loop of its run, and by runs in threads of synchronous tools.

    Attributes:
        run_id: of the run.
        agent: the name of its agent.
        limits: its budget.
        tally: the sums of its transcript, now.
        seconds_left: until the run must end; ``None`` for never.
        record: appends a step to its journal.
        look: raises where the run was told to stop.
        reserves: what a call may cost is recorded before it is made, whatever the limits are.
        outer: of the run in whose tool this one is.
        is_settled: the run has ended: what goes on inside its tools has no part in it any more.
        inner: the runs inside its tools, as the tasks that await them.
        held: nano-dollars of reservations that are being recorded.
        pending_steps: of the runs inside its tools, those of which its journal does not tell yet.
        lock: of this account and those around it.
    """

    run_id: str
    agent: str
    limits: Limits
    tally: Callable[[], RunningUsage]
    seconds_left: Callable[[], float | None]
    record: Callable[[Step], Awaitable[Recorded]]
    look: Callable[[], None]
    reserves: bool = False
    outer: Account | None = None
    is_settled: bool = False
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    inner: dict[asyncio.Task[object], asyncio.AbstractEventLoop] = field(
        default_factory=dict[asyncio.Task[object], asyncio.AbstractEventLoop]
    )
    lock: threading.RLock = field(default_factory=threading.RLock)
    held: int = 0
    _steps_to_print: int = 0
    pending_steps: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        if self.outer is not None:
            self.lock = self.outer.lock
        self._steps_to_print = _counted(self.tally())

    # --- for the run and the runs inside it ---------------------------------------------------------------------

    def enter(self) -> None:
        """From here on, in this task and what it starts, runs draw on this account."""
        _HERE.set(self)

    def look_in_time(self) -> None:
        """Look whether the run may go on, for calls that a tool or the memory makes.

        Raises:
            CancelledError, RunReleased: it was told to stop.
            LimitReached: its time is up, or that of a run around it.
        """
        self.look()
        own, around = self.seconds_left(), self.outer_seconds_left()
        if own is not None and own <= 0:
            raise LimitReached(f"the run has used its {self.limits.seconds:g} seconds")
        if around is not None and around <= 0:
            raise LimitReached("the time of the run around this one is up")

    @property
    def reserves_money(self) -> bool:
        """What a call may cost is recorded before it is made: here, or in a run around this one."""
        return any(one.reserves or one.limits.usd is not None for one in self._chain())

    def nanos_left(self) -> int | None:
        """Nano-dollars that a call may still cost; ``None`` for no limit."""
        with self.lock:
            return min(
                (left for one in self._chain() if (left := one.own_nanos_left()) is not None), default=None
            )

    @contextmanager
    def holding(self, asked: ModelAsked) -> Generator[bool]:
        """While a reservation is being recorded, nobody else reserves the same money; whether there was enough."""
        amount, chain = nanos(asked.reserved_usd), list(self._chain())
        with self.lock:
            left = self.nanos_left()
            fits = left is None or amount <= max(0, left)
            for one in chain if fits else ():
                one.held += amount
        try:
            yield fits
        finally:
            with self.lock:
                for one in chain if fits else ():
                    one.held -= amount

    def outer_seconds_left(self) -> float | None:
        """Until a run around this one must end; ``None`` for never."""
        found = (one.seconds_left() for one in self._chain() if one is not self)
        return min((seconds for seconds in found if seconds is not None), default=None)

    def outer_refusal(self) -> LimitReached | None:
        """Why a run around this one permits no further turn; ``None`` where it does."""
        for one in self._chain():
            if one is self:
                continue
            try:
                one.limits.check(one.tally(), sum(one.pending_steps.values()))
            except LimitReached as error:
                return LimitReached(f"{error}; this run was called by a tool of it, and draws on its budget")
        return None

    async def report_to_outer(self, steps: Sequence[Step]) -> None:
        """Record in the journal of the run around this one what it is charged for steps that are about to be recorded.

        Its journal comes first: it is the one that a worker carries on.
        """
        if self.outer is None or self.outer.is_settled:
            return
        counted = _counted(self.tally()) + sum(not isinstance(step, ASIDES) for step in steps)
        self.outer.pending_steps[self.run_id] = counted - self._steps_to_print
        for step in steps:
            told = self._step_for_outer(step, counted - self._steps_to_print)
            if told is not None:
                if not isinstance(told, ModelAsked) and told.run == self.run_id:
                    self._steps_to_print = counted
                    self.outer.pending_steps.pop(self.run_id, None)
                await self.outer.put(told)

    async def _report_rest(self) -> None:
        """Record there, too, the steps since the last call of a model: the run is carried no further.

        Raises:
            JournalError: the step could not be recorded.
        """
        left = _counted(self.tally()) - self._steps_to_print
        if self.outer is None or self.outer.is_settled or left <= 0:
            return
        self._steps_to_print += left
        await self.outer.put(NestedSpent(run=self.run_id, agent=self.agent, steps=left, failed=True))

    def _step_for_outer(self, step: Step, steps: int) -> ModelAsked | NestedSpent | None:
        match step:
            case ModelAsked():
                return replace(step, run=step.run or self.run_id)
            case NestedSpent():
                return step
            case Summarised(model=""):
                return None
            case ModelReplied() | ModelFailed() | Summarised() | Embedded():
                failed = isinstance(step, ModelFailed)
                return NestedSpent(
                    run=self.run_id,
                    agent=self.agent,
                    model=step.model,
                    usage=step.usage,
                    steps=steps,
                    failed=failed,
                )
            case _:
                return None

    async def put(self, step: Step) -> None:
        """Record a step of a run inside this one, from whatever event loop."""
        if asyncio.get_running_loop() is self._loop:
            await self.record(step)
        elif not self._loop.is_closed():  # this run is in the thread of a synchronous tool
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._record_here(step), self._loop))

    async def _record_here(self, step: Step) -> None:
        await self.record(step)

    # --- stopping ------------------------------------------------------------------------------------------------

    def look_outside(self) -> None:
        """Raise what a run around this one raises that was told to stop."""
        if self.outer is not None and not self.outer.is_settled:
            self.outer.look()

    def inside(self) -> AbstractAsyncContextManager[None]:
        """While this run is carried, a stop of the run around it reaches it, also in another thread.

        At its end the run around it is charged for what is left.

        Raises:
            JournalError: that could not be recorded.
        """
        return nullcontext() if self.outer is None else self._inside(self.outer)

    @asynccontextmanager
    async def _inside(self, outer: Account) -> AsyncGenerator[None]:
        task = asyncio.current_task()
        if task is None:
            yield
            return
        outer.inner[task] = asyncio.get_running_loop()
        try:
            yield
        except BaseException:
            with suppress(JournalError):  # what comes of the run is told, and not that
                await self._report_rest()
            raise
        else:
            await self._report_rest()
        finally:
            outer.inner.pop(task, None)
            outer.pending_steps.pop(self.run_id, None)

    def close(self, *, stopped: bool) -> None:
        """The run is carried no longer. Where it was stopped, the runs inside it are, too; else they go on alone."""
        if not stopped:
            self._settle()
            return
        for task, loop in list(self.inner.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def _settle(self) -> None:
        """Let go of the run, to which the contexts of its tasks lead through this account.

        Else each run would be a cycle of references, with its whole transcript, for the collector to find.
        """
        self.is_settled = True
        tally = self.tally()
        self.tally, self.seconds_left = (lambda: tally), (lambda: None)
        self.record, self.look = _refuse, (lambda: None)

    def _chain(self) -> Iterator[Account]:
        one: Account | None = self
        while one is not None and not one.is_settled:
            yield one
            one = one.outer

    def own_nanos_left(self) -> int | None:
        """Of the budget of this run alone."""
        left = self.limits.nanos_left(self.tally())
        return None if left is None else left - self.held


async def _refuse(step: Step) -> Recorded:
    del step
    message = "the run has ended"
    raise JournalError(message)


def _counted(tally: RunningUsage) -> int:
    return tally.steps - tally.asides
