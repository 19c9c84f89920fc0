"""Functions as tools: schema, validation, results."""

import asyncio
import datetime as dt
import enum
import functools
import pathlib
import threading
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from agentkit import FunctionToolset, ToolError, UsageError, tool
from agentkit.errors import BadArguments, ResultUnavailable
from agentkit.messages import ToolCall
from agentkit.testing import ToolsetContract
from agentkit.testing.toolsets import context
from agentkit.tools import threads


class TestFunctionToolset(ToolsetContract):
    @pytest.fixture(params=["sync", "async"])
    def toolset(self, request):
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        def fail() -> None:
            """Fail."""
            raise ToolError("it is broken")

        async def add_async(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        async def fail_async() -> None:
            """Fail."""
            raise ToolError("it is broken")

        functions = (add, fail) if request.param == "sync" else (add_async, fail_async)
        return FunctionToolset(
            tool(effect="pure", name=function.__name__.removesuffix("_async"))(function)
            for function in functions
        )


class Colour(enum.Enum):
    """A colour."""

    RED = "red"


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    number: int = 1


@dataclass
class Size:
    """A size."""

    width: float


async def result_of(function, **arguments):
    made = tool(effect="pure")(function)
    return await made.call(ToolCall(id="c", name=made.name, arguments=arguments), context())


async def test_arguments_become_typed_values():
    seen = {}

    def take(
        address: Address,
        size: Size,
        colour: Colour,
        when: dt.date,
        how: Literal["fast", "slow"],
        many: list[int],
        maybe: str | None = None,
        few: Annotated[int, Field(ge=0, le=3)] = 2,
    ) -> None:
        """Take everything."""
        seen.update(locals())

    arguments = {
        "address": {"street": "Main"},
        "size": {"width": 2},
        "colour": "red",
        "when": "2026-11-22",
        "how": "fast",
        "many": [1, 2],
    }
    await result_of(take, **arguments)
    assert seen["address"] == Address(street="Main", number=1)
    assert seen["size"] == Size(2.0)
    assert seen["colour"] is Colour.RED
    assert seen["when"] == dt.date(2026, 11, 22)
    assert (seen["many"], seen["maybe"], seen["few"]) == ([1, 2], None, 2)
    for field, wrong in (("few", 9), ("how", "sideways"), ("when", "soon"), ("address", {"street": 3})):
        with pytest.raises(BadArguments, match=field):
            await result_of(take, **{**arguments, field: wrong})


async def test_bad_arguments_do_not_repeat_the_values():
    def take(pin: int) -> None:
        """Take a number."""

    with pytest.raises(BadArguments) as error:
        await result_of(take, pin="secret-value")
    assert "secret-value" not in str(error.value)


@pytest.mark.parametrize(
    "returned, expected",
    [
        (Address(street="Main"), {"street": "Main", "number": 1}),
        (Size(2.0), {"width": 2.0}),
        (Colour.RED, "red"),
        (dt.date(2026, 11, 22), "2026-11-22"),
        (pathlib.Path("a/b"), "a/b"),
        ({"a": (1, 2), "b": {3}}, {"a": [1, 2], "b": [3]}),
        (b"bytes", "bytes"),
        (None, None),
        (2**80, 2**80),
        ("text", "text"),
    ],
)
async def test_results_become_plain_json(returned, expected):
    def give():
        """Give something."""
        return returned

    assert await result_of(give) == expected


@pytest.mark.parametrize("returned", [float("nan"), object(), lambda: None])
async def test_results_that_json_cannot_express_are_refused(returned):
    def give():
        """Give something."""
        return returned

    with pytest.raises(ResultUnavailable, match=r"^give was carried out.*JSON"):
        await result_of(give)


def test_bad_declarations_are_refused_when_they_are_made():
    def bare(a) -> None:
        """No annotation."""

    def fine(a: int) -> None:
        """One number."""

    def many(*numbers: int) -> None:
        """Any number."""

    def unknown(a: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        """An annotation that does not exist."""

    for function, says in ((bare, "parameter a"), (many, "parameter numbers"), (unknown, "Nowhere")):
        with pytest.raises(UsageError, match=says):
            _ = tool(effect="pure")(function).spec
    with pytest.raises(UsageError, match="letters"):
        tool(name="no spaces")(bare)
    with pytest.raises(UsageError, match=r"many.*numbers"):
        tool(effect="pure")(functools.partial(many, 1))
    with pytest.raises(UsageError, match="positive"):
        tool(timeout=0)(bare)
    with pytest.raises(ValueError, match="harmless"):
        tool(effect="harmless")(bare)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="two tools"):
        FunctionToolset([fine, fine])


async def test_a_synchronous_tool_may_raise_anything():
    def leave() -> None:
        """Try to end the process."""
        raise SystemExit(3)

    def stop() -> None:
        """A future cannot hold this one."""
        raise StopIteration

    for function, says in ((leave, "SystemExit"), (stop, "StopIteration")):
        with pytest.raises(ToolError, match=says):
            await result_of(function)


async def test_context_variables_reach_a_synchronous_tool():
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")
    variable.set("given")

    def read() -> str:
        """Read the variable."""
        return variable.get()

    assert await asyncio.create_task(result_of(read)) == "given"


# --- threads -----------------------------------------------------------------------------------------------------


async def test_a_thread_that_is_free_is_used_again():
    seen: list[threading.Thread] = []

    @tool(effect="pure")
    def look() -> None:
        """Remember the thread."""
        seen.append(threading.current_thread())

    for _ in range(3):
        await look.call(ToolCall(id="c", name="look"), context())
        while not look._threads._idle:  # the result is there a moment before the thread is free
            await asyncio.sleep(0)
    assert len(set(seen)) == 1


async def test_calls_at_the_same_time_have_threads_of_their_own():
    together = threading.Barrier(8)

    @tool(effect="pure")
    def meet() -> int:
        """Wait for the others."""
        return together.wait(timeout=10)

    results = await asyncio.gather(*(meet.call(ToolCall(id="c", name="meet"), context()) for _ in range(8)))
    assert set(results) == set(range(8))


async def test_a_call_that_hangs_holds_nobody_up():
    go_on, began = threading.Event(), threading.Event()

    @tool(effect="pure")
    def work(hang: bool) -> str:
        """Hang, or not."""
        if hang:
            began.set()
            go_on.wait(10)
        return "done"

    hanging = asyncio.create_task(
        work.call(ToolCall(id="c", name="work", arguments={"hang": True}), context())
    )
    await asyncio.to_thread(began.wait, 10)
    hanging.cancel()
    assert await work.call(ToolCall(id="d", name="work", arguments={"hang": False}), context()) == "done"
    go_on.set()


async def test_a_thread_that_nobody_needs_ends(monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.01)
    seen: list[threading.Thread] = []

    @tool(effect="pure")
    def look() -> None:
        """Remember the thread."""
        seen.append(threading.current_thread())

    await look.call(ToolCall(id="c", name="look"), context())
    await asyncio.to_thread(seen[0].join, 10)
    assert not seen[0].is_alive()
    assert not look._threads._idle
    await look.call(ToolCall(id="c", name="look"), context())
    assert len(set(seen)) == 2


async def test_threads_that_end_while_calls_come_lose_none(monkeypatch):
    monkeypatch.setattr(
        threads, "IDLE_SECONDS", 0.0
    )  # each thread ends at the very moment the next call may take it

    @tool(effect="pure")
    def double(number: int) -> int:
        """Twice as much."""
        return 2 * number

    for number in range(300):
        call = ToolCall(id="c", name="double", arguments={"number": number})
        assert await asyncio.wait_for(double.call(call, context()), 10) == 2 * number
