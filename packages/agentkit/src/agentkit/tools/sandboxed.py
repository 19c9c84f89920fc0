"""Sandboxed tools of an agent: the same names and schemas, with calls that run in a sandbox."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.machinery import PathFinder
from typing import Any, cast

from agentkit import tracing
from agentkit.errors import ResultUnavailable, ToolError, UsageError
from agentkit.machine_errors import before_the_call
from agentkit.messages import JsonValue, ToolCall, ToolSpec
from agentkit.ports import ToolContext
from agentkit.sandbox.child.call import with_refusals
from agentkit.sandbox.errors import BadResult, FunctionRaised, NoResult, ResultTooLarge
from agentkit.sandbox.manager import Sandboxes
from agentkit.sandbox.port import CallTerms, Returned
from agentkit.sandbox.remarks import refusals
from agentkit.sandbox.terms import CallLimits, Confinement
from agentkit.tools.builtin.programs import ProgramTool
from agentkit.tools.functions import Tool, as_tool
from agentkit.tools.results import from_envelope
from agentkit.tracing import annotate
from agentkit.untrusted.secrets import redacted
from agentkit.untrusted.text import visible

_STARTS = "It starts in the folder of the files that it may use: relative paths are from there."
_CALL = "agentkit.tools.sandbox_entry:call"
_WARM = "agentkit.tools.sandbox_entry:warm"


_MAX_PRINTED = 2000
"""Characters of each stream that are logged of one call."""

log = logging.getLogger("agentkit.tools")


@dataclass(frozen=True, slots=True)
class _Printed:
    """What a tool prints is for the operator: it goes to the log, and its length to the trace; never to the model."""

    tool: str
    run_id: str

    def __call__(self, output: str, errors: str) -> None:
        annotate({tracing.TOOL_STDOUT_LENGTH: len(output), tracing.TOOL_STDERR_LENGTH: len(errors)})
        for stream, text in (("output", output), ("errors", errors)):
            if text:
                shown = visible(text[:_MAX_PRINTED].rstrip("\n")).replace("\n", "\\n")
                more = f" … and {len(text) - _MAX_PRINTED} more" if len(text) > _MAX_PRINTED else ""
                log.info("tool %s of run %s, %s: %s%s", self.tool, self.run_id, stream, shown, more)


def import_name(tool: Tool) -> str | None:
    """``package.module:name`` under which another process finds the function; ``None`` where it does not.

    That is so of what is defined inside a function, of lambdas and methods, and of what a script or a notebook defines.
    """
    function = tool.function
    module, name = str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))
    if (
        module in {"", "None", "__main__"}
        or "<" in name
        or PathFinder.find_spec(module.partition(".")[0]) is None
    ):
        return None
    found: Any = sys.modules.get(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    return f"{module}:{name}" if found in (tool, function) else None


class ConfinedTool(Tool):
    """A tool whose calls run in a sandbox.

    Args:
        tool: the same in this process.
        confinement: where it runs, and on what terms.
        sandboxes: where the sandbox is.
        deps_from: import path of what makes its dependencies there.

    Attributes:
        seconds: that a call may take in the place of what is usual in the sandbox; ``None`` for that.
    """

    def __init__(
        self, tool: Tool, confinement: Confinement, sandboxes: Sandboxes, deps_from: str | None = None
    ) -> None:
        super().__init__(
            tool.function,
            name=tool.name,
            effect=tool.effect,
            timeout=tool.timeout,
            approval=tool.approval,
            reaches_out=tool.declared_reaches_out,
            parallel=tool.parallel,
            sandbox=confinement,
        )
        self.seconds = tool.timeout
        self._sandboxes = sandboxes
        self._deps_from = deps_from
        self._inside = import_name(tool) or ""
        self._program = tool if isinstance(tool, ProgramTool) else None
        if tool.find is not None:
            self.find = ConfinedTool(tool.find, confinement, sandboxes, deps_from)

    @cached_property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it; of a program, with where it starts."""
        made = super().spec
        if self._program is None or self.confinement.folder is None:
            return made
        said = made.description.replace(", in an empty folder", "")
        return replace(made, description=f"{said}\n\n{_STARTS}")

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Validate the arguments here, call the function there.

        Raises:
            BadArguments: they do not fit.
            ResultUnavailable: the function has returned what cannot be handed over.
            ToolError: as raised by the function, or because of how the call ended.
            SandboxUnavailable: there is no sandbox here.
            MachineError: the machine lacks something that the call needs.
        """
        arguments = self.prepared(call.arguments, context)
        confinement = self.confinement
        with before_the_call():
            sandbox = await self._sandboxes.get(confinement.sandbox or "pool")
        terms = CallTerms(
            limits=_as_long_as(confinement.limits or sandbox.limits, self.seconds),
            grants=confinement.grants,
            deadline=context.deadline,
            name=self.name,
            folder=confinement.folder,
            report=context.report,
            printed=_Printed(self.name, context.run_id),
        )
        if self._program is not None:
            return await self._program.run(sandbox, arguments, terms)
        given: dict[str, JsonValue] = {
            "tool": self._inside,
            "arguments": call.arguments,
            "context": _context_to_json(context),
            "deps": self._deps_from,
        }
        try:
            returned = await sandbox.call_on(_CALL, given, terms)
        except NoResult:
            raise
        except (BadResult, ResultTooLarge) as error:  # it has returned, and then it was too much
            raise ResultUnavailable.of(self.name, str(error)) from None
        except FunctionRaised as error:  # before or behind the function itself
            what = {"failed": f"{self.name} failed with {error.type}", "code": ToolError.code}
            raise from_envelope({**what, "text": redacted(error.message)}, self.name) from None
        self._report(returned, context)
        envelope = cast("Mapping[str, Any]", returned.value if isinstance(returned.value, Mapping) else {})
        if "value" in envelope:
            value: JsonValue = envelope["value"]
            return value
        failure = from_envelope(envelope, self.name)
        refused = (*returned.refused, *refusals({"paths": envelope.get("paths")}, terms))
        failure.args = (with_refusals(str(failure), refused),)
        raise failure

    def _report(self, returned: Returned, context: ToolContext[Any]) -> None:
        for each in (*returned.refused, *([returned.left] if returned.left else [])):
            log.info("tool %s of run %s: %s", self.name, context.run_id, each)
        if returned.left:
            context.remark(returned.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What tools are given as ``ToolContext.deps``.

    Attributes:
        given: there are some, objects of this process.
        made_by: import path of what makes them, an object or what is called without arguments; each call in a sandbox
            has its own.
    """

    given: bool = False
    made_by: str | None = None


