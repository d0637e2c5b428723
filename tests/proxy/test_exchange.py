"""One request's state: its body as it comes, its client's leaving and silence, and that nothing of it stays."""

import asyncio
import contextlib

import pytest
from scripted import Client, exchange, play, starts, turns, until

from penstock.core.errors import BadAnswer, NotFound
from penstock.ext import ResponseHead, ResponseParser
from penstock.proxy.exchange import ClientLeft, Exchange
from penstock.proxy.watch import PERIOD_S, Watch

LENGTH_6 = (b"content-length", b"6")
CHUNKED = (b"transfer-encoding", b"chunked")


async def part(made: Exchange) -> bytes:
    return made.part(await made.message())


async def owned(client: Client, made: list[Exchange], *lines: tuple[bytes, bytes], receive_s: float = 15.0) -> None:
    """A task that holds a request and waits for ever."""
    made.append(exchange(client, "POST", "/v1/x", *lines, receive_s=receive_s))
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        made[0].close()


def test_says_in_one_line_what_it_is() -> None:
    async def scene() -> None:
        made = exchange(Client(), "POST", "/v1/x")
        assert repr(made) == "<Exchange POST /v1/x waiting on ''>"
        made.backend = "b"
        await made.start(200, [])
        assert repr(made) == "<Exchange POST /v1/x 200 on 'b'>"
        made.close()

    play(scene())


# --- the request's body ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "lines", "is_open"),
    [
        ("POST", (), False),
        ("POST", (LENGTH_6,), True),
        ("POST", ((b"content-length", b"0"),), False),
        ("POST", (CHUNKED,), True),
        ("GET", (LENGTH_6,), True),
    ],
)
def test_whether_a_body_comes(method: str, lines: tuple[tuple[bytes, bytes], ...], is_open: bool) -> None:
    async def scene() -> None:
        assert exchange(Client(), method, "/v1/x", *lines).body_open is is_open

    play(scene())


def test_a_body_in_parts() -> None:
    async def scene() -> None:
        made = exchange(Client([b"one", b"", b"two"]), "POST", "/v1/x", CHUNKED)
        parts = [await part(made) for _ in range(3)]
        assert parts == [b"one", b"", b"two"]
        assert not made.body_open
        made.close()

    play(scene())


def test_a_body_is_whole_with_its_declared_length() -> None:
    """The server may say only later that nothing more follows; there is no need to wait for that."""

    async def scene() -> None:
        client = Client()
        client.part(b"onetwo")
        made = exchange(client, "POST", "/v1/x", LENGTH_6)
        assert await part(made) == b"onetwo"
        assert not made.body_open
        made.close()

    play(scene())


def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    async def scene() -> None:
        client = Client()
        client.part(b"one")
        client.leave()
        made = exchange(client, "POST", "/v1/x", LENGTH_6)
        assert await part(made) == b"one"
        with pytest.raises(ClientLeft):
            await part(made)
        assert (made.client_left, made.fault) == (True, "caller")
        made.close()

    play(scene())


# --- the answer ----------------------------------------------------------------------------------------------


def test_an_answer_in_asgi() -> None:
    async def scene() -> None:
        client = Client()
        made = exchange(client)
        assert not made.answering
        await made.start(200, [(b"a", b"b")])
        assert made.answering
        await made.write(b"one")
        await made.finish(b"two")
        assert made.over
        start, body, last = client.sent
        assert start == {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
        assert (body["body"], body["more_body"]) == (b"one", True)
        assert (last["body"], last.get("more_body", False)) == (b"two", False)
        made.close()

    play(scene())


def head_with(lines: list[tuple[bytes, bytes]]) -> ResponseHead:
    """A backend's head with these lines."""
    parser = ResponseParser()
    parser.expect()
    text = b"".join(b"%b: %b\r\n" % line for line in lines)
    head, _, _ = parser.feed(b"HTTP/1.1 204 No Content\r\n" + text + b"\r\n")
    assert head is not None
    return head


@pytest.mark.parametrize(
    ("lines", "cors", "sent"),
    [
        ([], (), [(b"x-request-id", b"id-1")]),
        ([(b"a", b"1"), (b"a", b"2")], (), [(b"a", b"1"), (b"a", b"2"), (b"x-request-id", b"id-1")]),
        ([(b"x-request-id", b"theirs")], (), [(b"x-request-id", b"theirs")]),
        (
            [(b"access-control-allow-origin", b"*"), (b"x-request-id", b"theirs")],
            ((b"access-control-allow-origin", b"https://a"),),
            [(b"x-request-id", b"theirs"), (b"access-control-allow-origin", b"https://a")],
        ),
        (
            [(b"access-control-allow-origin", b"*")],
            (),
            [(b"access-control-allow-origin", b"*"), (b"x-request-id", b"id-1")],
        ),
    ],
    ids=["ours", "repeated", "theirs", "our-cors", "their-cors"],
)
def test_a_backends_header_lines(lines, cors, sent) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        made = exchange(Client())
        made.cors = cors
        assert made.outgoing(head_with(lines)) == sent

    play(scene())


def test_whose_fault_it_is() -> None:
    async def scene() -> None:
        made = exchange(Client())
        assert made.fault is None
        made.client_left = True
        assert made.fault == "caller"
        made.error = BadAnswer("x", phase="body")
        assert made.fault == "backend"
        made.error = NotFound("x")
        assert made.fault == "caller"

    play(scene())


# --- the client's leaving, and its silence -----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before-the-look", "after-the-look"])
def test_a_client_that_leaves_cancels_its_request(when: str) -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]
        task = starts(owned(client, made))
        await turns()
        if when == "before-the-look":
            client.leave()
            made[0].look_after()
        else:
            made[0].look_after()
            await turns()
            client.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert (made[0].client_left, made[0].over) == (True, True)

    play(scene())


