"""Reason of a provider's error, in its own words: short, without keys and without quotations of the request.

You need the provider's reason when a request is refused. But its text may hold the key, and parts of what was sent. So
what looks like a key is cut out, and so is what the request holds as well: four words that follow each other there, a
quotation of it, and any word with a digit that its messages hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from agentkit.models.adapter.json import as_object

LONGEST = 300
_READ = 4000
_RUN = 4
_LONG_WORD = 12
_SHORTEST_SECRET = 8
"""A shorter key is a placeholder ("x", "none") that real words may hold."""

_CUT = "[…]"
_KEY = "[key]"
_KEYS = (
    r"(?i)\bbearer\s+\S+"
    r"|(?<![A-Za-z0-9])(?:(?:sk|pk|rk|gsk|xai|hf|pplx|nvapi|csk|ghp|gho|xox[abp])[-_]|github_pat_|AIza|AKIA|ya29\.|eyJ)"
    r"[\w./+=*-]{3,}[\w/+=*-](?:\.{2,}\w+)?"
    r"|[\w-]*\*{3,}[\w*-]*"
    r"|(?<=://)[^/\s@]+@"
    r"|\?[^\s\"'?]*=[^\s\"']+"
)
_NAMED = re.compile(
    r"(\b(?:api[-_ ]?key|authorization|secret|password|token)[\"']?\s*[=:]\s*[\"']?)(?!\[)[^\s\"',;)]{6,}",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9_+/=]{24,}", re.ASCII)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\[nrtbf\"'/\\]")
_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"'([^']{3,})'|\"([^\"]{3,})\"|`([^`]{3,})`|“([^”]{3,})”")
_TELLING = re.compile(r"[\w@.+-]*[\d@][\w@.+-]*")


def provider_reason(said: str, *, sent: object, secrets: Sequence[str] = ()) -> str:
    """What of ``said`` may be passed on; empty where nothing is left.

    Args:
        said: by the provider: plain text or a web page.
        sent: the request, as JSON in bytes or as an object.
        secrets: that were sent with it.
    """
    text = said[:_READ]
    if re.search(r"<(!doctype|html|head|body|h1|title)\b", text[:500], re.IGNORECASE):
        text = _of_a_page(text)
    text = _ESCAPE.sub(_unescaped, text)
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
        parts = {
            part for part in re.findall(r"[\w.-]{6,}", text) if part in secret
        }  # of one that is cut short
        for part in (secret, *parts):
            text = text.replace(part, _KEY)
    text = _NAMED.sub(rf"\1{_KEY}", re.sub(_KEYS, _KEY, text))
    text = _RANDOM.sub(_CUT, _without_quotes(text, _Sent.of(sent)))
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    text = re.sub(r"(?:\[…\][\s,:;.{}()\[\]\"'`]*){2,}", f"{_CUT} ", text).strip()
    if not re.search(r"\w", text.replace(_CUT, "").replace(_KEY, "")):
        return ""
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else " "


def _of_a_page(text: str) -> str:
    """The words of a web page: its title and headings where it has them."""
    headings = re.findall(r"<(title|h1|h2)[^>]*>(.*?)</\1>", text, re.IGNORECASE | re.DOTALL)
    if headings:
        text = " · ".join(dict.fromkeys(words.strip() for _, words in headings))
    text = re.sub(r"<(script|style)\b.*?(</\1>|$)", " ", text, flags=re.IGNORECASE | re.DOTALL)
    import html  # a table of thousands of names, for the few providers that answer with a page

    return html.unescape(re.sub(r"<[^>]*>", " ", text))


class _Sent:
    """The words of a request: all of them in their order, and those of its messages."""

    def __init__(self, words: Sequence[str], spoken: str) -> None:
        self.runs = {tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)}
        self.spoken = spoken

    @classmethod
    def of(cls, sent: object) -> _Sent:
        found: Any = sent
        if isinstance(sent, bytes):
            found = sent.decode(errors="replace")
            with suppress(ValueError):
                found = json.loads(found)
        body = as_object(found)
        quotable: Any = {name: value for name, value in body.items() if name != "model"} or found
        words = [word for text in _texts(quotable) for word in _words(text)]
        parts = [
            body.get(name) for name in ("messages", "input", "contents", "system", "instructions", "config")
        ]
        return cls(words, " ".join(" ".join(_words(text)) for part in parts for text in _texts(part)))

    def holds(self, text: str) -> bool:
        """Whether the messages hold these words, one after the other."""
        words = " ".join(_words(text))
        return bool(words) and f" {words} " in f" {self.spoken} "


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[object, object]", value).items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[object]", value):
            yield from _texts(inner)
    elif isinstance(value, str | int | float):
        yield str(value)


def _words(text: str) -> list[str]:
    return _WORD.findall(_ESCAPE.sub(" ", text).lower())


def _without_quotes(text: str, sent: _Sent) -> str:
    spans = [*_runs(text, sent), *_quotations(text, sent)]
    for start, end in reversed(_merged(spans)):
        text = f"{text[:start]}{_CUT}{text[end:]}"
    return text


def _runs(text: str, sent: _Sent) -> Iterator[tuple[int, int]]:
    found = list(_WORD.finditer(text))
    words = [word[0].lower() for word in found]
    for at in range(len(words) - _RUN + 1):
        if tuple(words[at : at + _RUN]) in sent.runs:
            yield found[at].start(), found[at + _RUN - 1].end()


def _quotations(text: str, sent: _Sent) -> Iterator[tuple[int, int]]:
    for found in _QUOTED.finditer(text):
        inner = next(group for group in found.groups() if group is not None)
        if (len(_words(inner)) > 1 or len(inner) >= _LONG_WORD) and sent.holds(inner):
            yield found.start() + 1, found.end() - 1
    for word in _TELLING.finditer(text):
        if len(word[0]) >= 6 and sent.holds(word[0]):
            yield word.span()


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
