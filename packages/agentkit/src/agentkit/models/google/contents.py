"""Gemini's generateContent, as pure functions and state: a request as the SDK takes it, what it gives as a reply."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from agentkit.errors import ModelBadResponse
from agentkit.messages import (
    AssistantMessage,
    Attachment,
    Delta,
    JsonObject,
    Message,
    ModelReply,
    ModelRequest,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Source,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentkit.models.adapter.dialect import SIGNS_CALLS, Dialect
from agentkit.models.adapter.finish_reasons import finished_reply
from agentkit.models.adapter.json import (
    CallDraft,
    as_list,
    as_object,
    as_text,
    dump_json,
    mend,
    safe_name,
    sent_arguments,
    tool_calls,
)
from agentkit.models.adapter.opaque_data import issued, opaque, own
from agentkit.models.adapter.output_tool import ABOUT, OutputTool, answered, output_tool
from agentkit.models.adapter.reply_parts import media, of_gemini
from agentkit.models.adapter.tool_images import apart
from agentkit.models.adapter.turns import answerable
from agentkit.models.adapter.unsupported_settings import unsupported
from agentkit.models.adapter.usage import google_usage
from agentkit.models.google.body import extra_body
from agentkit.models.openai.chat import NO_SIGNATURE

_PART = "google_part"  # the key in Opaque.data
_UNSIGNED = {"thought_signature": NO_SIGNATURE.encode()}
_LOOKED_AT = frozenset({"image/png", "image/jpeg", "image/webp", "application/pdf"})
"""What the result of a call may hold; of its models those that sign calls know of it."""
_EFFORTS = frozenset({None, "minimal", "low", "medium", "high"})
_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_THOUGHT = "google_thought"  # the key in Reasoning.data: this is a thought, with its signature or without
_SIGNATURE = "google_signature"  # the key in Reasoning.data: the signature of the part that follows
_NO_OUTPUT_BESIDE_TOOLS = re.compile(r"gemini-(1|2)(\D|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in the words of the SDK.

    Attributes:
        contents: the conversation.
        config: everything else.
        output: how the output is asked for by a tool, where it is.
    """

    contents: list[dict[str, Any]]
    config: dict[str, Any]
    output: OutputTool | None = None


# --- the request -------------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, dialect: Dialect) -> Asked:
    """``request`` for the SDK. Models before Gemini 3 know no output schema beside tools: they get it as a tool."""
    config: dict[str, Any] = {"automatic_function_calling": {"disable": True}}
    if request.instructions:
        config["system_instruction"] = request.instructions
    tools = [_tool(spec.name, spec.description, spec.parameters) for spec in request.tools]
    output = None
    if request.output_schema is not None and tools and _NO_OUTPUT_BESIDE_TOOLS.search(dialect.model):
        output = output_tool(request.output_schema, (spec.name for spec in request.tools))
        tools.append(_tool(output.name, ABOUT, output.schema))
        config["tool_config"] = {"function_calling_config": {"mode": "ANY"}}
    elif request.output_schema is not None:
        config["response_mime_type"] = "application/json"
        config["response_json_schema"] = request.output_schema
    if tools:
        config["tools"] = [{"function_declarations": tools}]
    config.update(encoded_settings(request, dialect))
    if dialect.more:
        config["http_options"] = {"extra_body": extra_body(dialect.more, config)}
    return Asked(contents=_contents(request.messages, dialect), config=config, output=output)


