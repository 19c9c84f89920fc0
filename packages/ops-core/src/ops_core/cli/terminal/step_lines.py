"""Steps as lines for people: what is said about each step, without saying where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from agentkit.messages import ToolCall, Usage
from agentkit.transcript.steps import (
    ApprovalAsked,
    ApprovalGiven,
    Declared,
    Embedded,
    Finished,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    NestedSpent,
    Recalled,
    Recorded,
    RunRetried,
    RunStarted,
    Summarised,
    ToolReturned,
    ToolStarted,
    Unreadable,
)
from ops_core.cli.terminal.text import as_call, as_text, input_as_text, one_line, unmistakable, visible

Tone: TypeAlias = Literal["plain", "model", "tool", "person", "quiet", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step, told.

    Attributes:
        seq: number of the step.
        word: what kind of step it is.
        text: its headline.
        note: tokens and time, to the right of the headline.
        details: what belongs below it.
        tone: how it is meant.
        brace: where it stands among calls that run at the same time.
        whole: somebody decides by the details: nothing of them may be left out.
    """

    seq: int
    word: str
    text: str
    note: str = ""
    details: tuple[str, ...] = ()
    tone: Tone = "plain"
    brace: Literal["", "first", "middle", "last"] = ""
    whole: bool = False


@dataclass(slots=True)
class Narrator:
    """Tells the steps of one run, in their order.

    Attributes:
        calls: the calls of the last reply, by their id.
        running: ids of those that have not ended.
        asked: open questions to a person, by their id.
        last: number of the last step; -1 before the first.
    """

    calls: dict[str, ToolCall] = field(default_factory=dict[str, ToolCall])
    running: list[str] = field(default_factory=list[str])
    asked: dict[str, ApprovalAsked] = field(default_factory=dict[str, ApprovalAsked])
    last: int = -1
    _braced: bool = False

    def tell(self, recorded: Recorded) -> Line | None:
        """What is said about a step; ``None`` for the last one, which the whole run's summary tells."""
        seq, step = recorded.seq, recorded.step
        self.last = seq
        match step:
            case ModelReplied():
                return self._reply(seq, step)
            case ModelAsked() | Embedded() | NestedSpent():
                return None
            case Declared(changed=changed):
                return Line(seq=seq, word="changed", text=visible(", ".join(changed)), tone="quiet")
            case ModelFailed():
                return self._failed(seq, step)
            case ToolStarted(withdrawn=True):
                call = self._call(step.call_id, step.tool)
                return Line(seq=seq, word="not begun", text=call, tone="quiet", brace=self._brace())
            case ToolStarted():
                call = self._call(step.call_id, step.tool)
                return Line(seq=seq, word="starts", text=call, tone="quiet", brace=self._brace())
            case ToolReturned():
                return self._returned(seq, step)
            case ApprovalAsked():
                return self._approval(seq, step)
            case ApprovalGiven():
                return self._answer(seq, step)
            case RunRetried():
                return Line(seq=seq, word="retry", text=f"carries on task {one_line(step.of)}", tone="quiet")
            case Summarised():
                return _shortening(seq, step)
            case Recalled():
                return _recalled(seq, step)
            case RunStarted():
                return Line(seq=seq, word="goal", text=visible(input_as_text(step.input)))
            case Finished():
                return None
            case Unreadable():
                return _unread(seq, step)

    def _reply(self, seq: int, reply: ModelReplied) -> Line:
        calls = reply.tool_calls
        self.calls = {call.id: call for call in calls}
        self.running = list(self.calls)
        self._braced = False
        details: list[str] = []
        if calls or reply.problem is not None:
            details += [visible(reply.text)] if reply.text.strip() else []
        if reply.problem is not None:
            details.append(visible(reply.problem))
        note = f"{tokens_of(reply.usage)}  {seconds_of(reply.seconds):>7}"
        tone: Tone = "model" if reply.problem is None else "bad"
        return Line(seq=seq, word="model", text=_wish(reply), note=note, details=tuple(details), tone=tone)

    def _failed(self, seq: int, step: ModelFailed) -> Line:
        match step.again_after:
            case None:
                then = ""
            case 0.0:
                then = "; another one is asked"
            case seconds:
                then = f"; again in {seconds_of(seconds)}"
        text = f"{visible(step.error.message)}{then}"
        return Line(seq=seq, word="model", text=text, note=f"{seconds_of(step.seconds):>7}", tone="bad")

    def _returned(self, seq: int, step: ToolReturned) -> Line:
        brace = self._brace(ends=step.call_id)
        failed = step.error is not None
        said = visible(step.error.message if step.error is not None else as_text(step.output))
        return Line(
            seq=seq,
            word="failed" if failed else "tool",
            text=self._call(step.call_id, step.tool),
            note=seconds_of(step.seconds),
            details=(said,),
            tone="bad" if failed else "tool",
            brace=brace,
        )

    def _approval(self, seq: int, step: ApprovalAsked) -> Line:
        self.asked[step.approval_id] = step
        shown = (unmistakable(step.arguments), visible(step.reason), f"approval {one_line(step.approval_id)}")
        text = one_line(step.tool)
        return Line(
            seq=seq, word="asks", text=text, details=shown, tone="person", brace=self._brace(), whole=True
        )

    def _answer(self, seq: int, step: ApprovalGiven) -> Line:
        asked = self.asked.pop(step.approval_id, None)
        what = as_call(asked.tool, asked.arguments) if asked is not None else one_line(step.approval_id)
        by = f" by {one_line(step.by)}" if step.by else ""
        changed = "" if step.arguments is None else f"with other arguments: {unmistakable(step.arguments)}"
        word = "approved" if step.approved else "denied" if step.settlement is None else "settled"
        told = (changed, visible(step.reason))
        if asked is not None and step.approved and step.arguments is not None and asked.call_id in self.calls:
            # what is made from here on is the call that the person has written
            call = self.calls[asked.call_id]
            self.calls[asked.call_id] = replace(call, arguments=step.arguments, invalid=None)
        return Line(seq=seq, word=word, text=what + by, details=told, tone="person", brace=self._brace())

    def _call(self, call_id: str, tool: str) -> str:
        call = self.calls.get(call_id)
        return one_line(tool) if call is None else as_call(tool, call.invalid or call.arguments)

    def _brace(self, ends: str | None = None) -> Literal["", "first", "middle", "last"]:
        """Where a step stands in the brace around calls of one reply; there is none around a single call."""
        if len(self.calls) < 2:
            return ""
        first, self._braced = not self._braced, True
        if ends in self.running:
            self.running.remove(ends)
        if ends is not None and not self.running:
            return "last"
        return "first" if first else "middle"

    def doing(self) -> str:
        """What is under way now, as far as the steps tell."""
        if self.running:
            open_calls = [call_id for call_id in self.running if call_id not in self._asked_about()]
            names = [one_line(self.calls[call_id].name) for call_id in open_calls]
            return f"running {', '.join(names)}" if names else "waiting for an answer"
        return "waiting for the model"

    def _asked_about(self) -> set[str]:
        return {asked.call_id for asked in self.asked.values()}


