"""The sandboxes of a worker: each is opened when the first tool needs it, and all are closed with it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, Unpack

from agentkit.errors import UsageError
from agentkit.sandbox.backend import Backend
from agentkit.sandbox.opening import BACKENDS, SandboxOptions, open_sandbox


class Sandboxes:
    """Sandboxes by name, as an async context manager.

    Args:
        options: of each of them; see :class:`~agentkit.sandbox.opening.SandboxOptions`.
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
