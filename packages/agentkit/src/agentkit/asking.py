"""One turn of the model: ask it under a deadline, and read its reply into the step that is recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from agentkit.codec import to_json_text
from agentkit.compaction import Gauge, Shorten, summary_request, without_outputs
from agentkit.errors import (
    AgentkitError,
    BadArguments,
    ContextTooLong,
    ModelAuthError,
    ModelUnreachable,
    RunError,
    TranscriptError,
)
from agentkit.messages import DECLINED, ModelReply, ModelRequest, Part, Reasoning, Text, ToolCall
from agentkit.planning import Brief, Planning, Reading
from agentkit.ports import Model, OnDelta
from agentkit.schema import OutputSchema
from agentkit.transcript import ModelReplied, Summarised, Transcript


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The run's deadline passed before the reply was there."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """There is no reply.

    Attributes:
        error: why.
        final: the same transcript would fail again, so that this is a fact of the run.
    """

    error: RunError
    final: bool = False


Answer: TypeAlias = ModelReplied | Summarised | TimeUp | Unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks the model of one run. It keeps nothing: what it is told is in the transcript.

    Attributes:
        model: opened.
        planning: how the transcript becomes a request and a reply a wish.
        brief: instructions, tools and output schema for the model.
        output: the type of the output, which a reply without calls must fit.
    """

    model: Model
    planning: Planning
    brief: Brief
    output: OutputSchema[Any]

    async def ask(
        self,
        transcript: Transcript,
        *,
        known_ids: Collection[str],
        seconds: float | None,
        on_delta: OnDelta | None,
    ) -> Answer:
        """The model's next reply, as it is to be recorded.

        Args:
            transcript: all steps so far.
            known_ids: of all calls so far; those of the reply are made different.
            seconds: after so many the turn is given up; ``None`` for never.
            on_delta: shown the reply as it is written; without it the model is not asked to stream.
        """
        began = time.monotonic()
        request = self.planning.request(transcript, self.brief)
        reply = await self._reply(request, seconds, on_delta)
        if not isinstance(reply, ModelReply):
            return reply
        return self._read(reply, _Place(len(transcript), known_ids), time.monotonic() - began)

    async def shorten(self, transcript: Transcript, owed: Shorten, seconds: float | None) -> Answer:
        """How the conversation is told in short, as it is to be recorded.

        Where the model will not or cannot write a summary, outputs of tools are left out.

        Args:
            transcript: all steps so far.
            owed: what is to be told in short.
            seconds: after so many the attempt is given up; ``None`` for never.
        """
        if owed.by == "drop_tool_results":
            return Summarised(upto=owed.upto, by=owed.by)
        began = time.monotonic()
        reply = await self._reply(summary_request(transcript, owed), seconds, None)
        if isinstance(reply, TimeUp) or (isinstance(reply, Unanswered) and not reply.final):
            return reply
        if isinstance(reply, ModelReply):
            paid = Summarised(
                upto=owed.upto,
                text=_whole(reply.text.strip()),
                usage=reply.usage,
                model=reply.model or self.model.name,
                seconds=round(time.monotonic() - began, 6),
            )
            if paid.text and reply.stop_reason not in DECLINED:
                return paid
        else:
            paid = Summarised(upto=owed.upto)
        least = without_outputs(Gauge.of(self.brief, transcript))
        if least is not None:
            return replace(paid, upto=least.upto, by=least.by, text="")
        why = "the conversation does not fit the model's context, and the model wrote no summary of it"
        return Unanswered(ContextTooLong(why).as_run_error(), final=True)

    async def _reply(
        self, request: ModelRequest, seconds: float | None, on_delta: OnDelta | None
    ) -> ModelReply | TimeUp | Unanswered:
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await self.model.reply(request, on_delta)
        except TimeoutError:
            if not deadline.expired():
                raise
            return TimeUp()
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            lost = ModelUnreachable("the model's connection was cancelled from within")
            return Unanswered(lost.as_run_error())
        except AgentkitError as error:
            return Unanswered(error.as_run_error(), final=is_the_runs_own(error))

    def _read(self, reply: ModelReply, place: _Place, seconds: float) -> ModelReplied:
        reading = self.planning.read(reply, self.brief)
        declined = reply.stop_reason in DECLINED
        said = [part for part in reading.parts if not (declined and isinstance(part, ToolCall))]
        parts = _with_unique_ids([_storable(part) for part in said], place)
        problem = None if declined else self._problem_with(reading)
        return ModelReplied(
            parts=parts,
            stop_reason=reply.stop_reason,
            usage=reply.usage,
            model=reply.model,
            seconds=round(seconds, 6),
            problem=problem,
        )

    def _problem_with(self, reading: Reading) -> str | None:
        said = ModelReplied(parts=reading.parts)
        if reading.problem is not None or said.tool_calls:
            return reading.problem
        try:
            self.output.from_text(said.text)
        except BadArguments as error:
            return str(error)
        return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a run a reply is recorded: behind so many steps, with these calls in them."""

    seq: int
    known_ids: Collection[str]


def _is_being_cancelled() -> bool:
    """Whether a CancelledError is meant for us; some libraries let one escape when a connection of theirs dies."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_the_runs_own(error: AgentkitError) -> bool:
    """Whether carrying on the same transcript must fail again: then the failure is a fact of the run."""
    return not (error.transient or isinstance(error, ModelAuthError))


def _storable(part: Part) -> Part:
    """Providers may send halves of surrogate pairs, which no text may hold: they become replacement characters."""
    try:
        match part:
            case Text(text=text) | Reasoning(text=text):
                text.encode()
            case ToolCall():
                to_json_text([part.name, part.arguments, part.invalid])
    except UnicodeEncodeError:
        return replace(cast("Text", part), text=_whole(cast("Text", part).text))
    except TranscriptError:
        call = cast("ToolCall", part)
        return ToolCall(
            id=call.id, name=_whole(call.name), invalid=_whole(call.invalid or repr(call.arguments))
        )
    return part


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()


def _with_unique_ids(parts: Sequence[Part], place: _Place) -> tuple[Part, ...]:
    """Give calls without an id, or with one that was used before, an id of our own."""
    taken: set[str] = set()
    unique: list[Part] = []
    for index, part in enumerate(parts):
        if not isinstance(part, ToolCall):
            unique.append(part)
            continue
        call_id = part.id
        if call_id in taken or call_id in place.known_ids or not _is_usable(call_id):
            call_id = f"call_{place.seq}_{index}"
            while call_id in taken or call_id in place.known_ids:
                call_id += "_"
        taken.add(call_id)
        unique.append(part if call_id == part.id else replace(part, id=call_id))
    return tuple(unique)


def _is_usable(call_id: str) -> bool:
    return 0 < len(call_id) <= 64 and call_id.isascii() and call_id.replace("-", "_").isidentifier()
