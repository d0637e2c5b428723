"""[limits.ip]: how often one address may call, whoever it is."""

from collections.abc import Callable
from functools import lru_cache

from penstock.core.endpoint import IpClass
from penstock.core.errors import StateFullError
from penstock.core.limits import IpRules, Limit
from penstock.core.refusals import address_used_up
from penstock.ext import Limits, State, StateFull

# Addresses are strangers' input; one that fell out is looked up again.
REMEMBERED = 4096


class AddressLimits:
    """One per worker. Groups are what `network.address_group` makes of an address; clocks are in ns."""

    def __init__(
        self, rules: IpRules, state: State, *, monotonic_ns: Callable[[], int], wall_ns: Callable[[], int]
    ) -> None:
        self._rules = rules
        self._state = state
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._of = lru_cache(maxsize=REMEMBERED)(self._make)

    def take(self, kind: IpClass, group: str) -> None:
        """A request has come. Raises RateLimited, StateFullError."""
        if self._rules.kinds[kind]:
            self._take(self._rules.kinds[kind], group)

    def take_unauthenticated(self, group: str) -> None:
        """A request without a valid key has come. Raises RateLimited, StateFullError."""
        if self._rules.unauthenticated:
            self._take(self._rules.unauthenticated, group)

    def _take(self, limits: tuple[Limit, ...], group: str) -> None:
        try:
            wait_ns = self._of(limits, group).take(self._monotonic_ns(), self._wall_ns())
        except StateFull as error:
            raise StateFullError(str(error), retry_after_s=1) from None
        if wait_ns:
            raise address_used_up(limits, wait_ns)

    def _make(self, limits: tuple[Limit, ...], group: str) -> Limits:
        return Limits(self._state, IpRules.cells(limits, group))
