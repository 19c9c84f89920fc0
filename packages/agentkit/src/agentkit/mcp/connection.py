"""Connection to an MCP server: it runs in a task of its own, fails alone, and is opened again.

Why a task of its own: when a server goes away, the SDK's client cancels the task that has opened it. Here that
is the connection's own task; callers that wait for an answer get an error.

This module imports the SDK; it is imported when the first connection is to be opened.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import anyio
from httpx2 import DecodingError
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from mcp.shared.dispatcher import ProgressFnT
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation, ReadResourceResult, Resource
from pydantic import ValidationError

from agentkit.errors import McpUnavailable, ToolError, ToolTimeout, UsageError
from agentkit.machine_errors import machine_error
from agentkit.mcp.change_stream import Ear
from agentkit.mcp.definitions import MAX_TOOLS, Definition
from agentkit.mcp.elicitation import asking
from agentkit.mcp.oauth.flow import words_of
from agentkit.mcp.pool_context import PoolContext
from agentkit.mcp.processes import AS_IT_IS
from agentkit.mcp.servers import McpServer
from agentkit.mcp.transports import FATE, Fate, Way, way_to
from agentkit.untrusted.secrets import Secrets
from agentkit.untrusted.text import visible

log = logging.getLogger("agentkit.mcp")

Result = TypeVar("Result")

_TRIES = 3
"""So often reaching an address is tried for one caller; a program that does not start will not start then, either."""
_MAX_WAITS = 4
"""So often a busy server is asked again when it has said to."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
FRESH_SECONDS = 60.0
"""After that the tools are listed anew before one is called: a server may change them and say nothing."""
_CANCEL_SECONDS = 1.0
"""So long it may take to tell a server that a call is given up."""
_PAGES = 100
_MAX_WORDS = 300
_CLOSED = "Connection closed"
_FROM_A_STATUS = {"Server returned an error response", "Not Found", "Session terminated"}


class _Lost(Exception):
    """The connection ended before the answer came.

    Attributes:
        refused: the server has not taken the call.
    """

    def __init__(self, reason: str, *, refused: bool) -> None:
        super().__init__(reason)
        self.refused = refused


