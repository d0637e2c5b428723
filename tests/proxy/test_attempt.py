"""Attempts: which connection a request goes on, what a failure leads to, and that leaving frees the backend."""

import asyncio
import contextlib

import msgspec
import pytest
from scripted import (
    EMPTY,
    NO_LIMITS,
    OK,
    Backend,
    Client,
    Peer,
    asks,
    backend,
    body_of,
    counts,
    once,
    plan_to,
    play,
    pool,
    run,
    starts,
    stop,
    target,
    turns,
    until,
    uploads,
)

from penstock.core.config import Retry
from penstock.core.errors import BackendTimeout, BadAnswer, ConnectFailed, NoHealthyTarget
from penstock.proxy.exchange import ClientLeft
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.upstream.sending import JOIN_BYTES
from running import free_port

ONCE = Retry(attempts=1)


async def idle_connection(made: Pool, server: Backend) -> Peer:
    """Leave one used connection idle in the pool; its other end."""
    connection = await made.connect()
    peer = await server.accept()
    await once(connection, peer)
    made.release(connection)
    return peer


def large(size: int) -> bytes:
    return b'{"model":"m","x":"%b"}' % (b"x" * size)


# --- what is sent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, JOIN_BYTES - 100, JOIN_BYTES, 1_000_000], ids=["small", "joined", "split", "1MB"])
def test_the_request_arrives_as_it_was_sent(size: int) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks(large(size))
            sent.query = b"a=%20b"
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            head, _, body = (await peer.request()).partition(b"\r\n\r\n")
            assert body == sent.body
            lines = head.split(b"\r\n")
            assert lines[0] == b"POST /v1/chat/completions?a=%20b HTTP/1.1"
            assert lines.count(b"host: 127.0.0.1:%d" % server.port) == 1
            assert [line for line in lines if line.startswith(b"content-length")] == [b"content-length: %d" % len(body)]
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            assert (sent.backend, sent.attempts) == ("b", 1)
            sent.close()

    play(scene())


def test_only_the_models_name_is_rewritten() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks(b'{ "model" : "m",\n "x": 1e400, "model":"m"}')
            running = starts(run(plan_to(target(server.port, rename="other")), sent, {"b": made}))
            peer = await server.accept()
            request = await peer.request()
            assert request.endswith(b'\r\n\r\n{ "model" : "other",\n "x": 1e400, "model":"other"}')
            peer.send(OK)
            await body_of(await running)
            sent.close()

    play(scene())


@pytest.mark.parametrize("length", [9, None], ids=["length", "chunked"])
def test_an_upload_goes_on_as_it_comes(length: int | None) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            sent = uploads(client, length)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await peer.reader.readuntil(b"\r\n\r\n")
            for number, part in enumerate((b"one", b"two", b"six")):
                client.part(part, more=number < 2)
                expected = part if length else b"3\r\n%b\r\n" % part
                assert await peer.reader.readexactly(len(expected)) == expected
            if length is None:
                assert await peer.reader.readexactly(5) == b"0\r\n\r\n"
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            assert counts(made).startswith("0 active, 1 idle")
            sent.close()

    play(scene())


# --- stale connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("size", [0, 1_000_000], ids=["small", "1MB"])
def test_a_stale_connection_is_nobodys_error(how: str, size: int) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            old = await idle_connection(made, server)
            sent = asks(large(size))
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            await old.reader.readuntil(b"\r\n\r\n")
            getattr(old, how)()
            peer = await server.accept()
            assert (await peer.request()).endswith(sent.body)
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            assert sent.attempts == 2
            sent.close()

    play(scene())


def test_the_second_try_is_on_a_new_connection_even_if_others_are_idle() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            first, second = await made.connect(), await made.connect()
            peers = [await server.accept(), await server.accept()]
            await asyncio.gather(once(first, peers[0]), once(second, peers[1]))
            made.release(first)
            made.release(second)
            sent = asks()
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            await peers[1].request()
            peers[1].end()
            peer = await server.accept()
            await peer.request()
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            sent.close()

    play(scene())


