"""Anthropic, through its official SDK: the SDK sends, we read what comes back."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from agentkit.errors import ModelBadResponse, ModelError, ModelTimeout, ModelUnreachable, UsageError
from agentkit.messages import ModelReply, ModelRequest
from agentkit.models.access import ANTHROPIC_URL, Extras, checked_key, checked_url
from agentkit.models.anthropic_wire import MessageDraft, decode_reply, encode_request
from agentkit.models.openai_stream import EventReader
from agentkit.models.openai_wire import Dialect
from agentkit.models.refusals import Refusal, error_object, to_model_error
from agentkit.models.wire_json import load_json
from agentkit.ports import OnDelta

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic

_FIELDS = frozenset(
    {
        *{
            "model",
            "max_tokens",
            "messages",
            "system",
            "tools",
            "tool_choice",
            "stop_sequences",
            "output_config",
        }
    }
)


class AnthropicModel:
    """A model of Anthropic.

    Use it as an async context manager, or call :meth:`aclose`. One object serves any number of runs at once, and event
    loops one after the other. The SDK's retries and its own tracing are off; redirects are never followed.

    Args:
        name: the model's name at the provider.
        api_key: the key; ``None`` for a server that wants none.
        base_url: the address up to, and without, ``/v1/messages``.
        provider: what comes before the colon in :attr:`name`.
        timeout: seconds of silence after which a call is given up.
        client: an ``httpx2.AsyncClient`` to use in place of an own one; it stays open.
        extras: headers and fields of each request.

    Raises:
        UsageError: the key, the address or a header cannot be right, or the SDK is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        api_key: str | None,
        base_url: str = ANTHROPIC_URL,
        provider: str = "anthropic",
        timeout: float = 300.0,
        client: httpx2.AsyncClient | None = None,
        extras: Extras | None = None,
    ) -> None:
        if not name:
            raise UsageError("a model needs a name")
        if not (math.isfinite(timeout) and timeout > 0):
            raise UsageError("timeout must be a number of seconds above zero")
        try:
            import anthropic

            from agentkit.models.endpoint import Endpoint
        except ModuleNotFoundError as error:
            if error.name not in {"anthropic", "httpx2"}:
                raise
            raise UsageError("Anthropic needs its SDK: pip install 'agentkit[anthropic]'") from None
        self._sdk = anthropic
        self._extras = (extras or Extras()).checked()
        self._base_url = checked_url(base_url)
        self._dialect = Dialect(provider=provider, model=name, official=False, more=self._extras.body)
        self._secret = checked_key(api_key)
        self._timeout = timeout
        self._endpoint = Endpoint(base_url, headers={}, timeout=timeout, client=client)
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncAnthropic] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def name(self) -> str:
        """``provider:name``."""
        return self._dialect.name

    def __repr__(self) -> str:
        return f"AnthropicModel({self.name!r}, base_url={self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop. Calling again is harmless."""
        self._clients.pop(asyncio.get_running_loop(), None)
        await self._endpoint.aclose()

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One reply to ``request``, streamed where ``on_delta`` is given.

        Raises:
            ModelError: the subclass that says who must act; see ``docs/how-to/use-a-model.md``.
            UsageError: the request cannot be expressed as JSON.
        """
        fields = encode_request(request, self._dialect)
        own = {name: value for name, value in fields.items() if name in _FIELDS}
        more = {name: value for name, value in fields.items() if name not in _FIELDS}
        streamed = on_delta is not None
        sending = self._client().messages.with_streaming_response.create(
            **own, stream=streamed, extra_body=more or None, timeout=self._timeout
        )
        async with AsyncExitStack() as stack:
            with self._our_errors():
                answer = await stack.enter_async_context(sending)
            response = cast("Any", answer).http_response
            if streamed and "event-stream" in response.headers.get("content-type", ""):
                draft = MessageDraft(self._dialect, request.output_schema)
                return await self._streamed(response, draft, on_delta)
            found = self._loaded(await self._endpoint.read(response), response)
        return decode_reply(found, self._dialect, request.output_schema)

    async def _streamed(
        self, response: httpx2.Response, draft: MessageDraft, on_delta: OnDelta | None
    ) -> ModelReply:
        reader = EventReader()
        async with aclosing(self._endpoint.chunks(response)) as chunks:
            async for chunk in chunks:
                for event in reader.feed(chunk):
                    for delta in draft.feed(self._loaded(event, response)):
                        if on_delta is not None:
                            on_delta(delta)
                if draft.ended:
                    await self._endpoint.drain(chunks)
                    break
        return draft.finish()

    def _client(self) -> AsyncAnthropic:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._sdk.AsyncAnthropic(
                api_key=self._secret or "none",  # left out, the SDK would look for one in the environment
                base_url=self._base_url,
                max_retries=0,
                timeout=self._timeout,
                default_headers={"accept-encoding": "identity", **self._extras.headers},
                open_telemetry={"traces": False},  # it traces by itself as soon as anybody does
                http_client=self._endpoint.client(),
            )
        return client

    def _loaded(self, text: bytes, response: httpx2.Response) -> Mapping[str, Any]:
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

    @contextmanager
    def _our_errors(self) -> Generator[None, None, None]:
        """Errors of the SDK, as ours. Their texts may hold what was sent."""
        sdk = self._sdk
        try:
            yield
        except sdk.APIStatusError as error:
            raise self._error(error_object(error.body), error.response) from None
        except sdk.APITimeoutError:
            raise ModelTimeout(f"{self.name} did not answer in time") from None
        except sdk.APIConnectionError as error:
            why = type(error.__cause__ or error).__name__
            raise ModelUnreachable(f"the connection to {self.name} failed ({why})") from None
        except (sdk.AnthropicError, ValueError, AssertionError, TypeError) as error:
            raise ModelBadResponse(f"{self.name}: the SDK gave up ({type(error).__name__})") from None
