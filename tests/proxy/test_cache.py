"""The cache at the request's path: what is kept and for how long, who leads, and what waits for room in the spool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from scripted import Client, Peer, Side, asks, backend, play, pool, starts, target, turns

from penstock.core.config import Cache as Section
from penstock.core.config import Config
from penstock.core.errors import NotCached, PenstockError
from penstock.core.plan import Plan
from penstock.ext import CLEAR_ALL, CLEAR_MODEL, CacheClears, CacheStore
from penstock.proxy.cache import Cache
from penstock.proxy.exchange import Exchange

SECOND = 1_000_000_000
BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'


def whole(body: bytes = BODY, lines: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (lines, len(body)) + body


class Clock:
    """Monotonic ns; a test moves it."""

    def __init__(self) -> None:
        self.ns = 1_000 * SECOND

    def __call__(self) -> int:
        return self.ns


class Doorkeeper:
    """An admission that says no as often as it is told."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.hits = self.full = 0

    @property
    def has_room(self) -> bool:
        self.refusals -= 1
        return self.refusals <= 0

    def admit(self, plan: Plan, exchange: Exchange) -> bool:
        self.full += self.refusals <= 0
        return self.refusals <= 0

    def admit_hit(self, plan: Plan, exchange: Exchange) -> bool:
        self.hits += self.refusals <= 0
        return self.refusals <= 0

    async def when_room(self, exchange: Exchange, admitted: Callable[[], bool]) -> None:
        while not admitted():
            await asyncio.sleep(0)


class Asked:
    """A request and what became of it."""

    def __init__(self, up: Stage, body: bytes, *lines: tuple[bytes, bytes]) -> None:
        self.client = Client()
        self.exchange = asks(body, self.client)
        self.exchange.scope["headers"].extend(lines)
        answer = up.cache.serve(up.plan, self.exchange)
        assert answer is not None
        self.task = starts(_wait(answer))

    @property
    def told(self) -> bytes:
        return dict(self.client.sent[0]["headers"])[b"x-cache"]

    @property
    def age(self) -> bytes:
        return dict(self.client.sent[0]["headers"])[b"age"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.client.sent[1:])


async def _wait(answer: Any) -> None:
    await answer


class Stage:
    def __init__(self, side: Side, plan: Plan, doorkeeper: Doorkeeper | None, **section: Any) -> None:
        self.plan = msgspec.structs.replace(plan, keep_s=60)
        self.clears = CacheClears("", b"boot")
        self.store = CacheStore(1 << 22, self.clears, 1 << 20)
        self.settled: list[Exchange] = []
        self.active: set[Exchange] = set()
        self.cache = Cache(
            Config(cache=Section(ttl_s=60, **section)),
            store=self.store,
            clears=self.clears,
            facts=None,
            attempts=side.attempts,
            admission=doorkeeper,  # type: ignore[arg-type]
            active=self.active,
            settle=self.settled.append,
            log=side.log,  # type: ignore[arg-type]
            most_bytes=1 << 20,
        )

    def asks(self, body: bytes = b'{"model":"m"}', *lines: tuple[bytes, bytes]) -> Asked:
        return Asked(self, body, *lines)


@contextlib.asynccontextmanager
async def stage(
    port: int, clock: Clock | None = None, doorkeeper: Doorkeeper | None = None, **section: Any
) -> AsyncIterator[Stage]:
    async with pool(port) as made:
        side = Side({"b": made}, now_ns=clock or Clock())
        up = Stage(side, side.plan((target(port),)), doorkeeper, **section)
        yield up
        await turns()
        assert side.in_flight == 0 and not up.active and not up.cache._flights


async def answered(peer: Peer, answer: bytes = b"") -> None:
    await peer.request()
    peer.send(answer or whole())


def test_a_hit_until_its_time_is_over() -> None:
    async def scene() -> None:
        clock = Clock()
        async with backend() as server, stage(server.port, clock) as up:
            first = up.asks()
            peer = await server.accept()
            await answered(peer)
            await first.task
            clock.ns += 59 * SECOND
            second = up.asks(b'{ "model":"m"}')
            await second.task
            assert (first.told, second.told, second.age) == (b"MISS", b"HIT", b"59")
            assert second.body == first.body == BODY and second.exchange.cached and not first.exchange.cached
            clock.ns += 2 * SECOND
            third = up.asks()
            await answered(peer)
            await third.task
            assert third.told == b"MISS"
            assert up.clears.figures() == [(b"m", 1, 2, 0, 0, 2)]

    play(scene())


def test_a_shorter_time_holds_for_what_is_kept_already() -> None:
    async def scene() -> None:
        clock = Clock()
        async with backend() as server, stage(server.port, clock) as up:
            first = up.asks()
            peer = await server.accept()
            await answered(peer)
            await first.task
            clock.ns += 20 * SECOND
            up.plan = msgspec.structs.replace(up.plan, keep_s=10)
            second = up.asks()
            await answered(peer)
            await second.task
            assert second.told == b"MISS"

    play(scene())


