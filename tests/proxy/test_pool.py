"""The pool of one backend: who gets which connection when, and that it is clean after whatever happens to a wait."""

import asyncio
import contextlib
import socket
import time
from math import inf

import pytest
from scripted import (
    EMPTY,
    GET,
    OK,
    Backend,
    Peer,
    backend,
    counts,
    head_of,
    loopback,
    once,
    play,
    pool,
    starts,
    stop,
    turns,
    until,
)

from penstock.core.errors import BackendTimeout, ConnectFailed, NoHealthyTarget
from penstock.proxy.upstream.connection import Connection, State
from penstock.proxy.upstream.pool import Pool, resolve


async def used(made: Pool, server: Backend) -> Connection:
    """A connection that has served once and is still taken."""
    connection = await made.connect()
    await once(connection, await server.accept())
    return connection


def test_newest_first() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            older, newer = await used(made, server), await used(made, server)
            made.release(older)
            made.release(newer)
            assert made.take() is newer
            assert made.take() is older
            assert made.take() is None

    play(scene())


def test_says_in_one_line_what_it_holds() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=2) as made:
            first, second = await used(made, server), await used(made, server)
            made.release(second)
            assert repr(made) == (
                f"<Pool b b.test:{server.port}: 1 active, 1 idle, 0 connecting, 0 waiting, at most 2>"
            )
            first.close()

    play(scene())


def test_a_connection_whose_exchange_is_not_over_is_closed() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            connection = await made.connect()
            connection.send(GET)
            peer = await server.accept()
            made.release(connection)
            assert connection.state is State.CLOSED
            await peer.left()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


# --- the limit, and who waits for a place ---------------------------------------------------------------


def test_never_more_than_the_limit() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=3) as made:

            async def work() -> None:
                connection = made.take() or await made.connect()
                connection.send(GET)
                await head_of(connection)
                await connection.read()
                made.release(connection)

            async def answer() -> None:
                while True:
                    peer = await server.accept()
                    serving.append(starts(_serve(peer)))

            serving: list[asyncio.Task[None]] = []
            answering = starts(answer())
            await asyncio.gather(*(work() for _ in range(50)))
            assert len(server.all) <= 3
            assert counts(made) == f"0 active, {len(server.all)} idle, 0 connecting, 0 waiting"
            for task in (answering, *serving):
                await stop(task)

    play(scene())


async def _serve(peer: Peer) -> None:
    while True:
        await peer.request()
        peer.send(OK)


def test_waiters_are_served_in_order() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await used(made, server)
            order: list[int] = []

            async def wait(number: int) -> None:
                connection = await made.connect()
                order.append(number)
                await once(connection, server.all[-1])
                made.release(connection)

            waiting = [starts(wait(number)) for number in range(5)]
            await turns()
            assert counts(made) == "1 active, 0 idle, 0 connecting, 5 waiting"
            made.release(held)
            await asyncio.gather(*waiting)
            assert order == [0, 1, 2, 3, 4]
            assert len(server.all) == 1

    play(scene())


def test_a_released_connection_goes_to_a_waiter_not_to_a_newcomer() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await used(made, server)
            waiting = starts(made.connect())
            await turns()
            made.release(held)
            assert made.take() is None
            assert await waiting is held
            held.close()

    play(scene())


def test_a_closed_connections_place_goes_to_the_first_waiter_not_to_a_newcomer() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await used(made, server)
            order: list[str] = []

            async def wait(name: str) -> None:
                connection = await made.connect()
                order.append(name)
                connection.close()

            first = starts(wait("first"))
            await turns()
            late = starts(wait("late"))  # it runs before the first can, and finds the place free
            held.close()
            made.forget(held)
            await asyncio.gather(first, late)
            assert order == ["first", "late"]

    play(scene())


def test_order_holds_while_others_connect() -> None:
    """A connection made gives no room to anybody, so it must not send the first in the queue to its end."""

    async def scene() -> None:
        slow = asyncio.Event()

        async def resolve_slowly(host: str, port: int) -> list[tuple[int, str]]:
            await slow.wait()
            return await loopback(host, port)

        async with backend() as server, pool(server.port, most=2, resolve=resolve_slowly) as made:
            connecting = [starts(made.connect()) for _ in range(2)]
            await turns()
            order: list[int] = []

            async def wait(number: int) -> None:
                connection = await made.connect()
                order.append(number)
                connection.close()

            waiting = [starts(wait(number)) for number in range(4)]
            await turns()
            assert counts(made) == "0 active, 0 idle, 2 connecting, 4 waiting"
            slow.set()
            for task in connecting:
                (await task).close()
            await asyncio.gather(*waiting)
            assert order == [0, 1, 2, 3]
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_a_fresh_one_makes_room_by_closing_an_idle_one() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            idle = await used(made, server)
            made.release(idle)
            fresh = await made.connect(fresh=True)
            assert fresh is not idle
            assert idle.state is State.CLOSED
            assert counts(made) == "1 active, 0 idle, 0 connecting, 0 waiting"
            fresh.close()

    play(scene())


