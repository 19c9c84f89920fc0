"""What was handed over is not told back: secrets are cut out of what servers say."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast
from urllib.parse import quote

SHORTEST = 8
"""Characters; what is shorter may be a word of the text itself."""

SECRET = "[secret]"  # noqa: S105  (what stands in its place)

_KEYS = [
    re.compile(pattern)
    for pattern in (
        r"(?<![\w-])(?:sk|rk|pk)-[\w-]{16,}",  # OpenAI, Anthropic, OpenRouter and their like
        r"(?<![\w-])AIza[\w-]{30,}",
        r"(?<![\w-])(?:gh[pousr]_|github_pat_)\w{20,}",
        r"(?<![\w-])(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)",
        r"(?<![\w-])xox[a-z]-[\w-]{10,}",
        r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",  # a JSON web token
        r"(?i)(?<=bearer )[\w.~+/=-]{16,}",
        r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)",  # name and password in an address
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    )
]
_NAMED = re.compile(
    r"""(?ix) (?P<name> (?:password|passwd|pwd|secret|token|cookie|credentials?|authorization|api[-_ ]?key)
    ["']? \s* [=:] \s* ["']? (?:(?:basic|bearer)\s+)? ) [^\s"',;&]+"""
)
_SHORT_KEY = re.compile(r"(?<![\w-])(?:sk|rk|pk)-[\w-]{3,}")
_NO_SECRETS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})


class Secrets:
    """Values that are not to be told, and the names that stand in their place.

    They are found as they are, as JSON writes them and as a URL does; what is encoded otherwise is not.

    Args:
        values: each with its name.
        shortest: those that are shorter are left alone.
    """

    def __init__(self, values: Iterable[tuple[str, str]] = (), *, shortest: int = SHORTEST) -> None:
        forms = {
            form: f"[secret {name}]"
            for name, value in values
            if len(value) >= shortest
            for form in (value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""))
        }
        self._forms = sorted(forms.items(), key=lambda each: len(each[0]), reverse=True)

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Self:
        """The values of headers, what follows a scheme in them (``Bearer …``), and the password of a basic one."""
        found: list[tuple[str, str]] = []
        for name, value in headers.items():
            if name.lower() in _NO_SECRETS:
                continue
            scheme, _space, given = value.rpartition(" ")
            found += [(name, value), (name, given)]
            if scheme.lower() == "basic":
                found.append((name, _password_in(given)))
        return cls(found)

    def also(self, values: Iterable[tuple[str, str]]) -> Secrets:
        """These, and others."""
        both = Secrets(values)
        both._forms = sorted([*self._forms, *both._forms], key=lambda each: len(each[0]), reverse=True)
        return both

    def hidden(self, value: Any) -> Any:
        """A text, or JSON, without them."""
        if not self._forms:
            return value
        if isinstance(value, str):
            for form, shown in self._forms:
                value = value.replace(form, shown)
            return value
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            return {self.hidden(name): self.hidden(each) for name, each in fields.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(each) for each in cast("Iterable[Any]", value)]
        return value


def without_keys(text: str) -> str:
    """``text`` without what has the form of a key, a token or a password in an address."""
    for pattern in _KEYS:
        text = pattern.sub(SECRET, text)
    return text


def redacted(text: str) -> str:
    """``text`` for a log: also without what is named as a secret, ``password=…``. In doubt it is cut out."""
    return _SHORT_KEY.sub(SECRET, _NAMED.sub(rf"\g<name>{SECRET}", without_keys(text)))


def _password_in(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
