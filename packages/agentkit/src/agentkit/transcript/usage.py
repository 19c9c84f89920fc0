"""Usage of a run: the sums of its transcript, updated as it grows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from agentkit.errors import RunError
from agentkit.messages import JsonValue, Opaque, Part, StopReason, Usage
from agentkit.money import nanos, usd
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Declared,
    Embedded,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Recorded,
    RunRetried,
    Summarised,
    ToolReturned,
    Transcript,
)

FAULTS = frozenset({"unknown_tool", "bad_arguments"})
"""Codes of failed calls that are the model's own mistake in form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUsage:
    """What a run has used so far.

    Attributes:
        steps: recorded steps.
        model_calls: replies received.
        tool_calls: calls that have ended.
        tokens: the sum over all replies and embeddings, and over failed calls that were billed.
        unsettled_usd: reserved for calls whose cost nobody knows (yet): at most so much comes on top of
            ``tokens.cost_usd``. Zero where money is not limited.
    """

    steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tokens: Usage = field(default_factory=Usage)
    unsettled_usd: float = 0.0


class RunningUsage:
    """The sums of a transcript, kept as it grows, so that a long run costs no more per step than a short one.

    It holds nothing that is not in the steps: :meth:`of` computes the same from the whole list. What an earlier run
    used before a :class:`RunRetried` does not count.

    Attributes:
        steps: recorded steps.
        model_calls: replies received.
        tool_calls: calls that have ended.
        tokens: the sum over all replies and embeddings, and over failed calls that were billed.
        failures: calls of models that have failed since the last one that did not.
        asides: recorded steps that only tell of a call of a model, and that a limit of steps does not count.
        nested_steps: steps of runs inside the tools, which it does count.
        last_call: the last call of a model that was recorded with its reservation, and the tokens that its request
            turned out to have; ``None`` where there is none.
        call_ids: ids of all calls, those of an earlier run included.
        first_at: when the first counted step was recorded.
        last_at: when the last one was.
    """

    def __init__(self) -> None:
        self.call_ids: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self.steps = self.model_calls = self.tool_calls = 0
        self.failures = self.asides = self.nested_steps = 0
        self.tokens = Usage()
        self.last_call: tuple[ModelAsked, int] | None = None
        self._asked: dict[str, ModelAsked] = {}  # by the id of the run inside, empty for this one
        self._unsettled = 0
        self.first_at = self.last_at = 0.0
        self._waited = self._waiting_since = 0.0
        self._waiting: dict[str, str] = {}  # calls, by the id of their open approval
        self._faults = 0
        self._turn: _Turn | None = None

    @classmethod
    def of(cls, transcript: Transcript) -> RunningUsage:
        """The sums of a whole transcript."""
        tally = cls()
        for recorded in transcript:
            tally.add(recorded)
        return tally

    def add(self, recorded: Recorded) -> None:
        """Count one more step."""
        step = recorded.step
        if isinstance(step, RunRetried):
            self._reset()
        if self.steps == 0:
            self.first_at = recorded.at
        self.steps += 1
        self.last_at = recorded.at
        match step:
            case ModelReplied():
                self.model_calls += 1
                self.failures = 0
                self._settle(step.usage)
                self.call_ids.update(call.id for call in step.tool_calls)
                self._faults = self.faulty_turns
                self._turn = _Turn(step, None if self._turn is None else self._turn.reply)
            case Summarised():
                self.model_calls += bool(step.model)
                if step.model:
                    self.failures = 0
                    self._settle(step.usage)
            case ModelAsked() | ModelFailed() | Embedded() | NestedSpent() | Declared():
                self._add_aside(step)
            case ToolReturned():
                self.tool_calls += 1
                if step.call_id in self._waiting.values():  # nobody has answered in time
                    open_ = {id_ for id_, call_id in self._waiting.items() if call_id == step.call_id}
                    self._answered(open_, recorded.at)
                if self._turn is not None:
                    self._turn.errors[step.call_id] = step.error
            case ApprovalAsked():
                if not self._waiting:
                    self._waiting_since = recorded.at
                self._waiting[step.approval_id] = step.call_id
            case ApprovalGiven() if step.approval_id in self._waiting:
                self._answered({step.approval_id}, recorded.at)
            case _:
                pass

    def _answered(self, approvals: Collection[str], at: float) -> None:
        for approval_id in approvals:
            del self._waiting[approval_id]
        if not self._waiting:
            self._waited += at - self._waiting_since

    def _add_aside(self, step: ModelAsked | ModelFailed | Embedded | NestedSpent | Declared) -> None:
        self.asides += 1
        match step:
            case ModelAsked(withdrawn=True):
                self._asked.pop(step.run, None)
            case ModelAsked():
                self._settle(None, step.run)
                self._asked[step.run] = step
            case NestedSpent():
                self.nested_steps += step.steps
                self.model_calls += not step.failed
                self._settle(step.usage, step.run)
            case ModelFailed():
                self.failures += 1
                self._settle(step.usage)
            case Embedded():
                self.failures = 0
                self._settle(step.usage)
            case Declared():
                pass

    def _settle(self, used: Usage | None, run: str = "") -> None:
        """A call has ended, as far as is known. What it has reserved is given back where its cost is known."""
        asked = self._asked.pop(run, None)
        if used is not None:
            self.tokens += used
        if asked is None:
            return
        if used is None or used.cost_usd is None:
            self._unsettled += nanos(asked.reserved_usd)
        if used is not None and not run:
            self.last_call = (asked, used.input_tokens)

    @property
    def unsettled(self) -> int:
        """Nano-dollars reserved for calls whose cost nobody knows (yet)."""
        return self._unsettled + sum(nanos(asked.reserved_usd) for asked in tuple(self._asked.values()))

    @property
    def spent(self) -> int:
        """What counts against a budget, in nano-dollars, be it billed or perhaps billed."""
        return nanos(self.tokens.cost_usd or 0.0) + self.unsettled

    @property
    def usage(self) -> RunUsage:
        """What the run has used."""
        return RunUsage(
            steps=self.steps, model_calls=self.model_calls, tool_calls=self.tool_calls, tokens=self.tokens,
            unsettled_usd=usd(self.unsettled),
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """From the first counted step to the last one, without the time in which the run waited for people."""
        return self.last_at - self.first_at - self._waited

    @property
    def faulty_turns(self) -> int:
        """How many of the last turns, in a row, brought the run no further.

        A turn is faulty when its reply could not be acted on, when every call in it was malformed, when it
        repeats the calls of the turn before, with the same arguments, and they fail again, or when it was paused and
        brings nothing new.
        """
        return self._faults + 1 if self._turn is not None and self._turn.faulty else 0

    @property
    def last_problem(self) -> str:
        """What was wrong with the last turn, as its model was told it; empty where nothing was."""
        return "" if self._turn is None else self._turn.problem[:_MAX_WORDS]


_MAX_WORDS = 500


class _Turn:
    """One reply and what became of its calls."""

    def __init__(self, reply: ModelReplied, before: ModelReplied | None) -> None:
        self.reply = reply
        self.before = before
        self.errors: dict[str, RunError | None] = {}

    @property
    def problem(self) -> str:
        failed = (error.message for error in self.errors.values() if error is not None)
        paused = "the provider paused its turn and added nothing to it" if self._pauses_in_vain else ""
        return self.reply.problem or next(failed, paused)

    @property
    def faulty(self) -> bool:
        if self.reply.problem is not None or self._pauses_in_vain:
            return True
        calls = self.reply.tool_calls
        failed = [error for error in self.errors.values() if error is not None]
        if not calls or len(failed) < len(calls):
            return False
        same = self.before is not None and _wishes(self.reply) == _wishes(self.before)
        return all(error.code in FAULTS for error in failed) or same

    @property
    def _pauses_in_vain(self) -> bool:
        """It was paused, and is empty or says what the paused turn before it said."""
        if self.reply.stop_reason is not StopReason.PAUSED or self.reply.tool_calls:
            return False
        said = _without_ids([_what(part) for part in self.reply.parts])
        if not said or self.before is None or self.before.stop_reason is not StopReason.PAUSED:
            return not said
        return said == _without_ids([_what(part) for part in self.before.parts])


def _wishes(reply: ModelReplied) -> list[tuple[str, str]]:
    return sorted((call.name, repr(call.arguments)) for call in reply.tool_calls)


def _what(part: Part) -> JsonValue:
    return part.data if isinstance(part, Opaque) else getattr(part, "text", None)


def _without_ids(value: JsonValue) -> JsonValue:
    """JSON without the ids in it, which are others each time."""
    if isinstance(value, dict):
        return {
            name: _without_ids(each)
            for name, each in value.items()
            if name != "id" and not name.endswith("_id")
        }
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def usage(transcript: Transcript) -> RunUsage:
    """What the run has used, without what an earlier run paid before a retry."""
    return RunningUsage.of(transcript).usage
