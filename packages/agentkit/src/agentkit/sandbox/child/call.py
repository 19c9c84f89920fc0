"""Call in a child: from a free supervisor to a value, or to an error with the cause."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from agentkit.errors import MachineError, ToolError, ToolTimeout
from agentkit.machine_errors import machine_error_in
from agentkit.sandbox.child.broker import Broker
from agentkit.sandbox.child.network import Connections, network
from agentkit.sandbox.child.output import Stream
from agentkit.sandbox.child.process import ChildProcess
from agentkit.sandbox.errors import (
    BadResult,
    CpuExceeded,
    DiskExceeded,
    FunctionRaised,
    MemoryExceeded,
    NoResult,
    OutputTooLarge,
    ResultTooLarge,
    ToolCrashed,
    ToolStopped,
    TooManyProcesses,
)
from agentkit.sandbox.port import CallTerms, CallUsage, Exited, Returned
from agentkit.sandbox.remarks import left_behind, refusals
from agentkit.sandbox.terms import MIB, CallLimits, ProgramLimits
from agentkit.untrusted.json_bounds import MAX_VALUES, has_more_values
from agentkit.untrusted.secrets import Secrets

MAX_RELAYED_BYTES = 256 << 20
"""That one call may send and receive, all its connections together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended.

    Attributes:
        status: as waitpid(2) tells it.
        over: which limit it was killed for, if any.
        stdout: what it printed.
        stderr: what it printed to standard error.
        result: what it left as its result.
        usage: what it took.
        refused: see :class:`~agentkit.sandbox.child.network.Connections`.
    """

    status: int
    over: str | None
    stdout: str
    stderr: str
    result: bytes
    usage: CallUsage
    refused: Mapping[str, str]


async def carry(child: ChildProcess, terms: CallTerms, stdin: int | None) -> Ending:
    """Hand a call over, and wait until it is gone; cancelled, kill it first.

    Args:
        child: who is to do it.
        terms: on what terms.
        stdin: descriptor of its standard input; ``None`` where it has none.

    Raises:
        SandboxUnavailable: the child could not be made.
        NeverBegan: see there.
    """
    limits = terms.limits
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(child.close)
        streams: list[Stream] = []
        for most, what in (
            (limits.output_bytes, "output"),
            (limits.output_bytes, "output"),
            (limits.result_bytes, "result"),
        ):
            streams.append(Stream(most, partial(child.kill, what)))
            stack.callback(streams[-1].close)
        stdout, stderr, result = streams
        doors = stack.enter_context(network(terms.grants.rules, terms.name or "a call", MAX_RELAYED_BYTES))
        if child.spec.get("doors"):  # of a jail; a child of the pool asks the broker
            child.opened = doors.open
        broker = stack.enter_context(Broker(doors.connections, terms.report))
        handed = (stdout.writes, stderr.writes, result.writes, broker.childs_end)
        try:
            await child.hand_over(handed if stdin is None else (stdin, *handed))
        finally:
            for stream in (stdout, stderr, result):
                stream.handed_over()
            broker.handed_over()
        await child.ended()
        for stream in (stdout, stderr, result):
            stream.close()
    return _ending(child, (stdout, stderr, result), time.monotonic() - began, doors.connections)


def _ending(
    child: ChildProcess, streams: tuple[Stream, ...], seconds: float, connections: Connections
) -> Ending:
    report = child.report()
    stdout, stderr, result = streams
    usage = CallUsage(
        seconds=seconds,
        cpu_seconds=report["cpu"],
        memory_bytes=report["memory"],
        network_bytes=connections.carried_bytes,
    )
    return Ending(
        status=report["status"],
        over=child.over or report["over"],
        stdout=stdout.text(),
        stderr=stderr.text(),
        result=bytes(result.data),
        usage=usage,
        refused=connections.refused,
    )


_OF_SHELLS = 128
"""A program that a signal has ended is said to have exited with this and the signal's number."""

_CPU_SLACK_SECONDS = 0.1


def over_limit(over: str, limits: CallLimits | ProgramLimits, what: str) -> ToolError:
    """The error for ``what``, killed for this limit."""
    if over == "seconds":
        return ToolTimeout(f"{what} did not end in time, and was killed")
    if over == "memory":
        return MemoryExceeded(f"{what} needed more than {limits.memory_bytes // MIB} MiB of memory")
    if over == "cpu":
        return CpuExceeded(f"{what} needed more than {limits.cpu_seconds:g} s of a processor")
    if over == "disk":
        return DiskExceeded(f"{what} wrote more than {limits.disk_bytes // MIB} MiB to files")
    if over == "processes":
        return TooManyProcesses(f"{what} had more than {limits.processes} processes and threads")
    if isinstance(limits, CallLimits) and over == "output":
        return OutputTooLarge(f"{what} printed more than {limits.output_bytes} bytes")
    if isinstance(limits, CallLimits) and over == "result":
        return ResultTooLarge(f"the result of {what} has more than {limits.result_bytes} bytes")
    return ToolStopped(f"{what} was killed: {over}")


