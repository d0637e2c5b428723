"""Flights: one call of a backend for all who ask the same, each at its own pace, whoever comes late or leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec
import pytest
from scripted import (
    PATIENCE_S,
    Backend,
    Client,
    Peer,
    Side,
    asks,
    backend,
    play,
    pool,
    starts,
    stop,
    target,
    turns,
    until,
)

from penstock.core.endpoint import match
from penstock.core.errors import BackendError, PenstockError
from penstock.core.plan import Plan
from penstock.ext import peek
from penstock.proxy.exchange import Exchange
from penstock.proxy.flight import HIGH_WATER_BYTES, Flight
from penstock.proxy.follow import follow

STREAM = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
SILENT = b'{"model":"m","stream":true}'
PLAIN = b'{"model":"m"}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nset-cookie: a=b\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
WHOLE = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
LIMIT_S = 0.1


def event(number: int, size: int = 0) -> bytes:
    text = f"{number} " + "x" * size
    return b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (
        text.encode()
    )


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Slow(Client):
    """A client that takes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    def send(self, message: dict[str, Any]) -> Awaitable[None]:  # type: ignore[override]
        self.sent.append(message)
        return self._taken()

    async def _taken(self) -> None:
        await self.let.wait()


class Guest:
    """A client and its request, in a task as the server gives it one."""

    def __init__(self, body: bytes = STREAM, client: Client | None = None) -> None:
        self.client = client or Client()
        self.exchange = asks(body, self.client)
        self.task: asyncio.Task[None] | None = None

    def follows(self, flight: Flight, side: Side) -> Guest:
        self.task = starts(follow(flight, self.exchange, side.attempts))
        return self

    @property
    def status(self) -> int:
        return int(self.client.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.client.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.client.sent[1:])

    @property
    def is_whole(self) -> bool:
        return not self.client.sent[-1].get("more_body", False) and self.exchange.error is None

    async def end(self) -> None:
        assert self.task is not None
        async with asyncio.timeout(PATIENCE_S):
            await self.task


class Stage:
    """A backend, the way to it, and a flight that guests follow."""

    def __init__(self, side: Side, plan: Plan, most_bytes: int) -> None:
        self.side = side
        self.plan = plan
        self.most_bytes = most_bytes
        self.active: set[Exchange] = set()
        self.ended: list[Flight] = []
        self.long: list[Flight] = []

    def leads(self, guest: Guest) -> Flight:
        flight = Flight(
            self.plan,
            guest.exchange,
            attempts=self.side.attempts,
            active=self.active,
            log=self.side.log,  # type: ignore[arg-type]
            most_bytes=self.most_bytes,
            on_long=self.long.append,
            on_end=self.ended.append,
        )
        guest.exchange.leads = flight
        flight.start()
        guest.follows(flight, self.side)
        return flight


@contextlib.asynccontextmanager
async def stage(port: int, *, most_bytes: int = 1 << 20, **options: Any) -> AsyncIterator[Stage]:
    async with pool(port) as made:
        side = Side({"b": made}, **options)
        up = Stage(side, side.plan((target(port),)), most_bytes)
        yield up
        await turns()
        assert side.in_flight == 0 and not up.active
        assert len(up.ended) == len(set(up.ended))  # each once


async def begun(peer: Peer, *events: bytes) -> bytes:
    """The backend has answered with these events; the request it got."""
    asked = await peer.request()
    peer.send(HEAD + b"".join(map(chunk, events)))
    return asked


def end(peer: Peer) -> None:
    peer.send(chunk(LAST) + chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")


ENDING = LAST + USAGE + DONE


# --- what everybody gets -------------------------------------------------------------------------------


def test_all_get_every_byte_whenever_they_come() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest().follows(flight, up.side))
            peer = await server.accept()
            await begun(peer, event(1), event(2))
            await until(lambda: all(guest.body == event(1) + event(2) for guest in guests))
            guests.append(Guest().follows(flight, up.side))
            await until(lambda: guests[2].body == event(1) + event(2))
            peer.send(chunk(event(3)))
            await until(lambda: all(guest.body == event(1) + event(2) + event(3) for guest in guests))
            guests.append(Guest().follows(flight, up.side))
            end(peer)
            for guest in guests:
                await guest.end()
                assert guest.body == event(1) + event(2) + event(3) + ENDING
                assert guest.is_whole and guest.status == 200
            assert len(server.all) == 1 and up.ended == [flight]
            assert flight.kept_whole and b"".join(flight.chunks) == guests[0].body

    play(scene())


