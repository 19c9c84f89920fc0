"""One call, from the moment a supervisor has it until nothing of it is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from agentkit.sandbox.broker import Broker
from agentkit.sandbox.connections import Connections
from agentkit.sandbox.custody import Custody
from agentkit.sandbox.doors import network
from agentkit.sandbox.port import CallTerms, CallUsage
from agentkit.sandbox.streams import Stream

MOST_RELAYED_BYTES = 256 << 20
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
        refused: see :class:`~agentkit.sandbox.connections.Connections`.
    """

    status: int
    over: str | None
    stdout: str
    stderr: str
    result: bytes
    usage: CallUsage
    refused: Mapping[str, str]


async def carry(child: Custody, terms: CallTerms, stdin: int | None) -> Ending:
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
        doors = stack.enter_context(network(terms.grants.rules, terms.name or "a call", MOST_RELAYED_BYTES))
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


def _ending(child: Custody, streams: tuple[Stream, ...], seconds: float, connections: Connections) -> Ending:
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
