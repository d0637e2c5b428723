"""The App of now and those of before a reload, which stay until their last request has ended."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TypeVar

from penstock.proxy.exchange import Exchange
from penstock.proxy.lifespan import Generation, succeed
from penstock.proxy.log import Log
from penstock.proxy.upstream.pool import Pool

T = TypeVar("T")

# A timeout is late by at most this; a sweep over 1,000 open streams takes about 0.1 ms.
TICK_S = 0.1


class Generations:
    """One per worker."""

    def __init__(self, first: Generation) -> None:
        self.current = first
        self.old: list[Generation] = []
        first.begin()

    def __repr__(self) -> str:
        return f"<Generations: {len(self.current.app.active)} requests on the newest, {len(self.old)} older ones>"

    def __iter__(self) -> Iterator[Generation]:
        yield self.current
        yield from self.old

    @property
    def exchanges(self) -> Iterator[Exchange]:
        """All requests under way. Not while any begins or ends."""
        for generation in self:
            yield from generation.app.active

    def swap(self, new: Generation) -> None:
        """From now on requests belong to the new one."""
        succeed(new, self.current)
        self.old.append(self.current)
        self.current = new

    def drop(self, unused: Generation) -> None:
        """Close what was built and never became the current one."""
        self._close(unused)

    async def tick(self) -> None:
        """Again and again: end what took too long, write the log, let go of what no request needs; for the worker."""
        while True:
            await asyncio.sleep(TICK_S)
            now = self.current.app.loop.time()
            for pool in self._pools():
                pool.sweep(now)
            for generation in self:
                generation.app.log.flush()
            if self.old:
                self.retire()

    def retire(self) -> None:
        """Let go of every older App whose last request has ended."""
        for generation in tuple(self.old):
            if not generation.app.active:
                self.old.remove(generation)
                self._close(generation)

    async def close(self) -> None:
        """The worker ends; requests that are still under way fail."""
        tasks = list(self.current.tasks)
        self.current.end()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in _once(each for generation in self for each in generation.holds()):
            each.close()

    def _pools(self) -> Iterable[Pool]:
        if not self.old:
            return self.current.app.pools.values()
        return _once(pool for generation in self for pool in generation.app.pools.values())

    def _close(self, generation: Generation) -> None:
        """Close what it alone holds."""
        needed = {id(each) for living in self for each in living.holds()}
        for each in generation.holds():
            if id(each) in needed:
                continue
            if isinstance(each, Log):
                self.current.app.loop.run_in_executor(None, each.close)  # it waits for its file
            else:
                each.close()


def _once(items: Iterable[T]) -> list[T]:
    return list({id(item): item for item in items}.values())
