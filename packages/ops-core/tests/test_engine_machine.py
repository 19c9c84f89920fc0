"""The engine against a model of it: whatever is done in whatever order, both say the same."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentkit.transcript.steps import ApprovalAsked, ApprovalGiven, Finished, RunRetried, RunStarted, Step
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.errors import ApprovalConflict, ApprovalNotFound, LeaseLost, TransitionRefused
from ops_core.ports import TaskFilter
from ops_core.stores import SqlStore
from ops_core.task import (
    FREE_HANDOVERS,
    HANDOVER_SECONDS,
    TRANSITIONS,
    Lease,
    NewTask,
    Task,
    TaskStatus,
    stopped_in_vain,
)
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.servers.postgresql import PostgresClock, PostgresServer
from ops_core.testing.store_contract.examples import AGENT, CANCELLED, COMPLETED, FAILED, LATER, TENANT

picks = st.integers(0, 11)


@dataclass
class Sim:
    """A task as it should be."""

    id: str
    priority: int
    max_attempts: int
    timeout: float | None
    run_after: float | None
    status: TaskStatus = TaskStatus.PENDING
    steps: list[Step] = field(default_factory=list)
    attempt: int = 0
    epoch: int = 0
    at_claim: int = 0
    cancel: bool = False
    retried_as: str | None = None
    handovers: int = 0
    deadline: float | None = None
    owner: str | None = None
    until: float | None = None
    epochs: list[int] = field(default_factory=list)

    def holds(self, lease: Lease) -> bool:
        return self.status is TaskStatus.RUNNING and self.epoch == lease.epoch

    @property
    def progressed(self) -> bool:
        return len(self.steps) > self.at_claim

    def let_go(self, status: TaskStatus, run_after: float | None) -> None:
        self.status, self.run_after, self.owner, self.until = status, run_after, None, None

    def end(self, step: Step | None, status: TaskStatus, *, by_worker: bool = False) -> None:
        self.let_go(status, None)
        if step is not None:
            self.steps.append(step)
        if not by_worker:
            self.epoch += 1

    def open_approvals(self) -> set[str]:
        asked = {step.approval_id for step in self.steps if isinstance(step, ApprovalAsked)}
        return asked - {step.approval_id for step in self.steps if isinstance(step, ApprovalGiven)}


class EngineMachine(RuleBasedStateMachine):
    """Most of what it does concerns open tasks and leases that hold; the others are tried now and then."""

    @initialize(
        timeouts=st.tuples(st.sampled_from([None, 20.0]), st.just(None), st.sampled_from([None, 100.0])),
        max_attempts=st.integers(1, 3),
    )
    def open(self, timeouts: tuple[float | None, ...], max_attempts: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.opened = self.open_store()
        self.store = self.run(self.opened.__aenter__())
        self.engine = Engine(self.store, LocalDispatcher())
        self.sims: dict[str, Sim] = {}
        self.leases: list[Lease] = []
        self.number = 0
        self.swept = 0.0
        self.seen: dict[str, Task] = {}
        for priority, timeout in enumerate(timeouts):
            self.submit(priority - 1, None, timeout, max_attempts)

    def open_store(self) -> AbstractAsyncContextManager[SqlStore]:
        self.clock = FakeClock(1000.0)
        return open_test_store(clock=self.clock)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def now(self) -> float:
        return self.clock.now

    def task(self, pick: int) -> Sim:
        """Mostly an open one."""
        every = list(self.sims.values())
        still_open = [sim for sim in every if not sim.status.terminal]
        among = still_open if still_open and pick < 9 else every
        return among[pick % len(among)]

    def lease(self, pick: int) -> tuple[Lease, Sim, bool]:
        """Mostly one that holds; with its task, and whether it holds."""
        held = [lease for lease in self.leases if self.sims[lease.task_id].holds(lease)]
        among = held if held and pick < 9 else self.leases
        lease = among[pick % len(among)]
        return lease, self.sims[lease.task_id], lease in held

    def expect(self, wanted: bool, error: type[Exception], work: Any) -> Any:
        """The result of ``work``, or the error where it is not wanted."""
        if wanted:
            return self.run(work)
        with pytest.raises(error):
            self.run(work)
        return None

    # --- people ---

    @precondition(lambda self: sum(not sim.status.terminal for sim in self.sims.values()) < 3)
    @rule(
        priority=st.integers(-1, 1),
        delay=st.sampled_from([None, -5.0, 7.0]),
        timeout=st.sampled_from([None, None, 20.0, 100.0]),
        max_attempts=st.integers(1, 3),
    )
    def submit(self, priority: int, delay: float | None, timeout: float | None, max_attempts: int) -> None:
        new = NewTask(
            agent=AGENT,
            input=1,
            priority=priority,
            run_at=None if delay is None else self.now + delay,
            timeout_seconds=timeout,
            max_attempts=max_attempts,
        )
        task = self.run(self.engine.submit(new)).task
        self.sims[task.id] = Sim(task.id, priority, max_attempts, timeout, self.now + (delay or 0))

    @precondition(lambda self: self.sims)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        sim = self.task(pick)
        self.run(self.engine.cancel(TENANT, sim.id))
        if sim.status is TaskStatus.RUNNING:
            sim.cancel = True
        elif not sim.status.terminal:
            sim.end(CANCELLED, TaskStatus.CANCELLED)

    def asking(self) -> list[Sim]:
        return [
            sim for sim in self.sims.values() if any(isinstance(step, ApprovalAsked) for step in sim.steps)
        ]

    @precondition(lambda self: self.asking())
    @rule(pick=picks, place=st.integers(0, 3), approved=st.booleans())
    def answer(self, pick: int, place: int, approved: bool) -> None:
        asking = self.asking()
        sim = asking[pick % len(asking)]
        asked = [step.approval_id for step in sim.steps if isinstance(step, ApprovalAsked)]
        approval_id = asked[place % len(asked)] if asked else "none"
        given = ApprovalGiven(approval_id=approval_id, approved=approved)
        work = self.engine.answer(TENANT, sim.id, given)
        before = [
            step for step in sim.steps if isinstance(step, ApprovalGiven) and step.approval_id == approval_id
        ]
        if before:
            self.expect(given in before, ApprovalConflict, work)
        elif sim.status.terminal:
            self.expect(False, TransitionRefused, work)
        elif self.expect(approval_id in sim.open_approvals(), ApprovalNotFound, work):
            sim.steps.append(given)
            if sim.status is TaskStatus.WAITING:
                sim.run_after = self.now

    @precondition(lambda self: len(self.sims) < 8 and any(sim.status.terminal for sim in self.sims.values()))
    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        ended = [sim for sim in self.sims.values() if sim.status.terminal]
        sim = self.task(pick) if pick == 0 else ended[pick % len(ended)]
        allowed = sim.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)
        retried = self.expect(allowed, TransitionRefused, self.engine.retry(TENANT, sim.id))
        if not allowed:
            return
        assert retried.created == (sim.retried_as is None), "a task is retried once"
        task = retried.task
        if sim.retried_as is not None:
            assert task.id == sim.retried_as
            return
        sim.retried_as = task.id
        kept = sim.steps[:-1]
        was: Literal["cancelled", "failed"] = "cancelled" if sim.status is TaskStatus.CANCELLED else "failed"
        steps: list[Step] = [*kept, RunRetried(of=sim.id, was=was)] if kept else []
        self.sims[task.id] = Sim(task.id, sim.priority, sim.max_attempts, sim.timeout, self.now, steps=steps)

    # --- workers ---

    def due(self) -> list[Sim]:
        """What can be claimed, in the order in which it is."""
        found = [
            sim
            for sim in self.sims.values()
            if sim.status in (TaskStatus.PENDING, TaskStatus.WAITING)
            and sim.run_after is not None
            and sim.run_after <= self.now
        ]
        return sorted(found, key=lambda sim: (-sim.priority, sim.run_after, sim.id))

    @precondition(lambda self: self.due())
    @rule(worker=st.sampled_from(["a", "b", "c"]), slots=st.integers(1, 3))
    def claim(self, worker: str, slots: int) -> None:
        due = self.due()
        found = self.run(self.engine.claim(worker, slots, 10.0, [AGENT]))
        assert [one.task.id for one in found] == [sim.id for sim in due[:slots]]
        for one, sim in zip(found, due, strict=False):
            sim.attempt += sim.status is TaskStatus.PENDING
            sim.status, sim.owner, sim.until = TaskStatus.RUNNING, worker, self.now + 10
            assert (one.begun is not None) == (not sim.steps)
            if one.begun is not None:
                sim.steps.append(one.begun.step)
            sim.at_claim = len(sim.steps)
            if sim.deadline is None and sim.timeout is not None:
                sim.deadline = self.now + sim.timeout
            sim.epoch += 1
            assert one.lease.epoch == sim.epoch
            assert sim.epoch not in sim.epochs, "an epoch was given twice"
            sim.epochs.append(sim.epoch)
            self.leases.append(one.lease)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, kinds=st.lists(st.sampled_from(["note", "ask"]), min_size=1, max_size=3))
    def append(self, pick: int, kinds: list[str]) -> None:
        lease, sim, held = self.lease(pick)
        for kind in kinds:
            self.append_one(lease, sim, held, kind)

    def append_one(self, lease: Lease, sim: Sim, held: bool, kind: str) -> None:
        self.number += 1
        step: Step = RunStarted(run_id=str(self.number), agent=AGENT, input=1)
        if kind == "ask":
            step = ApprovalAsked(
                approval_id=str(self.number), call_id="c", tool="t", arguments={}, reason="r"
            )
        recorded = self.expect(held, LeaseLost, self.store.append(lease, step))
        if held:
            assert recorded.seq == len(sim.steps)
            sim.steps.append(step)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, step=st.sampled_from([COMPLETED, FAILED, CANCELLED]))
    def finish(self, pick: int, step: Finished) -> None:
        lease, sim, held = self.lease(pick)
        self.expect(held, LeaseLost, self.store.append(lease, step))
        if held:
            sim.end(step, TaskStatus(step.status), by_worker=True)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, unseen=st.integers(0, 1))
    def wait(self, pick: int, unseen: int) -> None:
        lease, sim, held = self.lease(pick)
        self.expect(held, LeaseLost, self.engine.wait(lease, len(sim.steps) - unseen))
        if held:
            sim.handovers *= not sim.progressed
            sim.let_go(TaskStatus.WAITING, self.now if unseen else None)
            self._ended_if_cancelled(sim)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, later=st.booleans())
    def release(self, pick: int, later: bool) -> None:
        lease, sim, held = self.lease(pick)
        self.expect(held, LeaseLost, self.engine.release(lease, LATER if later else None))
        if held:
            beyond = 0
            if not later:
                sim.handovers = 0 if sim.progressed else sim.handovers + 1
                beyond = max(0, sim.handovers - FREE_HANDOVERS)
            sim.attempt -= sim.progressed or (not later and not beyond)
            delay = LATER.delay_seconds if later else beyond * HANDOVER_SECONDS
            sim.let_go(TaskStatus.PENDING, self.now + delay)
            if beyond and sim.attempt >= sim.max_attempts and not sim.cancel:
                sim.end(stopped_in_vain(sim.handovers), TaskStatus.FAILED)
            self._ended_if_cancelled(sim)

    def _ended_if_cancelled(self, sim: Sim) -> None:
        if sim.cancel:
            sim.end(CANCELLED, TaskStatus.CANCELLED)

    @precondition(lambda self: self.leases)
    @rule(some_picks=st.lists(picks, max_size=4))
    def renew(self, some_picks: list[int]) -> None:
        some = list({self.lease(pick)[0] for pick in some_picks})
        renewed = self.run(self.engine.renew(some, 10.0))
        held = {lease for lease in some if self.sims[lease.task_id].holds(lease)}
        assert renewed.lost == set(some) - held
        assert renewed.cancelled == {lease for lease in held if self.sims[lease.task_id].cancel}
        for lease in held:
            self.sims[lease.task_id].until = self.now + 10

    # --- time ---

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0, 50.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.now > self.swept)
    @rule()
    def sweep(self) -> None:
        self.swept = self.now
        swept = self.run(self.engine.sweep())
        released, ended = set(), set()
        for sim in self.sims.values():
            late = sim.deadline is not None and sim.deadline < self.now
            expired = sim.until is not None and sim.until < self.now
            if sim.status is TaskStatus.RUNNING and not expired:
                continue
            if sim.status.terminal or (sim.status is not TaskStatus.RUNNING and not late):
                continue
            given_up = not sim.progressed and sim.attempt >= sim.max_attempts
            if sim.status is TaskStatus.RUNNING and sim.cancel:
                sim.end(CANCELLED, TaskStatus.CANCELLED)
            elif late or given_up:
                sim.end(None, TaskStatus.FAILED)
                last = self.run(self.store.steps(TENANT, sim.id))[-1].step
                assert last.error.code == ("timeout" if late else "worker_lost")
                sim.steps.append(last)
            else:
                sim.attempt -= sim.progressed
                sim.handovers *= not sim.progressed
                sim.let_go(TaskStatus.PENDING, self.now)
                released.add(sim.id)
                continue
            ended.add(sim.id)
        assert (set(swept.released), set(swept.ended)) == (released, ended)

    # --- what always holds ---

    @invariant()
    def the_store_is_as_it_should_be(self) -> None:
        tasks = self.run(self.store.list(TENANT, TaskFilter(limit=100)))
        assert [task.id for task in reversed(tasks)] == list(self.sims)
        for task in tasks:
            sim, before = self.sims[task.id], self.seen.get(task.id)
            assert (task.status, task.attempt, task.epoch) == (sim.status, sim.attempt, sim.epoch)
            assert (task.lease_owner, task.lease_until) == (sim.owner, sim.until)
            assert (task.deadline_at, task.cancel_requested) == (sim.deadline, sim.cancel)
            assert task.status is TaskStatus.RUNNING or task.run_after == sim.run_after
            assert task.attempt >= 0
            if before is not None:
                assert task.status in (before.status, *TRANSITIONS[before.status].values())
                assert not before.status.terminal or replace(task, retried_as=before.retried_as) == before
                assert task.retried_as == sim.retried_as
                assert task.epoch >= before.epoch
                assert task.updated_at >= before.updated_at
            if task != before:
                self.the_steps_are_as_they_should_be(task, sim)
            self.seen[task.id] = task

    def the_steps_are_as_they_should_be(self, task: Task, sim: Sim) -> None:
        recorded = self.run(self.store.steps(TENANT, task.id))
        assert [one.seq for one in recorded] == list(range(task.steps))
        assert [one.step for one in recorded] == sim.steps
        assert task.status.terminal == bool(recorded and isinstance(recorded[-1].step, Finished))

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for task_id, sim in self.sims.items():
                self.the_steps_are_as_they_should_be(self.run(self.store.get(TENANT, task_id)), sim)
            self.run(self.opened.__aexit__(None, None, None))
            self.loop.close()


TestEngineAgainstAModel = EngineMachine.TestCase
TestEngineAgainstAModel.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


class PostgresEngineMachine(EngineMachine):
    server: ClassVar[PostgresServer]

    def open_store(self) -> AbstractAsyncContextManager[SqlStore]:
        self.stack = ExitStack()
        name = self.stack.enter_context(self.server.database())
        self.clock = PostgresClock(self.server, name, 1000.0)
        return open_test_store(self.server.url(name))

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "stack"):
            self.stack.close()


class TestEngineOnPostgreSQLAgainstAModel(PostgresEngineMachine.TestCase):  # type: ignore[misc, valid-type]  # hypothesis makes it
    settings = settings(TestEngineAgainstAModel.settings, max_examples=12)

    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> Iterator[None]:
        PostgresEngineMachine.server = postgres
        yield
        del PostgresEngineMachine.server
