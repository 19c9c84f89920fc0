"""Spans and metrics of runs, by OpenTelemetry's GenAI conventions; the names are in :mod:`agentkit.tracing`.

Nothing is to be switched on: a run is watched where the process has set OpenTelemetry up (a tracer provider, or the
SDK's metrics), and costs nothing where it has not, since OpenTelemetry is then not even imported. A run is one
``invoke_agent`` span, with a ``chat`` span for each call of a model (each retry is one) and an ``execute_tool`` span
for each call of a tool. A run that is carried on after a crash or an answer is a span of its own with the same
conversation id.

What is said (prompts, replies, arguments, results) is in no span unless ``content`` asks for it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Awaitable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from agentkit import tracing
from agentkit.errors import AgentkitError
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    JsonValue,
    Message,
    ModelReply,
    ModelRequest,
    Opaque,
    Part,
    Reasoning,
    Source,
    Text,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentkit.ports import Model, OnDelta, ToolContext, Toolset
from agentkit.run.outcomes import Completed, Failed, Outcome
from agentkit.untrusted.secrets import REGISTER

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider

Attributes = dict[str, Any]
Output = TypeVar("Output")

log = logging.getLogger("agentkit")


@dataclass(frozen=True)
class Telemetry:
    """Who is told about the runs of an agent, and how much.

    Attributes:
        content: spans also hold what is said. It may be confidential, and is kept wherever spans are kept.
        tracer_provider: in place of the process's own.
        meter_provider: in place of the process's own.
    """

    content: bool = False
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None

    def watch(self, agent: str, run_id: str) -> Watch | None:
        """For one run; ``None`` where nobody listens."""
        if self.tracer_provider is None and self.meter_provider is None and not _is_set_up():
            return None
        return Watch(agent=agent, run_id=run_id, content=self.content, instruments=self._instruments)

    @cached_property
    def _instruments(self) -> Instruments:
        return Instruments(self.tracer_provider, self.meter_provider)


def _is_set_up() -> bool:
    """Whether anybody has given this process a provider. Who never imports OpenTelemetry cannot have."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    if "opentelemetry.sdk.metrics" in sys.modules:
        return True
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


