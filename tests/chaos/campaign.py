"""Rounds: submit, provoke in the middle of it, wait until every task has ended, ask the oracle."""

import asyncio
import itertools
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agentkit.transcript.codec import recorded_to_json
from ops_core.errors import OpsError
from ops_core.task import TaskStatus
from ops_core.testing.servers.rabbitmq import RabbitServer

from . import clocks
from .caller import ToolExecutor, caller_of
from .fleet import Fleet, Servers, fleet_of
from .history import history_of
from .oracle import Submitted, Verdict, judge, tasks_of
from .provocations import ALL, Provocation, Scene

OPEN = 20
"""So many tasks are there to be carried while a provocation goes on: about as many as the fleet has slots."""

BOUND_SECONDS = 120.0
"""After a provocation is over, so long the last task may take; a slow machine is slow."""


def has() -> frozenset[str]:
    """What this machine has."""
    found = {"clocks": clocks.library(), "broker": RabbitServer.program()}
    return frozenset(name for name, where in found.items() if where is not None)


class ChaosFound(AssertionError):
    """Something was lost, doubled or left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a campaign does.

    Attributes:
        seed: of every choice that is the campaign's.
        tasks: in a round, at least.
        workers: processes, beside the API's.
        passes: in each of them every provocation has its turn once, in an order that is the seed's.
        together: so many provocations at the same time; given as often as there are passes, then from the start.
        seconds: no round is begun later.
        has: what this machine has of what provocations need; one that needs something else has no turn.
        only: names of the provocations that have a turn; all, where it is empty.
    """

    seed: int
    tasks: int = 40
    workers: int = 3
    passes: int = 1
    together: tuple[int, ...] = (1,)
    seconds: float = 3600.0
    has: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()

    def schedule(self) -> Iterator[tuple[Provocation, ...]]:
        """What is done in each round."""
        chance = random.Random(self.seed)
        for number in range(self.passes):
            order = chance.sample(ALL, len(ALL))
            order = [one for one in order if one.needs is None or one.needs in self.has]
            order = [one for one in order if not self.only or one.name in self.only]
            size = self.together[number % len(self.together)]
            yield from (tuple(order[at : at + size]) for at in range(0, len(order), size))


@dataclass(slots=True)
class Total:
    """What a campaign has come through."""

    rounds: int = 0
    tasks: int = 0
    effects: int = 0
    repeated: int = 0
    taken_over: int = 0
    resubmitted: int = 0


def run_campaign(plan: Plan, servers: Servers) -> Total:
    """Carry out a plan.

    Raises:
        ChaosFound: names the seed, and the folder with the logs and the steps of the tasks in question.
    """
    folder = Path(tempfile.mkdtemp(prefix="opspawn-chaos-"))
    print(f"chaos: seed {plan.seed}, logs in {folder}", flush=True)
    try:
        total = asyncio.run(_campaign(plan, servers, folder))
    except BaseException as error:
        (folder / "seed").write_text(f"{plan.seed}\n")
        if isinstance(error, Exception):
            raise ChaosFound(f"seed {plan.seed}, see {folder}: {error}") from error
        raise
    shutil.rmtree(folder)
    return total


async def _campaign(plan: Plan, servers: Servers, folder: Path) -> Total:
    total, began = Total(), time.monotonic()
    async with fleet_of(folder, servers, plan.workers) as fleet, caller_of(fleet) as caller:
        for number, provocations in enumerate(plan.schedule()):
            if time.monotonic() - began > plan.seconds:
                break
            await _round(plan, number, provocations, (fleet, caller, total))
        total.effects = fleet.world.look()
        total.resubmitted = caller.repeated
    return total


