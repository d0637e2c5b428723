"""Addresses and networks of clients and proxies: whose X-Forwarded-For counts, and what a limit per address means."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self

_MOST_HOPS = 32
"""Longer X-Forwarded-For chains are somebody's game."""


class Network(str):
    """An IP address or network in its shortest usual form: "10.0.0.7", "10.0.0.0/8", "fd00::/8"."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address or a network in CIDR form. Raises ValueError."""
        try:
            network = ip_network(text, strict=True) if "%" not in text else None
        except ValueError:
            network = None
        if network is None:
            raise ValueError(_right_form(text))
        return cls(network.network_address if network.num_addresses == 1 else network)

    def holds(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is in it."""
        return address in ip_network(self)


def client_address(peer: str, forwarded_for: bytes | None, trusted: Iterable[Network]) -> str:
    """Who called: the peer, or where it is trusted the last address in X-Forwarded-For that is not.

    Every hop appends the address it saw, so only what trusted hops appended can be believed. Anything unreadable ends
    the walk at the hop that sent it.
    """
    trusted = tuple(trusted)
    client = _address(peer)
    if client is None or forwarded_for is None or not _is_trusted(client, trusted):
        return str(client) if client is not None else peer
    for hop in reversed(forwarded_for.split(b",")[-_MOST_HOPS:]):
        address = _address(_without_port(hop.strip().decode("latin-1")))
        if address is None:
            break
        client = address
        if not _is_trusted(client, trusted):
            break
    return str(client)


def address_group(address: str) -> str:
    """What a limit per address counts over: an IPv4 address, or the /64 an IPv6 client can choose from freely."""
    ip = _address(address)
    if isinstance(ip, IPv6Address):
        return str(ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip) if ip is not None else address


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Iterable[Network]) -> bool:
    return any(network.holds(address) for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def _without_port(text: str) -> str:
    """Some proxies append 192.0.2.1:4711 or [2001:db8::1]:4711."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _right_form(text: str) -> str:
    form = 'expected an IP address or network such as "10.0.0.7", "10.0.0.0/8" or "fd00::/8"'
    try:
        return form if "%" in text else f'{form}, without bits beyond its length: "{ip_network(text, strict=False)}"'
    except ValueError:
        return form
