"""Active health checks against backends a test plays, on a clock it moves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import NO_LIMITS, Backend, Peer, backend, play, starts, stop, until

from penstock.core.config_read import read_config
from penstock.core.health import Check
from penstock.core.plan import upstream
from penstock.core.route import Routes
from penstock.ext import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, Targets
from penstock.proxy.health_checks import FILE, HealthChecks, read_checks, write_checks
from penstock.proxy.probe import Probes
from penstock.proxy.upstream.pool import Pool, resolve
from penstock.proxy.upstream.targets import TargetCells

SECOND = 1_000_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
ERROR = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


class Bench:
    """One worker's checks of the backend "b" on a port, which serves the model "m"."""

    def __init__(self, folder: Path, port: int, more: str = "", *, leads: bool = True, shared: Targets | None = None):
        self.config = read_config(
            f"""
[backends.b]
kind = "openai"
url = "http://127.0.0.1:{port}/v1"
{more}
[models.m]
targets = ["b"]
[breaker]
failures = 2
recovery_s = 60
""",
            "test.toml",
        ).config
        self.now_s = 100.0
        self.leads = leads
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.cells = TargetCells(self.config, shared or Targets("", b"boot"))
        timeouts = NO_LIMITS
        pool = Pool("b", "127.0.0.1", port, tls=None, connect_s=5, max_connections=1, idle_s=0, resolve=resolve)
        shared_upstream = upstream("b", "openai", f"http://127.0.0.1:{port}/v1", b"secret", timeouts)
        self.probes = Probes(
            self.config.backends,
            {"b": shared_upstream},
            {"b": pool},
            monotonic=lambda: self.now_s,
            wall_s=lambda: 1_800_000_000.0,
        )
        routes = Routes.of(self.config)
        self.checks = HealthChecks(
            self.config.backends,
            self.probes,
            self.cells,
            lambda: routes.models["m"].groups,
            self,
            folder,
            self,  # type: ignore[arg-type]
            monotonic_ns=lambda: int(self.now_s * SECOND),
            random=lambda: 0.5,
        )

    def lead(self) -> bool:
        return self.leads

    def event(self, level: str, message: str, **fields: Any) -> None:
        self.events.append((level, message, fields))

    @property
    def down(self) -> bool:
        return self.cells.backends["b"].down

    async def after(self, seconds: float) -> int:
        """Let time pass, then make the checks that are due: how many."""
        self.now_s += seconds
        begun = self.checks.check_due()
        await asyncio.gather(*begun)
        return len(begun)

    def fail(self, *, connect: bool) -> Any:
        """Two requests to the target fail, which opens its breaker."""
        group = Routes.of(self.config).models["m"].groups[0]
        balancer = self.cells.balancer_of(group.targets, group.balance)
        now_ns = int(self.now_s * SECOND)
        for _ in range(2):
            taken = balancer.take(now_ns, 0)
            balancer.failed(taken, now_ns, connect)
            balancer.release(taken)
        return self.cells.targets["b", "m"]


