"""Which addresses are open to everybody, so that a name that somebody else chose leads nowhere inside."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

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
