"""What is switched off is not used any more, whatever was allowed before."""

import asyncio

import pytest

from agentkit import Agent, Completed, MemoryJournal, SecurityPolicy, ToolCall, Waiting, tool
from agentkit.errors import RunReleased
from agentkit.mcp import McpPool, McpServer
from agentkit.run.control import Control
from agentkit.run.kill_switch import KillSwitch, Off, ToolUse
from agentkit.testing import ScriptedModel
from agentkit.transcript.steps import ApprovalGiven, ToolReturned, ToolStarted


class Desk:
    """Two tools, and what they did."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.journal = MemoryJournal()
        self.control = Control()
        self.at_work = asyncio.Event()
        self.cancelled = False

        @tool(effect="unsafe")
        async def send_mail(to: str) -> str:
            """Send."""
            self.sent.append(to)
            return "sent"

        @tool(effect="idempotent")
        async def send_slowly(to: str) -> str:
            """Send, and never come back."""
            self.at_work.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return to

        @tool(effect="pure")
        async def look() -> str:
            """Look."""
            return "seen"

        self.tools = [send_mail, send_slowly, look]

    async def run(self, *calls: ToolCall, **options):
        model = ScriptedModel.by_turn([*calls, "done"])
        agent = Agent(model, tools=self.tools, **options)
        return await agent.run("go", journal=self.journal, run_id="r", control=self.control)

    async def returned(self) -> ToolReturned:
        found = [each.step for each in await self.journal.load() if isinstance(each.step, ToolReturned)]
        (one,) = found
        return one

    async def started(self) -> bool:
        return any(isinstance(each.step, ToolStarted) for each in await self.journal.load())


MAIL = ToolCall(id="c1", name="send_mail", arguments={"to": "kim"})
SLOW = ToolCall(id="c1", name="send_slowly", arguments={"to": "kim"})


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize("pattern", ["send_mail", "send_*", "*"])
async def test_a_tool_that_is_off_is_refused_and_the_model_is_told_why(desk, pattern):
    desk.control.kill_switch.set(Off(tools={pattern: "complaints since noon"}))
    assert isinstance(await desk.run(MAIL), Completed)
    returned = await desk.returned()
    assert returned.error is not None
    assert returned.error.code == "tool_halted"
    assert "complaints since noon" in returned.error.message
    assert returned.ruling is not None
    assert returned.ruling.decision == "deny"
    assert not desk.sent
    assert not await desk.started()


async def test_other_tools_go_on(desk):
    desk.control.kill_switch.set(Off(tools={"send_slowly": "stuck"}, servers={"mail": "down"}))
    await desk.run(MAIL)
    assert desk.sent == ["kim"]


async def test_what_a_person_has_approved_is_off_all_the_same(desk):
    waiting = await desk.run(MAIL, policy=SecurityPolicy(ask=["send_mail"]))
    assert isinstance(waiting, Waiting)
    await desk.journal.append(ApprovalGiven(approval_id=waiting.on[0].approval_id, approved=True))
    desk.control = Control()
    desk.control.kill_switch.set(Off(tools={"send_mail": "stop"}))
    assert isinstance(await desk.run(MAIL, policy=SecurityPolicy(ask=["send_mail"])), Completed)
    assert not desk.sent


async def test_nobody_is_asked_about_what_is_off(desk):
    desk.control.kill_switch.set(Off(tools={"send_mail": "stop"}))
    assert isinstance(await desk.run(MAIL, policy=SecurityPolicy(ask=["send_mail"])), Completed)


async def test_a_call_that_is_under_way_is_cancelled(desk):
    running = asyncio.create_task(desk.run(SLOW))
    await desk.at_work.wait()
    desk.control.kill_switch.set(Off(tools={"other": "not this one"}))
    await asyncio.sleep(0)
    assert not desk.cancelled
    desk.control.kill_switch.set(Off(tools={"send_slowly": "stuck"}))
    assert isinstance(await running, Completed)
    assert desk.cancelled
    error = (await desk.returned()).error
    assert error is not None
    assert error.code == "tool_halted"
    assert "not known what it has done" in error.message


async def test_it_is_looked_at_right_before_a_call_that_may_change_something(desk):
    asked = 0

    async def look() -> None:
        nonlocal asked
        asked += 1
        desk.control.kill_switch.set(Off(tools={"send_mail": "a moment ago"}))

    desk.control = Control(KillSwitch(look))
    await desk.run(ToolCall(id="c0", name="look"))
    assert asked == 0
    desk.journal = MemoryJournal()
    await desk.run(MAIL)
    assert asked == 1
    assert not desk.sent


async def test_a_call_is_not_made_where_nobody_can_look(desk):
    async def look() -> None:
        raise ConnectionError

    desk.control = Control(KillSwitch(look))
    with pytest.raises(ConnectionError):
        await desk.run(MAIL)
    assert not desk.sent


async def test_a_run_that_is_off_is_let_go_and_goes_on_later(desk):
    desk.control.kill_switch.set(Off(run="all of it"))
    with pytest.raises(RunReleased):
        await desk.run(MAIL)
    assert not desk.sent
    assert not await desk.started()
    desk.control.kill_switch.set(Off())
    assert isinstance(await desk.run(MAIL), Completed)
    assert desk.sent == ["kim"]


async def test_a_run_that_is_switched_off_takes_its_call_with_it(desk):
    running = asyncio.create_task(desk.run(SLOW))
    await desk.at_work.wait()
    desk.control.kill_switch.set(Off(run="all of it"))
    with pytest.raises(RunReleased):
        await running
    assert desk.cancelled


async def test_a_server_is_off_by_whatever_way_it_is_reached():
    pool = McpPool(
        [McpServer(name="git", command="git-server"), McpServer(name="time", command="time-server")]
    )
    journal, control = MemoryJournal(), Control()
    control.kill_switch.set(Off(servers={"git": "its maker was bought"}, tools={"time__now": "wrong"}))
    calls = [
        ToolCall(id="c1", name="mcp_proxy", arguments={"server": "git", "tool": "log", "arguments": {}}),
        ToolCall(id="c2", name="mcp_list_tools", arguments={"server": "git"}),
        ToolCall(id="c3", name="mcp_proxy", arguments={"server": "time", "tool": "now", "arguments": {}}),
    ]
    agent = Agent(ScriptedModel.by_turn([*calls, "done"]), tools=[pool.proxy(["git", "time"])])
    async with pool:  # neither program exists: a call that came so far would say so
        await agent.run("go", journal=journal, control=control)
    errors = [each.step.error.code for each in await journal.load() if isinstance(each.step, ToolReturned)]
    assert errors == ["tool_halted"] * 3
    assert pool.toolset("git").uses(ToolCall(id="c", name="git__log")) == ("git", "")


def test_what_a_use_is_refused_for():
    off = Off(tools={"a_*": "one"}, servers={"s": "two"})
    assert off.refusal(ToolUse(tools=("b", "c"), server="t")) is None
    assert "a_c is switched off: one" in str(off.refusal(ToolUse(tools=("b", "a_c"))))
    assert "server s is switched off: two" in str(off.refusal(ToolUse(tools=("b",), server="s")))
