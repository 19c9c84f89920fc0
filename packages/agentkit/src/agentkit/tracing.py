"""Tracing: W3C Trace Context from process to process, and the names of OpenTelemetry's GenAI semantic conventions.

Works with OpenTelemetry where the process has imported it, and imports nothing itself.

None of the ``gen_ai.*`` names is stable yet. They are here and nowhere else, so that a renaming is one line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[\x20-\x7e\t]*")
_MAX_STATE = 512
_MAX_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class Trace:
    """Who has begun what is now carried on.

    Attributes:
        parent: a ``traceparent`` of version 00.
        state: a ``tracestate`` of at most 512 characters; empty for none.
    """

    parent: str
    state: str = ""

    @classmethod
    def parse(cls, parent: str | None, state: str | None = None) -> Self | None:
        """What two headers tell; ``None`` for nothing.

        As the specification has it: a malformed ``traceparent`` is as good as none, a later version is read as the
        first one, and a malformed ``tracestate`` is left out.
        """
        found = None if parent is None else _PARENT.fullmatch(parent.strip())
        if found is None:
            return None
        version, trace, span, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or not trace.strip("0") or not span.strip("0"):
            return None
        return cls(f"00-{trace}-{span}-{flags}", _state(state or ""))

    @classmethod
    def current(cls) -> Self | None:
        """That of the span in which this is called; ``None`` where there is none, or no OpenTelemetry."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        of = trace.get_current_span().get_span_context()
        if not of.is_valid:
            return None
        return cls.parse(
            f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}", of.trace_state.to_header()
        )

    @classmethod
    def of_text(cls, text: str | None) -> Self | None:
        """The trace of :attr:`text`."""
        parent, _space, state = (text or "").partition(" ")
        return cls.parse(parent, state)

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.parent} {self.state}".rstrip()

    @property
    def id(self) -> str:
        """The trace's own, 32 hexadecimal digits."""
        return self.parent[3:35]

    @property
    def headers(self) -> Mapping[str, str]:
        """As it is sent on."""
        return {"traceparent": self.parent} | ({"tracestate": self.state} if self.state else {})

    def carried_on(self) -> AbstractContextManager[Any]:
        """Spans that begin in this context belong to the trace; without OpenTelemetry nothing happens."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return nullcontext()
        of = trace.SpanContext(
            trace_id=int(self.id, 16),
            span_id=int(self.parent[36:52], 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(int(self.parent[53:], 16)),
            trace_state=trace.TraceState.from_header([self.state]) if self.state else None,
        )
        whose: AbstractContextManager[Any] = trace.use_span(
            trace.NonRecordingSpan(of), record_exception=False, set_status_on_exception=False
        )
        return whose


def annotate(attributes: Mapping[str, str | int]) -> None:
    """Add to the span in which this is called; without one, or without OpenTelemetry, nothing happens."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        trace.get_current_span().set_attributes(attributes)


def _state(told: str) -> str:
    members = [member.strip() for member in told.split(",") if member.strip()]
    state = ",".join(members)
    fits = len(state) <= _MAX_STATE and len(members) <= _MAX_MEMBERS and _STATE.fullmatch(state)
    return state if fits and all("=" in member for member in members) else ""


# --- what is done ------------------------------------------------------------------------------------------------

INVOKE_AGENT = "invoke_agent"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"

# --- attributes --------------------------------------------------------------------------------------------------

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
"""The id of the run, which for a task of the platform is the task's."""
AGENT = "gen_ai.agent.name"
ERROR_TYPE = "error.type"
"""The ``code`` of our error, or the type of another exception."""

REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_STREAM = "gen_ai.request.stream"
OUTPUT_TYPE = "gen_ai.output.type"

RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"

INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  (no secret)

TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL = "gen_ai.tool.call.id"
TOOL_DESCRIPTION = "gen_ai.tool.description"

# --- attributes that hold what was said; only where that was asked for ---------------------------------------------

SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

# --- attributes of our own: the conventions have no name for them --------------------------------------------------

COST_USD = "agentkit.usage.cost_usd"
RUN_STATUS = "agentkit.run.status"
TOOL_STDOUT_LENGTH = "agentkit.tool.stdout.length"
TOOL_STDERR_LENGTH = "agentkit.tool.stderr.length"
"""``completed``, ``failed``, ``cancelled``, ``waiting``."""

# --- metrics: name, unit, what it measures, bounds of its buckets --------------------------------------------------

TOKEN_USAGE = (
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used.",
    tuple(4.0**power for power in range(14)),
)
_CALL_SECONDS = tuple(0.01 * 2**power for power in range(14))
OPERATION_SECONDS = ("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _CALL_SECONDS)
TOOL_SECONDS = (
    "gen_ai.execute_tool.duration",
    "s",
    "The duration of a single tool execution.",
    _CALL_SECONDS,
)
AGENT_SECONDS = (
    "gen_ai.invoke_agent.duration",
    "s",
    "The end-to-end duration of a single agent invocation.",
    tuple(0.1 * 2**power for power in range(13)),
)

# --- values ------------------------------------------------------------------------------------------------------

PROVIDERS = {"google": "gcp.gemini", "mistral": "mistral_ai", "xai": "x_ai", "moonshot": "moonshot_ai"}
"""Providers that the conventions call otherwise than we do."""

STOP_REASONS = {
    "end": "stop",
    "tool_calls": "tool_call",
    "length": "length",
    "refused": "content_filter",
    "filtered": "content_filter",
    "unfinished": "error",
    "paused": "stop",
}
"""Our stop reasons in the words of the conventions."""
