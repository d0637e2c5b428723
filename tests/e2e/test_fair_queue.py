"""The line in front of full backends, over real workers: never too many at a backend, fair between keys, bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import mean

import pytest
from puppet import Puppet, several
from raw_client import JSON_TYPE, Answer, RawClient, chat_body, request, wait_until

from running import Penstock

SERVICE_S = 0.04
KEYS = {"ALICE": "alice-key-0123456789abcdef", "BOB": "bob-key-0123456789abcdef"}
AUTH = '[auth]\nmode = "keys"\n' + "".join(
    f'[[keys]]\nname = "{name.lower()}"\nkey = "env:{name}"\ntenant_id = "t"\nuser_id = "{name}"\ntier = "any"\n'
    for name in KEYS
)
TIER = "[tiers.any]\nrequests_per_hour = 1_000_000\n"


@contextmanager
def queued(backend: Puppet, *, workers: int = 1, most: int = 2, more: str = "") -> Iterator[Penstock]:
    text = several({"a": backend.port}, backend=f"max_in_flight = {most}", workers=workers, more=f"{AUTH}{TIER}{more}")
    with Penstock(text, env=KEYS) as proxy:
        yield proxy


def asking(name: str) -> bytes:
    return request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE, f"Authorization: Bearer {KEYS[name]}")


class Flood:
    """Clients of one key that ask again as soon as they are answered."""

    def __init__(self, port: int, name: str, clients: int) -> None:
        self.answers: list[Answer] = []
        self.waits_s: list[float] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port, asking(name))) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int, data: bytes) -> None:
        with RawClient(port, timeout_s=30) as client:
            while not self._over.is_set():
                began = time.monotonic()
                self.answers.append(client.send(data).answer())
                self.waits_s.append(time.monotonic() - began)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def waits(port: int, seconds: float) -> float:
    """How long Bob's six clients wait for an answer, in the mean."""
    bob = Flood(port, "BOB", 6)
    time.sleep(seconds)
    bob.stop()
    assert {answer.status for answer in bob.answers} == {200}
    return mean(bob.waits_s)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_flood_of_one_key_does_not_hold_up_another(workers: int) -> None:
    with Puppet() as backend, queued(backend, workers=workers) as proxy:
        backend.delay_s = SERVICE_S
        alone = waits(proxy.port, 1.5)
        flood = Flood(proxy.port, "ALICE", 60)
        time.sleep(0.3)
        beside = waits(proxy.port, 3.0)
        flood.stop()
        # A place that is taken is not taken away: one more service time is nobody's unfairness.
        assert beside <= 2 * alone + SERVICE_S, (alone, beside)
        assert backend.busiest <= 2
        assert {answer.status for answer in flood.answers} == {200}


def burst(port: int, name: str, count: int) -> float:
    """How long so many requests at once take, in the mean."""

    def ask(_: int) -> float:
        with RawClient(port, timeout_s=30) as client:
            answer = client.send(asking(name)).answer()
            assert answer.status == 200
            return time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        began = time.monotonic()
        return mean(pool.map(ask, range(count)))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_key_asks_at_once_takes_twice_its_time_alone_at_most(workers: int) -> None:
    with Puppet() as backend, queued(backend, workers=workers) as proxy:
        backend.delay_s = SERVICE_S
        alone = burst(proxy.port, "BOB", 20)
        flood = Flood(proxy.port, "ALICE", 60)
        time.sleep(0.3)
        beside = burst(proxy.port, "BOB", 20)
        flood.stop()
        assert beside <= 2 * alone, (alone, beside)


@pytest.mark.parametrize("workers", [1, 2])
def test_anothers_first_request_does_not_wait_for_the_flood(workers: int) -> None:
    with Puppet() as backend, queued(backend, workers=workers) as proxy:
        backend.delay_s = SERVICE_S
        flood = Flood(proxy.port, "ALICE", 80)  # 1.6 s of work for the backend at any time
        time.sleep(0.5)
        for _ in range(5):
            began = time.monotonic()
            with RawClient(proxy.port) as client:
                answer = client.send(asking("BOB")).answer()
            assert answer.status == 200
            assert time.monotonic() - began < 8 * SERVICE_S
        flood.stop()
        assert backend.busiest <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_never_more_at_a_backend_than_it_takes(workers: int) -> None:
    with Puppet() as backend, queued(backend, workers=workers, most=3) as proxy:
        backend.delay_s = 0.005
        flood = Flood(proxy.port, "ALICE", 40)
        time.sleep(2)
        flood.stop()
        assert backend.busiest == 3
        assert {answer.status for answer in flood.answers} == {200}
        waited = [answer.header("x-penstock-queue") for answer in flood.answers]
        assert any(line and line.startswith("place=") and "; waited_ms=" in line for line in waited)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_line_is_503_with_a_true_retry_after(workers: int) -> None:
    with (
        Puppet() as backend,
        queued(backend, workers=workers, more="[queue]\nmax_waiting = 20\n") as proxy,
        ThreadPoolExecutor(60) as pool,
    ):
        backend.delay_s = 0.2
        data = asking("ALICE")

        def ask() -> tuple[float, Answer]:
            with RawClient(proxy.port, timeout_s=20) as client:
                return time.monotonic(), client.send(data).answer()

        list(pool.map(lambda _: ask(), range(4)))  # so that it knows how long a place is held
        answers = list(pool.map(lambda _: ask(), range(60)))
        refused = [answer for _, answer in answers if answer.status == 503]
        assert len(refused) + sum(answer.status == 200 for _, answer in answers) == 60
        assert 30 <= len(refused) <= 40
        for answer in refused:
            assert answer.json()["error"]["code"] == "queue_full"
            # 21 requests at two places, 0.2 s each.
            assert 1 <= int(answer.header("retry-after") or 0) <= 4
            assert (answer.header("x-penstock-queue") or "").startswith("place=21; estimate_s=")


def test_who_leaves_the_line_holds_nobody_up() -> None:
    with Puppet() as backend, queued(backend, most=1) as proxy:
        backend.delay_s = 0.3
        clients = [RawClient(proxy.port).send(asking("ALICE")) for _ in range(30)]
        wait_until(lambda: backend.active == 1)
        for client in clients[1:]:
            client.socket.close()
        began = time.monotonic()
        with RawClient(proxy.port) as client:
            assert client.send(asking("BOB")).answer().status == 200
        assert time.monotonic() - began < 1.0
        clients[0].socket.close()
        time.sleep(0.4)
        assert len(backend.seen) <= 4


def test_a_worker_that_is_killed_leaves_no_place_taken() -> None:
    with Puppet() as backend, queued(backend, workers=2, most=4) as proxy:
        backend.delay_s = 3.0
        clients = [RawClient(proxy.port).send(asking("ALICE")) for _ in range(12)]
        wait_until(lambda: backend.active == 4)
        for worker in proxy.workers():
            worker.kill()
        backend.delay_s = 0.0
        for client in clients:
            client.socket.close()

        def serves() -> bool:
            try:
                with RawClient(proxy.port) as client:
                    return client.send(asking("BOB")).answer().status == 200
            except (OSError, AssertionError):
                return False

        began = time.monotonic()
        wait_until(serves, 10)
        assert time.monotonic() - began < 5
