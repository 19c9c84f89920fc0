"""Model turn: one request under a deadline, and its reply as the step that is recorded."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from agentkit.budget.account import Account
from agentkit.budget.prices import Prices
from agentkit.budget.reservations import ReservationInput, reservation
from agentkit.budget.token_estimates import Sizes
from agentkit.errors import (
    AgentkitError,
    BadArguments,
    ContextTooLong,
    JournalError,
    ModelAuthError,
    RunError,
    TranscriptError,
)
from agentkit.messages import (
    DECLINED,
    ModelReply,
    ModelRequest,
    Part,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agentkit.models.resilience.model import CallFailed, OutOfTime, ResilientModel
from agentkit.models.resilience.retry import Again, GiveUp, Next, NextModel
from agentkit.models.settings import ModelSettings
from agentkit.planning import Brief, Planning, Reading
from agentkit.planning.thinking_tags import split_thinking
from agentkit.ports import OnDelta
from agentkit.run.compaction import Gauge, Shorten, summary_request, without_outputs
from agentkit.run.fingerprints import Requests
from agentkit.run.tool_call import place_of
from agentkit.schema import OutputSchema
from agentkit.transcript.codec import to_json_text
from agentkit.transcript.steps import ModelFailed, ModelReplied, Recorded, Step, Summarised, Transcript
from agentkit.transcript.usage import RunningUsage

log = logging.getLogger("agentkit")


@dataclass(frozen=True, slots=True)
class TimeUp:
    """The run's deadline passed before the reply was there."""


@dataclass(frozen=True, slots=True)
class NoReply:
    """There is no reply.

    Attributes:
        error: why.
        final: the same transcript would fail again, so that this is a fact of the run.
    """

    error: RunError
    final: bool = False