def _recalled(seq: int, step: Recalled) -> Line:
    told = tuple(f"{note.score:.2f}  {visible(note.text)}" for note in step.notes)
    text = counted(len(step.notes), "note") if step.notes else "nothing"
    note = f"{seconds_of(step.seconds):>7}"
    return Line(seq=seq, word="recalls", text=text, note=note, details=told, tone="quiet")


def _unread(seq: int, step: Unreadable) -> Line:
    kind = f" ({visible(step.stored_as)})" if step.stored_as else ""
    text = f"step {seq}{kind} cannot be read here"
    return Line(seq=seq, word="unread", text=text, details=(visible(step.problem),), tone="bad")


def _shortening(seq: int, step: Summarised) -> Line:
    if step.by == "drop_tool_results":
        text = f"outputs of tools before step {step.upto} are left out from here on"
        return Line(seq=seq, word="shorter", text=text, tone="quiet")
    text = f"the steps before {step.upto} are told in short from here on"
    note = f"{tokens_of(step.usage)}  {seconds_of(step.seconds):>7}"
    return Line(seq=seq, word="shorter", text=text, note=note, details=(visible(step.text),), tone="quiet")


def _wish(reply: ModelReplied) -> str:
    calls = reply.tool_calls
    if reply.problem is not None:
        return "gives a reply that cannot be used"
    if not calls:
        return "answers"
    if len(calls) == 1:
        return f"calls {one_line(calls[0].name)}"
    return f"calls {len(calls)} tools at once"


def tokens_of(usage: Usage) -> str:
    """Tokens and money, as far as they are known: ``1,142 + 31 tokens``."""
    cost = f" · ${usage.cost_usd:.4f}" if usage.cost_usd else ""
    return (
        f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens{cost}"
        if usage.tokens
        else cost.lstrip(" ·")
    )


def seconds_of(seconds: float) -> str:
    """A time that is easy to read: ``2 ms``, ``1.4 s``, ``3 min 20 s``."""
    if seconds < 0.0005:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def counted(number: int, word: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def joined(parts: Sequence[str]) -> str:
    """The parts that are not empty, in one line."""
    return " · ".join(part for part in parts if part)
