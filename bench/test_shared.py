"""What limits and usage rows cost a request: reported, not judged. `pytest bench --benchmark-only`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.ext import (
    BUILD_PROFILE,
    FLAG_BACKEND,
    MEASURE_IN_FLIGHT,
    MEASURE_LLM_REQUESTS,
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    OUTCOME_ANSWERED,
    UNLIMITED,
    WINDOW_BUCKET,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_MONTH,
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

NOW = 10**15
WALL = 1_795_230_000 * 10**9
MINUTE = 60 * 10**9
NAMES = (b"key_0123456789abcdef", b"tenant", b"user", b"enterprise")
REQUEST = (b"/v1/chat/completions", b"tiny", b"0f7a3c1e5b8d42f6a9c07d1e2b3f4a5c")
FIVE = [
    (b"requests_per_hour", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 10**12),
    (b"tokens_per_minute", 2, MEASURE_TOKENS, WINDOW_BUCKET, MINUTE, 10**9),
    (b"usd_per_day", 3, MEASURE_NANO_USD, WINDOW_DAY, 0, 2 * 10**14),
    (b"in_flight", 4, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 10**6),
    (b"", 5, MEASURE_TOKENS, WINDOW_DAY, 0, UNLIMITED),
]
NINE = [
    (b"requests_per_minute", 6, MEASURE_REQUESTS, WINDOW_BUCKET, MINUTE, 10**9),
    *FIVE,
    (b"", 7, MEASURE_LLM_REQUESTS, WINDOW_DAY, 0, UNLIMITED),
    (b"", 8, MEASURE_NANO_USD, WINDOW_DAY, 0, UNLIMITED),
    (b"", 9, MEASURE_NANO_USD, WINDOW_MONTH, 0, UNLIMITED),
]
ROUND = 1_000  # rows between two drains: what a worker writes in a fraction of a second


@pytest.fixture(autouse=True)
def _release_build() -> None:
    assert BUILD_PROFILE == "release", "a debug build tells nothing: SETUPTOOLS_RUST_CARGO_PROFILE=release"


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(str(tmp_path / "state.shm"), b"boot")


@pytest.fixture
def spool(tmp_path: Path, state: State) -> Spool:
    return Spool(str(tmp_path / "spool"), state)


@pytest.fixture
def drain(tmp_path: Path, state: State) -> Callable[[], None]:
    rings = Rings(str(tmp_path / "spool"), state)

    def drained() -> None:
        while rings.take(10_000):
            rings.free()

    return drained


def close(entry: Entry) -> None:
    entry.close(OUTCOME_ANSWERED, 200, b"one", Usage(12, 9), 210, FLAG_BACKEND, 12.5, 3.25, b"")


def run(benchmark: Any, drain: Callable[[], None], once: Callable[[], None]) -> None:
    def rounds() -> None:
        for _ in range(ROUND):
            once()

    benchmark.extra_info["each round"] = ROUND
    benchmark.pedantic(rounds, setup=drain, rounds=50, warmup_rounds=3)


@pytest.mark.parametrize("limits", [FIVE, NINE], ids=len)
def test_admit_and_close(
    benchmark: Any,
    state: State,
    spool: Spool,
    drain: Callable[[], None],
    limits: list[tuple[bytes, int, int, int, int, int]],
) -> None:
    account = Account(state, limits, *NAMES)

    def once() -> None:
        entry = spool.admit(account, *REQUEST, 500, 10_000, NOW, WALL)
        assert isinstance(entry, Entry)
        close(entry)

    run(benchmark, drain, once)


def test_book_and_close(benchmark: Any, state: State, spool: Spool, drain: Callable[[], None]) -> None:
    account = Account(state, FIVE, *NAMES)

    def once() -> None:
        entry = spool.book(account, *REQUEST, WALL)
        assert entry
        close(entry)

    run(benchmark, drain, once)


def test_refuse(benchmark: Any, state: State, spool: Spool) -> None:
    account = Account(state, [*FIVE, (b"none", 9, MEASURE_REQUESTS, WINDOW_DAY, 0, 0)], *NAMES)
    assert isinstance(benchmark(spool.admit, account, *REQUEST, 500, 10_000, NOW, WALL), Refusal)


def test_headers(benchmark: Any, state: State, spool: Spool) -> None:
    entry = spool.admit(Account(state, FIVE, *NAMES), *REQUEST, 500, 10_000, NOW, WALL)
    assert isinstance(entry, Entry)
    assert benchmark(lambda: entry.headers)


def test_header_lines(benchmark: Any, state: State, spool: Spool) -> None:
    entry = spool.admit(Account(state, FIVE, *NAMES), *REQUEST, 500, 10_000, NOW, WALL)
    assert isinstance(entry, Entry)
    assert benchmark(lambda: entry.header_lines)


def test_two_limits_of_an_address(benchmark: Any, state: State) -> None:
    buckets = [(b"", cell, MEASURE_REQUESTS, WINDOW_BUCKET, MINUTE, 10**9) for cell in (1, 2)]
    limits = Limits(state, buckets)
    assert benchmark(limits.take, NOW, WALL) in (0, MINUTE)


def test_drain_a_thousand_rows(benchmark: Any, tmp_path: Path, state: State, spool: Spool) -> None:
    account, rings = Account(state, [], *NAMES), Rings(str(tmp_path / "spool"), state)

    def fill() -> None:
        for _ in range(1_000):
            entry = spool.book(account, *REQUEST, WALL)
            assert entry
            close(entry)

    def drain() -> int:
        count = len(rings.take(2_000))
        rings.free()
        return count

    assert benchmark.pedantic(drain, setup=fill, rounds=30, warmup_rounds=2) == 1_000


def test_sweep_a_table_of_10000_cells(benchmark: Any, state: State) -> None:
    for cell in range(10_000):
        Limits(state, [(b"", cell, MEASURE_REQUESTS, WINDOW_HOUR, 0, 5)]).take(NOW, WALL)
    assert benchmark(state.sweep, NOW, WALL) == 0
