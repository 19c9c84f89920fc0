"""HTTP client that connects only to an address which it has checked.

The source of a URL chooses who is connected to: a model, a document, a redirect. A name may lead inside, and
somewhere else when it is looked up for the second time. Here a name is looked up once, every address that it has is
looked at, and one of these very addresses is connected to; the server's name and its certificate are still those of the
URL. There is no proxy, no cookie and no connection that is used again, and what comes back has an end.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import httpcore2
import httpx2

from agentkit.errors import AddressRefused, ToolError, ToolTimeout, UsageError
from agentkit.machine_errors import machine_error
from agentkit.net.headers import header_problem
from agentkit.net.hosts import HostRule, is_public

if TYPE_CHECKING:
    import ssl

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, for a port."""

RuleFor: TypeAlias = Callable[[str, str, int], HostRule]
"""The rule for a scheme, a host and a port; raises AddressRefused where none allows it."""

MAX_BYTES = 4 << 20
SECONDS = 30.0
MAX_ADDRESSES = 4
"""So many addresses of a host are tried, one after the other."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"https": 443, "http": 80}
_PLAIN = re.compile(
    r"[!-\[\]-~]+"
)  # no white space, no control characters, no backslash, nothing beyond ASCII


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a server has answered.

    Attributes:
        status: of HTTP.
        headers: by their names in small letters.
        body: all of it.
        url: that has answered, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class GuardedClient:
    """Sends requests to hosts that it may reach.

    Args:
        hosts: ``HOST`` or ``HOST:PORT``, or rules; where not given, every host of the internet at its usual port. A
            host in a private network, or on this machine, needs a rule that says ``private=True``.
        schemes: ``https``; and ``http``, where somebody wants it.
        seconds: that a request may take, with its redirects.
        max_bytes: that a body may have.
        redirects: so many are followed, each looked at like the first URL; GET and HEAD only. To another host, port or
            scheme no header is taken along but ``Accept``.
        tls: how servers are checked; as usual where not given.
        resolve: looks names up; the system's own where not given.

    Raises:
        UsageError: a host or a scheme is written wrongly.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[HostRule | str] | None = None,
        schemes: Iterable[str] = ("https",),
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
        redirects: int = 3,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._rules = None if hosts is None else tuple(map(_rule, hosts))
        self._schemes = frozenset(schemes)
        if not self._schemes or not self._schemes <= _PORTS.keys():
            message = f"schemes: {' and '.join(_PORTS)} are known, not {', '.join(sorted(self._schemes))}"
            raise UsageError(message)
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._redirects = redirects
        self._tls = tls
        self._resolve = _addresses_of if resolve is None else resolve

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        seconds: float | None = None,
    ) -> Fetched:
        """Send a request, and take its answer whole.

        Args:
            method: of HTTP.
            url: with a host, and without a user.
            headers: that are sent; those that follow from the URL and the body, such as ``Host``, cannot be given.
            content: the body.
            seconds: that it may take, where that is less.

        Raises:
            AddressRefused: the URL, one that it was redirected to, or an address of its host must not be reached;
                nothing was connected to.
            ToolTimeout: it took too long.
            ToolError: the server cannot be reached, or its answer is too large or none.
            MachineError: there is no descriptor or memory for a connection.
            UsageError: a header cannot be sent.
        """
        for each in (headers or {}).items():
            if (problem := header_problem(*each)) is not None:
                raise UsageError(problem)
        allowed = self._seconds if seconds is None else min(seconds, self._seconds)
        try:
            async with asyncio.timeout(allowed):
                return await self._followed(method, url, dict(headers or {}), content)
        except TimeoutError:
            raise ToolTimeout(f"{_shown(url)} did not answer within {allowed:g} s") from None

    async def _followed(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None
    ) -> Fetched:
        left = self._redirects if method in {"GET", "HEAD"} else 0
        while True:
            place = self._checked(url)
            fetched = await self._sent(method, place, headers, content)
            target = fetched.headers.get("location")
            if fetched.status not in _REDIRECTS or target is None or left == 0:
                return fetched
            left -= 1
            following = self._checked(_following(place, target))
            if (following.scheme, following.host, _port_of(following)) != (
                place.scheme,
                place.host,
                _port_of(place),
            ):
                headers = {name: value for name, value in headers.items() if name.lower() == "accept"}
            url = str(following)

    def _checked(self, url: str) -> httpx2.URL:
        """The URL, if it may be asked at all; which address it leads to is looked at before it is connected to."""
        try:
            place = httpx2.URL(url) if _PLAIN.fullmatch(url) else None
        except (httpx2.InvalidURL, ValueError):
            place = None
        if place is None:
            raise AddressRefused("the URL cannot be read: plain ASCII, with a scheme and a host")
        if place.scheme not in self._schemes:
            raise AddressRefused(f"only {' and '.join(sorted(self._schemes))} URLs may be reached")
        if not place.host or place.userinfo:
            raise AddressRefused("a URL needs a host, and holds no user and no password")
        self._rule_for(place)
        return place

    def _rule_for(self, place: httpx2.URL) -> HostRule:
        host, port = place.host, _port_of(place)
        if self._rules is None:
            if port != _PORTS[place.scheme]:
                raise AddressRefused(f"{host}:{port}: only the usual port of {place.scheme} may be reached")
            return HostRule(host=host, port=port)
        rule = next((rule for rule in self._rules if rule.covers(host, port)), None)
        if rule is None:
            raise AddressRefused(f"{host}:{port} is not among the hosts that may be reached")
        return rule

    async def _sent(
        self, method: str, place: httpx2.URL, headers: Mapping[str, str], content: bytes | None
    ) -> Fetched:
        rule = self._rule_for(place)
        backend = _Checking(lambda _host, _port: rule, self._resolve)
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._usual_tls() if place.scheme == "https" else None,
            max_connections=1,
            network_backend=backend,
        )
        asked = httpx2.Request(
            method, place, headers={"accept-encoding": "identity", **headers}, content=content
        )
        try:
            async with (
                pool,
                pool.stream(
                    asked.method, str(asked.url), headers=asked.headers.raw, content=content
                ) as response,
            ):
                answered = httpx2.Headers(response.headers)
                body = await self._read(response.aiter_stream(), answered, place)
                return Fetched(
                    status=response.status, headers=dict(answered.items()), body=body, url=str(place)
                )
        except (
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
            OSError,
        ) as error:
            found = machine_error(error, began=not isinstance(error, httpcore2.ConnectError))
            if found is not None:
                raise found from error
            raise ToolError(f"{_shown(str(place))} cannot be used: {type(error).__name__}") from None

    def _usual_tls(self) -> ssl.SSLContext:
        """Made once: to read the certificates takes longer than a request to a near server."""
        if self._tls is None:
            self._tls = httpx2.create_ssl_context(trust_env=False)
        return self._tls

    async def _read(self, stream: AsyncIterator[bytes], headers: httpx2.Headers, place: httpx2.URL) -> bytes:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ToolError(f"{_shown(str(place))} answers compressed, which was not asked for")
        body = bytearray()
        async for piece in stream:
            body += piece
            if len(body) > self._max_bytes:
                raise ToolError(f"the answer of {_shown(str(place))} has more than {self._max_bytes} bytes")
        return bytes(body)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """For a client that keeps its connections: each one is opened to an address that was looked at.

    There is no proxy; whether redirects are followed is the client's business, and each one comes by here.

    Args:
        rule_for: says which hosts may be asked; looked at before each request.
        resolve: looks names up; the system's own where not given.
    """

    def __init__(self, rule_for: RuleFor, *, resolve: Resolve | None = None) -> None:
        checks = httpx2.create_ssl_context()  # once: it reads all certificates of the machine
        super().__init__(verify=checks)
        self._rules = rule_for
        self._allowed: dict[tuple[str, int], HostRule] = {}
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=checks,
            max_connections=None,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Checking(self._rule_of, _addresses_of if resolve is None else resolve),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As any other.

        Raises:
            AddressRefused: the host, or one of its addresses, must not be reached; nothing was connected to.
        """
        url = request.url
        if url.scheme not in _PORTS or not url.host:
            raise AddressRefused("only http and https URLs with a host may be reached")
        port = _port_of(url)
        self._allowed[url.host.lower(), port] = self._rules(url.scheme, url.host, port)
        return await super().handle_async_request(request)

    def _rule_of(self, host: str, port: int) -> HostRule:
        rule = self._allowed.get((host.lower(), port))
        if rule is None:
            raise AddressRefused(f"{host}:{port} is not among the hosts that may be reached")
        return rule


class _Checking(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were looked at, and never to a name."""

    def __init__(self, rule_for: Callable[[str, int], HostRule], resolve: Resolve) -> None:
        self._rule_for = rule_for
        self._look_up = resolve
        self._wires: Any = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to one of the host's addresses, if all of them may be reached.

        Raises:
            AddressRefused: one may not.
            OSError, httpcore2.ConnectError: none answers.
        """
        rule = self._rule_for(host.strip("[]"), port)
        addresses = list(dict.fromkeys(await self._look_up(host.strip("[]"), port)))
        if not rule.private and not all(map(is_public, addresses)):
            raise AddressRefused(f"{host} has an address that is not public")
        problem: Exception = OSError("no address")
        for address in addresses[:MAX_ADDRESSES]:
            try:
                wire: httpcore2.AsyncNetworkStream = await self._wires.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError as error:
                problem = error
            else:
                return wire
        raise problem

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise AddressRefused("sockets of files are not reached")

    async def sleep(self, seconds: float) -> None:
        """As any other."""
        await asyncio.sleep(seconds)


def _following(place: httpx2.URL, target: str) -> str:
    try:
        return str(place.join(target))
    except (httpx2.InvalidURL, ValueError):
        raise AddressRefused(f"{_shown(str(place))} redirects to a URL that cannot be read") from None


def _rule(given: HostRule | str) -> HostRule:
    return HostRule.of(given) if isinstance(given, str) else given


def _port_of(place: httpx2.URL) -> int:
    return place.port or _PORTS[place.scheme]


def _shown(url: str) -> str:
    """A URL as it may be told: what is asked for may hold a secret."""
    return url.partition("?")[0][:200]


async def _addresses_of(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]