def test_an_error_on_a_new_connection_is_an_attempt() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks()
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}, retry=ONCE))
            peer = await server.accept()
            await peer.request()
            peer.end()
            with pytest.raises(BadAnswer) as caught:
                await running
            assert (caught.value.phase, sent.attempts, len(server.all)) == ("first_byte", 1, 1)
            await until(lambda: counts(made) == EMPTY)
            sent.close()

    play(scene())


def test_an_answer_that_began_on_an_old_connection_is_an_attempt() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            old = await idle_connection(made, server)
            sent = asks()
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}, retry=ONCE))
            await old.request()
            old.send(b"HTTP/1.1 2")
            await turns()
            old.end()
            with pytest.raises(BadAnswer):
                await running
            assert sent.attempts == 1
            sent.close()

    play(scene())


GREETINGS = {
    "closes": Peer.end,
    "resets": Peer.reset,
    "speaks-first": lambda peer: peer.send(b"220 mail.example.org ESMTP\r\n"),
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_a_backend_that_is_no_http_server_is_not_asked_for_ever(greeting: str) -> None:
    """What ends a connection that has never served is a failure and no stale connection: one try."""

    async def scene() -> None:
        async with backend(GREETINGS[greeting]) as server, pool(server.port) as made:
            for number in range(1, 21):
                sent = asks()
                running = starts(run(plan_to(target(server.port)), sent, {"b": made}, retry=ONCE))
                await until(lambda n=number, r=running: r.done() or len(server.all) > 2 * n)  # type: ignore[misc]
                running.cancel()
                with pytest.raises((BadAnswer, ConnectFailed)):
                    await running
                sent.close()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_an_upload_never_goes_on_a_used_connection() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            old = await idle_connection(made, server)
            sent = uploads(Client([b"one"]), 3)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            assert peer is not old
            await peer.request()
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            sent.close()

    play(scene())


def test_an_upload_never_goes_on_a_used_connection_also_if_it_waited_for_a_place() -> None:
    """What a neighbour gives back may have been closed by the backend in the same moment, and this body goes once."""

    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await made.connect()
            old = await server.accept()
            await once(held, old)
            sent = uploads(Client([b"one"]), 3)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            await turns()
            made.release(held)
            old.end()
            peer = await server.accept()
            await peer.request()
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            sent.close()

    play(scene())


# --- other targets ------------------------------------------------------------------------------------------


def test_the_next_target_when_one_cannot_be_reached() -> None:
    async def scene() -> None:
        gone = free_port()
        async with backend() as server, pool(gone) as nobody, pool(server.port) as made:
            sent = asks()
            plan = plan_to(target(gone, name="a"), target(server.port, name="b"))
            running = starts(run(plan, sent, {"a": nobody, "b": made}))
            peer = await server.accept()
            await peer.request()
            peer.send(OK)
            reply = await running
            assert await body_of(reply) == b"ok"
            assert (sent.backend, reply.pool) == ("b", made) and sent.attempts <= 2
            sent.close()

    play(scene())


def test_no_target_can_be_reached() -> None:
    async def scene() -> None:
        ports = free_port(), free_port()
        async with pool(ports[0]) as first, pool(ports[1]) as second:
            sent = asks()
            with pytest.raises(ConnectFailed):
                await run(plan_to(target(ports[0], name="a"), target(ports[1])), sent, {"a": first, "b": second})
            assert sent.attempts == 3
            sent.close()

    play(scene())


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_backends_error_answer_is_an_answer(status: int) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks()
            running = starts(run(plan_to(target(server.port), target(server.port)), sent, {"b": made}, retry=ONCE))
            peer = await server.accept()
            await peer.request()
            peer.send(b"HTTP/1.1 %d Status\r\nContent-Length: 2\r\n\r\nno" % status)
            reply = await running
            assert (reply.head.status, await body_of(reply), sent.attempts) == (status, b"no", 1)
            sent.close()

    play(scene())


# --- deadlines ----------------------------------------------------------------------------------------------


def test_first_byte_deadline_counts_from_the_requests_end() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks(large(1_000_000))
            where = target(server.port, timeouts=msgspec.structs.replace(NO_LIMITS, first_byte_s=5.0, send_s=60.0))
            running = starts(run(plan_to(where), sent, {"b": made}))
            peer = await server.accept()
            await peer.request()
            await turns()
            made.sweep(sent.now() + 4.5)
            await turns()
            assert not running.done()
            made.sweep(sent.now() + 5.5)
            with pytest.raises(BackendTimeout) as caught:
                await running
            assert caught.value.phase == "first_byte"
            await peer.left()
            sent.close()

    play(scene())


def test_send_deadline() -> None:
    async def scene() -> None:
        async with backend(reads=False) as server, pool(server.port) as made:
            sent = asks(large(20_000_000))
            where = target(server.port, timeouts=msgspec.structs.replace(NO_LIMITS, send_s=5.0))
            running = starts(run(plan_to(where), sent, {"b": made}))
            await server.accept()
            await turns(20)
            made.sweep(sent.now() + 5.5)
            with pytest.raises(BackendTimeout, match="take the request") as caught:
                await running
            assert (caught.value.phase, sent.attempts) == ("send", 1)
            await until(lambda: counts(made) == EMPTY)
            sent.close()

    play(scene())


def test_total_deadline_counts_from_the_first_try() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks()
            where = target(server.port, timeouts=msgspec.structs.replace(NO_LIMITS, total_s=5.0))
            running = starts(run(plan_to(where), sent, {"b": made}))
            await server.accept()
            await turns()
            made.sweep(sent.started + 4.9)
            await turns()
            assert not running.done()
            made.sweep(sent.started + 5.1)
            with pytest.raises(BackendTimeout):
                await running
            sent.close()

    play(scene())


def test_a_slow_client_is_not_a_slow_backend() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            client.part(b"one")
            sent = uploads(client, 6)
            limits = msgspec.structs.replace(NO_LIMITS, send_s=5.0, first_byte_s=5.0)
            running = starts(run(plan_to(target(server.port, timeouts=limits)), sent, {"b": made}))
            peer = await server.accept()
            await peer.reader.readuntil(b"one")
            made.sweep(sent.now() + 3600)
            await turns()
            assert not running.done()
            client.part(b"two", more=False)
            await peer.reader.readuntil(b"two")
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            sent.close()

    play(scene())


# --- answers before the request is whole ---------------------------------------------------------------------

EARLY = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmuch"


@pytest.mark.parametrize("then", ["stays", "ends", "resets"])
def test_early_answer_to_a_large_held_body(then: str) -> None:
    async def scene() -> None:
        async with backend(reads=False) as server, pool(server.port) as made:
            sent = asks(large(20_000_000))
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            peer.send(EARLY)
            await turns(20)
            if then == "ends":
                peer.end()
            elif then == "resets":
                await until(lambda: not peer.writer.transport.get_write_buffer_size())
                peer.reset()
            async with asyncio.timeout(2.0):
                reply = await running
                assert (reply.head.status, await body_of(reply)) == (413, b"much")
            await until(lambda: counts(made) == EMPTY)
            sent.close()

    play(scene())


@pytest.mark.parametrize("reads", [True, False], ids=["backend-reads", "backend-does-not-read"])
def test_early_answer_to_an_upload(reads: bool) -> None:
    async def scene() -> None:
        async with backend(reads=reads) as server, pool(server.port) as made:
            client = Client()
            sent = uploads(client, 1 << 29)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            for _ in range(200):
                client.part(b"x" * 65_536)
            peer = await server.accept()
            if not reads:
                await asyncio.sleep(0.05)  # until the sockets' buffers are full
            peer.send(EARLY)
            async with asyncio.timeout(2.0):
                reply = await running
                assert (reply.head.status, await body_of(reply)) == (413, b"much")
            await until(lambda: counts(made) == EMPTY)
            sent.close()

    play(scene())


def test_early_answer_while_the_client_says_nothing() -> None:
    """A client may wait for a sign before it sends the rest; the answer is that sign."""

    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            client.part(b"some of it")
            sent = uploads(client, 1 << 20)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await peer.reader.readuntil(b"some of it")
            peer.send(EARLY)
            async with asyncio.timeout(2.0):
                assert (await running).head.status == 413
            sent.close()

    play(scene())


def test_a_backend_that_dies_while_the_client_says_nothing() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            client.part(b"some of it")
            sent = uploads(client, 1 << 20)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await peer.reader.readuntil(b"some of it")
            peer.end()
            async with asyncio.timeout(2.0):
                with pytest.raises(BadAnswer):
                    await running
            sent.close()

    play(scene())


def test_more_of_a_body_for_a_backend_that_has_died() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            client.part(b"some of it")
            sent = uploads(client, 1 << 20)
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await peer.reader.readuntil(b"some of it")
            peer.end()
            await until(lambda: counts(made) == EMPTY)
            client.part(b"more of it")
            with pytest.raises(BadAnswer) as caught:
                await running
            assert caught.value.fault == "backend"
            sent.close()

    play(scene())


# --- the client leaves, in every phase -------------------------------------------------------------------------


def test_leaves_while_waiting_for_a_place() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await made.connect()
            await server.accept()
            sent = asks()
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            await until(lambda: counts(made).endswith("1 waiting"))
            await stop(running)
            assert counts(made).endswith("0 waiting")
            held.close()
            await until(lambda: counts(made) == EMPTY)
            assert len(server.all) == 1
            sent.close()

    play(scene())


def test_leaves_while_a_body_is_sent() -> None:
    async def scene() -> None:
        async with backend(reads=False) as server, pool(server.port) as made:
            sent = asks(large(20_000_000))
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await turns(20)
            await stop(running)
            await until(lambda: counts(made) == EMPTY)
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await peer.left()) < 20_000_000
            sent.close()

    play(scene())


