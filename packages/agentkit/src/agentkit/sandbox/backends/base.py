"""Base of the backends: the port, over one way to run a call."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self

from agentkit.errors import ToolTimeout
from agentkit.messages import JsonValue
from agentkit.sandbox.errors import SandboxRefused
from agentkit.sandbox.port import CallTerms, Capabilities, Exited, ProgramTerms, Returned, RunningProgram
from agentkit.sandbox.terms import CallLimits, Grants


class Backend(ABC):
    """A sandbox that has yet to say how it calls.

    Args:
        limits: of calls for which nothing else is said.
        concurrency: so many calls run at a time; others wait for their turn.
    """

    name = "backend"

    def __init__(self, *, limits: CallLimits, concurrency: int) -> None:
        self.limits = limits
        self._concurrency = concurrency
        self._slots: asyncio.Semaphore | None = None
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What it holds on this machine, as tried when it was opened."""
        assert self._capabilities is not None, "the sandbox is not open"
        return self._capabilities

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(  # noqa: B027  (not every sandbox has something to close)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    async def call(
        self,
        function: str,
        arguments: Mapping[str, JsonValue] | None = None,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
    ) -> Returned:
        """Call a function by its name; see :class:`~agentkit.sandbox.port.SandboxBackend`."""
        return await self.call_on(function, arguments or {}, self.terms(limits, grants, deadline))

    @abstractmethod
    async def call_on(self, function: str, arguments: Mapping[str, JsonValue], terms: CallTerms) -> Returned:
        """The same, with all that can be said about it."""

    async def run_program(
        self,
        program: Sequence[str],
        *,
        stdin: bytes = b"",
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
        folder: str | None = None,
    ) -> Exited:
        """Refused: this sandbox runs no programs."""
        message = f"the sandbox {self.name!r} runs no programs: the jail does"
        raise SandboxRefused(message)

    async def run_code(
        self,
        code: str,
        *,
        limits: CallLimits | None = None,
        grants: Grants | None = None,
        deadline: float | None = None,
        folder: str | None = None,
    ) -> Exited:
        """Refused: this sandbox runs nothing that it does not know by name."""
        message = f"the sandbox {self.name!r} runs no code that is handed to it: the jail does"
        raise SandboxRefused(message)

    def open_program(
        self, program: Sequence[str], terms: ProgramTerms | None = None
    ) -> AbstractAsyncContextManager[RunningProgram]:
        """Refused: this sandbox runs no programs."""
        message = f"the sandbox {self.name!r} runs no programs: the jail does"
        raise SandboxRefused(message)

    def terms(self, limits: CallLimits | None, grants: Grants | None, deadline: float | None) -> CallTerms:
        """What was said about a call, and what was not."""
        return CallTerms(
            limits=self.limits if limits is None else limits,
            grants=Grants() if grants is None else grants,
            deadline=deadline,
        )

    @asynccontextmanager
    async def turn(self, terms: CallTerms, what: str) -> AsyncGenerator[None]:
        """Wait for a turn, no longer than the deadline.

        Raises:
            ToolTimeout: it did not come in time.
        """
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._concurrency)
        left = None if terms.deadline is None else max(0.0, terms.deadline - time.monotonic())
        try:
            async with asyncio.timeout(left):
                await self._slots.acquire()
        except TimeoutError:
            message = f"{what} did not begin in time: {self._concurrency} others were running"
            raise ToolTimeout(message) from None
        try:
            yield
        finally:
            self._slots.release()