async def _round(
    plan: Plan, number: int, provocations: Sequence[Provocation], at: tuple[Fleet, ToolExecutor, Total]
) -> None:
    fleet, caller, total = at
    name = " + ".join(provocation.name for provocation in provocations)
    chance = random.Random(f"{plan.seed}-{number}")
    round_ = Submitted(label=str(number))
    hogs = sum(provocation.hogs for provocation in provocations)
    began = time.monotonic()
    scenes = [Scene(fleet, caller, round_, random.Random(chance.random())) for _provocation in provocations]
    try:
        async with asyncio.timeout(2 * BOUND_SECONDS):
            submitting = asyncio.create_task(_submit(scenes, plan.tasks, hogs))
            acts = zip(provocations, scenes, strict=True)
            try:
                await asyncio.gather(*(provocation.act(scene) for provocation, scene in acts))
            finally:
                for scene in scenes:
                    scene.over.set()
            await submitting
        async with asyncio.timeout(BOUND_SECONDS):
            await _until_all_have_ended(fleet, caller, round_, chance)
        verdict = await judge(fleet, caller, round_)
    except (Exception, asyncio.CancelledError) as error:
        with suppress(OpsError):
            open_ones = [task for task in await tasks_of(fleet, round_.label) if not task.status.terminal]
            await _leave_behind(fleet, {task.id for task in open_ones})
        raise ChaosFound(f"round {number} ({name}): {type(error).__name__}: {error}") from error
    print(
        f"  round {number}: {name}: {len(round_.ids)} tasks in {time.monotonic() - began:.1f} s, "
        f"{verdict.taken_over} times taken over, {verdict.repeated} effects repeated",
        flush=True,
    )
    if verdict.problems:
        await _leave_behind(fleet, verdict.offending)
        raise ChaosFound(f"round {number} ({name}): " + "\n  ".join(verdict.problems[:20]))
    _add(total, round_, verdict)


def _add(total: Total, round_: Submitted, verdict: Verdict) -> None:
    total.rounds += 1
    total.tasks += len(round_.ids)
    total.repeated += verdict.repeated
    total.taken_over += verdict.taken_over


async def _submit(scenes: Sequence[Scene], tasks: int, hogs: int) -> None:
    """The load: so many tasks are open at a time, until there were enough and the provocations are over."""
    fleet, caller, round_ = scenes[0].fleet, scenes[0].caller, scenes[0].round
    finished = fleet.world.finished

    async def submit(number: int) -> None:
        key = f"{round_.label}-{number}"
        agent = "hog" if number < hogs else "clerk"
        round_.ids[key] = await caller.submit(key, agent, round_.label)

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            if number >= tasks and all(scene.over.is_set() for scene in scenes):
                return
            group.create_task(submit(number))
            while number >= OPEN + fleet.world.finished - finished and not all(
                scene.over.is_set() for scene in scenes
            ):
                await asyncio.sleep(0.02)  # between two looks at a file
                fleet.world.look()


async def _until_all_have_ended(
    fleet: Fleet, caller: ToolExecutor, round_: Submitted, chance: random.Random
) -> None:
    while True:
        try:
            tasks = await tasks_of(fleet, round_.label)
        except OpsError:  # a connection that a provocation has cut
            continue
        if all(task.status.terminal for task in tasks):
            return
        for task in tasks:
            if task.status is TaskStatus.WAITING:
                await caller.answer_what_is_asked(task.id, chance)
        await asyncio.sleep(0.05)  # between two looks of a client


async def _leave_behind(fleet: Fleet, task_ids: set[str]) -> None:
    """All that is known of the tasks in question, beside the logs."""
    history = history_of(fleet.server, fleet.database, task_ids)
    for task_id in sorted(task_ids)[:20]:
        steps = await fleet.store.steps("default", task_id)
        lines = [repr(await fleet.store.get("default", task_id))]
        lines += [json.dumps(recorded_to_json(recorded)) for recorded in steps]
        effects = (fleet.world.begun[key] for key in sorted(fleet.world.begun) if key.startswith(task_id))
        lines += [repr(effect) for begun in effects for effect in begun]
        lines += [repr(change) for change in history.get(task_id, [])]
        (fleet.folder / f"task-{task_id}.txt").write_text("\n".join(lines) + "\n")
