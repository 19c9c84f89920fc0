"""Public addresses: a host name from an untrusted source must not lead into the internal network."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from agentkit.errors import UsageError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given to anybody; site-local addresses, segment identifiers and the rest lie beside it."""
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "192.88.99.0/24",
        "3fff::/20",
        "3ffe::/16",
    )  # 6to4 relays, documentation, a network that has ended
]
"""Of IANA's registries of special purposes, what this Python does not know."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def is_public(address: str) -> bool:
    """It is an address of the internet at large, also where it holds another one within.

    Not public are loopback, private and link-local networks, multicast, what is reserved, and what is no address.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(map(_is_open, _within(found)))


def _is_open(address: Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    special = any(address in network for network in _SPECIAL)
    return address.is_global and not (address.is_multicast or address.is_reserved or special)


def _within(address: Address) -> list[Address]:
    """The address, and those that are written into it; an address of which one does not know which is left out."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:  # it is the other one, and nothing else
        return [address.ipv4_mapped]
    found: list[Address] = [address]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    if address in _NAT64_LOCAL or address in _COMPATIBLE:
        return [ipaddress.IPv4Address("127.0.0.1")]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRule:
    """A host that may be reached.

    Attributes:
        host: its name, ``*.example.com`` for all names below one, or an address.
        port: of TCP.
        private: its address may lie in a private network or on this machine; else only public ones are connected to.
    """

    host: str
    port: int = 443
    private: bool = False

    @classmethod
    def of(cls, text: str) -> HostRule:
        """The rule that ``HOST`` or ``HOST:PORT`` stands for.

        Raises:
            UsageError: it is neither.
        """
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not host.endswith("]")):
            host, port = text, "443"
        if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
            message = f"a host is granted as HOST or HOST:PORT, not as {text!r}"
            raise UsageError(message)
        return cls(host=host.strip("[]").lower(), port=int(port))

    def covers(self, host: str, port: int) -> bool:
        """It speaks of this host and port."""
        name = host.lower().rstrip(".")
        matches = name.endswith(self.host[1:]) if self.host.startswith("*.") else name == self.host
        return matches and port == self.port
