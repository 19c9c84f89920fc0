"""Signals: what a process does with them, as the first one of a container too."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

WORK = """
import os, signal, sys, time
from ops_core.cli.init_process import split_from_init
split_from_init()
"""

STOPPED = """
import asyncio, sys
from ops_core.concurrency.shutdown import stopped_by_signals

async def main():
    closing = asyncio.Event()
    with stopped_by_signals(closing):
        print("ready", flush=True)
        await closing.wait()
    print("in good order", flush=True)

asyncio.run(main())
"""


def started(script: str, *before: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_in_good_order(sent):
    with started(STOPPED) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        assert process.communicate(timeout=30)[0] == "in good order\n"
    assert process.returncode == 0


def test_a_process_that_ignores_hangups_goes_on():
    with started(STOPPED, "nohup") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(
            signal.SIGTERM
        )  # one that was heeded would be echoed by this one, and end it just so
        assert process.communicate(timeout=30)[0] == "in good order\n"


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_that_of_the_work(code):
    with started(WORK + f"sys.exit({code})") as process:
        assert process.wait(timeout=30) == code


def test_a_signal_before_the_work_has_a_handler_ends_it():
    with started(WORK + "print('working', flush=True); time.sleep(60)") as process:
        assert process.stdout.readline() == "working\n"
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_orphans_are_waited_for():
    """A grandchild whose parent has ended belongs to the init; here the kernel is told so, as in a container."""
    script = """
    import ctypes
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    """
    orphan = """
    if os.fork() == 0:
        child = os.fork()
        if child == 0:
            os._exit(0)
        print(child, flush=True)
        os._exit(0)
    os.wait()
    time.sleep(60)
    """
    with started(textwrap.dedent(script) + WORK + textwrap.dedent(orphan)) as process:
        number = int(process.stdout.readline())
        while Path(f"/proc/{number}").exists():  # a zombie is there until it was waited for
            os.sched_yield()
        process.terminate()
        process.wait(timeout=30)


def test_the_program_splits_as_process_1():
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make a namespace of processes")
    script = """
    import os
    from ops_core import cli
    import ops_core.cli.app as module
    module.app = lambda prog_name: print(prog_name, os.getpid())
    cli.main()
    """
    with started(script, *unshare) as process:
        assert process.communicate(timeout=30)[0] == "opspawn 2\n"
