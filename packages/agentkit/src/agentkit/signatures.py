"""Signatures of functions, methods, partials and callable objects, with their annotations resolved."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from agentkit.docstrings import Docstring, read_docstring
from agentkit.errors import UsageError

Function: TypeAlias = Callable[..., Any]
AnyFunction: TypeAlias = "Function | classmethod[Any, ..., Any] | staticmethod[..., Any]"
"""What may be a tool; the last two stand in the body of a class."""


class UnresolvedAnnotation(UsageError):
    """An annotation names something that is not defined (yet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a function declares.

    Attributes:
        parameters: in their order, without those that a partial has bound.
        hints: the annotations by parameter, with their metadata.
        doc: the docstring.
    """

    parameters: tuple[inspect.Parameter, ...]
    hints: Mapping[str, Any]
    doc: Docstring


def is_instance(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type that may be written in any way that type checkers read.

    What is inside of it is not looked at, nor whether it keeps a Protocol that cannot be looked at while it runs.
    """
    if type(value) is wanted:
        return True
    origin = get_origin(wanted)
    if wanted is Any:
        return True
    if wanted is None:
        return value is None
    if origin is Annotated:
        return is_instance(value, get_args(wanted)[0])
    if origin in (Union, UnionType):
        return any(is_instance(value, each) for each in get_args(wanted))
    if origin is Literal:
        return value in get_args(wanted)
    if is_typeddict(wanted):
        return isinstance(value, Mapping)
    inner = getattr(wanted, "__supertype__", None) or getattr(wanted, "__value__", None)
    if inner is not None and not isinstance(wanted, type):  # a NewType, an alias
        return is_instance(value, inner)
    try:
        return isinstance(value, origin or wanted)
    except TypeError:
        return True


def name_of(function: AnyFunction) -> str | None:
    """The name of a function; that of the class for a callable object, ``None`` where there is none."""
    target = _without_partials(function)
    name = getattr(target, "__name__", None)
    if name is None and callable(target):
        name = type(target).__name__
    return name if isinstance(name, str) else None


def doc_of(function: Function) -> str:
    """The docstring, without its indentation; empty for none."""
    target: Any = _without_partials(function)
    if _is_callable_object(target):
        kind = cast("type[object]", type(target))
        return inspect.getdoc(type(target).__call__) or inspect.getdoc(kind) or ""
    return inspect.getdoc(target) or ""


def is_async(function: Function) -> bool:
    """Whether a call only makes a coroutine or an asynchronous generator, and so never blocks."""
    target = _without_partials(function)
    if _is_callable_object(target):
        target = type(target).__call__
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


def needs_object(function: AnyFunction) -> bool:
    """Whether it is a method of a class that is not bound to an object: its first parameter is not an argument."""
    if getattr(function, "__self__", None) is not None:
        return False
    owner = str(getattr(function, "__qualname__", "")).rpartition(".")[0]
    if not owner or owner.endswith("<locals>"):
        return False
    if isinstance(function, classmethod):
        return True
    if isinstance(function, staticmethod):
        return False
    declared = _declared(function)
    first = None if declared is None else next(iter(declared.parameters.values()), None)
    return first is not None and (first.annotation is first.empty or first.name in {"self", "cls"})


def signature_of(function: Function, tool: str, names: Mapping[str, Any] | None = None) -> Signature:
    """The signature of a function.

    Args:
        function: or a partial, a bound method or a callable object.
        tool: what errors call it.
        names: what annotations may name beside the globals of the function's module.

    Raises:
        UnresolvedAnnotation: an annotation of a parameter names something that is not defined.
        UsageError: there is no signature, or an annotation is no type.
    """
    target = _without_partials(function)
    declared = _declared(function)
    if declared is None:
        message = f"tool {tool}: it does not say what its parameters are: wrap it in a function that does"
        raise UsageError(message)
    bound = _bound_by_partials(function)
    parameters = tuple(each for each in declared.parameters.values() if each.name not in bound)
    return Signature(
        parameters=parameters,
        hints=_hints(target, parameters, tool, names or {}),
        doc=read_docstring(doc_of(function), _all_names(target)),
    )


def names_of_caller() -> Mapping[str, Any]:
    """The classes that the functions around the declaration of a tool have defined: annotations may name them."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (as dataclasses and enum of the standard library do)
    found: dict[str, Any] = {}
    while frame is not None and frame.f_code.co_name != "<module>":
        for name, value in frame.f_locals.items():
            if isinstance(value, type) or get_origin(value) is not None:
                found.setdefault(name, value)
        frame = frame.f_back
    return found


def _all_names(target: Any) -> list[str]:
    """Also of what a partial has bound: its description is not for a model either."""
    declared = _declared(target)
    return [] if declared is None else list(declared.parameters)


def _declared(function: Function) -> inspect.Signature | None:
    try:
        if sys.version_info >= (3, 14):  # annotations are evaluated there when they are read
            import annotationlib

            return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def _hints(
    target: Any, parameters: tuple[inspect.Parameter, ...], tool: str, names: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Only of parameters: what a function returns is read from what it returns, whatever is declared."""
    if _is_callable_object(target):
        target = type(target).__call__
    if inspect.isclass(target):
        target = target.__init__
    target = inspect.unwrap(getattr(target, "__func__", target))
    declared = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    known = {**names, **getattr(target, "__globals__", {}), **_enclosed(target)}
    try:
        return _resolved(declared, known)
    except Exception as error:  # noqa: BLE001  (an annotation that is a text is code)
        which = f"tool {tool}: the annotation of parameter {_culprit(declared, known)}"
        if isinstance(error, NameError):
            raise UnresolvedAnnotation(f"{which} cannot be resolved: {error}") from None
        raise UsageError(f"{which} is not a type: {error}") from None


def _resolved(declared: Mapping[str, Any], known: dict[str, Any]) -> Mapping[str, Any]:
    return get_type_hints(
        SimpleNamespace(__annotations__=dict(declared)), globalns=known, localns={}, include_extras=True
    )


def _culprit(declared: Mapping[str, Any], known: dict[str, Any]) -> str:
    """The first parameter whose annotation cannot be resolved."""
    for name, annotation in declared.items():
        try:
            _resolved({name: annotation}, known)
        except Exception:  # noqa: BLE001  (as above)
            return name
    return ""


def _enclosed(target: Any) -> Mapping[str, Any]:
    """The names of enclosing functions that the function itself uses."""
    names = getattr(getattr(target, "__code__", None), "co_freevars", ())
    cells = getattr(target, "__closure__", None) or ()
    found: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it is not filled yet
            continue
    return found


def _without_partials(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return function


def _bound_by_partials(function: Any) -> frozenset[str]:
    """Arguments that a partial has bound by name: their values may be secrets, and are not the model's to change."""
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound |= set(function.keywords)
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return frozenset(bound)


def _is_callable_object(target: Any) -> bool:
    return not hasattr(target, "__name__") and callable(target)
