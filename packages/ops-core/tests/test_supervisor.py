"""The supervisor with programs that take a twentieth of a second to start and do what they are told."""

import asyncio
import os
import signal
import sys
import time

import pytest

from ops_core.processes.supervisor import (
    LONGEST_PAUSE_SECONDS,
    STEADY_SECONDS,
    Fate,
    Supervisor,
    SupervisorOptions,
    pause_before,
)

BEGIN = "import os, signal, sys, time\nopen('starts', 'a').write(f'{os.getpid()}\\n')\n"
READY = "os.write(0, b'+')\n"
UNTIL_TOLD = "os.read(0, 1)\nopen('ends', 'a').write(f'{os.getpid()}\\n')\n"
"""A good worker: it ends when the connection closes."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def supervisor(
    script: str, processes: int = 2, stop_seconds: float = 20.0
) -> tuple[Supervisor, asyncio.Event]:
    announced = asyncio.Event()
    command = [sys.executable, "-S", "-c", BEGIN + script]
    options = SupervisorOptions(command=command, processes=processes, stop_seconds=stop_seconds)
    return Supervisor(options, announced.set), announced


def pids(folder, name: str = "starts") -> list[int]:
    file = folder / name
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


async def until(happened) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_workers_are_told_to_end_and_end(folder, sent):
    keeper, announced = supervisor(READY + UNTIL_TOLD, 3)
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    await until(lambda: len(pids(folder)) == 3)
    os.kill(os.getpid(), sent)
    os.kill(os.getpid(), sent)  # its echo, as when the group gets it
    assert await asyncio.wait_for(running, 30) == 0
    assert sorted(pids(folder, "ends")) == sorted(pids(folder)), "each ended by itself"


async def test_one_that_dies_is_replaced_and_the_others_go_on(folder):
    keeper, announced = supervisor(READY + UNTIL_TOLD)
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    await until(lambda: len(pids(folder)) == 2)
    first, second = pids(folder)
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(pids(folder)) == 3)
    assert alive(second)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 30) == 0
    assert not any(alive(pid) for pid in pids(folder))


async def test_workers_that_end_in_good_order_are_replaced_without_growing_pauses(folder, monkeypatch):
    """A task may have its worker stopped: the tasks beside it do not wait longer and longer for the next one."""
    monkeypatch.setattr("ops_core.processes.supervisor.FIRST_PAUSE_SECONDS", 0.05)
    keeper, announced = supervisor(READY, 1)  # ready, and stopped at once
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    began = time.monotonic()
    await until(lambda: len(pids(folder)) >= 10)  # with growing pauses it would take 25 s
    assert time.monotonic() - began < 20
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 30) == 0


@pytest.mark.parametrize("script, code", [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 70)])
async def test_where_none_can_start_one_tries_and_its_code_is_told(folder, script, code):
    keeper, announced = supervisor(script, 3)
    assert await asyncio.wait_for(keeper.run(), 30) == code
    assert len(pids(folder)) == 1
    assert not announced.is_set()


async def test_a_command_that_is_not_there_is_given_up():
    options = SupervisorOptions(command=["/nowhere/opspawn"], processes=2, stop_seconds=1)
    assert await Supervisor(options, lambda: None).run() == 69


async def test_when_none_can_start_any_more_it_gives_up(folder, monkeypatch):
    monkeypatch.setattr("ops_core.processes.supervisor.FIRST_PAUSE_SECONDS", 0.01)
    broken = "if os.path.exists('broken'): sys.exit(69)\n"
    keeper, announced = supervisor(broken + READY + UNTIL_TOLD)
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    await until(lambda: len(pids(folder)) == 2)
    (folder / "broken").touch()
    first, second = pids(folder)
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(pids(folder)) >= 9)
    assert not running.done(), "one still works"
    os.kill(second, signal.SIGKILL)
    assert await asyncio.wait_for(running, 60) == 69


async def test_one_that_does_not_end_is_killed(folder):
    keeper, announced = supervisor(READY + "time.sleep(600)", stop_seconds=0.2)
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    await until(lambda: len(pids(folder)) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 30) == 0
    assert not any(alive(pid) for pid in pids(folder))


async def test_a_second_signal_kills_them(folder):
    keeper, announced = supervisor(READY + "time.sleep(600)", 1)
    running = asyncio.create_task(keeper.run())
    await announced.wait()
    began = time.monotonic()
    while not running.done():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)
    assert await running == 0
    assert time.monotonic() - began < 15.0


async def test_a_signal_before_the_first_is_ready_ends_it(folder):
    keeper, announced = supervisor(UNTIL_TOLD)
    running = asyncio.create_task(keeper.run())
    await until(lambda: pids(folder))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 30) == 0
    assert not announced.is_set()


def test_whoever_dies_again_and_again_is_replaced_more_and_more_slowly():
    pauses = [pause_before(failures) for failures in range(100)]
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_worker_is_steady_once_it_has_worked_for_a_while():
    assert Fate(code=-9, ready_seconds=STEADY_SECONDS).steady
    assert not Fate(code=0, ready_seconds=STEADY_SECONDS / 2).steady
    assert Fate(code=0, ready_seconds=None).in_vain
    assert (str(Fate(code=3, ready_seconds=None)), str(Fate(code=-9, ready_seconds=None))) == (
        "code 3",
        "SIGKILL",
    )
    assert str(Fate(code=-64, ready_seconds=None)) in ("signal 64", "SIGRTMAX")
