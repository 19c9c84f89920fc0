"""Next step of a run: what its transcript owes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agentkit.budget.limits import Limits
from agentkit.errors import Actor, BadArguments, ContentRefused, LimitReached, RunError, UsageError
from agentkit.messages import DECLINED, JsonObject, JsonValue, StopReason, ToolSpec
from agentkit.ports import Policy, Toolset
from agentkit.run.compaction import Context, Gauge, Shorten, due
from agentkit.run.memory import RunMemory
from agentkit.run.model_turn import ModelTurn
from agentkit.schema import OutputSchema
from agentkit.transcript.steps import (
    ApprovalAsked,
    Finished,
    ModelAsked,
    ModelReplied,
    OpenCall,
    Step,
    ToolStarted,
    Transcript,
    ending,
    last_turn,
    open_calls,
)
from agentkit.transcript.usage import RunningUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a run needs of its agent.

    Attributes:
        asker: asks the model.
        toolsets: the toolset of each tool, by name.
        specs: the tools by name.
        policy: decides about each call.
        output: the type of the output.
        limits: the budget.
        patience: so many turns in a row may bring the run no further.
        context: what is done when the conversation outgrows the model.
        memory: what outlives the run.
        declared: what the run is made of, by digests of its parts.
        reserves: what a call may cost is recorded before it is made, whatever the limits are.
    """

    asker: ModelTurn
    toolsets: Mapping[str, Toolset]
    specs: Mapping[str, ToolSpec]
    policy: Policy
    output: OutputSchema[Any]
    limits: Limits
    patience: int
    context: Context = Context()
    memory: RunMemory | None = None
    declared: JsonObject = field(default_factory=dict[str, JsonValue])
    reserves: bool = False


# --- what is owed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallModel:
    """The model is to be asked."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What is remembered is to be looked for."""


@dataclass(frozen=True, slots=True)
class CallTools:
    """These calls have no result and wait for nobody."""

    calls: tuple[OpenCall, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before these questions are answered."""

    on: tuple[ApprovalAsked, ...]


@dataclass(frozen=True, slots=True)
class Conclude:
    """The run is over and this is to be recorded."""

    step: Finished


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over and that is recorded."""

    step: Finished


Owed: TypeAlias = CallModel | Recall | Shorten | CallTools | Wait | Conclude | Ended


def next_owed(
    transcript: Transcript,
    tally: RunningUsage,
    work: RunSpec,
    since_last: float = 0.0,
    gauge: Gauge | None = None,
    at: float = 0.0,
) -> Owed:
    """What a run with this transcript owes next. Pure.

    Args:
        transcript: all steps so far, the first of them a :class:`RunStarted`.
        tally: its sums.
        work: the agent.
        since_last: seconds since the last step was recorded or loaded.
        gauge: how large its conversation is, where the model's window is known.
        at: this moment, by the journal's clock.
    """
    finished = ending(transcript)
    if finished is not None:
        return Ended(finished)
    seconds_left = work.limits.seconds_left(tally, since_last)
    if seconds_left is not None and seconds_left <= 0:
        return Conclude(failed(out_of_time(work.limits)))
    calls = open_calls(transcript)
    if calls:
        ready = tuple(owed for owed in calls if not owed.waits(at))
        return (
            CallTools(ready) if ready else Wait(tuple(owed.asked for owed in calls if owed.asked is not None))
        )
    turn = last_turn(transcript)
    reply = turn[0].step if turn else None
    if isinstance(reply, ModelReplied) and reply.is_last_word:
        return Conclude(concluded(reply, work.output))
    if work.memory is not None and work.memory.owes_recall(transcript):
        return Recall()
    return _another_turn(tally, work, gauge)


def _another_turn(tally: RunningUsage, work: RunSpec, gauge: Gauge | None) -> Owed:
    """Limits are looked at between turns only: a transcript that ends here can always be carried on."""
    faults = tally.faulty_turns
    if faults > work.patience:
        message = f"{faults} turns in a row brought the run no further (malformed or repeated failing calls or replies)"
        if tally.last_problem:
            message += f"; the last problem: {tally.last_problem}"
        return Conclude(failed(RunError(code="no_progress", message=message, actor=Actor.DEVELOPER)))
    try:
        work.limits.check(tally)
    except LimitReached as error:
        return Conclude(failed(error.as_run_error()))
    return (due(gauge, work.context) if gauge is not None else None) or CallModel()


def concluded(reply: ModelReplied, output: OutputSchema[Any]) -> Finished:
    """The end of a run whose last reply this is.

    Raises:
        UsageError: the reply no longer fits the type of the output.
    """
    if reply.stop_reason in DECLINED:
        who = "the model" if reply.stop_reason is StopReason.REFUSED else "a filter of the provider"
        because = reply.declined_because or reply.text.strip() or "no reason given"
        return failed(ContentRefused(f"{who} declined: {because}").as_run_error())
    try:
        value = output.parsed(reply.text)  # it was validated before it was recorded
    except BadArguments as error:
        message = f"the recorded reply no longer fits the type of the output: {error}"
        raise UsageError(message) from None
    return Finished(status="completed", output=value)


def failed(error: RunError) -> Finished:
    """The end of a run that failed."""
    return Finished(status="failed", error=error)


def out_of_time(limits: Limits) -> RunError:
    """Why a run failed whose seconds are used up."""
    return LimitReached(f"the run has used its {limits.seconds:g} seconds").as_run_error()


def withdrawal_of(step: Step) -> ModelAsked | ToolStarted | None:
    """The step that takes back what this one announces; ``None`` where it announces nothing."""
    if not isinstance(step, ModelAsked | ToolStarted) or step.withdrawn:
        return None
    if isinstance(step, ToolStarted):
        return ToolStarted(call_id=step.call_id, tool=step.tool, withdrawn=True)
    return replace(step, withdrawn=True)
