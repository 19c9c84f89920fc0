"""HTTP headers: valid values, names that must not be set, and the time of ``Retry-After``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

FRAMING = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""These say whom a request is for, and where it ends: they follow from the URL and the body."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_PLAIN = re.compile(r"[^\t\x20-\x7e]")


def header_problem(name: str, value: str = "") -> str | None:
    """What is wrong with a header that is to be sent; ``None`` where nothing is. The value is not told."""
    if not _TOKEN.fullmatch(name):
        return f"{name!r} is no name of a header"
    if name.lower() in FRAMING:
        return f"the header {name} follows from the request, and cannot be given"
    if _NOT_PLAIN.search(value):
        return f"the header {name} holds a character that cannot be sent: plain ones only, and one line"
    return None


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
    from email.utils import parsedate_to_datetime  # a date is rare, and email takes long to load

    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp())
