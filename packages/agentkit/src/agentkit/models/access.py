"""How a provider is reached: addresses, keys, and what every request carries besides the conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agentkit.errors import UsageError
from agentkit.messages import JsonObject, JsonValue

OPENAI_URL = "https://api.openai.com/v1"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
GOOGLE_URL = "https://generativelanguage.googleapis.com"

_OURS = frozenset({"authorization", "content-type", "content-length", "host", "x-api-key", "x-goog-api-key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What every request carries.

    Attributes:
        headers: of each request; no key is among them, which is given as ``api_key``.
        body: further fields of each request, in the provider's own words: ``{"reasoning": {"effort": "low"}}``.
    """

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: JsonObject = field(default_factory=dict[str, JsonValue])

    def checked(self) -> Extras:
        """The same, where it can be sent.

        Raises:
            UsageError: a header cannot be one, or is not to be set by hand; no value is in the text.
        """
        for name, value in self.headers.items():
            if not (name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise UsageError(f"headers: {name[:40]!r} is not the name of a header")
            if name.lower() in _OURS:
                raise UsageError(f"headers: {name} is not set by hand; a key is given as api_key")
            if not (value.isascii() and value.isprintable()):
                raise UsageError(f"headers: the value of {name} holds characters that no header has")
        return self


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
