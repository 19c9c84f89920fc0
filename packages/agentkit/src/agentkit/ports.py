"""Ports: the parts that can be replaced. They are model, toolset, policy, memory and journal.

Each port is a small Protocol with a fake and a contract suite in :mod:`agentkit.testing`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar

from agentkit.messages import Delta, JsonValue, ModelReply, ModelRequest, ToolCall, ToolSpec, Usage
from agentkit.transcript.steps import Note, Recorded, Step

Deps = TypeVar("Deps")
OnDelta: TypeAlias = Callable[[Delta], None]


class Model(Protocol):
    """Answers a conversation."""

    @property
    def name(self) -> str:
        """``provider:name``."""
        ...

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        """One reply to ``request``.

        With ``on_delta`` the reply is streamed: each piece is passed on as it arrives, and the pieces add up to the
        text of the returned reply. Cancelling the call closes its connection.

        Raises:
            ModelError: one of its subclasses; no exception of an SDK or HTTP library leaks. Never retries.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Metered:
    """One call that is counted.

    Attributes:
        usage: what the provider says of it; left ``None`` where it does not.
    """

    usage: Usage | None = None


class Meter(Protocol):
    """Counts what is spent on behalf of a run."""

    def call(self, model: str, texts: Sequence[str]) -> AbstractAsyncContextManager[Metered]:
        """Around one call of embeddings: before it the budget is asked, after it what was used is counted.

        Args:
            model: ``provider:name`` of the embeddings.
            texts: what is sent.

        Raises:
            LimitReached: the budget does not last for it; nothing may be sent.
        """
        ...


class _Uncounted:
    def call(self, model: str, texts: Sequence[str]) -> AbstractAsyncContextManager[Metered]:
        return nullcontext(Metered())


