"""Python functions as tools."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, overload

from agentkit.errors import UnknownTool, UsageError
from agentkit.messages import Effect, JsonObject, JsonValue, ToolCall, ToolSpec
from agentkit.ports import ToolContext
from agentkit.sandbox.terms import Confinement
from agentkit.schema import ArgumentsSchema
from agentkit.signatures import (
    AnyFunction,
    Function,
    Signature,
    UnresolvedAnnotation,
    is_async,
    name_of,
    names_of_caller,
    needs_object,
    signature_of,
)
from agentkit.tools.results import is_pending, is_plain, settle, to_result
from agentkit.tools.threads import Threads

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


class Tool:
    """A function that a model may call. Still callable as the plain function.

    In the body of a class it is the tool of a method: ``obj.method`` is a tool whose calls reach ``obj``.

    Args:
        function: a function, a method of an object, a partial or any other callable. A parameter annotated with
            ``ToolContext`` receives the context and is not shown to the model; nor is an argument that a partial has
            bound by name. An asynchronous function runs in the event loop, any other has a thread for itself while it
            runs and never blocks the loop; what it returns is awaited, collected and converted to JSON as a part of
            the call.
        name: what the model calls it; the function's name where not given.
        effect: what repeating a call would do.
        timeout: seconds after which a call is given up. A thread cannot be stopped from outside: the run goes on
            without it, and ``ToolContext.stopped`` is set so that the function can see it.
        approval: a person must approve each call.
        reaches_out: data can leave with a call. Where not given: yes for one that is granted hosts, no for one that
            runs in a sandbox and may neither reach a host nor write files of others; else as the effect says.
        parallel: a call may run beside others of the same reply; ``False`` for a tool that must have the stage for
            itself: such a call begins when those before it have ended, and those behind it wait for its end.
        find: looks up what came of a call that was cut short, before a person is asked: called with those arguments
            of the call that it names, and with the context, whose ``idempotency_key`` is that of the call. It returns
            :func:`~agentkit.tools.lookups.found`, ``ABSENT``, or ``None`` where it is not certain.
        sandbox: where it runs (``pool``, ``jail`` or ``inprocess``), or a
            :class:`~agentkit.sandbox.terms.Confinement` that also says what it may use and reach. By itself a tool runs
            in this process; a worker, or :func:`agentkit.tools.sandboxed.confined`, sees to the sandbox.

    Raises:
        UsageError: it cannot be called, the name is not usable, the timeout is not positive, or a parameter is not one
            that a model can fill in. The message names the tool and the parameter.
    """

    find: Tool | None

    def __init__(
        self,
        function: AnyFunction,
        *,
        name: str | None = None,
        effect: Effect | str = Effect.UNSAFE,
        timeout: float | None = None,
        approval: bool = False,
        reaches_out: bool | None = None,
        parallel: bool = True,
        sandbox: str | Confinement | None = None,
        find: AnyFunction | None = None,
    ) -> None:
        self.function: Any = function
        self.name = _checked_name(function, name)
        if timeout is not None and timeout <= 0:
            message = f"tool {self.name}: timeout must be positive seconds"
            raise UsageError(message)
        self.effect = Effect(effect)
        self.timeout = timeout
        self.approval = approval
        self.declared_reaches_out = reaches_out
        self.parallel = parallel
        self.confinement = sandbox if isinstance(sandbox, Confinement) else Confinement(sandbox=sandbox)
        # a look-up is given those arguments of the call that it names, and the context
        self.find = None if find is None else Tool(find, name=self.name, effect=Effect.PURE, timeout=timeout)
        self._threads = Threads()
        self._names: Mapping[str, Any] = {}
        self._needs_object = needs_object(function)
        self.__doc__ = function.__doc__
        try:
            _ = self._schema
        except (
            UnresolvedAnnotation
        ):  # of a local class; or it is defined later, and the first use looks again
            self._names = names_of_caller()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Tool:
        """The tool of a method, bound to an object; any other tool as it is."""
        function = cast("object", self.function)
        if not self._needs_object and not isinstance(function, staticmethod):
            return self
        if instance is None and not isinstance(function, classmethod | staticmethod):
            return self
        bound = copy(self)
        bound.function = self.function.__get__(instance, owner)
        bound._needs_object = False  # noqa: SLF001  (its own kind)
        return bound

    def __repr__(self) -> str:
        return f"<Tool {self.name} ({self.effect})>"

    def __copy__(self) -> Tool:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: object) -> Tool:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name where ``@tool`` has left the tool in the place of its function, else by its parts."""
        module, name = getattr(self.function, "__module__", ""), getattr(self.function, "__qualname__", "")
        owner, own_name = getattr(self.function, "__self__", None), getattr(self.function, "__name__", "")
        if owner is not None and isinstance(getattr(owner, own_name, None), Tool):
            return getattr, (owner, own_name)
        with suppress(ImportError, AttributeError):
            if _named(module, name) is self:
                return _named, (module, name)
        own = {key: value for key, value in self.__dict__.items() if key in _PARTS}
        return _of_parts, (type(self), own)

    @cached_property
    def _signature(self) -> Signature:
        if not self._needs_object:
            return signature_of(self.function, self.name, self._names)
        is_of_class = isinstance(cast("object", self.function), classmethod)
        function = self.function.__func__ if is_of_class else self.function
        found = signature_of(function, self.name, self._names)
        return replace(found, parameters=found.parameters[1:])

    @cached_property
    def _context_parameters(self) -> frozenset[str]:
        return frozenset(name for name, hint in self._signature.hints.items() if _is_context(hint))

    @cached_property
    def _schema(self) -> ArgumentsSchema:
        schema = ArgumentsSchema(self._signature, self.name, self._context_parameters)
        _ = schema.json_schema
        return schema

    @cached_property
    def spec(self) -> ToolSpec:
        """The tool as a model sees it.

        Raises:
            UsageError: an annotation names something that is not defined, or it is a method without an object.
        """
        if self._needs_object:
            message = (
                f"tool {self.name} is a method: hand over that of an object, `thing.{self.name}`, and not "
            )
            message += "that of its class"
            raise UsageError(message)
        return ToolSpec(
            name=self.name,
            parameters=self._schema.json_schema,
            description=self._signature.doc.description,
            effect=self.effect,
            timeout_seconds=self.timeout,
            approval=self.approval,
            reaches_out=self.reaches_out,
            parallel=self.parallel,
        )

    @property
    def reaches_out(self) -> bool | None:
        """Whether data can leave with a call; ``None`` where neither its declaration nor its sandbox says."""
        confinement = self.confinement
        told = self.declared_reaches_out if confinement.reaches_out is None else confinement.reaches_out
        if told is not None:
            return told
        if confinement.grants.hosts:
            return True
        return False if confinement.sandbox in {"pool", "jail"} and not confinement.grants.write else None

    def within(self, confinement: Confinement) -> Tool:
        """The same tool on other terms."""
        made = copy(self)
        made.confinement = confinement
        made.__dict__.pop("spec", None)
        return made

    def check(self, call: ToolCall) -> None:
        """Whether the arguments of a call fit.

        Raises:
            BadArguments: they do not.
        """
        self._schema.validate(call.arguments)

    @property
    def takes_context(self) -> bool:
        """One of its parameters receives the context."""
        return bool(self._context_parameters)

    def prepared(self, arguments: JsonObject, context: ToolContext[Any]) -> dict[str, Any]:
        """What the function is called with, from JSON arguments.

        Raises:
            BadArguments: they do not fit.
        """
        return {**self._schema.validate(arguments), **dict.fromkeys(self._context_parameters, context)}

    def invoke(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with prepared arguments; what it returns may have to be awaited."""
        named = dict(arguments)
        places = [
            named.pop(each.name)
            for each in self._signature.parameters
            if each.kind is each.POSITIONAL_ONLY and each.name in named
        ]
        return self.function(*places, **named)

    async def call(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Validate the arguments, call the function, and return its result as JSON.

        Raises:
            BadArguments: the arguments do not fit.
            ResultUnavailable: the function has returned what JSON cannot express.
            ToolError: as raised by the function itself.
        """
        if self.confinement.sandbox in {"pool", "jail"}:
            message = (
                f"tool {self.name} is to run in the {self.confinement.sandbox}, which is not open: give its "
            )
            message += "agent to a worker, or the tool to agentkit.tools.sandboxed.confined"
            raise UsageError(message)
        arguments = self.prepared(call.arguments, context)
        try:
            return await self._result_of(arguments)
        finally:
            context.stopped.set()

    async def _result_of(self, arguments: Mapping[str, Any]) -> JsonValue:
        """Whether a function is asynchronous is seen from what it returns; its declaration only spares a thread."""
        value = self.invoke(arguments) if is_async(self.function) else await self._in_thread(arguments)
        if isinstance(value, _Converted):
            return value.result
        value = await settle(value)
        if is_plain(value):
            return to_result(self.name, value)
        return await self._threads.convert(self.name, value)

    async def _in_thread(self, arguments: Mapping[str, Any]) -> Any:
        def work() -> Any:
            value = self.invoke(arguments)
            return value if is_pending(value) else _Converted(to_result(self.name, value))

        return await self._threads.run(work, self.name)


@dataclass(frozen=True, slots=True)
class _Converted:
    """A result that is JSON already."""

    result: JsonValue


def _is_context(hint: Any) -> bool:
    """Whether a parameter receives the context: also within ``Annotated`` and beside ``None``."""
    if hint is ToolContext or get_origin(hint) is ToolContext:
        return True
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return any(map(_is_context, get_args(hint)))
    return False


_PARTS = frozenset(
    {
        *("function", "name", "effect", "timeout", "approval", "declared_reaches_out", "parallel"),
        *("confinement", "find", "__doc__"),
    }
)


def _checked_name(function: AnyFunction, name: str | None) -> str:
    found = name or name_of(function)
    if found is None:
        message = f"a tool is made of a function, not of a {type(function).__name__}: wrap it in one"
        raise UsageError(message)
    if not _NAME.fullmatch(found):
        message = f"a tool cannot be called {found!r}: letters, digits, _ and -, at most 64"
        raise UsageError(message)
    return found


def _named(module: str, name: str) -> Any:
    return attrgetter(name)(import_module(module))


def _of_parts(kind: type[Tool], parts: dict[str, Any]) -> Tool:
    given = {key: value for key, value in parts.items() if key not in ("function", "confinement", "__doc__")}
    given["reaches_out"] = given.pop("declared_reaches_out", None)
    if given.get("find") is not None:
        given["find"] = given["find"].function
    return kind(parts["function"], sandbox=parts["confinement"], **given)


@overload
def tool(function: AnyFunction, /) -> Tool: ...
@overload
def tool(
    *,
    effect: Effect | Literal["pure", "idempotent", "unsafe"] = Effect.UNSAFE,
    name: str | None = None,
    timeout: float | None = None,
    approval: bool = False,
    reaches_out: bool | None = None,
    parallel: bool = True,
    sandbox: Literal["inprocess", "pool", "jail"] | Confinement | None = None,
    find: AnyFunction | None = None,
) -> Callable[[AnyFunction], Tool]: ...
def tool(
    function: AnyFunction | None = None,
    /,
    *,
    effect: Effect | str = Effect.UNSAFE,
    name: str | None = None,
    timeout: float | None = None,
    approval: bool = False,
    reaches_out: bool | None = None,
    parallel: bool = True,
    sandbox: str | Confinement | None = None,
    find: AnyFunction | None = None,
) -> Tool | Callable[[AnyFunction], Tool]:
    """Make a :class:`Tool` of a function; see there for the arguments.

    A tool that declares no effect counts as ``unsafe``: after a crash a person is asked before it is called again.
    """

    def wrap(wrapped: AnyFunction) -> Tool:
        return Tool(
            wrapped,
            name=name,
            effect=effect,
            timeout=timeout,
            approval=approval,
            reaches_out=reaches_out,
            parallel=parallel,
            sandbox=sandbox,
            find=find,
        )

    return wrap if function is None else wrap(function)


def as_tool(given: Tool | AnyFunction) -> Tool:
    """A tool as it is; of anything else that can be called, an ``unsafe`` one."""
    inner = getattr(given, "__func__", None)
    if isinstance(inner, Tool):  # a method of a class, made of a tool: `@classmethod` over `@tool`
        return inner.__get__(cast("Any", given).__self__)
    return given if isinstance(given, Tool) else Tool(given)


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
            made = as_tool(given)
            if made.name in self._tools:
                message = f"two tools are called {made.name}"
                raise UsageError(message)
            self._tools[made.name] = made

    @cached_property
    def listed(self) -> tuple[ToolSpec, ...]:
        """The tools in the order in which they were given: always the same ones."""
        return tuple(made.spec for made in self._tools.values())

    async def specs(self) -> Sequence[ToolSpec]:
        """The same."""
        return self.listed

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

    def finds(self, call: ToolCall) -> bool:
        """Whether there is a look-up for a call that was cut short."""
        return self._tool_of(call).find is not None

    async def find(self, call: ToolCall, context: ToolContext[Any]) -> JsonValue:
        """Look up what came of a call; see :mod:`agentkit.tools.lookups` for the answers.

        Raises:
            ToolError: as raised by the function.
        """
        look_up = self._tool_of(call).find
        if look_up is None:
            return None
        named = look_up.spec.parameters.get("properties", {})
        given = {name: value for name, value in call.arguments.items() if name in cast("JsonObject", named)}
        return await look_up.call(replace(call, arguments=given), context)

    def _tool_of(self, call: ToolCall) -> Tool:
        made = self._tools.get(call.name)
        if made is None:
            message = f"there is no tool {call.name!r}; there are: {', '.join(self._tools) or 'none'}"
            raise UnknownTool(message)
        return made
