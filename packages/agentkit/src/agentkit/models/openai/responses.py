"""OpenAI's Responses, as pure functions and state: a request as its JSON body, a body or events as a reply.

Nothing is stored at the provider (``store`` is false): the whole conversation is sent each time, and reasoning goes
back encrypted, as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentkit.errors import ModelBadRequest, ModelBadResponse
from agentkit.messages import (
    DECLINED,
    AssistantMessage,
    Attachment,
    Delta,
    Message,
    ModelReply,
    ModelRequest,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Source,
    StopReason,
    Text,
    TextDelta,
    ToolCall,
    ToolMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from agentkit.models.adapter.body import merged
from agentkit.models.adapter.call_ids import OPENAI_RESPONSES, CallIds
from agentkit.models.adapter.dialect import Dialect, model_name
from agentkit.models.adapter.finish_reasons import Fault, ending_of
from agentkit.models.adapter.json import (
    CallDraft,
    Halves,
    as_count,
    as_data_url,
    as_list,
    as_object,
    as_plain_text,
    as_text,
    dump_json,
    mend,
    mended,
    safe_name,
    sent_arguments,
    tool_calls,
)
from agentkit.models.adapter.opaque_data import issued, opaque, own
from agentkit.models.adapter.output_tool import output_tool
from agentkit.models.adapter.reply_parts import decoded, media, sources
from agentkit.models.adapter.stop_sequences import Cutter
from agentkit.models.adapter.tool_images import apart
from agentkit.models.adapter.turns import answerable
from agentkit.models.adapter.unsupported_settings import sampling, unsupported
from agentkit.models.adapter.usage import UNCOUNTED, response_usage
from agentkit.models.openai.chat import TOOL_CHOICES, arguments_of, cache_key
from agentkit.models.provider_errors.bodies import error_object

_ITEM = "openai_item"  # the key in Reasoning.data and Opaque.data
_PHASE = "openai_phase"  # the key in Text.data
_TO_BE_ANSWERED = frozenset(
    {*{"computer_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"}}
    | {"mcp_approval_request"}
)
_NOT_ANSWERED = (
    "{model} sent a {kind}, which an agent cannot answer: it comes from a tool in the endpoint's body; "
    "take that tool out of it (for an MCP server, set require_approval to never)"
)
_DOES_NOT_REASON = re.compile(r"gpt-3|gpt-4|chatgpt|-chat")
_LAST_EVENTS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)
_SPOKEN = frozenset({"response.output_text.delta", "response.refusal.delta"})
_THOUGHT = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})


class ResponsesWire:
    """Responses."""

    path = "/responses"

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: ModelRequest, *, stream: bool) -> bytes:
        """See :class:`agentkit.models.openai.client.Wire`."""
        return encode_request(request, self._dialect, stream=stream)

    def decode(self, body: Mapping[str, Any], request: ModelRequest) -> ModelReply:
        """See :class:`agentkit.models.openai.client.Wire`."""
        return decode_response(body, self._dialect, request.stop)

    def check_settings(self, request: ModelRequest) -> None:
        """See :class:`agentkit.models.openai.client.Wire`."""
        encoded_settings(request, self._dialect)

    def draft(self, request: ModelRequest) -> ResponseDraft:
        """See :class:`agentkit.models.openai.client.Wire`."""
        return ResponseDraft(self._dialect, request.stop)

    def error_in(self, found: object) -> Mapping[str, Any]:
        """See :class:`agentkit.models.openai.client.Wire`."""
        event = as_object(found)
        if event.get("type") == "error" and not as_object(event.get("error")):
            return {name: value for name, value in event.items() if name != "type"}
        return error_object(event) or error_object(event.get("response"))

    def usage_in(self, found: Mapping[str, Any]) -> Usage:
        """See :class:`agentkit.models.openai.client.Wire`."""
        return response_usage(as_object(found.get("response")) or found)


# --- the request -------------------------------------------------------------------------------------------------


def encode_request(request: ModelRequest, dialect: Dialect, *, stream: bool) -> bytes:
    """The JSON body of ``request``. The wire knows no stop texts: the reply is cut instead.

    Raises:
        UsageError: the request holds something that JSON cannot express.
    """
    body: dict[str, Any] = {"model": dialect.model, "store": False}
    if request.instructions:
        body["instructions"] = request.instructions
    ids = CallIds(OPENAI_RESPONSES)
    said = apart(
        list(answerable(request.messages, dialect.issuer)), takes=lambda _: True, provider=dialect.provider
    )
    body["input"] = [item for message in said for item in _items(message, dialect, ids)]
    if not _DOES_NOT_REASON.search(dialect.model):
        body["include"] = ["reasoning.encrypted_content"]
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    if request.output_schema is not None:
        schema = {"name": "output", "schema": output_tool(request.output_schema).schema, "strict": False}
        body["text"] = {"format": {"type": "json_schema", **schema}}
    if dialect.has_cache_keys:
        body["prompt_cache_key"] = cache_key(request)
    body.update(encoded_settings(request, dialect))
    if stream:
        body["stream"] = True
    if "store" in dialect.more:
        del body["store"]
    return dump_json(merged(body, dialect.more)).encode()


def encoded_settings(request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    """Return the fields of a request that come from an agent's settings.

    Raises:
        UnsupportedSetting: the model, or the wire, has no place for one.
    """
    if request.seed is not None:
        raise unsupported(dialect.name, "seed")
    if request.reasoning_effort is not None and dialect.official and _DOES_NOT_REASON.search(dialect.model):
        raise unsupported(dialect.name, "reasoning_effort")
    effort, choice = request.reasoning_effort, request.tool_choice if request.tools else None
    found: dict[str, Any] = {
        "max_output_tokens": request.max_tokens,
        **sampling(request, dialect.name, taken=dialect.takes_sampling),
        "reasoning": None if effort is None else {"effort": effort},
        "tool_choice": choice,
    }
    if choice is not None and choice not in TOOL_CHOICES:
        found["tool_choice"] = {"type": "function", "name": safe_name(choice)}
    return {name: value for name, value in found.items() if value is not None}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    # strict is the default here, and takes only closed schemas
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", **function, "strict": False}


def _items(message: Message, dialect: Dialect, ids: CallIds) -> Iterator[dict[str, Any]]:
    match message:
        case UserMessage(text=text, attachments=()):
            yield {"role": "user", "content": text}
        case UserMessage(text=text, attachments=attachments):
            shown = [_attachment(each) for each in attachments]
            yield {"role": "user", "content": [*shown, {"type": "input_text", "text": text}]}
        case ToolMessage(call_id=call_id, content=content, is_error=is_error, attachments=attachments):
            output: Any = f"Error: {content}" if is_error else content
            if attachments:
                output = [{"type": "input_text", "text": output}, *map(_attachment, attachments)]
            yield {"type": "function_call_output", "call_id": ids.of(call_id), "output": output}
        case AssistantMessage(parts=parts):
            yield from _said(parts, dialect, ids)


def _attachment(attachment: Attachment) -> dict[str, Any]:
    words = as_plain_text(attachment)
    if words is not None:
        return {"type": "input_text", "text": words}
    if attachment.is_image:
        return {"type": "input_image", "image_url": attachment.url or as_data_url(attachment)}
    if attachment.url is not None:
        return {"type": "input_file", "file_url": attachment.url}
    name = attachment.name or "document"
    return {"type": "input_file", "filename": name, "file_data": as_data_url(attachment)}


def _said(parts: Sequence[Part], dialect: Dialect, ids: CallIds) -> Iterator[dict[str, Any]]:
    thoughts: list[dict[str, Any]] = []  # one that nothing follows is refused
    for part in parts:
        if isinstance(part, Reasoning):
            thoughts.extend(_thoughts(own(part, dialect.issuer)))
            continue
        if isinstance(part, Source):
            continue
        if isinstance(part, Attachment):
            thoughts = []  # those before an image belong to it, and it does not go back
            continue
        yield from thoughts
        thoughts = []
        if isinstance(part, Opaque):
            if item := as_object(own(part, dialect.issuer).get(_ITEM)):
                yield dict(item)
        elif isinstance(part, ToolCall):
            arguments = dump_json(sent_arguments(part))
            call = {"call_id": ids.of(part.id), "name": safe_name(part.name), "arguments": arguments}
            yield {"type": "function_call", **call}
        elif part.text:
            phase = own(part, dialect.issuer).get(_PHASE)
            yield {"role": "assistant", "content": part.text, **({"phase": phase} if phase else {})}


def _thoughts(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Reasoning as it goes back: whole in itself, and without the id of something that the server has not stored."""
    item = as_object(data.get(_ITEM))
    if item.get("encrypted_content") or item.get("content"):
        yield {name: value for name, value in item.items() if name not in {"id", "status"}}


