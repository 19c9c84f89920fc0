"""Arithmetic for models: an expression is parsed and evaluated node by node, never run as code."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from agentkit.errors import ToolError
from agentkit.tools.functions import tool

Number: TypeAlias = int | float

MAX_CHARACTERS = 1_000
MAX_NODES = 500
MAX_DEPTH = 100
MAX_BITS = 4_096
"""Of an integer, about 1,200 digits: still quick to write as text and below Python's own limit for that."""
MAX_ROUNDING = 300

_TYPOGRAPHY = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": " pi "})
_ALLOWED = re.compile(r"[0-9A-Za-z_.,+\-*/%()\[\] ]*")
_NUMBER_THEN_LETTER = re.compile(r"(?<!\w)\d[\d_.]*+(?:[eE][+-]?\d[\d_]*+)?+[A-Za-z]")


@tool(effect="pure", sandbox="inprocess")
def calculator(expression: str) -> int | float:
    """Calculate the value of an arithmetic expression, exactly where the numbers are whole.

    Knows + - * / // % ** and parentheses, the functions abs, ceil, floor, max, min, round, sqrt and sum, and pi and e.
    A division or square root of whole numbers that comes out even gives a whole number: 6/2 is 3, 7/2 is 3.5.

    Args:
        expression: for example 12 * 7 + sqrt(81)
    """
    return evaluate(expression)


def evaluate(expression: str) -> Number:
    """The value of ``expression``; integers stay integers, everything else is a finite float.

    Raises:
        ToolError: it is no such expression, has no value, or takes too much to calculate.
    """
    try:
        return _value(_parse(expression))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the result is too large for a floating-point number") from None


def _parse(expression: str) -> ast.expr:
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"the expression is longer than {MAX_CHARACTERS} characters; calculate it in parts")
    text = " ".join(expression.translate(_TYPOGRAPHY).split())
    _look_at_text(text)
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        where = f" near character {error.offset}" if error.offset else ""
        raise ToolError(f"the expression is not complete or not arithmetic{where}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ToolError("the expression cannot be read; calculate it in parts") from None
    _look_at_size(tree.body)
    return tree.body


def _look_at_text(text: str) -> None:
    """Refuse what Python's parser would answer with a warning, or in words that help no model."""
    if not text:
        raise ToolError("the expression is empty")
    if "^" in text:
        raise ToolError("^ is not an operator here; write powers with **, for example 2 ** 10")
    fits = _ALLOWED.match(text)
    if fits is not None and fits.end() < len(text):
        position = fits.end() + 1
        raise ToolError(
            f"character {position} does not belong into arithmetic; use numbers, + - * / // % ** and ( )"
        )
    if _NUMBER_THEN_LETTER.search(text):
        raise ToolError(
            "a letter follows a number directly; write decimal numbers, and * for every multiplication"
        )


def _look_at_size(root: ast.expr) -> None:
    nodes: list[tuple[ast.AST, int]] = [(root, 1)]
    seen = 0
    while nodes:
        node, depth = nodes.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise ToolError(
                f"the expression is nested more than {MAX_DEPTH} deep; use sum(…) or calculate it in parts"
            )
        if seen > MAX_NODES:
            raise ToolError(f"the expression has more than {MAX_NODES} parts; calculate it in parts")
        nodes.extend(
            (child, depth + 1) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)
        )


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=value) if type(value) is int or type(value) is float:
            return _checked(value)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _checked(_FUNCTIONS[name](*_values(arguments)))
        case _:
            raise ToolError(_why_not(node))


def _values(arguments: list[ast.expr]) -> Iterator[Number]:
    """The arguments' values; the members of a list in brackets count as arguments."""
    for argument in arguments:
        if isinstance(argument, ast.List | ast.Tuple):
            yield from map(_value, argument.elts)
        else:
            yield _value(argument)


def _why_not(node: ast.expr) -> str:
    functions, constants = ", ".join(sorted(_FUNCTIONS)), " and ".join(_CONSTANTS)
    match node:
        case ast.Name(id=name) if name in _FUNCTIONS:
            return "a function needs its arguments in parentheses, for example sqrt(2)"
        case ast.Name():
            return f"only numbers, {constants} have a value here; there are no variables"
        case ast.Call(func=ast.Name(id=name), args=_) if name in _FUNCTIONS:
            return "a function takes its arguments without names, for example round(2.5, 1)"
        case ast.Call(func=ast.Name()):
            return f"this function is not known; there are: {functions}"
        case ast.Call():
            return "write * between a number or a parenthesis and the parenthesis that follows it"
        case ast.Tuple():
            return "a comma separates the arguments of a function; write numbers without it, for example 1000"
        case _:
            return (
                f"this is not arithmetic; use numbers, + - * / // % ** and ( ), {constants}, and: {functions}"
            )


def _checked(value: Number) -> Number:
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise ToolError(_TOO_LARGE)
    elif not math.isfinite(value):
        raise ToolError("the result is not a finite number")
    return value


_TOO_LARGE = f"a whole number here would have more than {MAX_BITS} bits; that is too large to calculate with"


def _multiply(left: Number, right: Number) -> Number:
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() + right.bit_length() > MAX_BITS + 1
    ):
        raise ToolError(_TOO_LARGE)
    return left * right


def _divide(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right != 0 and left % right == 0:
        return left // right
    return left / right


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        # The result has more than this many bits, so nothing large is ever begun.
        if (abs(base).bit_length() - 1) * exponent >= MAX_BITS:
            raise ToolError(_TOO_LARGE)
        return int(base**exponent)
    if base < 0 and exponent != int(exponent):
        raise ToolError("a negative number has no real power with a fractional exponent")
    return float(base**exponent)  # never complex: that case is refused above


def _sqrt(*values: Number) -> Number:
    value = _one("sqrt", values)
    if value < 0:
        raise ToolError("a negative number has no real square root")
    if isinstance(value, int) and math.isqrt(value) ** 2 == value:
        return math.isqrt(value)
    return math.sqrt(value)


def _round(*values: Number) -> Number:
    if len(values) == 1:
        return round(values[0])
    if len(values) != 2 or not isinstance(values[1], int) or abs(values[1]) > MAX_ROUNDING:
        raise ToolError(
            f"round takes a number and, if wanted, how many digits to keep, at most {MAX_ROUNDING}"
        )
    return round(values[0], values[1])


def _one(name: str, values: tuple[Number, ...]) -> Number:
    if len(values) != 1:
        raise ToolError(f"{name} takes exactly one number")
    return values[0]


def _some(name: str, choose: Callable[[tuple[Number, ...]], Number]) -> Callable[..., Number]:
    def chosen(*values: Number) -> Number:
        if not values:
            raise ToolError(f"{name} needs at least one number")
        return choose(values)

    return chosen


_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: _multiply,
    ast.Div: _divide,
    ast.FloorDiv: lambda left, right: left // right,
    ast.Mod: lambda left, right: left % right,
    ast.Pow: _power,
}
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "abs": lambda *values: abs(_one("abs", values)),
    "ceil": lambda *values: math.ceil(_one("ceil", values)),
    "floor": lambda *values: math.floor(_one("floor", values)),
    "max": _some("max", max),
    "min": _some("min", min),
    "round": _round,
    "sqrt": _sqrt,
    "sum": _some("sum", sum),
}
