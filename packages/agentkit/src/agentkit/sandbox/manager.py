"""Sandboxes by name: opened when the first tool needs one, closed with the worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from agentkit.errors import UsageError
from agentkit.sandbox.backends.base import Backend
from agentkit.sandbox.backends.inprocess import InProcess
from agentkit.sandbox.child.fork_server import Plan, Preload
from agentkit.sandbox.terms import CallLimits

BACKENDS = ("inprocess", "pool", "jail")


class SandboxOptions(TypedDict, total=False):
    """What may be said about a sandbox; all of it optional.

    Attributes:
        limits: of calls for which nothing else is said.
        path: folders in which functions are looked for; ``sys.path`` of this process where not given. Of a folder that
            holds no installed packages, children read modules, and data that packages declare, and no other file.
        preload: loaded once, outside of any confinement, so that calls need not: modules, or functions as
            ``package.module:name``; one in a pair with a text is also called with it. What is not named is loaded by
            each call, in its child.
        secrets: values that calls may be granted, by name.
        concurrency: so many calls run at a time; others wait for their turn. Four for each processor where not given.
        ahead: so many children wait for calls.
        allow_degraded: the sandbox is opened although a control that it needs is missing here; which, its
            ``capabilities`` say.
        without: mechanisms (``namespaces``, ``landlock``, ``seccomp``) that are not used although the kernel has them:
            to see here how the sandbox does elsewhere.
    """

    limits: CallLimits
    path: Sequence[str]
    preload: Sequence[Preload]
    secrets: Mapping[str, str]
    concurrency: int
    ahead: int
    allow_degraded: bool
    without: Collection[str]


def open_sandbox(backend: str = "pool", **options: Unpack[SandboxOptions]) -> Backend:
    """A sandbox, as an async context manager.

    ::

        async with open_sandbox("pool") as box:
            returned = await box.call("statistics:mean", {"data": [1, 2, 4]})

    Args:
        backend: ``pool`` for functions; ``jail`` for programs, and for code that nobody has read; ``inprocess`` for
            functions that are trusted.
        options: see :class:`SandboxOptions`.

    Raises:
        UsageError: there is no such backend, or an option makes no sense.
        SandboxUnavailable: when it is entered: a control that it needs is missing on this machine.
    """
    if backend not in BACKENDS:
        message = f"a sandbox is one of {', '.join(BACKENDS)}, not {backend!r}"
        raise UsageError(message)
    limits = options.get("limits", CallLimits())
    concurrency = options.get("concurrency", max(4, 4 * (os.cpu_count() or 1)))
    if concurrency < 1:
        message = f"sandbox: concurrency must be positive, not {concurrency}"
        raise UsageError(message)
    if backend == "inprocess":
        return InProcess(limits=limits, concurrency=concurrency)
    plan = Plan(
        path=options.get("path"),
        preload=options.get("preload", ()),
        without=options.get("without", ()),
    )
    made: dict[str, Any] = {
        "limits": limits,
        "concurrency": concurrency,
        "ahead": options.get("ahead", 2),
        "secrets": options.get("secrets", {}),
        "allow_degraded": options.get("allow_degraded", False),
    }
    if backend == "jail":
        from agentkit.sandbox.backends.jail import Jail

        return Jail(plan, **made)
    from agentkit.sandbox.backends.pool import Pool

    return Pool(plan, **made)


class Sandboxes:
    """Sandboxes by name, as an async context manager.

    Args:
        options: of each of them; see :class:`~agentkit.sandbox.manager.SandboxOptions`.
    """

    def __init__(self, **options: Unpack[SandboxOptions]) -> None:
        self._options = options
        self._open: dict[str, Backend] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close those that were opened, and end what runs in them."""
        self._open.clear()
        await self._stack.aclose()

    async def get(self, name: str) -> Backend:
        """The sandbox of this name, open.

        Raises:
            UsageError: there is none of this name.
            SandboxUnavailable: a control that it needs is missing on this machine.
        """
        if name not in BACKENDS:
            message = f"a sandbox is one of {', '.join(BACKENDS)}, not {name!r}"
            raise UsageError(message)
        async with self._opening:
            if name not in self._open:
                self._open[name] = await self._stack.enter_async_context(open_sandbox(name, **self._options))
            return self._open[name]
