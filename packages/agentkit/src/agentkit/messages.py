"""Messages between an agent, its model and its tools: frozen values without behaviour beyond sums and lookups.

The types follow what the wire formats of the providers have in common; nothing here belongs to one vendor.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from agentkit.errors import UsageError
from agentkit.money import add_usd

JsonValue: TypeAlias = "None | bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue]"
JsonObject: TypeAlias = "Mapping[str, JsonValue]"


class Effect(StrEnum):
    """What repeating a tool call would do; decides what happens to a call whose result was not recorded."""

    PURE = "pure"
    """Changes nothing: called again."""
    IDEMPOTENT = "idempotent"
    """Changes something, once for each idempotency key: called again with the same key."""
    UNSAFE = "unsafe"
    """Repeating it may do harm: recorded before it starts, and the policy is asked before it is called again."""


class StopReason(StrEnum):
    """Why the model stopped."""

    END = "end"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    """The reply was cut at the token limit."""
    REFUSED = "refused"
    """The model declined."""
    FILTERED = "filtered"
    """A filter of the provider withheld the reply, or the rest of it."""
    UNFINISHED = "unfinished"
    """The reply may not be whole: it ended for a reason that nobody knows."""
    PAUSED = "paused"
    """The provider works on tools of its own, and goes on when it is sent what it has said so far."""


DECLINED = frozenset({StopReason.REFUSED, StopReason.FILTERED})
"""There will be no answer to this."""


# --- parts of a message ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text, from a person or from the model.

    Attributes:
        text: the words.
        data: what the provider needs back with it, verbatim; see :class:`Opaque`.
    """

    text: str
    data: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """What a model says to itself.

    Attributes:
        text: the readable part, which may be empty.
        data: what the provider needs back verbatim (signatures, encrypted parts); see :class:`Opaque`.
    """

    text: str
    data: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A model's wish to have a tool called.

    Attributes:
        id: unique within the run, and as the model sent it; the loop replaces a missing, repeated or unprintable one
            before it is recorded.
        name: the tool's name.
        arguments: a JSON object.
        invalid: the raw text, where what the model sent was not a JSON object; ``arguments`` is then empty.
        data: what the provider needs back with it, verbatim; see :class:`Opaque`.
    """

    id: str
    name: str
    arguments: JsonObject = field(default_factory=dict[str, JsonValue])
    invalid: str | None = None
    data: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """An item of a reply that only its provider can read: a search that it made, code that it ran.

    It goes back in its place, to the endpoint and model that wrote it and to no other; to those the conversation is
    told without it. The same is true of the ``data`` of other parts.

    Attributes:
        data: the item in the words of its wire, and under ``issuer`` who wrote it.
    """

    data: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a reply refers to.

    Attributes:
        url: where it is; empty for a document that was handed in.
        title: what it is called; may be empty.
        quote: what of it is quoted; may be empty.
    """

    url: str
    title: str = ""
    quote: str = ""


ATTACHMENT_KEY = "$attachment"
"""The only key of the JSON object that stands for an attachment."""

MAX_ATTACHMENT_BYTES = 10 * 1024 * 1024
"""Of one attachment: providers take little more, and it is stored with the run."""
MAX_ATTACHMENT_URL = 2048
MAX_ATTACHMENT_NAME = 200

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")


class _AttachmentSerializer:
    """What pydantic looks for on a value that knows its own JSON form; made when it first looks."""

    def __get__(self, instance: object, owner: type[Attachment]) -> Any:
        return _attachment_serializer()


@cache
def _attachment_serializer() -> Any:
    from pydantic_core import SchemaSerializer, core_schema

    return SchemaSerializer(core_schema.any_schema(serialization=_attachment_serialization()))