class _Busy(ToolError):
    """The server has refused the call, and says when it will take it.

    Attributes:
        seconds: until then.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(eq=False)
class _Live:
    """An open connection.

    Attributes:
        client: of the SDK.
        way: the transport under it.
        tools: as they were listed last.
        over: resolved when the connection has ended.
        listed_at: when, by the clock of the event loop.
        stale: the server has said that its tools have changed, or it may have and was not heard.
    """

    client: Client
    way: Way
    tools: Sequence[Definition]
    over: asyncio.Future[None]
    listed_at: float
    stale: bool = False
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def changed(self) -> None:
        """The tools are to be listed anew before the next one is called."""
        self.stale = True


class Connection:
    """Calls one server, for any number of runs of one event loop. Opened by the first call.

    Args:
        server: as declared.
        here: what all connections of its pool find.

    Attributes:
        last_words: what the server said beside its messages before its end, for the operator alone.
    """

    def __init__(self, server: McpServer, here: PoolContext) -> None:
        self.server = server
        self._here = here
        self._live: _Live | None = None
        self._opening: asyncio.Task[_Live] | None = None
        self._hosts: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._not_before = 0.0
        self._why = ""
        self.last_words = ""
        self._secrets = Secrets()

    @property
    def secrets(self) -> Secrets:
        """What the server was given, with the tokens that were sent to it."""
        tokens = () if self._live is None else self._live.way.tokens
        return self._secrets.also(("token", token) for token in tokens) if tokens else self._secrets

    @property
    def revision(self) -> str | None:
        """The revision of the protocol that is spoken, while there is a connection."""
        live = self._live
        return None if live is None or live.over.done() else live.client.protocol_version

    async def tools(self) -> Sequence[Definition]:
        """The tools as the server defines them now; those that may not be seen are left out.

        Raises:
            McpUnavailable: there is no connection to be had.
            ToolError: what the server sends is no listing.
        """
        live = await self._opened()
        try:
            await self._refresh(live)
        except _Lost:
            live = await self._opened()  # where they are listed, too
        return [tool for tool in live.tools if self.server.allows(tool.name)]

    async def _refresh(self, live: _Live) -> None:
        """See to it that what was listed is what the server says now, as far as one can know."""
        clock = asyncio.get_running_loop().time
        async with live.listing:
            if not live.stale and clock() - live.listed_at <= FRESH_SECONDS:
                return
            live.stale = False  # what is said from now on counts again
            try:
                live.tools = await self._use(live, _listed)
            except BaseException:
                live.stale = True
                raise
            live.listed_at = clock()

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        progress: ProgressFnT | None = None,
        again: bool = False,
    ) -> CallToolResult:
        """Call a tool; a result that says that it failed is one, too.

        Args:
            tool: the server's name for it.
            arguments: a JSON object.
            progress: told about the progress that the server reports.
            again: the call may be repeated, once, where the connection is lost meanwhile.

        Raises:
            McpUnavailable: there is no connection to be had, or it was lost meanwhile.
            ToolTimeout: there was no answer within ``call_seconds``; the server was told that none is wanted any more.
            ToolError: the server refuses the call.
        """

        async def do(client: Client) -> CallToolResult:
            return await client.call_tool(tool, dict(arguments), progress_callback=progress)

        return await self._ask(do, again=again)

    async def resources(self) -> Sequence[Resource]:
        """What the server offers to be read.

        Raises:
            McpUnavailable, ToolTimeout, ToolError: as :meth:`call`.
        """

        async def do(client: Client) -> Sequence[Resource]:
            return await _all_pages(client.list_resources, "resources")

        return await self._ask(do, again=True)

    async def read(self, uri: str) -> ReadResourceResult:
        """Read a resource.

        Raises:
            McpUnavailable, ToolTimeout, ToolError: as :meth:`call`.
        """

        async def do(client: Client) -> ReadResourceResult:
            return await client.read_resource(uri)

        return await self._ask(do, again=True)

    async def aclose(self) -> None:
        """End the connection, and the process behind it."""
        if self._opening is not None:
            self._opening.cancel()
        if self._live is not None:
            self._live.way.over.set()
        if self._hosts:
            await asyncio.wait(self._hosts, timeout=_LONGEST_PAUSE)
        for host in self._hosts:
            host.cancel()

    # --- calls ----------------------------------------------------------------------------------------------------

    async def _ask(self, do: Callable[[Client], Awaitable[Result]], *, again: bool) -> Result:
        clock, outcome = asyncio.get_running_loop().time, "cancelled"
        began = clock()
        try:
            result = await self._asked_patiently(do, began + self.server.call_seconds, again=again)
            outcome = "failed" if getattr(result, "is_error", False) else "ok"
            return result
        except ToolError as error:
            outcome = error.code
            raise
        finally:
            self._here.watch.called(self.server.name, outcome, clock() - began)

    async def _asked_patiently(
        self, do: Callable[[Client], Awaitable[Result]], until: float, *, again: bool
    ) -> Result:
        """Ask again when a busy server will take the call, where it may be repeated and that is soon enough."""
        for _ in range(_MAX_WAITS):
            try:
                return await self._asked(do, again=again)
            except _Busy as busy:
                seconds = max(busy.seconds, _FIRST_PAUSE)
                if not again or asyncio.get_running_loop().time() + seconds >= until:
                    raise
                log.info("%s; the call is made again in %.1f s", busy, seconds)
            await asyncio.sleep(seconds * random.uniform(1.0, 1.2))  # noqa: S311  (no secret)
        return await self._asked(do, again=again)

    async def _asked(self, do: Callable[[Client], Awaitable[Result]], *, again: bool) -> Result:
        try:
            return await self._use(await self._opened(), do)
        except _Lost as lost:
            if not (again or lost.refused):
                unknown = "it is not known whether the call took effect"
                raise McpUnavailable(f"{self.server.name} went away ({lost}): {unknown}") from None
        try:
            return await self._use(await self._opened(), do)
        except _Lost as lost:
            raise McpUnavailable(f"{self.server.name} went away twice ({lost})") from None

    async def _use(self, live: _Live, do: Callable[[Client], Awaitable[Result]]) -> Result:
        """What ``do`` makes of the client, in a task of its own: whatever ends that task, it is not the caller's."""
        fate = Fate()
        work: asyncio.Task[Result] = asyncio.create_task(_awaited(do, live.client, fate))
        timer = asyncio.timeout(self.server.call_seconds)
        try:
            async with timer:
                await asyncio.wait(
                    cast("set[asyncio.Future[Any]]", {work, live.over}), return_when=asyncio.FIRST_COMPLETED
                )
        except (asyncio.CancelledError, TimeoutError):
            await _given_up(work)
            if not timer.expired():
                raise
            seconds = f"{self.server.call_seconds:g} s"
            raise ToolTimeout(f"{self.server.name} did not answer within {seconds}") from None
        if not work.done():
            await _given_up(work)
        return self._result_of(work, live, fate)

    def _result_of(self, work: asyncio.Task[Result], live: _Live, fate: Fate) -> Result:
        error = None if not work.done() or work.cancelled() else work.exception()
        if error is None and work.done() and not work.cancelled():
            return work.result()
        if error is None or live.way.over.is_set() or _says_that_it_is_over(error):
            live.way.over.set()
            raise _Lost(live.way.reason or "the connection ended", refused=fate.refused) from None
        log.debug("%s: %s", self.server.name, type(error).__name__)
        words = fate.refusal if fate.refusal and _says_nothing(error) else _words_of(error)
        message = f"{self.server.name}: {words}"
        if fate.retry_after is not None and _says_nothing(error):
            raise _Busy(message, fate.retry_after) from None
        raise ToolError(message) from None

    # --- opening --------------------------------------------------------------------------------------------------

    async def _opened(self) -> _Live:
        if self._live is not None and not self._live.over.done() and not self._live.way.over.is_set():
            return self._live
        if self._opening is None:
            left = self._not_before - asyncio.get_running_loop().time()
            if left > 0:
                message = f"{self.server.name} cannot be reached ({self._why}); tried again in {left:.0f} s"
                raise McpUnavailable(message)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opening_is_over)
        return await asyncio.shield(self._opening)  # others wait for it, too

    def _opening_is_over(self, opening: asyncio.Task[_Live]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # seen, also where nobody waits any more

    async def _open(self) -> _Live:
        once = self.server.command is not None or self._here.login is not None  # nobody logs in three times
        pause, tries = _FIRST_PAUSE, 1 if once else _TRIES
        for last in (False,) * (tries - 1) + (True,):
            try:
                self._live = await self._open_once()
            except McpUnavailable as error:
                self._here.watch.opened(self.server.name, error.code)
                self._why = str(error).removeprefix(f"{self.server.name}: ")
                if last:
                    break
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (no secret)
                pause *= 2
            else:
                self._failures = 0
                return self._live
        self._failures += 1
        longer = min(_LONGEST_PAUSE, 2.0 ** (self._failures - 1))
        self._not_before = asyncio.get_running_loop().time() + longer
        words = f" (it said: {self.last_words})" if self.last_words else ""
        log.warning("MCP server %s cannot be reached: %s%s", self.server.name, self._why, words)
        raise McpUnavailable(f"{self.server.name} cannot be reached: {self._why}")

    async def _open_once(self) -> _Live:
        try:
            server = self.server.resolved(self._here.variables, self._here.folder)
        except UsageError as error:
            raise McpUnavailable(str(error)) from None
        self._secrets = self.server.secrets(self._here.variables)
        ready: asyncio.Future[_Live] = asyncio.get_running_loop().create_future()
        way = way_to(server, self._here, self._secrets.hidden)
        host = asyncio.create_task(self._host(server, way, ready), name=f"mcp-{server.name}")
        self._hosts.add(host)
        host.add_done_callback(self._hosts.discard)
        try:
            async with asyncio.timeout(server.connect_seconds):
                return await ready
        except TimeoutError:
            host.cancel()
            self.last_words = self._secrets.hidden(way.last_words)
            await asyncio.wait({host}, timeout=_CANCEL_SECONDS)
            jailed = server.command is not None and server.sandbox == "jail"
            hint = f"; in the jail it reaches what is granted (hosts): {AS_IT_IS}" if jailed else ""
            raise McpUnavailable(f"no answer within {server.connect_seconds:g} s{hint}") from None
        except asyncio.CancelledError:
            host.cancel()
            raise

    async def _host(self, server: McpServer, way: Way, ready: asyncio.Future[_Live]) -> None:
        """Live as long as the connection does. Whatever the SDK does to this task happens to nobody else."""
        live: _Live | None = None
        try:
            async with AsyncExitStack() as stack:
                client = Client(
                    way,
                    cache=None,  # what is listed is kept here
                    elicitation_callback=asking(server.name, self._here.elicit),
                    client_info=Implementation(name="opspawn", version="1"),
                    message_handler=lambda message: _heard(message, live),
                )
                await stack.enter_async_context(client)
                # A schema is somebody else's data: a pattern in it could keep its validator, and this loop, busy.
                setattr(client.session, "validate_tool_result", _not_validated)  # noqa: B010  (a method, for mypy)
                loop = ready.get_loop()
                live = _Live(client, way, await _listed(client), loop.create_future(), loop.time())
                self._here.watch.opened(self.server.name, None)
                if not ready.done():
                    ready.set_result(live)
                async with Ear(client, live.changed):
                    await way.over.wait()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (told to whoever waits, whatever it is)
            refusal = way.refusal if _says_nothing(error) else ""
            way.reason = way.reason or refusal or _words_of(error)
            way.machine_error = way.machine_error or machine_error(error, began=False)
        finally:
            self.last_words = self.secrets.hidden(way.last_words)
            if not ready.done():
                unavailable = McpUnavailable(way.reason or "it does not speak MCP")
                ready.set_exception(way.machine_error or unavailable)
                ready.exception()  # seen, also where nobody waits any more
            if live is not None:
                self._here.watch.closed(self.server.name)
                if not live.over.done():
                    live.over.set_result(None)


async def _awaited(do: Callable[[Client], Awaitable[Result]], client: Client, fate: Fate) -> Result:
    FATE.set(fate)
    return await do(client)


async def _given_up(work: asyncio.Task[Any]) -> None:
    """Cancel a call, and wait until the server has been told."""
    work.cancel()
    await asyncio.wait({work}, timeout=_CANCEL_SECONDS)
    if work.done() and not work.cancelled():
        work.exception()  # seen


async def _not_validated(_name: str, _result: Any) -> None:
    return None


async def _heard(message: Any, live: _Live | None) -> None:
    if live is not None and getattr(message, "method", "") == "notifications/tools/list_changed":
        live.changed()


async def _listed(client: Client) -> Sequence[Definition]:
    """All tools. Raises ToolError."""
    tools = await _all_pages(client.list_tools, "tools")
    found = [Definition.of(tool.model_dump(by_alias=True, mode="json", exclude_none=True)) for tool in tools]
    if len(found) > MAX_TOOLS:
        raise ToolError(f"it lists more than {MAX_TOOLS} tools")
    return found


async def _all_pages(ask: Callable[..., Awaitable[Any]], name: str) -> list[Any]:
    """All pages of a list. A cursor that is empty, or was there before, ends it; what a page repeats counts once."""
    found: list[Any] = []
    cursor: str | None = None
    cursors: set[str] = set()
    for _page in range(_PAGES):
        try:
            page = await ask(cursor=cursor)
        except MCPError as error:
            if not found or _says_that_it_is_over(error):
                raise
            log.warning("an MCP server breaks its list of %s off: %s", name, _words_of(error))
            break
        new = [item for item in getattr(page, name) if item not in found] if found else getattr(page, name)
        found += new
        cursor = page.next_cursor
        if not cursor or cursor in cursors or len(found) > MAX_TOOLS:
            break
        cursors.add(cursor)
    return found


def _says_nothing(error: BaseException) -> bool:
    """An error that the SDK has made from the status of an answer."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return isinstance(error, MCPError) and str(error) in _FROM_A_STATUS


def _says_that_it_is_over(error: BaseException) -> bool:
    if isinstance(error, MCPError):  # servers use this code for errors of their own
        return error.code == CONNECTION_CLOSED and str(error) == _CLOSED
    return isinstance(error, OSError | anyio.ClosedResourceError | anyio.BrokenResourceError)


def _words_of(error: BaseException) -> str:
    """What an error says, for people: of those that are made to be shown the text, of others the type."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, ToolError | MCPError | OAuthFlowError):
        said = words_of(error) if isinstance(error, OAuthFlowError) else str(error)
        text = str(visible(said))
        return text if len(text) <= _MAX_WORDS else f"{text[:_MAX_WORDS]} …"
    if isinstance(error, DecodingError):
        return str(error)
    if isinstance(error, RuntimeError) and "protocol version" in str(
        error
    ):  # the SDK's words and the server's
        return str(visible(str(error)))[:_MAX_WORDS]
    if isinstance(error, ValidationError):
        return "what it sends is not of its protocol"
    return type(error).__name__
