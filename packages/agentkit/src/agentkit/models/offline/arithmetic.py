"""Arithmetic in English and in signs, as an expression for the calculator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.models.offline.calls import Call, Earlier, Piece, calculation, is_number, unused
from agentkit.models.offline.dates import days_between
from agentkit.models.offline.sources import counts, several, total
from agentkit.models.offline.tokens import Cursor
from agentkit.models.offline.words import number


def _by_phrase(table: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    return {phrase: meaning for meaning, phrases in table.items() for phrase in phrases}


_INFIX = _by_phrase(
    {
        " + ": ("+", "plus", "added to"),
        " - ": ("-", "−", "minus", "less"),
        " ** ": ("**", "^", "to the power of", "raised to the power of"),
        " * ": ("*", "×", "·", "x", "times", "multiplied by"),
        " // ": ("//",),
        " / ": ("/", "÷", "divided by", "over"),
        " % ": ("%", "modulo", "mod"),
    }
)
_GATHER = _by_phrase(
    {
        " + ": ("sum of", "total of"),
        " * ": ("product of",),
        " - ": ("difference between", "difference of"),
        " / ": ("quotient of", "ratio of"),
    }
)
_CHOOSE = _by_phrase(
    {
        "max": ("maximum of", "largest of", "biggest of", "max of"),
        "min": ("minimum of", "smallest of", "min of"),
    }
)
_MEAN = ("average of", "mean of", "arithmetic mean of")
_APPLY = {"square root of": "sqrt", "absolute value of": "abs"}
_FACTORS = _by_phrase(
    {" / 2": ("half of", "half"), " * 2": ("twice", "double"), " * 3": ("three times", "triple")}
)
_FUNCTIONS = ("sqrt", "abs", "max", "min", "round", "floor", "ceil", "sum")
_THINGS = (
    "result",
    "count",
    "sum",
    "product",
    "total",
    "difference",
    "quotient",
    "number",
    "answer",
    "value",
)
_THE = ("the", "that", "this", "the previous", "the last", "the final")
_ONE = ("it", *(f"{the} {thing}" for the in _THE for thing in _THINGS), "that", "this")
_MANY_THINGS = ("counts", "numbers", "results", "values", "sums", "products", "totals", "answers")
_MANY = (
    *(
        f"{these} {things}"
        for these in ("the", "both", "these", "those", "all", "all the")
        for things in _MANY_THINGS
    ),
    *("both of them", "all of them", "them", "both", "these", "those"),
)
_TWO = (*(f"{the} two {things}" for the in ("the", "these", "those") for things in _MANY_THINGS), "the two")
_SEPARATORS = (", and", ",", "and", "with", "&")

Pieces: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A part of an expression.

    Attributes:
        pieces: signs, digits and calls.
        loose: needs parentheses as an operand.
    """

    pieces: Pieces
    loose: bool = False

    @property
    def tight(self) -> Pieces:
        """As an operand."""
        return ("(", *self.pieces, ")") if self.loose else self.pieces

    def as_call(self) -> Call:
        """The call whose result is the quantity; a call alone needs no calculator."""
        match self.pieces:
            case (Call() as call,):
                return call
            case pieces:
                return calculation(*pieces)


def joined(operands: Sequence[Quantity], sign: str) -> Quantity:
    """``operands`` with ``sign`` between them."""
    pieces = [piece for operand in operands for piece in (sign, *operand.tight)]
    return Quantity(tuple(pieces[1:]), loose=len(operands) > 1)


