"""Clears and figures shared by real processes, also when they are killed."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.ext import CACHE_SHARED, CLEAR_ALL, CLEAR_MODEL, CacheClears, CacheStore

PROCESSES = 4
HOUR = 3_600 * 10**9


class Child:
    """A process that does one step each time it is told to."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        here, there = os.pipe(), os.pipe()
        self.tell, self.hear = there[1], here[0]
        self.process = os.fork()
        if self.process:
            os.close(here[1])
            os.close(there[0])
            return
        try:
            os.close(self.tell)
            os.close(self.hear)

            def step() -> None:
                """Waits to be told, having told that all until here is done."""
                os.write(here[1], b".")
                if not os.read(there[0], 1):
                    os._exit(1)

            work(step)
            os._exit(0)
        finally:
            os._exit(1)

    def wait(self) -> None:
        assert os.read(self.hear, 1) == b"."

    def go(self) -> None:
        os.write(self.tell, b".")

    def end(self, code: int = 0) -> None:
        assert os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1]) == code
        os.close(self.tell)
        os.close(self.hear)


def test_a_clear_reaches_every_worker(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.shm")

    def work(step: Callable[[], None]) -> None:
        store = CacheStore(1 << 20, CacheClears(path, b"boot"), 1 << 17)
        for number in range(20):
            store.put(bytes([number]) * 32, b"even" if number % 2 == 0 else b"odd", b"t", b"", [b"x"], 0, 1, HOUR)
        step()
        assert [store.get(bytes([number]) * 32, 2) is not None for number in range(20)] == [False, True] * 10
        step()
        assert store.get(bytes([1]) * 32, 2) is None
        assert store.entries == 0

    clears = CacheClears(path, b"boot")
    children = [Child(work) for _ in range(PROCESSES)]
    for child in children:
        child.wait()
    assert (clears.entries, clears.bytes) == (20 * PROCESSES, 20 * PROCESSES * 512)
    clears.clear(CLEAR_MODEL, b"even")
    for child in children:
        child.go()
        child.wait()
    assert clears.entries == 10 * PROCESSES
    clears.clear(CLEAR_ALL)
    for child in children:
        child.go()
        child.end()
    assert sorted(clears.figures()) == [
        (b"even", 0, 0, 0, 0, 10 * PROCESSES),
        (b"odd", 10 * PROCESSES, 0, 0, 0, 10 * PROCESSES),
    ]


def test_what_a_killed_worker_kept_is_taken_away(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.shm")

    def work(step: Callable[[], None]) -> None:
        store = CacheStore(1 << 20, CacheClears(path, b"boot"), 1 << 17)
        store.put(b"k" * 32, b"m", b"t", b"", [b"x" * 5_000], 0, 1, HOUR)
        step()

    clears = CacheClears(path, b"boot")
    children = [Child(work) for _ in range(3)]
    for child in children:
        child.wait()
    assert (clears.sweep(), clears.entries) == (0, 3)
    for child in children[:2]:
        os.kill(child.process, signal.SIGKILL)
        child.end(-signal.SIGKILL)
    assert (clears.sweep(), clears.entries, clears.bytes) == (2, 1, 11 * 512)
    assert clears.figures() == [(b"m", 0, 0, 0, 0, 3)]
    another = Child(work)
    another.wait()
    assert clears.entries == 2
    for child in [children[2], another]:
        os.kill(child.process, signal.SIGKILL)
        child.end(-signal.SIGKILL)
    # The slot of a dead one that was not swept yet is claimed by a new one: nothing is counted twice.
    newer = CacheClears(path, b"boot")
    assert (newer.entries, newer.sweep(), clears.entries) == (1, 1, 0)


def test_counts_of_many_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.shm")
    names = [b"model %d" % number for number in range(40)]

    def work(step: Callable[[], None]) -> None:
        clears = CacheClears(path, b"boot")
        step()
        for name in random.sample(names, len(names)):
            for _ in range(500):
                clears.count(name, CACHE_SHARED)

    children = [Child(work) for _ in range(PROCESSES)]
    for child in children:
        child.wait()
    for child in children:
        child.go()
    for child in children:
        child.end()
    figures = CacheClears(path, b"boot").figures()
    assert sorted(figures) == sorted((name, 0, 0, 0, 500 * PROCESSES, 0) for name in names)


@pytest.mark.parametrize("seed", range(3))
def test_clears_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Whoever clears, nobody ever finds what was stored before a clear it could know of."""
    path = str(tmp_path / "cache.shm")

    def work(step: Callable[[], None]) -> None:
        clears = CacheClears(path, b"boot")
        store = CacheStore(1 << 20, clears, 1 << 17)
        chance = random.Random(os.getpid())
        stored: dict[bytes, int] = {}
        step()
        for _ in range(4_000):
            key = bytes([chance.randrange(20)]) * 32
            if chance.random() < 0.05:
                clears.clear(chance.choice([CLEAR_ALL, CLEAR_MODEL]), b"m")
            before = clears.generation
            if store.get(key, 2) is not None:
                assert stored[key] == before or clears.generation != before or stored[key] > before
            before = clears.generation
            if store.put(key, b"m", b"t", b"", [b"x"], 0, 1, HOUR, before):
                stored[key] = clears.generation

    children = [Child(work) for _ in range(PROCESSES)]
    for child in children:
        child.wait()
    for child in children:
        child.go()
    for child in children:
        child.end()
