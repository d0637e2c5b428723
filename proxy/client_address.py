"""The address a request comes from, seen through the proxies that `server.trusted_proxies` names."""

from collections.abc import Sequence
from functools import lru_cache

from penstock.core.network import Network, address_group, client_address
from penstock.proxy.exchange import Exchange

# Addresses are strangers' input, and a client's comes with each of its requests.
REMEMBERED = 4096


class ClientAddresses:
    """trusted: those whose X-Forwarded-For counts. One per worker."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self.trusted = tuple(trusted)
        self._seen_through = lru_cache(maxsize=REMEMBERED)(self._look)
        self.group = lru_cache(maxsize=REMEMBERED)(address_group)
        """What limits per address count over: an IPv4 address, the /64 of an IPv6 one."""

    def of(self, exchange: Exchange) -> str:
        """The client's address; "" where the listener has none."""
        peer = exchange.scope.get("client")
        if not peer:
            return ""
        return self._seen_through(peer[0], exchange.head.forwarded_for) if self.trusted else str(peer[0])

    def _look(self, peer: str, forwarded_for: bytes | None) -> str:
        return client_address(peer, forwarded_for, self.trusted)
