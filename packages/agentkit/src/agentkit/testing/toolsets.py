"""Contract that every toolset keeps."""

from __future__ import annotations

from agentkit.errors import BadArguments, ToolError, UnknownTool
from agentkit.messages import Effect, JsonObject, ToolCall
from agentkit.ports import ToolContext, Toolset


def context(call_id: str = "call_1") -> ToolContext[object]:
    """A context as a tool gets it in a run, for calling a toolset directly."""
    return ToolContext(deps=None, run_id="run_1", call_id=call_id, idempotency_key=f"run_1:{call_id}")


async def failure_of(toolset: Toolset, call: ToolCall) -> ToolError:
    """The error with which a call fails.

    Raises:
        AssertionError: it did not fail.
    """
    try:
        output = await toolset.call(call, context(call.id))
    except ToolError as error:
        return error
    message = f"{call.name} returned {output!r}"
    raise AssertionError(message)


class ToolsetContract:
    """What every toolset keeps. Provide a fixture ``toolset`` with these tools:

    ``add(a: int, b: int)``, pure, which returns the sum; ``fail()``, which raises ``ToolError("it is broken")``.
    """

    async def test_it_lists_its_tools(self, toolset: Toolset) -> None:
        """Unique names, a description, a schema of an object, an effect."""
        specs = {spec.name: spec for spec in await toolset.specs()}
        assert {"add", "fail"} <= specs.keys()
        assert len(specs) == len(await toolset.specs())
        add = specs["add"]
        assert add.description
        assert add.effect is Effect.PURE
        properties, required = add.parameters["properties"], add.parameters["required"]
        assert add.parameters["type"] == "object"
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        assert set(properties) == {"a", "b"} == set(required)

    async def test_it_calls_a_tool(self, toolset: Toolset) -> None:
        """The output is plain JSON."""
        call = ToolCall(id="call_1", name="add", arguments={"a": 2, "b": 3})
        assert await toolset.call(call, context()) == 5

    async def test_an_unknown_tool_is_an_error_for_the_model(self, toolset: Toolset) -> None:
        """It names the tool."""
        error = await failure_of(toolset, ToolCall(id="call_1", name="multiply"))
        assert isinstance(error, UnknownTool)
        assert "multiply" in str(error)

    async def test_bad_arguments_name_the_field(self, toolset: Toolset) -> None:
        """A missing, a wrong and an unknown one."""
        wrong: list[tuple[JsonObject, str]] = [
            ({"a": 1}, "b"),
            ({"a": 1, "b": "two"}, "b"),
            ({"a": 1, "b": 2, "c": 3}, "c"),
        ]
        for arguments, field in wrong:
            error = await failure_of(toolset, ToolCall(id="call_1", name="add", arguments=arguments))
            assert isinstance(error, BadArguments)
            assert field in str(error)

    async def test_a_tools_own_error_keeps_its_text(self, toolset: Toolset) -> None:
        """It is what the model reads."""
        error = await failure_of(toolset, ToolCall(id="call_1", name="fail"))
        assert "it is broken" in str(error)
