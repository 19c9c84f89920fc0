"""Kill switch: tools that a person has switched off. It holds from the next call on, over policies and approvals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from agentkit.errors import RunReleased, ToolHalted


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """What a call makes use of.

    Attributes:
        tools: the names of the tool: that of the call and, where it only passes the call on, of the one behind it.
        server: the MCP server that the tool belongs to; empty for none.
        pure: it changes nothing.
    """

    tools: tuple[str, ...]
    server: str = ""
    pure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """What is switched off; each with the reason, which the model is told.

    Attributes:
        tools: by name; ``*`` and ``?`` stand for what they stand for in names of files.
        servers: MCP servers, by name.
        run: the run itself; ``None`` where it may go on.
    """

    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    servers: Mapping[str, str] = field(default_factory=dict[str, str])
    run: str | None = None

    def refusal(self, use: ToolUse) -> ToolHalted | None:
        """Why this may not be used; ``None`` where it may."""
        for pattern, reason in self.tools.items():
            for tool in use.tools:
                if fnmatchcase(tool, pattern):
                    return ToolHalted(f"{tool} is switched off: {reason}")
        if use.server in self.servers:
            return ToolHalted(f"the server {use.server} is switched off: {self.servers[use.server]}")
        return None


NOTHING = Off()


class KillSwitch:
    """Stands between one run and everything that it does.

    A call that would make use of something that is off is refused, and the model is told why; one that is under way is
    cancelled. A run that is off is let go before its next call, and can be carried on. ::

        control = Control()
        running = asyncio.create_task(agent.run("…", control=control))
        control.kill_switch.set(Off(tools={"send_*": "complaints since noon"}))

    Args:
        look: finds out what is off as of now, and says so by :meth:`set`; awaited before each call that may change
            something. What it raises ends the carrying of the run.
    """

    def __init__(self, look: Callable[[], Awaitable[None]] | None = None) -> None:
        self._look = look
        self._off = NOTHING
        self._under_way: dict[asyncio.Timeout, ToolUse] = {}

    @property
    def off(self) -> Off:
        """What is switched off, as far as it is known."""
        return self._off

    def set(self, off: Off) -> None:
        """From now on this is off, and nothing else. To be called in the event loop of the run."""
        self._off = off
        now = asyncio.get_running_loop().time() if self._under_way else 0.0
        for scope, use in self._under_way.items():
            if (off.run is not None or off.refusal(use) is not None) and not scope.expired():
                scope.reschedule(now)

    def refusal(self, use: ToolUse) -> ToolHalted | None:
        """Why this may not be used, as far as it is known; ``None`` where it may.

        Raises:
            RunReleased: the run itself is off.
        """
        if self._off.run is not None:
            raise RunReleased
        return self._off.refusal(use)

    async def refusal_now(self, use: ToolUse) -> ToolHalted | None:
        """As :meth:`refusal`, as of now where it is a call that may change something.

        Raises:
            RunReleased: the run itself is off.
        """
        if self._look is not None and not use.pure:
            await self._look()
        return self.refusal(use)

    @asynccontextmanager
    async def passing(self, use: ToolUse) -> AsyncGenerator[None]:
        """Around a call: cancels it as soon as something of it is known to be switched off.

        Raises:
            ToolHalted: something of it is.
            RunReleased: the run is.
        """
        refusal = self.refusal(use)
        if refusal is not None:
            raise refusal
        scope = asyncio.timeout(None)
        self._under_way[scope] = use
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            why = self.refusal(use) or f"{use.tools[0]} was switched off for a moment"
            raise ToolHalted(f"{why}; it was at work, and it is not known what it has done") from None
        finally:
            del self._under_way[scope]
