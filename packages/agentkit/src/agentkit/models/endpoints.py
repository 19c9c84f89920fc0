"""Endpoints under names of their own, and the adapter that serves each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from agentkit.errors import UsageError
from agentkit.messages import JsonObject, JsonValue, ModelRequest
from agentkit.models.adapter.body import Wire
from agentkit.models.credentials import (
    ANTHROPIC_URL,
    GOOGLE_URL,
    OPENAI_URL,
    OPENROUTER_URL,
    Extras,
    MaxTokensField,
    checked_url,
    is_azure_deployment,
    is_openai,
)
from agentkit.ports import Model

if TYPE_CHECKING:
    from agentkit.models.adapter.dialect import Dialect
    from agentkit.models.anthropic.client import AnthropicModel
    from agentkit.models.google.client import GoogleModel
    from agentkit.models.openai.client import OpenAIModel

Kind: TypeAlias = Literal["openai", "openai-chat", "openai-responses", "openrouter", "anthropic", "google"]
"""Which wire is spoken: Chat Completions (``openai``, ``openai-chat``), Responses, and those of the others."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*(KEY|TOKEN|SECRET|PASSWORD)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEndpoint:
    """A server with a name: ``local:llama3.2:3b`` is a model behind the endpoint ``local``.

    Attributes:
        kind: the wire that it speaks; ``openai`` at OpenAI's own address is Responses, as that is its better one, and
            ``openai-chat`` is Chat Completions everywhere.
        base_url: its address; the provider's own where not given.
        api_key_env: the environment variable that holds its key; ``None`` for a server that wants none.
        headers: sent with each request.
        body: further fields of each request, in the server's own words.
        timeout_seconds: of silence, after which a call is given up.
        max_tokens_field: the field of Chat Completions that bounds the reply, ``max_tokens`` or
            ``max_completion_tokens``; by the address where not given.
        stream_options: the usage of a stream of Chat Completions is asked for; by the address where not given.
    """

    kind: Kind = "openai"
    base_url: str | None = None
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: JsonObject = field(default_factory=dict[str, JsonValue])
    timeout_seconds: float = 300.0
    max_tokens_field: MaxTokensField | None = None
    stream_options: bool | None = None

    def checked(self, name: str) -> NamedEndpoint:
        """The same, where it can be one; ``name`` is its own.

        Raises:
            UsageError: a field cannot be right; the text names it, and holds no value of it.
        """
        if not _NAME.fullmatch(name) or name in OWN_NAMES:
            raise UsageError(
                f"an endpoint cannot be called {name[:80]!r}: small letters, digits, _ and -, from a letter on, "
                f"and none of {', '.join(sorted(OWN_NAMES))}"
            )
        if self.kind not in get_args(Kind):
            raise UsageError(f"kind: one of {', '.join(get_args(Kind))}")
        if self.base_url is not None:
            checked_url(self.base_url)
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # those are the names whose values are cut out of logs
            raise UsageError(
                "api_key_env: the name of an environment variable that ends in KEY, TOKEN, SECRET or PASSWORD"
            )
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise UsageError("timeout_seconds: a number of seconds above zero")
        extras_of(self).checked(self.wire)
        return self

    @property
    def wire(self) -> Wire:
        """Which one its models are spoken to in."""
        if self.kind in {"anthropic", "google"}:
            return "anthropic" if self.kind == "anthropic" else "google"
        base_url = self.base_url or _URL_OF_KIND[self.kind]
        return "responses" if _speaks_responses(self.kind, base_url) else "chat"


