"""Agent: an immutable declaration, and the methods that run it."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from math import inf
from operator import is_
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    Unpack,
    cast,
    get_origin,
)

import agentkit
from agentkit.attachments import Input, checked_input
from agentkit.budget.limits import Limits
from agentkit.budget.prices import Prices
from agentkit.errors import BadArguments, ToolDenied, UnknownTool, UsageError
from agentkit.memories.agent_memory import AgentMemory
from agentkit.messages import JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.models import check_settings
from agentkit.models.resilience.retry import Retries
from agentkit.models.settings import ModelSettings, checked
from agentkit.planning import Brief, NativePlanning, Planning, ReActPlanning
from agentkit.policies import SecurityPolicy
from agentkit.ports import Behind, Deny, Journal, Model, Policy, Question, Scope, Toolset, behind_nothing
from agentkit.run.compaction import Context
from agentkit.run.control import Control, Host
from agentkit.run.fingerprints import (
    ConstantParts,
    Requests,
    fingerprint,
    fingerprint_of_tool,
    parts_of_tool,
    versions,
)
from agentkit.run.outcomes import Completed, Outcome
from agentkit.run.telemetry import Telemetry, Watch
from agentkit.schema import OutputSchema, to_json_value
from agentkit.signatures import is_instance
from agentkit.tools import FunctionToolset, Tool
from agentkit.transcript.steps import Recorded, RunStarted, Turn, digest_of
from agentkit.untrusted.boundary import guarded

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # defaults of type variables reach typing in Python 3.13

    from agentkit.models.resilience.model import ResilientModel
    from agentkit.run.loop import Event, OnEvent
    from agentkit.run.memory import RunMemory
    from agentkit.run.model_turn import ModelTurn
    from agentkit.run.next_step import RunSpec

    Deps = TypeVar("Deps", default=None)
    Output = TypeVar("Output", default=str)
else:
    from typing import TypeVar

    Deps = TypeVar("Deps")
    Output = TypeVar("Output")

AnyTool: TypeAlias = Tool | Toolset | Callable[..., Any]
_NOT_SETTINGS = frozenset(
    {"model", "fallback", "prices", "name", "instructions", "tools", "output", "deps", "policy", "telemetry"}
)
_NO_SETTINGS = ModelSettings()
_PLANNINGS: Mapping[str, Callable[[], Planning]] = {"native": NativePlanning, "react": ReActPlanning}


class RunOptions(TypedDict, Generic[Deps], total=False):
    """What may be said about one run; all of it optional.

    Attributes:
        deps: passed on to the tools as ``ToolContext.deps``; of the type that the agent declares.
        journal: where the steps go, and where an earlier attempt left them; in memory where not given.
        run_id: the run's id, part of every idempotency key; made up where not given.
        limits: tightens the agent's own limits.
        control: to stop the run from outside.
        earlier: the turns of the conversation before this run, oldest first, with what earlier runs were given and
            what they returned; a run that is carried on must be given the same ones again.
        scope: whose memory it is; the agent's own where not given.
        on_event: called with each step and delta, in the event loop; must not block. What it raises is logged once,
            and the run goes on. Models stream only with it.
        reserves: what each call of a model may cost is recorded before it is made, whatever the limits are.
        at: this moment, by the journal's clock, where that is not the clock of this machine.
    """

    deps: Deps
    journal: Journal
    run_id: str
    limits: Limits | None
    control: Control
    earlier: Sequence[Turn]
    scope: Scope
    on_event: OnEvent | None
    reserves: bool
    at: float


class _Offer(NamedTuple):
    """A tool as its toolset has given it, as a run has it, and by its digests: of its parts, and of the whole."""

    given: ToolSpec
    completed: ToolSpec
    parts: JsonObject
    digest: str


class _Tools(NamedTuple):
    """The tools of an agent by their names, and what follows from how its toolsets have listed them.

    Attributes:
        listed: each toolset, followed by what it has listed.
        specs: what is said of each tool.
        toolsets: that each tool is from.
        parts: the tools as they are declared, by digests.
    """

    listed: Sequence[object]
    specs: Mapping[str, ToolSpec]
    toolsets: Mapping[str, Toolset]
    parts: JsonObject


@dataclass(frozen=True)
class Agent(Generic[Deps, Output]):
    """The declaration of an agent. It never changes, holds nothing of any run, and may carry many runs at once.

    Attributes:
        model: ``provider:name``, opened and closed with each run, or an open :class:`~agentkit.ports.Model`.
        fallback: models that are asked, in this order, where the one before has no reply.
        retries: how often a call that failed is made again; where not given, an open model without a fallback is used
            as it is, and all others as :class:`~agentkit.models.resilience.retry.Retries` says.
        prices: what models cost.
        name: for logs and for whoever submits work to it by name.
        instructions: what the model is told before everything else.
        tools: tools, toolsets, or plain functions (which count as ``unsafe``).
        tool_timeout: seconds after which a call is given up, for tools that do not say it themselves.
        parallel_tools: calls of one reply run side by side, unless a tool is declared otherwise; ``False`` for one
            after the other, in their order.
        sequential_tools: names of tools whose calls run alone, as with ``parallel=False``; ``files__*`` stands for all
            that fit.
        output: the type of the output; ``str`` for whatever the model says last.
        deps: the type of what the tools are given as ``ToolContext.deps``.
        limits: the budget of each run.
        policy: decides about each tool call, and which tools the model is shown.
        planning: ``native`` tool calls, or ``react`` for models that have none.
        patience: so many turns in a row may be malformed, or repeat a failing call, before the run is failed.
        context: what is done when a conversation outgrows the model's window.
        settings: how the model is to answer: the longest reply, temperature, effort, choice of tools.
        memory: what outlives its runs.
        telemetry: who is told about the runs, and how much; see :mod:`agentkit.run.telemetry`.
    """

    model: str | Model
    _: KW_ONLY
    fallback: Sequence[str | Model] = ()
    retries: Retries | None = None
    prices: Prices = Prices()
    name: str = "agent"
    instructions: str = ""
    tools: Sequence[AnyTool] = ()
    tool_timeout: float | None = None
    parallel_tools: bool = True
    sequential_tools: Sequence[str] = ()
    output: type[Output] = cast("type[Output]", str)
    deps: type[Deps] = cast("type[Deps]", NoneType)
    limits: Limits = Limits()
    policy: Policy = SecurityPolicy()
    planning: Literal["native", "react"] = "native"
    patience: int = 3
    context: Context = Context()
    settings: ModelSettings = ModelSettings()
    memory: AgentMemory | None = None
    telemetry: Telemetry = Telemetry()

    def __post_init__(self) -> None:
        """Refuse here, and not in the middle of a run, what cannot be a model's name, a tool or a budget.

        Whether there is such a provider is known when the model is opened: endpoints have names of their own.
        """
        for field_name, model in (("model", self.model), *(("fallback", each) for each in self.fallback)):
            if isinstance(model, str) and not all(model.partition(":")):
                message = f"agent {self.name}: {field_name}: {model!r} is no model: write provider:name"
                raise UsageError(message)
        for field_name, kind in _KINDS.items():
            if not isinstance(given := getattr(self, field_name), kind):
                message = f"agent {self.name}: {field_name} must be {kind.__name__}(…), not a {type(given).__name__}"
                raise UsageError(message)
        self._check_settings(self.model)
        _ = self._toolsets
        if self.tool_timeout is not None and not 0 < self.tool_timeout < inf:
            message = f"agent {self.name}: tool_timeout must be positive and finite seconds, not {self.tool_timeout!r}"
            raise UsageError(message)

    def _check_settings(self, model: str | Model) -> None:
        """Refuse a setting that the model is known not to take."""
        if self.settings == _NO_SETTINGS:
            return
        check = (
            partial(check_settings, model)
            if isinstance(model, str)
            else getattr(model, "check_settings", None)
        )
        if check is not None:
            checked(self.settings, check, self.name)

    def __getstate__(self) -> dict[str, Any]:
        """The declaration alone: what was worked out from it is worked out again where it is unpickled or copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __deepcopy__(self, memo: object) -> Agent[Deps, Output]:
        return copy(self)  # it never changes; an open model cannot be made twice

    async def run(self, input: Input = None, **options: Unpack[RunOptions[Deps]]) -> Outcome[Output]:  # noqa: A002
        """Carry a run to its end, or as far as it goes without a person.

        A ``journal`` that already holds steps is carried on: what is recorded is not done again. Cancelling this
        coroutine stops the run and records nothing, so that it can be carried on as well; to end a run as cancelled
        use :meth:`Control.cancel`.

        Args:
            input: what the run is to work on, JSON with attachments in it; may be left out for a run that is
                carried on.
            options: see :class:`RunOptions`.

        Returns:
            Completed, Failed, Cancelled or Waiting; nothing about the run's own course is raised.

        Raises:
            UsageError: the agent, its tools or the options make no sense, or the journal holds another run.
            ModelAuthError: the model needs a key, and there is none.
            JournalError: a step could not be recorded.
            TranscriptError: the journal cannot be read.
            RunReleased: :meth:`Control.release` was called.
        """
        from agentkit.budget.account import account_here
        from agentkit.models.resilience.model import open_chain
        from agentkit.run.loop import Loop
        from agentkit.transcript.journals import MemoryJournal

        host = Host()
        deps = options.get("deps")
        if not is_instance(deps, self.deps):
            wanted = getattr(self.deps, "__name__", None) if get_origin(self.deps) is None else str(self.deps)
            message = f"agent {self.name}: deps must be a {wanted or self.deps}, not a {type(deps).__name__}"
            raise UsageError(message)
        earlier = options["earlier"] = tuple(map(_stored, options.get("earlier", ())))
        given = RunStarted(
            run_id=options.get("run_id") or os.urandom(16).hex(),
            agent=self.name,
            input=_json(input),
            earlier=len(earlier),
            earlier_digest=digest_of(earlier),
        )
        watch = self.telemetry.watch(self.name, given.run_id)
        async with open_chain([self.model, *self.fallback], retries=self.retries) as model:
            self._check_settings(model)
            loop = Loop(
                work=await self._work(model, options, watch),
                journal=options.get("journal") or MemoryJournal(),
                deps=deps,
                control=options.get("control") or Control(),
                host=host,
                outer=account_here(),
                on_event=options.get("on_event"),
                at=options.get("at", time.time()),
            )
            carried = loop.carry(given)
            outcome = await (
                carried if watch is None else watch.run(carried, model=model.name, given=given.input)
            )
        return self._typed(outcome)

    async def examine(self, call: ToolCall, transcript: Sequence[Recorded] = ()) -> None:
        """Whether a call with these arguments could be made at all: for what a person writes in the place of a model.

        Args:
            call: of a tool of the agent.
            transcript: the steps of its run so far.

        Raises:
            UnknownTool: the agent has no such tool.
            BadArguments: they do not fit the tool's schema, as far as its toolset can say without calling it.
            ToolDenied: the policy forbids it.
        """
        from agentkit.tools.http import HttpToolset

        for toolset in self._toolsets:
            for spec in await toolset.specs():
                if spec.name == call.name:
                    if isinstance(toolset, FunctionToolset | HttpToolset):
                        toolset.check(call)
                    elif (examine := getattr(toolset, "examine", None)) is not None:
                        await examine(call)
                    behind: Behind = getattr(toolset, "behind", behind_nothing)
                    decision = await self.policy.decide(
                        Question(call=call, spec=spec, behind=behind, transcript=transcript)
                    )
                    if isinstance(decision, Deny):
                        message = f"not allowed: {decision.reason}"
                        raise ToolDenied(message)
                    return
        message = f"agent {self.name} has no tool {call.name!r}"
        raise UnknownTool(message)

    async def stream(
        self,
        input: Input = None,  # noqa: A002
        **options: Unpack[RunOptions[Deps]],
    ) -> AsyncGenerator[Event | Outcome[Output]]:
        """Like :meth:`run`, telling what happens while it happens; the last thing it yields is the outcome.

        Leaving the iteration early stops the run and records nothing, so that it can be carried on.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        watcher = options.get("on_event")

        def show(event: Event) -> None:
            events.put_nowait(event)
            if watcher is not None:
                watcher(event)

        options["on_event"] = show
        running = asyncio.create_task(self.run(input, **options))
        running.add_done_callback(lambda _done: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield running.result()
        finally:
            running.cancel()
            await asyncio.wait({running})

    def run_sync(self, input: Input = None, **options: Unpack[RunOptions[Deps]]) -> Outcome[Output]:  # noqa: A002
        """:meth:`run` for scripts without an event loop.

        Raises:
            UsageError: there is a running event loop in this thread: await :meth:`run` there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run(input, **options))
        message = "run_sync was called inside a running event loop: `await agent.run(…)` instead"
        raise UsageError(message)

    async def _work(self, model: ResilientModel, options: RunOptions[Deps], watch: Watch | None) -> RunSpec:
        from agentkit.models.context_windows import window_of
        from agentkit.run.next_step import RunSpec

        earlier = tuple(options.get("earlier", ()))
        memory = self._remembering(options.get("scope"))
        remember = None if memory is None else memory.toolset
        tools = await self._listed(self._toolsets if remember is None else (*self._toolsets, remember))
        toolsets = tools.toolsets
        if watch is not None:
            model = model.each(watch.model)
            toolsets = {name: watch.toolset(toolset, tools.specs) for name, toolset in toolsets.items()}
        return RunSpec(
            asker=self._asker(model, self._offered(tools.specs), earlier),
            toolsets=toolsets,
            specs=tools.specs,
            policy=self.policy,
            output=self._output,
            limits=self.limits.tightened(options.get("limits")),
            patience=self.patience,
            memory=memory,
            declared={**self._own_parts, "models": [one.name for one in model.models], "tools": tools.parts},
            context=_within(self.context, self.context.window or window_of(model.name)),
            reserves=options.get("reserves", False),
        )

    async def _listed(self, toolsets: Sequence[Toolset]) -> _Tools:
        """The tools as they are now. They are put together again only where a toolset gives other ones than before."""
        given: list[Sequence[ToolSpec]] = []
        for toolset in toolsets:
            if type(toolset) is FunctionToolset:
                given.append(toolset.listed)
                continue
            with guarded(f"agent {self.name}: a toolset"):
                given.append(tuple(await toolset.specs()))
        listed = [each for pair in zip(toolsets, given, strict=True) for each in (pair[0], *pair[1])]
        known = self._known_tools.get("last")
        if known is None or len(known.listed) != len(listed) or not all(map(is_, known.listed, listed)):
            known = self._known_tools["last"] = self._put_together(listed, zip(toolsets, given, strict=True))
        return known

    def _put_together(
        self, listed: Sequence[object], given: Iterable[tuple[Toolset, Sequence[ToolSpec]]]
    ) -> _Tools:
        specs: dict[str, ToolSpec] = {}
        by_name: dict[str, Toolset] = {}
        for toolset, its_specs in given:
            for spec in its_specs:
                if spec.name in specs:
                    message = f"agent {self.name}: two tools are called {spec.name}"
                    raise UsageError(message)
                specs[spec.name], by_name[spec.name] = self._offer(spec).completed, toolset
        self._check_sequential(specs)
        parts: JsonObject = {name: self._parts_of(spec) for name, spec in specs.items()}
        return _Tools(listed, specs, by_name, parts)

    def _check_sequential(self, names: Iterable[str]) -> None:
        known = list(names)
        for pattern in self.sequential_tools:
            if not fnmatch.filter(known, pattern):
                message = f"agent {self.name}: sequential_tools: no tool is called {pattern!r}; there are: "
                raise UsageError(message + (", ".join(known) or "none"))

    def _offer(self, spec: ToolSpec) -> _Offer:
        """A tool with what the agent says of all of them; made once, until its toolset gives another one."""
        known = self._offers.get(spec.name)
        if known is None or known.given is not spec:  # those of an MCP server may change
            timeout = self.tool_timeout if spec.timeout_seconds is None else spec.timeout_seconds
            alone = any(fnmatch.fnmatchcase(spec.name, pattern) for pattern in self.sequential_tools)
            parallel = spec.parallel and self.parallel_tools and not alone
            completed = replace(spec, timeout_seconds=timeout, parallel=parallel)
            known = self._offers[spec.name] = _Offer(
                spec, completed, parts_of_tool(completed), fingerprint_of_tool(completed)
            )
        return known

    def _parts_of(self, spec: ToolSpec) -> JsonObject:
        known = self._offers.get(spec.name)
        return known.parts if known is not None and known.completed is spec else parts_of_tool(spec)

    def _digest_of(self, spec: ToolSpec) -> str:
        known = self._offers.get(spec.name)
        return known.digest if known is not None and known.completed is spec else fingerprint_of_tool(spec)

    @cached_property
    def _offers(self) -> dict[str, _Offer]:
        return {}

    @cached_property
    def _known_tools(self) -> dict[str, _Tools]:
        return {}

    @cached_property
    def _constant_parts(self) -> ConstantParts:
        return ConstantParts()

    @cached_property
    def _own_parts(self) -> JsonObject:
        settings = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NOT_SETTINGS
        }
        return {
            "instructions": fingerprint(self.instructions),
            "policy": fingerprint([type(self.policy).__qualname__, self.policy]),
            "output": fingerprint(self._output.json_schema),
            "settings": fingerprint(settings),
            "versions": versions(agentkit.__version__),
        }

    def _offered(self, specs: Mapping[str, ToolSpec]) -> tuple[ToolSpec, ...]:
        offers: Callable[[ToolSpec], bool] | None = getattr(self.policy, "offers", None)
        return tuple(spec for spec in specs.values() if offers is None or offers(spec))

    def _remembering(self, scope: Scope | None) -> RunMemory | None:
        if self.memory is None:
            return None
        from agentkit.run.memory import RunMemory

        return RunMemory.of(self.memory, Scope(agent=self.name) if scope is None else scope)

    def _asker(
        self, model: ResilientModel, tools: tuple[ToolSpec, ...], earlier: tuple[Turn, ...]
    ) -> ModelTurn:
        from agentkit.run.model_turn import ModelTurn

        brief = Brief(
            instructions=self.instructions,
            tools=tools,
            output_schema=self._output.json_schema,
            earlier=earlier,
        )
        return ModelTurn(
            model=model,
            planning=self._planning(),
            brief=brief,
            output=self._output,
            prices=self.prices,
            settings=self._settings_for(tools),
            requests=Requests(self._constant_parts, self._digest_of),
        )

    def _settings_for(self, tools: tuple[ToolSpec, ...]) -> ModelSettings:
        """The settings, where the model can be told them.

        Raises:
            UsageError: a tool must be called that there is not, or planning tells the model of none.
        """
        choice = self.settings.tool_choice
        names = {spec.name for spec in tools} if self.planning == "native" else set[str]()
        if choice in {None, "auto", "none"} or choice in names or (choice == "required" and names):
            return self.settings
        why = f"there is no such tool, but {', '.join(sorted(names)) or 'none'}"
        why = why if self.planning == "native" else "the model is told of no tools where planning is react"
        message = f"agent {self.name}: settings: tool_choice is {choice!r}, and {why}"
        raise UsageError(message)

    @cached_property
    def _toolsets(self) -> Sequence[Toolset]:
        functions = [given for given in self.tools if not _is_toolset(given)]
        toolsets = [cast("Toolset", given) for given in self.tools if _is_toolset(given)]
        return (FunctionToolset(cast("list[Tool]", functions)), *toolsets)

    @cached_property
    def _output(self) -> OutputSchema[Output]:
        return OutputSchema(self.output)

    def _planning(self) -> Planning:
        if self.planning not in _PLANNINGS:
            message = f"agent {self.name}: planning is one of {', '.join(_PLANNINGS)}, not {self.planning!r}"
            raise UsageError(message)
        return _PLANNINGS[self.planning]()

    def _typed(self, outcome: Outcome[JsonValue]) -> Outcome[Output]:
        if not isinstance(outcome, Completed):
            return outcome
        try:
            output = self._output.validate(outcome.output)
        except BadArguments as error:
            message = f"agent {self.name}: the recorded output no longer fits the type of the output: {error}"
            raise UsageError(message) from None
        return Completed(run_id=outcome.run_id, transcript=outcome.transcript, output=output)


@lru_cache(maxsize=64)
def _within(context: Context, window: int | None) -> Context:
    return replace(context, window=window)


def _json(given: Any) -> JsonValue:
    """What a run was given, or has produced, as its journal holds it.

    Raises:
        UsageError: JSON cannot express it.
    """
    return to_json_value(checked_input(given))


def _stored(turn: Turn) -> Turn:
    return replace(turn, input=_json(turn.input), output=_json(turn.output))


_KINDS: Mapping[str, type] = {
    "limits": Limits,
    "prices": Prices,
    "context": Context,
    "telemetry": Telemetry,
}


def _is_toolset(given: AnyTool) -> bool:
    return not isinstance(given, Tool) and hasattr(given, "specs")
