"""Names of workers, and whether their processes have ended."""

import os
import subprocess
import sys

import pytest

from ops_core.workers import has_ended, place_of_processes, worker_name

pytestmark = pytest.mark.skipif(place_of_processes() is None, reason="the system tells of no processes")


def name_of(pid: int, began: str) -> str:
    return f"some-host-{pid}-{place_of_processes()}.{began}-0123abcd"


def test_this_process_has_not_ended():
    assert worker_name() != worker_name()
    assert not has_ended(worker_name())


def test_one_that_was_killed_has_ended_also_before_anybody_waits_for_it():
    script = "from ops_core.workers import worker_name; print(worker_name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not has_ended(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(owner)
    assert has_ended(owner)


def test_another_process_under_the_same_number_is_another_one():
    assert has_ended(name_of(os.getpid(), "1"))


@pytest.mark.parametrize(
    "owner", ["host-1-abcdef", "me", "", "host-99999999-0123456789ab.17-0123abcd", name_of(1, "x")]
)
def test_of_what_is_not_of_this_place_nothing_is_known(owner):
    assert not has_ended(owner)