Answer: TypeAlias = ModelReplied | Summarised | TimeUp | NoReply


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What the model is asked for: the next reply in a run.

    Attributes:
        transcript: all steps so far; those that are recorded meanwhile are in it, too.
        tally: its sums.
        account: what the run may still use.
        seconds_left: until the run must end; ``None`` for never.
        record: appends a step to the journal.
        on_delta: shown the reply as it is written; without it the model is not asked to stream.
        look: raises where the run was told to stop; asked before each call.
    """

    transcript: Transcript
    tally: RunningUsage
    account: Account
    seconds_left: Callable[[], float | None]
    record: Callable[[Step], Awaitable[Recorded]]
    on_delta: OnDelta | None
    look: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTurn:
    """Asks the model of one run. It keeps nothing: what it is told is in the transcript.

    Attributes:
        model: open.
        planning: how the transcript becomes a request and a reply a wish.
        brief: instructions, tools and output schema for the model.
        output: the type of the output, which a reply without calls must fit.
        prices: what models cost.
        settings: how it is to answer.
        requests: their fingerprints.
        sizes: of their messages.
    """

    model: ResilientModel
    planning: Planning
    brief: Brief
    output: OutputSchema[Any]
    prices: Prices
    settings: ModelSettings = ModelSettings()
    requests: Requests = field(default_factory=Requests)
    sizes: Sizes = field(default_factory=Sizes)

    async def ask(self, wanted: TurnRequest) -> Answer:
        """The model's next reply, as it is to be recorded. Calls that fail on the way to it are recorded here.

        Raises:
            JournalError: a step could not be recorded.
        """
        began = time.monotonic()
        asked = self.planning.request(wanted.transcript, self.brief)
        request = self.settings.of(asked, has_called=bool(wanted.tally.tool_calls))
        shown = None
        if wanted.on_delta is not None:
            shown = self.planning.watch(wanted.on_delta, self.model.name)
        digest = self.requests.fingerprint(request)
        reply = await self._reply(request, wanted, shown)
        if not isinstance(reply, ModelReply):
            return reply
        if shown is not None:
            shown.close()
        place = _Place(len(wanted.transcript), wanted.tally.call_ids)
        return self._read(reply, place, time.monotonic() - began, digest)

    async def shorten(self, wanted: TurnRequest, owed: Shorten) -> Answer:
        """How the conversation is told in short, as it is to be recorded.

        Where the model will not or cannot write a summary, outputs of tools are left out.

        Args:
            wanted: what a reply is wanted for.
            owed: what is to be told in short.
        """
        if owed.by == "drop_tool_results":
            return Summarised(upto=owed.upto, by=owed.by)
        began = time.monotonic()
        reply = await self._reply(summary_request(wanted.transcript, owed), wanted, None)
        if isinstance(reply, TimeUp) or (isinstance(reply, NoReply) and not reply.final):
            return reply
        if isinstance(reply, ModelReply):
            paid = Summarised(
                upto=owed.upto,
                text=_whole(split_thinking(reply.parts).text.strip()),
                usage=reply.usage,
                model=reply.model or self.model.name,
                seconds=round(time.monotonic() - began, 6),
            )
            if paid.text and reply.stop_reason not in DECLINED:
                return paid
        else:
            paid = Summarised(upto=owed.upto)
        least = without_outputs(Gauge.of(self.brief, wanted.transcript))
        if least is not None:
            return replace(paid, upto=least.upto, by=least.by, text="")
        why = "the conversation does not fit the model's context, and the model wrote no summary of it"
        return NoReply(ContextTooLong(why).as_run_error(), final=True)

    async def _reply(
        self, request: ModelRequest, wanted: TurnRequest, on_delta: OnDelta | None
    ) -> ModelReply | TimeUp | NoReply:
        calls = _Calls(wanted, self.prices, self.sizes)
        try:
            reply = await self.model.answer(request, on_delta, calls)
        except OutOfTime:
            return TimeUp()
        except (JournalError, TranscriptError):
            raise
        except AgentkitError as error:
            return NoReply(error.as_run_error(), final=is_the_runs_own(error))
        usage = self._billed(reply.usage, *_names(reply.model, calls.model))
        return reply if usage is reply.usage else replace(reply, usage=usage)

    def _billed(self, usage: Usage, *models: str) -> Usage:
        """A price of the developer's own that cannot be computed is an unknown one."""
        try:
            return self.prices.billed(usage, *models)
        except Exception as error:  # noqa: BLE001
            log.error("the cost of a call is not known: %s at %s", type(error).__name__, place_of(error))
            return usage

    def _read(self, reply: ModelReply, place: _Place, seconds: float, digest: str) -> ModelReplied:
        reading = self._reading(reply)
        declined = reply.stop_reason in DECLINED
        said = [part for part in reading.parts if not (declined and isinstance(part, ToolCall))]
        parts = _with_unique_ids([_storable(part) for part in said], place)
        unjudged = declined or reply.stop_reason is StopReason.PAUSED
        problem = None if unjudged else self._problem_with(reading)
        return ModelReplied(
            parts=parts,
            stop_reason=reply.stop_reason,
            usage=reply.usage,
            model=reply.model,
            seconds=round(seconds, 6),
            problem=problem,
            request=digest,
            left_out=list(reply.left_out),
            declined_because=reply.declined_because[:_MAX_OF_A_REASON],
        )

    def _reading(self, reply: ModelReply) -> Reading:
        """A reply was paid for: a fault in reading it must not keep it out of the journal."""
        try:
            return self.planning.read(reply, self.brief)
        except Exception as error:  # noqa: BLE001
            log.error("a reply cannot be read: %s at %s", type(error).__name__, place_of(error))
            said = tuple(part for part in reply.parts if isinstance(part, Text))
            return Reading(parts=said, problem="Your reply could not be read.")

    def _problem_with(self, reading: Reading) -> str | None:
        if reading.problem is not None or any(isinstance(part, ToolCall) for part in reading.parts):
            return reading.problem
        try:
            self.output.from_text("".join(part.text for part in reading.parts if isinstance(part, Text)))
        except BadArguments as error:
            if error.__cause__ is not None:
                log.warning("%s, at %s", error, place_of(error.__cause__))
            return str(error)
        return None


