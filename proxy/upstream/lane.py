"""A part of the line: the requests of one worker that may go to the same targets."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import ceil

from penstock.ext import BackendCell, Balancer
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.lease import Lease, Search
from penstock.proxy.upstream.targets import Member

# Of the mean time a place is held: how much the newest request counts. Before this worker has seen one end, the time
# to the head of an answer stands for it, which all workers know; and before any answer came, FIRST_S.
NEWEST = 0.2
FIRST_S = 1.0


class Waiter:
    """A request in line. lease: what it got; turn: done when it got that, or cannot get any."""

    __slots__ = ("key", "lane", "lease", "search", "tag", "turn")

    def __init__(self, key: int, search: Search, lane: "Lane", turn: "asyncio.Future[None]") -> None:
        self.key = key
        self.search = search
        self.lane = lane
        self.turn = turn
        self.tag = 0
        self.lease: Lease | None = None


class Lane:
    """Those that wait for the members of a balancer but `avoid`, the lowest tag first."""

    __slots__ = ("_held_s", "_members", "_places", "avoid", "balancer", "waiters")

    def __init__(self, balancer: Balancer, avoid: int, members: Sequence[Member]) -> None:
        self.balancer = balancer
        self.avoid = avoid
        self._members = members
        self._places = max(sum(each.max_in_flight for each in members), 1)
        self._held_s = 0.0
        self.waiters: list[Waiter] = []

    def wanted(self, now_ns: int) -> Iterator[BackendCell]:
        """The backends whose place they wait for."""
        mask = self.balancer.full(now_ns, self.avoid)
        return (member.cell for index, member in enumerate(self._members) if mask >> index & 1)

    def before(self, waiter: Waiter) -> int:
        """How many stand before one that is here, or was until now."""
        if waiter in self.waiters:
            return self.waiters.index(waiter)
        return bisect_left(self.waiters, waiter.tag, key=tag_of)

    def measure(self, seconds: float) -> None:
        """A place was held for so long."""
        self._held_s = seconds if not self._held_s else self._held_s + NEWEST * (seconds - self._held_s)

    def estimate_s(self, place: int) -> int:
        """Whole seconds until the `place`th in line is served, at least 1."""
        held_s = self._held_s or max(each.target.latency_ns for each in self._members) / 1e9 or FIRST_S
        return max(1, ceil(held_s * place / self._places))


def key_of(exchange: Exchange) -> int:
    """Whose share of the line a request takes: its key's, or without keys its address's; 64 bits."""
    caller = exchange.caller
    name = (caller.principal.key_id if caller is not None else "") or exchange.address
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def tag_of(waiter: Waiter) -> int:
    return waiter.tag


def first_tag(lane: Lane) -> int:
    return lane.waiters[0].tag
