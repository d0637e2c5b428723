"""Limits and spools shared by real processes with threads: never more than the limit, also while they are killed."""

import mmap
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.ext import (
    FLAG_BACKEND,
    MEASURE_IN_FLIGHT,
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    OUTCOME_ANSWERED,
    WINDOW_BUCKET,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_NONE,
    Account,
    Entry,
    Limits,
    Refusal,
    Rings,
    Spool,
    State,
    Usage,
)

SECOND = 10**9
HOUR = 3_600 * SECOND
NOW = 10**15
WALL = 500_000 * HOUR
NAMES = (b"key", b"tenant", b"user", b"free")
PROCESSES, THREADS = 4, 4

_Limit = tuple[bytes, int, int, int, int, int]


class Tally:
    """Counters that forked processes share: one each, written by nobody else."""

    def __init__(self, count: int) -> None:
        # One store a write: struct.pack_into writes zeros first, which a kill would leave.
        self._words = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def add(self, index: int, n: int = 1) -> None:
        self._words[index] += n

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    @property
    def total(self) -> int:
        return sum(self._words)


def fork(work: Callable[[int], None], index: int) -> int:
    """The process id of a child that does work(index) and exits with 0 if it did not raise."""
    child = os.fork()
    if child:
        return child
    try:
        work(index)
        os._exit(0)
    finally:
        os._exit(1)