def exit_code(status: int) -> int:
    """The exit status, negative for a signal, of what waitpid(2) tells of a child or of the shell around it."""
    code = os.waitstatus_to_exitcode(status)
    return _OF_SHELLS - code if _OF_SHELLS < code < _OF_SHELLS + signal.NSIG else code


def failure(
    status: int, over: str | None, cpu_seconds: float, limits: CallLimits | ProgramLimits, what: str
) -> ToolError | None:
    """The error for what did not end by itself; ``None`` for what did.

    Args:
        status: as waitpid(2) tells it.
        over: the limit that it was killed for.
        cpu_seconds: that it took.
        limits: that it had.
        what: what the error calls it.
    """
    if over is not None:
        return over_limit(over, limits, what)
    ended_by = -exit_code(status)
    if ended_by <= 0:
        return None
    most = limits.cpu_seconds
    spent = most is not None and cpu_seconds >= most - _CPU_SLACK_SECONDS
    if ended_by == signal.SIGXCPU or (ended_by == signal.SIGKILL and spent):
        return over_limit("cpu", limits, what)
    if ended_by == signal.SIGXFSZ:
        return over_limit("disk", limits, what)
    return ToolCrashed.by(ended_by, what)


def check(ending: Ending, limits: CallLimits, what: str) -> int:
    """The exit status of a call that ended by itself.

    Raises:
        ToolTimeout, ToolStopped, ToolCrashed: it did not.
    """
    error = failure(ending.status, ending.over, ending.usage.cpu_seconds, limits, what)
    if error is not None:
        raise error
    return exit_code(ending.status)


def returned(ending: Ending, terms: CallTerms, what: str, secrets: Secrets) -> Returned:
    """What a function returned.

    Raises:
        ToolTimeout, ToolStopped, ToolCrashed, FunctionRaised, BadResult: it returned nothing that can be taken.
        MachineError: it met one.
    """
    limits = terms.limits
    code = check(ending, limits, what)
    if not ending.result:
        how = "" if code == 0 else f" (exit status {code})"
        message = f"{what} ended without a result{how}"
        raise NoResult(message)
    if has_more_values(ending.result):
        message = (
            f"the result of {what} has more than {MAX_VALUES} values: return less, or write it to a file"
        )
        raise ResultTooLarge(message)
    parsed = _parsed(ending.result, what)
    if not isinstance(parsed, dict):
        message = f"{what} left something else than a result"
        raise BadResult(message)
    envelope = cast("dict[str, Any]", parsed)
    refused = tuple(secrets.hidden(each) for each in refusals(envelope, terms, ending.refused))
    match envelope:
        case {"value": value}:
            return Returned(
                value=secrets.hidden(value),
                stdout=secrets.hidden(ending.stdout),
                stderr=secrets.hidden(ending.stderr),
                usage=ending.usage,
                refused=refused,
                left=secrets.hidden(left_behind(envelope, terms)),
            )
        case {"raised": {"type": str(kind), "message": str(text), "kind": str(group)}}:
            if (found := _machine_error(group, str(text), terms)) is not None:
                raise found
            raise _raised(kind, with_refusals(secrets.hidden(text), refused), group, limits, what)
        case _:
            message = f"{what} left something else than a result"
            raise BadResult(message)


def exited(ending: Ending, limits: CallLimits, what: str, secrets: Secrets) -> Exited:
    """How a program ended.

    Raises:
        ToolTimeout, ToolStopped, ToolCrashed: not by itself.
    """
    return Exited(
        exit_code=check(ending, limits, what),
        stdout=secrets.hidden(ending.stdout),
        stderr=secrets.hidden(ending.stderr),
        usage=ending.usage,
    )


def with_refusals(text: str, refused: Sequence[str]) -> str:
    """The text of an error, and what the sandbox refused before it."""
    if not refused:
        return text
    return f"{text}{'. ' if text else ''}The sandbox refused: {'; '.join(refused)}"


def _machine_error(group: str, text: str, terms: CallTerms) -> MachineError | None:
    """The error of the machine that a function has met; ``None`` where it was a limit of the call, or its own fault."""
    if group == "machine" or (group == "disk" and any(map(_is_full, map(str, terms.grants.write)))):
        found = machine_error_in(text) or MachineError()
        found.began = True
        return found
    return None


def _is_full(path: str) -> bool:
    """No room is left where a call may write beyond its own folder, which has a limit of its own."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < MIB


def _raised(kind: str, text: str, group: str, limits: CallLimits, what: str) -> ToolError:
    if group in {"memory", "disk"}:
        return over_limit(group, limits, what)
    if group == "json":
        return BadResult(f"{what}: {text}")
    return FunctionRaised(
        f"{what} raised {kind}: {text}" if text else f"{what} raised {kind}", type=kind, text=text
    )


def _parsed(data: bytes, what: str) -> Any:
    from pydantic_core import from_json  # quick, and stops at a depth that nobody here has to fear

    try:
        return from_json(data, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        message = f"the result of {what} is no JSON that can be taken: {error}"
        raise BadResult(message) from None
