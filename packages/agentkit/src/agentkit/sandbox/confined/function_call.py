"""Function call inside the child: the function is found and called, and its result or error is written."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from . import network
from .refusals import remarks

RESULT, CONTROL = 3, 4
"""The descriptors of a child, beside the usual three."""

LONGEST_MESSAGE = 4000
_OUT_OF_DISK = {errno.ENOSPC, errno.EFBIG}
_OF_THE_MACHINE = {errno.EIO, errno.ENFILE, errno.EDQUOT}
"""Errors that no limit of a call brings about."""

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


def load(folders: Iterable[str], wanted: Iterable[list[str]]) -> list[str]:
    """Load what calls will use. What cannot be loaded is reported, and again by the call.

    Args:
        folders: in which modules are looked for.
        wanted: modules, functions as ``module:name``, and functions with the text that they are called with.
    """
    known = set(sys.path)
    sys.path[:0] = [folder for folder in folders if folder not in known]
    problems: list[str] = []
    for name, *given in wanted:
        try:
            if given:
                find(name)(*given)
            elif ":" in name:
                find(name)
            else:
                importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  (whatever a module raises)
            problems.append(f"{name}: {type(error).__name__}: {error}"[:500])
    return problems


def settle_in(spec: dict[str, Any]) -> None:
    """Make this process look like one that was started for the call."""
    set_environment(spec["environment"])
    load(spec["path"], ())
    threading.stack_size(_THREAD_STACK_BYTES)
    if spec.get("cwd"):
        os.chdir(spec["cwd"])
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), _printing(1), _printing(2)
    if spec.get("doors"):
        network.explain()
    else:
        network.offer(CONTROL if spec["hosts"] else None)


def set_environment(variables: Mapping[str, str]) -> None:
    """Have these, and no others."""
    os.environ.clear()
    os.environ.update(variables)


def _printing(descriptor: int) -> TextIO:
    """A stream of a child: each line is on its way at once, and no character is too strange."""
    # open as long as the child is there
    return open(descriptor, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def call(spec: dict[str, Any]) -> None:
    """Call the function and write its envelope. Raises nothing."""
    try:
        value = _value_of(find(spec["function"]), spec["arguments"])
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what is reported)
        finish(json.dumps({"raised": describe_error(error), **remarks(spec, _own_folder(), error)}))
        return
    try:
        text = json.dumps({"value": value, **remarks(spec, _own_folder(), None)}, allow_nan=False)
    except BaseException as error:  # noqa: BLE001  (a result may do anything when it is looked at)
        raised = describe_error(error)
        finish(json.dumps({"raised": raised if raised["kind"] == "memory" else {**raised, "kind": "json"}}))
        return
    finish(text)


def _own_folder() -> str:
    return os.environ.get("TMPDIR", "")


def _value_of(function: Any, arguments: dict[str, Any]) -> Any:
    value: Any = function(**arguments)
    if not hasattr(value, "__await__"):
        return value
    import asyncio  # takes longer to load than all else in a jail together

    async def awaited() -> Any:
        return await value

    return asyncio.run(awaited())


def describe_error(error: BaseException) -> dict[str, str]:
    """Return the type, the message and the kind of an exception."""
    kind = "error"
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        kind = "memory"
    elif isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        kind = "machine"
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