def test_what_is_one_clients_goes_to_the_leader_alone() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            leader = Guest()
            flight = up.leads(leader)
            other = Guest().follows(flight, up.side)
            other.exchange.request_id = b"id-2"
            other.exchange.told = ((b"x-cache", b"SHARED"),)
            peer = await server.accept()
            await begun(peer, event(1))
            end(peer)
            await leader.end()
            await other.end()
            assert leader.headers[b"set-cookie"] == b"a=b" and leader.headers[b"x-request-id"] == b"id-1"
            assert b"set-cookie" not in other.headers and other.headers[b"x-request-id"] == b"id-2"
            assert other.headers[b"x-cache"] == b"SHARED"

    play(scene())


def test_usage_is_asked_for_and_taken_out_for_those_who_did_not() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            leader = Guest(SILENT)
            flight = up.leads(leader)
            asker = Guest(STREAM).follows(flight, up.side)
            peer = await server.accept()
            asked = await begun(peer, event(1))
            assert peek(asked.partition(b"\r\n\r\n")[2]).include_usage
            assert b"\r\naccept-encoding: identity\r\n" in asked
            end(peer)
            await leader.end()
            await asker.end()
            assert asker.body == event(1) + ENDING
            assert leader.body == event(1) + LAST + DONE
            usage = flight.inner.usage
            assert usage is not None and usage.completion_tokens == 4

    play(scene())


def test_a_whole_answer_is_shared() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest(PLAIN)]
            flight = up.leads(guests[0])
            guests.extend(Guest(PLAIN).follows(flight, up.side) for _ in range(20))
            peer = await server.accept()
            await peer.request()
            peer.send(whole(WHOLE))
            for guest in guests:
                await guest.end()
                assert guest.body == WHOLE and guest.headers[b"content-length"] == b"%d" % len(WHOLE)
            assert len(server.all) == 1

    play(scene())


def test_each_gets_the_form_it_asked_for() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            leader = Guest(STREAM)
            flight = up.leads(leader)
            other = Guest(PLAIN).follows(flight, up.side)
            peer = await server.accept()
            await begun(peer, event(1))
            end(peer)
            await leader.end()
            await other.end()
            assert other.headers[b"content-type"] == b"application/json"
            assert b'"content":"1 "' in other.body.replace(b'": "', b'":"')

        async with backend() as server, stage(server.port) as up:
            leader = Guest(PLAIN)
            flight = up.leads(leader)
            other = Guest(SILENT).follows(flight, up.side)
            peer = await server.accept()
            await peer.request()
            peer.send(whole(WHOLE))
            await leader.end()
            await other.end()
            assert other.headers[b"content-type"].startswith(b"text/event-stream")
            assert other.body.endswith(DONE) and b"hi" in other.body

    play(scene())


def test_lines_of_ollama() -> None:
    first = b'{"model":"m","created_at":"x","message":{"role":"assistant","content":"one "},"done":false}\n'
    second = b'{"model":"m","created_at":"x","message":{"role":"assistant","content":"two"},"done":false}\n'
    last = (
        b'{"model":"m","created_at":"y","message":{"role":"assistant","content":""},"done":true,'
        b'"done_reason":"stop","prompt_eval_count":3,"eval_count":2}\n'
    )

    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            ollama = match("POST", b"/api/chat")
            up.plan = msgspec.structs.replace(up.plan, endpoint=ollama)
            guests = [Guest(b'{"model":"m"}'), Guest(b'{"model":"m"}'), Guest(b'{"model":"m","stream":false}')]
            for guest in guests:
                guest.exchange.endpoint = ollama
            flight = up.leads(guests[0])
            for guest in guests[1:]:
                guest.follows(flight, up.side)
            peer = await server.accept()
            await peer.request()
            head = HEAD.replace(b"text/event-stream", b"application/x-ndjson")
            peer.send(head + chunk(first) + chunk(second) + chunk(last) + b"0\r\n\r\n")
            for guest in guests:
                await guest.end()
            assert guests[0].body == guests[1].body == first + second + last
            answer = msgspec.json.decode(guests[2].body)
            assert answer["message"]["content"] == "one two" and answer["done"] and answer["eval_count"] == 2

    play(scene())


