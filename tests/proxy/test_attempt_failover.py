"""Failover: which failures are tried elsewhere or again, what the client gets when nothing helps, and that no place at
a target is ever kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from scripted import (
    EMPTY,
    NO_LIMITS,
    OK,
    Backend,
    Client,
    Peer,
    Side,
    asks,
    backend,
    body_of,
    counts,
    exchange,
    play,
    pool,
    starts,
    stop,
    target,
    turns,
    until,
    uploads,
)

from penstock.core.config import Breaker, Retry
from penstock.core.endpoint import match
from penstock.core.errors import (
    BackendError,
    BackendTimeout,
    BadAnswer,
    IncompleteReply,
    NoHealthyTarget,
    TargetsOpen,
)
from penstock.core.plan import Plan, Timeouts
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.attempt import HOLD_BYTES, Reply
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.upstream.retry_budget import FIRST
from running import free_port

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
WHOLE = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
UNFINISHED = b'{"choices":[{"index":0,"message":{"content":"h"},"finish_reason":null}]}'
ANSWER = JSON_HEAD % len(WHOLE) + WHOLE
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def refusal(status: int, *lines: bytes) -> bytes:
    head = b"HTTP/1.1 %d Status\r\nContent-Length: 2\r\n" % status
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\nno"


def sends(data: bytes, then: str = "") -> Callable[[Peer], None]:
    """A backend that answers a request so, and then ends or resets its connection."""

    def act(peer: Peer) -> None:
        peer.send(data)
        if then:
            getattr(peer, then)()

    return act


Act = Callable[[Peer], None]


class Stand:
    """Backends a, b, … that answer each request by their script, and one worker's way to them."""

    def __init__(self, side: Side, plan: Plan, pools: dict[str, Pool], seen: list[str]) -> None:
        self.side = side
        self.plan = plan
        self.pools = pools
        self.seen = seen

    def plan_within(self, limits: Timeouts) -> Plan:
        """The same plan with other timeouts."""
        return self.side.plan(
            tuple(
                msgspec.structs.replace(each, upstream=msgspec.structs.replace(each.upstream, timeouts=limits))
                for each in self.plan.targets
            )
        )

    async def ask(self, sent: Exchange | None = None) -> Reply:
        made = sent or asks()
        try:
            return await self.side.attempts.run(self.plan, made)
        finally:
            self.last = made
            self.side.attempts.settle(made)
            made.close()

    def clean(self) -> None:
        assert all(counts(made).startswith("0 active") for made in self.pools.values())


@contextlib.asynccontextmanager
async def stand(*scripts: Act, fallback: int = 0, most: int = 4, **sections: object) -> AsyncIterator[Stand]:
    """scripts: of backends a, b, …; the last `fallback` of them are a fallback model's."""
    async with contextlib.AsyncExitStack() as stack:
        seen: list[str] = []
        pools: dict[str, Pool] = {}
        targets = []
        for name, script in zip("abcdef", scripts, strict=False):
            server = await stack.enter_async_context(backend())
            pools[name] = await stack.enter_async_context(pool(server.port, name=name, most=most))
            targets.append(target(server.port, name=name))
            serving = starts(_serve(server, script, name, seen))
            stack.push_async_callback(stop, serving)
        side = Side(pools, **sections)
        own = len(targets) - fallback
        groups = [tuple(targets[:own]), tuple(targets[own:])] if fallback else [tuple(targets)]
        yield Stand(side, side.plan(*groups), pools, seen)
        assert side.in_flight == 0


async def _serve(server: Backend, script: Act, name: str, seen: list[str]) -> None:
    async with asyncio.TaskGroup() as peers:
        while True:
            peers.create_task(_answer(await server.peers.get(), script, name, seen))


async def _answer(peer: Peer, script: Act, name: str, seen: list[str]) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await peer.reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await peer.reader.readexactly(int(line[15:]))
            seen.append(name)
            script(peer)


# --- failures that another target makes good ------------------------------------------------------------------