def answering(answer: Callable[[], bytes]) -> Callable[[Peer], None]:
    """A backend that answers each connection's request with what `answer` says then."""
    tasks = set()

    async def serve(peer: Peer) -> None:
        peer.heard = await peer.request()  # type: ignore[attr-defined]
        peer.send(answer())

    def greet(peer: Peer) -> None:
        task = asyncio.get_running_loop().create_task(serve(peer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return greet


def heard(made: Backend) -> list[bytes]:
    return [peer.heard for peer in made.all]  # type: ignore[attr-defined]


def test_down_after_two_failures_and_up_after_one_success(tmp_path: Path) -> None:
    answer = OK

    async def scene() -> None:
        nonlocal answer
        async with backend(answering(lambda: answer)) as made:
            bench = Bench(tmp_path, made.port)
            assert await bench.after(0) == 1 and not bench.down
            assert await bench.after(9.9) == 0
            assert await bench.after(0.1) == 1
            answer = ERROR
            await bench.after(10)
            assert not bench.down, "one failure"
            assert await bench.after(1) == 1 and bench.down, "soon asked again"
            assert await bench.after(1) == 1 and bench.down
            answer = OK
            assert await bench.after(1) == 1 and not bench.down
            assert await bench.after(1) == 0
        down, up = bench.events
        why = "2 health checks in a row failed: answers 503 on /v1/models"
        assert down == ("warning", "a backend is down", {"backend": "b", "why": why})
        assert up == (
            "info",
            "a backend is up again",
            {"backend": "b", "why": "a health check: answers 200 on /v1/models"},
        )
        first = heard(made)[0]
        assert first.startswith(b"GET /v1/models HTTP/1.1\r\n") and b"authorization: Bearer secret\r\n" in first

    play(scene())


@pytest.mark.parametrize("status", [b"401 No", b"404 No", b"429 No"])
def test_a_refusal_is_a_sign_of_life(tmp_path: Path, status: bytes) -> None:
    async def scene() -> None:
        refusal = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
        async with backend(answering(lambda: refusal)) as made:
            bench = Bench(tmp_path, made.port)
            await bench.after(0)
            await bench.after(10)
            assert not bench.down

    play(scene())


def test_a_path_of_its_own_is_asked_as_written(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            bench = Bench(tmp_path, made.port, 'health = { path = "/health" }')
            await bench.after(0)
            assert heard(made)[0].startswith(b"GET /health HTTP/1.1\r\n")

    play(scene())


def test_what_never_answers_fails_in_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(reads=False) as made:
            bench = Bench(tmp_path, made.port, "health = { timeout_s = 0.05 }")
            await bench.after(0)
            await bench.after(1)
            assert bench.down and "no answer on /v1/models within 0.05 s" in bench.events[0][2]["why"]

    play(scene())


def test_no_interval_no_checks_and_no_old_word_of_them(tmp_path: Path) -> None:
    async def scene() -> None:
        bench = Bench(tmp_path, 1, "health = { interval_s = 0 }")
        bench.cells.backends["b"].down = True
        bench.checks._lead()
        assert await bench.after(0) == 0 and not bench.down

    play(scene())


def test_a_breaker_opened_by_connect_failures_is_half_open_when_a_check_succeeds(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            bench = Bench(tmp_path, made.port)
            await bench.after(0)
            cell = bench.fail(connect=True)
            assert cell.breaker(int(bench.now_s * SECOND)) == BREAKER_OPEN
            assert await bench.after(1) == 1, "asked soon"
            assert cell.breaker(int(bench.now_s * SECOND)) == BREAKER_HALF_OPEN
            assert bench.events[-1][2]["target"] == "m" and bench.events[-1][2]["breaker"] == "half_open"

    play(scene())


def test_one_that_opened_by_errors_waits_its_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            bench = Bench(tmp_path, made.port)
            cell = bench.fail(connect=False)
            await bench.after(0)
            assert cell.breaker(int(bench.now_s * SECOND)) == BREAKER_OPEN and not bench.events
            await bench.after(60)
            assert cell.breaker(int(bench.now_s * SECOND)) == BREAKER_HALF_OPEN != BREAKER_CLOSED

    play(scene())


def test_the_leader_writes_what_all_may_read(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: ERROR)) as made:
            shared = Targets("", b"boot")
            leader = Bench(tmp_path, made.port, shared=shared)
            other = Bench(tmp_path, made.port, leads=False, shared=shared)
            leader.checks._lead()
            await leader.after(0)
            await until(lambda: read_checks(tmp_path / FILE))
            told = (await other.checks.last())["b"]
            assert not told.ok and told.failed_in_row == 1 and told.words == "answers 503 on /v1/models"
            # The next leader goes on where that one ended: the second failure in a row.
            other.leads = True
            other.checks._lead()
            await other.after(1)
            assert other.down and leader.down

    play(scene())


def test_a_reload_asks_nobody_anew_but_for_another_server(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            before = Bench(tmp_path, made.port)
            before.checks._lead()
            await before.after(0)
            await until(lambda: read_checks(tmp_path / FILE))
            same = Bench(tmp_path, made.port)
            same.checks._lead()
            assert await same.after(0) == 0 and await same.after(10) == 1
            other = Bench(tmp_path, made.port, 'health = { path = "/health" }')
            assert await other.checks.last() == {}
            other.checks._lead()
            assert await other.after(0) == 1

    play(scene())


def test_checks_at_once_are_one_question(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            bench = Bench(tmp_path, made.port)
            checks = await asyncio.gather(*(bench.probes.ask("b") for _ in range(50)))
            assert len(made.all) == 1 and len({id(each) for each in checks}) == 1
            await bench.probes.ask("b")
            assert len(made.all) == 1, "still fresh"
            bench.now_s += 1
            await bench.probes.ask("b")
            assert len(made.all) == 2

    play(scene())


def test_who_asks_may_leave(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend() as made:
            bench = Bench(tmp_path, made.port)
            first = asyncio.get_running_loop().create_task(bench.probes.ask("b"))
            second = asyncio.get_running_loop().create_task(bench.probes.ask("b"))
            peer = await made.accept()
            await peer.request()
            first.cancel()
            peer.send(OK)
            assert (await second).ok

    play(scene())


def test_who_asks_outlives_a_close(tmp_path: Path) -> None:
    """A reload ends the checks under way; /health of the App before it is answered all the same."""

    async def scene() -> None:
        async with backend() as made:
            bench = Bench(tmp_path, made.port)
            asking = starts(bench.probes.ask("b"))
            first = await made.accept()
            await first.request()
            bench.probes.close()
            assert await first.left() == b""
            second = await made.accept()
            await second.request()
            second.send(OK)
            assert (await asking).ok
            gone = starts(bench.probes.ask("b"))
            await stop(gone)
            assert gone.cancelled()

    play(scene())


def test_a_file_that_is_none_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / FILE
    assert read_checks(file) == {}
    file.write_bytes(b'{"b": {"at"')
    assert read_checks(file) == {}
    checks = {"b": Check(at=1.0, ok=True, latency_ms=2.0, words="answers 200")}
    write_checks(file, checks)
    assert read_checks(file) == checks and [each.name for each in tmp_path.iterdir()] == [FILE]


def test_run_leads_and_stops(tmp_path: Path) -> None:
    async def scene() -> None:
        async with backend(answering(lambda: OK)) as made:
            bench = Bench(tmp_path, made.port)
            task = asyncio.get_running_loop().create_task(bench.checks.run())
            await made.accept()
            await until(lambda: read_checks(tmp_path / FILE))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await bench.checks.last())["b"].ok

    play(scene())