def test_each_has_a_heartbeat_and_none_is_kept() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port, heartbeat_s=0.01) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest().follows(flight, up.side))
            guests[1].exchange.told = ((b"x-cache", b"SHARED"),)
            peer = await server.accept()
            await peer.request()
            await until(lambda: all(guest.body.startswith(b":") for guest in guests if len(guest.client.sent) > 1))
            await until(lambda: all(len(guest.client.sent) > 2 for guest in guests))
            peer.send(HEAD + chunk(event(1)))
            end(peer)
            for guest in guests:
                await guest.end()
                assert guest.body.endswith(event(1) + ENDING) and guest.body.startswith(b": penstock")
                guest.exchange.close()
            assert b"".join(flight.chunks) == event(1) + ENDING
            assert guests[1].headers[b"x-cache"] == b"SHARED"

    play(scene())


# --- who leaves ----------------------------------------------------------------------------------------


def test_the_leader_may_leave() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            leader = Guest()
            flight = up.leads(leader)
            other = Guest().follows(flight, up.side)
            peer = await server.accept()
            await begun(peer, event(1))
            await until(lambda: leader.body == event(1))
            assert leader.task is not None
            await stop(leader.task)
            assert not flight.let_go() and flight.is_orphan
            peer.send(chunk(event(2)))
            end(peer)
            await other.end()
            assert other.body == event(1) + event(2) + ENDING and other.is_whole

    play(scene())


@pytest.mark.parametrize("phase", ["before its first step", "waiting", "streaming"])
def test_the_last_one_leaving_frees_the_backend(phase: str) -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest().follows(flight, up.side))
            if phase != "before its first step":
                peer = await server.accept()
                await peer.request()
            if phase == "streaming":
                peer.send(HEAD + chunk(event(1)))
                await until(lambda: guests[1].body == event(1))
            left = time.perf_counter()
            for guest in guests:
                assert guest.task is not None
                await stop(guest.task)
            if phase != "before its first step":
                await peer.left()
                assert time.perf_counter() - left < LIMIT_S
            await until(lambda: up.ended == [flight])
            assert flight.over and flight.error is not None and up.long == [flight]

    play(scene())


# --- pace ----------------------------------------------------------------------------------------------


def test_a_slow_follower_holds_nobody_up_and_gets_all() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port, most_bytes=1 << 26) as up:
            slow = Slow()
            leader, other = Guest(), Guest(client=slow)
            flight = up.leads(leader)
            other.follows(flight, up.side)
            peer = await server.accept()
            events = [event(number, 10_000) for number in range(100)]
            await begun(peer, *events)
            end(peer)
            await leader.end()
            assert leader.body == b"".join(events) + ENDING and flight.over
            assert len(slow.sent) == 1
            slow.let.set()
            await other.end()
            assert other.body == leader.body and other.is_whole

    play(scene())


def test_a_backend_is_held_back_where_all_are_slow() -> None:
    async def scene() -> None:
        async with backend(small=True) as server, stage(server.port, most_bytes=1 << 26) as up:
            slow = Slow()
            leader = Guest(client=slow)
            flight = up.leads(leader)
            peer = await server.accept()
            events = [event(number, 10_000) for number in range(1000)]
            await begun(peer, *events)
            end(peer)
            await asyncio.sleep(0.1)
            held = sum(map(len, flight.chunks))
            assert held < HIGH_WATER_BYTES + 1_000_000 < 10_000_000
            slow.let.set()
            await leader.end()
            assert leader.body == b"".join(events) + ENDING

    play(scene())


def test_of_an_answer_that_is_too_long_only_what_is_needed_is_kept() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port, most_bytes=100_000) as up:
            leader = Guest()
            flight = up.leads(leader)
            other = Guest().follows(flight, up.side)
            plain = Guest(PLAIN).follows(flight, up.side)
            peer = await server.accept()
            events = [event(number, 10_000) for number in range(200)]
            await begun(peer, *events)
            await until(lambda: leader.body == b"".join(events))
            assert sum(map(len, flight.chunks)) <= 20_000 and not flight.kept_whole and up.long == [flight]
            end(peer)
            for guest in (leader, other):
                await guest.end()
                assert guest.body == b"".join(events) + ENDING
            with pytest.raises(BackendError, match="too long"):
                await plain.end()

    play(scene())


