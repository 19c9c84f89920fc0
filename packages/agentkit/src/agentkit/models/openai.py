"""OpenAI and every server that speaks its Chat Completions wire (Ollama, vLLM, llama.cpp, OpenRouter, …)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit, urlunsplit

from agentkit.errors import ModelBadResponse, ModelError, UsageError
from agentkit.messages import ModelReply, ModelRequest, Reasoning, ReasoningDelta, Text, TextDelta
from agentkit.models.openai_stream import EventReader, ReplyDraft
from agentkit.models.openai_wire import Dialect, decode_reply, encode_request
from agentkit.models.refusals import Refusal, error_object, to_model_error
from agentkit.models.wire_json import as_object, load_json
from agentkit.ports import OnDelta

if TYPE_CHECKING:
    import httpx2

OPENAI_URL = "https://api.openai.com/v1"


class OpenAIModel:
    """A model behind ``POST {base_url}/chat/completions``.

    Use it as an async context manager, or call :meth:`aclose`. One object serves any number of runs at once, and event
    loops one after the other. Proxies are taken from the environment (``HTTPS_PROXY``, ``NO_PROXY``) unless a client
    is passed in; redirects are never followed.

    Args:
        name: the model's name at the provider.
        api_key: sent as a bearer token; ``None`` for servers that want none.
        base_url: the address up to, and without, ``/chat/completions``.
        provider: what comes before the colon in :attr:`name`.
        timeout: seconds of silence after which a call is given up. A reply that keeps coming may take longer in all;
            the run's deadline ends that.
        client: an ``httpx2.AsyncClient`` to use in place of an own one; it stays open.

    Raises:
        UsageError: the key or the address cannot be right, or httpx2 is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str = OPENAI_URL,
        provider: str = "openai",
        timeout: float = 300.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        if not name:
            raise UsageError("a model needs a name")
        if not (math.isfinite(timeout) and timeout > 0):
            raise UsageError("timeout must be a number of seconds above zero")
        try:
            from agentkit.models.endpoint import Endpoint
        except ModuleNotFoundError as error:
            if error.name != "httpx2":
                raise
            raise UsageError("the OpenAI wire needs httpx2: pip install 'agentkit[openai]'") from None
        url = _completions_url(base_url)
        self._base_url = base_url
        self._dialect = Dialect(provider=provider, model=name, official=is_openai(base_url))
        self._secret = _checked_key(api_key)
        self._endpoint = Endpoint(url, headers=_headers(self._secret), timeout=timeout, client=client)

    @property
    def name(self) -> str:
        """``provider:name``."""
        return f"{self._dialect.provider}:{self._dialect.model}"

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop. Calling again is harmless."""
        await self._endpoint.aclose()

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One reply to ``request``, streamed where ``on_delta`` is given.

        Raises:
            ModelError: the subclass that says who must act; see ``docs/how-to/use-a-model.md``.
            UsageError: the request cannot be expressed as JSON.
        """
        body = encode_request(request, self._dialect, stream=on_delta is not None)
        async with self._endpoint.post(body) as response:
            if response.status_code != 200:
                raise await self._refusal(response)
            if _is_event_stream(response, asked=on_delta is not None):
                return await self._streamed(response, on_delta)
            found = self._loaded(await self._endpoint.read(response), response)
        reply = decode_reply(found, self._dialect)
        if on_delta is not None:  # a server that does not know `stream`
            _retell(reply, on_delta)
        return reply

    async def _streamed(self, response: httpx2.Response, on_delta: OnDelta | None) -> ModelReply:
        reader, draft, done = EventReader(), ReplyDraft(self._dialect), False

        def take(event: bytes) -> bool:
            if event.strip() == b"[DONE]":
                return True
            for delta in draft.feed(self._loaded(event, response)):
                if on_delta is not None:
                    on_delta(delta)
            return False

        async with aclosing(self._endpoint.chunks(response)) as chunks:
            async for chunk in chunks:
                done = any(map(take, reader.feed(chunk)))
                if done:
                    await self._endpoint.drain(chunks)
                    break
            else:
                done = any(map(take, reader.close()))
        return draft.finish(done=done)

    def _loaded(self, text: bytes, response: httpx2.Response) -> Mapping[str, Any]:
        """The JSON object in a body or event that shall hold a reply, or a piece of one."""
        try:
            found = load_json(text)
        except ValueError:
            found = None
        if error := error_object(found):
            raise self._error(error, response)
        if not isinstance(found, dict):
            kind = response.headers.get("content-type", "without a type").split(";")[0][:64]
            raise ModelBadResponse(f"{self.name} sent no JSON object where one was due (status 200, {kind})")
        return cast("Mapping[str, Any]", found)

    async def _refusal(self, response: httpx2.Response) -> ModelError:
        """What a status other than 200 says; its body may be anything, or break off."""
        try:
            found = load_json(await self._endpoint.read(response))
        except (ValueError, ModelError):
            found = None
        # FastAPI and others: {"detail": …}; some put the error's fields on top
        return self._error(error_object(found) or as_object(found), response)

    def _error(self, error: Mapping[str, Any], response: httpx2.Response) -> ModelError:
        return to_model_error(
            Refusal(
                model=self.name,
                status=response.status_code,
                error=error,
                headers=response.headers,
                secret=self._secret,
            )
        )


def is_openai(base_url: str) -> bool:
    """Whether this is OpenAI's own service, its regions and Azure's included, and not a compatible server."""
    host = urlsplit(base_url).hostname or ""
    return f".{host}".endswith((".openai.com", ".openai.azure.com"))


def _completions_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # a bad one is noticed on access
    except ValueError:
        raise UsageError("base_url is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("base_url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.fragment:
        raise UsageError("base_url must hold neither a user name nor a fragment; a key is given as api_key")
    path = parts.path.rstrip("/") + "/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _checked_key(api_key: str | None) -> str | None:
    """The key without the white space that files and shells leave around it."""
    key = api_key.strip() if api_key is not None else None
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise UsageError("api_key is empty or holds characters that no key has")
    return key


def _headers(key: str | None) -> dict[str, str]:
    # Not compressed: a proxy that compresses a stream holds pieces back, and a reply cannot be a bomb.
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "agentkit"}
    return headers if key is None else {**headers, "authorization": f"Bearer {key}"}


def _is_event_stream(response: httpx2.Response, *, asked: bool) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return "event-stream" in kind or (asked and "json" not in kind and "html" not in kind)


def _retell(reply: ModelReply, on_delta: OnDelta) -> None:
    for part in reply.parts:
        if isinstance(part, Text):
            on_delta(TextDelta(text=part.text))
        elif isinstance(part, Reasoning) and part.text:
            on_delta(ReasoningDelta(text=part.text))