def _attachment_serialization() -> Any:
    from pydantic_core import core_schema

    return core_schema.plain_serializer_function_ser_schema(Attachment.to_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An image, a document or a recording; exactly one of ``data`` and ``url`` is given.

    A person hands it in, a tool returns it, or a model makes it.

    Attributes:
        media_type: for example ``image/png`` or ``application/pdf``.
        data: what is in it.
        url: where the provider fetches it.
        name: what it is called, for the model; may be empty.
    """

    media_type: str
    data: bytes | None = None
    url: str | None = None
    name: str = ""

    __pydantic_serializer__ = _AttachmentSerializer()

    @property
    def is_image(self) -> bool:
        """It is looked at, not read."""
        return self.media_type.startswith("image/")

    @property
    def problem(self) -> str | None:
        """Why it cannot be one; names the field, and never holds what is in it."""
        if not _MEDIA_TYPE.fullmatch(self.media_type):
            return "needs a media_type, for example image/png or application/pdf"
        if (self.data is None) == (self.url is None):
            return "has either data or a url"
        if self.data is not None and not 0 < len(self.data) <= MAX_ATTACHMENT_BYTES:
            return f"holds {len(self.data)} bytes; from 1 to {MAX_ATTACHMENT_BYTES} are taken"
        if self.url is not None and not _is_url(self.url):
            return f"has a url that does not begin with https:// and a host, or is longer than {MAX_ATTACHMENT_URL}"
        if len(self.name) > MAX_ATTACHMENT_NAME or not self.name.isprintable():
            return f"has a name that is longer than {MAX_ATTACHMENT_NAME} or cannot be printed"
        return None

    def to_json(self) -> JsonObject:
        """Its JSON form: an object whose only key is ``$attachment``.

        Raises:
            UsageError: it cannot be one.
        """
        if (problem := self.problem) is not None:
            message = f"an attachment {problem}"
            raise UsageError(message)
        fields: dict[str, JsonValue] = {"media_type": self.media_type}
        if self.data is not None:
            fields["data"] = base64.b64encode(self.data).decode()
        if self.url is not None:
            fields["url"] = self.url
        if self.name:
            fields["name"] = self.name
        return {ATTACHMENT_KEY: fields}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Where a field of a pydantic model is an attachment, it has the same JSON form."""
        return {**handler(source), "serialization": _attachment_serialization()}


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_plain = len(url) <= MAX_ATTACHMENT_URL and url.isprintable() and " " not in url
    return is_plain and parts.scheme == "https" and bool(parts.hostname) and parts.username is None


Part: TypeAlias = Text | Reasoning | ToolCall | Opaque | Source | Attachment


# --- messages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """What a person (or the loop, when it corrects the model) says.

    Attributes:
        text: the words; where several things are handed in, each is named in its place.
        attachments: what is handed in beside them; told before the text.
    """

    text: str
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantMessage:
    """What the model said earlier, part by part, in its order.

    Attributes:
        parts: as they were recorded.
        model: ``provider:name`` of the model that wrote them, where that is known.
        is_paused: its provider has paused the turn, and goes on when it is sent what was said so far.
    """

    parts: tuple[Part, ...]
    model: str = field(default="", repr=False)  # no part of what is told
    is_paused: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolMessage:
    """The result of one tool call.

    Attributes:
        call_id: the ``id`` of the :class:`ToolCall` it answers.
        name: the tool's name.
        content: the output as the model shall read it: a text as it is, anything else as JSON.
        is_error: the call failed and ``content`` says why.
        attachments: what the tool returned to be looked at, in the order of its marks in ``content``.
    """

    call_id: str
    name: str
    content: str
    is_error: bool = False
    attachments: tuple[Attachment, ...] = ()


Message: TypeAlias = UserMessage | AssistantMessage | ToolMessage


# --- request and reply -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as a model and a policy see it.

    Attributes:
        name: letters, digits, ``_`` and ``-``; at most 64.
        description: what it does, for the model.
        parameters: JSON schema (draft 2020-12) of an object.
        effect: what repeating a call would do.
        timeout_seconds: after this long a call is given up; ``None`` leaves only the run's own deadline.
        approval: a person must approve each call.
        reaches_out: data can leave with a call: its arguments, or what it reads, reach others. ``None`` where that is
            not known; then an ``unsafe`` tool is taken for one.
        parallel: a call may run beside others of the same reply; else it runs alone, in the order of the calls.
    """

    name: str
    description: str
    parameters: JsonObject
    effect: Effect = Effect.UNSAFE
    timeout_seconds: float | None = None
    approval: bool = False
    reaches_out: bool | None = None
    parallel: bool = True

    @property
    def lets_data_leave(self) -> bool:
        """Whether data can leave with a call, as far as is known."""
        return self.effect is Effect.UNSAFE if self.reaches_out is None else self.reaches_out


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Everything a model is told for one reply.

    Attributes:
        instructions: the system text; empty for none.
        messages: the conversation, oldest first.
        tools: what the model may call; empty for none.
        output_schema: JSON schema that the final text must satisfy; ``None`` for free text.
        stop: the model stops before it writes any of these.
        max_tokens: upper bound of the reply, in tokens.
        temperature: randomness.
        top_p: only the likeliest tokens that are together as likely as this are drawn from.
        seed: for replies that can be had again, as far as the provider goes.
        reasoning_effort: how much the model thinks before it answers.
        tool_choice: ``auto``; ``required``, some tool must be called; ``none``; or the name of a tool that must be.
    """

    messages: tuple[Message, ...]
    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output_schema: JsonObject | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    tool_choice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a model call, or a run, has used.

    Attributes:
        input_tokens: tokens read, cached ones included.
        output_tokens: tokens written, reasoning included.
        cached_tokens: the part of ``input_tokens`` that the provider had cached.
        cache_write_tokens: the part of ``input_tokens`` that it cached now, where it bills that.
        reasoning_tokens: the part of ``output_tokens`` that was reasoning.
        cost_usd: in US dollars; ``None`` where nobody knows, which is not the same as zero.
        by_kind: what of it has a price of its own, counted by kind: tokens that are among the others
            (``input_audio_tokens``, ``output_audio_tokens``, ``output_image_tokens``, ``cache_write_1h_tokens``), and
            what is billed beside tokens (``web_searches``).
        partial: the provider did not count it all: the figures are too low, and no cost follows from them.
        context_tokens: tokens of the conversation, where the provider has read it several times for one reply, so that
            ``input_tokens`` counts it more than once; 0 where the two are the same, and in sums.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    cache_write_tokens: int = 0
    by_kind: Mapping[str, int] = field(default_factory=dict[str, int])
    partial: bool = False
    context_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost_usd=add_usd(self.cost_usd, other.cost_usd),
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            by_kind=_added(self.by_kind, other.by_kind),
            partial=self.partial or other.partial,
        )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    if not (one and other):
        return one or other
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in (*one, *(set(other) - set(one)))}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """One reply of a model.

    Attributes:
        parts: text, reasoning, tool calls, sources and what else there is, in the model's order.
        stop_reason: why it stopped.
        usage: what it cost.
        model: ``provider:name`` of the model that answered.
        problem: why the reply cannot be acted on, in words for the model: it made a mistake in form, or is not done.
        left_out: settings of the agent that the model was asked without, since it does not take them.
        declined_because: why there is no answer, in the provider's words; empty where it gives no reason.
    """

    parts: tuple[Part, ...]
    stop_reason: StopReason = StopReason.END
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    problem: str | None = None
    left_out: tuple[str, ...] = ()
    declined_because: str = ""

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in their order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Images and recordings that the model has made."""
        return tuple(part for part in self.parts if isinstance(part, Attachment))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """A piece of text as it is being written. Shown, never stored."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """A piece of reasoning as it is being written. Shown, never stored."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunAnew:
    """What was shown of this reply is void. Shown, never stored.

    The call failed on the way and is made once more, or what was shown as text turned out to be thinking.

    Attributes:
        model: ``provider:name`` of the model that is asked now.
    """

    model: str


Delta: TypeAlias = TextDelta | ReasoningDelta | BegunAnew
"""What is shown while a reply is written; from the last :class:`BegunAnew` on, the texts add up to the reply."""
