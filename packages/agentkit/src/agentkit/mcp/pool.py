"""Pool of MCP servers and their connections: one connection each, shared by all runs of an event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentkit.errors import UsageError
from agentkit.mcp.executables import found
from agentkit.mcp.oauth.tokens import Login, TokenFolder, default_tokens
from agentkit.mcp.pins import Pins
from agentkit.mcp.pool_context import Elicit, PoolContext, Unwatched, Watch
from agentkit.mcp.processes import AS_IT_IS, granted_to
from agentkit.mcp.proxy import McpProxy
from agentkit.mcp.servers import McpServer
from agentkit.mcp.toolset import McpToolset
from agentkit.sandbox import Grants, Sandboxes
from agentkit.sandbox.backends.jail import find_bubblewrap

if TYPE_CHECKING:
    from agentkit.mcp.connection import Connection

NOBODY = "nobody is logged in there"


@dataclass(slots=True)
class _Open:
    """The connections of one event loop, and how many blocks are using them."""

    users: int = 0
    sandboxes: Sandboxes = field(default_factory=lambda: Sandboxes(ahead=0))
    connections: dict[str, Connection] = field(default_factory=dict[str, "Connection"])


def _problem_of_jail(server: McpServer) -> str | None:
    if server.command is None or server.sandbox == "none":
        return None
    missing = [str(path) for path in (*server.read, *server.write) if not Path(path).exists()]
    if missing:
        return f"{missing[0]} is granted, and does not exist"
    if sys.platform == "linux" and find_bubblewrap() is not None:
        return None
    return f"the jail needs Linux, and bubblewrap: {AS_IT_IS}"


class McpPool:
    """MCP servers by name. A connection is opened by the first call that needs it, and closed with the pool.

    ::

        async with McpPool([McpServer(name="time", command="mcp-server-time")]) as pool:
            agent = Agent("openai:gpt-5.5", tools=[pool.toolset("time")])
            outcome = await agent.run("What time is it in Oslo?")

    Toolsets may be made before the pool is opened. It may be opened more than once, by nested blocks and by several
    event loops; each loop has connections of its own.

    Args:
        servers: see there.
        pins: what was approved; without them, everything that a server offers may be used.
        variables: fill in ``${NAME}`` in the declarations; the environment of the process where not given.
        folder: where programs run; the working directory of the process where not given.
        tokens: where is kept what people have granted by logging in; in the home of whoever runs this where not given.
        login: a person who can log in now.
        elicit: a person who can answer what servers ask in the middle of a call. Without one they are told that nobody
            is there.

    Raises:
        UsageError: a declaration is wrong, or two servers have one name.

    Attributes:
        granted: what programs see in the jail, by the names of their servers: resolved once, and held.
    """

    def __init__(
        self,
        servers: Iterable[McpServer],
        *,
        pins: Pins | None = None,
        variables: Mapping[str, str] | None = None,
        folder: str = "",
        tokens: TokenFolder | None = None,
        login: Login | None = None,
        elicit: Elicit | None = None,
    ) -> None:
        self.servers: dict[str, McpServer] = {}
        for server in servers:
            try:
                server.checked()
            except UsageError as error:
                raise UsageError(f"MCP server {server.name!r}: {error}") from None
            if server.name in self.servers:
                raise UsageError(f"two MCP servers are called {server.name}")
            self.servers[server.name] = server
        self.pins = pins
        variables = os.environ if variables is None else variables
        self._variables = variables
        self._folder = folder
        self.granted = self._held()
        self._surroundings = partial(
            PoolContext,
            variables=variables,
            folder=folder,
            login=login,
            elicit=elicit,
            granted=self.granted,
        )
        self._login = login
        self._watch: Watch = Unwatched()
        self.tokens = tokens or default_tokens(variables)
        self._open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Open] = weakref.WeakKeyDictionary()

    def _held(self) -> dict[str, Grants]:
        """What programs see in the jail, resolved now; of those that cannot start yet, when they first do."""
        granted: dict[str, Grants] = {}
        for server in self.servers.values():
            if server.command is None or server.sandbox == "none":
                continue
            with suppress(UsageError):
                resolved = server.resolved(self._variables, self._folder)
                program = found(resolved.command or "", self._variables)
                if program is not None:
                    granted[server.name] = granted_to(resolved, program, self._variables)
        return granted

    def watch(self, watch: Watch) -> None:
        """Tell ``watch`` what happens over connections that are made from now on."""
        self._watch = watch

    def toolset(self, name: str) -> McpToolset:
        """The tools of a server, one by one.

        Raises:
            UsageError: there is no such server.
        """
        server = self.get(name)
        return McpToolset(server, partial(self.connection, name), self.pins)

    def proxy(self, names: Sequence[str]) -> McpProxy:
        """The tools of these servers, behind three.

        Raises:
            UsageError: there is no such server.
        """
        return McpProxy([self.toolset(name) for name in names])

    def get(self, name: str) -> McpServer:
        """The declaration of a server.

        Raises:
            UsageError: there is none of this name.
        """
        if name not in self.servers:
            known = ", ".join(self.servers) or "none"
            raise UsageError(f"there is no MCP server {name!r}; there are: {known}")
        return self.servers[name]

    def problem_of(self, name: str) -> str | None:
        """Why a server cannot be used as things stand, as far as can be said without asking it.

        Raises:
            UsageError: there is no such server.
        """
        server = self.get(name)
        if find_spec("mcp") is None:
            return "the SDK is not installed: install the extra opspawn-agentkit[mcp]"
        try:
            resolved = server.resolved(self._variables, self._folder)
        except UsageError as error:
            return str(error)
        if (problem := _problem_of_jail(resolved)) is not None:
            return problem
        if (problem := self.problem_of_login(name)) is not None:
            return problem
        return None if self.pins is None else self.pins.problem_of(server)

    def problem_of_login(self, name: str) -> str | None:
        """Why a server cannot be called in the name of a person, where it is to be; its variables are there.

        Raises:
            UsageError: there is no such server, or a variable is missing.
        """
        server = self.get(name).resolved(self._variables)
        if server.oauth is None or server.oauth.grant != "authorization_code" or self._login is not None:
            return None
        assert server.url is not None
        try:
            granted = self.tokens.read(server.name, server.url)
        except UsageError as error:
            return str(error)
        return NOBODY if granted is None else None

    def logging_in(self, name: str, login: Login, seconds: float = 300.0) -> McpPool:
        """Another pool, of one server, in which a person may log in.

        Args:
            name: of the server.
            login: the person.
            seconds: so long opening the connection may take: a person is slower than a server.

        Raises:
            UsageError: there is no such server.
        """
        server = replace(self.get(name), connect_seconds=seconds, call_seconds=seconds)
        return McpPool(
            [server], variables=self._variables, folder=self._folder, tokens=self.tokens, login=login
        )

    def connection(self, name: str) -> Connection:
        """The connection to a server, in this event loop; it may not be open yet.

        Raises:
            UsageError: the pool is not open here, or the SDK is not installed.
        """
        here = self._open.get(asyncio.get_running_loop())
        if here is None:
            raise UsageError("the pool of MCP servers is not open: use it in `async with pool:`")
        if name not in here.connections:
            try:
                from agentkit.mcp.connection import Connection
            except ImportError:
                raise UsageError("MCP needs the extra opspawn-agentkit[mcp]") from None
            here.connections[name] = Connection(
                self.get(name),
                self._surroundings(tokens=self.tokens, sandboxes=here.sandboxes, watch=self._watch),
            )
        return here.connections[name]

    async def __aenter__(self) -> Self:
        here = self._open.setdefault(asyncio.get_running_loop(), _Open())
        here.users += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        here = self._open[loop]
        here.users -= 1
        if here.users == 0:
            del self._open[loop]
            async with here.sandboxes:  # closed after the programs in them
                await asyncio.gather(*(each.aclose() for each in here.connections.values()))
