"""``make chaos``: for minutes, with a seed that is printed."""

import argparse
import random
import sys
from contextlib import ExitStack

from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.servers.rabbitmq import RabbitServer

from .campaign import ChaosFound, Plan, has, run_campaign
from .fleet import Servers

parser = argparse.ArgumentParser(prog="make chaos")
parser.add_argument("--seed", type=int, default=None)
parser.add_argument("--minutes", type=float, default=5.0)
parser.add_argument("--tasks", type=int, default=60)
parser.add_argument("--workers", type=int, default=3)
parser.add_argument("--only", action="append", help="name of a provocation; can be repeated")
given = parser.parse_args()
seed = random.randrange(10**6) if given.seed is None else given.seed
plan = Plan(
    seed=seed,
    tasks=given.tasks,
    workers=given.workers,
    passes=10**6,
    together=(1, 2, 3),
    seconds=60 * given.minutes,
    has=has(),
    only=frozenset(given.only or ()),
)
with ExitStack() as stack:
    broker = stack.enter_context(RabbitServer()) if "broker" in plan.has else None
    servers = Servers(database=stack.enter_context(PostgresServer()), broker=broker)
    try:
        total = run_campaign(plan, servers)
    except ChaosFound as found:
        sys.exit(f"chaos: {found}\nchaos: again with `make chaos SEED={seed}`")
print(f"chaos: nothing lost, nothing doubled: {total}")