FAILURES: dict[str, Act] = {
    "closes before an answer": sends(b"", "end"),
    "resets before an answer": sends(b"", "reset"),
    "closes in the head": sends(b"HTTP/1.1 200 O", "end"),
    "no HTTP": sends(b"220 mail.example.org ESMTP\r\n\r\n"),
    "closes before the body": sends(JSON_HEAD % 100, "end"),
    "closes in the body": sends(JSON_HEAD % 100 + b'{"choices":', "end"),
    "resets in the body": sends(JSON_HEAD % 100 + b'{"choices":', "reset"),
    "closes a stream before its first byte": sends(STREAM_HEAD, "end"),
    "breaks the chunks at once": sends(STREAM_HEAD + b"zz\r\n"),
    "a cut answer": sends(JSON_HEAD % len(UNFINISHED) + UNFINISHED),
    "429": sends(refusal(429)),
    "500": sends(refusal(500)),
    "503 for long": sends(refusal(503, b"Retry-After: 3600")),
    "529": sends(refusal(529)),
    "503 without an end": sends(b"HTTP/1.1 503 Status\r\nContent-Length: 900\r\n\r\nno"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_another_target_makes_good(failure: str) -> None:
    async def scene() -> None:
        async with stand(FAILURES[failure], sends(ANSWER)) as here:
            for _ in range(4):  # whichever is asked first
                reply = await here.ask()
                assert (reply.head.status, reply.body) == (200, WHOLE)
                assert reply.connection is None
                assert here.last.backend == "b" and here.last.attempts <= 2
                here.clean()
            assert set(here.seen) == {"a", "b"}
            if here.last.attempts == 2:
                assert [(tried.backend, tried.status) for tried in here.last.tries][1:] == [("b", 200)]

    play(scene())


@pytest.mark.parametrize("failure", ["closes in the body", "429", "500"])
def test_a_fallback_model_makes_good_when_all_targets_failed(failure: str) -> None:
    async def scene() -> None:
        act = FAILURES[failure]
        async with stand(act, act, sends(ANSWER), fallback=1) as here:
            reply = await here.ask()
            assert (reply.body, here.last.backend, here.last.attempts) == (WHOLE, "c", 3)
            assert sorted(here.seen[:2]) == ["a", "b"] and here.seen[2] == "c"

    play(scene())


def test_an_unreachable_target_is_passed_over_whatever_the_method() -> None:
    async def scene() -> None:
        gone = free_port()
        async with backend() as server, pool(gone) as nobody, pool(server.port) as made:
            side = Side({"a": nobody, "b": made})
            plan = side.plan((target(gone, name="a"),), (target(server.port),))
            sent = uploads(Client([b"one"]), 3)
            running = starts(side.attempts.run(plan, sent))
            peer = await server.accept()
            assert (await peer.request()).endswith(b"one")
            peer.send(OK)
            assert await body_of(await running) == b"ok"
            side.attempts.settle(sent)
            assert (sent.attempts, side.in_flight) == (2, 0)
            sent.close()

    play(scene())


def test_a_timeout_goes_to_another_target_and_never_to_the_same() -> None:
    async def scene() -> None:
        def nothing(peer: Peer) -> None: ...

        async with stand(nothing) as here:
            limits = msgspec.structs.replace(NO_LIMITS, first_byte_s=5.0)
            sent = asks()
            running = starts(here.side.attempts.run(here.plan_within(limits), sent))
            await until(lambda: here.seen)
            here.pools["a"].sweep(sent.now() + 6)
            with pytest.raises(BackendTimeout):
                await running
            assert sent.attempts == 1 and here.side.in_flight == 0
            sent.close()

    play(scene())


# --- what is not tried again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 422])
def test_a_callers_error_is_the_callers(status: int) -> None:
    async def scene() -> None:
        async with stand(sends(refusal(status)), sends(refusal(status))) as here:
            reply = await here.ask()
            assert (reply.head.status, here.last.attempts) == (status, 1)
            assert here.side.log.breakers == []
            assert here.side.cells.targets["a", ""].failures_in_row == 0

    play(scene())


def test_a_stream_that_has_begun_is_not_tried_again() -> None:
    async def scene() -> None:
        async with stand(sends(STREAM_HEAD + b"3\r\nabc\r\n", "end"), most=9) as here:
            reply = await here.ask()
            assert reply.connection is not None
            assert await reply.connection.read() == b"abc"
            with pytest.raises(BadAnswer):
                await reply.connection.read()
            assert here.last.attempts == 1

    play(scene())


@pytest.mark.parametrize("failure", ["closes before an answer", "503 for long", "500"])
def test_what_may_have_changed_something_is_not_sent_twice(failure: str) -> None:
    async def scene() -> None:
        async with stand(FAILURES[failure], FAILURES[failure]) as here:
            here.plan = msgspec.structs.replace(here.plan, endpoint=match("POST", b"/v1/files"))
            sent = exchange(Client(), "POST", "/v1/files", (b"content-length", b"0"))
            with contextlib.suppress(BackendError):
                reply = await here.ask(sent)
                assert reply.head.status >= 500
            assert len(here.seen) == 1

    play(scene())


def test_a_request_that_only_reads_is_sent_again() -> None:
    async def scene() -> None:
        async with stand(sends(b"", "end"), sends(OK)) as here:
            here.plan = msgspec.structs.replace(here.plan, endpoint=match("GET", b"/v1/files"))
            for _ in range(3):
                reply = await here.ask(exchange(Client(), "GET", "/v1/files"))
                assert await body_of(reply) == b"ok"

    play(scene())


def test_an_answer_too_long_to_be_held_goes_on_as_it_comes() -> None:
    async def scene() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        size = HOLD_BYTES + 1_000_000
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b" " * size)
        async with stand(sends(head + body)) as here:
            reply = await here.ask()
            assert len(reply.body) > HOLD_BYTES and reply.connection is not None
            assert len(await body_of(reply)) == size

    play(scene())


# --- rounds, pauses, budget ------------------------------------------------------------------------------------


def test_the_only_target_is_tried_again() -> None:
    async def scene() -> None:
        turn = iter((refusal(503), b"HTTP/1.1 2", ANSWER))

        def act(peer: Peer) -> None:
            data = next(turn)
            peer.send(data)
            if len(data) < 20:
                peer.end()

        async with stand(act) as here:
            reply = await here.ask()
            assert (reply.body, here.last.attempts) == (WHOLE, 3)
            assert [tried.status for tried in here.last.tries] == [503, 0, 200]

    play(scene())


def test_what_broke_a_target_is_not_sent_there_again() -> None:
    async def scene() -> None:
        async with stand(sends(refusal(500)), sends(refusal(500))) as here:
            reply = await here.ask()
            assert (reply.head.status, await body_of(reply), here.last.attempts) == (500, b"no", 2)
            assert sorted(here.seen) == ["a", "b"]

    play(scene())


def test_the_last_answer_of_a_backend_goes_to_the_client_when_nothing_helps() -> None:
    """Also where what came after it was no answer at all."""

    async def scene() -> None:
        gone = free_port()
        async with backend() as server, pool(gone) as nobody, pool(server.port, name="a") as made:
            side = Side({"a": made, "b": nobody}, retry=Retry(attempts=2, backoff_ms=0))
            plan = side.plan((target(server.port, name="a"),), (target(gone, name="b"),))
            sent = asks()
            running = starts(side.attempts.run(plan, sent))
            peer = await server.accept()
            await peer.request()
            peer.send(refusal(429, b"Retry-After: 77"))
            reply = await running
            assert (reply.head.status, reply.head.retry_after, reply.body) == (429, b"77", b"no")
            assert (sent.backend, sent.attempts, side.in_flight) == ("a", 2, 0)
            assert counts(made).startswith("0 active, 1 idle")
            sent.close()

    play(scene())


def test_what_a_backend_asks_for_is_waited_for() -> None:
    async def scene() -> None:
        turn = iter((refusal(429, b"Retry-After: 1"), ANSWER))
        async with stand(lambda peer: peer.send(next(turn))) as here:
            began = asyncio.get_running_loop().time()
            assert (await here.ask()).body == WHOLE
            assert asyncio.get_running_loop().time() - began >= 0.99

    play(scene())


def test_a_backend_that_asks_for_long_is_not_waited_for() -> None:
    async def scene() -> None:
        async with stand(sends(refusal(503, b"Retry-After: 6"))) as here:
            reply = await here.ask()
            assert (reply.head.status, here.last.attempts) == (503, 1)

    play(scene())


def test_retries_never_multiply_an_outage() -> None:
    async def scene() -> None:
        never = Breaker(failures=1_000_000, min_requests=1_000_000)
        async with stand(sends(refusal(503)), sends(refusal(503)), breaker=never) as here:
            for _ in range(200):
                assert await body_of(await here.ask()) == b"no"
            assert 200 < len(here.seen) <= 200 * 1.2 + FIRST

    play(scene())


# --- breakers -----------------------------------------------------------------------------------------------------


def test_a_target_that_fails_gets_no_more_requests() -> None:
    async def scene() -> None:
        async with stand(sends(refusal(500)), sends(ANSWER), breaker=Breaker(failures=3)) as here:
            for _ in range(40):
                assert (await here.ask()).body == WHOLE
            assert here.seen.count("a") == 3
            (change,) = (fields for _, fields in here.side.log.events)
            assert (change["backend"], change["breaker"], change["level"]) == ("a", "open", "warning")
            assert change["why"].startswith("3 failures in a row") and "answered 500" in change["why"]

    play(scene())


def test_all_targets_open_says_when_to_come_again() -> None:
    async def scene() -> None:
        now = [10**12]
        rules = {"breaker": Breaker(failures=1, recovery_s=60), "retry": Retry(attempts=1)}
        async with stand(sends(refusal(500)), now_ns=lambda: now[0], **rules) as here:
            await here.ask()
            now[0] += 17 * 10**9
            with pytest.raises(TargetsOpen) as caught:
                await here.ask()
            assert (caught.value.status, caught.value.retry_after_s) == (503, 43)
            assert len(here.seen) == 1

    play(scene())


def test_a_breaker_opens_is_probed_and_closes() -> None:
    async def scene() -> None:
        now = [10**12]
        turn = iter((refusal(500), refusal(500), ANSWER, ANSWER))
        rules = {"breaker": Breaker(failures=1, recovery_s=60), "retry": Retry(attempts=1)}
        async with stand(lambda peer: peer.send(next(turn)), now_ns=lambda: now[0], **rules) as here:
            assert (await here.ask()).head.status == 500
            now[0] += 61 * 10**9
            assert (await here.ask()).head.status == 500  # the probe
            with pytest.raises(TargetsOpen):
                await here.ask()
            now[0] += 61 * 10**9
            for _ in range(2):
                assert (await here.ask()).head.status == 200
            states = [state for _, state in here.side.log.breakers]
            assert states == ["open", "half_open", "open", "half_open", "closed"]

    play(scene())


def test_a_drained_backend_gets_nothing() -> None:
    async def scene() -> None:
        async with stand(sends(ANSWER), sends(ANSWER)) as here:
            here.side.cells.backends["a"].drained = True
            for _ in range(5):
                await here.ask()
            assert set(here.seen) == {"b"}
            here.side.cells.backends["b"].drained = True
            with pytest.raises(NoHealthyTarget, match="drained"):
                await here.ask()

    play(scene())


def test_a_cut_stream_is_a_failure_of_its_target() -> None:
    async def scene() -> None:
        async with stand(sends(STREAM_HEAD + b"3\r\nabc\r\n")) as here:
            sent = asks()
            reply = await here.side.attempts.run(here.plan, sent)
            assert reply.connection is not None and here.side.in_flight == 1
            sent.error = IncompleteReply("cut", phase="body")
            reply.pool.release(reply.connection)
            here.side.attempts.settle(sent)
            assert here.side.in_flight == 0
            assert here.side.cells.targets["a", ""].failures_in_row == 1
            sent.close()

    play(scene())


def test_a_client_that_leaves_is_no_failure_and_gives_a_probe_back() -> None:
    async def scene() -> None:
        now = [10**12]
        acts = iter((sends(refusal(500)), sends(b""), sends(ANSWER)))
        rules = {"breaker": Breaker(failures=1, recovery_s=60), "retry": Retry(attempts=1)}
        async with stand(lambda peer: next(acts)(peer), now_ns=lambda: now[0], **rules) as here:
            await here.ask()
            now[0] += 61 * 10**9
            probing = starts(here.ask())
            await until(lambda: len(here.seen) == 2)
            with pytest.raises(TargetsOpen):  # one probe at a time
                await here.ask()
            await stop(probing)
            assert (await here.ask()).body == WHOLE
            assert here.side.log.breakers[-1] == ("a", "closed")

    play(scene())


# --- leaving at any moment ------------------------------------------------------------------------------------------


def test_leaving_at_any_moment_of_a_failover_keeps_nothing() -> None:
    async def scene() -> None:
        acts = (sends(refusal(503)), sends(JSON_HEAD % 90 + b"{", "end"), sends(ANSWER))
        never = Breaker(failures=1_000_000, min_requests=1_000_000)
        async with stand(*acts, most=2, breaker=never, retry=Retry(backoff_ms=1)) as here:
            for moment in range(60):
                tasks = [starts(_one(here, asks())) for _ in range(3)]
                await turns(moment)
                for each in tasks:
                    await stop(each)
                assert here.side.in_flight == 0
            await until(lambda: all(EMPTY[:9] in counts(made) for made in here.pools.values()))

    play(scene())


async def _one(here: Stand, sent: Exchange) -> None:
    """A request as `App.handle` owns it."""
    try:
        await body_of(await here.side.attempts.run(here.plan, sent))
    except BackendError:
        pass
    finally:
        here.side.attempts.settle(sent)
        sent.close()


def test_leaving_in_a_pause_ends_it_at_once() -> None:
    async def scene() -> None:
        async with stand(sends(refusal(503, b"Retry-After: 4"))) as here:
            running = starts(here.ask())
            await until(lambda: here.seen)
            await asyncio.sleep(0.05)
            began = asyncio.get_running_loop().time()
            await stop(running)
            assert asyncio.get_running_loop().time() - began < 0.1
            here.clean()

    play(scene())