def test_leaving_is_looked_for_once_the_body_is_here() -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]
        task = starts(owned(client, made, LENGTH_6))
        await turns()
        made[0].look_after()
        client.part(b"onetwo", more=False)
        assert await part(made[0]) == b"onetwo"
        client.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert made[0].client_left

    play(scene())


def test_leaving_after_the_last_byte_is_no_news() -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]
        task = starts(owned(client, made))
        await turns()
        made[0].look_after()
        await turns()
        await made[0].start(200, [])
        await made[0].finish(b"ok")
        client.leave()
        await turns()
        assert not task.done()
        assert not made[0].client_left
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    play(scene())


def test_messages_other_than_leaving_are_passed_over() -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]
        task = starts(owned(client, made))
        await turns()
        made[0].look_after()
        client.part(b"", more=False)
        await turns()
        assert not task.done()
        client.leave()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert made[0].client_left

    play(scene())


def test_a_client_that_is_silent_in_the_middle_of_its_body() -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]

        async def reads() -> None:
            made.append(exchange(client, "POST", "/v1/x", LENGTH_6, receive_s=0.02))
            try:
                await part(made[0])
                await part(made[0])
            finally:
                made[0].close()

        client.part(b"one")
        task = starts(reads())
        await turns()
        made[0].look_after()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert (made[0].timed_out, made[0].client_left) == (True, False)

    play(scene())


def test_a_slow_backend_is_not_a_silent_client() -> None:
    """Nobody waits for the client's bytes, so their absence is nothing against it."""

    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]
        task = starts(owned(client, made, LENGTH_6, receive_s=0.01))
        await turns()
        made[0].look_after()
        await asyncio.sleep(0.04)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    play(scene())


def test_no_limit_for_a_silent_client() -> None:
    async def scene() -> None:
        client, made = Client(), []  # type: ignore[var-annotated]

        async def reads() -> bytes:
            made.append(exchange(client, "POST", "/v1/x", LENGTH_6, receive_s=0))
            try:
                return await part(made[0])
            finally:
                made[0].close()

        task = starts(reads())
        await turns()
        made[0].look_after()
        await asyncio.sleep(0.02)
        client.part(b"onetwo", more=False)
        assert await task == b"onetwo"

    play(scene())


def test_nothing_stays_of_a_settled_request() -> None:
    async def scene() -> None:
        before = asyncio.all_tasks()
        made = exchange(Client(), "POST", "/v1/x")
        made.look_after()
        waiting = exchange(Client(), "POST", "/v1/x", LENGTH_6, receive_s=0.01)
        waiting.look_after()
        await turns()
        assert len(asyncio.all_tasks()) > len(before)
        made.close()
        waiting.close()
        await asyncio.sleep(0.02)
        assert asyncio.all_tasks() == before
        assert not waiting.timed_out

    play(scene())


# --- who is looked after, and when -------------------------------------------------------------------------------


class Seen:
    def __init__(self, *, over: bool = False) -> None:
        self.over = over
        self.looks = 0

    def look_after(self) -> None:
        self.looks += 1


def test_only_what_lasts_is_looked_after_and_once() -> None:
    async def scene() -> None:
        watch = Watch(asyncio.get_running_loop())
        lasting, short = Seen(), Seen()
        watch.add(lasting)
        watch.add(short)
        short.over = True
        await until(lambda: lasting.looks)
        await asyncio.sleep(3 * PERIOD_S)
        assert (lasting.looks, short.looks) == (1, 0)

    play(scene())


def test_what_comes_while_others_are_young_gets_its_full_time() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        began: dict[Seen, float] = {}
        for _ in range(5):
            seen = Seen()
            began[seen] = loop.time()
            watch.add(seen)
            await asyncio.sleep(PERIOD_S / 3)
        last = max(began.values())
        await until(lambda: all(seen.looks for seen in began))
        assert loop.time() - last >= PERIOD_S - 0.002

    play(scene())


def test_the_watch_starts_again_after_a_rest() -> None:
    async def scene() -> None:
        watch = Watch(asyncio.get_running_loop())
        for _ in range(2):
            seen = Seen()
            watch.add(seen)
            await until(lambda s=seen: s.looks)  # type: ignore[misc]
            await asyncio.sleep(2 * PERIOD_S)

    play(scene())
