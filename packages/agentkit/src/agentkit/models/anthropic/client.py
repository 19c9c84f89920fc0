"""Anthropic, through its official SDK: the SDK sends, we read what comes back."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from agentkit.errors import ModelBadResponse, ModelError, ModelTimeout, ModelUnreachable
from agentkit.messages import ModelReply, ModelRequest
from agentkit.models.adapter.deltas import retell
from agentkit.models.adapter.json import as_object, load_json
from agentkit.models.adapter.redaction import cut_secrets
from agentkit.models.adapter.sdk import SdkModel
from agentkit.models.adapter.sse import EventReader
from agentkit.models.adapter.usage import UNCOUNTED
from agentkit.models.anthropic.messages import (
    MessageDraft,
    decode_reply,
    encode_request,
    encoded_settings,
    usage_of,
)
from agentkit.models.credentials import ANTHROPIC_URL
from agentkit.models.provider_errors.bodies import bare_error, error_object, refused_object
from agentkit.models.provider_errors.classification import charge
from agentkit.ports import OnDelta

if TYPE_CHECKING:
    import httpx2

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


class AnthropicModel(SdkModel):
    """A model of Anthropic. Its address is the one up to, and without, ``/v1/messages``."""

    own_name = "anthropic"
    own_url = ANTHROPIC_URL
    wire = "anthropic"

    def check_settings(self, request: ModelRequest) -> None:
        """Check, without sending anything, that the model takes the settings of ``request``, as far as is known.

        Raises:
            UnsupportedSetting: it does not take one.
        """
        encoded_settings(request, self._dialect)

    @cut_secrets
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
            response = answer.http_response
            if streamed and "event-stream" in response.headers.get("content-type", ""):
                draft = MessageDraft(self._dialect, request)
                return await self._streamed(response, draft, on_delta)
            found = self._loaded(await self._endpoint.read(response), response)
        try:
            reply = decode_reply(found, self._dialect, request)
        except ModelError as error:
            charge(error, usage_of(found), begun=True)
            raise
        if on_delta is not None:  # a server that does not stream
            retell(reply.parts, on_delta)
        return reply

    async def _streamed(
        self, response: httpx2.Response, draft: MessageDraft, on_delta: OnDelta | None
    ) -> ModelReply:
        reader = EventReader()
        async with aclosing(self._endpoint.chunks(response)) as chunks:
            async for chunk in chunks:
                for event in reader.feed(chunk):
                    is_last = event.strip() == b"[DONE]"  # of gateways that speak the wire of others, too
                    told = {"type": "message_stop"} if is_last else self._loaded(event, response, draft)
                    for delta in draft.feed(told) if not draft.ended else ():
                        if on_delta is not None:
                            on_delta(delta)
                if draft.ended:
                    await self._endpoint.drain(chunks)
                    break
        try:
            return draft.finish()
        except ModelError as error:
            charge(error, draft.usage if draft.ended else UNCOUNTED, begun=True)
            raise

    def _load(self) -> Any:
        import anthropic

        return anthropic

    def _made(self) -> Any:
        return self._sdk.AsyncAnthropic(
            api_key=self._secret or "none",  # left out, the SDK would look for one in the environment
            base_url=self._base_url,
            max_retries=0,
            timeout=self._timeout,
            default_headers={"accept-encoding": "identity", **self._extras.headers},
            open_telemetry={"traces": False},  # it traces by itself as soon as anybody does
            http_client=self._endpoint.client(),
        )

    def _loaded(
        self, text: bytes, response: httpx2.Response, draft: MessageDraft | None = None
    ) -> Mapping[str, Any]:
        try:
            found = load_json(text)
        except ValueError:
            found = None
        if error := error_object(found) or (bare_error(found) if draft is not None else {}):
            refused = self._error(error, response.status_code, response.headers, response)
            used = usage_of(as_object(found))
            charge(refused, used, begun=draft is not None and draft.begun)
            raise refused
        if not isinstance(found, dict):
            kind = response.headers.get("content-type", "without a type").split(";")[0][:64]
            raise ModelBadResponse(f"{self.name} sent no JSON object where one was due (status 200, {kind})")
        return cast("Mapping[str, Any]", found)

    @contextmanager
    def _our_errors(self) -> Generator[None, None, None]:
        """Errors of the SDK, as ours. Their texts may hold what was sent."""
        sdk = self._sdk
        try:
            yield
        except sdk.APIStatusError as error:
            response = error.response
            text = error.body if isinstance(error.body, str) else ""
            told = refused_object(None if text else error.body, text)
            raise self._error(told, response.status_code, response.headers, response) from None
        except sdk.APITimeoutError:
            raise ModelTimeout(f"{self.name} did not answer in time") from None
        except sdk.APIConnectionError as error:
            why = type(error.__cause__ or error).__name__
            raise ModelUnreachable(f"the connection to {self.name} failed ({why})") from None
        except (sdk.AnthropicError, ValueError, AssertionError, TypeError) as error:
            raise ModelBadResponse(f"{self.name}: the SDK gave up ({type(error).__name__})") from None