def confined(
    tools: Iterable[Any],
    sandboxes: Sandboxes,
    *,
    usual: str = "pool",
    terms: Mapping[str, Confinement] | None = None,
    deps: Dependencies = Dependencies(),
    timeout: float | None = None,
) -> list[Any]:
    """The same tools, each where it is to run; toolsets are left as they are.

    Args:
        tools: of an agent: tools, functions, toolsets.
        sandboxes: where they are.
        usual: where tools run that do not say it themselves.
        terms: what the operator says of tools, by name; it goes before what they say themselves.
        deps: what the tools are given.
        timeout: seconds that the agent gives those of its tools that do not say it themselves.

    Raises:
        UsageError: a tool that is to be confined cannot be: the message names it, and what can be done.
    """
    said = terms or {}
    placed = [_placed(each, sandboxes, usual, said, deps) for each in tools]
    for each in placed:
        if isinstance(each, ConfinedTool) and each.seconds is None and each.confinement.limits is None:
            each.seconds = timeout
    return placed


def preloaded(
    tools: Iterable[Any], *, usual: str = "pool", terms: Mapping[str, Confinement] | None = None
) -> list[tuple[str, str]]:
    """What a sandbox is to load beforehand, so that the calls of these tools are quick."""
    found: list[tuple[str, str]] = []
    for each in tools:
        made = _as_tool(each)
        if made is None or isinstance(made, ProgramTool):
            continue
        name = import_name(made)
        if _confinement(made, usual, terms or {}).sandbox != "inprocess" and name is not None:
            found.append((_WARM, name))
    return found


def _as_tool(given: Any) -> Tool | None:
    if isinstance(given, Tool):
        return given
    return None if hasattr(given, "specs") else as_tool(cast("Callable[..., Any]", given))


def _confinement(tool: Tool, usual: str, terms: Mapping[str, Confinement]) -> Confinement:
    told = terms.get(tool.name, tool.confinement)
    own = tool.confinement
    reaches_out = own.reaches_out if told.reaches_out is None else told.reaches_out
    return replace(told, sandbox=told.sandbox or own.sandbox or usual, reaches_out=reaches_out)


def _placed(
    given: Any, sandboxes: Sandboxes, usual: str, terms: Mapping[str, Confinement], deps: Dependencies
) -> Any:
    made = _as_tool(given)
    if made is None:
        return given
    confinement = _confinement(made, usual, terms)
    if confinement.sandbox == "inprocess" and not isinstance(made, ProgramTool):
        return made if confinement.reaches_out is None else made.within(confinement)
    if not isinstance(made, ProgramTool):
        why = None
        if import_name(made) is None or (made.find is not None and import_name(made.find) is None):
            why = "it cannot be imported by name (it is a closure, a method, a partial, an object, or of a script)"
        elif made.takes_context and deps.given and deps.made_by is None:
            why = (
                "its context holds dependencies, which stay in this process unless an import path makes them"
            )
        if why is not None:
            message = (
                f"tool {made.name} cannot run in the {confinement.sandbox}: {why}; move it to the top of a "
            )
            message += 'module that can be imported, or say sandbox="inprocess" where it is trusted'
            raise UsageError(message)
    return ConfinedTool(made, confinement, sandboxes, deps.made_by if made.takes_context else None)


def _as_long_as(limits: CallLimits, timeout: float | None) -> CallLimits:
    """A tool's own timeout takes the place of the usual limits of time."""
    if timeout is None:
        return limits
    return replace(limits, seconds=timeout, cpu_seconds=max(limits.cpu_seconds, timeout))


def _context_to_json(context: ToolContext[Any]) -> dict[str, JsonValue]:
    return {
        "run_id": context.run_id,
        "call_id": context.call_id,
        "idempotency_key": context.idempotency_key,
        "deadline": context.deadline,
    }