def encoded_settings(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """Return the fields of the configuration that come from an agent's settings.

    Raises:
        UnsupportedSetting: the model does not take one.
    """
    effort, choice = request.reasoning_effort, request.tool_choice if request.tools else None
    if effort is not None and _NO_OUTPUT_BESIDE_TOOLS.search(dialect.model):
        why = "(before Gemini 3, it is thinkingConfig in the endpoint's body)"
        raise unsupported(dialect.name, "reasoning_effort", why)
    if effort not in _EFFORTS:
        raise unsupported(dialect.name, "reasoning_effort", f"with the value {effort}")
    found: dict[str, Any] = {
        "stop_sequences": list(request.stop) or None,
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "thinking_config": None if effort is None else {"thinking_level": effort.upper()},
    }
    if choice is not None:
        how: dict[str, Any] = {"mode": _MODES.get(choice, "ANY")}
        if choice not in _MODES:
            how["allowed_function_names"] = [safe_name(choice)]
        found["tool_config"] = {"function_calling_config": how}
    return {name: value for name, value in found.items() if value is not None}


def _tool(name: str, description: str, schema: JsonObject) -> dict[str, Any]:
    return {"name": name, "description": description, "parameters_json_schema": schema}


def _contents(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """Results of tools that follow each other are one content: all that were asked for must be in it."""
    contents: list[dict[str, Any]] = []
    before: Message | None = None
    new = SIGNS_CALLS.search(dialect.model) is not None
    for message in apart(
        list(answerable(messages, dialect.issuer)), takes=lambda each: new and each.media_type in _LOOKED_AT
    ):
        match message:
            case UserMessage(text=text, attachments=attachments):
                parts = [*map(_attachment, attachments), {"text": text}]
                contents.append({"role": "user", "parts": parts})
            case ToolMessage():
                if not isinstance(before, ToolMessage):
                    contents.append({"role": "user", "parts": []})
                contents[-1]["parts"].append(_result(message))
            case AssistantMessage(parts=said):
                if parts := list(_said(said, dialect, shows=_is_of(dialect, message))):
                    contents.append({"role": "model", "parts": parts})
        before = message
    return contents


def _attachment(attachment: Attachment) -> dict[str, Any]:
    if attachment.data is None:
        return {"file_data": {"file_uri": attachment.url, "mime_type": attachment.media_type}}
    # every kind of text is taken as plain text
    kind = "text/plain" if attachment.media_type.startswith("text/") else attachment.media_type
    return {"inline_data": {"mime_type": kind, "data": attachment.data}}


def _result(message: ToolMessage) -> dict[str, Any]:
    response = {"error" if message.is_error else "result": message.content}
    result: dict[str, Any] = {"id": message.call_id, "name": safe_name(message.name), "response": response}
    if message.attachments:
        blobs = [{"mime_type": each.media_type, "data": each.data} for each in message.attachments]
        result["parts"] = [{"inline_data": blob} for blob in blobs]
    return {"function_response": result}


def _is_of(dialect: Dialect, message: AssistantMessage) -> bool:
    """Whether a model of the same provider wrote a turn: then the images in it go back."""
    return message.model.partition(":")[0] == dialect.provider


def _said(parts: Sequence[Part], dialect: Dialect, *, shows: bool) -> Iterator[dict[str, Any]]:
    signature: dict[str, Any] = {}
    # a call that another model has made needs a mark
    unsigned = _UNSIGNED if SIGNS_CALLS.search(dialect.model) and not _is_signed(parts, dialect) else {}
    for part in parts:
        if isinstance(part, Source) or (isinstance(part, Attachment) and not (shows and part.data)):
            continue
        if isinstance(part, Reasoning):
            data = own(part, dialect.issuer)
            signed = _signature(data.get(_SIGNATURE))
            if data.get(_THOUGHT) is True:
                yield {"text": part.text, "thought": True, **signed}
            elif signed:
                signature = signed
            continue
        if isinstance(part, Attachment):
            yield {**_attachment(part), **signature}
        elif isinstance(part, Opaque):
            if item := as_object(own(part, dialect.issuer).get(_PART)):
                yield {**restored(item), **signature}
        elif isinstance(part, ToolCall):
            arguments = json.loads(dump_json(sent_arguments(part)))
            # also an id that we made: calls and results are told apart by it
            call = {"id": part.id, "name": safe_name(part.name), "args": arguments}
            yield {"function_call": call, **(signature or unsigned)}
            unsigned = {}  # of calls that belong together, only the first has one
        elif part.text or signature:
            yield {"text": part.text, **signature}
        signature = {}
    if signature:
        yield {"text": "", **signature}


def _is_signed(parts: Sequence[Part], dialect: Dialect) -> bool:
    thoughts = (part for part in parts if isinstance(part, Reasoning))
    return any(_SIGNATURE in own(part, dialect.issuer) for part in thoughts)


def _signature(data: object) -> dict[str, bytes]:
    try:
        return {"thought_signature": base64.b64decode(data)} if isinstance(data, str) else {}
    except (binascii.Error, ValueError):
        return {}


# --- the reply ---------------------------------------------------------------------------------------------------


class ContentDraft:
    """A reply that arrives in one piece or in several.

    Attributes:
        blocked: why the request was declined, so that there is no reply; empty where it was not.
    """

    def __init__(self, dialect: Dialect, output: OutputTool | None = None) -> None:
        self.blocked = ""
        self._dialect = dialect
        self._output = output
        self._parts: list[Part] = []
        self._calls: list[tuple[int, CallDraft]] = []
        self._reason = self._because = ""
        self._usage: Mapping[str, Any] = {}
        self._searches = 0
        self._sources: list[Source] = []
        self._model = dialect.model
        self._shown: list[str] = []

    def take(self, body: Mapping[str, Any]) -> None:
        """Read what has come."""
        for _ in self.feed(body):
            pass

    def feed(self, body: Mapping[str, Any]) -> Iterator[Delta]:
        """Read what has come, and tell what of it is new for somebody who watches."""
        self._usage = as_object(body.get("usage_metadata")) or self._usage
        self._model = as_text(body.get("model_version")) or self._model
        feedback = as_object(body.get("prompt_feedback"))
        if blocked := _word(feedback.get("block_reason")):
            why = mend(as_text(feedback.get("block_reason_message"))) or _because(feedback)
            self.blocked = f"{blocked}: {why}" if why else blocked
        for candidate in map(as_object, as_list(body.get("candidates"))[:1]):
            for part in map(as_object, as_list(as_object(candidate.get("content")).get("parts"))):
                yield from self._read(part)
            self._reason = _word(candidate.get("finish_reason")) or self._reason
            self._because = _because(candidate) or self._because
            self._sources.extend(of_gemini(candidate))
            grounding = as_object(candidate.get("grounding_metadata"))
            self._searches = max(self._searches, len(as_list(grounding.get("web_search_queries"))))

    @property
    def begun(self) -> bool:
        """Some of the reply has arrived."""
        return bool(self._parts)

    @property
    def usage(self) -> Usage:
        """What was used, as far as the provider has said; while there is no reason to stop, it has not said all."""
        used = google_usage(self._usage, self._searches)
        return used if self._reason or self.blocked else replace(used, partial=True)

    def rest(self, reply: ModelReply) -> Iterator[Delta]:
        """What of the text was held back until it was known what the output is."""
        if self._output is not None and reply.text:
            yield TextDelta(text=reply.text)

    def finish(self) -> ModelReply:
        """The whole reply, once all has come.

        Raises:
            ModelBadResponse: it ended early, or the provider says that it went wrong.
        """
        name = self._dialect.name
        if not self._reason:
            raise ModelBadResponse(f"{name} stopped in the middle of its reply")
        calls = tool_calls([draft for _, draft in self._calls])
        parts = list(self._parts)
        for (place, _), call in zip(self._calls, list(calls), strict=True):
            parts[place] = call
        model = f"{self._dialect.provider}:{mend(self._model)[:200]}"
        parts.extend(dict.fromkeys(self._sources))
        because = self._because
        reply = finished_reply(
            parts, finish_reason=self._reason, usage=self.usage, model=model, because=because
        )
        if self._output is None:
            return reply
        parts, reason = answered(reply.parts, reply.stop_reason, self._output)
        return replace(reply, parts=tuple(parts), stop_reason=reason)

    def _read(self, part: Mapping[str, Any]) -> Iterator[Delta]:
        signature = part.get("thought_signature")
        signed = {_SIGNATURE: base64.b64encode(signature).decode()} if isinstance(signature, bytes) else {}
        text = mend(as_text(part.get("text")))
        if part.get("thought"):
            self._think(text, signed)
            if text:
                yield ReasoningDelta(text=text)
            return
        if signed:
            self._parts.append(Reasoning(text="", data=issued(self._dialect.issuer, **signed)))
        call = as_object(part.get("function_call"))
        if call.get("name") or call.get("args"):
            arguments = json.dumps(call.get("args") or {}, default=str)
            draft = CallDraft(
                id=mend(as_text(call.get("id"))), name=as_text(call.get("name")), arguments=arguments
            )
            self._calls.append((len(self._parts), draft))
            self._parts.append(ToolCall(id="", name=""))  # until its form is checked
        elif text:
            self._say(text, signed)
            if self._output is None:
                yield TextDelta(text=text)
        elif isinstance(data := as_object(blob := as_object(part.get("inline_data"))).get("data"), bytes):
            self._parts.extend(media([(as_text(blob.get("mime_type")), data)]))
        elif item := {name: kept(part[name]) for name in _WORK if part.get(name) is not None}:
            self._parts.extend(opaque(issued(self._dialect.issuer, **{_PART: item})))

    def _think(self, text: str, signed: Mapping[str, str]) -> None:
        last = self._parts[-1] if self._parts else None
        data = issued(self._dialect.issuer, **{_THOUGHT: True, **signed})
        if (
            isinstance(last, Reasoning)
            and _THOUGHT in (last.data or {})
            and _SIGNATURE not in (last.data or {})
        ):
            self._parts[-1] = Reasoning(text=last.text + text, data=data)
        else:
            self._parts.append(Reasoning(text=text, data=data))

    def _say(self, text: str, signed: Mapping[str, str]) -> None:
        """Pieces without a signature are one text."""
        last = self._parts[-1] if self._parts else None
        before = self._parts[-2] if len(self._parts) > 1 else None
        follows_signature = isinstance(before, Reasoning) and _SIGNATURE in (before.data or {})
        if isinstance(last, Text) and not signed and not follows_signature:
            self._parts[-1] = Text(text=last.text + text)
        else:
            self._parts.append(Text(text=text))


_WORK = ("executable_code", "code_execution_result", "tool_call", "tool_response")
"""What a part holds that tools of the provider's own have done."""
_BYTES = "$bytes"


def kept(value: Any) -> Any:
    """A value of the SDK as JSON."""
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {name: kept(each) for name, each in items}
    if isinstance(value, list):
        return [kept(each) for each in as_list(cast("object", value))]
    value = getattr(value, "value", value)
    return mend(value) if isinstance(value, str) else value


def restored(value: Any) -> Any:
    """The inverse of :func:`kept`."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if set(fields) == {_BYTES}:
            return base64.b64decode(fields[_BYTES])
        return {name: restored(each) for name, each in fields.items()}
    return [restored(each) for each in as_list(cast("object", value))] if isinstance(value, list) else value


def _because(found: Mapping[str, Any]) -> str:
    """Why there is no answer: the categories that were blocked."""
    rated = map(as_object, as_list(found.get("safety_ratings")))
    blocked = [_word(each.get("category")) for each in rated if each.get("blocked")]
    return ", ".join(blocked)


def _word(value: object) -> str:
    """A finish reason, which the SDK gives as a member of an enumeration."""
    word = as_text(getattr(value, "value", value))
    return "" if word.endswith("_UNSPECIFIED") else word