def extras_of(endpoint: NamedEndpoint) -> Extras:
    """What each request to an endpoint carries."""
    return Extras(
        headers=endpoint.headers,
        body=endpoint.body,
        max_tokens_field=endpoint.max_tokens_field,
        stream_options=endpoint.stream_options,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One of our own: ``openai:NAME`` and its like.

    Attributes:
        kind: the wire that it speaks.
        label: what it is called in sentences.
        url: its address.
        key_variables: environment variables that hold its key; the first that is set counts.
        url_variable: the one that holds another address.
    """

    kind: Kind
    label: str
    url: str
    key_variables: tuple[str, ...]
    url_variable: str


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        kind="openai",
        label="OpenAI",
        url=OPENAI_URL,
        key_variables=("OPENAI_API_KEY",),
        url_variable="OPENAI_BASE_URL",
    ),
    "openrouter": Provider(
        kind="openrouter",
        label="OpenRouter",
        url=OPENROUTER_URL,
        key_variables=("OPENROUTER_API_KEY",),
        url_variable="OPENROUTER_BASE_URL",
    ),
    "anthropic": Provider(
        kind="anthropic",
        label="Anthropic",
        url=ANTHROPIC_URL,
        key_variables=("ANTHROPIC_API_KEY",),
        url_variable="ANTHROPIC_BASE_URL",
    ),
    "google": Provider(
        kind="google",
        label="Google",
        url=GOOGLE_URL,
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        url_variable="GOOGLE_GEMINI_BASE_URL",
    ),
}
OFFLINE = "offline"
OWN_NAMES = frozenset({OFFLINE, *PROVIDERS})
_URL_OF_KIND: Mapping[str, str] = {
    "openai": OPENAI_URL,
    "openai-chat": OPENAI_URL,
    "openai-responses": OPENAI_URL,
    "openrouter": OPENROUTER_URL,
    "anthropic": ANTHROPIC_URL,
    "google": GOOGLE_URL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model to be made.

    Attributes:
        provider: what comes before the colon of its name.
        model: what comes behind it.
        endpoint: where it is.
        api_key: its key.
    """

    provider: str
    model: str
    endpoint: NamedEndpoint
    api_key: str | None


def make(target: Target) -> Model:
    """The adapter for ``target``.

    Raises:
        UsageError: something about it cannot be right, or its library is not installed.
    """
    where = target.endpoint
    base_url = where.base_url or _URL_OF_KIND[where.kind]
    return _adapter(where.kind, base_url)(
        target.model,
        api_key=target.api_key,
        base_url=base_url,
        provider=target.provider,
        timeout=where.timeout_seconds,
        extras=extras_of(where),
    )


def check_of(endpoint: NamedEndpoint, provider: str, model: str, request: ModelRequest) -> None:
    """Check that a model of ``endpoint`` takes the settings of ``request``, without opening anything.

    Raises:
        UnsupportedSetting: it does not take one.
    """
    from agentkit.models.anthropic import messages
    from agentkit.models.google import contents
    from agentkit.models.openai import chat, responses
    from agentkit.models.openai.client import dialect_of

    base_url = endpoint.base_url or _URL_OF_KIND[endpoint.kind]
    wires: Mapping[Wire, Callable[[ModelRequest, Dialect], object]] = {
        "anthropic": messages.encoded_settings,
        "google": contents.encoded_settings,
        "responses": responses.encoded_settings,
        "chat": chat.encoded_settings,
    }
    wires[endpoint.wire](request, dialect_of(provider, model, base_url, extras_of(endpoint)))


def _adapter(kind: Kind, base_url: str) -> type[OpenAIModel | AnthropicModel | GoogleModel]:
    if kind == "anthropic":
        from agentkit.models.anthropic.client import AnthropicModel

        return AnthropicModel
    if kind == "google":
        from agentkit.models.google.client import GoogleModel

        return GoogleModel
    from agentkit.models.openai.client import OpenAIModel, OpenRouterModel, ResponsesModel

    if kind == "openrouter":
        return OpenRouterModel
    return ResponsesModel if _speaks_responses(kind, base_url) else OpenAIModel


def _speaks_responses(kind: Kind, base_url: str) -> bool:
    by_itself = kind == "openai" and is_openai(base_url) and not is_azure_deployment(base_url)
    return kind == "openai-responses" or by_itself


def needs_key(kind: Kind, base_url: str) -> bool:
    """Whether this is a provider's own service, which answers nobody without a key."""
    return base_url == _URL_OF_KIND[kind] or is_openai(base_url)
