"""The short campaign: every provocation there is, three at a time, with a seed that never changes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops_core.testing.postgresql import PostgresServer

from . import clocks
from .campaign import Plan, run_campaign
from .provocations import HOUR

PLAN = Plan(seed=20, tasks=100, workers=3, together=(3,))


@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_dies(postgres: PostgresServer, capsys: pytest.CaptureFixture[str]):
    total = run_campaign(PLAN, postgres)
    assert total.tasks >= 500
    assert total.taken_over, "no provocation has cut anything short: this run has shown nothing"


TELL_THE_TIME = "import time\nwhile True: print(round(time.time()), flush=True)"


def test_the_clocks_can_be_moved(tmp_path: Path):
    """Or the campaign would only seem to move them."""
    if clocks.library() is None:
        message = "no libfaketime: the clocks of single processes cannot be moved"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    environment = {**os.environ, **clocks.settings_of(tmp_path / "clock")}
    command = [sys.executable, "-c", TELL_THE_TIME]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for offset in (-HOUR, HOUR):
            clocks.set_clock(tmp_path / "clock", offset)
            until = time.monotonic() + 10
            while abs(int(process.stdout.readline()) - time.time() - offset) > 60:
                assert time.monotonic() < until
        process.terminate()


def test_a_seed_is_a_schedule():
    assert list(PLAN.schedule()) == list(PLAN.schedule())
    assert {one for some in PLAN.schedule() for one in some} == {
        one for some in Plan(seed=4).schedule() for one in some
    }
