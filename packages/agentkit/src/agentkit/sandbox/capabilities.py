"""What a sandbox really holds on this machine, control by control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a control is held."""

    ENFORCED = "enforced"
    """By the kernel, or by the worker at the end of the pipe: it cannot be passed."""
    POLLED = "polled"
    """It is looked at every few milliseconds, and whoever went over it is killed."""
    NONE = "none"
    """Not at all."""


class Control(StrEnum):
    """What is held back."""

    FILES = "files"
    NETWORK = "network"
    PROCESSES = "processes"
    SIGNALS = "signals"
    ENVIRONMENT = "environment"
    MEMORY = "memory"
    CPU = "cpu"
    DISK = "disk"
    DESCRIPTORS = "descriptors"
    OUTPUT = "output"
    TIME = "time"


NEEDED = (Control.FILES, Control.NETWORK, Control.PROCESSES, Control.SIGNALS, Control.MEMORY)
"""Without any one of these it is no sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What was found when a sandbox was opened.

    Attributes:
        backend: the name of the sandbox.
        controls: each with how it is held.
        means: by what, in a few words; for people.
    """

    backend: str
    controls: Mapping[Control, State]
    means: str

    @property
    def missing(self) -> tuple[Control, ...]:
        """Controls that a sandbox needs and that are not held at all."""
        return tuple(control for control in NEEDED if self.controls[control] is State.NONE)
