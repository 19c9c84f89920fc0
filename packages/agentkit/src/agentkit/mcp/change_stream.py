"""Change stream: notifications of changed tools, where the protocol revision has a separate stream for them.

This module imports the SDK; it is imported when a connection is opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType

from mcp import Client

log = logging.getLogger("agentkit.mcp")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_END_SECONDS = 1.0


class Ear:
    """Listens as long as it is open. A stream that ends is opened again, after pauses that grow.

    Args:
        client: connected.
        changed: called when the tools have changed, or may have while nobody listened.
    """

    def __init__(self, client: Client, changed: Callable[[], None]) -> None:
        self._client = client
        self._changed = changed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        tools = self._client.server_capabilities.tools
        if tools is not None and tools.list_changed and self._client.protocol_version >= "2026":
            self._task = asyncio.create_task(self._listen())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_END_SECONDS)

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as events:
                    self._changed()  # what was said before was not heard
                    async for _event in events:
                        self._changed()
                        pause = _FIRST_PAUSE
            except Exception as error:  # noqa: BLE001  (whatever it was, it is tried again)
                log.debug("changes of tools are not heard: %s", type(error).__name__)
            self._changed()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
