"""What can be a tool: callables of every shape, annotations of every kind, and what is refused when it is declared."""

import copy
import functools
import math
import pickle
import sys
import warnings
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypedDict  # noqa: F401

import pytest
from pydantic import BaseModel, Field

from agentkit import Agent, Completed, FunctionToolset, ToolContext, UsageError, tool
from agentkit.errors import BadArguments
from agentkit.messages import ToolCall
from agentkit.testing import ScriptedModel
from agentkit.testing.toolsets import context
from agentkit.tools import Tool
from agentkit.transcript.steps import ToolReturned

from .loop_support import call, steps_of  # type: ignore[import-not-found]

if TYPE_CHECKING:
    import nowhere  # type: ignore[import-not-found]


async def called(made: Tool, **arguments: Any) -> Any:
    return await made.call(ToolCall(id="c", name=made.name, arguments=arguments), context())


def properties(function: Any) -> Any:
    return Tool(function).spec.parameters["properties"]


# --- methods and objects -----------------------------------------------------------------------------------------


class Account:
    """An account."""

    kind = "plain"

    def __init__(self, balance: int) -> None:
        self.balance = balance

    @tool(effect="idempotent", name="deposit", timeout=5)
    def put(self, amount: int) -> int:
        """Put money in.

        Args:
            amount: how much.
        """
        self.balance += amount
        return self.balance

    @tool
    async def look(self, context: ToolContext[Any]) -> str:
        """Look at it."""
        return f"{context.call_id}: {self.balance}"

    @tool
    @classmethod
    def kind_of(cls, long: bool = False) -> str:
        """Which kind it is."""
        return f"{cls.__name__} {cls.kind}" if long else cls.kind

    @classmethod
    @tool(effect="pure")
    def name_of(cls, long: bool) -> str:
        """Which name it has."""
        return cls.__name__ * (1 + long)

    @tool
    @staticmethod
    def double(number: int) -> int:
        """Twice."""
        return number * 2

    @staticmethod
    @tool(effect="pure")
    def triple(number: int) -> int:
        """Three times."""
        return number * 3

    def half(self, number: int) -> float:
        """A plain method."""
        return number / 2


class Savings(Account):
    kind = "savings"


async def test_methods_are_tools_of_their_object():
    account, savings = Account(1), Savings(10)
    assert (await called(account.put, amount=2), await called(savings.put, amount=5)) == (3, 15)
    assert (account.balance, savings.balance) == (3, 15)
    assert await called(account.look) == "call_1: 3"
    assert await called(Savings.kind_of, long=True) == "Savings savings"
    assert await called(savings.kind_of) == "savings"
    assert await called(Account.double, number=4) == await called(account.double, number=4) == 8
    assert await called(account.triple, number=4) == 12
    assert account.put(1) == 4
    spec = account.put.spec
    assert (spec.name, spec.effect, spec.timeout_seconds) == ("deposit", "idempotent", 5)
    assert spec.parameters["properties"] == {"amount": {"type": "integer", "description": "how much."}}


async def test_an_agent_takes_methods():
    account = Account(1)
    tools: list[Any] = [account.put, account.half, Account.name_of]
    turns = [
        call("deposit", "a", amount=4),
        call("half", "b", number=3),
        call("name_of", "c", long=True),
    ]
    agent = Agent(ScriptedModel.by_turn([turns, "Done."]), tools=tools)
    outcome = await agent.run("go")
    assert isinstance(outcome, Completed)
    told = {step.call_id: step.output for step in steps_of(outcome.transcript, ToolReturned)}
    assert (told["a"], told["b"], told["c"]) == (5, 1.5, "AccountAccount")


def test_a_bound_tool_survives_pickle_and_copy():
    account = pickle.loads(pickle.dumps(Account(1).put))
    assert (account(4), account.name, account.effect, account.timeout) == (5, "deposit", "idempotent", 5)
    assert copy.copy(Account(1).put)(1) == 2
    apart = Tool(send, parallel=False, reaches_out=True)
    again = pickle.loads(pickle.dumps(apart))
    assert (again.spec.parallel, again.spec.reaches_out) == (False, True)


def test_the_method_of_a_class_without_an_object_is_refused():
    with pytest.raises(UsageError, match=r"deposit is a method.*of an object"):
        _ = Account.put.spec


