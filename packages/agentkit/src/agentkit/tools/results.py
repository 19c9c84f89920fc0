"""Results of tools: awaited, collected and converted to JSON as a part of the call; and the text of failures.

A result may be evaluated late (a generator, a query, a computed field), so that converting it takes long, runs code of
the tool's author, and may raise. All of it belongs to the call: to its thread, its time limit, its sandbox. A tool that
has returned has taken effect: where its result cannot be shown, the text says so, and not that the call has failed.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast
from weakref import ProxyTypes

from agentkit.errors import (
    AgentkitError,
    BadArguments,
    ResultUnavailable,
    ToolDenied,
    ToolError,
    ToolHalted,
    UnknownTool,
    UsageError,
)
from agentkit.messages import JsonValue
from agentkit.schema import MAX_ITEMS, to_json_value
from agentkit.untrusted.secrets import redacted
from agentkit.untrusted.text import visible

MAX_LOOKS = 1000
"""Values of a result that are looked at in the event loop; a larger one is converted in a thread."""

_MAX_TOLD = 4
_MAX_LOGGED = 2000
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_REFUSALS = frozenset({each.code for each in (BadArguments, ToolDenied, ToolHalted, UnknownTool)})
"""Codes of calls that never began: sums of amounts leave them out, so a sandbox has no say in them."""
_PLAIN = frozenset({str, int, float, bool, type(None)})

log = logging.getLogger("agentkit.tools")


# --- results -----------------------------------------------------------------------------------------------------


def is_pending(value: Any) -> bool:
    """Whether a function has returned something that is still to be awaited."""
    try:
        if inspect.isawaitable(value):
            return True
        return isinstance(value, AsyncIterable) and not isinstance(value, Iterable)
    except Exception:  # noqa: BLE001  (a proxy may raise when its class is looked at: that is no failure of the call)
        return False


async def settle(value: Any) -> Any:
    """What an awaitable comes to; the items of an asynchronous iterable as a list."""
    while is_pending(value):
        if inspect.isawaitable(value):
            value = await value
        else:
            value = await _collected(value)
    return value


async def _collected(items: Any) -> list[Any]:
    found: list[Any] = []
    if not hasattr(items, "aclose"):
        return await _all_of(items, found)
    async with aclosing(items):
        return await _all_of(items, found)


async def _all_of(items: AsyncIterable[Any], found: list[Any]) -> list[Any]:
    async for item in items:
        found.append(item)
        if len(found) > MAX_ITEMS:
            break
    return found


def is_plain(value: Any, looks: int = MAX_LOOKS) -> bool:
    """Whether a value is JSON already, as far as its types say, and small: then it is quick to convert."""
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        looks -= 1
        if looks < 0:
            return False
        if type(each) is dict:
            fields = cast("dict[object, Any]", each)
            if any(type(name) is not str for name in fields):
                return False
            waiting += fields.values()
        elif type(each) in (list, tuple):
            waiting += each
        elif type(each) not in _PLAIN:
            return False
        if len(waiting) > looks:
            return False
    return True


def to_result(tool: str, value: Any) -> JsonValue:
    """A result as JSON. What an iterator raises meanwhile is raised: its code is the body of the tool.

    Raises:
        ResultUnavailable: JSON cannot express it.
    """
    if is_iterator(value):
        value = _read(cast("Iterator[object]", value))
    if type(value) is list and len(cast("list[object]", value)) > MAX_ITEMS:
        raise ResultUnavailable.of(tool, f"it goes on for more than {MAX_ITEMS} items")
    try:
        return to_json_value(value)
    except UsageError as error:
        raise ResultUnavailable.of(tool, str(error)) from error.__cause__
    except MemoryError:
        raise
    except BaseException as error:
        raise ResultUnavailable.of(tool, f"reading it raised {type(error).__name__}") from error


def is_iterator(value: Any) -> bool:
    """Whether it is read item by item, by code of the tool."""
    try:
        kind = type(cast("object", value))
        return kind not in ProxyTypes and isinstance(value, Iterator)
    except Exception:  # noqa: BLE001  (as above)
        return False


def _read(items: Iterator[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        found.append(item)
        if len(found) > MAX_ITEMS:
            break
    return found


# --- failures ----------------------------------------------------------------------------------------------------


def failure(tool: str, error: BaseException) -> ToolError:
    """What the model is told of an exception, wherever the tool runs.

    The text of one that is no ToolError may hold secrets and data of others: the model reads its type and its place.
    Whoever develops the tool finds the text in the debug log of ``agentkit.tools``, without what looks like a secret.
    """
    told = _tool_error(tool, error)
    if not isinstance(error, AgentkitError):
        _log_failure(tool, str(told), text_of(error))
    return told


def _tool_error(tool: str, error: BaseException) -> ToolError:
    if isinstance(error, ToolError):
        return error
    if isinstance(error, AgentkitError):
        return ToolError(f"{tool} failed: {error.as_run_error().message}")
    return ToolError(f"{tool} failed with {described(error)}")


def _log_failure(tool: str, told: str, text: str) -> None:
    log.info("%s", told)
    log.debug("the exception of tool %s: %s", tool, text)


def described(error: BaseException) -> str:
    """The type and the place of an exception; of a group, those of the exceptions in it."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        told = [
            each.as_run_error().message if isinstance(each, AgentkitError) else described(each)
            for each in inner[:_MAX_TOLD]
        ]
        more = f" and {len(inner) - _MAX_TOLD} more" if len(inner) > _MAX_TOLD else ""
        return "; ".join(told) + more
    path, _colon, line = place_of(error).rpartition(":")
    where = f" at {Path(path).name}:{line}" if path else ""
    return f"{type(error).__name__[:200]}{where}"


def place_of(error: BaseException) -> str:
    """Where an exception was raised, as ``file:line``: what can be told of it without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"


def text_of(error: BaseException) -> str:
    """The text of an exception for a log: in one line, without what looks like a secret."""
    try:
        return str(visible(redacted(str(error)[:_MAX_LOGGED]))).replace("\n", "\\n")
    except BaseException:  # noqa: BLE001  (its __str__ is not ours)
        return "(it cannot be written)"


# --- from one process to another ---------------------------------------------------------------------------------


def to_envelope(error: BaseException, tool: str) -> dict[str, JsonValue]:
    """How a call ended that brought no result, for :func:`from_envelope`; what is logged is logged there."""
    if isinstance(error, ResultUnavailable):
        cause = error.__cause__
        return {"unavailable": error.reason, "text": None if cause is None else text_of(cause)}
    told = _tool_error(tool, error)
    text = None if isinstance(error, AgentkitError) else text_of(error)
    return {"failed": told.as_run_error().message, "code": told.code, "text": text}


def from_envelope(envelope: Mapping[str, Any], tool: str) -> ToolError:
    """The error that another process has told; its text for whoever develops the tool goes to the debug log."""
    match envelope:
        case {"unavailable": str(reason), "text": text}:
            if isinstance(text, str):
                log.debug("the result of tool %s: %s", tool, text)
            return ResultUnavailable.of(tool, reason)
        case {"failed": str(told), "code": str(code), "text": text}:
            if isinstance(text, str):
                _log_failure(tool, told, text)
            error = ToolError(told)
            if _CODE.fullmatch(code) and code not in _REFUSALS:
                error.code = code
            return error
        case _:
            return ToolError(f"{tool} left something else than a result")
