"""Faults on purpose: when which one holds, which attempts it meets, and what it does to an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted import (
    GET,
    NO_LIMITS,
    Client,
    backend,
    exchange,
    head_of,
    play,
    pool,
    rest_of,
    starts,
    stop,
    target,
    turns,
)

from penstock.core.config import ChaosFault
from penstock.core.errors import BackendTimeout, BadAnswer, ConnectFailed, InvalidRequest, NotFound, StoreUnavailable
from penstock.ext import Targets
from penstock.proxy.chaos import Chaos
from penstock.proxy.chaos_file import ChaosFile
from penstock.proxy.log import Log
from penstock.proxy.upstream.faulty import Fault, Hit, Instead
from penstock.proxy.wall_clock import WallClock

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DOWN = ChaosFault(name="down", kind="error_status", backend="b")


class Workers:
    """Several workers over one state folder, and the time they see."""

    def __init__(self, folder: Path, *of_file: ChaosFault) -> None:
        self.now = NOON
        self.chance = 0.0
        self.folder = folder
        self._of_file = of_file
        self._shared = Targets("", b"boot")
        self._log = Log("error", str(folder / "log"), WallClock(lambda: 0))

    def worker(self) -> Chaos:
        return Chaos(
            self._of_file,
            ChaosFile(self.folder),
            generation=lambda: self._shared.generation,
            changed=self._shared.bump,
            clock=lambda: self.now,
            random=lambda: self.chance,
            log=self._log,
        )


def hits(chaos: Chaos, model: str = "m", name: str = "b") -> str | None:
    """The fault that an attempt at backend `name` for this model meets."""
    if not chaos.on:
        return None
    request = exchange(Client())
    request.model = model
    hit = chaos.of(target(1, name=name), request)
    request.close()
    assert (hit is None) == (request.told == ())
    return request.told[0][1].decode() if hit else None


def states(chaos: Chaos) -> dict[str, str]:
    return {each["id"]: each["state"] for each in chaos.told()}


# --- when, and whom ----------------------------------------------------------------------------------------------


def test_only_its_own_backend_and_model(tmp_path: Path) -> None:
    async def scene() -> None:
        faults = (DOWN, ChaosFault(name="slow", kind="latency", model="large", latency_ms=5))
        chaos = Workers(tmp_path, *faults).worker()
        assert not chaos.on
        await chaos.tick()
        assert [hits(chaos), hits(chaos, name="c"), hits(chaos, "large", "c")] == ["down", None, "slow"]
        assert hits(chaos, "large") == "down"  # the first that meets it
        assert repr(chaos) == "<Chaos: down, slow>"

    play(scene())


def test_its_share_of_them(tmp_path: Path) -> None:
    async def scene() -> None:
        workers = Workers(tmp_path, ChaosFault(name="some", kind="bad_body", share=0.25))
        chaos = workers.worker()
        await chaos.tick()
        found = []
        for workers.chance in (0.0, 0.2499, 0.25, 0.99):
            found.append(hits(chaos))
        assert found == ["some", "some", None, None]

    play(scene())


def test_from_its_start_to_its_end(tmp_path: Path) -> None:
    async def scene() -> None:
        hour = timedelta(hours=1)
        workers = Workers(tmp_path, ChaosFault(name="noon", kind="bad_body", start=NOON, end=NOON + hour))
        chaos = workers.worker()
        found = []
        for workers.now in (NOON - hour, NOON, NOON + hour / 2, NOON + hour):
            await chaos.tick()
            found.append((hits(chaos), states(chaos)["noon"]))
        assert found == [(None, "waiting"), ("noon", "active"), ("noon", "active"), (None, "over")]

    play(scene())


def test_every_fault_is_told_once(tmp_path: Path) -> None:
    async def scene() -> None:
        chaos = Workers(tmp_path, DOWN, ChaosFault(name="slow", kind="bad_body", backend="c")).worker()
        await chaos.tick()
        request = exchange(Client())
        request.told = ((b"x-penstock-queue", b"place=1"),)
        for name in ("b", "c", "b"):
            chaos.of(target(1, name=name), request)
        assert request.told == ((b"x-penstock-queue", b"place=1"), (b"x-penstock-chaos", b"down, slow"))
        request.close()

    play(scene())


# --- administrators ----------------------------------------------------------------------------------------------


def test_every_worker_sees_it_at_its_next_tick(tmp_path: Path) -> None:
    async def scene() -> None:
        workers = Workers(tmp_path)
        first, second = workers.worker(), workers.worker()
        await asyncio.gather(first.tick(), second.tick())
        await first.add(DOWN)
        assert [hits(first), hits(second)] == ["down", None]
        await second.tick()
        assert hits(second) == "down"
        late = workers.worker()  # in place of one that died
        await late.tick()
        assert hits(late) == "down"
        await second.stop("down")
        await asyncio.gather(first.tick(), late.tick())
        assert not (first.on or second.on or late.on)
        assert first.told() == []

    play(scene())


def test_one_of_the_same_name_takes_its_place(tmp_path: Path) -> None:
    async def scene() -> None:
        chaos = Workers(tmp_path).worker()
        await chaos.add(DOWN)
        await chaos.add(ChaosFault(name="down", kind="cut_stream", after_bytes=5))
        (told,) = chaos.told()
        assert (told["kind"], told["after_bytes"], told["source"]) == ("cut_stream", 5, "admin")
        assert "status" not in told and "gap_ms" not in told

    play(scene())


def test_what_is_over_is_forgotten_with_the_next_change(tmp_path: Path) -> None:
    async def scene() -> None:
        workers = Workers(tmp_path)
        chaos = workers.worker()
        await chaos.add(ChaosFault(name="short", kind="bad_body", end=NOON + timedelta(seconds=1)))
        workers.now += timedelta(seconds=1)
        assert states(chaos) == {"short": "over"}
        await chaos.add(DOWN)
        assert states(chaos) == {"down": "active"}

    play(scene())


def test_a_fault_of_the_file_stays_stopped_until_it_is_edited(tmp_path: Path) -> None:
    async def scene() -> None:
        chaos = Workers(tmp_path, DOWN).worker()
        await chaos.tick()
        with pytest.raises(InvalidRequest, match="configuration file"):
            await chaos.add(ChaosFault(name="down", kind="bad_body"))
        await chaos.stop("down")
        assert states(chaos) == {"down": "stopped"} and not chaos.on
        again = Workers(tmp_path, DOWN).worker()  # a restart
        await again.tick()
        assert not again.on
        edited = Workers(tmp_path, ChaosFault(name="down", kind="error_status", backend="b", status=500)).worker()
        await edited.tick()
        assert hits(edited) == "down"

    play(scene())


def test_stop_all(tmp_path: Path) -> None:
    async def scene() -> None:
        workers = Workers(tmp_path, DOWN)
        first, second = workers.worker(), workers.worker()
        await second.add(ChaosFault(name="more", kind="bad_body"))
        await first.tick()
        assert states(first) == {"down": "active", "more": "active"}
        await first.stop_all()
        await second.tick()
        assert not (first.on or second.on)
        assert states(second) == {"down": "stopped"}

    play(scene())


def test_an_unknown_one(tmp_path: Path) -> None:
    async def scene() -> None:
        chaos = Workers(tmp_path, DOWN).worker()
        with pytest.raises(NotFound, match='"down"'):
            await chaos.stop("dwon")

    play(scene())


def test_a_file_that_is_broken_means_no_fault_at_all(tmp_path: Path) -> None:
    """Nobody can say what has been stopped."""

    async def scene() -> None:
        (tmp_path / "chaos.json").write_text('{"faults": [')
        chaos = Workers(tmp_path, DOWN).worker()
        await chaos.tick()
        assert not chaos.on and chaos.told() == []
        with pytest.raises(StoreUnavailable):
            await chaos.add(ChaosFault(name="more", kind="bad_body"))
        await chaos.stop_all()
        assert states(chaos) == {"down": "stopped"}
        assert json.loads((tmp_path / "chaos.json").read_text())["faults"] == []

    play(scene())


def test_what_is_under_way_when_another_configuration_holds_meets_no_fault(tmp_path: Path) -> None:
    async def scene() -> None:
        chaos = Workers(tmp_path, ChaosFault(name="slow", kind="latency", latency_ms=3_600_000)).worker()
        await chaos.tick()
        running = starts(chaos.run())
        request = exchange(Client())
        met = chaos.of(target(1), request)
        assert met is not None
        waiting = starts(met.before(request))
        await turns()
        await stop(running)
        assert await waiting is None and not chaos.on
        request.close()

    play(scene())


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        await Workers(tmp_path).worker().add(DOWN)
        assert (tmp_path / "chaos.json").stat().st_mode & 0o777 == 0o600

    play(scene())


# --- before an attempt -------------------------------------------------------------------------------------------


def hit(kind: Any, **fields: Any) -> tuple[Fault, Hit]:
    fault = Fault(ChaosFault(name="f", kind=kind, **fields))
    return fault, Hit(fault, NO_LIMITS)


def test_a_reset() -> None:
    async def scene() -> None:
        with pytest.raises(ConnectFailed, match="on purpose: f") as caught:
            await hit("connection_reset")[1].before(exchange(Client()))
        assert caught.value.phase == "connect"

    play(scene())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_an_error_status(path: str) -> None:
    async def scene() -> None:
        request = exchange(Client(), "POST", path)
        answer = await hit("error_status", status=529)[1].before(request)
        assert isinstance(answer, Instead) and answer.response.status == 529
        assert not answer.reusable and not answer.complete
        body = json.loads(await rest_of(answer))  # type: ignore[arg-type]
        assert "on purpose: f" in json.dumps(body)
        assert answer.complete and await answer.read() == b""
        request.close()

    play(scene())


def test_an_error_status_for_head_has_no_body() -> None:
    async def scene() -> None:
        answer = await hit("error_status")[1].before(exchange(Client(), "HEAD", "/v1/files"))
        assert answer is not None and answer.complete and answer.take() == b""

    play(scene())


def test_a_latency_ends_with_its_fault() -> None:
    async def scene() -> None:
        fault, met = hit("latency", latency_ms=3_600_000)
        waiting = starts(met.before(exchange(Client())))
        await turns()
        assert not waiting.done()
        fault.over.set()
        assert await waiting is None

    play(scene())


def test_a_latency_beyond_the_time_to_the_first_byte_is_a_timeout() -> None:
    async def scene() -> None:
        fault = Fault(ChaosFault(name="f", kind="latency", latency_ms=3_600_000))
        patience = target(1, timeouts=msgspec.structs.replace(NO_LIMITS, first_byte_s=0.01)).upstream.timeouts
        with pytest.raises(BackendTimeout) as caught:
            await Hit(fault, patience).before(exchange(Client()))
        assert caught.value.phase == "first_byte"

    play(scene())


# --- on the way --------------------------------------------------------------------------------------------------

EVENTS = b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
)


async def through(met: Hit, scene: Callable[[Any], Any]) -> None:
    """Play a scene with the wrapped connection of a stream of three events; then nothing may be left of it."""
    async with backend() as server, pool(server.port) as made:
        connection = await made.connect()
        peer = await server.accept()
        connection.send(GET)
        await peer.request()
        peer.send(STREAM % (len(EVENTS), EVENTS))
        await head_of(connection)
        wrapped = met.wrap(connection)
        await scene(wrapped)
        made.release(wrapped)
        await peer.left()
        assert repr(made).partition(": ")[2].startswith("0 active, 0 idle")


@pytest.mark.parametrize("after", [0, 1, 20, len(EVENTS) - 1])
def test_a_cut(after: int) -> None:
    async def reads(wrapped: Any) -> None:
        got = wrapped.take()
        with pytest.raises(BadAnswer, match="on purpose: f") as caught:
            while not wrapped.complete:
                got += await wrapped.read()
        assert (got, caught.value.phase, caught.value.stale) == (EVENTS[:after], "body", False)

    play(through(hit("cut_stream", after_bytes=after)[1], reads))


def test_a_cut_before_the_body_is_known_before_it_is_read() -> None:
    """So that the head need not go to the client."""

    async def waits(wrapped: Any) -> None:
        assert not wrapped.readable and not wrapped.complete
        with pytest.raises(BadAnswer):
            await wrapped.news()

    play(through(hit("cut_stream")[1], waits))


def test_a_cut_where_the_reader_is_pushed() -> None:
    async def reads(wrapped: Any) -> None:
        got = b""
        with pytest.raises(BadAnswer):
            while True:
                got += wrapped.take()
                assert not wrapped.complete
                await wrapped.pushed(lambda body: True)
        assert got == EVENTS[:9]

    play(through(hit("cut_stream", after_bytes=9)[1], reads))


def test_a_cut_behind_the_end_is_none() -> None:
    async def reads(wrapped: Any) -> None:
        assert await rest_of(wrapped) == EVENTS

    play(through(hit("cut_stream", after_bytes=len(EVENTS))[1], reads))


def test_a_bad_body_keeps_its_length_and_its_lines() -> None:
    async def reads(wrapped: Any) -> None:
        assert await rest_of(wrapped) == EVENTS[:10] + b"###\n\n#############\n\n############\n\n"

    play(through(hit("bad_body", after_bytes=10)[1], reads))


def test_slow_tokens_come_one_by_one() -> None:
    async def reads(wrapped: Any) -> None:
        pieces = []
        while not wrapped.complete:
            pieces.append(await wrapped.read())
        assert pieces == [event + b"\n\n" for event in EVENTS.split(b"\n\n")[:-1]]

    play(through(hit("slow_tokens", gap_ms=1)[1], reads))


def test_slow_tokens_hurry_once_the_fault_is_over() -> None:
    async def scene(wrapped: Any) -> None:
        reading = starts(wrapped.read())
        await turns()
        assert not reading.done()
        fault.over.set()
        assert await reading + await rest_of(wrapped) == EVENTS

    fault, met = hit("slow_tokens", gap_ms=3_600_000)
    play(through(met, scene))


def test_tokens_that_come_too_slowly_are_a_timeout() -> None:
    async def scene(wrapped: Any) -> None:
        wrapped._connection.silence_s = 0.01
        with pytest.raises(BackendTimeout) as caught:
            await rest_of(wrapped)
        assert caught.value.phase == "body"

    play(through(hit("slow_tokens", gap_ms=1000)[1], scene))


def test_says_in_one_line_what_it_is() -> None:
    async def scene(wrapped: Any) -> None:
        assert repr(wrapped).startswith("<Cut <Fault f cut_stream> of <Connection b active body, request 1")

    play(through(hit("cut_stream")[1], scene))
