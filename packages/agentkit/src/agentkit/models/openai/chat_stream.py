"""Streamed Chat Completions, as pure state: bytes to server-sent events, events to deltas and the reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentkit.errors import ModelBadResponse
from agentkit.messages import Delta, ModelReply, Part, ReasoningDelta, Text, TextDelta, Usage
from agentkit.models.adapter.dialect import Dialect, model_name
from agentkit.models.adapter.finish_reasons import finished_reply
from agentkit.models.adapter.json import CallDraft, as_list, as_object, as_text, mend, tool_calls
from agentkit.models.adapter.reply_parts import of_chat
from agentkit.models.adapter.usage import UNCOUNTED
from agentkit.models.openai.chat import (
    KEPT_OF_A_CALL,
    KEPT_OF_A_MESSAGE,
    arguments_of,
    content_of,
    details_of,
    filtered_because,
    id_of,
    is_filtered,
    kept,
    kept_of_call,
    kept_of_message,
    prompt_refused,
    raw_calls,
    reasoning_of,
    reasoning_part,
    usage_of,
)

_GROWING = frozenset({"text", "summary", "data"})  # of the details of reasoning


@dataclass(slots=True)
class _Run:
    """Consecutive pieces of one kind."""

    is_thought: bool
    pieces: list[str] = field(default_factory=list[str])


class ReplyDraft:
    """A reply that arrives in pieces."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._runs: list[_Run] = []
        self._half = ""
        self._reasoning_field = ""
        self._details: list[dict[str, Any]] = []
        self._calls: list[CallDraft] = []
        self._kept: dict[str, Any] = {}
        self._found: dict[str, list[Any]] = {}
        self._around: dict[str, Any] = {}
        self._kept_of: dict[int, dict[str, Any]] = {}
        self._at: dict[int, CallDraft] = {}
        self._finish_reason: object = None
        self._refused = ""
        self._declined: object = None
        self._because = ""
        self._usage = UNCOUNTED
        self._model = f"{dialect.provider}:{dialect.model}"

    def feed(self, event: Mapping[str, Any]) -> Iterator[Delta]:
        """What is new for somebody who watches."""
        if event.get("model"):
            self._model = model_name(event, self._dialect)
        if is_filtered(event.get("prompt_filter_results")):
            self._declined = event.get("prompt_filter_results")
        for choice in map(as_object, as_list(event.get("choices"))):
            if choice.get("index") in (0, None):
                yield from self._read(as_object(choice.get("delta") or choice.get("message")))
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                self._because = self._because or filtered_because(choice.get("content_filter_results"))
        self._around.update(kept(event, ("citations", "search_results")))
        usage = usage_of(event, self._dialect)
        if usage is not UNCOUNTED:
            self._usage = usage

    @property
    def begun(self) -> bool:
        """Some of the reply has arrived."""
        return bool(self._runs or self._calls or self._details)

    @property
    def usage(self) -> Usage:
        """What was used, as far as the server has said it; before its last word it has not said all."""
        return self._usage if self._finish_reason else replace(self._usage, partial=True)

    def finish(self, *, done: bool) -> ModelReply:
        """The whole reply, once the stream has ended; ``done`` says that it said ``[DONE]``.

        Raises:
            ModelBadResponse: it ended early.
            ContentRefused: the provider's filter has declined the request.
        """
        if not self._finish_reason and not (done and (self._runs or self._calls)):
            if self._declined:
                raise prompt_refused(self._model, self._declined)
            raise ModelBadResponse(f"{self._model} stopped in the middle of its reply")
        calls = [call for call in self._calls if not call.is_empty]
        return finished_reply(
            [
                *self.said(),
                *tool_calls(map(self._whole, calls)),
                *of_chat(self._found, self._around),
                *kept_of_message(self._kept, self._dialect),
            ],
            finish_reason=self._finish_reason,
            refused=bool(self._refused),
            usage=self._usage,
            model=self._model,
            because=mend(self._refused) or self._because,
        )

    def _whole(self, call: CallDraft) -> CallDraft:
        return replace(call, data=kept_of_call(self._kept_of.get(id(call), {}), self._dialect))

    def said(self) -> Iterator[Part]:
        """Reasoning and text, as far as they have come."""
        name, details = self._reasoning_field, self._details
        if (details or (name and self._calls)) and not any(run.is_thought for run in self._runs):
            yield reasoning_part(self._dialect, name, "", details)
        for run in self._runs:
            text = "".join(run.pieces)
            if run.is_thought:
                yield reasoning_part(self._dialect, name, text, details)
                details = []
            else:
                yield Text(text=text)

    def _read(self, delta: Mapping[str, Any]) -> Iterator[Delta]:
        name, reasoning = reasoning_of(delta)
        self._reasoning_field = self._reasoning_field or name
        for detail in details_of(delta):
            self._read_detail(detail)
        yield from self._say(reasoning, is_thought=True)
        for is_thought, text in content_of(delta.get("content")):
            yield from self._say(text, is_thought=is_thought)
        if refusal := as_text(delta.get("refusal")):
            self._refused += refusal
            yield from self._say(refusal, is_thought=False)
        for raw in raw_calls(delta):
            self._read_call(raw)
        self._kept.update(kept(delta, KEPT_OF_A_MESSAGE))
        for name in ("annotations", "images", "citations"):
            self._found.setdefault(name, []).extend(as_list(delta.get(name)))

    def _read_detail(self, piece: Mapping[str, Any]) -> None:
        """Pieces of one detail follow each other with the same index and type."""
        last = self._details[-1] if self._details else {}
        if not last or any(last.get(name) != piece.get(name) for name in ("index", "type")):
            self._details.append(dict(piece))
            return
        for name, value in piece.items():
            if name in _GROWING and isinstance(value, str) and isinstance(last.get(name), str):
                last[name] += value
            elif value is not None:
                last[name] = value

    def _say(self, piece: str, *, is_thought: bool) -> Iterator[Delta]:
        if not piece:
            return
        piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1] <= "\udbff":  # servers that count in UTF-16 cut an emoji in two
            piece, self._half = piece[:-1], piece[-1]
        piece = mend(piece)
        self._append(piece, is_thought=is_thought)
        if piece:
            yield ReasoningDelta(text=piece) if is_thought else TextDelta(text=piece)

    def _append(self, piece: str, *, is_thought: bool) -> None:
        if not self._runs or self._runs[-1].is_thought != is_thought:
            self._runs.append(_Run(is_thought))
        self._runs[-1].pieces.append(piece)
        self._outdate()

    def _outdate(self) -> None:
        """Figures that were told before this piece do not count it."""
        if not self._usage.partial:
            self._usage = replace(self._usage, partial=True)

    def _read_call(self, raw: Mapping[str, Any]) -> None:
        function = as_object(raw.get("function"))
        call_id, name = id_of(raw), as_text(function.get("name"))
        call = self._continued(raw.get("index"), call_id, name)
        if call is None:
            call = CallDraft(id=call_id, name="", arguments="")
            self._calls.append(call)
        if isinstance(index := raw.get("index"), int):
            self._at[index] = call
        call.id = call.id or call_id
        if name != call.name:  # some send the name in pieces, some whole with every piece
            call.name += name
        piece = arguments_of(function)
        call.arguments += piece
        call.pieces.append(piece)
        self._kept_of.setdefault(id(call), {}).update(kept(raw, KEPT_OF_A_CALL))
        self._outdate()

    def _continued(self, index: object, call_id: str, name: str) -> CallDraft | None:
        """The call that a piece belongs to; ``None`` where it begins one.

        The ``index`` decides. Some servers give every call the index 0, or none has one: then a new id with a name
        begins a call, and without an id a name does.
        """
        if isinstance(index, int):
            call = self._at.get(index)
            begins = call is not None and name and call_id and call.id and call_id != call.id
            return None if begins else call
        if call_id and (known := next((call for call in self._calls if call.id == call_id), None)):
            return known
        return None if name or not self._calls else self._calls[-1]
