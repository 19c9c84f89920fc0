"""Tool calls that a goal comes down to, and the outline of their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from agentkit.messages import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Earlier:
    """The result of an earlier part of the goal, counted from 0."""

    part: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A text with results in it, such as an expression to calculate."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that is wanted.

    Attributes:
        tool: the tool's name.
        arguments: names and values, in their order; a call stands for its result.
        field: which member of the tool's output is the result; ``None`` for the output itself.
    """

    tool: str
    arguments: tuple[tuple[str, Argument], ...] = ()
    field: str | None = None

    def pieces(self) -> Iterator[Argument | Piece]:
        """The arguments, and what joined ones consist of."""
        for _, argument in self.arguments:
            yield from argument.pieces if isinstance(argument, Joined) else (argument,)

    def needs(self) -> Iterator[Call]:
        """The calls of the same part that this one waits for, and those they wait for, the innermost first."""
        for piece in self.pieces():
            if isinstance(piece, Call):
                yield from piece.needs()
                yield piece

    def refers_to(self) -> Iterator[int]:
        """The earlier parts whose results this call, or one that it waits for, makes use of."""
        for call in (*self.needs(), self):
            yield from (piece.part for piece in call.pieces() if isinstance(piece, Earlier))


Piece: TypeAlias = str | Call | Earlier
Argument: TypeAlias = str | int | bool | Call | Earlier | Joined


def calculation(*pieces: Piece) -> Call:
    """A call of the calculator."""
    return Call("calculator", (("expression", Joined(pieces)),))


def is_date(call: Call) -> bool:
    """The call's result is a date."""
    return call.tool in {"today", "add_days"}


def is_number(call: Call) -> bool:
    """The call's result is a number."""
    return call.tool in {"calculator", "days_between", "count_occurrences"} or call.field is not None


def unused(parts: Sequence[Call]) -> list[int]:
    """The parts whose results no other one makes use of."""
    used = {place for part in parts for place in part.refers_to()}
    return [place for place in range(len(parts)) if place not in used]


def members(value: object) -> JsonObject:
    """The members of an object; none where it is no object."""
    return cast("JsonObject", value) if isinstance(value, Mapping) else {}


def items(value: JsonValue) -> Sequence[JsonValue]:
    """The items of an array; none where it is no array."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def is_json_number(value: JsonValue) -> bool:
    """A number, and neither ``true`` nor ``false``."""
    return isinstance(value, int | float) and not isinstance(value, bool)