def test_patience_ends_in_503() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1, connect_s=0.02) as made:
            held = await used(made, server)
            with pytest.raises(NoHealthyTarget, match="all 1 connections to the backend 'b' are busy") as caught:
                await made.connect()
            assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
            assert counts(made) == "1 active, 0 idle, 0 connecting, 0 waiting"
            held.close()

    play(scene())


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await used(made, server)
            leaving, staying = starts(made.connect()), starts(made.connect())
            await turns()
            await stop(leaving)
            assert counts(made) == "1 active, 0 idle, 0 connecting, 1 waiting"
            made.release(held)
            assert await staying is held
            held.close()

    play(scene())


@pytest.mark.parametrize("given", ["connection", "place"])
def test_a_waiter_cancelled_in_the_moment_of_its_turn_hands_it_on(given: str) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1) as made:
            held = await used(made, server)
            leaving, staying = starts(made.connect()), starts(made.connect())
            await turns()
            if given == "connection":
                made.release(held)
            else:
                held.close()
                made.forget(held)
            leaving.cancel()
            connection = await staying
            assert (connection is held) == (given == "connection")
            with contextlib.suppress(asyncio.CancelledError):
                await leaving
            assert leaving.cancelled()
            connection.close()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


@pytest.mark.parametrize("given", ["connection", "place"])
def test_a_waiter_whose_patience_ends_in_the_moment_of_its_turn_hands_it_on(given: str) -> None:
    """On a busy loop the timer and the turn come due together; what was given must not be lost."""

    async def scene() -> None:
        async with backend() as server, pool(server.port, most=1, connect_s=0.02) as made:
            held = await used(made, server)
            waiting = starts(made.connect())
            await turns()

            def give_and_be_busy() -> None:
                if given == "connection":
                    made.release(held)
                else:
                    held.close()
                    made.forget(held)
                time.sleep(0.03)

            asyncio.get_running_loop().call_soon(give_and_be_busy)
            with contextlib.suppress(NoHealthyTarget):
                (await waiting).close()
            await turns()
            # Whether it came too late or not, the place is free for the next.
            next_one = made.take() or await made.connect()
            next_one.close()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_the_next_waiter_goes_on_when_connecting_fails() -> None:
    async def scene() -> None:
        tried = 0

        async def refused_once(host: str, port: int) -> list[tuple[int, str]]:
            nonlocal tried
            tried += 1
            if tried == 1:
                await turns(20)
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return await loopback(host, port)

        async with backend() as server, pool(server.port, most=1, resolve=refused_once) as made:
            first, second = starts(made.connect()), starts(made.connect())
            with pytest.raises(ConnectFailed, match="no such name"):
                await first
            (await second).close()
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_everybody_leaves_at_random_and_no_place_is_lost() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, most=3, connect_s=0.01) as made:

            async def work(number: int) -> None:
                with contextlib.suppress(NoHealthyTarget):
                    connection = made.take() or await made.connect()
                    try:
                        await turns(number % 7)
                    finally:
                        made.release(connection)

            tasks = [starts(work(number)) for number in range(300)]
            for number, task in enumerate(tasks):
                if number % 3 == 0:
                    await turns(number % 5)
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: counts(made) == EMPTY)

    play(scene())


# --- connecting ---------------------------------------------------------------------------------------------


