"""What the machine lacks for a moment is no result of a call: the call is owed, and made when there is room again."""

import errno
import os
import resource
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentkit import (
    Agent,
    Completed,
    Failed,
    MemoryJournal,
    ToolCall,
    ToolError,
    Waiting,
    tool,
)
from agentkit.errors import MachineError, McpUnavailable
from agentkit.machine_errors import machine_error
from agentkit.mcp import McpPool, McpServer
from agentkit.messages import Effect, ToolSpec
from agentkit.sandbox import Sandboxes
from agentkit.testing import ScriptedModel
from agentkit.tools.builtin.files import DirectoryReader
from agentkit.tools.functions import FunctionToolset
from agentkit.tools.http import HttpTool, HttpToolset
from agentkit.tools.lookups import found
from agentkit.tools.sandboxed import confined
from agentkit.transcript.steps import ToolReturned, ToolStarted, open_calls

from .loop_support import call, steps_of  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and the sandbox: Linux only")


@contextmanager
def no_descriptors_left() -> Generator[None]:
    """This process may open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Troubled:
    """The machine, short of something until it is mended; what raises is a real call of the system."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.calls = 0

    def act(self) -> None:
        self.calls += 1
        if self.calls > 1:
            return
        match self.kind:
            case "disk":
                with Path("/dev/full").open("w", encoding="utf-8") as full:
                    full.write("x")
            case "descriptors":
                with no_descriptors_left(), Path("/dev/null").open(encoding="utf-8"):
                    pass
            case "behind another":
                try:
                    with no_descriptors_left(), Path("/dev/null").open(encoding="utf-8"):
                        pass
                except OSError as error:
                    raise LookupError("no index") from error
            case "in a group":
                raise ExceptionGroup("several", [ValueError("x"), OSError(errno.EIO, "the device")])
            case "told as an error of the tool":
                try:
                    raise OSError(errno.EDQUOT, "the quota")
                except OSError:
                    raise ToolError("it could not be saved") from None
            case _:
                raise OSError(getattr(errno, self.kind), "out of it")


KINDS = [
    "disk",
    "descriptors",
    "behind another",
    "in a group",
    "told as an error of the tool",
    "ENFILE",
    "ENOMEM",
]


