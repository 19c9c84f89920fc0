"""A goal as tokens, and a cursor that reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Parsed = TypeVar("Parsed")

MAX_CHARACTERS = 50_000
MAX_TOKENS = 1_000
MAX_DEPTH = 30


class Kind(StrEnum):
    """What a token is."""

    QUOTED = "quoted"
    PATH = "path"
    DATE = "date"
    NUMBER = "number"
    WORD = "word"
    SYMBOL = "symbol"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of a goal.

    Attributes:
        kind: what it is.
        text: as it stands there; of a quoted one what is between the quotes.
        low: ``text`` in small letters.
        begin: where it begins in the goal.
    """

    kind: Kind
    text: str
    low: str
    begin: int


class TooLong(Exception):
    """The goal is longer than anything that is understood here. Never leaves this package."""


_MONTHS: Sequence[str] = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = "|".join(_MONTHS)
_DAY_FIRST = re.compile(
    rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<m>{_MONTH}),? (?P<y>\d{{4}})\b", re.IGNORECASE
)
_MONTH_FIRST = re.compile(
    rf"\b(?P<m>{_MONTH}) (?P<d>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<y>\d{{4}})\b", re.IGNORECASE
)
_TOKEN = re.compile(
    r"""
    "(?P<q1>[^"]*)" | “(?P<q2>[^”]*)” | «(?P<q3>[^»]*)» | `(?P<q4>[^`]*)` | (?<![\w'])'(?P<q5>[^']*)'(?!\w)
    | (?P<path>
        (?<!\S)(?:~|\.{1,2})?/[\w.*/-]*[\w*/]                      # /etc/hosts  ../notes  ./notes.txt
        | (?<!\S)[\w./-]*\*[\w.*/-]*\.[A-Za-z]\w{0,7}              # *.md  docs/**/*.md
        | (?!(?:pi|e)\s*/)[A-Za-z_][\w.-]{0,99}/(?:[\w.*/-]*[\w*/])?    # docs/  docs/notes.txt  Europe/Berlin
        | \w[\w-]{0,99}(?:\.[\w-]{1,99}){0,9}\.[A-Za-z]\w{0,7}(?!\w)             # notes.txt
      )
    | (?P<date>\d{4}-\d{2}-\d{2}(?!\d))
    | (?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)
    | (?P<word>[^\W\d_]+(?:['-][^\W\d_]+)*)
    | (?P<symbol>\*\*|//|[-+*/%^×÷−·()=,.;:?!&])
    | (?P<other>\S)
    """,
    re.VERBOSE,
)
_TEXT_FOLLOWS = frozenset({"text", "sentence", "phrase", "string", "following", "this", "paragraph"})


def tokenize(goal: str) -> list[Token]:
    """The tokens of ``goal``. After ``text:`` and the like all the rest is one quoted token.

    Raises:
        TooLong: there are more than :data:`MAX_TOKENS`, or :data:`MAX_CHARACTERS`.
    """
    if len(goal) > MAX_CHARACTERS:
        raise TooLong
    goal = _MONTH_FIRST.sub(_iso, _DAY_FIRST.sub(_iso, goal.replace("’", "'")))
    tokens: list[Token] = []
    place = depth = 0
    while (match := _TOKEN.search(goal, place)) is not None:
        kind, text, place = _read(match, depth)
        if kind is Kind.SYMBOL:
            depth += {"(": 1, ")": -1}.get(text, 0)
        if text == ":" and tokens and tokens[-1].low in _TEXT_FOLLOWS:
            rest = goal[place:].strip()
            if rest and rest[0] not in "\"'“«`":
                tokens.append(Token(kind=Kind.QUOTED, text=rest, low=rest.lower(), begin=place))
                break
        tokens.append(Token(kind=kind, text=text, low=text.lower(), begin=match.start()))
        if len(tokens) > MAX_TOKENS:
            raise TooLong
    return tokens


def _read(match: re.Match[str], depth: int) -> tuple[Kind, str, int]:
    """Kind and text of a token, and where the next one may begin."""
    group = match.lastgroup or "other"
    text = match[group]
    if group.startswith("q"):
        return Kind.QUOTED, text, match.end()
    if group == "number" and "," in text:
        if depth > 0:  # max(100,200) has two arguments
            text = text.split(",", maxsplit=1)[0]
            return Kind.NUMBER, text, match.start() + len(text)
        return Kind.NUMBER, text.replace(",", ""), match.end()
    return Kind(group), text, match.end()


def _iso(match: re.Match[str]) -> str:
    month = _MONTHS.index(match["m"].lower()) + 1
    return f"{match['y']}-{month:02}-{int(match['d']):02}"


class Cursor:
    """Reads tokens from left to right; every method either takes what it names or takes nothing."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    @property
    def at_end(self) -> bool:
        """Nothing is left."""
        return self._place >= len(self._tokens)

    @property
    def next(self) -> Token | None:
        """The next token, not taken."""
        return None if self.at_end else self._tokens[self._place]

    def take(self, kind: Kind) -> Token | None:
        """The next token, if it is of this kind."""
        token = self.next
        if token is None or token.kind is not kind:
            return None
        self._place += 1
        return token

    def accept(self, *phrases: str) -> str | None:
        """The first of ``phrases`` (small letters, words and symbols separated by spaces) that comes next."""
        phrase = self.sees(*phrases)
        if phrase is not None:
            self._place += len(phrase.split())
        return phrase

    def sees(self, *phrases: str) -> str | None:
        """As :meth:`accept`, but nothing is taken."""
        for phrase in phrases:
            words = phrase.split()
            ahead = self._tokens[self._place : self._place + len(words)]
            if [token.low for token in ahead if token.kind in {Kind.WORD, Kind.SYMBOL}] == words:
                return phrase
        return None

    def skip(self, *phrases: str) -> None:
        """Take any of ``phrases``, as often as they come."""
        while self.accept(*phrases):
            pass

    def attempt(self, parse: Callable[[], Parsed | None]) -> Parsed | None:
        """What ``parse`` makes of the tokens; where that is ``None`` it has taken none."""
        place = self._place
        parsed = parse()
        if parsed is None:
            self._place = place
        return parsed

    def nested(self, parse: Callable[[], Parsed | None]) -> Parsed | None:
        """As :meth:`attempt`, and ``None`` where the goal is nested too deeply."""
        if self._depth >= MAX_DEPTH:
            return None
        self._depth += 1
        try:
            return self.attempt(parse)
        finally:
            self._depth -= 1
