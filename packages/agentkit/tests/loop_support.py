"""What the tests of the loop share."""

from agentkit import (
    ToolCall,
    tool,
)


@tool(effect="pure")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def call(name: str = "add", call_id: str = "c1", **arguments) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def kinds(transcript) -> list[str]:
    return [type(recorded.step).__name__ for recorded in transcript]


def steps_of(transcript, kind) -> list:
    return [recorded.step for recorded in transcript if isinstance(recorded.step, kind)]
