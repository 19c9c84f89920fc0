"""JSON of all wires: strict in both directions; and tool calls as they arrive, before they are checked."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agentkit.errors import ModelBadRequest, UsageError
from agentkit.messages import Attachment, JsonObject, ToolCall

_BAD_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def dump_json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the request holds what JSON cannot express ({type(error).__name__})") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise TypeError(type(value).__name__)


def load_json(text: str | bytes) -> Any:
    """Strict JSON: no NaN or Infinity, which could not be stored.

    Raises:
        ValueError: it is not JSON. A ``JSONDecodeError`` holds the whole text: do not chain it.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # json.loads would make one for each event


def as_object(value: object) -> Mapping[str, Any]:
    """``value`` where it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> Sequence[Any]:
    """``value`` where it is a JSON array, else an empty one."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def as_text(value: object) -> str:
    """``value`` where it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def mend(text: str) -> str:
    """``text`` without halves of surrogate pairs, which no UTF-8 can hold: pairs are joined, lone halves replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any) -> Any:
    """A JSON value with every text in it mended: what is kept for the provider must be fit to be stored."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, dict):
        return {mend(name): mended(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [mended(each) for each in as_list(cast("object", value))]
    return value


class Halves:
    """Joins pairs of surrogates that were cut in two, as servers do that count in UTF-16."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """The piece without the half of a pair at its end, which is kept for the next one."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return mend(piece)

    def close(self) -> str:
        """What stands for a half that nothing followed."""
        half, self._half = self._half, ""
        return mend(half)


def as_amount(value: object) -> float | None:
    """A number that may be one: not below zero, finite, and not so large that arithmetic goes wrong."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < 2**53 else None


def as_count(value: object) -> int:
    return int(as_amount(value) or 0)


# --- tool calls --------------------------------------------------------------------------------------------------


def safe_name(name: str) -> str:
    """A name that no provider refuses: one that the model made up must not spoil all later requests."""
    return _BAD_IN_A_NAME.sub("_", name)[:64] or "unnamed"


def sent_arguments(call: ToolCall) -> JsonObject:
    """The arguments of a past call: servers parse them, so even bad ones are sent as an object."""
    return call.arguments if call.invalid is None else {"invalid_json": call.invalid}


@dataclass(slots=True, kw_only=True)
class CallDraft:
    """A tool call as it came, before it is checked.

    Attributes:
        id: empty where it has none.
        name: of the tool.
        arguments: as text, which should be JSON.
        pieces: that the arguments came in, where it was more than one.
    """

    id: str
    name: str
    arguments: str
    pieces: list[str] = field(default_factory=list[str])
    data: JsonObject | None = None

    @property
    def is_empty(self) -> bool:
        """It names nothing and holds nothing: some servers fill every field of a message."""
        return not self.name and self.arguments.strip() in {"", "{}"}


def tool_calls(drafts: Iterable[CallDraft]) -> Iterator[ToolCall]:
    """The calls, with ids that are unique in the reply.

    A call without a name is the model's mistake: it calls no tool that there is, and the run tells it so.
    """
    taken: set[str] = set()
    for draft in drafts:
        call_id = draft.id if draft.id and draft.id not in taken else f"call_{uuid.uuid4().hex}"
        taken.add(call_id)
        arguments = _arguments(draft.arguments)
        if arguments is None:
            arguments = _sent_again(draft)
        if arguments is None:
            invalid = mend(draft.arguments)
            yield ToolCall(id=call_id, name=mend(draft.name), invalid=invalid, data=draft.data)
        else:
            yield ToolCall(id=call_id, name=mend(draft.name), arguments=arguments, data=draft.data)


def _sent_again(draft: CallDraft) -> JsonObject | None:
    """The arguments of a server that sends them whole once more, or all so far with each piece."""
    pieces = [piece for piece in draft.pieces if piece]
    if len(pieces) > 1 and all(map(str.startswith, pieces[1:], pieces)):
        return _arguments(pieces[-1])
    text, found, at = draft.arguments.strip(), list[Any](), 0
    try:
        while at < len(text):
            value, at = _DECODER.raw_decode(text, at)
            found.append(value)
            at += len(text[at:]) - len(text[at:].lstrip())
    except (ValueError, RecursionError):
        return None
    same = len(found) > 1 and all(value == found[0] for value in found)
    return _arguments(json.dumps(found[0])) if same else None


def _arguments(raw: str) -> JsonObject | None:
    """The arguments; ``None`` where they are no JSON object. No text at all is how some models say "none"."""
    if not raw.strip():
        return {}
    try:
        found = load_json(mend(raw))
        if isinstance(found, str):  # some servers encode them twice
            found = load_json(found)
        if "\\u" in raw:  # an escape may hide half a surrogate pair, which could not be stored
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return cast("JsonObject", found) if isinstance(found, dict) else None


# --- attachments -------------------------------------------------------------------------------------------------


def as_data_url(attachment: Attachment) -> str:
    """What is in it, as a ``data:`` address."""
    return f"data:{attachment.media_type};base64,{base64.b64encode(attachment.data or b'').decode()}"


def as_plain_text(attachment: Attachment) -> str | None:
    """The words of a document that is plain text; ``None`` of another."""
    if attachment.data is None or not attachment.media_type.startswith("text/"):
        return None
    return f"{attachment.name or 'document'}:\n{attachment.data.decode(errors='replace')}"


def not_taken(model: str, attachment: Attachment) -> ModelBadRequest:
    """The error for an attachment that the provider's wire has no place for."""
    how = "by address" if attachment.data is None else "as data"
    return ModelBadRequest(f"{model}: attachments of type {attachment.media_type} are not taken {how}")
