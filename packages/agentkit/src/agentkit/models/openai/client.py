"""OpenAI and every server that speaks one of its two wires: Chat Completions, and Responses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast
from urllib.parse import urlsplit, urlunsplit

from agentkit.errors import ModelBadResponse, ModelError, ModelMistaken, UsageError
from agentkit.messages import (
    Delta,
    ModelReply,
    ModelRequest,
    Part,
    TextDelta,
    Usage,
)
from agentkit.models.adapter.body import Wire as Spoken
from agentkit.models.adapter.deltas import retell
from agentkit.models.adapter.dialect import Dialect
from agentkit.models.adapter.json import as_object, load_json
from agentkit.models.adapter.output_tool import is_wrapped, unwrapped
from agentkit.models.adapter.redaction import cut_secrets, secrets_of
from agentkit.models.adapter.sse import EventReader
from agentkit.models.credentials import (
    OPENAI_URL,
    OPENROUTER_URL,
    Extras,
    checked_key,
    checked_url,
    is_azure_deployment,
    is_openai,
    max_tokens_field,
    takes_stream_options,
)
from agentkit.models.openai.chat import decode_reply, encode_request, encoded_settings, usage_of
from agentkit.models.openai.chat_stream import ReplyDraft
from agentkit.models.openai.responses import ResponsesWire
from agentkit.models.provider_errors.bodies import bare_error, error_object, message_of, refused_object
from agentkit.models.provider_errors.classification import Refusal, charge, sent_with, to_model_error
from agentkit.models.provider_errors.model_mistakes import mistaken_reply
from agentkit.ports import OnDelta

if TYPE_CHECKING:
    import httpx2


class Draft(Protocol):
    """A reply that arrives in pieces."""

    def feed(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        """What is new for somebody who watches."""
        ...

    def said(self) -> Iterator[Part]:
        """Reasoning and text, as far as they have come."""
        ...

    @property
    def begun(self) -> bool:
        """Some of the reply has arrived."""
        ...

    @property
    def usage(self) -> Usage:
        """What was used, as far as the provider has said."""
        ...

    def finish(self, *, done: bool) -> ModelReply:
        """The whole reply, once the stream has ended; ``done`` says that its last event was there.

        Raises:
            ModelBadResponse: it ended early.
        """
        ...


class Wire(Protocol):
    """One way to say a request and to understand its reply: pure."""

    path: str
    """What comes after the base address."""

    def encode(self, request: ModelRequest, *, stream: bool) -> bytes:
        """The body of the request."""
        ...

    def decode(self, body: Mapping[str, Any], request: ModelRequest) -> ModelReply:
        """The reply in a body that was not streamed.

        Raises:
            ModelBadResponse: it is none.
        """
        ...

    def check_settings(self, request: ModelRequest) -> None:
        """Raise :class:`~agentkit.errors.UnsupportedSetting` for a setting that is known not to be taken."""
        ...

    def draft(self, request: ModelRequest) -> Draft:
        """For a reply that is streamed."""
        ...

    def error_in(self, found: object) -> Mapping[str, Any]:
        """The provider's error in a body or event with status 200; empty where there is none."""
        ...

    def usage_in(self, found: Mapping[str, Any]) -> Usage:
        """What a body or an event says that was used."""
        ...