# --- the reply ---------------------------------------------------------------------------------------------------


def decode_response(body: Mapping[str, Any], dialect: Dialect, stops: Sequence[str] = ()) -> ModelReply:
    """The reply in a whole response, cut at the first of ``stops``.

    Raises:
        ModelBadResponse: it is none, or not finished.
    """
    output = as_list(body.get("output"))
    status, model = as_text(body.get("status")), model_name(body, dialect)
    if output and "status" not in body:
        status = "completed"  # servers that speak the wire leave it out
    has_output = isinstance(body.get("output"), list) or status == "incomplete"
    if not has_output or status not in {"completed", "incomplete"}:
        raise ModelBadResponse(f"{dialect.name} answered without a finished response")
    cutter = Cutter(stops)
    parts = [part for item in map(as_object, output) for part in _parts(item, cutter, dialect)]
    if held := cutter.close():
        parts = _with_tail(parts, held)
    refusal = "".join(as_text(content.get("refusal")) for content in _contents(output))
    calls = any(isinstance(part, ToolCall) for part in parts)
    reason = _stop_reason(body, model, refused=bool(refusal), calls=calls)
    return ModelReply(
        parts=_unique(parts),
        stop_reason=reason,
        usage=response_usage(body),
        model=model,
        declined_because=mend(refusal) if reason in DECLINED else "",
    )