def test_leaves_while_waiting_for_the_head() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            sent = asks()
            running = starts(run(plan_to(target(server.port)), sent, {"b": made}))
            peer = await server.accept()
            await peer.request()
            await stop(running)
            await peer.left()
            await until(lambda: counts(made) == EMPTY)
            sent.close()

    play(scene())


def test_leaves_in_the_middle_of_an_upload() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            client = Client()
            client.part(b"one")

            async def owner() -> None:
                sent = uploads(client, 6)
                try:
                    await run(plan_to(target(server.port)), sent, {"b": made})
                finally:
                    sent.close()

            running = starts(owner())
            peer = await server.accept()
            await peer.reader.readuntil(b"one")
            client.leave()
            await peer.left()
            with contextlib.suppress(asyncio.CancelledError, ClientLeft):
                await running
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_cancelled_at_any_moment_the_pool_stays_clean() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=2) as made:

            async def answer() -> None:
                while True:
                    peer = await server.accept()
                    serving.append(starts(_answers(peer)))

            async def work() -> None:
                sent = asks()
                try:
                    await body_of(await run(plan_to(target(server.port)), sent, {"b": made}))
                finally:
                    sent.close()

            serving: list[asyncio.Task[None]] = []
            answering = starts(answer())
            for moment in range(120):
                pair = starts(work()), starts(work()), starts(work())
                await turns(moment // 3)
                for task in pair:
                    task.cancel()
                await asyncio.gather(*pair, return_exceptions=True)
            await until(
                lambda: counts(made).startswith("0 active,") and counts(made).endswith("0 connecting, 0 waiting")
            )
            await work()
            for task in (answering, *serving):
                await stop(task)

    play(scene())


async def _answers(peer: Peer) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await peer.request()
            peer.send(OK)


def test_no_place_is_a_503_and_not_a_backends_failure() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1, connect_s=0.02) as made:
            held = await made.connect()
            sent = asks()
            with pytest.raises(NoHealthyTarget):
                await run(plan_to(target(server.port)), sent, {"b": made})
            assert sent.attempts == 1
            held.close()
            sent.close()

    play(scene())