class ChatWire:
    """Chat Completions."""

    path = "/chat/completions"

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: ModelRequest, *, stream: bool) -> bytes:
        """See :class:`Wire`."""
        return encode_request(request, self._dialect, stream=stream)

    def decode(self, body: Mapping[str, Any], request: ModelRequest) -> ModelReply:
        """See :class:`Wire`."""
        return decode_reply(body, self._dialect)

    def check_settings(self, request: ModelRequest) -> None:
        """See :class:`Wire`."""
        encoded_settings(request, self._dialect)

    def draft(self, request: ModelRequest) -> ReplyDraft:
        """See :class:`Wire`."""
        return ReplyDraft(self._dialect)

    def error_in(self, found: object) -> Mapping[str, Any]:
        """See :class:`Wire`."""
        return error_object(found)

    def usage_in(self, found: Mapping[str, Any]) -> Usage:
        """See :class:`Wire`."""
        return usage_of(found, self._dialect)


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
        extras: headers and fields of each request.

    Raises:
        UsageError: the key, the address or a header cannot be right, or httpx2 is not installed.
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
        extras: Extras | None = None,
    ) -> None:
        if not name:
            raise UsageError("a model needs a name")
        if not (math.isfinite(timeout) and timeout > 0):
            raise UsageError("timeout must be a number of seconds above zero")
        try:
            from agentkit.models.adapter.http import Endpoint
        except ModuleNotFoundError as error:
            if error.name != "httpx2":
                raise
            raise UsageError("the OpenAI wire needs httpx2: pip install 'opspawn-agentkit[openai]'") from None
        extras = (extras or Extras()).checked(self._spoken)
        base_url = checked_url(base_url)
        self._base_url = base_url
        self._name = f"{provider}:{name}"
        self._wire = self._speaking(dialect_of(provider, name, base_url, extras))
        self._secret = checked_key(api_key)
        self._also_secret = tuple(extras.headers.values())
        self.secrets = secrets_of(self._secret, extras.headers)
        headers = {
            **_headers(self._secret, in_azures_header=is_azure_deployment(base_url)),
            **{name.lower(): value for name, value in extras.headers.items()},
        }
        url = _below(base_url, self._wire.path)
        self._endpoint = Endpoint(url, headers=headers, timeout=timeout, client=client)

    _spoken: ClassVar[Spoken] = "chat"

    def _speaking(self, dialect: Dialect) -> Wire:
        return ChatWire(dialect)

    @property
    def name(self) -> str:
        """``provider:name``."""
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop. Calling again is harmless."""
        await self._endpoint.aclose()

    def check_settings(self, request: ModelRequest) -> None:
        """Check, without sending anything, that the model takes the settings of ``request``, as far as is known.

        Raises:
            UnsupportedSetting: it does not take one.
        """
        self._wire.check_settings(request)

    @cut_secrets
    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One reply to ``request``, streamed where ``on_delta`` is given.

        Raises:
            ModelError: the subclass that says who must act; see ``docs/how-to/use-a-model.md``.
            UsageError: the request cannot be expressed as JSON.
        """
        body = self._wire.encode(request, stream=on_delta is not None)
        # an output that is wrapped on the wire is shown when it is unwrapped
        held = on_delta if is_wrapped(request) else None
        try:
            answered = await self._answered(body, request, on_delta if held is None else _without_text(held))
        except ModelMistaken as mistaken:
            if on_delta is not None:
                retell(mistaken.reply.parts[mistaken.shown :], on_delta)
            raise
        reply = unwrapped(answered, request)
        if held is not None and reply.text:
            held(TextDelta(text=reply.text))
        return reply

    async def _answered(self, body: bytes, request: ModelRequest, on_delta: OnDelta | None) -> ModelReply:
        async with self._endpoint.post(body) as response:
            if response.status_code != 200:
                raise await self._refusal(response)
            if _is_event_stream(response, asked=on_delta is not None):
                return await self._streamed(response, self._wire.draft(request), on_delta)
            found = self._loaded(await self._endpoint.read(response), response)
            reply = self._decoded(found, request, response)
        if on_delta is not None:  # a server that does not know `stream`
            retell(reply.parts, on_delta)
        return reply

    async def _streamed(
        self, response: httpx2.Response, draft: Draft, on_delta: OnDelta | None
    ) -> ModelReply:
        reader, done = EventReader(), False

        def take(event: bytes) -> bool:
            if event.strip() == b"[DONE]":
                return True
            for delta in draft.feed(self._loaded(event, response, draft)):
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
        try:
            return draft.finish(done=done)
        except ModelError as error:
            charge(error, draft.usage, begun=True)
            raise

    def _decoded(
        self, found: Mapping[str, Any], request: ModelRequest, response: httpx2.Response
    ) -> ModelReply:
        try:
            return self._wire.decode(found, request)
        except ModelError as error:
            told = refused_object(found)
            is_no_reply = not any(name in found for name in ("choices", "output"))
            problem = self._error(told, response) if is_no_reply and message_of(told) else error
            charge(problem, self._wire.usage_in(found), begun=not is_no_reply)
            raise problem from None

    def _loaded(
        self, text: bytes, response: httpx2.Response, draft: Draft | None = None
    ) -> Mapping[str, Any]:
        """The JSON object in a body or event that shall hold a reply, or a piece of one.

        What an error in its place costs hangs on what it tells, and on whether something of the reply had come.
        """
        try:
            found = load_json(text)
        except ValueError:
            found = None
        if error := self._wire.error_in(found) or (bare_error(found) if draft is not None else {}):
            used = self._wire.usage_in(as_object(found))
            if draft is not None and used.partial:
                used = draft.usage
            self._raise_if_mistaken(error, response, used, draft)
            refused = self._error(error, response)
            charge(refused, used, begun=draft is not None and draft.begun)
            raise refused
        if not isinstance(found, dict):
            kind = response.headers.get("content-type", "without a type").split(";")[0][:64]
            said = self._read_refusal({"message": text.decode(errors="replace")}, response).reason()
            why = f"status 200, {kind}" + (f": {said}" if said else "")
            raise ModelBadResponse(f"{self.name} sent no JSON object where one was due ({why})")
        return cast("Mapping[str, Any]", found)

    async def _refusal(self, response: httpx2.Response) -> ModelError:
        """What a status other than 200 says; its body may be anything, or break off."""
        text, found = b"", None
        with suppress(ValueError, ModelError):
            text = await self._endpoint.read(response)
            found = load_json(text)
        told = refused_object(found, text.decode(errors="replace"))
        used = self._wire.usage_in(as_object(found))
        self._raise_if_mistaken(told, response, used)
        error = self._error(told, response)
        charge(error, used, begun=False)
        return error

    def _raise_if_mistaken(
        self, error: Mapping[str, Any], response: httpx2.Response, used: Usage, draft: Draft | None = None
    ) -> None:
        said = [] if draft is None else list(draft.said())
        reply = mistaken_reply(error, response.status_code, said=said, usage=used, model=self.name)
        if reply is not None:
            reason = self._read_refusal(error, response).reason()
            mistaken = ModelMistaken(
                f"{self.name}: the model's reply was refused: {reason}", reply, len(said)
            )
            mistaken.reason = reason
            charge(mistaken, used, begun=True)
            raise mistaken

    def _error(self, error: Mapping[str, Any], response: httpx2.Response) -> ModelError:
        return to_model_error(self._read_refusal(error, response))

    def _read_refusal(self, error: Mapping[str, Any], response: httpx2.Response) -> Refusal:
        return Refusal(
            model=self.name,
            status=response.status_code,
            error=error,
            headers=response.headers,
            secret=self._secret,
            sent=sent_with(response),
            also_secret=self._also_secret,
        )


