"""Embeddings of providers, against a server on loopback that answers, refuses and breaks off."""

import json
from collections.abc import AsyncGenerator

import pytest

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
from agentkit.memories import HashEmbeddings, open_embeddings, opened_embeddings
from agentkit.memories import openai as module
from agentkit.memories.openai import OpenAIEmbeddings
from agentkit.models import NamedEndpoint
from agentkit.models.credentials import Extras
from agentkit.testing import EmbeddingsContract

from .wire_server import KEY, Answer, WireServer  # type: ignore[import-not-found]


def answered(body) -> Answer:
    """What OpenAI would say; in another order than it was asked, as its index permits."""
    data = [
        {"object": "embedding", "index": place, "embedding": [float(len(text)), 1, -0.5]}
        for place, text in enumerate(body["input"])
    ]
    return told({"object": "list", "data": data[::-1], "model": body["model"]})


def told(body, status: int = 200, **fields) -> Answer:
    return Answer(status=status, chunks=[json.dumps(body).encode()], **fields)


@pytest.fixture
async def embeddings(server: WireServer) -> AsyncGenerator[OpenAIEmbeddings]:
    async with OpenAIEmbeddings(
        "text-embedding-3-small", api_key=KEY, base_url=server.url, timeout=1
    ) as made:
        yield made


class TestOpenAIEmbeddings(EmbeddingsContract):
    @pytest.fixture(autouse=True)
    def planned(self, server: WireServer) -> None:
        for _ in range(5):
            server.plan(answered)


async def test_what_is_asked_and_in_which_order_it_is_told(server, embeddings, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", 2)
    for _ in range(2):
        server.plan(answered)
    vectors = await embeddings.embed(["a", "", "ccc"])
    assert [vector[0] for vector in vectors] == [1.0, float(len("(empty)")), 3.0]
    first, second = server.journal
    assert first.target == "/v1/embeddings"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body == {
        "model": "text-embedding-3-small",
        "input": ["a", "(empty)"],
        "encoding_format": "float",
    }
    assert second.body["input"] == ["ccc"]


@pytest.mark.parametrize(
    "answer, error",
    [
        (told({"error": {"message": f"bad key {KEY}", "code": "invalid_api_key"}}, 401), ModelAuthError),
        (told({"error": {"message": "slow down"}}, 429, headers={"retry-after": "7"}), ModelRateLimited),
        (told({"error": {"message": "oops"}}, 500), ModelOverloaded),
        (Answer(status=502, kind="text/html", chunks=[b"<html>"]), ModelOverloaded),
        (Answer(chunks=[b"{broken"]), ModelBadResponse),
        (told([]), ModelBadResponse),
        (told({"data": []}), ModelBadResponse),
        (told({"data": [{"index": 1, "embedding": [1.0]}]}), ModelBadResponse),
        (told({"data": [{"index": 0, "embedding": []}]}), ModelBadResponse),
        (told({"data": [{"index": 0, "embedding": ["1"]}]}), ModelBadResponse),
        (told({"data": [{"index": 0, "embedding": "AAAA"}]}), ModelBadResponse),
        (told({"error": {"message": "no credit", "code": "insufficient_quota"}}), ModelAuthError),
        (Answer(chunks=[b'{"data":'], end="drop"), ModelUnreachable),
        (Answer(chunks=[b'{"data":'], end="hang"), ModelTimeout),
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


@pytest.mark.parametrize(
    "body, field",
    [
        ({"model": "x"}, "model"),
        ({"input": "x"}, "input"),
        ({"tools": []}, "tools"),
        ({"encoding_format": "base64"}, "encoding"),
    ],
)
def test_a_field_of_the_body_that_embeddings_write_themselves_is_refused(body, field):
    with pytest.raises(UsageError, match=f"body: {field}"):
        OpenAIEmbeddings("m", api_key=None, base_url="http://127.0.0.1:9/v1", extras=Extras(body=body))


async def test_embeddings_are_opened_by_name(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelAuthError):
        open_embeddings("openai:text-embedding-3-small")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert open_embeddings("openai:text-embedding-3-small").name == "openai:text-embedding-3-small"
    assert open_embeddings("offline:hash").name == "offline:hash-512"
    assert open_embeddings("offline:hash-64").name == "offline:hash-64"
    local = {"local": NamedEndpoint(base_url=server.url), "other": NamedEndpoint(kind="anthropic")}
    async with opened_embeddings("local:nomic-embed-text", local) as embeddings:
        server.plan(answered)
        assert embeddings.name == "local:nomic-embed-text"
        assert len(await embeddings.embed(["x"])) == 1
        assert "authorization" not in server.journal[-1].headers
    own = HashEmbeddings()
    async with opened_embeddings(own) as same:
        assert same is own
    for wrong in (
        "",
        "openai:",
        "offline:",
        "offline:hash-0",
        "offline:hash-x",
        "nobody:x",
        "openai",
        "other:x",
    ):
        with pytest.raises(UsageError):
            open_embeddings(wrong, local)
