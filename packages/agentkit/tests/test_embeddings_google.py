"""Embeddings of Google through its SDK, against a server on loopback that answers, refuses and breaks off."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest

from agentkit.budget.account import Account
from agentkit.budget.limits import Limits
from agentkit.budget.prices import Prices
from agentkit.errors import (
    ModelAuthError,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)
from agentkit.memories import google as module
from agentkit.memories import open_embeddings
from agentkit.memories.google import GoogleEmbeddings
from agentkit.messages import Usage
from agentkit.models import NamedEndpoint
from agentkit.run.memory import EmbeddingMeter
from agentkit.testing import EmbeddingsContract
from agentkit.transcript.steps import Embedded, Recorded
from agentkit.transcript.usage import RunningUsage

from .wire_server import KEY, Answer, WireServer  # type: ignore[import-not-found]


def texts_of(body) -> list[str]:
    return [part["text"] for one in body["requests"] for part in one["content"]["parts"]]


def answered(body) -> Answer:
    """What Google would say; its newer models tell what they have read."""
    vectors = [{"values": [float(len(text)), 1, -0.5]} for text in texts_of(body)]
    return told({"embeddings": vectors, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}})


def told(body, status: int = 200, **fields) -> Answer:
    return Answer(status=status, chunks=[json.dumps(body).encode()], **fields)


def refused(code: int, status: str, **more) -> Answer:
    return told({"error": {"code": code, "message": f"no {KEY}", "status": status, **more}}, code)


@pytest.fixture
async def server() -> AsyncGenerator[WireServer]:
    async with WireServer(path="") as made:
        yield made


@pytest.fixture
async def embeddings(server: WireServer) -> AsyncGenerator[GoogleEmbeddings]:
    async with GoogleEmbeddings("gemini-embedding-001", api_key=KEY, base_url=server.url, timeout=1) as made:
        yield made


class TestGoogleEmbeddings(EmbeddingsContract):
    @pytest.fixture(autouse=True)
    def planned(self, server: WireServer) -> None:
        for _ in range(5):
            server.plan(answered)


@pytest.mark.parametrize("name", ["gemini-embedding-001", "gemini-embedding-2"])
async def test_each_text_is_a_request_of_its_own_whatever_the_model_can_mix(server, name, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2)
    for _ in range(2):
        server.plan(answered)
    async with GoogleEmbeddings(name, api_key=KEY, base_url=server.url) as embeddings:
        vectors = await embeddings.embed(["a", " ", "ccc"])
    assert [vector[0] for vector in vectors] == [1.0, float(len("(empty)")), 3.0]
    first, second = server.journal
    assert first.target.partition("?")[0] == f"/v1beta/models/{name}:batchEmbedContents"
    assert first.headers["x-goog-api-key"] == KEY
    assert (texts_of(first.body), texts_of(second.body)) == (["a", "(empty)"], ["ccc"])


@pytest.mark.parametrize(
    "answer, error",
    [
        (refused(400, "INVALID_ARGUMENT", details=[{"reason": "API_KEY_INVALID"}]), ModelAuthError),
        (refused(429, "RESOURCE_EXHAUSTED", details=[{"retryDelay": "7s"}]), ModelRateLimited),
        (refused(503, "UNAVAILABLE"), ModelOverloaded),
        (Answer(status=502, kind="text/html", chunks=[b"<html>"]), ModelOverloaded),
        (Answer(chunks=[b"{broken"]), ModelBadResponse),
        (told({}), ModelBadResponse),
        (told({"embeddings": []}), ModelBadResponse),
        (told({"embeddings": [{"values": []}]}), ModelBadResponse),
        (told({"embeddings": [{"values": [1.0]}, {"values": [1.0]}]}), ModelBadResponse),
        (told({"embeddings": [{"values": "AAAA"}]}), ModelBadResponse),
        (Answer(chunks=[b'{"embeddings":'], end="drop"), ModelUnreachable),
        (Answer(chunks=[b'{"embeddings":'], end="hang"), ModelTimeout),
    ],
)
async def test_every_failure_is_an_error_of_ours_without_the_key(server, embeddings, answer, error):
    server.plan(answer)
    with pytest.raises(ModelError) as raised:
        await embeddings.embed(["a secret text"])
    assert type(raised.value) is error
    assert KEY not in str(raised.value)
    assert "secret text" not in str(raised.value)
    if error is ModelRateLimited:
        assert raised.value.as_run_error().retry_after == 7


async def test_what_it_has_read_is_counted_at_its_price(server, embeddings):
    kept: list[Embedded] = []

    async def record(step) -> Recorded:
        kept.append(step)
        return Recorded(seq=0, at=0.0, step=step)

    server.plan(answered)
    account = Account(
        run_id="r",
        agent="a",
        limits=Limits(),
        tally=RunningUsage,
        seconds_left=lambda: None,
        record=record,
        look=lambda: None,
    )
    meter = EmbeddingMeter(prices=Prices(), account=account)
    await embeddings.embed(["a"], meter)
    (step,) = kept
    assert step.model == "google:gemini-embedding-001"
    assert step.usage == Usage(input_tokens=7, cost_usd=0.00000105), "as genai-prices knows it"


async def test_they_are_opened_by_name(server, monkeypatch):
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ModelAuthError, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        open_embeddings("google:gemini-embedding-001")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    assert open_embeddings("google:gemini-embedding-001").name == "google:gemini-embedding-001"
    own = {"mine": NamedEndpoint(kind="google", base_url=server.url, api_key_env="GEMINI_API_KEY")}
    embeddings = open_embeddings("mine:tiny", own)
    assert isinstance(embeddings, GoogleEmbeddings)
    server.plan(answered)
    async with embeddings:
        assert len(await embeddings.embed(["x"])) == 1
    assert embeddings.name == "mine:tiny"
    with pytest.raises(UsageError, match="openai or google"):
        open_embeddings("claude:x", {"claude": NamedEndpoint(kind="anthropic")})


def test_the_sdk_is_loaded_when_embeddings_are_made_and_not_before():
    program = "import sys, agentkit.memories; sys.exit('google.genai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
