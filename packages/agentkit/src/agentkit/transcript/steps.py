"""Steps of a run, and pure folds over them.

The transcript is the whole state of a run. Everything the loop needs is computed from it, so any process that
has the list can resume the run. The stored form is in :mod:`agentkit.transcript.codec`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from agentkit.errors import RunError
from agentkit.messages import (
    Attachment,
    JsonObject,
    JsonValue,
    Part,
    Source,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agentkit.recorded_text import MAX_CHARACTERS, recordable

MAX_NOTE = 1_000_000
"""Maximum length of a note."""


def _hold_recordable(step: object, *names: str, most: int = MAX_CHARACTERS) -> None:
    """Make fields of a frozen value hold text that can be recorded, wherever it comes from."""
    for name in names:
        text = getattr(step, name)
        if len(text) > most or not text.isascii():
            object.__setattr__(step, name, recordable(text, most))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The first step of every run.

    Attributes:
        run_id: part of every idempotency key.
        agent: name of the agent.
        input: what the run is to work on.
        earlier: so many earlier turns of its conversation are shown to the model; the run refers to them by number
            and digest, so that a conversation is stored once however many runs follow each other in it.
        earlier_digest: of these turns, see :func:`digest_of`.
        declared: what the run is made of, by digests of its parts: instructions, tools, policy, settings, versions;
            ``None`` where that is recorded with its first reply.
    """

    run_id: str
    agent: str
    input: JsonValue
    earlier: int = 0
    earlier_digest: str = ""
    declared: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReplied:
    """The model answered.

    Attributes:
        parts: as in :class:`~agentkit.messages.ModelReply`; the ids of calls are unique within the run.
        stop_reason: why the model stopped.
        usage: what the call cost.
        model: ``provider:name``.
        seconds: how long it took.
        problem: why the reply cannot be acted on; shown to the model with the next request.
        request: digest of what the model was asked.
        declared: as in :class:`RunStarted`, where nothing was recorded of it before.
        left_out: settings of the agent that the model was asked without, since it does not take them.
        declined_because: why there is no answer, in the provider's words.
    """

    parts: tuple[Part, ...]
    stop_reason: StopReason = StopReason.END
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    seconds: float = 0.0
    problem: str | None = None
    request: str = ""
    declared: JsonObject | None = None
    left_out: list[str] = field(default_factory=list[str])
    declined_because: str = ""

    def __post_init__(self) -> None:
        _hold_recordable(self, "model", "declined_because", *(() if self.problem is None else ("problem",)))

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in their order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the reply refers to, in its order."""
        return tuple(part for part in self.parts if isinstance(part, Source))

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Images and recordings that the model has made."""
        return tuple(part for part in self.parts if isinstance(part, Attachment))

    @property
    def is_last_word(self) -> bool:
        """Nothing follows: it calls no tool, nothing is wrong with it, and the provider has not only paused."""
        return not self.tool_calls and self.problem is None and self.stop_reason is not StopReason.PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Whoever carries the run on has found that it is made of something else than before.

    Attributes:
        declared: what it is made of now, as in :class:`RunStarted`.
        changed: the parts that differ, for example ``tools.pay.schema``.
    """

    declared: JsonObject
    changed: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAsked:
    """A model is about to be called, and the call may cost so much; recorded where money is limited.

    What is reserved is given back by the reply or by the failure that follows. Of a call that has neither, because its
    worker was lost or the run was ended, nobody knows the cost: it counts with all that was reserved.

    Attributes:
        model: ``provider:name``.
        reserved_usd: the most that it can cost.
        input_bound: tokens that the request cannot exceed, by its size alone.
        max_tokens: of the reply; sent with the request.
        run: id of the run inside a tool of this one that makes the call; empty for this run itself.
        withdrawn: the call that was announced last was not made: what was reserved for it is given back.
    """

    model: str
    reserved_usd: float
    input_bound: int
    max_tokens: int | None = None
    run: str = ""
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed:
    """A call of a model gave no usable reply, and the run goes on: at once, later, or with another model.

    Attributes:
        model: ``provider:name``.
        error: why.
        usage: what is billed for it; ``None`` where nobody knows.
        seconds: how long it took.
        again_after: seconds until a model is asked again; ``None`` where this is left to whoever resumes the run.
    """

    model: str
    error: RunError
    usage: Usage | None = None
    seconds: float = 0.0
    again_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the policy has decided about a call; recorded with the step that the call writes anyway.

    Attributes:
        decision: ``allow`` or ``deny``; that a person is asked is a step of its own.
        reason: why.
    """

    decision: Literal["allow", "deny"]
    reason: str

    def __post_init__(self) -> None:
        _hold_recordable(self, "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """An unsafe call is about to be carried out.

    Attributes:
        call_id: which call.
        tool: the tool's name.
        ruling: why it may be; ``None`` where the policy says nothing about the tool.
        withdrawn: the call that was announced before was not made: it is owed as if it had not been announced.
    """

    call_id: str
    tool: str
    ruling: Ruling | None = None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReturned:
    """A call has ended.

    Attributes:
        call_id: which call.
        tool: the tool's name.
        output: what the tool returned, where it did not fail.
        error: why it failed, as the model is shown it.
        seconds: how long it took.
        remark: told before the output: that a person has changed the arguments, or what they have said.
        ruling: why it was refused, or allowed; ``None`` where the policy says nothing about the tool, and for a call
            whose :class:`ToolStarted` tells it.
    """

    call_id: str
    tool: str
    output: JsonValue = None
    error: RunError | None = None
    seconds: float = 0.0
    remark: str = ""
    ruling: Ruling | None = None

    def __post_init__(self) -> None:
        _hold_recordable(self, "remark")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalAsked:
    """A call waits for a person.

    Attributes:
        approval_id: what the answer refers to; unique within the run.
        call_id: which call.
        tool: the tool's name.
        arguments: what the person is asked to approve.
        reason: why a person is asked.
        interrupted: the call was started before and nobody knows whether it took effect.
        digest: of the run, the call, the tool and the arguments, see :func:`digest_of_call`; an answer is for these.
        tool_digest: of the tool's description, schema and effect; after a change of these it is asked anew.
        expires_seconds: an answer that is recorded later than so long after the question does not count, and the call
            is refused then; ``None`` for never.
    """

    approval_id: str
    call_id: str
    tool: str
    arguments: JsonObject
    reason: str
    interrupted: bool = False
    digest: str = ""
    expires_seconds: float | None = None
    tool_digest: str = ""

    def __post_init__(self) -> None:
        _hold_recordable(self, "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a person knows of a call that nobody is to make any more.

    Attributes:
        output: what it has returned, where it did not fail.
        error: why it failed.
    """

    output: JsonValue = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGiven:
    """A person has answered.

    Attributes:
        approval_id: which question.
        approved: yes or no.
        reason: what the model is told.
        by: who answered.
        arguments: with which the call is carried out, where the person has changed them.
        digest: of the question that was answered; empty where the person was not shown it.
        settlement: neither yes nor no: what came of the call, which is recorded as its result.
    """

    approval_id: str
    approved: bool
    reason: str = ""
    by: str = ""
    arguments: JsonObject | None = None
    digest: str = ""
    settlement: Settlement | None = None

    def __post_init__(self) -> None:
        _hold_recordable(self, "reason", "by")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRetried:
    """What came before is carried on with a new budget, after the run had ended without success.

    Attributes:
        of: id of the run or task whose steps were taken over.
        was: how it had ended. After a cancellation, approvals that permitted no start yet are void: whoever cancelled
            took back what had been allowed, and the calls are asked about anew.
    """

    of: str
    was: FinalStatus = "failed"


Shortening: TypeAlias = Literal["summary", "drop_tool_results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarised:
    """From here on the model is told what came before in short; the steps themselves stay as they are.

    Attributes:
        upto: the steps before this number are told in short; the run's input never is.
        by: ``summary``: ``text`` in their place. ``drop_tool_results``: only the outputs of tools are left out.
        text: the summary.
        usage: what the model's call for it cost.
        model: ``provider:name`` of the model that wrote it.
        seconds: how long that took.
    """

    upto: int
    by: Shortening = "summary"
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that is remembered.

    Attributes:
        id: unique within its scope.
        text: what is remembered. Data, never an instruction.
        source: where it comes from, for example ``run 4f1c``.
        at: when it was remembered, in seconds since the epoch.
        score: how similar it is to what was looked for, from -1 to 1; higher is more similar.
    """

    id: str
    text: str
    source: str = ""
    at: float = 0.0
    score: float = 0.0

    def __post_init__(self) -> None:
        _hold_recordable(self, "text", "source", most=MAX_NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What was found in memory for this run, before the model was first asked.

    The texts are recorded, and not only their ids, so that a run that is carried on is told the same although some of
    it was forgotten meanwhile.

    Attributes:
        notes: the most similar one first; empty where nothing was found.
        seconds: how long it took.
    """

    notes: tuple[Note, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A model has made vectors of texts, for the run's memory; recorded where that is paid for.

    Attributes:
        model: ``provider:name``.
        usage: what it cost; ``None`` where the provider has not told.
        seconds: how long it took.
    """

    model: str
    usage: Usage | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedSpent:
    """A run inside a tool has drawn on the budget of this one: with a call of a model, or with its last steps.

    Attributes:
        run: id of that run.
        agent: name of its agent.
        model: ``provider:name``; empty for the steps after its last call.
        usage: what the call has used; ``None`` where nobody knows.
        steps: so many steps of that run were recorded since the last one of these.
        failed: there was no reply.
    """

    run: str
    agent: str
    model: str = ""
    usage: Usage | None = None
    steps: int = 0
    failed: bool = False


FinalStatus: TypeAlias = Literal["completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A run that has ended, as the later runs of its conversation see it: what was asked, and what came of it.

    Attributes:
        input: what the run was to work on, as ``Agent.run`` was given it.
        output: what it has produced, where it completed, as ``Agent.run`` returned it.
        status: how it ended.
    """

    input: Any
    output: Any = None
    status: FinalStatus = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last step of every run that has ended.

    Attributes:
        status: how it ended.
        output: what a completed run has produced, as JSON.
        error: why a failed run failed.
    """

    status: FinalStatus
    output: JsonValue = None
    error: RunError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A stored step that this release cannot read. It is shown in its place, and never recorded or carried on.

    Attributes:
        stored_as: kind of the stored step; empty where it has none.
        problem: why it cannot be read.
    """

    stored_as: str
    problem: str


Step: TypeAlias = (
    RunStarted
    | ModelReplied
    | ModelAsked
    | ModelFailed
    | ToolStarted
    | ToolReturned
    | ApprovalAsked
    | ApprovalGiven
    | RunRetried
    | Summarised
    | Recalled
    | Embedded
    | NestedSpent
    | Declared
    | Finished
    | Unreadable
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A step in its place.

    Attributes:
        seq: position in the run, from 0 without a gap.
        at: when it was recorded, in seconds since the epoch, by the journal's clock.
        step: the fact.
    """

    seq: int
    at: float
    step: Step


Transcript: TypeAlias = Sequence[Recorded]

ASIDES = (ModelAsked, ModelFailed, Embedded, NestedSpent, Declared)
"""Steps that only tell of a call of a model, or of a change, and that a limit of steps does not count."""

BEGINNINGS = (*ASIDES, ToolStarted)
"""Steps that bring a run no further: what they tell of may be what stops it each time."""


# --- folds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A call that has no result yet.

    Attributes:
        call: what the model wants.
        started: an unsafe call was begun, and nobody knows whether it took effect.
        asked: the open or answered question to a person.
        answer: the person's answer to ``asked``.
        expires_at: from this moment on, by the journal's clock, nobody waits for an answer; ``None`` for never.
    """

    call: ToolCall
    started: bool = False
    asked: ApprovalAsked | None = None
    answer: ApprovalGiven | None = None
    expires_at: float | None = None

    @property
    def waiting(self) -> bool:
        """A person was asked and has not answered."""
        return self.asked is not None and self.answer is None

    def waits(self, at: float) -> bool:
        """A person was asked, has not answered, and still may at this moment."""
        return self.waiting and (self.expires_at is None or at < self.expires_at)


def brings_further(steps: Transcript) -> bool:
    """Whether one of these steps is more than the beginning, or the failure, of something."""
    return any(not isinstance(recorded.step, BEGINNINGS) for recorded in steps)


def beginning(transcript: Transcript) -> RunStarted | None:
    """The first step; ``None`` for a run that has not begun."""
    first = transcript[0].step if transcript else None
    return first if isinstance(first, RunStarted) else None


def declared_in(transcript: Transcript) -> JsonObject | None:
    """What the run was made of last, as far as that is recorded."""
    for recorded in reversed(transcript):
        if (
            isinstance(recorded.step, RunStarted | ModelReplied | Declared)
            and recorded.step.declared is not None
        ):
            return recorded.step.declared
    return None


def ending(transcript: Transcript) -> Finished | None:
    """The last step of a run that has ended, else ``None``."""
    last = transcript[-1].step if transcript else None
    return last if isinstance(last, Finished) else None


def last_turn(transcript: Transcript) -> Transcript:
    """From the last model reply to the end; empty before the first reply and right after a retry."""
    for index in range(len(transcript) - 1, -1, -1):
        if isinstance(transcript[index].step, ModelReplied):
            return transcript[index:]
    return ()


def open_calls(transcript: Transcript) -> tuple[OpenCall, ...]:
    """Calls of the last reply that have no result yet: what a resumed run still owes."""
    turn = last_turn(transcript)
    reply = turn[0].step if turn else None
    if not isinstance(reply, ModelReplied) or not reply.tool_calls:
        return ()
    started: set[str] = set()
    returned: set[str] = set()
    asked: dict[str, tuple[ApprovalAsked, float | None]] = {}
    answers: dict[str, ApprovalGiven] = {}
    expiries: dict[str, float | None] = {}
    for recorded in without_withdrawn(turn[1:]):
        match step := recorded.step:
            case ToolStarted():
                started.add(step.call_id)
                asked.pop(step.call_id, None)  # an answer permits one start only
            case ToolReturned():
                returned.add(step.call_id)
            case ApprovalAsked():
                expires_at = expiry(recorded.at, step)
                asked[step.call_id] = (step, expires_at)
                expiries[step.approval_id] = expires_at
            case ApprovalGiven():
                until = expiries.get(step.approval_id)
                if until is None or recorded.at < until:
                    answers[step.approval_id] = step
            case RunRetried(was="cancelled"):
                approved = {id_ for id_, given in answers.items() if given.approved}
                asked = {of: pair for of, pair in asked.items() if pair[0].approval_id not in approved}
            case _:
                pass
    calls: list[OpenCall] = []
    for call in reply.tool_calls:
        if call.id not in returned:
            question, until = asked.get(call.id, (None, None))
            answer, began = _answer_to(question, answers), call.id in started
            calls.append(OpenCall(call=call, started=began, asked=question, answer=answer, expires_at=until))
    return tuple(calls)


def without_withdrawn(transcript: Transcript) -> Transcript:
    """The steps without the calls of tools that were announced and then not made."""
    kept: list[Recorded] = []
    for recorded in transcript:
        step = recorded.step
        if not isinstance(step, ToolStarted) or not step.withdrawn:
            kept.append(recorded)
            continue
        for place in range(len(kept) - 1, -1, -1):
            announced = kept[place].step
            if isinstance(announced, ToolStarted) and announced.call_id == step.call_id:
                del kept[place]
                break
    return kept


def _answer_to(asked: ApprovalAsked | None, answers: Mapping[str, ApprovalGiven]) -> ApprovalGiven | None:
    answer = None if asked is None else answers.get(asked.approval_id)
    if asked is not None and answer is not None and answer.digest not in ("", asked.digest):
        return None  # to another question
    return answer


def expiry(asked_at: float, asked: ApprovalAsked) -> float | None:
    """From when on an answer does not count any more."""
    return None if asked.expires_seconds is None else asked_at + asked.expires_seconds


def digest_of_call(run_id: str, call: ToolCall) -> str:
    """The same for this call of this run with these arguments, and for no other."""
    told = json.dumps([run_id, call.id, call.name, call.arguments], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


LEFT_OUT = "[This result was left out to save space. Call the tool again if you need it.]"
"""What the model is told in place of a tool's output that was left out."""


def visible(transcript: Transcript) -> Transcript:
    """The steps of which the model is told, as far as they have been told in short: pure, the same on each resume.

    A summary stands in the place of the steps it summarises. The run's input is always there, and the result of a call
    is there exactly where the call is.
    """
    seen: list[Recorded] = []
    for recorded in transcript:
        step = recorded.step
        if not isinstance(step, Summarised):
            seen.append(recorded)
        elif step.by == "summary":
            first = [earlier for earlier in seen if isinstance(earlier.step, RunStarted | Recalled)]
            later = [earlier for earlier in seen if earlier.seq >= step.upto]
            kept = [
                earlier
                for earlier in later
                if not isinstance(earlier.step, RunStarted | Recalled | Summarised)
            ]
            seen = [*first, recorded, *kept]
        else:
            seen = [_without_output(earlier) if earlier.seq < step.upto else earlier for earlier in seen]
    return seen


def _without_output(recorded: Recorded) -> Recorded:
    step = recorded.step
    if not isinstance(step, ToolReturned) or step.error is not None:
        return recorded
    return replace(recorded, step=replace(step, output=LEFT_OUT))


def digest_of(turns: Sequence[Turn]) -> str:
    """The same for the same turns, and for no others; empty for none."""
    if not turns:
        return ""
    said = [(turn.status, turn.input, turn.output) for turn in turns]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