class Instruments:
    """What spans and measurements are made with."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        from opentelemetry import metrics, trace

        self.tracer: Tracer = trace.get_tracer("agentkit", tracer_provider=tracer_provider)
        self.error = trace.Status(trace.StatusCode.ERROR)
        meter = metrics.get_meter("agentkit", meter_provider=meter_provider)

        def histogram(told: tuple[str, str, str, Sequence[float]]) -> Histogram:
            name, unit, description, bounds = told
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

        self.tokens = histogram(tracing.TOKEN_USAGE)
        self.operation = histogram(tracing.OPERATION_SECONDS)
        self.tool = histogram(tracing.TOOL_SECONDS)
        self.agent = histogram(tracing.AGENT_SECONDS)


@dataclass(slots=True)
class _Told:
    """What becomes known while an operation lasts."""

    span: Span
    measured: Attributes = field(default_factory=Attributes)
    failed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Tells about one run.

    Attributes:
        agent: its name.
        run_id: the run's id.
        content: tell what is said, too.
        instruments: what is told with.
    """

    agent: str
    run_id: str
    content: bool
    instruments: Instruments

    async def run(
        self, carried: Awaitable[Outcome[Output]], *, model: str, given: JsonValue
    ) -> Outcome[Output]:
        """The outcome of ``carried``, told as one ``invoke_agent`` span."""
        measured = {tracing.AGENT: self.agent, **_requested(model)}
        said = {tracing.CONVERSATION: self.run_id, **_provided(model)}
        if self.content:
            said[tracing.INPUT_MESSAGES] = _json([_said("user", [_text(_as_text(given))])])
        name = f"{tracing.INVOKE_AGENT} {self.agent}"
        with self._operation(name, tracing.INVOKE_AGENT, measured, said, self.instruments.agent) as told:
            outcome = await carried
            self._record_outcome(told, outcome)
        return outcome

    def model(self, model: Model) -> Model:
        """``model``, each reply of which is told as a ``chat`` span."""
        return _WatchedModel(model, self)

    def toolset(self, toolset: Toolset, specs: Mapping[str, ToolSpec]) -> Toolset:
        """``toolset``, each call of which is told as an ``execute_tool`` span."""
        return _WatchedToolset(toolset, self, specs)

    def _record_outcome(self, told: _Told, outcome: Outcome[Any]) -> None:
        told.span.set_attribute(tracing.RUN_STATUS, type(outcome).__name__.lower())
        told.span.set_attributes(_usage(outcome.usage.tokens))
        if isinstance(outcome, Failed):
            told.failed = outcome.error.code
        if self.content and isinstance(outcome, Completed):
            said = _said("assistant", [_text(_as_text(outcome.transcript[-1].step.output))])  # type: ignore[union-attr]
            told.span.set_attribute(tracing.OUTPUT_MESSAGES, _json([{**said, "finish_reason": "stop"}]))

    @contextmanager
    def _operation(
        self, name: str, operation: str, measured: Attributes, said: Attributes, seconds: Histogram
    ) -> Generator[_Told, None, None]:
        """A span around a block, and its duration; what fails is told by its kind, never by its text."""
        attributes = {tracing.OPERATION: operation, **measured, **said}
        began = time.perf_counter()
        with self.instruments.tracer.start_as_current_span(
            name,
            kind=_kind(operation),
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            told = _Told(span, measured)
            try:
                yield told
            except BaseException as error:
                told.failed = error.code if isinstance(error, AgentkitError) else type(error).__name__
                raise
            finally:
                if told.failed is not None:
                    span.set_attribute(tracing.ERROR_TYPE, told.failed)
                    span.set_status(self.instruments.error)
                    told.measured[tracing.ERROR_TYPE] = told.failed
                seconds.record(time.perf_counter() - began, told.measured)


class _WatchedModel:
    """A model whose replies are told."""

    def __init__(self, model: Model, watch: Watch) -> None:
        self._model = model
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def name(self) -> str:
        return self._model.name

    async def reply(self, request: ModelRequest, on_delta: OnDelta | None = None) -> ModelReply:
        watch, name = self._watch, self._model.name
        measured = {tracing.OPERATION: tracing.CHAT, **_requested(name), **_provided(name)}
        said = {tracing.CONVERSATION: watch.run_id, tracing.AGENT: watch.agent, **_bounds(request)}
        if on_delta is not None:
            said[tracing.REQUEST_STREAM] = True
        if watch.content:
            said.update(_request_content(request))
        span_name = f"{tracing.CHAT} {name.partition(':')[2] or name}"
        with watch._operation(  # noqa: SLF001  (the watch's own)
            span_name, tracing.CHAT, measured, said, watch.instruments.operation
        ) as told:
            reply = await self._model.reply(request, _timed(on_delta, told.span))
            try:
                self._record_reply(told, reply)
            except Exception as error:  # noqa: BLE001  (what is no reply is refused, and recorded, by the run)
                log.debug("a reply of %s cannot be described: %s", name, type(error).__name__)
        return reply

    def _record_reply(self, told: _Told, reply: ModelReply) -> None:
        if reply.model:
            told.measured[tracing.RESPONSE_MODEL] = reply.model.partition(":")[2] or reply.model
            told.span.set_attribute(tracing.RESPONSE_MODEL, told.measured[tracing.RESPONSE_MODEL])
        told.span.set_attribute(tracing.FINISH_REASONS, (tracing.STOP_REASONS[reply.stop_reason],))
        told.span.set_attributes(_usage(reply.usage))
        for kind, count in (("input", reply.usage.input_tokens), ("output", reply.usage.output_tokens)):
            if count:  # a server that does not say must not look like one that is free
                tokens = {**told.measured, tracing.TOKEN_TYPE: kind}
                self._watch.instruments.tokens.record(count, tokens)
        if self._watch.content:
            said = _said("assistant", [_part(part) for part in reply.parts])
            said["finish_reason"] = tracing.STOP_REASONS[reply.stop_reason]
            told.span.set_attribute(tracing.OUTPUT_MESSAGES, _json([said]))


class _WatchedToolset:
    """A toolset whose calls are told."""

    def __init__(self, toolset: Toolset, watch: Watch, specs: Mapping[str, ToolSpec]) -> None:
        self._toolset = toolset
        self._watch = watch
        self._specs = specs

    async def specs(self) -> Sequence[ToolSpec]:
        return await self._toolset.specs()

    def __getattr__(self, name: str) -> Any:
        """What a toolset may have besides, such as a look-up of interrupted calls, is the toolset's own."""
        return getattr(self._toolset, name)

    async def call(self, call: ToolCall, context: ToolContext[object]) -> JsonValue:
        watch = self._watch
        measured = {tracing.TOOL: call.name, tracing.TOOL_TYPE: "function", tracing.AGENT: watch.agent}
        said = {tracing.CONVERSATION: watch.run_id, tracing.TOOL_CALL: call.id}
        if description := self._specs[call.name].description:
            said[tracing.TOOL_DESCRIPTION] = description
        if watch.content:
            said[tracing.TOOL_ARGUMENTS] = _json(call.arguments)
        name = f"{tracing.EXECUTE_TOOL} {call.name}"
        with watch._operation(  # noqa: SLF001  (the watch's own)
            name, tracing.EXECUTE_TOOL, measured, said, watch.instruments.tool
        ) as told:
            output = await self._toolset.call(call, context)
            if watch.content:
                told.span.set_attribute(tracing.TOOL_RESULT, _json(output))
        return output


# --- as attributes -----------------------------------------------------------------------------------------------


def _kind(operation: str) -> SpanKind:
    from opentelemetry.trace import SpanKind

    return SpanKind.CLIENT if operation == tracing.CHAT else SpanKind.INTERNAL


def _requested(model: str) -> Attributes:
    return {tracing.REQUEST_MODEL: model.partition(":")[2] or model}


def _provided(model: str) -> Attributes:
    provider = model.partition(":")[0]
    return {tracing.PROVIDER: tracing.PROVIDERS.get(provider, provider)}


def _bounds(request: ModelRequest) -> Attributes:
    found: Attributes = {}
    if request.max_tokens is not None:
        found[tracing.REQUEST_MAX_TOKENS] = request.max_tokens
    if request.temperature is not None:
        found[tracing.REQUEST_TEMPERATURE] = request.temperature
    if request.stop:
        found[tracing.REQUEST_STOP] = request.stop
    if request.output_schema is not None:
        found[tracing.OUTPUT_TYPE] = "json"
    return found


def _usage(usage: Usage) -> Attributes:
    counts = {
        tracing.INPUT_TOKENS: usage.input_tokens,
        tracing.OUTPUT_TOKENS: usage.output_tokens,
        tracing.CACHED_TOKENS: usage.cached_tokens,
        tracing.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        tracing.REASONING_TOKENS: usage.reasoning_tokens,
    }
    found: Attributes = {name: count for name, count in counts.items() if count}
    if usage.cost_usd is not None:
        found[tracing.COST_USD] = usage.cost_usd
    return found


def _timed(on_delta: OnDelta | None, span: Span) -> OnDelta | None:
    """``on_delta``, the first call of which is told."""
    if on_delta is None:
        return None
    tell, began, first = on_delta, time.perf_counter(), True

    def timed(delta: Delta) -> None:
        nonlocal first
        if first:
            first = False
            span.set_attribute(tracing.FIRST_CHUNK, time.perf_counter() - began)
        tell(delta)

    return timed


# --- content, in the form that the conventions give it -----------------------------------------------------------


def _request_content(request: ModelRequest) -> Attributes:
    found: Attributes = {tracing.INPUT_MESSAGES: _json([_message(message) for message in request.messages])}
    if request.instructions:
        found[tracing.SYSTEM_INSTRUCTIONS] = _json([_text(request.instructions)])
    if request.tools:
        tools = [
            {
                "type": "function",
                "name": spec.name,
                "description": spec.description,
                "parameters": spec.parameters,
            }
            for spec in request.tools
        ]
        found[tracing.TOOL_DEFINITIONS] = _json(tools)
    return found


def _message(message: Message) -> Attributes:
    match message:
        case AssistantMessage(parts=parts):
            return _said("assistant", [_part(part) for part in parts])
        case ToolMessage(call_id=call_id, content=content):
            return _said("tool", [{"type": "tool_call_response", "id": call_id, "response": content}])
        case UserMessage(text=text, attachments=attachments):
            handed = [
                {"type": "file", "mime_type": each.media_type, "name": each.name} for each in attachments
            ]
            return _said("user", [*handed, _text(text)])


def _part(part: Part) -> Attributes:
    match part:
        case Text(text=text):
            return _text(text)
        case Reasoning(text=text):
            return {"type": "reasoning", "content": text}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}
        case Attachment(media_type=media_type, name=name):
            return {"type": "file", "mime_type": media_type, "name": name}
        case Source(url=url, title=title):
            return {"type": "source", "url": url, "title": title}
        case Opaque():
            return {"type": "opaque"}  # only its provider can read it


def _said(role: str, parts: Sequence[Attributes]) -> Attributes:
    return {"role": role, "parts": parts}


def _text(text: str) -> Attributes:
    return {"type": "text", "content": text}


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    """As JSON without known secrets. A toolset may return what JSON cannot express; that harms no call."""
    try:
        return REGISTER.hidden(json.dumps(value, ensure_ascii=False, default=str))
    except Exception:  # noqa: BLE001  (also of a __str__ that is not ours)
        return "(it cannot be expressed as JSON)"
