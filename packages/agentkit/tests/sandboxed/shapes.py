"""Functions of every shape, which return or raise whatever a function can."""

import functools
import itertools
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel, computed_field

from agentkit import Attachment, ToolError, tool
from agentkit.errors import AddressRefused, BadArguments

DOT = Attachment(media_type="image/png", data=b"\x89PNG", name="dot.png")


class Panic(BaseException):
    """As an extension written in Rust raises it."""


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of coroutines."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@timed
async def decorated(number: int) -> int:
    return number + 1


@timed
@timed
async def stream(number: int) -> AsyncIterator[int]:
    for each in range(number):
        yield each


def awaited_twice(number: int) -> Any:
    async def outer() -> Any:
        return decorated(number)

    return outer()


def count(number: int) -> Iterator[int]:
    yield from range(number)


async def late(number: int) -> Any:
    return (each for each in range(number))


class Adder:
    """A callable object."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, number: int) -> int:
        return number + self.by

    async def later(self, number: int) -> int:
        return number + self.by


adder = tool(name="adder")(Adder(2))
bound = functools.partial(decorated, number=4)


class Report(BaseModel):
    title: str
    picture: Attachment
    more: Any = None


@dataclass
class Page:
    number: int
    picture: Attachment


class Pair(NamedTuple):
    text: str
    picture: Attachment


def picture() -> Attachment:
    return DOT


def pictures() -> list[Any]:
    return ["here:", DOT, {"page": Page(number=1, picture=DOT)}, Pair("two", DOT)]


async def report() -> Report:
    return Report(title="t", picture=DOT, more=(DOT,))


def view() -> Mapping[str, Any]:
    return MappingProxyType({"keys": {"a": 1}.keys(), "range": range(2)})


def names_of_files() -> list[Any]:
    return ["caf\udce9.txt", {"\ud83d": "x\udcff"}]


# --- carried out, and not to be shown ------------------------------------------------------------------------------


class Row:
    """As a mapper of a database returns it."""


class Slow(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        raise ValueError("secret sk-abc")


def nan() -> Any:
    return {"rate": [1.0, math.nan]}


def png() -> bytes:
    return b"\x89PNG\r\n"


def row() -> Any:
    return [Row()]


def cycle() -> Any:
    around: dict[str, Any] = {}
    around["me"] = around
    return around


def deep() -> Any:
    inner: list[Any] = []
    for _ in range(3000):
        inner = [inner]
    return inner


def endless() -> Any:
    return itertools.count()


def endless_inside() -> Any:
    return {"pages": [Page(1, itertools.count())]}  # type: ignore[arg-type]


def huge_number() -> Any:
    return 10**5000


def without_a_class() -> Any:
    class Odd:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("it has none")

    return Odd()


def unreadable() -> Any:
    raise ToolError(Unreadable())  # type: ignore[arg-type]


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("it cannot be written")


def broken_field() -> Any:
    return Slow()


def unfit() -> Any:
    return Attachment(media_type="picture", data=b"x")


def large() -> str:
    return "x" * 5_000_000


# --- failed --------------------------------------------------------------------------------------------------------


def explode() -> None:
    raise ValueError("secret sk-abc")


def broken_stream() -> Iterator[int]:
    yield 1
    raise KeyError("secret sk-abc")


async def panic() -> None:
    raise Panic("secret sk-abc")


def leave() -> None:
    sys.exit(3)


async def interrupted() -> None:
    raise KeyboardInterrupt


async def closed() -> None:
    raise GeneratorExit


def stopped() -> None:
    raise StopIteration


async def several() -> None:
    raise BaseExceptionGroup("both", [Panic("secret sk-abc"), ToolError("no such city")])


def refuse() -> None:
    raise ToolError("not today")


def pretend() -> None:
    raise BadArguments("it never began")


async def refuse_address() -> Iterator[int]:
    raise AddressRefused("not there")
