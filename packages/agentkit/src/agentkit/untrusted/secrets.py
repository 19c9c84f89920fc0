"""Secrets: cut out of texts that come back, and filled into what is declared as ``${NAME}``.

There is one way to learn what is secret (:class:`Secrets`, with all parts and forms of a value), and one register of
what this process knows (:data:`REGISTER`), which its log goes by. Who holds a secret makes a :class:`Secrets` of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, cast
from urllib.parse import quote, quote_plus, unquote, urlsplit

from agentkit.errors import UsageError

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
_NO_SECRETS = frozenset(
    {
        *(
            "accept",
            "accept-encoding",
            "accept-language",
            "cache-control",
            "connection",
            "content-type",
            "host",
        ),
        *("origin", "prefer", "referer", "user-agent"),
    }
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SEPARATORS = re.compile(r"[\s,;&|]+")
_TELLING = re.compile(
    r"KEY|TOKEN|SECRET|PASS|PWD|PAT\b|AUTH|CRED|COOKIE|SESSION|\bSID\b|DSN|SIGNATURE", re.IGNORECASE
)
_WORDS = re.compile(r"[A-Za-z]+([-_. ][A-Za-z]+)*")
"""What may stand in any text, such as ``production``."""
_LONG_LINE = 16


class Register:
    """The secrets that this process knows. Threads may share it."""

    def __init__(self) -> None:
        self._forms: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pattern: re.Pattern[str] | None = None

    def add(self, forms: Mapping[str, str]) -> None:
        """Know these from now on: texts, each with what stands in its place."""
        if forms.keys() <= self._forms.keys():
            return
        with self._lock:
            self._forms = {**self._forms, **forms}
            self._pattern = _pattern_of(self._forms)

    def hidden(self, text: str) -> str:
        """A text without them."""
        pattern, forms = self._pattern, self._forms
        return text if pattern is None else pattern.sub(lambda found: forms[found[0]], text)


REGISTER = Register()
"""Of this process. Only what is long enough to be no word of a text is in it."""


class Secrets:
    """Values that are not to be told, and the names that stand in their place.

    They are found as they are, as JSON, HTML and URLs write them; what is encoded otherwise is not. Of a value that is
    made of several (a cookie, ``user:password``, a URL with a password, a key of several lines) the parts are found.

    Args:
        values: each with its name.
        shortest: those that are shorter are left alone.
    """

    def __init__(self, values: Iterable[tuple[str, str]] = (), *, shortest: int = SHORTEST) -> None:
        self._forms: dict[str, str] = {}
        for name, value in values:
            for part in dict.fromkeys((value, *_parts(value))):
                if len(part) >= (shortest if part == value else max(shortest, SHORTEST)):
                    self._forms |= dict.fromkeys(_written(part), f"[secret {name}]")
        self._pattern = _pattern_of(self._forms)
        REGISTER.add({form: shown for form, shown in self._forms.items() if len(form) >= SHORTEST})

    @classmethod
    def of_headers(cls, headers: Mapping[str, str], filled: Iterable[tuple[str, str]] = ()) -> Self:
        """The values of headers with their parts: what follows a scheme (``Bearer …``), cookies, a basic password.

        Args:
            headers: as they are sent.
            filled: the variables that were filled in there.
        """
        found: list[tuple[str, str]] = []
        for name, value in headers.items():
            if name.lower() in _NO_SECRETS or name.lower().endswith("version"):
                continue
            scheme, _space, given = value.rpartition(" ")
            found += [(name, each) for each in (value, given) if not _is_word(name, each)]
            if scheme.lower() == "basic":
                pair = _decoded(given)
                found += [(name, pair), (name, pair.partition(":")[2])]
        return cls([*secret_values(filled), *found])

    def also(self, values: Iterable[tuple[str, str]]) -> Secrets:
        """These, and others."""
        both = Secrets(values)
        both._forms = {**both._forms, **self._forms}
        both._pattern = _pattern_of(both._forms)
        return both

    def hidden(self, value: Any) -> Any:
        """A text, or JSON, without them."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._pattern.sub(lambda found: self._forms[found[0]], value)
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            return {self.hidden(name): self.hidden(each) for name, each in fields.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(each) for each in cast("Iterable[Any]", value)]
        return value

    def held_back(self, text: str) -> int:
        """Number of the last characters of a text with which one of them may begin."""
        longest = max(map(len, self._forms), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(form.startswith(text[-length:]) for form in self._forms):
                return length
        return 0


def secret_values(values: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Of variables that were filled in, those that are neither a path of this machine nor a word of any text.

    A word counts all the same where the name of its variable says that it is a secret.
    """
    for name, value in values:
        if not (value.startswith("/") and os.path.lexists(value)) and not _is_word(name, value):
            yield name, value


def looks_secret(name: str, value: str) -> bool:
    """A text that somebody has written out may be a secret: its name says so, or it looks made up by a machine."""
    if value.startswith("/") or len(value) < SHORTEST:
        return False
    return bool(_TELLING.search(name)) or _is_random(value)


def _is_word(name: str, value: str) -> bool:
    return bool(_WORDS.fullmatch(value)) and not _TELLING.search(name)


def _is_random(value: str) -> bool:
    kinds = [any(map(test, value)) for test in (str.isdigit, str.islower, str.isupper)]
    return (
        len(value) >= _LONG_LINE
        and sum(kinds) >= 2
        and kinds[0]
        and not _SCHEME.match(value)
        and " " not in value
    )


def _parts(value: str) -> Iterator[str]:
    """What a value is made of, and could be repeated alone."""
    for line in value.splitlines():
        if line != value and len(line) >= _LONG_LINE and not line.startswith("-----"):
            yield line
    for piece in filter(None, _SEPARATORS.split(value)):
        yield from _parts_of_word(piece, whole=piece == value)


def _parts_of_word(word: str, *, whole: bool) -> Iterator[str]:
    if _SCHEME.match(word):
        yield from _parts_of_url(word)
        return
    name, equals, given = word.partition("=")
    given = given.strip("\"'")
    if equals and given.strip("="):
        if not _is_word(name, given):
            yield given
            yield unquote(given)
        word = given
    elif not whole and _is_random(word):
        yield word
    first, colon, second = word.partition(":")
    if colon and first and second and not _is_word(first, second):
        yield second
        if _is_random(first):
            yield first


def _parts_of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)
    if parts.username and not password:  # a token in place of a user
        yield parts.username
    for pair in parts.query.split("&"):
        name, _equals, value = pair.partition("=")
        if not _is_word(name, value):
            yield value
            yield unquote(value)


_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;"))
"""As ``html.escape``, whose module loads a table of thousands of names."""


def _written(value: str) -> Iterator[str]:
    """A value as it is, and as JSON, HTML and URLs write it."""
    as_json = json.dumps(value)[1:-1]
    yield from (value, as_json, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(as_json)[1:-1])
    yield as_json.replace("/", "\\/")
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    for letter, entity in _ENTITIES:
        value = value.replace(letter, entity)
    yield value


def _pattern_of(forms: Mapping[str, str]) -> re.Pattern[str] | None:
    known = sorted(filter(None, forms), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known))) if known else None


def without_keys(text: str) -> str:
    """``text`` without what has the form of a key, a token or a password in an address."""
    for pattern in _KEYS:
        text = pattern.sub(SECRET, text)
    return text


def redacted(text: str) -> str:
    """``text`` for a log: without what is known to be secret, looks like a key or is named as one (``password=…``).

    In doubt it is cut out.
    """
    text = REGISTER.hidden(text)
    return _SHORT_KEY.sub(SECRET, _NAMED.sub(rf"\g<name>{SECRET}", without_keys(text)))


def _decoded(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Filling:
    """Fills in ``${NAME}``, and ``${NAME:-otherwise}`` for what may be missing. An empty variable counts as missing.

    Args:
        variables: what names stand for; looked at when something is filled in.

    Attributes:
        filled: the variables that were filled in so far.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.filled: dict[str, str] = {}

    def __call__(self, where: str, text: str) -> str:
        """The text with its variables filled in.

        Args:
            where: it stands.
            text: with or without variables.

        Raises:
            UsageError: one that has no other value is missing; the message names it, and where.
        """

        def value_of(found: re.Match[str]) -> str:
            value = self._variables.get(found[1])
            if value:
                self.filled[found[1]] = value
                return value
            if found[2] is None:
                raise UsageError(f"{where}: the variable {found[1]} is not set")
            return found[2]

        return _VARIABLE.sub(value_of, text)