class Arithmetic:
    """Reads quantities.

    Args:
        cursor: the goal.
        results: what earlier sentences of the goal lead to; ``it`` and ``the two counts`` mean these.
    """

    def __init__(self, cursor: Cursor, results: Sequence[Call]) -> None:
        self._cursor = cursor
        self._results = results

    def quantity(self) -> Quantity | None:
        """A number, or numbers and signs."""
        return self._cursor.nested(self._quantity)

    def quantities(self) -> list[Quantity]:
        """``3, 4 and 5``, ``the two counts``, ``it``; empty where there is nothing of the kind."""
        return self.earlier() or self._counted_apart() or several(self._cursor, self.quantity, *_SEPARATORS)

    def latest(self) -> Quantity | None:
        """What ``it`` means."""
        latest = len(self._results) - 1
        return Quantity((Earlier(latest),)) if self._results and is_number(self._results[latest]) else None

    def earlier(self) -> list[Quantity]:
        """What ``them`` or ``the two counts`` means: at least two results that nothing has made use of."""
        numbers = [
            Quantity((Earlier(part),)) for part in unused(self._results) if is_number(self._results[part])
        ]
        if len(numbers) >= 2 and self._cursor.accept(*_TWO):
            return numbers[-2:]
        return numbers if len(numbers) >= 2 and self._cursor.accept(*_MANY) else []

    def _quantity(self) -> Quantity | None:
        first = self._operand()
        if first is None:
            return None
        pieces: list[Piece] = []
        while (sign := self._cursor.accept(*_INFIX)) is not None:
            operand = self._operand()
            if operand is None:
                return None
            pieces += [_INFIX[sign], *operand.tight]
        return Quantity((*first.tight, *pieces), loose=True) if pieces else first

    def _operand(self) -> Quantity | None:
        if self._cursor.accept("-", "−", "minus", "negative"):
            operand = self._cursor.nested(self._operand)
            return None if operand is None else Quantity(("-", *operand.tight), loose=True)
        found = self._cursor.attempt(self._primary)
        while found is not None:
            changed = self._changed(found)
            if changed is None:
                return found
            found = changed
        return None

    def _changed(self, quantity: Quantity) -> Quantity | None:
        """The quantity with what stands behind it; ``None`` where that is nothing."""
        if self._cursor.accept("squared"):
            return Quantity((*quantity.tight, " ** 2"), loose=True)
        if self._cursor.accept("cubed"):
            return Quantity((*quantity.tight, " ** 3"), loose=True)
        if self._cursor.accept("% of", "percent of", "per cent of"):
            self._cursor.skip("the")
            whole = self._cursor.nested(self._operand)
            return (
                None
                if whole is None
                else Quantity((*quantity.tight, " * ", *whole.tight, " / 100"), loose=True)
            )
        if self._cursor.accept("rounded"):
            return self.rounded(quantity)
        return None

    def rounded(self, quantity: Quantity) -> Quantity:
        """``quantity``, rounded to as many places as come next, else to a whole number."""
        places = self._cursor.attempt(lambda: number(self._cursor) if self._cursor.accept("to") else None)
        self._cursor.skip("decimal places", "decimals", "decimal place", "decimal", "places", "digits")
        arguments = (", ", places) if places is not None else ()
        return Quantity(("round(", *quantity.pieces, *arguments, ")"))

    def _primary(self) -> Quantity | None:
        digits = number(self._cursor)
        if digits is not None:
            return Quantity((digits,))
        if self._cursor.accept("("):
            inner = self.quantity()
            return inner if inner is not None and self._cursor.accept(")") else None
        if (function := self._cursor.accept(*(f"{name} (" for name in _FUNCTIONS))) is not None:
            return self._function(function.removesuffix(" ("))
        return self._cursor.attempt(self._phrase) or self._counted() or self._named()

    def _function(self, name: str) -> Quantity | None:
        arguments = several(self._cursor, self.quantity, ",")
        if not arguments or not self._cursor.accept(")"):
            return None
        return self._call(name, arguments)

    def _call(self, name: str, arguments: Sequence[Quantity]) -> Quantity:
        pieces = [piece for argument in arguments for piece in (", ", *argument.pieces)]
        return Quantity((f"{name}(", *pieces[1:], ")"))

    def _phrase(self) -> Quantity | None:
        """``the sum of …``, ``the square root of …``, ``half of …``."""
        self._cursor.skip("the")
        if factor := self._cursor.accept(*_FACTORS):
            operand = self._cursor.nested(self._operand)
            return None if operand is None else Quantity((*operand.tight, _FACTORS[factor]), loose=True)
        if name := self._cursor.accept(*_APPLY):
            operand = self._cursor.nested(self._operand)
            return None if operand is None else self._call(_APPLY[name], [operand])
        gather, choose, mean = (
            self._cursor.accept(*_GATHER),
            self._cursor.accept(*_CHOOSE),
            self._cursor.accept(*_MEAN),
        )
        if not (gather or choose or mean):
            return None
        members = self.quantities()
        if len(members) < 2:
            return None
        if choose:
            return self._call(_CHOOSE[choose], members)
        if mean:
            pieces = ("(", *joined(members, " + ").pieces, f") / {len(members)}")
            return Quantity(pieces, loose=True)
        return joined(members, _GATHER[gather or ""])

    def _counted(self) -> Quantity | None:
        days = days_between(self._cursor, self._results)
        if days is not None:
            return Quantity((days,))
        found = counts(self._cursor)
        if found is None:
            return None
        return Quantity((found[0] if len(found) == 1 else total(found),), loose=len(found) > 1)

    def _counted_apart(self) -> list[Quantity]:
        """As in ``multiply the words in README.md and CHANGELOG.md``: not their sum."""

        def apart() -> list[Call] | None:
            found = counts(self._cursor)
            return found if found is not None and len(found) > 1 else None

        return [Quantity((call,)) for call in self._cursor.attempt(apart) or ()]

    def _named(self) -> Quantity | None:
        if constant := self._cursor.accept("pi", "π", "e"):
            return Quantity(("e" if constant == "e" else "pi",))
        latest = self.latest()
        return latest if latest is not None and self._cursor.accept(*_ONE) else None


