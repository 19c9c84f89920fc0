"""Tasks and steps for the contract suites, and short ways to a task in any status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from agentkit.errors import RunError
from agentkit.messages import Text, ToolCall, Usage
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Finished,
    ModelReplied,
    RunStarted,
    Step,
    ToolReturned,
    ToolStarted,
)
from ops_core.ports import RetryLater, Store
from ops_core.task import DEFAULT_TENANT, Claimed, Lease, NewTask, Task, TaskStatus

AGENT = "counter"
OWNER = "worker-1"
TENANT = DEFAULT_TENANT
OTHER_TENANT = "other"
LEASE_SECONDS = 30.0
NO_ID = "00000000-0000-7000-8000-000000000000"

STARTED = RunStarted(run_id="run-1", agent=AGENT, input="Count to three.")
REPLIED = ModelReplied(parts=(Text(text="One."),), usage=Usage(input_tokens=7, output_tokens=3))
CALLED = ModelReplied(parts=(ToolCall(id="call_1", name="count"),))
BEGUN = ToolStarted(call_id="call_1", tool="count")
RETURNED = ToolReturned(call_id="call_1", tool="count", output=[1, 2, 3])
ASKED = ApprovalAsked(approval_id="call_1.1", call_id="call_1", tool="count", arguments={}, reason="why not")
GIVEN = ApprovalGiven(approval_id="call_1.1", approved=True, by="somebody")
COMPLETED = Finished(status="completed", output={"count": 3})
FAILED = Finished(status="failed", error=RunError(code="broken", message="It broke."))
CANCELLED = Finished(status="cancelled")
LATER = RetryLater(delay_seconds=10.0, error=RunError(code="busy", message="Not now.", transient=True))


class MovableClock(Protocol):
    """What a contract suite wants of the store's clock."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        ...


async def submitted(store: Store, **fields: Any) -> Task:
    """A task that was just submitted."""
    new = replace(NewTask(agent=AGENT, input="Count to three."), **fields)
    return (await store.insert(new)).task


async def claim(
    store: Store, *, owner: str = OWNER, slots: int = 100, agents: Collection[str] = (AGENT,)
) -> Sequence[Claimed]:
    """What is due."""
    return await store.claim(owner, slots, LEASE_SECONDS, agents)


async def claimed(store: Store, *steps: Step, **fields: Any) -> Claimed:
    """A task that was just submitted and claimed, with these steps; nothing else may be due."""
    task = await submitted(store, **fields)
    return await claimed_again(store, task.id, *steps)


async def claimed_again(store: Store, task_id: str, *steps: Step) -> Claimed:
    """A task that was due, with these steps more; nothing else may be due."""
    (one,) = await claim(store)
    assert one.task.id == task_id
    for step in steps:
        if step is not STARTED or one.begun is None:  # the claim has recorded that the run began
            await store.append(one.lease, step)
    return one


async def brought_to(store: Store, status: TaskStatus) -> Claimed:
    """A task with this status, as it was last claimed."""
    one = await claimed(store, STARTED, CALLED, ASKED)
    match status:
        case TaskStatus.RUNNING:
            pass
        case TaskStatus.PENDING:
            await store.release(one.lease)
        case TaskStatus.WAITING:
            await store.wait(one.lease, 3)
        case TaskStatus.COMPLETED:
            await store.append(one.lease, COMPLETED)
        case TaskStatus.FAILED:
            await store.append(one.lease, FAILED)
        case TaskStatus.CANCELLED:
            await store.append(one.lease, CANCELLED)
    assert (await current(store, one.task)).status is status
    return one


async def reported_late(
    store: Store, *, worker: str = OWNER, result: ToolReturned | None = RETURNED, **fields: Any
) -> str:
    """Id of a task that waits for an answer about an interrupted call, of which its lost worker has reported late.

    No other task may be due for its agent.
    """
    task = await submitted(store, **fields)
    (lost,) = await claim(store, owner=worker, agents=[task.agent])
    steps = () if lost.begun is not None else (STARTED,)
    await store.append_all(lost.lease, (*steps, CALLED, BEGUN))
    await store.release(lost.lease)
    (again,) = await claim(store, owner="another", agents=[task.agent])
    await store.append(again.lease, replace(ASKED, interrupted=True))
    await store.wait(again.lease, 4)
    if result is not None:
        assert await store.attach(lost.lease, result)
    return task.id


async def current(store: Store, task: Task) -> Task:
    """The task as it is now."""
    return await store.get(task.tenant, task.id)


async def steps_of(store: Store, task: Task) -> list[Step]:
    """All its steps; their numbers are checked on the way, and that the first one, here STARTED, is of this task."""
    recorded = await store.steps(task.tenant, task.id)
    assert [one.seq for one in recorded] == list(range(len(recorded)))
    assert (await current(store, task)).steps == len(recorded)
    steps = [one.step for one in recorded]
    if steps and steps[0] == RunStarted(run_id=task.id, agent=task.agent, input=task.input):
        steps[0] = STARTED
    return steps


def uses_of_a_tenant(store: Store, tenant: str, task_id: str) -> dict[str, Callable[[], Awaitable[object]]]:
    """Everything that is asked about one task in the name of a tenant."""
    return {
        "get": lambda: store.get(tenant, task_id),
        "steps": lambda: store.steps(tenant, task_id),
        "cancel": lambda: store.cancel(tenant, task_id),
        "retry": lambda: store.retry(tenant, task_id),
        "answer": lambda: store.answer(tenant, task_id, GIVEN, 3),
    }


def held_writes(store: Store, lease: Lease) -> dict[str, Callable[[], Awaitable[object]]]:
    """Every write that needs the lease."""
    return {
        "append": lambda: store.append(lease, REPLIED),
        "end": lambda: store.append(lease, COMPLETED),
        "wait": lambda: store.wait(lease, 0),
        "release": lambda: store.release(lease),
        "release for later": lambda: store.release(lease, LATER),
    }


@contextmanager
def raises(expected: type[Exception], *words: str) -> Generator[None]:
    """Check that ``expected`` is raised, and that its text holds these words."""
    try:
        yield
    except expected as error:
        missing = [word for word in words if word not in str(error)]
        if missing:
            problem = f"{error!r} does not say {missing}"
            raise AssertionError(problem) from error
    else:
        problem = f"{expected.__name__} was not raised"
        raise AssertionError(problem)


async def at_once(*coroutines: Awaitable[Any]) -> list[Any]:
    """The results of all, exceptions included, each begun before any has ended."""
    return await asyncio.gather(*coroutines, return_exceptions=True)
