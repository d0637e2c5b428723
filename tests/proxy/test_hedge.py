"""Hedged attempts: which answer counts, what becomes of the other, and that no place or connection is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from scripted import (
    OK,
    Backend,
    Client,
    Peer,
    Side,
    asks,
    backend,
    body_of,
    counts,
    play,
    pool,
    starts,
    stop,
    target,
    turns,
    until,
    uploads,
)

from penstock.core.config import Breaker, Hedge, Retry
from penstock.core.errors import BackendError
from penstock.core.plan import Plan
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.hedge import LEAST, LEAST_S, Pace
from penstock.proxy.upstream.pool import Pool

REFUSAL = b"HTTP/1.1 503 Status\r\nContent-Length: 2\r\n\r\nno"


class Pair:
    """Two backends of which "a" gets the first attempt, since "b" is drained until `open`."""

    def __init__(self, side: Side, plan: Plan, servers: list[Backend], pools: dict[str, Pool]) -> None:
        self.side = side
        self.plan = plan
        self.a, self.b = servers
        self.pools = pools
        group = plan.groups[0]
        hedge = side.attempts._hedge
        assert hedge is not None
        hedge._saved = 5.0
        for index in range(2):
            pace = hedge._paces[group.balancer, index] = Pace()
            for _ in range(LEAST):
                pace.measure(0.001)
        side.cells.backends["b"].drained = True

    async def begin(self, sent: Exchange | None = None) -> tuple[asyncio.Task[bytes], Peer]:
        """A request whose first attempt is at a."""
        running = starts(self.ask(sent or asks()))
        peer = await self.a.accept()
        await peer.request()
        self.side.cells.backends["b"].drained = False
        return running, peer

    async def ask(self, sent: Exchange) -> bytes:
        self.last = sent
        try:
            return await body_of(await self.side.attempts.run(self.plan, sent))
        finally:
            self.side.attempts.settle(sent)
            sent.close()


@contextlib.asynccontextmanager
async def pair(**sections: object) -> AsyncIterator[Pair]:
    async with (
        backend() as one,
        backend() as two,
        pool(one.port, name="a") as first,
        pool(two.port, name="b") as second,
    ):
        pools = {"a": first, "b": second}
        sections.setdefault("retry", Retry(attempts=1))
        side = Side(pools, hedge=Hedge(max_share=0.5), **sections)
        plan = side.plan((target(one.port, name="a"), target(two.port, name="b")))
        yield Pair(side, plan, [one, two], pools)
        await until(lambda: side.in_flight == 0)
        await until(lambda: all(counts(made).startswith("0 active") for made in pools.values()))


def test_the_second_answer_counts_and_the_first_attempt_ends() -> None:
    async def scene() -> None:
        async with pair() as here:
            running, slow = await here.begin()
            quick = await here.b.accept()
            await quick.request()
            assert here.side.in_flight == 2
            quick.send(OK)
            assert await running == b"ok"
            await slow.left()
            assert (here.last.backend, here.last.attempts, here.last.lease) == ("b", 2, None)

    play(scene())


def test_the_first_answer_counts_and_the_second_attempt_ends() -> None:
    async def scene() -> None:
        async with pair() as here:
            running, slow = await here.begin()
            second = await here.b.accept()
            slow.send(OK)
            assert await running == b"ok"
            await second.left()
            assert here.last.backend == "a"

    play(scene())


def test_an_attempt_that_fails_leaves_it_to_the_other() -> None:
    async def scene() -> None:
        for failure in (b"", REFUSAL):
            async with pair(breaker=Breaker(failures=1)) as here:
                running, slow = await here.begin()
                second = await here.b.accept()
                await second.request()
                slow.send(failure)
                slow.end()
                await turns(20)
                assert not running.done()
                second.send(OK)
                assert await running == b"ok"
                assert here.side.log.breakers == [("a", "open")]

    play(scene())


def test_both_fail() -> None:
    async def scene() -> None:
        async with pair(breaker=Breaker(failures=1)) as here:
            running, slow = await here.begin()
            second = await here.b.accept()
            await second.request()
            second.end()
            await turns(20)
            slow.end()
            with pytest.raises(BackendError):
                await running
            assert sorted(here.side.log.breakers) == [("a", "open"), ("b", "open")]

    play(scene())


def test_a_busy_target_gets_no_second_attempt() -> None:
    async def scene() -> None:
        async with pair() as here:
            running, slow = await here.begin()
            taken = here.plan.groups[0].balancer.take(1, 1, 0b01)
            await asyncio.sleep(3 * LEAST_S)
            assert here.b.all == []
            here.plan.groups[0].balancer.release(taken)
            slow.send(OK)
            assert await running == b"ok"

    play(scene())


def test_an_upload_is_sent_once() -> None:
    async def scene() -> None:
        async with pair() as here:
            running, slow = await here.begin(uploads(Client([b"one"]), 3))
            await asyncio.sleep(3 * LEAST_S)
            assert here.b.all == []
            slow.send(OK)
            assert await running == b"ok"

    play(scene())


def test_leaving_at_any_moment_frees_both() -> None:
    async def scene() -> None:
        async with pair() as here:
            for moment in range(30):
                here.side.cells.backends["b"].drained = True
                here.side.attempts._hedge._saved = 5.0  # type: ignore[union-attr]
                running, slow = await here.begin()
                if moment % 2:
                    second = await here.b.accept()
                    if moment % 3:
                        second.send(OK)
                    await turns(moment // 4)
                if moment % 5 == 0:
                    slow.send(OK)
                await stop(running)
                await until(lambda: here.side.in_flight == 0)
                for peer in (*here.a.all, *here.b.all):
                    peer.writer.transport.abort()
                while not (here.a.peers.empty() and here.b.peers.empty()):
                    await turns()
                    for server in (here.a, here.b):
                        if not server.peers.empty():
                            server.peers.get_nowait()
                await until(lambda: all(counts(made).startswith("0 active, 0 idle") for made in here.pools.values()))

    play(scene())
