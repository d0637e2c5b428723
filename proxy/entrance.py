"""Who comes in: the limits of its address, then its key. The first thing after the request line is understood."""

from penstock.core.endpoint import Endpoint
from penstock.core.errors import AuthError
from penstock.proxy.address_limits import AddressLimits
from penstock.proxy.client_address import ClientAddresses
from penstock.proxy.exchange import Exchange
from penstock.proxy.identify import Identify


class Entrance:
    """One per worker. limits: None = no address is limited."""

    def __init__(self, addresses: ClientAddresses, identify: Identify | None, limits: AddressLimits | None) -> None:
        self._addresses = addresses
        self._identify = identify
        self._limits = limits
        self.admin = identify is not None and identify.admin
        """There are endpoints for administrators."""

    def enter(self, exchange: Exchange, endpoint: Endpoint) -> bool:
        """Let the request in and note whose it is; False = only the store knows: await `enter_by_store`.

        Raises AuthError, RateLimited, StoreUnavailable.
        """
        if self._addresses.trusted:
            exchange.address = self._addresses.of(exchange)
        if self._limits is not None:
            self._take(self._limits, exchange, endpoint)
        if self._identify is None or endpoint.access == "open":
            return True
        try:
            if endpoint.access == "admin":
                self._identify.require_admin(exchange)
                return True
            exchange.caller = self._identify(exchange)
        except AuthError:
            self._count_stranger(exchange)
            raise
        return exchange.caller is not None

    async def enter_by_store(self, exchange: Exchange) -> None:
        """As `enter`, for a key that this worker does not hold."""
        try:
            if self._identify is not None:
                exchange.caller = await self._identify.by_store(exchange)
        except AuthError:
            self._count_stranger(exchange)
            raise

    def admits_admin(self, exchange: Exchange) -> bool:
        """The request shows the admin key beside whatever else it shows; a wrong one counts as any stranger's.

        Raises RateLimited.
        """
        if self._identify is None or not self._identify.admin:
            return False
        if self._identify.is_admin(exchange):
            return True
        self._count_stranger(exchange)
        return False

    def _take(self, limits: AddressLimits, exchange: Exchange, endpoint: Endpoint) -> None:
        group = self._addresses.group(exchange.address)
        if endpoint.tells_of_keys:
            limits.take_unauthenticated(group)
        if endpoint.access != "open" or endpoint.tells_of_keys:  # whoever looks after us may look often
            limits.take(endpoint.ip_class, group)

    def _count_stranger(self, exchange: Exchange) -> None:
        """A refusal of a key counts; beyond the limit it is not even that. Raises RateLimited."""
        if self._limits is not None:
            self._limits.take_unauthenticated(self._addresses.group(exchange.address))