def _parts(item: Mapping[str, Any], cutter: Cutter, dialect: Dialect) -> Iterator[Part]:
    if cutter.done:
        return
    match item.get("type"):
        case "message":
            contents = [as_object(each) for each in as_list(item.get("content"))]
            texts = [as_text(each.get("text")) or as_text(each.get("refusal")) for each in contents]
            texts.append(as_text(item.get("content")))  # some servers send a text in place of the list
            if text := mend("".join(cutter.feed(each) for each in texts)):
                yield Text(text=text, data=issued(dialect.issuer, **{_PHASE: as_text(item.get("phase"))}))
            yield from sources(each for said in contents for each in as_list(said.get("annotations")))
        case "reasoning":
            yield Reasoning(text=_thought(item), data=issued(dialect.issuer, **{_ITEM: mended(dict(item))}))
        case "function_call":
            draft = CallDraft(
                id=mend(as_text(item.get("call_id"))),
                name=as_text(item.get("name")),
                arguments=arguments_of(item),
            )
            yield from () if draft.is_empty else tool_calls([draft])
        case "image_generation_call" if item.get("result"):
            kind = as_text(item.get("output_format")) or "png"
            yield from media([(f"image/{kind}", decoded(as_text(item.get("result"))))])
        case str(kind) if kind in _TO_BE_ANSWERED:
            raise ModelBadRequest(_NOT_ANSWERED.format(model=dialect.name, kind=kind))
        case str():  # a tool of the provider's own has been at work
            yield from opaque(issued(dialect.issuer, **{_ITEM: mended(dict(item))}))
        case _:
            pass


def _with_tail(parts: Sequence[Part], held: str) -> list[Part]:
    """What the cutter held back belongs to the last text."""
    for place in range(len(parts) - 1, -1, -1):
        part = parts[place]
        if isinstance(part, Text):
            return [*parts[:place], Text(text=part.text + held, data=part.data), *parts[place + 1 :]]
    return [*parts, Text(text=held)]