UNCOUNTED: Meter = _Uncounted()
"""For calls that belong to no run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext(Generic[Deps]):
    """What a tool may know about the call it serves.

    Attributes:
        deps: what the caller of the run passed in.
        run_id: the run's id.
        call_id: the call's id within the run.
        idempotency_key: the same for every repetition of this very call, also after a crash; pass it on to whatever
            can recognise a repeated request.
        deadline: when the call is given up, in :func:`time.monotonic` seconds; ``None`` for never.
        meter: counts in the run's budget what the tool spends on embeddings.
        remark: adds a sentence that is recorded with the result of the call and shown to the model before it.
        report: shows progress (any short text) to whoever watches, from any thread; never stored.
        stopped: set as soon as the call is given up; a long synchronous tool should look at it.
    """

    deps: Deps
    run_id: str
    call_id: str
    idempotency_key: str
    deadline: float | None = None
    meter: Meter = UNCOUNTED
    remark: Callable[[str], None] = field(default=lambda _text: None)
    report: Callable[[str], None] = field(default=lambda _text: None)
    stopped: threading.Event = field(default_factory=threading.Event)

    def seconds_left(self) -> float | None:
        """Seconds until the call is given up; ``None`` for no limit, never below zero."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Toolset(Protocol):
    """A group of tools that can be listed and called.

    One that also has a method ``uses(call: ToolCall) -> tuple[str, str]`` says behind which MCP server, and under which
    name of its own, the tool of a call is, for :class:`~agentkit.run.kill_switch.KillSwitch`; empty for neither.

    One whose tool only passes calls on to others has a method ``behind(call: ToolCall) -> ToolCall | None``, which says
    what is called then, by the name that a policy knows it by. Pure.

    One that has ``async examine(call: ToolCall) -> None`` raises BadArguments there for what :meth:`call` would not
    take.
    """

    async def specs(self) -> Sequence[ToolSpec]:
        """The tools as they are now, names unique."""
        ...

    async def call(self, call: ToolCall, context: ToolContext[object]) -> JsonValue:
        """Carry out ``call`` and return its output.

        Raises:
            UnknownTool: no such tool here.
            BadArguments: the arguments do not fit the schema; the text names the field.
            ToolError: the tool says that the call failed; the model is shown the text.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The call may be carried out.

    Attributes:
        reason: why, for the record; empty where nothing speaks about the call.
    """

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The call is not carried out; the model is told why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A person must decide; the run waits.

    Attributes:
        reason: why; shown to the person.
        expires_seconds: without an answer for so long, the call is refused; ``None`` for never.
    """

    reason: str
    expires_seconds: float | None = None


Decision: TypeAlias = Allow | Deny | Ask


Behind: TypeAlias = Callable[[ToolCall], ToolCall | None]
"""The call that a call only passes on; ``None`` where it is one itself."""


def behind_nothing(_call: ToolCall) -> ToolCall | None:
    """No call is passed on."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a policy is asked.

    Attributes:
        call: the call with its true arguments.
        spec: the tool.
        interrupted: the call was started before and nobody knows whether it took effect.
        transcript: all steps of the run so far.
        under_way: calls of the same turn that were let through, of which the transcript may not tell yet.
        behind: tells what is called behind this call, and behind those of the transcript.
    """

    call: ToolCall
    spec: ToolSpec
    interrupted: bool = False
    transcript: Sequence[Recorded] = ()
    under_way: Sequence[ToolCall] = ()
    behind: Behind = behind_nothing


class Policy(Protocol):
    """Decides about each tool call.

    One that also has a method ``offers(spec: ToolSpec) -> bool`` decides which tools the model is shown.
    """

    async def decide(self, question: Question) -> Decision:
        """Allow, deny or ask a person. An exception stops the run: a policy that cannot decide permits nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose memory it is. Nothing is ever found in another scope than the one that was asked for.

    Attributes:
        agent: name of the agent.
        tenant: who owns it.
        key: of the person or thing it is about; empty for what the agent remembers of nobody in particular.
    """

    agent: str
    tenant: str = "default"
    key: str = ""


class Memory(Protocol):
    """What outlives a run: notes, found again by their meaning.

    A memory hands ``meter`` on to its embeddings, so that they count in the budget of the run. Methods raise
    MemoryUnavailable, a ModelError of the embeddings, or what the meter raises.
    """

    async def remember(self, scope: Scope, note: Note, meter: Meter = UNCOUNTED) -> None:
        """Keep a note; durable when this returns. One of the same id in this scope is replaced."""
        ...

    async def recall(self, scope: Scope, query: str, limit: int, meter: Meter = UNCOUNTED) -> Sequence[Note]:
        """Up to ``limit`` notes of this scope, the most similar one first, each with its score."""
        ...

    async def forget(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        key: str | None = None,
        ids: Collection[str] | None = None,
    ) -> int:
        """Delete every note of ``tenant`` that fits all that is given, and what was made of it; how many it were."""
        ...


class Embeddings(Protocol):
    """Texts as vectors: similar ones point in a similar direction."""

    @property
    def name(self) -> str:
        """``provider:name``. Vectors of another name cannot be compared with these."""
        ...

    async def embed(self, texts: Sequence[str], meter: Meter = UNCOUNTED) -> Sequence[Sequence[float]]:
        """A vector for each text, all of one length; each call that costs something is made within ``meter.call``.

        Raises:
            ModelError: one of its subclasses; no exception of an SDK or HTTP library leaks. Never retries.
        """
        ...


class Journal(Protocol):
    """The durable list of one run's steps."""

    async def load(self) -> Sequence[Recorded]:
        """All steps recorded so far, in order, numbered from 0 without a gap."""
        ...

    async def append(self, step: Step) -> Recorded:
        """Record ``step`` and return it with its number and time; durable when this returns.

        Steps become part of the journal in the order in which ``append`` was called, each wholly or not at all, also
        when the caller is cancelled while it waits.

        Raises:
            JournalError: nothing was recorded.
        """
        ...

    async def append_all(self, steps: Sequence[Step]) -> Sequence[Recorded]:
        """Record steps between which nothing is done, in one go: as :meth:`append` for each, at the cost of one.

        A step is never there without those before it; a crash may keep only the first ones.

        Raises:
            JournalError: nothing was recorded.
        """
        ...
