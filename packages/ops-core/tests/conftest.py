from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from ops_core.stores import SqlStore
from ops_core.testing import FakeClock, open_test_store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ops.db'}"


@pytest.fixture
async def file_store(url: str, clock: FakeClock) -> AsyncGenerator[SqlStore]:
    async with open_test_store(url, clock) as store:
        yield store


@pytest.fixture
async def memory_store(clock: FakeClock) -> AsyncGenerator[SqlStore]:
    async with open_test_store("sqlite://", clock) as store:
        yield store