class OpenRouterModel(OpenAIModel):
    """A model behind OpenRouter, which speaks Chat Completions and passes them on.

    Its own fields go into ``extras.body``: ``{"models": […]}`` names models that take over where the first one fails,
    ``{"provider": {…}}`` says where it may be run. The reply's ``model`` is the one that answered, and its usage holds
    the cost. It is told that agentkit asks (``X-OpenRouter-Title``); ``extras.headers`` may say otherwise, and name
    your site as ``HTTP-Referer``.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str = OPENROUTER_URL,
        provider: str = "openrouter",
        timeout: float = 300.0,
        client: httpx2.AsyncClient | None = None,
        extras: Extras | None = None,
    ) -> None:
        given = extras or Extras()
        headers = {"x-openrouter-title": "agentkit"}
        headers.update({name.lower(): value for name, value in given.headers.items()})
        super().__init__(
            name,
            api_key=api_key,
            base_url=base_url,
            provider=provider,
            timeout=timeout,
            client=client,
            extras=replace(given, headers=headers),
        )

    def _speaking(self, dialect: Dialect) -> Wire:
        return ChatWire(replace(dialect, routed=True))


class ResponsesModel(OpenAIModel):
    """A model behind ``POST {base_url}/responses``: OpenAI's own, with reasoning that goes back encrypted.

    Takes what :class:`OpenAIModel` takes.
    """

    _spoken = "responses"

    def _speaking(self, dialect: Dialect) -> Wire:
        return ResponsesWire(dialect)


def _without_text(on_delta: OnDelta) -> OnDelta:
    def show(delta: Delta) -> None:
        if not isinstance(delta, TextDelta):
            on_delta(delta)

    return show


def _below(base_url: str, path: str) -> str:
    """The address of ``path`` below ``base_url``, whose query is kept."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, parts.query, ""))


def dialect_of(provider: str, name: str, base_url: str, extras: Extras) -> Dialect:
    """Return how a model at an address of OpenAI's wire is spoken to."""
    asks_for_usage = extras.stream_options
    return Dialect(
        provider=provider,
        model=name,
        base_url=base_url,
        official=is_openai(base_url),
        max_tokens_field=extras.max_tokens_field or max_tokens_field(base_url),
        stream_options=takes_stream_options(base_url) if asks_for_usage is None else asks_for_usage,
        more=extras.body,
    )


def _headers(key: str | None, *, in_azures_header: bool = False) -> dict[str, str]:
    # Not compressed: a proxy that compresses a stream holds pieces back, and a reply cannot be a bomb.
    headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "agentkit"}
    if key is None:
        return headers
    if in_azures_header and not key.startswith("eyJ"):  # a token of Entra ID is a bearer's
        return {**headers, "api-key": key}
    return {**headers, "authorization": f"Bearer {key}"}


def _is_event_stream(response: httpx2.Response, *, asked: bool) -> bool:
    kind = response.headers.get("content-type", "").lower()
    is_whole = ("json" in kind and "ndjson" not in kind) or "html" in kind
    return "event-stream" in kind or (asked and not is_whole)
