"""The line in front of full backends: bounded over all workers, and fair between keys.

Who comes gets a tag from the shared memory (start-time fair queueing: a key's next request stands behind its last one,
not behind everybody's). A place that becomes free goes to the lowest tag. Each worker publishes per backend the lowest
tag that waits in it, so that no worker, and no newcomer, takes what another's request has waited for longer.

A worker looks for room at every release of its own, and LOOK_S after the last look for those of others.
"""

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import Callable

from penstock.core.config import Queue
from penstock.core.errors import QueueFull
from penstock.ext import Balancer
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.lane import Lane, Waiter, first_tag, key_of, tag_of
from penstock.proxy.upstream.lease import Draw, Lease, Search
from penstock.proxy.upstream.notice import Notice, Row, joined
from penstock.proxy.upstream.targets import TargetCells

LOOK_S = 0.005


class Line:
    """One per App. Clock in ns, monotonic. waiting: how many stand in it."""

    def __init__(
        self,
        cells: TargetCells,
        rules: Queue,
        loop: asyncio.AbstractEventLoop,
        now_ns: Callable[[], int],
        draw: Draw,
        notice: Notice,
    ) -> None:
        self._cells = cells
        self._shared = cells.shared
        self._rules = rules
        self._loop = loop
        self._now_ns = now_ns
        self._draw = draw
        self._timer: asyncio.TimerHandle | None = None
        self._keys: Counter[int] = Counter()
        self.notice = notice
        notice.lines.add(self)
        self.lanes: dict[tuple[Balancer, int], Lane] = {}
        self.waiting = 0

    async def wait(self, search: Search, number: int, exchange: Exchange) -> Lease:
        """Stand in line for a place in a group. Raises QueueFull (also when the wait is over), NoHealthyTarget."""
        since = exchange.now()
        waiter = self._join(search, self._lane(search, number), key_of(exchange))
        place, _ = self.standing(waiter)
        exchange.waiter = waiter
        try:
            async with asyncio.timeout(self._rules.max_wait_s or None):
                await waiter.turn
        except TimeoutError:
            if waiter.lease is None:
                raise self._refused(
                    *self.standing(waiter), f"no place came free within {self._rules.max_wait_s:g} s"
                ) from None
        except asyncio.CancelledError:
            if waiter.lease is not None:  # the turn came in the moment the client left
                waiter.lease.release()
                self.look()
            raise
        finally:
            self._leave(waiter)
            exchange.waiter = None
        if waiter.lease is None:
            raise search.refusal(self._now_ns())
        exchange.waited(place, exchange.now() - since)
        return waiter.lease

    def standing(self, waiter: Waiter) -> tuple[int, int]:
        """(place, estimate in s) of one in line; the place counts from 1, over all workers."""
        place = 1 + waiter.lane.before(waiter) + self._shared.ahead(waiter.tag)
        return place, waiter.lane.estimate_s(place)

    def freed(self, lease: Lease, seconds: float) -> None:
        """A place of this worker's was given back; seconds: how long it was held, 0 = it tells nothing."""
        lane = self.lanes.get((lease.group.balancer, 0))
        if lane is not None and seconds:
            lane.measure(seconds)
        if self.waiting or len(self.notice.lines) > 1:
            self.look()

    def look(self) -> None:
        """Give what is free to those who wait, the lowest tag first, in whichever line of this worker they stand."""
        waiting = [(line, lane) for line in self.notice.lines for lane in line.lanes.values() if lane.waiters]
        while waiting:
            line, lane = first = min(waiting, key=lambda each: first_tag(each[1]))
            if not line._serve(lane) or not lane.waiters:
                waiting.remove(first)
        for line in tuple(self.notice.lines):
            line._publish()

    # --- joining and leaving ---

    def _join(self, search: Search, lane: Lane, key: int) -> Waiter:
        most = self._rules.max_waiting
        room = self._shared.waiting < most or self._push_out(key)
        waiter = Waiter(key, search, lane, self._loop.create_future())
        if room:
            waiter.tag = self._shared.join_line(key)
            if self._shared.waiting > most:  # another worker's came in the same moment
                self._shared.leave_line(waiter.tag)
                room = False
        if not room:
            raise self._refused(most + 1, lane.estimate_s(most + 1), f"{most} requests are waiting (queue.max_waiting)")
        self._keys[key] += 1
        self.waiting += 1
        insort(lane.waiters, waiter, key=tag_of)
        self._publish()
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._tick)
        return waiter

    def _push_out(self, key: int) -> bool:
        """Make room in a full line at the cost of the key that fills it most; False if that is `key` as much as any."""
        heaviest, count = max(self._keys.items(), key=lambda item: item[1], default=(0, 0))
        if count <= self._keys[key] + 1:
            return False
        last = max((each for lane in self.lanes.values() for each in lane.waiters if each.key == heaviest), key=tag_of)
        self._leave(last)
        if not last.turn.done():
            place, estimate = self._rules.max_waiting + 1, last.lane.estimate_s(self._rules.max_waiting + 1)
            last.turn.set_exception(self._refused(place, estimate, "the line is full, and others have fewer in it"))
        return True

    def _leave(self, waiter: Waiter) -> None:
        """Out of the line, served or not; a second call does nothing."""
        lane = waiter.lane
        if waiter not in lane.waiters:
            return
        lane.waiters.remove(waiter)
        if lane.avoid and not lane.waiters:  # there are as many of these as ways to fail
            del self.lanes[lane.balancer, lane.avoid]
        self.waiting -= 1
        self._keys[waiter.key] -= 1
        if not self._keys[waiter.key]:
            del self._keys[waiter.key]
        self._shared.leave_line(waiter.tag)
        self._publish()

    def _lane(self, search: Search, number: int) -> Lane:
        """Where those wait that may go to the same targets."""
        balancer, avoid = search.groups[number].balancer, search.avoid(number)
        lane = self.lanes.get((balancer, avoid))
        if lane is None:
            lane = self.lanes[balancer, avoid] = Lane(balancer, avoid, self._cells.members(balancer))
        return lane

    def _publish(self) -> None:
        """Tell all workers the lowest tag and the number of those that wait here, for each backend they may go to."""
        now_ns = self._now_ns()
        rows: dict[int, Row] = {}
        for lane in self.lanes.values():
            for cell in lane.wanted(now_ns) if lane.waiters else ():
                row = cell, lane.waiters[0].tag, len(lane.waiters)
                rows[cell.id] = joined(rows[cell.id], row) if cell.id in rows else row
        self.notice.say(self, rows)

    # --- serving ---

    def _tick(self) -> None:
        self._timer = None
        if self.waiting:
            self.look()
            self._timer = self._loop.call_later(LOOK_S, self._tick)

    def _serve(self, lane: Lane) -> bool:
        """Give the first of a lane a place, or what else became of its search; False if it has to wait on."""
        waiter = lane.waiters[0]
        found = None
        if not waiter.turn.done():
            found = waiter.search.take(self._now_ns(), self._draw(64), waiter.tag)
        if isinstance(found, int):
            return self._move(waiter, self._lane(waiter.search, found))
        if found is not None:
            self._shared.served(waiter.tag)
            waiter.lease = found
        self._leave(waiter)
        if not waiter.turn.done():
            waiter.turn.set_result(None)
        return True

    def _move(self, waiter: Waiter, lane: Lane) -> bool:
        """To the lane of another group, since the breakers of its own have opened; False if it is there already."""
        if lane is waiter.lane:
            return False
        waiter.lane.waiters.remove(waiter)
        waiter.lane = lane
        insort(lane.waiters, waiter, key=tag_of)
        return True

    def _refused(self, place: int, estimate_s: int, why: str) -> QueueFull:
        told = (b"x-penstock-queue", b"place=%d; estimate_s=%d" % (place, estimate_s))
        return QueueFull(f"all targets of this model are busy: {why}", retry_after_s=estimate_s, headers=(told,))
