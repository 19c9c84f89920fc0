"""Contract that every sandbox keeps."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from agentkit.errors import ToolTimeout
from agentkit.messages import JsonValue
from agentkit.sandbox import (
    BadResult,
    FunctionRaised,
    Limits,
    ResultTooLarge,
    SandboxBackend,
    SandboxRefused,
)

Failure = TypeVar("Failure", bound=BaseException)


async def raised(kind: type[Failure], call: Awaitable[Any]) -> Failure:
    """The error of this kind with which a call fails.

    Raises:
        AssertionError: it did not fail.
    """
    try:
        value = await call
    except kind as error:
        return error
    message = f"it returned {value!r}"
    raise AssertionError(message)


async def root(sandbox: SandboxBackend) -> JsonValue:
    """A call that works, and returns 3."""
    return (await sandbox.call("statistics:mode", {"data": [3, 3, 1]})).value


class SandboxContract:
    """What every sandbox keeps. Provide a fixture ``sandbox`` of an open one.

    Functions of the standard library are called. Isolation is not part of it: which controls a sandbox holds, its
    ``capabilities`` say. To share one sandbox among the tests, give them and the fixture the event loop of the module.
    """

    async def test_json_goes_in_and_comes_out(self, sandbox: SandboxBackend) -> None:
        """As plain values."""
        returned = await sandbox.call("statistics:mean", {"data": [1, 2, 6]})
        assert returned.value == 3
        assert returned.usage.seconds > 0
        value = (await sandbox.call("json:loads", {"s": '{"ä": [1, 2.5, null, true, "\\u2713"]}'})).value
        assert value == {"ä": [1, 2.5, None, True, "\u2713"]}

    async def test_a_coroutine_function_is_awaited(self, sandbox: SandboxBackend) -> None:
        """It has an event loop."""
        assert (await sandbox.call("asyncio:sleep", {"delay": 0, "result": "woken"})).value == "woken"

    async def test_what_a_function_raises_is_told(self, sandbox: SandboxBackend) -> None:
        """With its type and its text."""
        error = await raised(FunctionRaised, sandbox.call("statistics:median", {"data": []}))
        assert error.type == "StatisticsError"
        assert "no median for empty data" in str(error)
        await raised(FunctionRaised, sandbox.call("statistics:mean", {"wrong": 1}))

    async def test_a_function_that_is_not_there_is_an_error(self, sandbox: SandboxBackend) -> None:
        """Of the call, not of the sandbox."""
        for name in ("no_such_module_here:f", "math:no_such_function", "math"):
            await raised(FunctionRaised, sandbox.call(name))
        assert await root(sandbox) == 3

    async def test_what_is_no_json_is_no_result(self, sandbox: SandboxBackend) -> None:
        """Nor is a number that JSON does not have."""
        lock: tuple[str, Mapping[str, JsonValue]] = ("threading:Lock", {})
        infinity: tuple[str, Mapping[str, JsonValue]] = ("statistics:fmean", {"data": [math.inf, 1.0]})
        for name, arguments in (lock, infinity):
            error = await raised(Exception, sandbox.call(name, arguments))
            assert isinstance(error, BadResult | FunctionRaised)

    async def test_a_result_has_a_largest_size(self, sandbox: SandboxBackend) -> None:
        """Beyond which the call fails."""
        large = {"text": "x" * 5000, "prefix": ""}
        few = Limits(result_bytes=1000)
        await raised(ResultTooLarge, sandbox.call("textwrap:indent", large, limits=few))

    async def test_what_takes_too_long_is_given_up(self, sandbox: SandboxBackend) -> None:
        """By the limit, or by the deadline where that is sooner."""
        began = time.monotonic()
        await raised(ToolTimeout, sandbox.call("asyncio:sleep", {"delay": 60}, limits=Limits(seconds=0.2)))
        await raised(
            ToolTimeout, sandbox.call("asyncio:sleep", {"delay": 60}, deadline=time.monotonic() + 0.2)
        )
        assert time.monotonic() - began < 10
        assert await root(sandbox) == 3

    async def test_a_cancelled_call_is_over_at_once(self, sandbox: SandboxBackend) -> None:
        """And the next one works."""
        calling = asyncio.ensure_future(sandbox.call("asyncio:sleep", {"delay": 60}))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        calling.cancel()
        await raised(asyncio.CancelledError, calling)
        assert time.monotonic() - began < 5
        assert await root(sandbox) == 3

    async def test_calls_run_side_by_side(self, sandbox: SandboxBackend) -> None:
        """Each with its own result."""
        calls = [sandbox.call("textwrap:dedent", {"text": str(number)}) for number in range(8)]
        assert [each.value for each in await asyncio.gather(*calls)] == [str(number) for number in range(8)]

    async def test_a_program_that_stays_is_spoken_to_or_refused(self, sandbox: SandboxBackend) -> None:
        """It hears and is heard, ends with its input, and is gone with its context."""
        try:
            async with sandbox.open_program(["cat"]) as program:
                for text in (b"one\n", b"two\n"):
                    program.stdin.write(text)
                    assert await asyncio.wait_for(program.stdout.readline(), 60) == text
                assert program.returncode is None
                program.stdin.close()
                assert await asyncio.wait_for(program.wait(), 60) == 0
                assert await program.stderr.read() == b""
            async with sandbox.open_program(["cat"]) as program:
                pass
            assert program.returncode is not None
            assert program.failure is None
        except SandboxRefused:
            assert sandbox.name != "jail"
