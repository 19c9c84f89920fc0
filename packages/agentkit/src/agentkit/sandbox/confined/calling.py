"""Inside: find the function, call it, and write what it returned or raised."""

from __future__ import annotations

import asyncio
import errno
import importlib
import inspect
import json
import os
import sys
import threading
from contextlib import suppress
from typing import Any, TextIO

from . import network

RESULT, CONTROL = 3, 4
"""The descriptors of a child, beside the usual three."""

LONGEST_MESSAGE = 4000
_OUT_OF_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_THREAD_STACK_BYTES = 2 << 20


def find(name: str) -> Any:
    """What stands at ``package.module:name``.

    Raises:
        ImportError: there is no such module.
        AttributeError: there is nothing of this name in it.
    """
    module, _colon, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def settle_in(spec: dict[str, Any]) -> None:
    """Make this process look like one that was started for the call."""
    os.environ.clear()
    os.environ.update(spec["environment"])
    known = set(sys.path)
    sys.path[:0] = [folder for folder in spec["path"] if folder not in known]
    threading.stack_size(_THREAD_STACK_BYTES)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), _printing(1), _printing(2)
    network.offer(CONTROL if spec["hosts"] else None)


def _printing(descriptor: int) -> TextIO:
    """A stream of a child: each line is on its way at once, and no character is too strange."""
    # open as long as the child is there
    return open(descriptor, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def call(spec: dict[str, Any]) -> None:
    """Call the function and write its envelope. Raises nothing."""
    try:
        value = _value_of(find(spec["function"]), spec["arguments"])
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what is told)
        finish(json.dumps({"raised": told(error)}))
        return
    try:
        text = json.dumps({"value": value}, allow_nan=False)
    except BaseException as error:  # noqa: BLE001  (a result may do anything when it is looked at)
        raised = told(error)
        finish(json.dumps({"raised": raised if raised["kind"] == "memory" else {**raised, "kind": "json"}}))
        return
    finish(text)


def _value_of(function: Any, arguments: dict[str, Any]) -> Any:
    value = function(**arguments)
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    return await value


def told(error: BaseException) -> dict[str, str]:
    """An exception as it may be told: its type, its message and its kind."""
    kind = "error"
    if isinstance(error, MemoryError):
        kind = "memory"
    elif isinstance(error, OSError) and error.errno in _OUT_OF_DISK:
        kind = "disk"
    try:
        message = str(error)[:LONGEST_MESSAGE]
    except BaseException:  # noqa: BLE001  (its __str__ is not ours either)
        message = ""
    return {"type": type(error).__name__[:200], "message": message, "kind": kind}


def report(text: str) -> None:
    """Show progress to whoever watches the run."""
    line = json.dumps({"report": str(text)[:LONGEST_MESSAGE]}) + "\n"
    with suppress(OSError):
        os.write(CONTROL, line.encode())


def finish(text: str) -> None:
    """Write the envelope, with what is still in the buffers of the outputs."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    with suppress(OSError):
        while rest:
            rest = rest[os.write(RESULT, rest) :]
