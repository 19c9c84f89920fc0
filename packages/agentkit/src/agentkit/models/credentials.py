"""Credentials of a provider: addresses, keys, and the headers of every request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from agentkit.errors import UsageError
from agentkit.messages import JsonObject, JsonValue
from agentkit.models.adapter.body import Wire, checked_body

OPENAI_URL = "https://api.openai.com/v1"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
GOOGLE_URL = "https://generativelanguage.googleapis.com"

_OURS = frozenset(
    {"authorization", "api-key", "content-type", "content-length", "host", "x-api-key", "x-goog-api-key"}
)


MaxTokensField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
"""The fields of Chat Completions that bound a reply; each server takes one of them."""

_NEW_BOUND = (".openai.com", ".openai.azure.com", ".snowflakecomputing.com")
_NEW_BOUND_BELOW_OPENAI = (".services.ai.azure.com", ".cognitiveservices.azure.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What every request carries.

    Attributes:
        headers: of each request; no key is among them, which is given as ``api_key``.
        body: further fields of each request, in the provider's own words: ``{"reasoning": {"effort": "low"}}``.
        max_tokens_field: the field of Chat Completions that bounds the reply; by the address where not given.
        stream_options: usage is asked for with ``stream_options`` where Chat Completions are streamed; by the address
            where not given.
    """

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: JsonObject = field(default_factory=dict[str, JsonValue])
    max_tokens_field: MaxTokensField | None = None
    stream_options: bool | None = None

    def checked(self, wire: Wire | None = None) -> Extras:
        """The same, where it can be sent.

        Args:
            wire: which one is spoken, where it is that of a model.

        Raises:
            UsageError: a header cannot be one, or is not to be set by hand, or a field of the body is written by the
                adapter; no value is in the text.
        """
        if self.max_tokens_field not in {None, *get_args(MaxTokensField)}:
            raise UsageError(f"max_tokens_field: one of {', '.join(get_args(MaxTokensField))}")
        if wire is not None:
            checked_body(wire, self.body)
        for name, value in self.headers.items():
            if not (name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise UsageError(f"headers: {name[:40]!r} is not the name of a header")
            if name.lower() in _OURS:
                raise UsageError(f"headers: {name} is not set by hand; a key is given as api_key")
            if not (value.isascii() and value.isprintable()):
                raise UsageError(f"headers: the value of {name} holds characters that no header has")
        return self


def max_tokens_field(base_url: str) -> MaxTokensField:
    """The field that bounds a reply of Chat Completions at this address.

    OpenAI's newer models refuse ``max_tokens``, Snowflake refuses it for all, and most others know nothing else. The
    newer hosts of Azure serve OpenAI's wire below ``/openai``, and beside it one of their own.
    """
    parts = urlsplit(base_url)
    host = f".{parts.hostname or ''}"
    below_openai = host.endswith(_NEW_BOUND_BELOW_OPENAI) and "/openai" in parts.path
    is_new = host.endswith(_NEW_BOUND) or below_openai
    return "max_completion_tokens" if is_new else "max_tokens"


def takes_stream_options(base_url: str) -> bool:
    """Whether a server takes ``stream_options``: Mistral has refused it, and tells the usage of a stream without."""
    return not f".{urlsplit(base_url).hostname or ''}".endswith(".mistral.ai")


def is_azure_deployment(base_url: str) -> bool:
    """Whether this is Azure's older form of address, ``…/openai/deployments/NAME?api-version=…``.

    It knows Chat Completions only, and a key in a header of its own.
    """
    parts = urlsplit(base_url)
    return f".{parts.hostname or ''}".endswith(".azure.com") and "/openai/deployments/" in parts.path


def is_openai(base_url: str) -> bool:
    """Whether this is OpenAI's own service, its regions and Azure's included, and not a compatible server."""
    host = urlsplit(base_url).hostname or ""
    return f".{host}".endswith((".openai.com", ".openai.azure.com"))


def checked_url(base_url: str) -> str:
    """``base_url``, where it can be one.

    Raises:
        UsageError: it cannot; the text does not hold it.
    """
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # a bad one is noticed on access
    except ValueError:
        raise UsageError("base_url is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("base_url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.fragment:
        raise UsageError("base_url must hold neither a user name nor a fragment; a key is given as api_key")
    return base_url


def checked_key(api_key: str | None) -> str | None:
    """The key without the white space that files and shells leave around it.

    Raises:
        UsageError: it cannot be one.
    """
    key = api_key.strip() if api_key is not None else None
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise UsageError("api_key is empty or holds characters that no key has")
    return key
