"""Python functions as tools."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, get_origin, overload

from agentkit.errors import UnknownTool, UsageError
from agentkit.messages import Effect, JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.ports import ToolContext
from agentkit.sandbox.terms import Confinement
from agentkit.schema import ArgumentsSchema, summary_of, to_json_value, type_hints_of
from agentkit.tools.threads import Threads

Function = Callable[..., Any]
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


class Tool:
    """A function that a model may call. Still callable as the plain function.

    Args:
        function: sync or async; a parameter annotated with ``ToolContext`` receives the context and is not shown to
            the model. A synchronous function has a thread for itself while it runs, and never blocks the event loop.
        name: what the model calls it; the function's name where not given.
        effect: what repeating a call would do.
        timeout: seconds after which a call is given up. A thread cannot be stopped from outside: the run goes on
            without it, and ``ToolContext.stopped`` is set so that the function can see it.
        approval: a person must approve each call.
        sandbox: where it runs (``pool``, ``jail`` or ``inprocess``), or a
            :class:`~agentkit.sandbox.terms.Confinement` that also says what it may use and reach. By itself a tool runs
            in this process; a worker, or :func:`agentkit.tools.confined.confined`, sees to the sandbox.

    Raises:
        UsageError: it is no function, the name is not usable, or the timeout is not positive.
    """

    def __init__(
        self,
        function: Function,
        *,
        name: str | None = None,
        effect: Effect | str = Effect.UNSAFE,
        timeout: float | None = None,
        approval: bool = False,
        sandbox: str | Confinement | None = None,
    ) -> None:
        if not hasattr(function, "__name__"):
            message = f"a tool is made of a function, not of a {type(function).__name__}: wrap it in one"
            raise UsageError(message)
        self.function = function
        self.name = name or function.__name__
        if not _NAME.fullmatch(self.name):
            message = f"a tool cannot be called {self.name!r}: letters, digits, _ and -, at most 64"
            raise UsageError(message)
        if timeout is not None and timeout <= 0:
            message = f"tool {self.name}: timeout must be positive seconds"
            raise UsageError(message)
        self.effect = Effect(effect)
        self.timeout = timeout
        self.approval = approval
        self.confinement = sandbox if isinstance(sandbox, Confinement) else Confinement(sandbox=sandbox)
        self._threads = Threads()
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name} ({self.effect})>"

    @cached_property
    def _context_parameter(self) -> str | None:
        for name, hint in type_hints_of(self.function).items():
            if name != "return" and (hint is ToolContext or get_origin(hint) is ToolContext):
                return name
        return None

    @cached_property
    def _schema(self) -> ArgumentsSchema:
        skip = frozenset({self._context_parameter} if self._context_parameter else ())
        return ArgumentsSchema(self.function, skip)

    @cached_property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it.

        Raises:
            UsageError: a parameter has no annotation, or one that JSON cannot express.
        """
        return ToolSpec(
            name=self.name,
            description=summary_of(self.function),
            parameters=self._schema.json_schema,
            effect=self.effect,
            timeout_seconds=self.timeout,
            approval=self.approval,
        )

    def check(self, call: ToolCall) -> None:
        """Whether the arguments of a call fit.

        Raises:
            BadArguments: they do not.
        """
        self._schema.validate(call.arguments)

    @property
    def takes_context(self) -> bool:
        """One of its parameters receives the context."""
        return self._context_parameter is not None

    def prepared(self, arguments: JsonObject, context: ToolContext[Any]) -> dict[str, Any]:
        """What the function is called with, from JSON arguments.

        Raises:
            BadArguments: they do not fit.
        """
        given = self._schema.validate(arguments)
        if self._context_parameter:
            given[self._context_parameter] = context
        return given

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Validate the arguments, call the function, and return its result as JSON.

        Raises:
            BadArguments: the arguments do not fit.
            ToolError: as raised by the function itself.
        """
        if self.confinement.sandbox in {"pool", "jail"}:
            message = (
                f"tool {self.name} is to run in the {self.confinement.sandbox}, which is not open: give its "
            )
            message += "agent to a worker, or the tool to agentkit.tools.confined.confined"
            raise UsageError(message)
        arguments = self.prepared(call.arguments, context)
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**arguments)
        else:
            result = await self._threads.run(self.function, arguments, context.stopped)
        return to_json_value(result)


@overload
def tool(function: Function, /) -> Tool: ...
@overload
def tool(
    *,
    effect: Effect | Literal["pure", "idempotent", "unsafe"] = Effect.UNSAFE,
    name: str | None = None,
    timeout: float | None = None,
    approval: bool = False,
    sandbox: Literal["inprocess", "pool", "jail"] | Confinement | None = None,
) -> Callable[[Function], Tool]: ...
def tool(
    function: Function | None = None,
    /,
    *,
    effect: Effect | str = Effect.UNSAFE,
    name: str | None = None,
    timeout: float | None = None,
    approval: bool = False,
    sandbox: str | Confinement | None = None,
) -> Tool | Callable[[Function], Tool]:
    """Make a :class:`Tool` of a function; see there for the arguments.

    A tool that declares no effect counts as ``unsafe``: after a crash a person is asked before it is called again.
    """

    def wrap(wrapped: Function) -> Tool:
        return Tool(wrapped, name=name, effect=effect, timeout=timeout, approval=approval, sandbox=sandbox)

    return wrap if function is None else wrap(function)


class FunctionToolset:
    """Functions as a :class:`~agentkit.ports.Toolset`.

    Args:
        tools: tools, or plain functions, which count as ``unsafe``.

    Raises:
        UsageError: two tools have one name.
    """

    def __init__(self, tools: Iterable[Tool | Function]) -> None:
        self._tools: dict[str, Tool] = {}
        for given in tools:
            made = given if isinstance(given, Tool) else Tool(given)
            if made.name in self._tools:
                message = f"two tools are called {made.name}"
                raise UsageError(message)
            self._tools[made.name] = made

    async def specs(self) -> Sequence[ToolSpec]:
        """The tools in the order in which they were given."""
        return [made.spec for made in self._tools.values()]

    def check(self, call: ToolCall) -> None:
        """Whether the arguments of a call fit, without calling anything.

        Raises:
            UnknownTool: there is no such tool.
            BadArguments: the arguments do not fit.
        """
        self._tool_of(call).check(call)

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Call the function of that name.

        Raises:
            UnknownTool: there is none.
            BadArguments: the arguments do not fit.
            ToolError: as raised by the function.
        """
        return await self._tool_of(call).call(call, context)

    def _tool_of(self, call: ToolCall) -> Tool:
        made = self._tools.get(call.name)
        if made is None:
            message = f"there is no tool {call.name!r}; there are: {', '.join(self._tools) or 'none'}"
            raise UnknownTool(message)
        return made
