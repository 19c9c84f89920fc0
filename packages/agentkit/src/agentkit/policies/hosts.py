"""URLs that lead to known hosts, however they are written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from agentkit.errors import UsageError
from agentkit.messages import JsonValue

# one reading only: no white space, no control characters, no backslashes, nothing beyond ASCII, nobody before an @
# (some readers take a ? or # right behind the host for a part of it)
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<place>[^/?#@\\]+)(?:/[!-\[\]-~]*|[?#][!-?A-\[\]-~]*)?"
)
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}|\*))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}

_MAX_CHARACTERS = 253


class _Place(NamedTuple):
    """A host in its one form, and its port; ``None`` for the port of the scheme."""

    host: str
    port: str | None
    is_address: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """A URL, or a bare ``host`` or ``host:port``, leads to one of these hosts.

    Only what every reader of URLs reads alike passes: plain ASCII, no user before an ``@``, no backslash, no white
    space. A name beyond ASCII must be given as ``xn--…``, an address in its usual form (``127.0.0.1``, not ``127.1``,
    ``0x7f000001`` or ``2130706433``). Which address a name leads to is for the HTTP client to check, when it connects.

    Attributes:
        allowed: ``example.com``, ``*.example.com`` (names below it, not itself), an IP address, each with ``:PORT`` or
            ``:*`` where it is not the scheme's own port.
        schemes: of URLs.

    Raises:
        UsageError: one of them is written wrongly, or there is none.
    """

    allowed: Collection[str]
    schemes: Collection[str] = ("https", "http")

    def __post_init__(self) -> None:
        if isinstance(self.allowed, str) or not self.allowed:
            message = "a rule about hosts needs a list of them"
            raise UsageError(message)
        for pattern in self.allowed:
            if _pattern(pattern) is None:
                message = (
                    f"{pattern!r} is no host: example.com, *.example.com or an IP address, with :PORT or :* where "
                    "needed; a name beyond ASCII as xn--…"
                )
                raise UsageError(message)

    def problem(self, value: JsonValue) -> str | None:
        """What is wrong with a URL."""
        if not isinstance(value, str):
            return "must be a URL"
        scheme, place = None, _place_of(value)
        if place is None:
            url = _URL.fullmatch(value)
            place = None if url is None else _place_of(url["place"])
            if url is None or place is None:
                return "must be a plain URL: ASCII, with a host, without a user, spaces or backslashes"
            scheme = url["scheme"].lower()
            if scheme not in self.schemes:
                return f"must be a URL with {' or '.join(self.schemes)}"
        if any(_fits(place, scheme, pattern) for pattern in self.allowed):
            return None
        return f"must lead to {', '.join(self.allowed)}"


def _pattern(text: str) -> _Place | None:
    place = _place_of(text.removeprefix("*."), port_may_be_any=True)
    return None if place is not None and place.is_address and text.startswith("*.") else place


def _fits(place: _Place, scheme: str | None, pattern: str) -> bool:
    wanted = _pattern(pattern)
    if wanted is None:
        return False
    if wanted.port != "*" and _port(place, scheme) != _port(wanted, scheme):
        return False
    if pattern.startswith("*."):
        return not place.is_address and place.host.endswith(f".{wanted.host}")
    return place.host == wanted.host


def _port(place: _Place, scheme: str | None) -> str | None:
    usual = _PORTS.get(scheme or "")
    return place.port if place.port is not None or usual is None else str(usual)


def _place_of(text: str, *, port_may_be_any: bool = False) -> _Place | None:
    """A host and a port; ``None`` for what is none, or could be read in two ways."""
    found = _PLACE.fullmatch(text)
    if found is None or (found["port"] == "*" and not port_may_be_any):
        return None
    host = found["host"].lower()
    port = found["port"] if found["port"] in (None, "*") else str(int(found["port"]))
    if host.startswith("["):
        return _address(host[1:-1], port, version=6)
    host = host.removesuffix(".")  # the root: the same host
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # as browsers do: what ends in a number is an address
        return _address(host, port, version=4)
    if len(host) > _MAX_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return _Place(host, port, is_address=False)


def _address(text: str, port: str | None, *, version: int) -> _Place | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version != version:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return _Place(str(mapped or address), port, is_address=True)
