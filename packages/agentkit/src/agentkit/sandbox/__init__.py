"""Where a tool runs: in this process, in a confined child, or in a jail.

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
    from agentkit.sandbox.backend import Backend
    from agentkit.sandbox.capabilities import Capabilities, Control, State
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
    from agentkit.sandbox.opening import BACKENDS, SandboxOptions, open_sandbox
    from agentkit.sandbox.port import (
        CallTerms,
        CallUsage,
        Exited,
        ProgramTerms,
        Returned,
        RunningProgram,
        SandboxBackend,
    )
    from agentkit.sandbox.sandboxes import Sandboxes
    from agentkit.sandbox.terms import Confinement, Grants, HostRule, Limits, ProgramLimits
else:
    __getattr__, __dir__ = exports(
        __name__,
        {
            "agentkit.errors": ("ToolTimeout",),
            "agentkit.sandbox.backend": ("Backend",),
            "agentkit.sandbox.capabilities": ("Capabilities", "Control", "State"),
            "agentkit.sandbox.conflicts": ("Trusted", "check_grants"),
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
                "ToolCrashed",
                "ToolStopped",
                "TooManyProcesses",
            ),
            "agentkit.sandbox.opening": ("BACKENDS", "SandboxOptions", "open_sandbox"),
            "agentkit.sandbox.port": (
                "CallTerms",
                "CallUsage",
                "Exited",
                "ProgramTerms",
                "Returned",
                "RunningProgram",
                "SandboxBackend",
            ),
            "agentkit.sandbox.sandboxes": ("Sandboxes",),
            "agentkit.sandbox.terms": ("Confinement", "Grants", "HostRule", "Limits", "ProgramLimits"),
        },
    )

__all__ = [
    "BACKENDS",
    "Backend",
    "BadResult",
    "CallTerms",
    "CallUsage",
    "Capabilities",
    "Confinement",
    "Control",
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
