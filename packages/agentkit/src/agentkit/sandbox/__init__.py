"""Sandboxes for tools: this process, a confined child, or a jail.

::

    from agentkit.sandbox import Grants, Limits, open_sandbox

    async with open_sandbox("pool") as box:
        returned = await box.call("package.module:function", {"text": "…"}, limits=Limits(seconds=5))
        print(returned.value)
"""

from typing import TYPE_CHECKING

from agentkit.exports import exports

if TYPE_CHECKING:
    from agentkit.errors import ToolTimeout
    from agentkit.net.hosts import HostRule
    from agentkit.sandbox.backends.base import Backend
    from agentkit.sandbox.conflicts import Trusted, check_grants
    from agentkit.sandbox.errors import (
        BadResult,
        CpuExceeded,
        DiskExceeded,
        FunctionRaised,
        MemoryExceeded,
        NoResult,
        OutputTooLarge,
        ResultTooLarge,
        SandboxRefused,
        SandboxUnavailable,
        ToolCrashed,
        ToolStopped,
        TooManyProcesses,
    )
    from agentkit.sandbox.manager import BACKENDS, Sandboxes, SandboxOptions, open_sandbox
    from agentkit.sandbox.port import (
        CallTerms,
        CallUsage,
        Capabilities,
        Capability,
        Exited,
        ProgramTerms,
        Returned,
        RunningProgram,
        SandboxBackend,
        State,
    )
    from agentkit.sandbox.terms import Confinement, Grants, Limits, ProgramLimits
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.errors": ("ToolTimeout",),
            "agentkit.net.hosts": ("HostRule",),
            "agentkit.sandbox.backends.base": ("Backend",),
            "agentkit.sandbox.conflicts": (
                "Trusted",
                "check_grants",
            ),
            "agentkit.sandbox.errors": (
                "BadResult",
                "CpuExceeded",
                "DiskExceeded",
                "FunctionRaised",
                "MemoryExceeded",
                "NoResult",
                "OutputTooLarge",
                "ResultTooLarge",
                "SandboxRefused",
                "SandboxUnavailable",
                "TooManyProcesses",
                "ToolCrashed",
                "ToolStopped",
            ),
            "agentkit.sandbox.manager": (
                "BACKENDS",
                "SandboxOptions",
                "Sandboxes",
                "open_sandbox",
            ),
            "agentkit.sandbox.port": (
                "CallTerms",
                "CallUsage",
                "Capabilities",
                "Capability",
                "Exited",
                "ProgramTerms",
                "Returned",
                "RunningProgram",
                "SandboxBackend",
                "State",
            ),
            "agentkit.sandbox.terms": (
                "Confinement",
                "Grants",
                "Limits",
                "ProgramLimits",
            ),
        },
    )

__all__ = [
    "BACKENDS",
    "Backend",
    "BadResult",
    "CallTerms",
    "CallUsage",
    "Capabilities",
    "Capability",
    "Confinement",
    "CpuExceeded",
    "DiskExceeded",
    "Exited",
    "FunctionRaised",
    "Grants",
    "HostRule",
    "Limits",
    "MemoryExceeded",
    "NoResult",
    "OutputTooLarge",
    "ProgramLimits",
    "ProgramTerms",
    "ResultTooLarge",
    "Returned",
    "RunningProgram",
    "SandboxBackend",
    "SandboxOptions",
    "SandboxRefused",
    "SandboxUnavailable",
    "Sandboxes",
    "State",
    "TooManyProcesses",
    "ToolCrashed",
    "ToolStopped",
    "ToolTimeout",
    "Trusted",
    "check_grants",
    "open_sandbox",
]