def test_every_address_of_a_name_is_tried() -> None:
    async def scene() -> None:
        async def two(host: str, port: int) -> list[tuple[int, str]]:
            assert (host, port) == ("b.test", server.port)
            return [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1")]

        async with backend() as server, pool(server.port, resolve=two) as made:  # it listens on 127.0.0.1 alone
            connection = await made.connect()
            assert await once(connection, await server.accept()) == b"ok"
            connection.close()

    play(scene())


def test_a_silent_address_leaves_time_for_the_next() -> None:
    async def scene() -> None:
        with full_backlog() as silent:

            async def two(host: str, port: int) -> list[tuple[int, str]]:
                return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")]

            answering = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.2", silent)
            async with answering, pool(silent, connect_s=0.5, resolve=two) as made:
                connection = await made.connect()
                connection.close()

    play(scene())


def test_no_address_answers() -> None:
    async def scene() -> None:
        async with backend() as server:
            port = server.port
        async with pool(port) as made:
            with pytest.raises(ConnectFailed, match="the backend 'b' cannot be reached: Connection refused") as caught:
                await made.connect()
            assert (caught.value.phase, caught.value.status, caught.value.code) == (
                "connect",
                502,
                "backend_unreachable",
            )
            assert counts(made) == EMPTY

    play(scene())


def test_a_name_without_address() -> None:
    async def scene() -> None:
        async def none(host: str, port: int) -> list[tuple[int, str]]:
            return []

        async with pool(1, resolve=none) as made:
            with pytest.raises(ConnectFailed, match="its name has no address"):
                await made.connect()

    play(scene())


def test_a_question_that_is_open_is_not_asked_again() -> None:
    async def scene() -> None:
        asked = []
        known = asyncio.Event()

        async def slow(host: str, port: int) -> list[tuple[int, str]]:
            asked.append(host)
            await known.wait()
            return [(socket.AF_INET, "127.0.0.1")]

        async with backend() as server, pool(server.port, resolve=slow) as made:
            leaves, *stay = [starts(made.connect()) for _ in range(3)]
            await turns()
            await stop(leaves)
            known.set()
            for connecting in stay:
                (await connecting).close()
            assert asked == ["b.test"]
            (await made.connect()).close()  # addresses change: the next one asks anew
            assert asked == ["b.test", "b.test"]

    play(scene())


def test_the_systems_resolver() -> None:
    found = play(resolve("127.0.0.1", 80))
    assert found == [(int(socket.AF_INET), "127.0.0.1")]


class full_backlog:
    """The port of a listener that accepts nothing and whose queue is full: connecting to it takes for ever."""

    def __enter__(self) -> int:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        where = self.listener.getsockname()
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(where)
            self.fillers.append(filler)
        time.sleep(0.01)
        return int(where[1])

    def __exit__(self, *exc: object) -> None:
        for filler in (*self.fillers, self.listener):
            filler.close()


def test_connect_deadline() -> None:
    async def scene() -> None:
        with full_backlog() as port:
            async with pool(port, connect_s=0.05) as made:
                with pytest.raises(BackendTimeout) as caught:
                    await made.connect()
                assert (caught.value.phase, caught.value.status) == ("connect", 504)
                assert counts(made) == EMPTY

    play(scene())


def test_cancelled_while_connecting() -> None:
    async def scene() -> None:
        with full_backlog() as port:
            async with pool(port) as made:
                connecting = starts(made.connect())
                await turns()
                assert counts(made) == "0 active, 0 idle, 1 connecting, 0 waiting"
                await stop(connecting)
                assert counts(made) == EMPTY

    play(scene())


def test_cancelled_at_any_moment_of_connecting_leaves_no_connection() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            for moment in range(40):
                connecting = starts(made.connect())
                for _ in range(moment // 4):
                    await asyncio.sleep(0)
                connecting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    made.release(await connecting)
            await until(lambda: counts(made) == EMPTY)
            for peer in tuple(server.all):
                await peer.left()

    play(scene())


def test_a_backend_that_closes_at_once_takes_no_place_for_ever() -> None:
    async def scene() -> None:
        async with backend(lambda peer: peer.reset()) as server, pool(server.port, most=2) as made:
            for _ in range(30):
                with contextlib.suppress(ConnectFailed):
                    connection = await made.connect()
                    await until(lambda c=connection: c.state is State.CLOSED)  # type: ignore[misc]
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_a_connection_lost_before_the_pool_has_it_is_not_kept() -> None:
    """The loop may be so busy that a new connection's end is known before its owner runs again."""

    async def scene() -> None:
        async with backend(lambda peer: peer.reset()) as server, pool(server.port, most=2) as made:
            loop = asyncio.get_running_loop()
            for _ in range(10):
                connecting = starts(made.connect())
                while not connecting.done():
                    # Every turn of the loop takes long, so that one poll brings many events.
                    loop.call_soon(time.sleep, 0.002)
                    await asyncio.sleep(0)
                with contextlib.suppress(ConnectFailed):
                    connection = await connecting
                    await until(lambda c=connection: c.state is State.CLOSED)  # type: ignore[misc]
            await until(lambda: counts(made) == EMPTY)

    play(scene())


# --- idle ones, and the end -------------------------------------------------------------------------------


def test_idle_connections_expire() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, idle_s=30.0) as made:
            old, young, busy = [await used(made, server) for _ in range(3)]
            now = asyncio.get_running_loop().time()
            made.release(old)
            made.release(young)
            young.idle_since = now + 10.0
            made.sweep(now + 29.0)
            assert counts(made) == "1 active, 2 idle, 0 connecting, 0 waiting"
            made.sweep(now + 31.0)
            assert (old.state, young.state, busy.state) == (State.CLOSED, State.IDLE, State.ACTIVE)
            assert made.take() is young
            young.close()
            busy.close()
            await until(lambda: counts(made) == EMPTY)
            await server.all[0].left()

    play(scene())


def test_idle_time_of_zero_uses_none_twice() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port, idle_s=0.0) as made:
            connection = await used(made, server)
            made.release(connection)
            assert made.take() is None
            await until(lambda: counts(made) == EMPTY)

    play(scene())


def test_sweep_hits_only_what_is_past_its_deadline() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            late, total, fine = [await made.connect() for _ in range(3)]
            for connection in (late, total, fine):
                connection.send(GET)
            late.deadline, total.total_deadline, fine.deadline = 100.0, 100.0, 102.0
            assert fine.total_deadline == inf
            made.sweep(101.0)
            assert [c.state for c in (late, total, fine)] == [State.CLOSED, State.CLOSED, State.ACTIVE]
            fine.close()

    play(scene())


def test_close_ends_everything() -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            idle, busy = await used(made, server), await used(made, server)
            made.release(idle)
            made.close()
            assert (idle.state, busy.state) == (State.CLOSED, State.CLOSED)
            for peer in server.all:
                await peer.left()
            await until(lambda: counts(made) == EMPTY)

    play(scene())
