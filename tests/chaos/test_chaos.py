"""The short campaign: every provocation there is, four at a time, with a seed that never changes."""

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.servers.rabbitmq import RabbitServer

from . import clocks
from .campaign import Plan, has, run_campaign
from .fleet import Servers
from .provocations import ALL, HOUR

EVERYTHING = frozenset({"clocks", "broker"})
PLAN = Plan(seed=20, tasks=105, workers=3, together=(4,), has=EVERYTHING)
TELL_THE_TIME = "import time\nwhile True: print(round(time.time()), flush=True)"


@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_dies(postgres: PostgresServer):
    with ExitStack() as stack:
        plan = replace(PLAN, has=has())
        broker = stack.enter_context(RabbitServer()) if "broker" in plan.has else None
        total = run_campaign(plan, Servers(database=postgres, broker=broker))
    assert total.tasks >= 500
    assert total.taken_over, "no provocation has cut anything short: this run has shown nothing"


def test_this_machine_has_what_the_provocations_need():
    if missing := EVERYTHING - has():
        message = f"chaos without its {', '.join(sorted(missing))}: install rabbitmq-server and faketime"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)


def test_the_clocks_can_be_moved(tmp_path: Path):
    """Or the campaign would only seem to move them."""
    if clocks.library() is None:
        pytest.skip("no libfaketime")
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
    assert Counter(one for some in PLAN.schedule() for one in some) == Counter(ALL)
