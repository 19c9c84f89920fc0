"""Errors of calls in a sandbox.

::

    ToolError                   the model: it is shown the text
    ├── ToolTimeout             it did not end in time, and was killed
    ├── ToolStopped             it went over a limit, and was killed
    │   ├── MemoryExceeded
    │   ├── CpuExceeded
    │   ├── DiskExceeded
    │   ├── TooManyProcesses
    │   ├── OutputTooLarge
    │   └── ResultTooLarge
    ├── ToolCrashed             a signal ended it
    ├── FunctionRaised          the function raised; with its type and message
    ├── BadResult               what it left behind is no JSON
    │   └── NoResult            it ended without a result
    └── SandboxRefused          it asked for something that this sandbox does not do
    SandboxUnavailable          the operator: a control that is needed is missing here
"""

from __future__ import annotations

import signal as signals

from agentkit.errors import Actor, AgentkitError, ToolError


class ToolStopped(ToolError):
    """The call went over one of its limits, and was killed."""

    code = "tool_stopped"


class MemoryExceeded(ToolStopped):
    """The call needed more memory than it may have."""

    code = "tool_memory_exceeded"


class CpuExceeded(ToolStopped):
    """The call needed more seconds of a processor than it may have."""

    code = "tool_cpu_exceeded"


class DiskExceeded(ToolStopped):
    """The call wrote more to files than it may."""

    code = "tool_disk_exceeded"


class TooManyProcesses(ToolStopped):
    """The call had more processes and threads than it may have."""

    code = "tool_processes_exceeded"


class OutputTooLarge(ToolStopped):
    """The call printed more than it may."""

    code = "tool_output_too_large"


class ResultTooLarge(ToolStopped):
    """The result is larger than it may be."""

    code = "tool_result_too_large"


class ToolCrashed(ToolError):
    """A signal ended the call.

    Attributes:
        signal: its number.
    """

    code = "tool_crashed"

    def __init__(self, message: str | None = None, *, signal: int = 0) -> None:
        super().__init__(message)
        self.signal = signal

    @classmethod
    def by(cls, signal: int, what: str) -> ToolCrashed:
        """The error for ``what``, ended by this signal."""
        try:
            name = signals.Signals(signal).name
        except ValueError:
            name = f"signal {signal}"
        return cls(f"{what} was ended by {name}", signal=signal)


class FunctionRaised(ToolError):
    """The function raised.

    Attributes:
        type: the name of the exception's type.
        message: its text.
    """

    code = "tool_raised"

    def __init__(self, message: str | None = None, *, type: str = "", text: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.type = type
        self.message = text


class BadResult(ToolError):
    """What the call left as its result is no JSON that can be taken."""

    code = "tool_bad_result"


class NoResult(BadResult):
    """The call ended without a result."""

    code = "tool_no_result"


class SandboxRefused(ToolError):
    """The call asked for something that this sandbox does not do."""

    code = "sandbox_refused"


class SandboxUnavailable(AgentkitError):
    """A control that the sandbox needs is missing on this machine."""

    code = "sandbox_unavailable"
    actor = Actor.OPERATOR
