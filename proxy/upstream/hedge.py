"""Hedging: a second attempt at an idle target, once the first is slower than nineteen of twenty of its target's were.

The first answer counts, and the other attempt is cancelled at once. Second attempts are a bounded share of all
requests, and each costs the retry budget 1.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from penstock.core.errors import BackendError, NoHealthyTarget
from penstock.core.plan import Plan
from penstock.ext import Balancer
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.course import status_of
from penstock.proxy.upstream.lease import Lease

if TYPE_CHECKING:
    from penstock.proxy.upstream.attempt import Attempts, Reply

# Of each target, so many times to the first byte are remembered, and below LEAST of them nothing is known.
REMEMBERED = 128
LEAST = 20
PERCENTILE = 0.95
# What is quicker than this is not worth a second attempt.
LEAST_S = 0.01
# Requests without a second attempt save up for others, but not for a storm of them.
MOST_SAVED = 5.0


class Pace:
    """How long a target took to begin its answers. limit_s: what 19 of 20 kept within; None = not known yet."""

    __slots__ = ("_times", "limit_s")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self.limit_s: float | None = None

    def measure(self, seconds: float) -> None:
        self._times.append(seconds)
        if len(self._times) >= LEAST:
            self.limit_s = max(sorted(self._times)[int(len(self._times) * PERCENTILE)], LEAST_S)


class Hedge:
    """One per App. max_share: of all requests, those that may have a second attempt."""

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._saved = 0.0
        self._paces: dict[tuple[Balancer, int], Pace] = {}

    def measure(self, lease: Lease, latency_ns: int) -> None:
        """A target began its answer after so long."""
        self._pace(lease).measure(latency_ns / 1e9)

    def applies(self, plan: Plan, exchange: Exchange) -> bool:
        """A request that is sent twice must be one that only computes, and one whose body is held."""
        self._saved = min(self._saved + self._max_share, MOST_SAVED)
        return exchange.upload is None and plan.endpoint.repeatable

    async def attempt(self, attempts: "Attempts", lease: Lease, exchange: Exchange) -> "Reply":
        """As `Attempts.attempt`; `exchange.lease` is the place of what answered, or of what failed last."""
        limit_s = self._pace(lease).limit_s
        if limit_s is None:
            return await attempts.attempt(lease, exchange, attempts.now_ns())
        running = {_start(attempts, lease, exchange): lease}
        began_ns = attempts.now_ns()
        try:
            await asyncio.wait(running, timeout=limit_s)
            if not any(task.done() for task in running) and (other := self._second(attempts, lease)) is not None:
                running[_start(attempts, other, exchange)] = other
            return await _first_answer(attempts, running, exchange, began_ns)
        finally:
            for task, place in running.items():
                ended_ns = attempts.now_ns()
                if place is lease:  # it was this slow at least, or its target would seem to become quicker
                    self.measure(lease, ended_ns - began_ns)
                exchange.tried(place.target, began_ns, ended_ns, "overtaken by the other attempt", 0)
                _drop(task)
                if place is not exchange.lease:
                    place.release()

    def _second(self, attempts: "Attempts", first: Lease) -> Lease | None:
        """A place at an idle target of the group, if a second attempt may be made."""
        if self._saved < 1.0:
            return None
        balancer = first.group.balancer
        now_ns = attempts.now_ns()
        taken = balancer.take_idle(now_ns, attempts.draw(64), 1 << first.index)
        if taken < 0:
            return None
        if not attempts.budget.spend():
            balancer.release(taken)
            return None
        self._saved -= 1.0
        return Lease(first.group, taken, now_ns)

    def _pace(self, lease: Lease) -> Pace:
        key = lease.group.balancer, lease.index
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace()
        return pace


async def _first_answer(
    attempts: "Attempts", running: "dict[asyncio.Task[Reply], Lease]", exchange: Exchange, began_ns: int
) -> "Reply":
    """The first answer of those running; an attempt that fails is told its target, the last one's failure is raised."""
    while True:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        lease = running[task]
        error = task.exception()
        if error is None or len(running) == 1 or not isinstance(error, (BackendError, NoHealthyTarget)):
            _settle_on(lease, exchange)
            del running[task]
            return task.result()
        exchange.tried(lease.target, began_ns, attempts.now_ns(), error.message, status_of(error))
        attempts.failed(lease, error)
        _drop(task)
        if exchange.lease is lease:
            exchange.lease = next(other for other in running.values() if other is not lease)
        del running[task]
        lease.release()


def _settle_on(lease: Lease, exchange: Exchange) -> None:
    """This attempt is the request's from now on."""
    exchange.lease = lease
    exchange.target = lease.target
    exchange.backend = lease.target.upstream.name


def _start(attempts: "Attempts", lease: Lease, exchange: Exchange) -> "asyncio.Task[Reply]":
    return attempts.loop.create_task(attempts.attempt(lease, exchange, attempts.now_ns()))


def _drop(task: "asyncio.Task[Reply]") -> None:
    """Nobody waits for this attempt any more: it is cancelled, or what it brought is closed."""
    task.cancel()
    task.add_done_callback(_close)


def _close(task: "asyncio.Task[Reply]") -> None:
    if not task.cancelled():
        error = task.exception()
        reply = task.result() if error is None else getattr(error, "reply", None)
        if reply is not None and reply.connection is not None:
            reply.pool.release(reply.connection)
