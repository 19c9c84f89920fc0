"""Hosts that requests to an MCP server may reach. Pure.

A declaration with ``http://127.0.0.1:8000/mcp`` has chosen that machine. A name is something else: its owner decides
where it leads, today there and tomorrow into the network of this machine. And the addresses of authorization servers
are chosen by the MCP server.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from agentkit.errors import AddressRefused
from agentkit.mcp.servers import McpServer
from agentkit.net.hosts import HostRule
from agentkit.net.http_client import RuleFor

_PORTS = {"http": 80, "https": 443}


class _Place(NamedTuple):
    scheme: str
    host: str
    port: int


def hosts_of(server: McpServer) -> RuleFor:
    """The rules for a resolved server.

    Its own host, as it is written; with authorization also the issuer that is declared, and the hosts that are named
    for it; of others those of the internet, by https.
    """
    assert server.url is not None
    own = _place(server.url)
    issuer = None if server.oauth is None or server.oauth.issuer is None else _place(server.oauth.issuer)
    named = frozenset(() if server.oauth is None else (host.lower() for host in server.oauth.hosts))
    authorized = server.oauth is not None or server.auth is not None

    def rule_for(scheme: str, host: str, port: int) -> HostRule:
        place = _Place(scheme, host.lower(), port)
        if place == own:
            return _rule(place, private=server.private or is_chosen(place.host))
        if place.host in named:
            return _rule(place, private=True)
        if place == issuer:
            return _rule(place, private=is_chosen(place.host))
        if not authorized:
            raise AddressRefused(f"{host}:{port} is not the host of {server.name}")
        if scheme != "https":
            raise AddressRefused(f"{host}:{port} may be asked for tokens by https alone")
        return _rule(place, private=False)

    return rule_for


def is_chosen(host: str) -> bool:
    """It leads where it is written that it leads: an address, or this machine by its usual name."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _rule(place: _Place, *, private: bool) -> HostRule:
    return HostRule(host=place.host, port=place.port, private=private)


def _place(url: str) -> _Place:
    parts = urlsplit(url)
    return _Place(parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0))
