"""A real server, and how a check of health is tried on it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentkit import Agent
from ops_core.api.serve import serving
from ops_core.assembly import open_ops
from ops_core.config.catalog import Catalog
from ops_core.settings import Settings


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[int]:
    """Its port."""
    settings = Settings(store_url=f"sqlite:///{folder}/ops.db", port=0)
    async with open_ops(settings, Catalog([Agent("offline:planner", name="a")])) as ops, serving(ops) as urls:
        yield int(urls[0].rpartition(":")[2])


async def is_well(program: str, port: int) -> bool:
    """What a check, which is a program in Python, says of the server at a port."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env={**os.environ, "OPSPAWN_PORT": str(port)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0
