"""The OpenAI wire: the contract, connections and construction."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from agentkit.errors import (
    Actor,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)
from agentkit.models.adapter import http as endpoint_module
from agentkit.models.openai.client import OpenAIModel
from agentkit.net.headers import retry_after
from agentkit.testing.model_contract import ModelContract
from agentkit.testing.models import as_reply

from .openai_pieces import HELLO  # type: ignore[import-not-found]
from .openai_server import OpenAIProvider, completion, delta, error, events  # type: ignore[import-not-found]
from .wire_server import KEY, STREAM, Answer, WireServer, as_events, as_json  # type: ignore[import-not-found]


@pytest.fixture
def provider(server: WireServer, model: OpenAIModel) -> OpenAIProvider:
    return OpenAIProvider(server, model)


class TestWhole(ModelContract):
    counts = frozenset({"cached_tokens", "cache_write_tokens", "reasoning_tokens"})


class TestStreamed(TestWhole):
    streamed = True


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, {"error": {"message": "prompt is too long: 9 > 8", "type": "x"}}, ContextTooLong),
        (400, {"error": {"type": "exceed_context_size_error"}}, ContextTooLong),
        (400, {"detail": "nope"}, ModelBadRequest),
        (402, {}, ModelAuthError),
        (408, {}, ModelTimeout),
        (409, {}, ModelBadRequest),
        (422, [], ModelBadRequest),
        (429, "slow down", ModelRateLimited),
        (500, None, ModelOverloaded),
        (502, {}, ModelOverloaded),
        (524, {}, ModelTimeout),
        (529, {}, ModelOverloaded),
        (204, {}, ModelBadResponse),
    ],
)
async def test_statuses(server: WireServer, model: OpenAIModel, status: Any, body: Any, kind: Any) -> None:
    server.plan(as_json(body, status=status) if status != 204 else Answer(status=201))
    with pytest.raises(ModelError) as caught:
        await model.reply(HELLO)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("test:tiny: ")


async def test_an_error_text_holds_the_providers_words_and_the_request(
    server: WireServer, model: OpenAIModel
) -> None:
    body = {
        "error": {
            "message": "no such thing",
            "code": "bad_thing",
            "type": "invalid_request_error",
            "param": "n[0].x",
        }
    }
    server.plan(as_json(body, status=400, headers={"x-request-id": "req_7"}))
    with pytest.raises(ModelBadRequest) as caught:
        await model.reply(HELLO)
    assert str(caught.value) == (
        "test:tiny: the provider refuses the request "
        "(status 400, code bad_thing, type invalid_request_error, param n[0].x, request req_7): "
        "no such thing"
    )


async def test_a_key_that_comes_back_as_a_word_is_not_passed_on(
    server: WireServer, model: OpenAIModel
) -> None:
    headers = {"x-request-id": f"req-{KEY}"}
    server.plan(as_json({"error": {"code": KEY, "type": f"x.{KEY}"}}, status=401, headers=headers))
    with pytest.raises(ModelAuthError) as caught:
        await model.reply(HELLO)
    assert str(caught.value) == "test:tiny: the provider does not accept the key (status 401)"


async def test_no_credit_is_the_operators(server: WireServer, model: OpenAIModel) -> None:
    server.plan(as_json(error("insufficient_quota", "insufficient_quota", {}), status=429))
    with pytest.raises(ModelAuthError, match="no credit") as caught:
        await model.reply(HELLO)
    assert caught.value.actor is Actor.OPERATOR
    assert not caught.value.transient


async def test_a_redirect_is_not_followed(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(status=307, headers={"Location": server.url + "/elsewhere"}))
    with pytest.raises(ModelBadRequest, match="redirect"):
        await model.reply(HELLO)
    assert len(server.journal) == 1


async def test_an_overload_says_how_long_to_wait(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(status=503, kind="text/html", headers={"Retry-After": "2.5"}, chunks=[b"<h1>busy"]))
    with pytest.raises(ModelOverloaded) as caught:
        await model.reply(HELLO)
    assert caught.value.retry_after == 2.5


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
    ],
)
def test_retry_after(headers: Any, expected: Any) -> None:
    assert retry_after(headers, datetime(2026, 11, 22, 12, tzinfo=UTC)) == expected


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with WireServer() as gone:
        url = gone.url
    async with OpenAIModel("tiny", api_key=KEY, base_url=url) as model:
        with pytest.raises(ModelUnreachable, match=r"cannot connect to 127\.0\.0\.1"):
            await model.reply(HELLO)


async def test_silence_is_a_timeout(server: WireServer) -> None:
    server.plan(Answer(before=True, end="hang"))
    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, timeout=0.5) as model:
        with pytest.raises(ModelTimeout):
            await model.reply(HELLO)
    await server.hung_up.wait()


async def test_silence_in_a_stream_is_a_timeout(server: WireServer) -> None:
    server.plan(as_events([delta({"content": "x"})], done=False, end="hang"))
    async with OpenAIModel("tiny", api_key=KEY, base_url=server.url, timeout=0.5) as model:
        with pytest.raises(ModelTimeout):
            await model.reply(HELLO, lambda _delta: None)
    await server.hung_up.wait()


@pytest.mark.parametrize("on_delta", [None, lambda _delta: None])
async def test_an_endless_reply_is_cut(
    server: WireServer, model: OpenAIModel, monkeypatch: pytest.MonkeyPatch, on_delta: Any
) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_BYTES", 100_000)
    server.plan(Answer(kind=STREAM if on_delta else "application/json", chunks=[b": x" * 1000 + b"\n"] * 40))
    with pytest.raises(ModelBadResponse, match="more than 100000 bytes"):
        await model.reply(HELLO, on_delta)


async def test_a_reply_that_cannot_be_decompressed_is_refused(server: WireServer, model: OpenAIModel) -> None:
    server.plan(Answer(headers={"Content-Encoding": "gzip"}, chunks=[b"this is no gzip"]))
    with pytest.raises(ModelBadResponse, match="decompressed"):
        await model.reply(HELLO)


# --- connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_delta", [None, lambda _delta: None])
async def test_a_connection_is_used_again(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider, on_delta: Any
) -> None:
    for _ in range(3):
        provider.answer(as_reply("Yes."))
        await model.reply(HELLO, on_delta)
    assert (len(server.journal), server.connections) == (3, 1)


async def test_a_server_that_stays_silent_after_the_end_does_not_hold_the_reply(
    server: WireServer, model: OpenAIModel
) -> None:
    server.plan(as_events(events(as_reply("Yes.")), end="hang"))
    assert (await model.reply(HELLO, lambda _delta: None)).text == "Yes."
    await server.hung_up.wait()


async def test_cancelling_in_the_middle_of_a_stream_closes_the_connection(
    server: WireServer, model: OpenAIModel
) -> None:
    server.plan(as_events([delta({"content": "x"})], done=False, end="hang"))
    seen = asyncio.Event()
    waiting = asyncio.create_task(model.reply(HELLO, lambda _delta: seen.set()))
    await seen.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await server.hung_up.wait()


async def test_closing_closes_the_connections_and_the_model_can_be_used_again(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider
) -> None:
    for _ in range(2):
        provider.answer(as_reply("Yes."))
        await model.reply(HELLO)
        await model.aclose()
        await model.aclose()
    assert server.connections == 2


def test_one_model_serves_one_loop_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model = OpenAIModel("tiny", api_key=None, base_url="http://127.0.0.1:9/v1")

    async def once() -> str:
        async with WireServer() as server, model:
            model._endpoint._url = server.url + "/chat/completions"
            model._endpoint.__dict__.pop("_prepared", None)
            server.plan(as_json(completion(as_reply("Yes."))))
            return (await model.reply(HELLO)).text

    assert [asyncio.run(once()) for _ in range(3)] == ["Yes."] * 3


# --- construction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"api_key": ""},
        {"api_key": " \n"},
        {"api_key": "sk-a\nX-Evil: 1"},
        {"api_key": "sk-ä"},
        {"base_url": "api.openai.com/v1"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http:///v1"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host/v1#top"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://[::1/v1"},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"name": ""},
    ],
)
def test_what_cannot_be_right_is_said_at_once(more: Any) -> None:
    arguments: dict[str, Any] = {"name": "tiny", "api_key": KEY, **more}
    with pytest.raises(UsageError) as caught:
        OpenAIModel(**arguments)
    assert "secret" not in str(caught.value)
    assert "Evil" not in str(caught.value)


async def test_white_space_around_a_key_is_no_part_of_it(server: WireServer) -> None:
    server.plan(as_json(completion(as_reply("Yes."))))
    async with OpenAIModel("tiny", api_key=f" {KEY}\r\n", base_url=server.url) as model:
        await model.reply(HELLO)
    assert server.journal[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_key_is_not_logged(
    server: WireServer, model: OpenAIModel, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.answer(as_reply("Yes."))
    await model.reply(HELLO)
    assert KEY not in caplog.text
    assert KEY not in repr(model)


def test_the_library_is_light_until_a_model_is_constructed() -> None:
    program = "import sys, agentkit.models.openai.client; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_httpx2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentkit.models.adapter.http")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UsageError, match=r"agentkit\[openai\]"):
        OpenAIModel("tiny", api_key=KEY)