def command(cursor: Cursor, results: Sequence[Call]) -> list[Call] | None:
    """``add 3 and 4``, ``multiply the two counts``, ``then divide by 2``."""
    verb = cursor.accept(*_VERBS)
    if verb is None:
        return None
    found = _VERBS[verb](Arithmetic(cursor, results), cursor, verb)
    return None if found is None else [found.as_call()]


def _add(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    members = read.quantities()
    if members and cursor.accept("to"):
        whole = read.quantity()
        return None if whole is None else joined([whole, *members], " + ")
    cursor.skip("together", "up")
    return _with_latest(read, members, " + ")


def _multiply(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    members = [] if cursor.accept("by", "with") else read.quantities()
    if members and not cursor.accept("by", "times"):
        cursor.skip("together")
        return _with_latest(read, members, " * ")
    factor = read.quantity()
    return None if factor is None else _with_latest(read, [*members, factor], " * ")


def _with_latest(read: Arithmetic, members: list[Quantity], sign: str) -> Quantity | None:
    """A single member is joined with the latest result: ``… then add 5``."""
    latest = read.latest()
    if len(members) == 1:
        members = [latest, *members] if latest is not None and latest != members[0] else []
    return joined(members, sign) if members else None


def _subtract(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    members = read.quantities()
    if len(members) == 1:
        whole = read.quantity() if cursor.accept("from") else read.latest()
        return None if whole is None else joined([whole, members[0]], " - ")
    return joined(members, " - ") if len(members) == 2 else None


def _divide(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    members = [] if cursor.accept("by") else read.quantities()
    if len(members) == 2:
        return joined(members, " / ")
    whole = members[0] if members and cursor.accept("by") else None if members else read.latest()
    divisor = read.quantity() if whole is not None else None
    return joined([whole, divisor], " / ") if whole is not None and divisor is not None else None


def _root(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    operand = read.quantity() if cursor.accept("of") else read.latest()
    return None if operand is None else Quantity(("sqrt(", *operand.pieces, ")"))


def _power(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    operand = read.quantity() or read.latest()
    return None if operand is None else Quantity((*operand.tight, " ** 2" if verb == "square" else " ** 3"))


def _scale(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    operand = read.quantity() or read.latest()
    signs = {"double": " * 2", "triple": " * 3", "halve": " / 2"}
    return None if operand is None else Quantity((*operand.tight, signs[verb]))


def _round(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    operand = read.quantity() or read.latest()
    return None if operand is None else read.rounded(operand)


def _raise(read: Arithmetic, cursor: Cursor, verb: str) -> Quantity | None:  # noqa: ARG001
    base = read.quantity()
    if base is None:
        return None
    exponent = read.quantity() if cursor.accept("to the power of") else None
    return base if exponent is None else joined([base, exponent], " ** ")


_VERBS: Mapping[str, Callable[[Arithmetic, Cursor, str], Quantity | None]] = {
    "add up": _add,
    "add": _add,
    "sum up": _add,
    "sum": _add,
    "total": _add,
    "multiply": _multiply,
    "subtract": _subtract,
    "deduct": _subtract,
    "divide": _divide,
    "take the square root": _root,
    "square": _power,
    "cube": _power,
    "double": _scale,
    "triple": _scale,
    "halve": _scale,
    "round": _round,
    "raise": _raise,
}