class _Calls:
    """Stands before each call of a turn: reserves what it may cost, and records how those went that failed."""

    def __init__(self, wanted: TurnRequest, prices: Prices, sizes: Sizes) -> None:
        self._wanted = wanted
        self._prices = prices
        self._sizes = sizes
        self._reserved = False
        self.failures = wanted.tally.failures
        self.model = ""

    def seconds_left(self) -> float | None:
        return self._wanted.seconds_left()

    async def calling(self, model: str, request: ModelRequest) -> ModelRequest:
        self.model = model
        wanted = self._wanted
        self._look()
        if not wanted.account.reserves_money:
            return request
        while True:  # another run may have reserved what was left
            left = wanted.account.nanos_left()
            last_call = wanted.tally.last_call
            means = ReservationInput(prices=self._prices, left=left, last_call=last_call, sizes=self._sizes)
            asked = reservation(model, request, means)
            with wanted.account.holding(asked) as fits:
                if fits:
                    await wanted.record(asked)
                    self._reserved = True
                    break
        try:
            self._look()
        except OutOfTime:
            await wanted.record(replace(asked, withdrawn=True))
            raise
        return replace(request, max_tokens=asked.max_tokens)

    def _look(self) -> None:
        """The last look before a call: a model or a provider's client may have swallowed what was to end its call."""
        self._wanted.look()
        left = self.seconds_left()
        if left is not None and left <= 0:
            raise OutOfTime

    async def failed(self, call: CallFailed) -> None:
        reserved, self._reserved = self._reserved, False
        ends_the_run = isinstance(call.next, GiveUp) and is_the_runs_own(call.error)
        # else nothing was sent; or the end of the run, which tells the same, is recorded next
        if call.made and (reserved or call.billed != (0, 0) or not ends_the_run):
            await self._wanted.record(
                ModelFailed(
                    model=call.model,
                    error=call.error.as_run_error(),
                    usage=self._usage(call),
                    seconds=round(call.seconds, 6),
                    again_after=_again_after(call.next),
                )
            )
        self._wanted.look()  # and do not wait for another try

    def _usage(self, call: CallFailed) -> Usage | None:
        if call.billed is None:
            return None
        read, written = call.billed
        told = None if (read, written) == (0, 0) else call.error.billed_usd
        used = Usage(input_tokens=read, output_tokens=written, cost_usd=told)
        return self._prices.billed(used, call.model)


def _again_after(following: Next) -> float | None:
    match following:
        case Again(seconds):
            return round(seconds, 3)
        case NextModel():
            return 0.0
        case GiveUp():
            return None


def _names(*models: str) -> list[str]:
    return [model for model in models if model]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a run a reply is recorded: behind so many steps, with these calls in them."""

    seq: int
    known_ids: Collection[str]


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
            case _:
                pass
    except UnicodeEncodeError:
        return replace(cast("Text", part), text=_whole(cast("Text", part).text))
    except TranscriptError:
        call = cast("ToolCall", part)
        invalid = _whole(call.invalid or repr(call.arguments))
        return replace(call, name=_whole(call.name), arguments={}, invalid=invalid)
    return part


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()


def _with_unique_ids(parts: Sequence[Part], place: _Place) -> tuple[Part, ...]:
    """Give calls without an id, or with one that was used before or cannot be stored, an id of our own.

    Every other id stays as it came: some models read their own ids, and some providers take back no others.
    """
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


_MAX_OF_A_REASON = 500
MAX_OF_AN_ID = 4096
"""Characters; some gateways put what they need back into the ids of calls."""


def _is_usable(call_id: str) -> bool:
    """Whether an id can be stored, shown and told apart; what a provider takes back is known to its adapter."""
    return 0 < len(call_id) <= MAX_OF_AN_ID and call_id.isprintable() and call_id == call_id.strip()