def in_threads(work: Callable[[int], None], process: int) -> None:
    threads = [threading.Thread(target=work, args=(process * THREADS + n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for(children: list[int]) -> None:
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


REQUESTS: _Limit = (b"requests", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 5_000)
BUCKET: _Limit = (b"bucket", 2, MEASURE_REQUESTS, WINDOW_BUCKET, SECOND, 5_000)
TOKENS: _Limit = (b"tokens", 3, MEASURE_TOKENS, WINDOW_BUCKET, 60 * SECOND, 50_000)
MONEY: _Limit = (b"usd", 4, MEASURE_NANO_USD, WINDOW_DAY, 0, 500_000)
IN_FLIGHT: _Limit = (b"in_flight", 5, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 7)


@pytest.mark.parametrize("limit", [REQUESTS, BUCKET], ids=["calendar", "bucket"])
def test_exactly_the_limit_without_records(tmp_path: Path, limit: _Limit) -> None:
    path = str(tmp_path / "state.shm")
    State(path, b"boot")
    tally = Tally(PROCESSES * THREADS)

    def work(process: int) -> None:
        state = State(path, b"boot")

        def take(index: int) -> None:
            limits = Limits(state, [limit])
            for _ in range(2_000):
                if limits.take(NOW, WALL) == 0:
                    tally.add(index)

        in_threads(take, process)

    wait_for([fork(work, process) for process in range(PROCESSES)])
    assert tally.total == 5_000


@pytest.mark.parametrize("limit", [REQUESTS, BUCKET, TOKENS, MONEY], ids=["requests", "bucket", "tokens", "money"])
def test_exactly_the_limit_with_records(tmp_path: Path, limit: _Limit) -> None:
    path, folder = str(tmp_path / "state.shm"), str(tmp_path / "spool")
    state = State(path, b"boot")
    tally = Tally(PROCESSES * THREADS)

    def work(process: int) -> None:
        state = State(path, b"boot")
        spool = Spool(folder, state, 8_192)
        account = Account(state, [(b"wide", 9, MEASURE_REQUESTS, WINDOW_DAY, 0, 10**6), limit], *NAMES)

        def admit(index: int) -> None:
            for _ in range(1_500):
                entry = spool.admit(account, b"/chat", b"tiny", b"id", 10, 100, NOW, WALL)
                if isinstance(entry, Entry):
                    tally.add(index)
                    entry.close(OUTCOME_ANSWERED, 200, b"", Usage(10, 0), 100, FLAG_BACKEND, 0, -1, b"")

        in_threads(admit, process)

    wait_for([fork(work, process) for process in range(PROCESSES)])
    assert tally.total == 5_000
    assert state.used(9, WINDOW_DAY, WALL) == 5_000, "who lost a race gave back what it had taken before"
    rings = Rings(folder, state)
    assert (rings.waiting, rings.open, rings.owned) == (5_000, 0, 0)


def test_in_flight_never_exceeds_its_limit(tmp_path: Path) -> None:
    path, folder = str(tmp_path / "state.shm"), str(tmp_path / "spool")
    state = State(path, b"boot")
    now_in = Tally(PROCESSES * THREADS)
    most = Tally(PROCESSES * THREADS)

    def work(process: int) -> None:
        state = State(path, b"boot")
        spool = Spool(folder, state, 65_536)
        account = Account(state, [IN_FLIGHT], *NAMES)

        def admit(index: int) -> None:
            for _ in range(1_500):
                entry = spool.admit(account, b"/chat", b"tiny", b"id", 0, 0, NOW, WALL)
                if isinstance(entry, Entry):
                    now_in.add(index)
                    most.add(index, max(0, now_in.total - most[index]))
                    now_in.add(index, -1)
                    entry.close(OUTCOME_ANSWERED, 200, b"", None, 0, FLAG_BACKEND, 0, -1, b"")

        in_threads(admit, process)

    wait_for([fork(work, process) for process in range(PROCESSES)])
    assert 1 <= max(most[index] for index in range(PROCESSES * THREADS)) <= 7
    assert state.used(5, WINDOW_NONE, WALL) == 0


@pytest.mark.parametrize("seed", range(6))
def test_killed_processes_never_admit_too_much(tmp_path: Path, seed: int) -> None:
    """Whenever it strikes, a kill leaves at most too much taken, every row is there once, and all is given back."""
    rng = random.Random(seed)
    path, folder = str(tmp_path / "state.shm"), str(tmp_path / "spool")
    state = State(path, b"boot")
    amount = 60_000
    limits = [
        (b"requests", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, amount),
        (b"tokens", 3, MEASURE_TOKENS, WINDOW_DAY, 0, 10**12),
        (b"usd", 4, MEASURE_NANO_USD, WINDOW_DAY, 0, 10**12),
        (b"in_flight", 5, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 1_000),
    ]
    admitted, closed = Tally(64), Tally(64)

    def work(process: int) -> None:
        state = State(path, b"boot")
        spool = Spool(folder, state, 1_024)  # soon full: users go no faster than the drainer
        account = Account(state, limits, *NAMES)
        while not isinstance(entry := spool.admit(account, b"/chat", b"tiny", b"id", 100, 1_000, NOW, WALL), Refusal):
            if entry is None:
                continue
            admitted.add(process)
            entry.close(OUTCOME_ANSWERED, 200, b"", Usage(20, 10), 500, FLAG_BACKEND, 1, -1, b"")
            closed.add(process)

    kills = 0
    rings = Rings(folder, state)
    stored: dict[int, str] = {}
    children = {process: fork(work, process) for process in range(3)}
    for process in range(3, 15):
        victim = rng.choice(list(children))
        at = admitted[victim] + rng.randrange(1, 1_500)
        while admitted[victim] < at and state.used(1, WINDOW_HOUR, WALL) < amount:
            store(rings, stored, rng.randrange(1, 1_000))
        os.kill(children[victim], signal.SIGKILL)
        os.waitpid(children.pop(victim), 0)
        kills += 1
        children[process] = fork(work, process)
    while children:
        store(rings, stored, 5_000)
        children = {n: child for n, child in children.items() if os.waitpid(child, os.WNOHANG) == (0, 0)}
    while store(rings, stored, 1_000):
        pass
    assert admitted.total <= amount
    assert state.used(1, WINDOW_HOUR, WALL) == amount
    outcomes = list(stored.values())
    assert closed.total <= outcomes.count("answered") <= closed.total + kills
    assert outcomes.count("lost") <= kills
    assert amount - kills <= len(outcomes) <= amount + kills
    # What was being changed at the moment of a kill may stay taken, never more than was reserved.
    answered = outcomes.count("answered")
    assert 30 * answered <= state.used(3, WINDOW_DAY, WALL) <= 30 * answered + 100 * kills
    assert 500 * answered <= state.used(4, WINDOW_DAY, WALL) <= 500 * answered + 1_000 * kills
    assert state.used(5, WINDOW_NONE, WALL) <= kills
    state.reconcile(folder)
    assert state.used(5, WINDOW_NONE, WALL) == 0
    assert (rings.waiting, rings.open, rings.owned) == (0, 0, 0)


def store(rings: Rings, stored: dict[int, str], limit: int) -> int:
    """Takes rows, and stores each once; how many."""
    rows = rings.take(limit)
    for row in rows:
        assert isinstance(row[0], int) and isinstance(row[-3], str)
        assert row[0] not in stored, "a row comes once"
        stored[row[0]] = row[-3]
    rings.free()
    return len(rows)


def test_sweeping_beside_users_loses_nothing(tmp_path: Path) -> None:
    """Cells come and go under a sweeper that never rests; what is taken of any stays taken until it is given back."""
    path, folder = str(tmp_path / "state.shm"), str(tmp_path / "spool")
    state = State(path, b"boot", 256)
    taken, now_in, most = (Tally(PROCESSES * THREADS) for _ in range(3))

    def work(process: int) -> None:
        state = State(path, b"boot")
        spool = Spool(folder, state, 16_384)
        hour = Limits(state, [REQUESTS])
        account = Account(state, [IN_FLIGHT], *NAMES)

        def take(index: int) -> None:
            for turn in range(1_000):
                # Full again a nanosecond later: the sweeper's clock is past that.
                assert Limits(state, [(b"", 100 + turn % 97, MEASURE_REQUESTS, WINDOW_BUCKET, 10**5, 10**5)]).take(
                    NOW, WALL
                ) in range(10**5)
                taken.add(index, hour.take(NOW, WALL) == 0)
                entry = spool.admit(account, b"/chat", b"tiny", b"id", 0, 0, NOW, WALL)
                if isinstance(entry, Entry):
                    now_in.add(index)
                    most.add(index, max(0, now_in.total - most[index]))
                    now_in.add(index, -1)
                    entry.close(OUTCOME_ANSWERED, 200, b"", None, 0, FLAG_BACKEND, 0, -1, b"")

        in_threads(take, process)

    children = [fork(work, process) for process in range(PROCESSES)]
    freed = 0
    for child in children:
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            freed += state.sweep(NOW + SECOND, WALL)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert freed > 100
    assert taken.total == 5_000
    assert 1 <= max(most[index] for index in range(PROCESSES * THREADS)) <= 7
    assert state.used(5, WINDOW_NONE, WALL) == 0
