"""Runner of claimed tasks: agent, journal, heartbeat, cancellation; many runs on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from agentkit.agent import Agent
from agentkit.budget.prices import Prices
from agentkit.errors import Actor, AgentkitError, ModelResting, RunError, RunReleased
from agentkit.machine_errors import machine_error
from agentkit.messages import JsonValue
from agentkit.models.resilience.model import chain_of
from agentkit.models.resilience.provider_state import ProviderState
from agentkit.ports import Model
from agentkit.run.control import STUBBORN_SECONDS, Control
from agentkit.run.kill_switch import KillSwitch
from agentkit.run.loop import Event
from agentkit.run.outcomes import Cancelled, Completed, Failed, Outcome, Waiting
from agentkit.run.tool_call import place_of
from agentkit.transcript.codec import kind_of
from agentkit.transcript.steps import Finished, Recorded, Transcript, Turn, brings_further, open_calls
from agentkit.untrusted.boundary import guarded
from ops_core.concurrency.jitter import fraction, spread
from ops_core.config.catalog import Catalog, CatalogEntry
from ops_core.engine import Engine
from ops_core.errors import LeaseLost, OpsError, TaskUnreadable
from ops_core.halt import Halt
from ops_core.journal import TaskJournal
from ops_core.memory import opened_memory, scope_of
from ops_core.observability.logs import about
from ops_core.observability.metrics import Metrics, RunMetrics, RunOutcome
from ops_core.ports import RetryLater
from ops_core.spending import DayLimitReached
from ops_core.task import Claimed, Lease, RetryPolicy, Task, out_of_time
from ops_core.workers import Announcement

log = logging.getLogger("ops_core.runner")

AGAIN_SECONDS = 1.0
"""After leases could not be renewed, so long until that is tried again."""

_NOTHING_ATTEMPTED = frozenset({ModelResting.code, DayLimitReached.code})
"""What an attempt comes to that has called no model."""

OnTaskEvent: TypeAlias = Callable[[str, Event], None]
"""Told the task's id and what happened in its run, in the event loop; must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How a runner works.

    Attributes:
        owner: the name on its leases; unique among all workers, ever.
        concurrency: so many runs at a time.
        lease_seconds: silent for so long, it has lost its tasks.
        poll_seconds: when nobody wakes it, it looks for work this often.
        grace_seconds: when stopping, so long a run may take to reach its next step.
        retry: when a failed attempt is tried again.
        on_event: told what happens in the runs.
        only: ids of the tasks that it may take; ``None`` for any.
        announcement: what this worker says about itself; ``None`` for one that does not announce itself.
    """

    owner: str
    concurrency: int = 100
    lease_seconds: float = 15.0
    poll_seconds: float = 1.0
    grace_seconds: float = 10.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    on_event: OnTaskEvent | None = None
    only: frozenset[str] | None = None
    announcement: Announcement | None = None


@dataclass(slots=True)
class _Carried:
    """A run in hand.

    Attributes:
        control: of the run.
        running: carries it.
        lost: a heartbeat found its lease gone.
        ending: its last write is on its way, after which there is no lease any more: a heartbeat says nothing then.
        halt: somebody has halted it.
    """

    control: Control
    running: asyncio.Task[None]
    lost: bool = False
    ending: bool = False
    halt: Halt | None = None

    def give_up(self) -> None:
        """Stop carrying it, now. Its control is told as well, for code that swallows the one CancelledError."""
        self.control.release()
        self.running.cancel()


class Runner:
    """Claims tasks and carries them.

    Args:
        engine: where the tasks are.
        catalog: the agents it can run; tasks for others are left to other workers.
        options: see :class:`RunnerOptions`.
        metrics: told what it does.
        traffic: what is known of the providers; one for all runners of a process.
    """

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        options: RunnerOptions,
        metrics: RunMetrics | None = None,
        traffic: ProviderState | None = None,
    ) -> None:
        self._traffic = (
            ProviderState(catalog.terms.limits, breaking=catalog.terms.breaking)
            if traffic is None
            else traffic
        )
        self._engine = engine
        self._catalog = catalog
        self._options = options
        self._metrics = Metrics().runs if metrics is None else metrics
        self._carried: dict[Lease, _Carried] = {}
        self._stopping = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._agents: dict[str, Agent[Any, Any]] = {}
        self._models: _Models
        self._stack: AsyncExitStack

    @property
    def carrying(self) -> int:
        """So many runs are in its hands."""
        return len(self._carried)

    def stop(self, *, at_once: bool = False) -> None:
        """Claim nothing more and let the runs go; :meth:`run` then returns. Safe to call twice.

        Args:
            at_once: do not wait for the next step of each run: what is under way is given up and owed again.
        """
        self._stopping.set()
        for carried in self._carried.values():
            if at_once:
                carried.give_up()
            else:
                carried.control.release()

    async def run(self) -> None:
        """Work until :meth:`stop`, which takes ``grace_seconds`` at most; cancelled, let go of everything at once.

        What else is raised is a fault of the runner itself; it has let go of its tasks then.
        """
        self._metrics.set_capacity(self._options.concurrency)
        async with AsyncExitStack() as stack:
            stack.enter_context(about(worker=self._options.owner))
            self._stack = stack
            self._models = _Models(stack, self._catalog)
            heartbeat = asyncio.create_task(self._heartbeat())
            claiming = asyncio.create_task(self._claim())
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({stopping, claiming, heartbeat}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self.stop(at_once=True)
                raise
            finally:
                await _ended(claiming)
                await self._drain()
                await _ended(stopping, heartbeat)
                await self._leave()
            # one that broke must not leave a worker that only seems to work
            for part in (claiming, heartbeat):
                if not part.cancelled():
                    part.result()

    async def _drain(self) -> None:
        self.stop()
        carried = {one.running: one for one in self._carried.values()}
        if carried:
            _done, late = await asyncio.wait(carried, timeout=self._options.grace_seconds)
            for task in late:
                if not carried[task].ending:  # a last write that is on its way is waited for
                    task.cancel()
            if late:
                await asyncio.wait(late, timeout=2 * STUBBORN_SECONDS)

    # --- claiming -------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        options = self._options
        while True:
            free = options.concurrency - len(self._carried)
            if free <= 0:
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            if len(await self._claim_some(free)) == free:
                await self._engine.dispatcher.wake()  # there may be more, for whoever has slots
            else:
                await self._engine.dispatcher.woken(spread(options.poll_seconds))

    async def _claim_some(self, free: int) -> Sequence[Claimed]:
        options = self._options
        # a claim under way when the runner stops is waited for: nobody would know of its leases
        claim = asyncio.ensure_future(
            self._engine.claim(options.owner, free, options.lease_seconds, self._catalog.names, options.only)
        )
        try:
            claimed = await asyncio.shield(claim)
        except asyncio.CancelledError:
            with suppress(OpsError):
                for late in await claim:
                    await self._engine.release(late.lease)
            raise
        except OpsError as error:
            log.error("cannot claim: %s", error)
            return ()
        self._metrics.asked([_waited(one.task) for one in claimed])
        for one in claimed:
            self._start(one)
        return claimed

    def _start(self, claimed: Claimed) -> None:
        lease, control = claimed.lease, Control(KillSwitch(self._engine.halt_watch.look))
        if claimed.begun is not None:
            self._metrics.recorded(kind_of(claimed.begun.step))
            if self._options.on_event is not None:
                self._options.on_event(lease.task_id, claimed.begun)
        running = asyncio.create_task(self._run_task(claimed, control), name=f"task-{lease.task_id}")
        self._carried[lease] = _Carried(control, running)

        def end(done: asyncio.Task[None]) -> None:
            del self._carried[lease]
            self._slot_freed.set()
            if not done.cancelled() and (error := done.exception()) is not None:
                what, where = type(error).__name__, place_of(error)
                log.error("task %s: unexpected %s at %s; its lease runs out", lease.task_id, what, where)

        running.add_done_callback(end)

    # --- heartbeat ------------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Renew all leases, and say that this worker is alive; on the loop that carries the runs: a loop that is
        blocked counts as dead.
        """
        every, loop = self._options.lease_seconds / 3, asyncio.get_running_loop()
        announcement = self._options.announcement
        pause = every if announcement is None else 0.0
        while True:
            due = loop.time() + pause
            await asyncio.sleep(pause)
            pause = every
            if not self._carried and announcement is None:
                continue
            leases = tuple(self._carried)
            try:
                renewed = await self._engine.renew(leases, self._options.lease_seconds, announcement)
            except OpsError as error:
                self._metrics.not_renewed()
                log.error("cannot renew leases: %s", error)
                pause = min(every, AGAIN_SECONDS)
                continue
            self._metrics.renewed(loop.time() - due)
            for lease in renewed.cancelled & self._carried.keys():
                self._carried[lease].control.cancel()
            for lease in renewed.lost & self._carried.keys():
                carried = self._carried[lease]
                if not carried.ending:
                    carried.lost = True
                    carried.give_up()

    async def _leave(self) -> None:
        if self._options.announcement is not None:
            with suppress(OpsError, TimeoutError):  # it is then forgotten when it has been silent for long
                async with asyncio.timeout(STUBBORN_SECONDS):
                    await self._engine.store.leave(self._options.owner)

    # --- one task -------------------------------------------------------------------------------------------------

    async def _run_task(self, claimed: Claimed, control: Control) -> None:
        task = claimed.task
        if self._stopping.is_set():
            control.release()
        if task.cancel_requested:
            control.cancel()
        loop, ending = asyncio.get_running_loop(), _Ending("left")
        began = loop.time()
        self._metrics.began()
        of = {"task": task.id, "tenant": task.tenant, "agent": task.agent}
        if task.trace is not None:
            of["trace_id"] = task.trace.id
        with about(**of, attempt=task.attempt, epoch=task.epoch):
            log.info("run began")
            try:
                ending = await self._under_lease(claimed, control)
            finally:
                await self._engine.wake_next_in_thread(task)
                seconds = loop.time() - began
                self._metrics.ended(task.agent, ending.outcome, seconds)
                log.info("run ended", extra={**ending.told(), "seconds": round(seconds, 3)})

    async def _under_lease(self, claimed: Claimed, control: Control) -> _Ending:
        """Carry a task until it has ended, or waits, or belongs to somebody else; the lease is in no hand then."""
        task, halt_watch = claimed.task, self._engine.halt_watch
        hold = partial(self._hold, claimed.lease)
        # claimed all the same: the halt was lifted a moment ago
        if halt_watch.holding(task) is not None:
            await halt_watch.refresh_quietly()
        try:
            with (
                self._engine.carrying(task.id, control.cancel),
                halt_watch.carrying(task, control.kill_switch, hold),
            ):
                return await self._outcome(claimed, control)
        except LeaseLost:
            return self._lost()
        except RunReleased:
            if self._carried[claimed.lease].lost:
                return self._lost()
            return await self._let_go(claimed, self._halted(claimed.lease))
        except TaskUnreadable as error:
            log.warning("left to newer workers: %s", error)
            return await self._let_go(claimed, RetryLater.by_a_newer_release(error))
        except asyncio.CancelledError:
            if self._carried[claimed.lease].lost:
                return self._lost()
            return await self._let_go(claimed, self._halted(claimed.lease))
        except OpsError as error:
            log.error("%s; the task goes on when its lease has run out", error)
            return _Ending("left", error.code)

    def _lost(self) -> _Ending:
        self._metrics.lost()
        log.warning("the lease was lost; another worker goes on with the task")
        return _Ending("lost")

    def _hold(self, lease: Lease, halt: Halt) -> None:
        """Let go of a run that somebody has halted, now; another worker takes it when the halt is lifted."""
        carried = self._carried[lease]
        if carried.halt is None and not carried.ending:
            carried.halt = halt
            log.warning("held: %s", halt)
            carried.give_up()

    def _halted(self, lease: Lease) -> RetryLater | None:
        halt = self._carried[lease].halt
        if halt is None:
            return None
        error = RunError(code="halted", message=str(halt), actor=Actor.OPERATOR, transient=True)
        return RetryLater(delay_seconds=0.0, error=error, counted=False)

    def _ends(self, lease: Lease) -> None:
        self._carried[lease].ending = True

    async def _let_go(self, claimed: Claimed, later: RetryLater | None = None) -> _Ending:
        self._ends(claimed.lease)
        try:
            await self._engine.release(claimed.lease, later)
        except OpsError as error:
            log.warning("cannot be released: %s", error)
            return _Ending("left", error.code)
        return _Ending("released")

    async def _outcome(self, claimed: Claimed, control: Control) -> _Ending:
        """Carry a task as far as it goes, and say how it stands."""
        task, lease, deadline = claimed.task, claimed.lease, _deadline(claimed, control)
        try:
            # guarded: what the catalog, and the models and memories that it opens, raise is theirs alone
            with guarded("the run"), nullcontext() if task.trace is None else task.trace.carried_on():
                outcome = await self._run_agent(claimed, control)
        except (OpsError, RunReleased):
            raise
        except AgentkitError as error:  # the agent or its model cannot be used at all
            return await self._fail(claimed, error.as_run_error())
        except Exception as error:  # noqa: BLE001  (a fault of one task must not end the worker)
            if (trouble := machine_error(error)) is not None:
                return await self._fail(claimed, trouble.as_run_error())
            log.error("unexpected %s at %s", type(error).__name__, place_of(error))
            message = f"the run ended with an unexpected {type(error).__name__}"
            return await self._fail(claimed, RunError(code="internal", message=message, transient=True))
        finally:
            if deadline is not None:
                deadline.cancel()
        match outcome:
            case Completed():
                return _Ending("completed")
            case Cancelled():
                return _Ending("cancelled")
            case Waiting():
                self._ends(lease)
                await self._engine.wait(lease, len(outcome.transcript), _first_expiry(outcome.transcript))
                return _Ending("waiting")
            case Failed() if not outcome.resumable:
                return _Ending("failed", outcome.error.code)
            case Failed():
                # as the store counts: the first step says only that the run began
                progressed = brings_further(outcome.transcript[max(task.steps, 1) :])
                return await self._fail(claimed, outcome.error, progressed=progressed)

    async def _run_agent(self, claimed: Claimed, control: Control) -> Outcome[JsonValue]:
        task, watcher = claimed.task, self._options.on_event
        served = self._catalog.get(task.agent)
        return await (await self._ready(served)).run(
            task.input,
            deps=served.deps,
            journal=self._journal(claimed, known=claimed.steps),
            run_id=task.id,
            earlier=await self._earlier(task),
            scope=scope_of(served.agent.memory, task),
            limits=task.budget,
            at=task.updated_at,
            control=control,
            reserves=self._catalog.terms.spending.limit(task.tenant) is not None,
            on_event=None if watcher is None else (lambda event: watcher(task.id, event)),
        )

    async def _earlier(self, task: Task) -> Sequence[Turn]:
        return () if task.thread_id is None else await self._engine.store.earlier(task.tenant, task.id)

    def _journal(self, claimed: Claimed, *, known: Sequence[Recorded] | None = None) -> TaskJournal:
        engine, lease = self._engine, claimed.lease
        recorded, ending = self._metrics.recorded, partial(self._ends, lease)
        return TaskJournal(
            engine.store,
            lease,
            engine.notify,
            recorded=recorded,
            on_cancel=self._carried[lease].control.cancel,
            ending=ending,
            known=known,
            spending=self._catalog.terms.spending,
            patience_seconds=self._options.lease_seconds,
        )

    async def _ready(self, served: CatalogEntry) -> Agent[Any, Any]:
        """The agent with its model and memory open; made once, as it keeps what it has worked out about its tools."""
        agent = served.agent
        if agent.name not in self._agents:
            given = (agent.model, *agent.fallback)
            models = [await self._models.get(model) if isinstance(model, str) else model for model in given]
            chain = chain_of(models, given=given, retries=agent.retries, traffic=self._traffic)
            prices = Prices({**self._catalog.terms.prices, **agent.prices.own})
            memory = agent.memory
            if memory is not None and isinstance(memory.memory, str):
                opened = await self._stack.enter_async_context(
                    opened_memory(memory, self._engine.store, self._catalog.endpoints)
                )
                memory = replace(memory, memory=opened)
            self._agents[agent.name] = replace(agent, model=chain, fallback=(), prices=prices, memory=memory)
        return self._agents[agent.name]

    async def _fail(self, claimed: Claimed, error: RunError, *, progressed: bool = False) -> _Ending:
        """Try again later where that can help, else record the end."""
        task, lease = claimed.task, claimed.lease
        again = progressed or task.attempt < task.max_attempts or error.code in _NOTHING_ATTEMPTED
        if error.transient and again:
            delay = self._options.retry.delay(task.attempt, fraction())
            delay = max(delay, error.retry_after or 0.0)
            asked = error.code not in _NOTHING_ATTEMPTED
            log.warning("attempt %d failed (%s); again in %.1f s", task.attempt, error.code, delay)
            self._ends(lease)
            await self._engine.release(lease, RetryLater(delay_seconds=delay, error=error, counted=asked))
            return _Ending("retried", error.code)
        await self._journal(claimed).append(Finished(status="failed", error=error))
        return _Ending("failed", error.code)


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a run was let go of.

    Attributes:
        outcome: as it is counted.
        code: of the error, where there is one.
    """

    outcome: RunOutcome
    code: str | None = None

    def told(self) -> dict[str, str]:
        return {"outcome": self.outcome} | ({} if self.code is None else {"code": self.code})


def _waited(task: Task) -> float:
    """Seconds from the moment at which it was due to its claim; both by the database's clock."""
    return 0.0 if task.run_after is None else task.updated_at - task.run_after


def _first_expiry(transcript: Transcript) -> float | None:
    """When the first of the open approvals expires."""
    moments = [owed.expires_at for owed in open_calls(transcript) if owed.waiting]
    return min((moment for moment in moments if moment is not None), default=None)


class _Models:
    """Each model that is named in the catalog, opened once, when it is first needed."""

    def __init__(self, stack: AsyncExitStack, catalog: Catalog) -> None:
        self._stack = stack
        self._catalog = catalog
        self._open: dict[str, Model] = {}

    async def get(self, name: str) -> Model:
        if name not in self._open:
            self._open[name] = await self._stack.enter_async_context(self._catalog.opened(name))
        return self._open[name]


def _deadline(claimed: Claimed, control: Control) -> asyncio.TimerHandle | None:
    """Ends the run as out of time when the task's deadline comes, unless it is cancelled before."""
    if claimed.seconds_left is None or claimed.task.timeout_seconds is None:
        return None
    ending = out_of_time(claimed.task.timeout_seconds)
    return asyncio.get_running_loop().call_later(max(0.0, claimed.seconds_left), control.end, ending)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