async def outcomes(agent: Agent[Any, Any]) -> tuple[Any, Any, MemoryJournal]:
    journal = MemoryJournal()
    first = await agent.run("go", journal=journal)
    assert isinstance(first, Failed)
    assert first.resumable
    assert (first.error.code, first.error.transient) == ("machine_error", True)
    assert not [step for step in steps_of(journal.steps, ToolReturned) if step.call_id == "c1"]
    return first, await agent.run("go", journal=journal), journal


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "loop"])
@pytest.mark.parametrize("effect", ["pure", "idempotent"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_may_be_repeated_is_made_again(kind: str, effect: Any, is_async: bool):
    machine = Troubled(kind)

    @tool(effect=effect)
    def save() -> str:
        """Save."""
        machine.act()
        return "saved"

    @tool(effect=effect, name="save")
    async def save_soon() -> str:
        """Save."""
        machine.act()
        return "saved"

    agent = Agent(ScriptedModel([call("save"), "done"]), tools=[save_soon if is_async else save])
    first, second, _journal = await outcomes(agent)
    assert any(name in first.error.message for name in errno.errorcode.values())
    assert (second.unwrap(), machine.calls) == ("done", 2)


async def test_a_result_that_is_read_late_counts_as_the_call():
    machine = Troubled("disk")

    @tool(effect="pure")
    def rows() -> Any:
        """Rows."""
        yield 1
        machine.act()
        yield 2

    _first, second, journal = await outcomes(Agent(ScriptedModel([call("rows"), "done"]), tools=[rows]))
    assert isinstance(second, Completed)
    assert steps_of(journal.steps, ToolReturned)[0].output == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unsafe_call_is_not_made_twice(kind: str):
    machine = Troubled(kind)

    @tool
    def pay() -> str:
        """Pay."""
        machine.act()
        return "paid"

    _first, second, journal = await outcomes(Agent(ScriptedModel([call("pay"), "done"]), tools=[pay]))
    assert isinstance(second, Waiting), "a person is asked about a call that was interrupted"
    assert second.on[0].interrupted
    assert machine.calls == 1
    assert len(steps_of(journal.steps, ToolStarted)) == 1


async def test_an_unsafe_call_is_looked_up_where_its_tool_can_and_the_look_up_may_meet_it_too():
    machine, looking = Troubled("disk"), Troubled("descriptors")

    def look_up() -> Any:
        looking.act()
        return found("paid")

    @tool(find=look_up)
    def pay() -> str:
        """Pay."""
        machine.act()
        return "paid"

    agent = Agent(ScriptedModel([call("pay"), "done"]), tools=[pay])
    _first, second, journal = await outcomes(agent)
    assert isinstance(second, Failed)
    assert second.error.code == "machine_error"
    third = await agent.run("go", journal=journal)
    assert (third.unwrap(), machine.calls, looking.calls) == ("done", 1, 2)


async def test_calls_beside_it_end_and_those_behind_it_wait():
    machine, began, may_end = Troubled("disk"), list[str](), threading.Event()

    @tool(effect="pure")
    def read() -> str:
        """Read."""
        try:
            machine.act()
        finally:
            may_end.set()
        return "read"

    @tool
    def pay() -> str:
        """Pay."""
        began.append("pay")
        may_end.wait(10)
        return "paid"

    @tool(parallel=False)
    def close() -> str:
        """Close."""
        began.append("close")
        return "closed"

    model = ScriptedModel([[call("pay", "c2"), call("read"), call("close", "c3")], "done"])
    _first, second, journal = await outcomes(Agent(model, tools=[read, pay, close]))
    assert (second.unwrap(), began) == ("done", ["pay", "close"])
    assert [step.call_id for step in steps_of(journal.steps, ToolReturned)] == ["c2", "c1", "c3"]


async def test_a_call_for_which_there_is_no_thread_did_not_begin(monkeypatch: pytest.MonkeyPatch):
    paid: list[int] = []

    @tool
    def pay() -> str:
        """Pay."""
        paid.append(1)
        return "paid"

    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if not self.name.startswith("tool-"):
            return start(self)
        monkeypatch.undo()
        raise OSError(errno.ENOMEM, "no stack")

    agent = Agent(ScriptedModel([call("pay"), "done"]), tools=[pay])
    monkeypatch.setattr(threading.Thread, "start", refused)
    _first, second, _journal = await outcomes(agent)
    assert (second.unwrap(), paid) == ("done", [1])


async def test_memory_that_a_tool_asks_for_in_vain_is_its_own_failure():
    @tool(effect="pure")
    def fill() -> int:
        """Fill."""
        return len(bytearray(1 << 62))

    outcome = await Agent(ScriptedModel([call("fill"), "done"]), tools=[fill]).run("go")
    assert outcome.unwrap() == "done"
    (returned,) = steps_of(outcome.transcript, ToolReturned)
    assert "MemoryError" in returned.error.message


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "x"),
        BlockingIOError(errno.EAGAIN, "a socket"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
async def test_what_a_tool_does_wrong_is_told(error: Exception):
    assert machine_error(error) is None

    @tool(effect="pure")
    def read() -> str:
        """Read."""
        raise error

    outcome = await Agent(ScriptedModel([call("read"), "done"]), tools=[read]).run("go")
    assert outcome.unwrap() == "done"


# --- our own parts ---------------------------------------------------------------------------------------------------


class Once:
    """A toolset whose first call is made without a descriptor to spare."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 0

    async def specs(self) -> list[ToolSpec]:
        return list(await self.inner.specs())

    async def call(self, given: ToolCall, context: Any) -> Any:
        self.calls += 1
        if self.calls > 1:
            return await self.inner.call(given, context)
        with no_descriptors_left():
            return await self.inner.call(given, context)


@pytest.mark.parametrize("name", ["list_files", "find_in_files", "read_text"])
async def test_files_that_cannot_be_opened_now_are_not_told_as_missing(name: str, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("a word", encoding="utf-8")
    tools = Once(FunctionToolset(DirectoryReader(tmp_path).tools))
    given = {"read_text": {"path": "notes.txt"}, "find_in_files": {"text": "word"}}.get(name, {})
    model = ScriptedModel([ToolCall(id="c1", name=name, arguments=given), "done"])
    _first, second, journal = await outcomes(Agent(model, tools=[tools]))
    assert second.unwrap() == "done"
    assert steps_of(journal.steps, ToolReturned)[0].error is None


async def test_a_request_for_which_there_is_no_descriptor_was_not_sent(api: Any):
    import encodings.idna  # noqa: F401

    import anyio._backends._asyncio  # noqa: F401  (loaded by the first request)

    order = HttpTool("order", "POST", f"{api.url}/echo", effect=Effect.UNSAFE)
    tools = Once(HttpToolset([order], private=True))
    _first, second, journal = await outcomes(Agent(ScriptedModel([call("order"), "done"]), tools=[tools]))
    assert second.unwrap() == "done", "it is not asked whether it took effect"
    assert [step.withdrawn for step in steps_of(journal.steps, ToolStarted)] == [False, True, False]
    assert not open_calls(journal.steps)


@pytest.mark.parametrize("sandbox", ["none", "jail"])
async def test_a_server_that_cannot_be_started_now_is_not_told_as_broken(sandbox: Any):
    server = McpServer(
        name="own", command=sys.executable, args=("-c", "raise SystemExit(3)"), sandbox=sandbox
    )
    async with McpPool([server]) as pool:
        connection = pool.connection("own")
        with no_descriptors_left(), pytest.raises(MachineError) as caught:
            await connection.tools()
        assert (caught.value.errno, caught.value.began) == (errno.EMFILE, False)
        with pytest.raises(McpUnavailable, match="exit code 3"):
            await connection.tools()


async def test_a_call_for_which_the_pool_has_no_descriptor_did_not_begin(tmp_path: Path, monkeypatch: Any):
    (tmp_path / "machine_errors_tools.py").write_text(
        "from agentkit import tool\n\n@tool\ndef pay() -> str:\n    '''Pay.'''\n    return 'paid'\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from machine_errors_tools import pay  # type: ignore[import-not-found]

    async with Sandboxes() as boxes:
        tools = Once(FunctionToolset(confined([pay], boxes)))
        agent = Agent(ScriptedModel([call("pay"), "done", call("pay")]), tools=[tools])
        _first, second, _journal = await outcomes(agent)
        assert second.unwrap() == "done"
        tools.calls, journal = 0, MemoryJournal()  # it is open now
        assert isinstance(await agent.run("go", journal=journal), Failed)
        assert [step.withdrawn for step in steps_of(journal.steps, ToolStarted)] == [False, True]