def test_a_tool_that_is_only_an_attribute_of_a_class_stays_as_it_is():
    @tool
    def plain(number: int) -> int:
        """A function."""
        return number

    class Settings:
        chosen = plain

    assert Settings().chosen is plain
    assert Settings.chosen is plain


class Adder:
    """Adds."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, number: int) -> int:
        """Add to a number."""
        return number + self.by


def send(to: str, key: str, copies: int = 1) -> list[Any]:
    """Send something."""
    return [to, key, copies]


async def test_objects_and_partials_are_tools():
    assert await called(Tool(Adder(2)), number=1) == 3
    assert (Tool(Adder(2)).name, Tool(Adder(2)).spec.description) == ("Adder", "Add to a number.")
    bound = Tool(functools.partial(send, key="hidden"))
    assert list(properties(functools.partial(send, key="hidden"))) == ["to", "copies"]
    assert "hidden" not in str(bound.spec)
    assert (bound.name, bound.spec.description) == ("send", "Send something.")
    assert await called(bound, to="x", copies=2) == ["x", "hidden", 2]
    with pytest.raises(BadArguments, match="key"):
        await called(bound, to="x", key="mine")
    nested = Tool(functools.partial(functools.partial(send, "me"), key="k"), name="mail")
    assert await called(nested) == ["me", "k", 1]


# --- annotations -------------------------------------------------------------------------------------------------


def described(
    city: Annotated[str, Field(description="City name", min_length=2)],
    count: Annotated[int, "how many"] = 3,
    size: int = Field(default=5, ge=1, description="how large"),
    items: list[int] = Field(default_factory=list),
    origin: str = Field(alias="from", default="here"),
    note: Annotated[str, Field(max_length=3), "in short"] = "",
    documented: Annotated[int, Field(ge=0)] = 0,
) -> list[Any]:
    """Describe.

    Args:
        city: not this one.
        documented: by the docstring.
    """
    items.append(1)
    return [city, count, size, items, origin, note, documented]


async def test_what_annotations_and_fields_say_counts():
    said = {name: each.get("description") for name, each in properties(described).items()}
    assert said == {
        "city": "City name",
        "count": "how many",
        "size": "how large",
        "items": None,
        "from": None,
        "note": "in short",
        "documented": "by the docstring.",
    }
    made = Tool(described)
    assert made.spec.parameters["required"] == ["city"]
    for _ in range(2):  # the default is made anew
        assert await called(made, city="Bern") == ["Bern", 3, 5, [1], "here", "", 0]
    assert (await called(made, city="Bern", **{"from": "there"}))[4] == "there"
    for wrong in ({"city": "x"}, {"size": 0}, {"note": "long"}, {"documented": -1}, {"origin": "x"}):
        with pytest.raises(BadArguments, match=next(iter(wrong))):
            await called(made, **{"city": "Bern", **wrong})


def names(
    _a: int,
    schema: str = "s",
    json: str = "j",
    copy: int = 1,
    model_config: str = "c",
    model_fields: int = 2,
    validate: int = 3,
    self: str = "me",
    p0: int = 4,
) -> list[Any]:
    """Names that mean something to pydantic."""
    return [_a, schema, json, copy, model_config, model_fields, validate, self, p0]


def positional(a: int, /, b: int = 2, *, c: int = 3) -> list[int]:
    """Parameters without a name."""
    return [a, b, c]


def defaults(limit: float = math.inf, other: float = math.nan, thing: Any = object) -> list[Any]:
    """Defaults that JSON has no form for."""
    return [limit == math.inf, math.isnan(other), thing is object]


def contexts(
    a: int,
    one: ToolContext[Any] | None = None,
    two: ToolContext | None = None,
    three: Annotated[ToolContext, "x"] = None,  # type: ignore[assignment]
) -> list[Any]:
    """Contexts."""
    return [a, *(each is not None and each.run_id for each in (one, two, three))]


def infinite(a: int, b: Annotated[float, Field(le=math.inf)] = 1) -> list[Any]:
    """A limit that JSON has no form for."""
    return [a, b]


def annotated_for_checkers(a: int) -> "nowhere.Frame":
    """What it returns is known to type checkers alone."""
    return a


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (names, {"_a": 1, "p0": 9}, [1, "s", "j", 1, "c", 2, 3, "me", 9]),
        (positional, {"a": 1, "b": 5}, [1, 5, 3]),
        (defaults, {}, [True, True, True]),
        (contexts, {"a": 1}, [1, "run_1", "run_1", "run_1"]),
        (annotated_for_checkers, {"a": 1}, 1),
        (infinite, {"a": 1}, [1, 1]),
    ],
)
async def test_what_can_work_works_without_a_warning(function, arguments, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Tool(function)
        assert "Infinity" not in str(made.spec.parameters)
        assert await called(made, **arguments) == expected


def test_classes_that_are_defined_in_a_function_or_later_are_found():
    class Local(BaseModel):
        a: int

    def quoted(x: "Local") -> None:
        """A local class."""

    def later(x: "Later") -> None:  # type: ignore[name-defined]  # noqa: F821
        """A class that is not there yet."""

    assert "Local" in str(Tool(quoted).spec.parameters)

    def declare() -> Tool:
        return Tool(quoted)

    assert "Local" in str(declare().spec.parameters)
    made = Tool(later)
    globals()["Later"] = Local
    assert "Local" in str(made.spec.parameters)
    del globals()["Later"]


# --- refused -----------------------------------------------------------------------------------------------------


class Own:
    """A class that nobody can write as JSON."""


class Typed(TypedDict):
    a: int


def bare(a, b=2) -> None:
    """No annotations."""


def several(*many: int) -> None:
    """Any number."""


def named(a: int, **many: int) -> None:
    """Any names."""


def function_of(f: Callable[[int], int]) -> None:
    """A function."""


def own(thing: Own) -> None:
    """An object."""


def nested(things: list[Own] | None = None) -> None:
    """Objects."""


def no_type(a: 3) -> None:  # type: ignore[valid-type]
    """No type at all."""


def typed(a: int, given: Typed) -> None:
    """A TypedDict of the standard library, which pydantic reads from Python 3.12 on."""


@pytest.mark.parametrize(
    "function, parameter",
    [
        (bare, "a"),
        (several, "many"),
        (named, "many"),
        (function_of, "f"),
        (own, "thing"),
        (nested, "things"),
        pytest.param(
            typed, "given", marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="it can be read")
        ),
    ],
)
@pytest.mark.parametrize("declare", [Tool, tool, lambda function: FunctionToolset([function])])
def test_what_cannot_be_a_tool_is_refused_when_it_is_declared(declare, function, parameter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match=rf"^tool {function.__name__}: parameter {parameter} "):
            declare(function)


def test_an_annotation_that_is_no_type_is_refused():
    with pytest.raises(UsageError, match=r"^tool no_type: "):
        Tool(no_type)


def test_an_agent_refuses_a_function_when_it_is_declared():
    with pytest.raises(UsageError, match=r"tool several: parameter many"):
        Agent("offline:planner", tools=[several])


def test_a_method_is_refused_when_it_is_declared():
    with pytest.raises(UsageError, match=r"tool method: parameter thing"):

        class Broken:
            @tool
            def method(self, thing: Own) -> None:
                """It takes an object."""


@pytest.mark.parametrize(
    "annotation", ["ClassVar[int]", "Final[int]", "1 / 0", "list[", "NowhereToBeFound"], ids=str
)
def test_an_annotation_that_is_no_type_names_its_parameter(annotation: Any):
    def look(city: str, odd: Any) -> str:
        """Look."""
        return city

    look.__annotations__["odd"] = annotation
    with pytest.raises(UsageError, match="tool look: the annotation of parameter odd"):
        _ = Tool(look).spec


class Colour(Enum):
    RED = "red"


class Size(StrEnum):
    SMALL = "small"


@pytest.mark.parametrize(
    "type_, reason",
    [
        (type[int], "class"),
        (list[type], "class"),
        (Literal[Colour.RED], "Enum"),
        (Annotated[Literal[Colour.RED] | None, "colour"], "Enum"),
    ],
)
def test_a_type_of_which_no_json_is_a_value_is_refused_when_declared(type_: Any, reason: str) -> None:
    def paint(what: Any) -> None:
        """Paint."""

    paint.__annotations__["what"] = type_
    with pytest.raises(UsageError, match=f"tool paint: parameter what .*{reason}"):
        Tool(paint).spec  # noqa: B018


async def test_a_member_of_a_text_enum_in_a_literal_arrives() -> None:
    def pack(size: Literal[Size.SMALL]) -> str:
        """Pack."""
        return type(size).__name__

    assert await called(Tool(pack), size="small") == "Size"
