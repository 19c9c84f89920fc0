"""Tool call: policy, kill switch, effect, deadline and result. Every way out is a recorded step."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

from agentkit.errors import (
    BadArguments,
    JournalError,
    MachineError,
    ResultUnavailable,
    RunError,
    RunInterrupted,
    RunReleased,
    ToolDenied,
    ToolError,
    ToolTimeout,
    TranscriptError,
    UnknownTool,
)
from agentkit.machine_errors import machine_error
from agentkit.messages import Effect, JsonValue, ToolCall, ToolSpec
from agentkit.ports import (
    Allow,
    Ask,
    Behind,
    Deny,
    Meter,
    Policy,
    Question,
    ToolContext,
    Toolset,
    behind_nothing,
)
from agentkit.recorded_text import MAX_OUTPUT
from agentkit.run.fingerprints import fingerprint_of_tool
from agentkit.run.kill_switch import KillSwitch, ToolUse
from agentkit.tools.lookups import Lookup, lookup_of
from agentkit.tools.refusals import (
    carried_out,
    denied_by_person,
    halted_by,
    out_of_time,
    remark_of,
    settled,
    unanswered,
)
from agentkit.tools.results import failure, is_plain, text_of, to_result
from agentkit.tools.results import place_of as place_of  # noqa: PLC0414  (whoever reports an error finds it here)
from agentkit.tools.threads import Threads
from agentkit.transcript.codec import to_json_text
from agentkit.transcript.steps import (
    ApprovalAsked,
    OpenCall,
    Recorded,
    Ruling,
    Step,
    ToolReturned,
    ToolStarted,
    Transcript,
    digest_of_call,
)
from agentkit.untrusted.boundary import drop_cancellation, guarded, task_here

_MAX_LOOKS = 50_000
"""Values of an output that are looked at in the event loop; a larger one is looked at in a thread."""

TOOL_CHANGED = "the tool has changed since this was asked before"

log = logging.getLogger("agentkit")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress:
    """What a tool reports while it works. Shown, never stored."""

    call_id: str
    tool: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolExecutor:
    """Settles the tool calls of one turn of a run.

    Attributes:
        run_id: part of every idempotency key.
        deps: for the tools.
        policy: asked about each call.
        toolsets: the toolset of each tool, by name.
        specs: the tools by name.
        offered: those that the model is shown.
        deadline: of the run, on the event loop's clock.
        record: appends a step to the journal.
        show: tells watchers about progress.
        meter: counts what tools spend on embeddings.
        kill_switch: asked about each call last of all.
        is_stopped: the run was told to stop: no call begins any more, and it stays owed.
        is_out_of_time: the run's time is up; the same.
    """

    run_id: str
    deps: Any
    policy: Policy
    toolsets: Mapping[str, Toolset]
    specs: Mapping[str, ToolSpec]
    offered: Sequence[ToolSpec]
    deadline: float | None
    record: Callable[[Step], Awaitable[Recorded]]
    show: Callable[[ToolProgress], None]
    meter: Meter
    kill_switch: KillSwitch
    is_stopped: Callable[[], bool]
    is_out_of_time: Callable[[], bool]
    _deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _under_way: list[ToolCall] = field(default_factory=list[ToolCall])
    _broken: threading.Event = field(default_factory=threading.Event)
    _threads: Threads = field(default_factory=Threads)
    _machine_errors: list[MachineError] = field(default_factory=list[MachineError])

    @property
    def machine_error(self) -> MachineError | None:
        """What the machine lacked for one of the calls, which has no result then and is still owed."""
        return self._machine_errors[0] if self._machine_errors else None

    async def settle(self, owed: OpenCall, transcript: Transcript) -> None:
        """Carry out a call, refuse it, or ask a person about it, and record which; nothing once the run is stopped."""
        try:
            await self._settle(owed, transcript)
        except RunReleased:
            if not self.is_stopped():
                raise
        except MachineError as error:  # calls that are under way may end
            log.warning("the call of %s is to be made later: %s", owed.call.name, error)
            self._machine_errors.append(error)
        except BaseException:  # the other calls of the turn are being cancelled: no more of them begins
            self._broken.set()
            raise

    async def _settle(self, owed: OpenCall, transcript: Transcript) -> None:
        call = owed.call
        if self._may_not_begin():
            return
        problem = self._problem_with(call)
        if owed.answer is not None and owed.answer.settlement is not None:
            await self.record(settled(call, owed.answer, owed.answer.settlement))
        elif problem is not None:
            await self._refuse(call, problem)
        elif (halted := self.kill_switch.refusal(self._use_of(call))) is not None:
            await self._refuse(call, halted_by(owed, halted), Ruling(decision="deny", reason=str(halted)))
        elif owed.answer is not None and not owed.answer.approved:
            await self._refuse(call, denied_by_person(owed))
        elif owed.asked is not None and owed.answer is None:  # the loop waits until the answer has expired
            await self._refuse(call, ToolDenied(unanswered(owed.asked)))
        else:
            lookup = await self._look_up(owed) if owed.started and owed.asked is None else None
            if lookup is not None and lookup.took_effect:
                remark = (
                    "This call was cut short, and it was looked up what came of it; it was not made again"
                )
                await self.record(
                    ToolReturned(call_id=call.id, tool=call.name, output=lookup.output, remark=remark)
                )
            elif not self._may_not_begin():
                await self._decide(owed if lookup is None else replace(owed, started=False), transcript)

    async def _look_up(self, owed: OpenCall) -> Lookup | None:
        """What came of a call that was cut short, where its tool can tell; ``None`` where that is not certain."""
        call, toolset = owed.call, self.toolsets[owed.call.name]
        finds: Callable[[ToolCall], bool] | None = getattr(toolset, "finds", None)
        if finds is None or not finds(call):
            return None
        context = self._context_of(call, self._deadline_of(self.specs[call.name]), _nobody_reads)
        try:
            async with asyncio.timeout_at(context.deadline):
                with guarded("a look-up"):
                    answer: JsonValue = await cast("Any", toolset).find(call, context)
            lookup = lookup_of(answer)
            if lookup is not None and lookup.took_effect:
                lookup = replace(lookup, output=await self._storable(call, lookup.output))
        except (JournalError, RunInterrupted):
            raise
        except Exception as error:
            if (found := machine_error(error)) is not None:
                raise found from error
            # whatever it is: a person is asked then
            log.warning("%s: the look-up failed with %s", call.name, type(error).__name__)
            return None
        finally:
            context.stopped.set()
        return lookup

    async def _decide(self, owed: OpenCall, transcript: Transcript) -> None:
        """A person's yes stands for an Ask; what the policy forbids by now, it forbids all the same."""
        call, spec, remark, approved = owed.call, self.specs[owed.call.name], "", False
        if owed.answer is not None and owed.asked is not None:
            # a yes is for what was shown: anything else is asked anew
            approved = owed.asked.digest in ("", digest_of_call(self.run_id, call)) and not self._has_changed(
                owed
            )
            if owed.answer.arguments is not None:
                call = replace(call, arguments=owed.answer.arguments)
            remark = remark_of(owed.answer)
        async with self._deciding:  # one after the other: what was let through counts for the next
            question = Question(
                call=call,
                spec=spec,
                interrupted=owed.started,
                transcript=transcript,
                under_way=tuple(self._under_way),
                behind=self._behind,
            )
            try:
                with guarded("the policy"):
                    decision = await self.policy.decide(question)
            except Exception:
                if not self._may_not_begin():
                    raise
                return
            if self._may_not_begin():  # whatever the policy made of its cancellation
                return
            if isinstance(decision, Allow) or (isinstance(decision, Ask) and approved):
                self._under_way.append(call)
        match decision:
            case Deny(reason=reason):
                ruling = Ruling(decision="deny", reason=reason)
                await self._refuse(call, ToolDenied(f"not allowed: {reason}"), ruling)
            case Ask() if not approved:
                await self._ask(owed, decision, transcript)
            case Allow(reason=reason) if reason:
                await self._carry_out(call, spec, remark, Ruling(decision="allow", reason=reason))
            case _:
                await self._carry_out(call, spec, remark)

    def _problem_with(self, call: ToolCall) -> ToolError | None:
        if call.name not in self.specs:
            return UnknownTool(
                f"there is no tool {call.name!r}; there are: "
                f"{', '.join(spec.name for spec in self.offered) or 'none'}"
            )
        if call.invalid is not None:
            return BadArguments(f"{call.name}: the arguments must be one JSON object")
        return None

    async def _ask(self, owed: OpenCall, decision: Ask, transcript: Transcript) -> None:
        call = owed.call
        earlier = sum(
            isinstance(recorded.step, ApprovalAsked) and recorded.step.call_id == call.id
            for recorded in transcript
        )
        reason = f"{TOOL_CHANGED}; {decision.reason}" if self._has_changed(owed) else decision.reason
        asked = ApprovalAsked(
            approval_id=f"{call.id}.{earlier + 1}",
            call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            reason=reason,
            interrupted=owed.started,
            digest=digest_of_call(self.run_id, call),
            expires_seconds=decision.expires_seconds,
            tool_digest=fingerprint_of_tool(self.specs[call.name]),
        )
        await self.record(asked)

    def _has_changed(self, owed: OpenCall) -> bool:
        """The tool is not as it was when a person was asked about the call."""
        asked = owed.asked
        return asked is not None and asked.tool_digest not in (
            "",
            fingerprint_of_tool(self.specs[asked.tool]),
        )

    async def _refuse(self, call: ToolCall, error: ToolError, ruling: Ruling | None = None) -> None:
        refused = ToolReturned(call_id=call.id, tool=call.name, error=error.as_run_error(), ruling=ruling)
        await self.record(refused)

    async def _carry_out(
        self, call: ToolCall, spec: ToolSpec, remark: str = "", ruling: Ruling | None = None
    ) -> None:
        """The ruling is part of the first step that is written: before an unsafe call, else with its result."""
        announced = spec.effect is Effect.UNSAFE
        if announced:
            await self.record(ToolStarted(call_id=call.id, tool=call.name, ruling=ruling))
            ruling = None
        try:  # the last look before it takes effect
            halted = await self.kill_switch.refusal_now(self._use_of(call))
        except BaseException:
            await self._withdraw(call, announced=announced)
            raise
        if halted is not None:
            await self._refuse(call, halted, Ruling(decision="deny", reason=str(halted)))
            return
        if self._may_not_begin():
            await self._withdraw(call, announced=announced)
            return
        began = time.monotonic()  # not the loop's: some loops look at the clock once a turn only
        remarks = [remark] if remark else []
        try:
            output, error = await self._result_of(call, spec, remarks.append)
        except MachineError as trouble:
            await self._withdraw(call, announced=announced and not trouble.began)
            raise
        if not self._is_given_up():
            await drop_cancellation()
        if error is not None and spec.effect is not Effect.UNSAFE and self._is_given_up():
            return  # it failed because the run was stopped: it is owed again
        seconds = round(time.monotonic() - began, 6)
        returned = ToolReturned(
            call_id=call.id,
            tool=call.name,
            output=output,
            error=error,
            seconds=seconds,
            remark="; ".join(remarks),
            ruling=ruling,
        )
        await self.record(returned)

    async def _withdraw(self, call: ToolCall, *, announced: bool) -> None:
        """A call that was announced was not made: nobody is to be asked whether it took effect."""
        if announced:
            await self.record(ToolStarted(call_id=call.id, tool=call.name, withdrawn=True))

    def _may_not_begin(self) -> bool:
        return self._is_given_up() or self.is_out_of_time() or bool(self._machine_errors)

    def _is_given_up(self) -> bool:
        return self._broken.is_set() or self.is_stopped()

    async def _result_of(
        self, call: ToolCall, spec: ToolSpec, remark: Callable[[str], None]
    ) -> tuple[JsonValue, RunError | None]:
        until = self._deadline_of(spec)
        context = self._context_of(call, until, remark)
        timer, task = asyncio.timeout_at(until), task_here()
        try:
            async with timer, self.kill_switch.passing(self._use_of(call)):
                return await self._storable(call, await self.toolsets[call.name].call(call, context)), None
        except (JournalError, RunInterrupted):  # of a step that the meter records; or by the kill switch
            raise
        except BaseException as error:  # a tool's own result, never the end of the run or of the worker
            if not isinstance(error, Exception) and (self._is_given_up() or task_here() is not task):
                raise  # the run was stopped, or the coroutine is being closed
            if isinstance(error, TimeoutError) and timer.expired():
                return None, ToolTimeout(out_of_time(spec)).as_run_error()
            return self._told(call, spec, error)
        finally:
            context.stopped.set()

    def _told(
        self, call: ToolCall, spec: ToolSpec, error: BaseException
    ) -> tuple[JsonValue, RunError | None]:
        """What the model is told of a call that brought no result.

        Raises:
            MachineError: it is no fact about the call, which is still owed.
        """
        took_effect = isinstance(error, ResultUnavailable) and spec.effect is Effect.UNSAFE
        if not took_effect and (found := machine_error(error)) is not None:
            if found is error:
                raise found
            log.debug("the exception of tool %s: %s", call.name, text_of(error))
            raise found from error
        if isinstance(error, ResultUnavailable):
            log.warning("%s", error)
            if error.__cause__ is not None:
                log.debug("the result of %s: %s", call.name, text_of(error.__cause__))
            return carried_out(error, spec), None
        told = error if isinstance(error, ToolError) else failure(call.name, error)
        return None, told.as_run_error()

    def _context_of(
        self, call: ToolCall, until: float | None, remark: Callable[[str], None]
    ) -> ToolContext[Any]:
        return ToolContext(
            deps=self.deps,
            run_id=self.run_id,
            call_id=call.id,
            idempotency_key=f"{self.run_id}:{_in_a_key(call.id)}",
            deadline=until,
            meter=self.meter,
            remark=remark,
            report=self._reporter(call),
            stopped=threading.Event(),
        )

    async def _storable(self, call: ToolCall, output: JsonValue) -> JsonValue:
        """The output as it is recorded. A toolset may return anything: it is converted as what a function returns is.

        Raises:
            ResultUnavailable: it cannot be recorded.
        """
        try:
            if not is_plain(output, _MAX_LOOKS):
                output = await self._threads.convert(call.name, output)
            text = to_json_text(output)
        except TranscriptError:
            output = to_result(call.name, output)  # which says why, where it cannot be
            text = to_json_text(output)
        if len(text) > MAX_OUTPUT:
            reason = f"it has {len(text)} characters, and at most {MAX_OUTPUT} are taken"
            raise ResultUnavailable.of(call.name, reason)
        return output

    def _use_of(self, call: ToolCall) -> ToolUse:
        uses: Callable[[ToolCall], tuple[str, str]] | None = getattr(self.toolsets[call.name], "uses", None)
        server, behind = ("", "") if uses is None else uses(call)
        pure = self.specs[call.name].effect is Effect.PURE
        return ToolUse(tools=(call.name, *([behind] if behind else [])), server=server, pure=pure)

    def _behind(self, call: ToolCall) -> ToolCall | None:
        toolset = self.toolsets.get(call.name)
        behind: Behind = getattr(toolset, "behind", behind_nothing)
        return behind(call)

    def _reporter(self, call: ToolCall) -> Callable[[str], None]:
        """Tells watchers in the event loop, also what a synchronous tool reports from its thread."""
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def report(text: str) -> None:
            progress = ToolProgress(call_id=call.id, tool=call.name, text=text)
            if threading.get_ident() == thread:
                self.show(progress)
                return
            with suppress(RuntimeError):  # the loop has ended before the tool did: nobody watches
                loop.call_soon_threadsafe(self.show, progress)

        return report

    def _deadline_of(self, spec: ToolSpec) -> float | None:
        own = None
        if spec.timeout_seconds is not None:
            own = asyncio.get_running_loop().time() + spec.timeout_seconds
        given = [deadline for deadline in (own, self.deadline) if deadline is not None]
        return min(given) if given else None


def in_order(calls: Sequence[OpenCall], specs: Mapping[str, ToolSpec]) -> Iterator[Sequence[OpenCall]]:
    """The calls of a reply in their order, as groups of which each runs when the one before has ended.

    The calls of a group run side by side; one of a tool that must not is a group of its own.
    """
    together: list[OpenCall] = []
    for owed in calls:
        spec = specs.get(owed.call.name)
        if spec is None or spec.parallel:
            together.append(owed)
            continue
        if together:
            yield together
        yield [owed]
        together = []
    if together:
        yield together


_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _in_a_key(call_id: str) -> str:
    """A call's id as a part of its idempotency key, which is sent in headers and kept by other systems."""
    if _PLAIN_ID.fullmatch(call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:32]


def _nobody_reads(_remark: str) -> None:
    pass
