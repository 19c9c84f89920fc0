"""Classification of a provider's errors into our tree, with the part of their text that is passed on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

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
    UnsupportedSetting,
)
from agentkit.messages import Usage
from agentkit.models.adapter.unsupported_settings import named_bound, refused_setting
from agentkit.models.provider_errors.bodies import message_of
from agentkit.models.provider_errors.context_length import is_too_long
from agentkit.models.provider_errors.reason import provider_reason
from agentkit.net.headers import retry_after

log = logging.getLogger("agentkit.models")

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:\[\]-]{0,63}")


def _any_of(*patterns: str) -> str:
    """One pattern, compiled when an error is read."""
    return "(?i)" + "|".join(patterns)


# the numbers are z.ai's, and those after "base_" MiniMax's
_NO_CREDIT = _any_of(
    "insufficient_(user_)?(quota|balance|credits?|funds)(_error)?|exceeded_current_quota_error|payment_required",
    "billing_(hard_limit_reached|not_active|error)|credit_balance_too_low|arrearage|1113|base_1008",
)
_NO_CREDIT_TEXT = _any_of(
    "credit balance is too low|insufficient (account )?(balance|credits?|funds)|(out of|not enough|no) credits",
    "exhausted (all )?(your )?credits|no remaining credits|not enough balance|specified api usage limits",
    "overdue[ -]payment|arrears|余额不足|欠费",
)
_BAD_KEY = _any_of(
    "invalid_api_key|incorrect_api_key|api_key_invalid|authentication_(error|failed)|invalid_authentication(_error)?",
    "unauthorized|unauthenticated|100[0-4]|base_1004|base_2049",
)
_BAD_KEY_TEXT = _any_of(
    r"(invalid|incorrect|wrong|missing|expired|malformed|no|bad) (api|access|auth|bearer)[ _-]?(key|token)",
    r"api[ _-]?key[^.]{0,30}\b(not valid|invalid|expired|missing|incorrect|not found|required|revoked|disabled)",
    r"authentication (failed|required|error)|invalid (authentication|credentials)|unauthori[sz]ed|unauthenticated",
)
_REFUSED = _any_of(
    "content_filter|content_policy_violation|invalid_prompt|data_?inspection_?failed|sensitive_words_detected",
    "responsibleaipolicyviolation|1301|base_1026|base_1027",
)
_REFUSED_TEXT = _any_of("blocked by content filtering|content management policy")
_TOO_FAST = _any_of(
    "rate_limit_exceeded|rate_limit_error|rate_limited|too_many_requests|tokens|130[235]|base_1002|base_1039"
)
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


_READ = 1000
"""Characters of a provider's words that are looked at."""
_LONG = 100_000
"""A request of more bytes is long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is known of a request that failed.

    Attributes:
        model: ``provider:name``.
        status: of the HTTP response.
        error: the provider's error object; empty where it sent none.
        headers: of the HTTP response, with lower-case names.
        secret: never to be passed on.
        sent: the request, as JSON in bytes. Without it none of the provider's words are passed on, since nobody could
            tell what they quote.
        also_secret: further texts that are not.
    """

    model: str
    status: int
    error: Mapping[str, Any]
    headers: Mapping[str, str]
    secret: str | None
    sent: object = None
    also_secret: Sequence[str] = ()

    @property
    def message(self) -> str:
        """The provider's words for it, as they are."""
        return message_of(self.error)

    def reason(self) -> str:
        """The provider's words for it, as far as they may be passed on."""
        if self.sent is None:
            return ""
        secrets = [each for each in (self.secret, *self.also_secret) if each]
        return provider_reason(self.message, sent=self.sent, secrets=secrets)

    def kinds(self) -> set[str]:
        """Its code and its type, which some have as a number."""
        found = (self.error.get(name) for name in ("code", "type", "status"))
        return {str(each).lower() for each in found if isinstance(each, str | int)}

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


def sent_with(response: object) -> bytes | None:
    """The body of the request that a response of httpx answers; ``None`` where it is not known."""
    try:
        found = cast("Any", response).request.content
    except (AttributeError, RuntimeError):
        return None
    return found if isinstance(found, bytes) else None


def to_model_error(refusal: Refusal) -> ModelError:
    """The error to raise.

    An account without credit (``insufficient_quota``, status 402) is a :class:`ModelAuthError`: waiting does not
    help, whoever holds the key must act.
    """
    kind, sentence = _classify(refusal)
    words = refusal.words()
    details = ", ".join([f"status {refusal.status}", *(f"{name} {word}" for name, word in words.items())])
    reason = refusal.reason()
    message = f"{refusal.model}: {sentence} ({details})" + (f": {reason}" if reason else "")
    log.debug("%s", message)
    error = kind(message)
    if isinstance(error, ModelRateLimited | ModelOverloaded):
        error.retry_after = retry_after(refusal.headers, datetime.now(UTC))
    if isinstance(error, UnsupportedSetting):
        error.setting = refused_setting(refusal.error, refusal.message[:_READ], 400) or ""
        error.most = named_bound(refusal.message, refusal.sent) if error.setting == "max_tokens" else None
    error.reason = reason
    return error


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
    words, text = refusal.kinds(), refusal.message[:_READ]
    status = _status(refusal, words)
    if _one_is(_NO_CREDIT, words) or status == 402 or re.search(_NO_CREDIT_TEXT, text):
        return ModelAuthError, "the account has no credit left"
    if _one_is(_TOO_FAST, words) and status in {200, 400, 403, 413, 500}:
        status = 429
    if is_too_long(refusal.error, text, status) or _has_no_words_for_it(refusal, text):
        return ContextTooLong, "the conversation does not fit the model's context"
    if _one_is(_BAD_KEY, words) or (status in {200, 400, 422, 500} and re.search(_BAD_KEY_TEXT, text)):
        return ModelAuthError, _KEY
    if _one_is(_REFUSED, words) or re.search(_REFUSED_TEXT, text):
        return ContentRefused, "the provider's filter declined the request"
    if (setting := refused_setting(refusal.error, text, status)) is not None:
        return UnsupportedSetting, f"the model does not take the setting {setting} as it is"
    if words & {"model_not_found"}:
        status = 404
    return _BY_STATUS.get(status) or _by_class(status)


def _one_is(pattern: str, words: set[str]) -> bool:
    return any(re.fullmatch(pattern, word) for word in words)


def _has_no_words_for_it(refusal: Refusal, text: str) -> bool:
    """Cerebras, Mistral and proxies refuse a long request with a bare status."""
    if text and not re.search("(request|payload|body|entity)[^.]{0,20}too large", text, re.IGNORECASE):
        return False
    size = len(refusal.sent) if isinstance(refusal.sent, bytes) else 0
    return refusal.status == 413 or (not text and refusal.status == 400 and size > _LONG)


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
