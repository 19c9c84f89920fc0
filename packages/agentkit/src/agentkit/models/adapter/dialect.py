"""Dialect of an endpoint that speaks OpenAI's wires: which fields it takes, and what it calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from agentkit.messages import JsonObject, JsonValue
from agentkit.models.adapter.call_ids import MISTRAL, OPENAI_CHAT, OPENAI_RESPONSES, IdRule
from agentkit.models.adapter.json import as_text, mend
from agentkit.models.adapter.opaque_data import issuer_of
from agentkit.models.credentials import MaxTokensField

_OF_MISTRAL = re.compile(r"(?i)(mis|mix|mini)tral|codestral|devstral|magistral|pixtral|voxtral")
SIGNS_CALLS = re.compile(r"gemini-([3-9]|\d\d)")
"""Models that refuse a call without a signature."""

_CLAUDE = re.compile(r"^~?anthropic/|claude")
_NO_SAMPLING = re.compile(r"^(o\d|gpt-5(-(?!chat)|$))")
"""Models of OpenAI that take no temperature; the ones after them do where they do not reason."""

_WANT_REASONING = (".deepseek.com", ".moonshot.ai", ".moonshot.cn", ".kimi.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one endpoint wants to be spoken to.

    Attributes:
        provider: the part before the colon in the names of its models.
        model: the model's name there.
        base_url: where it is; opaque data goes back to where it came from only.
        official: it is OpenAI's own.
        routed: it is OpenRouter, which tells the cost in dollars and fetches documents.
        max_tokens_field: the field that bounds the reply.
        stream_options: it is asked for the usage of a stream.
        more: further fields of each body, as they are.
    """

    provider: str
    model: str
    official: bool
    base_url: str = ""
    routed: bool = False
    max_tokens_field: MaxTokensField = "max_tokens"
    stream_options: bool = True
    more: JsonObject = field(default_factory=dict[str, JsonValue])

    @property
    def name(self) -> str:
        """``provider:name``."""
        return f"{self.provider}:{self.model}"

    @property
    def issuer(self) -> str:
        """Who wrote the opaque data of its replies."""
        return issuer_of(self.name, self.base_url)

    @property
    def takes_sampling(self) -> bool:
        """It takes ``temperature`` and ``top_p``, as far as is known."""
        return not (self.official and _NO_SAMPLING.search(self.model))

    @property
    def marks_caches(self) -> bool:
        """It caches where it is told to: Claude behind OpenRouter."""
        return self.routed and _CLAUDE.search(self.model) is not None

    @property
    def has_cache_keys(self) -> bool:
        """It is OpenAI's own, where requests of one key are brought to one cache."""
        return self._is_at(".openai.com")

    @property
    def wants_signatures(self) -> bool:
        """Its calls are signed, and one of another model needs a mark that it is not."""
        return self._is_at(".googleapis.com") and SIGNS_CALLS.search(self.model) is not None

    @property
    def wants_reasoning(self) -> bool:
        """It refuses a call without the reasoning before it, which one of another model does not have."""
        return self._is_at(*_WANT_REASONING)

    def _is_at(self, *hosts: str) -> bool:
        return _host_of(self.base_url).endswith(hosts)

    @property
    def is_mistral(self) -> bool:
        """It is Mistral's own."""
        return self.provider == "mistral" or self._is_at(".mistral.ai")

    @property
    def id_rule(self) -> IdRule | None:
        """What it asks of the ids of calls in Chat Completions."""
        if self.is_mistral or _OF_MISTRAL.search(self.model):
            return MISTRAL  # also of servers that run its models
        if self.official or (self.routed and self.model.startswith("openai/")):
            return OPENAI_CHAT
        return OPENAI_RESPONSES if self.routed else None


@cache
def _host_of(base_url: str) -> str:
    return f".{urlsplit(base_url).hostname or ''}"


def model_name(body: Mapping[str, Any], dialect: Dialect) -> str:
    """``provider:name`` of the model that answered, as far as the server says which one it was."""
    return f"{dialect.provider}:{mend(as_text(body.get('model')))[:200] or dialect.model}"
