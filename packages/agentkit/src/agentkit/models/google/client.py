"""Google Gemini, through its official SDK."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from agentkit.errors import (
    ContentRefused,
    ModelBadResponse,
    ModelError,
    ModelTimeout,
    ModelUnreachable,
    UsageError,
)
from agentkit.messages import ModelReply, ModelRequest
from agentkit.models.adapter.json import as_list, as_object, as_text
from agentkit.models.adapter.redaction import cut_secrets
from agentkit.models.adapter.sdk import SdkModel
from agentkit.models.credentials import GOOGLE_URL
from agentkit.models.google.contents import Asked, ContentDraft, encode_request, encoded_settings
from agentkit.models.provider_errors.classification import charge
from agentkit.ports import OnDelta

if TYPE_CHECKING:
    import httpx2

API_VERSION = "v1beta"
"""Where what is new is to be had, and names such as ``gemini-flash-latest``; the SDK's own is ``v1``."""


class GoogleClient(SdkModel):
    """What its models and its embeddings share: the SDK's client, and its errors as ours.

    The address is the one up to, and without, the version of the API.
    """

    own_name = "google"
    own_url = GOOGLE_URL

    def _plain(self, found: Any) -> Mapping[str, Any]:
        with self._our_errors():
            plain: dict[str, Any] = found.model_dump(exclude_none=True)
        return plain

    def _load(self) -> Any:
        # a namespace that other distributions share, in which pyright does not find it
        from google import genai  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]

        return cast("Any", genai)

    def _made(self) -> Any:
        client = self._endpoint.client()
        options = {
            "base_url": self._base_url,
            "api_version": API_VERSION,
            "headers": {"accept-encoding": "identity", **self._extras.headers},
            "extra_body": None
            if self.wire == "google"
            else dict(self._extras.body) or None,  # a model's: see `encode_request`
            # its own `timeout` would be a deadline of the whole call at the provider; without, it waits for ever
            "httpx_async_client": with_timeout(client, self._timeout),
        }
        key = self._secret or "none"  # left out, the SDK would look for one in the environment
        return self._sdk.Client(api_key=key, vertexai=False, http_options=options)

    @contextmanager
    def _our_errors(self, sent: Asked | None = None) -> Generator[None, None, None]:
        """Errors of the SDK, and of the HTTP client below it, as ours. Their texts may hold what was sent.

        Args:
            sent: what was, where an error in the middle of a stream is not told with its request.
        """
        import httpx2

        try:
            yield
        except (ModelError, UsageError):
            raise
        except self._sdk.errors.APIError as error:
            raise self._refused(error, sent) from None
        except httpx2.TimeoutException as error:
            raise ModelTimeout(f"{self.name} did not answer in time ({type(error).__name__})") from None
        except (httpx2.HTTPError, OSError) as error:
            raise ModelUnreachable(f"the connection to {self.name} failed ({type(error).__name__})") from None
        except (ValueError, TypeError, AttributeError, KeyError, AssertionError, RecursionError) as error:
            raise ModelBadResponse(f"{self.name} sent what cannot be read ({type(error).__name__})") from None

    def _refused(self, error: Any, sent: Asked | None) -> ModelError:
        told = as_object(error.details)
        found = as_object(told.get("error")) or told
        details = [as_object(detail) for detail in as_list(found.get("details"))]
        status = error.code if isinstance(error.code, int) else 200
        if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
            status = 401  # told with status 400
        headers = {
            name.lower(): value for name, value in dict(getattr(error.response, "headers", {})).items()
        }
        for detail in details:
            if seconds := re.fullmatch(r"(\d+(\.\d+)?)s", as_text(detail.get("retryDelay"))):
                headers.setdefault("retry-after", seconds[1])
        words = {"type": as_text(found.get("status")), "message": found.get("message")}
        request = None if sent is None else {"contents": sent.contents, "config": sent.config}
        return self._error(words, status, headers, error.response, request)


class GoogleModel(GoogleClient):
    """A model of Google."""

    wire = "google"

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
        asked = encode_request(request, self._dialect)
        models = self._client().aio.models
        draft = ContentDraft(self._dialect, asked.output)
        if on_delta is None:
            with self._our_errors():
                found = await models.generate_content(
                    model=self._dialect.model, contents=asked.contents, config=asked.config
                )
            draft.take(self._plain(found))
            return self._finished(draft)
        with self._our_errors():
            chunks = await models.generate_content_stream(
                model=self._dialect.model, contents=asked.contents, config=asked.config
            )
        async with aclosing(chunks):
            while (chunk := await self._next(chunks, draft, asked)) is not None:
                for delta in draft.feed(self._plain(chunk)):
                    on_delta(delta)
            reply = self._finished(draft)
            for delta in draft.rest(reply):
                on_delta(delta)
        return reply

    async def _next(self, chunks: Any, draft: ContentDraft, asked: Asked) -> Any:
        try:
            with self._our_errors(asked):
                return await anext(chunks, None)
        except ModelError as error:
            if draft.begun and error.billed is not None:
                charge(error, draft.usage, begun=True)
            raise

    def _finished(self, draft: ContentDraft) -> ModelReply:
        try:
            if draft.blocked:
                why = f"the provider's filter declined the request ({draft.blocked})"
                raise ContentRefused(f"{self.name}: {why}")
            return draft.finish()
        except ModelError as error:
            charge(error, draft.usage, begun=True)
            raise


def with_timeout(client: httpx2.AsyncClient, seconds: float) -> httpx2.AsyncClient:
    """``client``, whose requests give up after so long a silence, whatever the SDK tells it."""
    import httpx2

    limits = httpx2.Timeout(seconds, connect=min(seconds, 10.0)).as_dict()

    async def limit(request: httpx2.Request) -> None:
        request.extensions["timeout"] = limits

    hooks = client.event_hooks
    hooks["request"] = [*hooks.get("request", []), limit]
    client.event_hooks = hooks
    return client
