"""One connection to a backend: its states, framing, deadlines and ends, on real sockets with scripted bytes."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from scripted import (
    EMPTY,
    GET,
    OK,
    Peer,
    backend,
    counts,
    head_of,
    once,
    play,
    pool,
    rest_of,
    starts,
    stop,
    turns,
    until,
)

from penstock.core.errors import BackendTimeout, BadAnswer
from penstock.proxy.upstream.connection import HIGH_WATER_BYTES, Connection, State
from penstock.proxy.upstream.pool import Pool

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n5;x=1\r\nfive!\r\n0\r\nT: 1\r\n\r\n"
OPEN_ENDED = b"HTTP/1.1 200 OK\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n"


@asynccontextmanager
async def connected(*, reads: bool = True) -> AsyncIterator[tuple[Connection, Peer, Pool]]:
    async with backend(reads=reads) as server, pool(server.port) as made:
        connection = await made.connect()
        yield connection, await server.accept(), made


def test_states_in_their_order() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            seen = [connection.state]
            connection.send(GET)
            seen.append(connection.state)
            await peer.request()
            peer.send(OK)
            await head_of(connection)
            assert await rest_of(connection) == b"ok"
            made.release(connection)
            seen.append(connection.state)
            connection.close()
            seen.append(connection.state)
            assert seen == [State.NEW, State.ACTIVE, State.IDLE, State.CLOSED]
            await peer.left()

    play(scene())


def test_says_in_one_line_what_it_does() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            said = [repr(connection)]
            connection.send(GET)
            said.append(repr(connection))
            await peer.request()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            await head_of(connection)
            await until(lambda: "unread" in repr(connection))
            said.append(repr(connection))
            peer.send(b"world")
            assert await rest_of(connection) == b"helloworld"
            said.append(repr(connection))
            made.release(connection)
            said.append(repr(connection))
            connection.close()
            said.append(repr(connection))
            assert said == [
                "<Connection b new, request 0>",
                "<Connection b active first_byte, request 1>",
                "<Connection b active body, request 1, 5 bytes unread>",
                "<Connection b active body, request 1>",
                "<Connection b idle, request 1>",
                "<Connection b closed, request 1>",
            ]

    play(scene())


def test_says_when_it_waits_for_the_reader() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, _):
            connection.send(GET)
            await peer.request()
            peer.send(LARGE + b"x" * 1_000_000)
            await until(lambda: repr(connection).endswith(" bytes unread, paused>"))

    play(scene())


@pytest.mark.parametrize(
    ("answer", "body", "reusable"),
    [
        (OK, b"ok", True),
        (CHUNKED, b"fourfive!", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (OK + b"HTTP/1.1 200 OK\r\n\r\n", b"ok", False),
    ],
    ids=["length", "chunked", "204", "304", "empty", "100", "103", "close", "http10", "bytes-after-the-end"],
)
@pytest.mark.parametrize("split", [False, True], ids=["at-once", "byte-by-byte"])
def test_framing(answer: bytes, body: bytes, reusable: bool, split: bool) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(GET)
            await peer.request()
            writing = starts(_write(peer, [answer[i : i + 1] for i in range(len(answer))] if split else [answer]))
            await head_of(connection)
            assert await rest_of(connection) == body
            if reusable:
                assert connection.reusable
            made.release(connection)
            assert connection.state is State.IDLE if reusable and not split else True
            await writing
            # What comes behind the answer may come later than its end: the connection closes all the same.
            await until(lambda: (connection.state is State.IDLE) == reusable)
            await until(lambda: counts(made).startswith("0 active, 1 idle" if reusable else "0 active, 0 idle"))

    play(scene())


async def _write(peer: Peer, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        if peer.writer.is_closing():  # our side has closed on bytes behind the end
            return
        peer.send(piece)
        await turns(2)


def test_answer_to_head_has_no_body() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(b"HEAD / HTTP/1.1\r\nHost: b\r\n\r\n", head_request=True)
            await peer.request()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            head = await head_of(connection)
            assert head.content_length == 5
            assert await connection.read() == b""
            made.release(connection)
            assert connection.state is State.IDLE
            assert await once(connection, peer) == b"ok"

    play(scene())


def test_close_delimited_body_ends_with_the_connection() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(GET)
            await peer.request()
            peer.send(OPEN_ENDED + b"some ")
            await head_of(connection)
            assert await connection.read() == b"some "
            assert not connection.complete
            peer.send(b"more")
            assert await connection.read() == b"more"
            peer.end()
            assert await connection.read() == b""
            assert connection.complete
            assert not connection.reusable
            made.release(connection)
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_close_delimited_body_that_is_reset_is_a_failure() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, _):
            connection.send(GET)
            await peer.request()
            peer.send(OPEN_ENDED + b"some")
            await head_of(connection)
            assert await connection.read() == b"some"
            peer.reset()
            with pytest.raises(BadAnswer, match="connection lost") as caught:
                await connection.read()
            assert caught.value.phase == "body"

    play(scene())


# --- ends nobody asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Peer.end, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("served", [0, 1], ids=["first-request", "second-request"])
def test_only_a_silent_end_of_a_reused_connection_is_stale(end, served: int) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            for _ in range(served):
                await once(connection, peer)
                made.release(connection)
                assert made.take() is connection
            connection.send(GET)
            await peer.request()
            end(peer)
            with pytest.raises(BadAnswer) as caught:
                await head_of(connection)
            assert (caught.value.phase, caught.value.stale) == ("first_byte", bool(served))
            await until(lambda: counts(made) == EMPTY)

    play(scene())


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_an_end_after_any_byte_is_not_stale(part: bytes) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            await once(connection, peer)
            made.release(connection)
            made.take()
            connection.send(GET)
            await peer.request()
            peer.send(part)
            await turns()
            peer.end()
            with pytest.raises(BadAnswer) as caught:
                await head_of(connection)
            assert not caught.value.stale
            assert caught.value.phase == "first_byte"

    play(scene())


@pytest.mark.parametrize("end", [Peer.end, Peer.reset], ids=["close", "reset"])
@pytest.mark.parametrize("part", [LARGE + b"some", CHUNKED[:-5]], ids=["length", "chunked"])
def test_an_end_before_the_body_is_whole(end, part: bytes) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(GET)
            await peer.request()
            peer.send(part)
            await head_of(connection)
            await connection.read()
            end(peer)
            with pytest.raises(BadAnswer) as caught:
                while True:
                    await connection.read()
            assert (caught.value.phase, caught.value.stale) == ("body", False)
            assert connection.state is State.CLOSED
            await until(lambda: counts(made) == EMPTY)

    play(scene())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
    ids=["not-http", "two-lengths", "length-and-chunked", "101", "huge-head"],
)
def test_what_is_not_http_closes_the_connection(answer: bytes) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(GET)
            await peer.request()
            peer.send(answer)
            with pytest.raises(BadAnswer, match="not valid HTTP") as caught:
                await head_of(connection)
            assert not caught.value.stale
            assert connection.state is State.CLOSED
            await peer.left()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_bad_chunk_after_good_ones() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, _):
            connection.send(GET)
            await peer.request()
            peer.send(CHUNKED.partition(b"5;")[0])
            assert (await head_of(connection)).status == 200
            assert await connection.read() == b"four"
            peer.send(b"ZZ\r\n")
            with pytest.raises(BadAnswer, match="not valid HTTP") as caught:
                await connection.read()
            assert caught.value.phase == "body"

    play(scene())


@pytest.mark.parametrize("idle", [False, True], ids=["new", "idle"])
def test_bytes_nobody_asked_for_close_the_connection(idle: bool) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            if idle:
                await once(connection, peer)
                made.release(connection)
            peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            await until(lambda: connection.state is State.CLOSED)
            await peer.left()
            await until(lambda: counts(made) == EMPTY)
            assert made.take() is None

    play(scene())


def test_closed_while_idle() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            await once(connection, peer)
            made.release(connection)
            peer.end()
            await until(lambda: counts(made) == EMPTY)
            assert connection.state is State.CLOSED
            with pytest.raises(BadAnswer) as caught:
                connection.send(GET)
            assert caught.value.stale

    play(scene())


def test_a_new_connection_that_is_closed_at_once_is_not_stale() -> None:
    """Stale means "was good once"; on a connection that never served, trying again would never end."""

    async def scene() -> None:
        async with connected() as (connection, peer, _):
            peer.end()
            await until(lambda: connection.state is State.CLOSED)
            with pytest.raises(BadAnswer) as caught:
                connection.send(GET)
            assert not caught.value.stale

    play(scene())


# --- a slow reader -----------------------------------------------------------------------------------------


def test_holds_one_read_beyond_the_mark_while_nobody_reads() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, _):
            connection.send(GET)
            await peer.request()
            peer.send(LARGE + b"x" * 50_000_000)
            await head_of(connection)
            most = 0
            for _ in range(40):
                await until(lambda: repr(connection).endswith("paused>"))
                data = connection.take()
                most = max(most, len(data))
            assert HIGH_WATER_BYTES < most <= HIGH_WATER_BYTES + 262_144

    play(scene())


def test_time_with_a_slow_reader_is_not_the_backends_silence() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            now = asyncio.get_running_loop().time
            connection.silence_s = 1.0
            connection.send(GET)
            await peer.request()
            peer.send(LARGE + b"x" * 1_000_000)
            await until(lambda: repr(connection).endswith("paused>"))
            made.sweep(now() + 3600)
            assert connection.state is State.ACTIVE
            data = connection.take()
            made.sweep(now() + 0.5)
            assert connection.state is State.ACTIVE
            left = 1_000_000 - len(data)
            while left:
                left -= len(await connection.read())
            made.sweep(now() + 3600)
            assert connection.state is State.CLOSED

    play(scene())


def test_what_has_come_can_be_read_after_a_slow_readers_connection_is_gone() -> None:
    """The total deadline ends a connection whose reading was paused; taking what is here must not touch the socket."""

    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.total_deadline = 100.0
            connection.send(GET)
            await peer.request()
            peer.send(LARGE + b"x" * 1_000_000)
            await until(lambda: repr(connection).endswith("paused>"))
            made.sweep(101.0)
            await turns()
            assert len(await connection.read()) > HIGH_WATER_BYTES
            with pytest.raises(BackendTimeout) as caught:
                await connection.read()
            assert caught.value.phase == "body"

    play(scene())


# --- deadlines: the time is an argument ---------------------------------------------------------------------


def test_first_byte_deadline() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.send(GET)
            connection.deadline = 100.0
            waiting = starts(head_of(connection))
            await peer.request()
            made.sweep(100.0)
            assert connection.state is State.ACTIVE
            made.sweep(100.1)
            with pytest.raises(BackendTimeout, match="begin its answer") as caught:
                await waiting
            assert (caught.value.phase, caught.value.stale, caught.value.status) == ("first_byte", False, 504)
            await peer.left()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


@pytest.mark.parametrize("limit", ["silence", "total"])
def test_body_deadlines(limit: str) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            if limit == "silence":
                connection.silence_s = 5.0
            connection.send(GET)
            if limit == "total":
                connection.total_deadline = asyncio.get_running_loop().time() + 5.0
            await peer.request()
            peer.send(LARGE + b"some")
            await head_of(connection)
            await connection.read()
            waiting = starts(connection.read())
            await turns()
            made.sweep(asyncio.get_running_loop().time() + 4.0)
            assert connection.state is State.ACTIVE
            made.sweep(asyncio.get_running_loop().time() + 6.0)
            with pytest.raises(BackendTimeout, match="go on with its answer") as caught:
                await waiting
            assert caught.value.phase == "body"
            await peer.left()

    play(scene())


def test_every_piece_of_a_body_starts_its_silence_anew() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, _):
            connection.silence_s = 5.0
            connection.send(GET)
            await peer.request()
            peer.send(LARGE)
            await head_of(connection)
            first = connection.deadline
            await asyncio.sleep(0.005)
            peer.send(b"x")
            await connection.read()
            assert first < connection.deadline <= asyncio.get_running_loop().time() + 5.0

    play(scene())


def test_send_deadline() -> None:
    async def scene() -> None:
        async with connected(reads=False) as (connection, peer, made):
            connection.send(GET)
            connection.write(bytes(30_000_000))
            connection.await_room(100.0)
            waiting = starts(connection.drain())
            await turns()
            made.sweep(101.0)
            with pytest.raises(BackendTimeout, match="take the request") as caught:
                await waiting
            assert caught.value.phase == "send"
            await until(lambda: counts(made) == EMPTY)
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await peer.left()) < 30_000_000

    play(scene())


def test_an_idle_connection_has_no_deadline_of_its_last_request() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.total_deadline = 1.0
            connection.deadline = 1.0
            await once(connection, peer)
            made.release(connection)
            made.sweep(asyncio.get_running_loop().time())
            assert connection.state is State.IDLE

    play(scene())


# --- cancelled in every phase ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"", LARGE + b"some"], ids=["waiting-for-the-head", "in-the-body"])
def test_cancelled_and_closed_the_backend_sees_it(answer: bytes) -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):

            async def read() -> None:
                try:
                    await head_of(connection)
                    while True:
                        await connection.read()
                finally:
                    made.release(connection)

            connection.send(GET)
            await peer.request()
            peer.send(answer)
            reading = starts(read())
            if answer:
                await until(lambda: connection.phase == "body")
            await turns()
            before = time.monotonic()
            await stop(reading)
            await peer.left()
            assert time.monotonic() - before < 0.1
            assert connection.state is State.CLOSED
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_cancelled_while_a_body_is_sent() -> None:
    async def scene() -> None:
        async with connected(reads=False) as (connection, peer, made):
            connection.send(GET)
            connection.write(bytes(30_000_000))
            sending = starts(connection.drain())
            await turns()
            assert not sending.done()
            await stop(sending)
            made.release(connection)
            assert connection.state is State.CLOSED
            await until(lambda: counts(made) == EMPTY)
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await peer.left()) < 30_000_000

    play(scene())


# --- answers that come before the request is sent -----------------------------------------------------------


@pytest.mark.parametrize("then", ["stays", "closes"])
def test_an_early_answer_ends_the_wait_for_room(then: str) -> None:
    """The backend has decided and takes no more: waiting on would hide its answer, for ever if it closes."""

    async def scene() -> None:
        async with connected(reads=False) as (connection, peer, _):
            connection.send(GET)
            connection.write(bytes(30_000_000))
            connection.await_room(asyncio.get_running_loop().time() + 60.0)
            sending = starts(connection.drain())
            await turns()
            peer.send(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmuch")
            if then == "closes":
                peer.end()
            async with asyncio.timeout(1.0):
                await sending
            assert (await head_of(connection)).status == 413
            assert await rest_of(connection) == b"much"
            assert not connection.reusable
            connection.close()

    play(scene())


def test_a_lost_connection_ends_the_wait_for_room() -> None:
    async def scene() -> None:
        async with connected(reads=False) as (connection, peer, made):
            connection.send(GET)
            connection.write(bytes(30_000_000))
            sending = starts(connection.drain())
            await turns()
            peer.reset()
            with pytest.raises(BadAnswer):
                await sending
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_not_reusable_while_the_request_is_still_being_sent() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            connection.sending = True
            assert await once(connection, peer) == b"ok"
            assert not connection.reusable
            made.release(connection)
            assert connection.state is State.CLOSED

    play(scene())


def test_many_requests_on_one_connection() -> None:
    async def scene() -> None:
        async with connected() as (connection, peer, made):
            for answer, _ in zip(itertools.cycle([OK, CHUNKED]), range(20), strict=False):
                assert await once(connection, peer, answer) in (b"ok", b"fourfive!")
                made.release(connection)
                assert made.take() is connection
            assert connection.requests == 20

    play(scene())
