"""The public door."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from agentkit.errors import UsageError
from agentkit.sandbox.backend import Backend
from agentkit.sandbox.forkserver import Plan, Preload
from agentkit.sandbox.inprocess import InProcess
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
        at_once: so many calls run at a time; others wait for their turn. Four for each processor where not given.
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
    at_once: int
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
    at_once = options.get("at_once", max(4, 4 * (os.cpu_count() or 1)))
    if at_once < 1:
        message = f"sandbox: at_once must be positive, not {at_once}"
        raise UsageError(message)
    if backend == "inprocess":
        return InProcess(limits=limits, at_once=at_once)
    plan = Plan(
        path=options.get("path"),
        preload=options.get("preload", ()),
        without=options.get("without", ()),
    )
    made: dict[str, Any] = {
        "limits": limits,
        "at_once": at_once,
        "ahead": options.get("ahead", 2),
        "secrets": options.get("secrets", {}),
        "allow_degraded": options.get("allow_degraded", False),
    }
    if backend == "jail":
        from agentkit.sandbox.jail import Jail

        return Jail(plan, **made)
    from agentkit.sandbox.pool import Pool

    return Pool(plan, **made)