def test_of_an_answer_that_is_too_long_a_slow_follower_misses_nothing() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port, most_bytes=100_000) as up:
            slow = Slow()
            leader, other = Guest(), Guest(client=slow)
            flight = up.leads(leader)
            other.follows(flight, up.side)
            peer = await server.accept()
            events = [event(number, 10_000) for number in range(200)]
            await begun(peer, *events)
            end(peer)
            await asyncio.sleep(0.05)
            assert not leader.task.done()  # type: ignore[union-attr]
            assert sum(map(len, flight.chunks)) < 400_000
            slow.let.set()
            for guest in (leader, other):
                await guest.end()
                assert guest.body == b"".join(events) + ENDING

    play(scene())


# --- what goes wrong -----------------------------------------------------------------------------------


def test_an_error_before_the_head_is_everybodys() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest().follows(flight, up.side))
            for _ in range(3):
                peer = await server.accept()
                await peer.request()
                peer.reset()
            errors = []
            for guest in guests:
                with pytest.raises(PenstockError) as caught:
                    await guest.end()
                errors.append(caught.value)
            assert errors[0] is errors[1] is flight.error
            assert not guests[0].client.sent

    play(scene())


def test_a_backends_refusal_is_passed_to_everybody() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest(PLAIN).follows(flight, up.side))
            peer = await server.accept()
            await peer.request()
            peer.send(whole(b'{"error":{}}', b"400 Bad Request"))
            for guest in guests:
                await guest.end()
                assert guest.status == 400 and guest.body == b'{"error":{}}'
            assert not flight.is_plain

    play(scene())


def test_a_cut_stream_is_cut_for_everybody() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.append(Guest().follows(flight, up.side))
            plain = Guest(PLAIN).follows(flight, up.side)
            peer = await server.accept()
            await begun(peer, event(1))
            await until(lambda: guests[1].body == event(1))
            peer.reset()
            for guest in guests:
                await guest.end()
                assert guest.body.startswith(event(1)) and guest.body.count(b'"error"') == 1
                assert guest.exchange.error is flight.error is not None
            with pytest.raises(BackendError):
                await plain.end()

    play(scene())


def test_a_follower_whose_connection_breaks_harms_no_other() -> None:
    class Broken(Client):
        async def send(self, message: dict[str, Any]) -> None:
            if message["type"] != "http.response.start":
                raise OSError("gone")

    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            leader = Guest()
            flight = up.leads(leader)
            broken = Guest(client=Broken()).follows(flight, up.side)
            peer = await server.accept()
            await begun(peer, event(1))
            with pytest.raises(OSError, match="gone"):
                await broken.end()
            end(peer)
            await leader.end()
            assert leader.body == event(1) + ENDING

    play(scene())


def test_a_thousand_followers() -> None:
    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            guests = [Guest()]
            flight = up.leads(guests[0])
            guests.extend(Guest().follows(flight, up.side) for _ in range(999))
            peer = await server.accept()
            events = [event(number) for number in range(20)]
            await begun(peer, *events[:10])
            await until(lambda: guests[-1].body == b"".join(events[:10]))
            for guest in guests[:500]:
                assert guest.task is not None
                guest.task.cancel()
            peer.send(b"".join(map(chunk, events[10:])))
            end(peer)
            for guest in guests[500:]:
                await guest.end()
                assert guest.body == b"".join(events) + ENDING
            assert len(server.all) == 1 and not flight.followers and not flight.live

    play(scene())


def test_a_flight_leaves_nothing_behind() -> None:
    async def one(server: Backend, up: Stage, leaves: bool) -> weakref.ref[Flight]:
        leader, other = Guest(), Guest()
        flight = up.leads(leader)
        other.follows(flight, up.side)
        peer = server.all[-1] if server.all else await server.accept()
        await begun(peer, event(1))
        await until(lambda: other.body)
        if leaves:
            for guest in (leader, other):
                await stop(guest.task)  # type: ignore[arg-type]
        else:
            end(peer)
            await leader.end()
            await other.end()
        await until(lambda: flight.over)
        assert flight.let_go()
        up.ended.clear()
        up.long.clear()
        return weakref.ref(flight)

    async def scene() -> None:
        async with backend() as server, stage(server.port) as up:
            gc.collect()
            gc.disable()
            try:
                for leaves in (False, True):
                    left = await one(server, up, leaves)
                    await turns()
                    assert left() is None
            finally:
                gc.enable()

    play(scene())
