"""Shared by the tests of agentkit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine stops a test at any moment, so no example has a deadline. CI's own profile stays as it is otherwise.
settings.register_profile(
    "busy machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy machine")

pytest.register_assert_rewrite("agentkit.testing")  # the shipped contracts explain their failures


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Answers each request with the next planned answer."""
    from .wire_server import WireServer  # type: ignore[import-not-found]  # after what is above

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer() as running:
        yield running


@pytest.fixture
async def model(server: Any) -> AsyncIterator[Any]:
    """The OpenAI wire, connected to ``server``."""
    from agentkit.models.openai.client import OpenAIModel

    from .wire_server import KEY

    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, provider="test") as opened:
        yield opened


@pytest.fixture
async def api() -> AsyncIterator[Any]:
    """An API that tells what it was asked."""
    from .api_server import Api  # type: ignore[import-not-found]

    made = Api()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made
