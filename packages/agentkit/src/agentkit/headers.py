"""Headers of HTTP: what may stand in one, and which are nobody's to set."""

from __future__ import annotations

import re

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
