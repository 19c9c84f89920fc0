"""What must be true after every round, whatever was done to the fleet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from agentkit.messages import Usage
from agentkit.transcript.steps import (
    Finished,
    ModelReplied,
    Recorded,
    RunStarted,
    ToolReturned,
    ToolStarted,
    without_withdrawn,
)
from agentkit.transcript.usage import RunningUsage
from ops_core.ports import TaskFilter
from ops_core.task import DEFAULT_TENANT, Task, TaskStatus

from .agents import CLERK, HOG
from .caller import ToolExecutor
from .fleet import Fleet
from .history import Change, history_of
from .world import Effect

CALLS: Mapping[str, Mapping[str, str]] = {"clerk": CLERK, "hog": HOG}
TURNS = {"clerk": 4, "hog": 3}


@dataclass(slots=True)
class Submitted:
    """One round's promise.

    Attributes:
        label: of its tasks.
        ids: the id that was answered, by idempotency key.
        cancelled: ids of tasks that somebody wanted to be cancelled.
    """

    label: str
    ids: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Verdict:
    """What the oracle has seen.

    Attributes:
        problems: sentences, each with the id of its task.
        offending: ids of those tasks.
        repeated: effects that took place more than once.
        taken_over: how often a task was taken from a worker that was silent.
    """

    problems: list[str] = field(default_factory=list)
    offending: set[str] = field(default_factory=set)
    repeated: int = 0
    taken_over: int = 0

    def check(self, holds: bool, task_id: str, problem: str) -> None:
        if not holds:
            self.problems.append(f"task {task_id}: {problem}")
            self.offending.add(task_id)


async def tasks_of(fleet: Fleet, label: str) -> list[Task]:
    """All tasks of a round."""
    wanted = TaskFilter(label=f"round={label}", limit=10_000)
    return list(await fleet.store.list(DEFAULT_TENANT, wanted))


def epochs_of(fleet: Fleet, tasks: Sequence[Task]) -> dict[str, list[int]]:
    """Under which lease each step was written, in the order of the steps."""
    found: dict[str, list[int]] = {task.id: [] for task in tasks}
    statement = text("SELECT task_id, epoch FROM step WHERE task_id = ANY(:ids) ORDER BY task_id, seq")
    with fleet.server.connected(fleet.database) as connection:
        for task_id, epoch in connection.execute(statement, {"ids": list(found)}):
            found[task_id].append(epoch)
    return found


async def judge(fleet: Fleet, caller: ToolExecutor, round_: Submitted) -> Verdict:
    """Look at every task of a round that is over."""
    verdict = Verdict()
    fleet.world.look()
    tasks = await tasks_of(fleet, round_.label)
    _nothing_lost_or_doubled(verdict, round_, tasks)
    epochs = epochs_of(fleet, tasks)
    history = history_of(fleet.server, fleet.database, epochs)
    for task in tasks:
        steps = await fleet.store.steps(task.tenant, task.id)
        _ended_well(verdict, round_, task, steps)
        _recorded_once(verdict, task, steps, epochs[task.id])
        _sums_are_of_the_steps(verdict, task, steps)
        interrupted = _history(verdict, task, history.get(task.id, []))
        _effects(verdict, fleet.world.of_task(task.id, CALLS[task.agent]), task, interrupted)
        _unsafe_effects(verdict, fleet.world.of_task(task.id, CALLS[task.agent]), task, (steps, caller))
    return verdict


def _nothing_lost_or_doubled(verdict: Verdict, round_: Submitted, tasks: Sequence[Task]) -> None:
    there, promised = {task.id for task in tasks}, set(round_.ids.values())
    for lost in promised - there:
        verdict.check(False, lost, "it was accepted and is lost")
    for doubled in there - promised:
        verdict.check(False, doubled, "nobody was told of it: a repeated submit made a second task")
    if len(promised) < len(round_.ids):
        verdict.problems.append(f"{len(round_.ids)} keys share {len(promised)} tasks")


def _ended_well(verdict: Verdict, round_: Submitted, task: Task, steps: Sequence[Recorded]) -> None:
    expected = {TaskStatus.COMPLETED} | ({TaskStatus.CANCELLED} if task.id in round_.cancelled else set())
    verdict.check(task.status in expected, task.id, f"it is {task.status} ({task.error})")
    verdict.check(task.lease_owner is None, task.id, f"it has ended and is held by {task.lease_owner}")
    last = steps[-1].step if steps else None
    told = isinstance(last, Finished) and last.status == task.status
    verdict.check(told, task.id, f"its status is {task.status}, its last step {last}")
    if task.status is TaskStatus.COMPLETED:
        verdict.check(task.output == "All done.", task.id, f"its output is {task.output!r}")


def _recorded_once(verdict: Verdict, task: Task, steps: Sequence[Recorded], epochs: Sequence[int]) -> None:
    numbers = [recorded.seq for recorded in steps]
    verdict.check(numbers == list(range(len(steps))), task.id, f"its steps are numbered {numbers}")
    verdict.check(task.steps == len(steps), task.id, f"it counts {task.steps} steps and has {len(steps)}")
    verdict.check(list(epochs) == sorted(epochs), task.id, f"a lease that was lost has written: {epochs}")
    verdict.check(task.epoch >= max(epochs, default=0), task.id, "its epoch went back")
    kinds = Counter(type(recorded.step) for recorded in steps)
    complete = task.status is TaskStatus.COMPLETED
    verdict.check(kinds[Finished] == 1, task.id, f"it ended {kinds[Finished]} times")
    verdict.check(kinds[RunStarted] in {1, int(complete)}, task.id, f"it began {kinds[RunStarted]} times")
    replies, turns = kinds[ModelReplied], TURNS[task.agent]
    verdict.check(
        replies == turns if complete else replies <= turns, task.id, f"{replies} replies of the model"
    )
    returned = Counter(recorded.step.call_id for recorded in steps if isinstance(recorded.step, ToolReturned))
    verdict.check(max(returned.values(), default=1) == 1, task.id, f"results were recorded twice: {returned}")
    if complete:
        verdict.check(
            set(returned) == set(CALLS[task.agent]), task.id, f"it has the results of {set(returned)}"
        )


def _sums_are_of_the_steps(verdict: Verdict, task: Task, steps: Sequence[Recorded]) -> None:
    used = RunningUsage.of(steps).usage
    kept = (task.model_calls, task.tool_calls, task.tokens.input_tokens, task.tokens.output_tokens)
    folded = (used.model_calls, used.tool_calls, used.tokens.input_tokens, used.tokens.output_tokens)
    verdict.check(kept == folded, task.id, f"its sums are {kept}, those of its steps {folded}")
    paid = sum(
        (recorded.step.usage for recorded in steps if isinstance(recorded.step, ModelReplied)), Usage()
    )
    verdict.check(task.tokens.cost_usd == paid.cost_usd, task.id, f"it cost {task.tokens.cost_usd}")


def _history(verdict: Verdict, task: Task, changes: Sequence[Change]) -> int:
    """How often it was taken from a worker that was silent."""
    wrong = [change for change in changes if not change.allowed]
    verdict.check(not wrong, task.id, f"its status went where no status may go: {wrong}")
    epochs = [change.epoch for change in changes]
    verdict.check(epochs == sorted(epochs), task.id, f"its epoch went back: {epochs}")
    interrupted = sum(change.interrupted for change in changes)
    verdict.taken_over += interrupted
    limit = 1 + interrupted
    verdict.check(
        task.attempt <= limit, task.id, f"it took {task.attempt} attempts, cut short {interrupted} times"
    )
    return interrupted


def _effects(verdict: Verdict, effects: Mapping[str, Sequence[Effect]], task: Task, interrupted: int) -> None:
    """A call whose run nobody has cut short takes place once; each time that it is cut short may repeat it once."""
    for call_id, begun in effects.items():
        times, limit = len(begun), 1 + interrupted
        verdict.repeated += max(0, times - 1)
        verdict.check(
            times <= limit, task.id, f"{call_id} took place {times} times, cut short {interrupted} times"
        )


def _unsafe_effects(
    verdict: Verdict,
    effects: Mapping[str, Sequence[Effect]],
    task: Task,
    seen: tuple[Sequence[Recorded], ToolExecutor],
) -> None:
    """An unsafe call takes place once, unless a person has said yes to once more; and only after a step says so."""
    steps, caller = seen
    returned = {
        recorded.step.call_id: recorded.step for recorded in steps if isinstance(recorded.step, ToolReturned)
    }
    begun_steps = [recorded.step for recorded in without_withdrawn(steps)]
    starts = Counter(step.call_id for step in begun_steps if isinstance(step, ToolStarted))
    for call_id, begun in effects.items():
        succeeded = call_id in returned and returned[call_id].error is None
        verdict.check(bool(begun) or not succeeded, task.id, f"{call_id} has a result and did not take place")
        if CALLS[task.agent][call_id] == "unsafe":
            times, allowed = len(begun), 1 + caller.approved[f"{task.id}:{call_id}"]
            verdict.check(times <= allowed, task.id, f"the unsafe {call_id} took place {times} times")
            verdict.check(times <= starts[call_id], task.id, f"the unsafe {call_id} began without a step")
            verdict.check(
                starts[call_id] <= allowed, task.id, f"the unsafe {call_id} was begun anew, unasked"
            )
