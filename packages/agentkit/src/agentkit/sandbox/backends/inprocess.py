"""Functions in this process: for tools that are trusted, with a deadline and with limits of what comes out."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agentkit.errors import ToolError, ToolTimeout
from agentkit.messages import JsonValue
from agentkit.sandbox.backends.base import Backend
from agentkit.sandbox.errors import BadResult, FunctionRaised, ResultTooLarge, SandboxRefused
from agentkit.sandbox.port import CallTerms, CallUsage, Capabilities, Capability, Returned, State
from agentkit.untrusted.boundary import is_meant_for, task_here


class InProcess(Backend):
    """No isolation at all. A function that does not end is left behind in its thread: nobody can stop it here."""

    name = "inprocess"

    @property
    def capabilities(self) -> Capabilities:
        """Nothing is held but the result and the time that is waited."""
        controls = dict.fromkeys(Capability, State.NONE)
        return Capabilities(backend=self.name, controls=controls, means="nothing: trusted functions only")

    async def call_on(self, function: str, arguments: Mapping[str, JsonValue], terms: CallTerms) -> Returned:
        """Call a function by its name; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        if terms.grants.hosts or terms.grants.secrets:
            message = "the sandbox 'inprocess' hands nothing over: the function has what this process has"
            raise SandboxRefused(message)
        began = time.monotonic()
        seconds = terms.limits.seconds
        if terms.deadline is not None:
            seconds = max(0.0, min(seconds, terms.deadline - began))
        timer = asyncio.timeout(seconds)
        async with self.turn(terms, function):
            try:
                async with timer:
                    value = await _value_of(function, arguments)
            except TimeoutError as error:
                if not timer.expired():
                    raise _raised(function, error) from None
                message = f"{function} did not end in time, and was left behind"
                raise ToolTimeout(message) from None
        return Returned(
            value=_checked(value, terms.limits.result_bytes, function),
            usage=CallUsage(seconds=time.monotonic() - began),
        )


async def _value_of(name: str, arguments: Mapping[str, JsonValue]) -> Any:
    task = task_here()
    try:
        function = await _in_a_thread(_find, name)
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
        return await _in_a_thread(function, **arguments)
    except (ToolError, TimeoutError):
        raise
    except BaseException as error:  # whatever a function raises
        if is_meant_for(task, error):
            raise
        raise _raised(name, error) from None


def _raised(name: str, error: BaseException) -> FunctionRaised:
    kind, text = type(error).__name__, str(error)
    return FunctionRaised(
        f"{name} raised {kind}: {text}" if text else f"{name} raised {kind}", type=kind, text=text
    )


def _find(name: str) -> Any:
    module, _colon, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


async def _in_a_thread(function: Any, *given: Any, **arguments: Any) -> Any:
    """In a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:
            future.set_exception(ToolError(f"it raised {type(error).__name__}"))

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(function, *given, **arguments)
        except BaseException as raised:  # noqa: BLE001  (handed over to the awaiting side, whatever it is)
            error = raised
        with suppress(RuntimeError):  # the loop has ended before the function did
            loop.call_soon_threadsafe(deliver, value, error)

    threading.Thread(target=work, daemon=True, name="inprocess").start()
    return await future


def _checked(value: Any, most: int, name: str) -> JsonValue:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the result of {name} is no JSON: {error}"
        raise BadResult(message) from None
    if len(text) > most:
        message = f"the result of {name} has more than {most} bytes"
        raise ResultTooLarge(message)
    plain: JsonValue = json.loads(text)
    return plain
