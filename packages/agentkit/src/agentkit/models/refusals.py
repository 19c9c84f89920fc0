"""What a provider's error means, as our tree.

A provider's message may quote the prompt, or the key, so it is never passed on: only its short words are (``code``,
``type``, ``param``, the request's id), where they look like words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from agentkit.errors import (
    ContentRefused,
    ContextTooLong,
    ModelAuthError,
    ModelBadRequest,
    ModelBadResponse,
    ModelError,
    ModelOverloaded,
    ModelRateLimited,
    ModelTimeout,
)
from agentkit.messages import Usage
from agentkit.models.wire_json import as_object, as_text

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:\[\]-]{0,63}")
_TOO_LONG_WORDS = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_TOO_LONG_TEXT = re.compile(  # vLLM, llama.cpp, Anthropic, Google: they have no word for it
    r"maximum context length|exceeds the available context size|prompt is too long"
    r"|exceeds the maximum number of tokens",
    re.IGNORECASE,
)
_NO_CREDIT = {
    "insufficient_quota",
    "insufficient_balance",
    "billing_hard_limit_reached",
    "billing_not_active",
}
_REFUSED = {"content_filter", "content_policy_violation", "invalid_prompt"}
_STATUS_OF_WORD: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server_error": 500,
    "api_error": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "timeout": 504,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is known of a request that failed.

    Attributes:
        model: ``provider:name``.
        status: of the HTTP response.
        error: the provider's error object; empty where it sent none.
        headers: of the HTTP response, with lower-case names.
        secret: never to be passed on.
    """

    model: str
    status: int
    error: Mapping[str, Any]
    headers: Mapping[str, str]
    secret: str | None

    def words(self) -> dict[str, str]:
        """The provider's own short words for it, where they are words."""
        candidates = {name: self.error.get(name) for name in ("code", "type", "param")}
        candidates["request"] = self.headers.get("x-request-id", self.headers.get("request-id"))
        return {
            name: word for name, word in candidates.items() if isinstance(word, str) and self._is_word(word)
        }

    def _is_word(self, word: str) -> bool:
        return _WORD.fullmatch(word) is not None and not self._is_secret(word)

    def _is_secret(self, word: str) -> bool:
        # A short key is a placeholder ("x", "none") that real words may hold.
        return self.secret is not None and len(self.secret) >= 8 and self.secret in word


def error_object(body: object) -> Mapping[str, Any]:
    """The error in a body or in an event; empty where there is none."""
    found = as_object(body)
    error = found.get("error")
    if isinstance(error, str) and error:
        return {"message": error}
    if found.get("object") == "error":  # vLLM
        return found
    return as_object(error)


def to_model_error(refusal: Refusal) -> ModelError:
    """The error to raise.

    An account without credit (``insufficient_quota``, status 402) is a :class:`ModelAuthError`: waiting does not
    help, whoever holds the key must act.
    """
    kind, sentence = _classify(refusal)
    words = refusal.words()
    details = ", ".join([f"status {refusal.status}", *(f"{name} {word}" for name, word in words.items())])
    message = f"{refusal.model}: {sentence} ({details})"
    if issubclass(kind, ModelRateLimited | ModelOverloaded):
        return kind(message, retry_after=retry_after(refusal.headers, datetime.now(UTC)))
    return kind(message)


def charge(error: ModelError, usage: Usage, *, begun: bool) -> None:
    """Note in ``error`` what is billed for the call all the same.

    Args:
        error: how the call ended.
        usage: what the provider has told of it.
        begun: some of the reply had arrived, so that something is billed where it tells nothing.
    """
    told = usage.cost_usd
    if told is not None or not (usage.partial or usage.by_kind):
        error.billed, error.billed_usd = (usage.input_tokens, usage.output_tokens), told
    elif begun or usage.tokens:
        error.billed = None


def _classify(refusal: Refusal) -> tuple[type[ModelError], str]:
    words = {word.lower() for name, word in refusal.words().items() if name in {"code", "type"}}
    status = _status(refusal, words)
    wordy = _TOO_LONG_TEXT.search(as_text(refusal.error.get("message"))[:300]) and status in {
        200,
        400,
        413,
        422,
        500,
    }
    if words & _TOO_LONG_WORDS or wordy:
        return ContextTooLong, "the conversation does not fit the model's context"
    text = as_text(refusal.error.get("message"))[:300]
    if words & _NO_CREDIT or status == 402 or "credit balance is too low" in text:
        return ModelAuthError, "the account has no credit left"
    if words & _REFUSED or "blocked by content filtering" in text:
        return ContentRefused, "the provider's filter declined the request"
    if words & {"model_not_found"}:
        status = 404
    return _BY_STATUS.get(status) or _by_class(status)


def _status(refusal: Refusal, words: set[str]) -> int:
    """The HTTP status that fits; errors inside a 200 or a stream have it in ``code``, or only words."""
    if refusal.status >= 300:
        return refusal.status
    code = refusal.error.get("code", refusal.error.get("status"))
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return next((_STATUS_OF_WORD[word] for word in sorted(words) if word in _STATUS_OF_WORD), refusal.status)


_Meaning = tuple[type[ModelError], str]
_BAD: _Meaning = ModelBadRequest, "the provider refuses the request"
_LATE: _Meaning = ModelTimeout, "the provider did not answer in time"
_KEY = "the provider does not accept the key"
_BY_STATUS: Mapping[int, _Meaning] = {
    401: (ModelAuthError, _KEY),
    403: (ModelAuthError, "the key has no right to this"),
    404: (ModelBadRequest, "the endpoint does not know this model or address"),
    408: _LATE,
    413: (ModelBadRequest, "the request is too large for the provider"),
    429: (ModelRateLimited, "the provider asks to slow down"),
    504: _LATE,
    524: _LATE,
}


def _by_class(status: int) -> _Meaning:
    if status >= 500:
        return ModelOverloaded, "the provider cannot answer just now"
    if status >= 400:
        return _BAD
    if status >= 300:
        return (
            ModelBadRequest,
            "the endpoint answers with a redirect, which is not followed: mend its base_url",
        )
    return ModelBadResponse, "the provider sent an error in place of a reply"


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, as ``Retry-After`` says: a number or a date (RFC 9110, section 10.2.3); never below zero.

    OpenAI's finer ``retry-after-ms`` comes first. What is neither is ignored.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", milliseconds, re.ASCII):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value, re.ASCII):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp())