def _unique(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Calls of one id are told apart, as :func:`tool_calls` does within a list."""
    taken: set[str] = set()
    found: list[Part] = []
    for part in parts:
        if isinstance(part, ToolCall) and part.id in taken:
            part = replace(part, id=f"{part.id}_{len(taken)}")  # noqa: PLW2901
        if isinstance(part, ToolCall):
            taken.add(part.id)
        found.append(part)
    return tuple(found)


def _thought(item: Mapping[str, Any]) -> str:
    pieces = as_list(item.get("summary")) or as_list(item.get("content"))
    return mend("\n\n".join(as_text(as_object(piece).get("text")) for piece in pieces))


def _contents(output: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    for item in map(as_object, output):
        yield from map(as_object, as_list(item.get("content")))


def _stop_reason(body: Mapping[str, Any], model: str, *, refused: bool, calls: bool) -> StopReason:
    if body.get("status") == "incomplete":
        ending = ending_of(as_object(body.get("incomplete_details")).get("reason"))
        if ending.end is Fault.BROKEN:
            raise ModelBadResponse(f"{model} broke off its reply ({ending.word})")
        known = ending.end in {StopReason.FILTERED, StopReason.REFUSED}
        return StopReason(ending.end) if known else StopReason.LENGTH
    if refused:
        return StopReason.REFUSED
    return StopReason.TOOL_CALLS if calls else StopReason.END


# --- streamed ----------------------------------------------------------------------------------------------------


class ResponseDraft:
    """A response that arrives in events."""

    def __init__(self, dialect: Dialect, stops: Sequence[str] = ()) -> None:
        self._dialect = dialect
        self._stops = stops
        self._cutter = Cutter(stops)
        self._halves = Halves()
        self._shown: list[str] = []
        self._items: dict[int, Any] = {}
        self._response: Mapping[str, Any] | None = None
        self._begun = False

    def feed(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        """What is new for somebody who watches."""
        kind = as_text(event.get("type"))
        self._begun = self._begun or kind.endswith(".delta") or kind == "response.output_item.added"
        if kind in _SPOKEN:
            yield from self._say(as_text(event.get("delta")))
        elif kind in _THOUGHT:
            if piece := mend(as_text(event.get("delta"))):
                yield ReasoningDelta(text=piece)
        elif kind == "response.reasoning_summary_part.added" and event.get("summary_index"):
            yield ReasoningDelta(text="\n\n")
        elif kind == "response.output_item.done":
            self._items[as_count(event.get("output_index"))] = event.get("item")
        elif kind in _LAST_EVENTS:
            response = as_object(event.get("response"))
            yield from self._end({"status": kind.partition(".")[2], **response})

    def said(self) -> Iterator[Part]:
        """Text, as far as it has been shown."""
        if self._shown:
            yield Text(text="".join(self._shown))

    @property
    def begun(self) -> bool:
        """Some of the response has arrived."""
        return self._begun

    @property
    def usage(self) -> Usage:
        """What was used, as the last event says."""
        return UNCOUNTED if self._response is None else response_usage(self._response)

    def finish(self, *, done: bool) -> ModelReply:
        """The whole reply, once the stream has ended.

        Raises:
            ModelBadResponse: it ended early, or its pieces are not those of its reply.
        """
        if self._response is None:
            raise ModelBadResponse(f"{self._dialect.name} stopped in the middle of its reply")
        reply = decode_response(self._response, self._dialect, self._stops)
        if reply.text != "".join(self._shown):
            raise ModelBadResponse(f"{self._dialect.name} sent pieces that are not those of its reply")
        return reply

    def _say(self, piece: str) -> Iterator[Delta]:
        if shown := self._cutter.feed(self._halves.feed(piece)):
            self._shown.append(shown)
            yield TextDelta(text=shown)

    def _end(self, response: Mapping[str, Any]) -> Iterator[Delta]:
        if not as_list(response.get("output")):
            items = [self._items[place] for place in sorted(self._items)]
            if not items and self._shown:  # a server that tells the text in pieces only
                items = [{"type": "message", "content": "".join(self._shown) + self._cutter.close()}]
            response = {**response, "output": items}
        self._response = response
        if response.get("status") not in {"completed", "incomplete"}:
            return
        text, shown = decode_response(response, self._dialect, self._stops).text, "".join(self._shown)
        if text.startswith(shown) and len(text) > len(shown):  # what was held back, or never streamed
            self._shown.append(text[len(shown) :])
            yield TextDelta(text=text[len(shown) :])