@pytest.mark.parametrize(("kind", "name", "kept"), [(CLEAR_ALL, b"", False), (CLEAR_MODEL, b"other", True)])
def test_what_was_under_way_at_a_clear_is_not_kept(kind: int, name: bytes, kept: bool) -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first = up.asks()
            peer = await server.accept()
            await peer.request()
            up.clears.clear(kind, name)
            peer.send(whole())
            await first.task
            assert up.store.entries == int(kept)

    play(scene())


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (whole(), True),
        (whole(BODY.replace(b"stop", b"length")), True),
        (whole(BODY.replace(b"stop", b"content_filter")), False),
        (whole(BODY.replace(b"]}", b',{"index":1,"message":{},"finish_reason":"content_filter"}]}')), False),
        (whole().replace(b"200 OK", b"400 Bad Request"), False),
        (whole(lines=b"content-encoding: gzip\r\n"), False),
        (whole(BODY + b" " * (1 << 20)), False),
    ],
    ids=["stop", "length", "filtered", "one filtered", "refused", "encoded", "too long"],
)
def test_what_is_kept(answer: bytes, kept: bool) -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first = up.asks()
            await answered(await server.accept(), answer)
            await first.task
            assert up.store.entries == int(kept)

    play(scene())


def test_what_is_one_clients_is_not_kept() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first = up.asks()
            lines = b"set-cookie: a=b\r\nx-request-id: backend-1\r\nx-cache: MISS from far\r\nx-kept: yes\r\n"
            await answered(await server.accept(), whole(lines=lines))
            await first.task
            second = up.asks()
            await second.task
            got = second.client.sent[0]["headers"]
            assert (b"x-kept", b"yes") in got and (b"x-cache", b"HIT") in got and (b"x-request-id", b"id-1") in got
            assert sum(name in (b"set-cookie", b"x-request-id", b"x-cache") for name, _ in got) == 2
            assert (b"set-cookie", b"a=b") in first.client.sent[0]["headers"]

    play(scene())


def test_headers_and_the_query_are_part_of_the_question() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first = up.asks()
            peer = await server.accept()
            await answered(peer)
            await first.task
            other = up.asks(b'{"model":"m"}', (b"openai-beta", b"x"))
            await answered(peer)
            await other.task
            again = up.asks(b'{"model":"m"}', (b"x-else", b"x"), (b"openai-beta", b"x"))
            await again.task
            assert (other.told, again.told) == (b"MISS", b"HIT")

    play(scene())


def test_no_cache_leads_a_flight_of_its_own_that_others_join() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first = up.asks()
            peers = [await server.accept()]
            await peers[0].request()
            fresh = up.asks(b'{"model":"m"}', (b"cache-control", b"no-cache"))
            peers.append(await server.accept())
            await peers[1].request()
            third = up.asks()
            peers[1].send(whole(BODY.replace(b"hi", b"new")))
            await fresh.task
            await third.task
            assert (fresh.told, third.told) == (b"MISS", b"SHARED") and b"new" in third.body
            peers[0].send(whole())
            await first.task
            assert first.body == BODY

    play(scene())


def test_only_if_cached_asks_nobody() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            with pytest.raises(NotCached):
                up.asks(b'{"model":"m"}', (b"cache-control", b"max-age=3"), (b"cache-control", b"only-if-cached"))
            assert not server.all

    play(scene())


def test_no_store_goes_its_own_way() -> None:
    async def scene() -> None:
        async with stage(1) as up:
            exchange = asks()
            exchange.scope["headers"].append((b"cache-control", b"no-store"))
            assert up.cache.serve(up.plan, exchange) is None
            assert exchange.told == ((b"x-cache", b"BYPASS"),)

    play(scene())


def test_who_finds_the_spool_full_waits_and_looks_again() -> None:
    async def scene() -> None:
        doorkeeper = Doorkeeper()
        async with backend() as server, stage(server.port, doorkeeper=doorkeeper) as up:
            doorkeeper.refusals = 3
            first = up.asks()
            await answered(await server.accept())
            await first.task
            doorkeeper.refusals = 3
            second = up.asks()
            await second.task
            assert (first.told, second.told) == (b"MISS", b"HIT") and second.body == BODY
            assert (doorkeeper.full, doorkeeper.hits) == (1, 1)

    play(scene())


def test_the_leaders_request_gets_what_its_flight_came_to() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first, other = up.asks(), up.asks()
            usage = b'"usage":{"prompt_tokens":3,"completion_tokens":4},"choices"'
            await answered(await server.accept(), whole(BODY.replace(b'"choices"', usage)))
            await first.task
            await other.task
            leader = first.exchange
            assert leader.backend == "b" and leader.attempts == 1 and leader.target is not None
            assert leader.usage is not None and leader.usage.completion_tokens == 4
            assert other.exchange.target is None and other.exchange.usage is None and other.exchange.cached
            assert not up.settled

    play(scene())


def test_a_leader_that_left_is_settled_once_when_its_flight_lands() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            first, other = up.asks(), up.asks()
            peer = await server.accept()
            await peer.request()
            flight = first.exchange.leads
            assert flight is not None
            first.task.cancel()
            await turns()
            assert not flight.let_go() and not up.settled  # as App.settle does
            peer.send(whole())
            await other.task
            assert up.settled == [first.exchange] and first.exchange.backend == "b"

    play(scene())


def test_a_failure_is_everybodys_and_not_kept() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            asked = [up.asks() for _ in range(3)]
            for _ in range(3):
                peer = await server.accept()
                await peer.request()
                peer.reset()
            for each in asked:
                with pytest.raises(PenstockError):
                    await each.task
            assert up.store.entries == 0 and len(server.all) == 3

    play(scene())
