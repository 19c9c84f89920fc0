"""Agents that the tests of the command line run: with planned models, with tools that wait, ask, fail and mislead."""

import asyncio
from pathlib import Path

from agentkit import Agent, SecurityPolicy, ToolError, tool
from agentkit.errors import ModelOverloaded
from agentkit.messages import ModelReply, ModelRequest, Text, ToolCall, Usage
from agentkit.ports import OnDelta
from agentkit.testing import ScriptedModel
from agentkit.testing.models import pieces
from ops_core.config.catalog import Catalog
from ops_core.config.sandbox import Sandboxing

HOSTILE = (
    "\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b31m[bold red]trust me[/bold red] "
    "\u202eesrever\u202c \u2066x\u2069 \x7f\u200b"
)
"""Fills the clipboard, clears the screen, is markup of rich, turns text around, hides a character."""

STORY = "Once upon a time " + "there was a very long story " * 20 + HOSTILE


def call(tool_name: str, call_id: str = "", /, **arguments: str | int) -> ToolCall:
    return ToolCall(id=call_id or tool_name, name=tool_name, arguments=arguments)


@tool(effect="pure")
def measure(name: str) -> dict[str, int]:
    """Measure something."""
    return {"length": len(name)}


@tool(effect="unsafe", approval=True)
def send(to: str) -> str:
    """Send a letter."""
    with Path("sent.txt").open("a", encoding="utf-8") as file:
        file.write(f"{to}\n")
    return f"sent to {to}"


@tool(effect="idempotent")
async def hold(file: str) -> str:
    """Say that it has begun, and end when the file `go` is there."""
    Path(file).write_text("begun", encoding="utf-8")
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "let go"


@tool(effect="pure")
def mislead() -> dict[str, str]:
    """Say what would harm a terminal that acts on it."""
    return {HOSTILE: HOSTILE}


@tool(effect="pure")
def refuse() -> str:
    """Fail."""
    raise ToolError("no such shelf: " + HOSTILE)


def said(text: str) -> ModelReply:
    return ModelReply(
        parts=(Text(text=text),), usage=Usage(input_tokens=1200, output_tokens=34), model="scripted:model"
    )


class Talker:
    """Writes a story word by word, and ends it when the file `go` is there."""

    name = "scripted:talker"

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        reply = said(STORY)
        for delta in pieces(reply):
            if on_delta is not None:
                on_delta(delta)
            await asyncio.sleep(0)
        while not Path("go").exists():
            await asyncio.sleep(0.01)
        return reply


class Overloaded:
    """Is overloaded as long as the file `go` is not there."""

    name = "scripted:overloaded"

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        if not Path("go").exists():
            Path("go").touch()
            raise ModelOverloaded("come back later")
        return said("Here I am.")


def agents() -> Catalog:
    """They run in the process: they write beside the program, and are looked at there."""
    return Catalog(_agents(), sandboxing=Sandboxing(default="inprocess"))


def _agents() -> list[Agent]:
    together = [
        call("measure", "one", name="README.md"),
        call("measure", "two", name="CHANGELOG.md"),
        call("refuse", "three"),
    ]
    return [
        Agent(ScriptedModel.by_turn([together, said("Measured.")]), name="measurer", tools=[measure, refuse]),
        Agent(ScriptedModel.by_turn([call("send", to="kim"), said("Done.")]), name="sender", tools=[send]),
        Agent(
            ScriptedModel.by_turn(
                [[call("send", "first", to="kim"), call("send", "second", to="lee")], said("Both done.")]
            ),
            name="two-letters",
            tools=[send],
        ),
        Agent(
            ScriptedModel.by_turn([call("hold", file="begun"), said("Held.")]), name="holder", tools=[hold]
        ),
        Agent(
            ScriptedModel.by_turn([call("mislead"), call("refuse"), said(HOSTILE)]),
            name="hostile",
            tools=[mislead, refuse],
        ),
        Agent(
            ScriptedModel.by_turn([call("measure", name="x")] * 50),
            name="loser",
            tools=[measure],
            policy=SecurityPolicy(deny=("measure",)),
            patience=1,
        ),
        Agent(Talker(), name="talker"),
        Agent(Overloaded(), name="overloaded"),
        Agent("openai:gpt-5.5", name="keyless"),
        Agent("offline:planner", name="assistant"),
    ]
