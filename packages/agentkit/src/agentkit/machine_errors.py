"""Errors of the machine: what the operating system reports when it has run out of something.

A tool that meets one has not failed: the same call succeeds when there is room again. They are recognised by the number
of the error, also where another exception was raised because of it.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

from agentkit.errors import MachineError

NUMBERS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO}
    | ({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())
)
"""Of errors that say nothing about the code that meets them."""

_STARTING = frozenset({"subprocess", "multiprocessing.popen_fork", "threading", "_posixsubprocess"})
"""Modules that start processes and threads: an ``EAGAIN`` from there is the limit of processes."""

_NEEDED_BYTES = 16 << 20
"""Memory that a machine has left which is not short of it."""

_MAX_LINKS = 50
_NUMBER = re.compile(r"\[Errno (\d{1,3})\]")


def machine_error(error: BaseException, *, began: bool = True) -> MachineError | None:
    """Return the error of the machine that an exception is, or that led to it; ``None`` where there is none.

    Args:
        error: any exception; what led to it, and the exceptions of a group, are looked at, too.
        began: the call that has met it may have had an effect.
    """
    root = root_of(error)
    if root is None or isinstance(root, MachineError):
        return root
    return _made(_number_of(root) or 0, began=began)


def root_of(error: BaseException) -> BaseException | None:
    """Return the exception by which the machine has reported it, among those that led to ``error``."""
    found = (each for each in _chain(error) if isinstance(each, MachineError) or _number_of(each) is not None)
    return next(found, None)


def machine_error_in(text: str) -> MachineError | None:
    """Return the error of the machine that the text of another process names; ``None`` where it names none.

    That process had to start a call, which has not begun then.
    """
    found = _NUMBER.search(text)
    number = 0 if found is None else int(found[1])
    return _made(number, began=False) if number in NUMBERS | {errno.EAGAIN} else None


@contextmanager
def before_the_call() -> Generator[None]:
    """Around what comes before a call: an error of the machine says that the call did not begin.

    Raises:
        MachineError: there was one.
    """
    try:
        yield
    except Exception as error:
        found = machine_error(error)
        if found is None:
            raise
        found.began = False
        if found is error:
            raise
        raise found from error


def _made(number: int, *, began: bool) -> MachineError:
    name = errno.errorcode.get(number, str(number))
    # not the text of the exception: it may name a path that is nobody's to read
    return MachineError(f"the machine reports {name}: {os.strerror(number)}", errno=number, began=began)


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        if error.errno in NUMBERS:
            return error.errno
        return errno.EAGAIN if error.errno == errno.EAGAIN and _is_of_a_start(error) else None
    if isinstance(error, MemoryError):
        return errno.ENOMEM if _is_out_of_memory(error) else None
    if isinstance(error, RuntimeError) and _is_of_a_start(error):
        return errno.EAGAIN if "can't start new thread" in str(error) else None
    return None


def _is_of_a_start(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") in _STARTING


def _is_out_of_memory(error: MemoryError) -> bool:
    """Whether memory is short for others, too: a tool that asks for more than there is has failed by itself."""
    traceback.clear_frames(error.__traceback__)  # what the tool has made counts as its own
    try:
        bytearray(_NEEDED_BYTES)
    except MemoryError:
        return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MAX_LINKS:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        led = (
            each.__cause__ or each.__context__
        )  # ``from None`` hides it from people, and it led to this all the same
        if led is not None:
            waiting.append(led)
        if isinstance(each, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", each).exceptions
