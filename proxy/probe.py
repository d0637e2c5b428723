"""Asks backends whether they work, over connections of its own: one whose pool is all busy is not away.

A check under way is joined, and a fresh one is not asked again: /health is open to everybody, and must not be a way
to send a backend more than a few requests a second.
"""

import asyncio
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from penstock.core.config import Backend
from penstock.core.errors import PenstockError
from penstock.core.health import Check, alive, check_path, place
from penstock.core.plan import Upstream
from penstock.proxy.upstream.fetch import fetch
from penstock.proxy.upstream.pool import Pool

FRESH_S = 0.25
FAILED_FRESH_S = 0.05
"""Who waits for a backend to come back sees it at once."""


class Probes:
    """One per App. pools: those of requests, beside which it makes its own. monotonic, wall_s: clocks in seconds."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        upstreams: Mapping[str, Upstream],
        pools: Mapping[str, Pool],
        *,
        monotonic: Callable[[], float],
        wall_s: Callable[[], float],
    ) -> None:
        self._backends = backends
        # Paths are asked for as they are on the backend's server.
        self._upstreams = {name: replace(each, v1=b"/v1", api=b"") for name, each in upstreams.items()}
        self._pools = {name: each.apart() for name, each in pools.items()}
        self._monotonic = monotonic
        self.wall_s = wall_s
        self._fresh: dict[str, tuple[float, Check]] = {}
        self._asking: dict[str, asyncio.Task[Check]] = {}

    async def ask(self, name: str) -> Check:
        """What the backend says now, or has just said. Never raises for a backend's sake."""
        while True:
            until, check = self._fresh.get(name, (0.0, None))
            if check is not None and self._monotonic() < until:
                return check
            task = self._under_way(name)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                own = asyncio.current_task()
                if not task.cancelled() or (own is not None and own.cancelling()):
                    raise
                # It was ended by `close`, and who asks is still here.

    def close(self) -> None:
        """End the checks under way; who waits for one makes another."""
        for task in tuple(self._asking.values()):
            task.cancel()
        self._asking.clear()
        for pool in self._pools.values():
            pool.close()

    def _under_way(self, name: str) -> asyncio.Task[Check]:
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.get_running_loop().create_task(self._ask(name))
            task.add_done_callback(lambda done: self._ended(name, done))
        return task

    def _ended(self, name: str, task: asyncio.Task[Check]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]

    async def _ask(self, name: str) -> Check:
        began = self._monotonic()
        ok, words = await self._answer(name)
        ended = self._monotonic()
        latency_ms = round((ended - began) * 1000, 3)
        where = place(self._backends[name])
        check = Check(at=self.wall_s(), ok=ok, latency_ms=latency_ms, words=words, where=where)
        self._fresh[name] = (ended + (FRESH_S if ok else FAILED_FRESH_S), check)
        return check

    async def _answer(self, name: str) -> tuple[bool, str]:
        backend = self._backends[name]
        path, timeout_s = check_path(backend), backend.health.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                status, _ = await fetch(
                    self._upstreams[name], self._pools[name], path.encode(), timeout_s=timeout_s + FRESH_S
                )
        except PenstockError as error:
            return False, error.message
        except TimeoutError:
            return False, f"no answer on {path} within {timeout_s:g} s"
        return alive(status), f"answers {status} on {path}"
