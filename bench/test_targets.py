"""What picking a target costs a request: reported, not judged. `pytest bench --benchmark-only`."""

from pathlib import Path
from typing import Any

import pytest

from penstock.ext import (
    BALANCE_LATENCY,
    BALANCE_LEAST_IN_FLIGHT,
    BALANCE_WEIGHTED,
    BUILD_PROFILE,
    TAKE_FULL,
    Balancer,
    Targets,
)

NOW = 10**15
SECOND = 10**9
RULE = (5, 0.5, 30 * SECOND, 10, 60 * SECOND)
CHANCE = 0x1E37_79B9_7F4A_7C15
WORKERS = 8


@pytest.fixture(autouse=True)
def _release_build() -> None:
    assert BUILD_PROFILE == "release", "a debug build tells nothing: SETUPTOOLS_RUST_CARGO_PROFILE=release"


@pytest.fixture
def targets(tmp_path: Path) -> Targets:
    """Of one of eight workers."""
    opened = [Targets(str(tmp_path / "targets.shm"), b"boot") for _ in range(WORKERS)]
    return opened[-1]


def balancer(targets: Targets, count: int, balance: int = BALANCE_LEAST_IN_FLIGHT, most: int = 1_000) -> Balancer:
    members = [(targets.backend(number), targets.target(number), 1, most) for number in range(count)]
    return Balancer(targets, members, balance, RULE)


@pytest.mark.parametrize("balance", [BALANCE_LEAST_IN_FLIGHT, BALANCE_WEIGHTED, BALANCE_LATENCY])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_take_and_release(benchmark: Any, targets: Targets, count: int, balance: int) -> None:
    some = balancer(targets, count, balance)
    for index in range(count):
        some.answered(index, NOW, SECOND)

    def once() -> None:
        some.release(some.take(NOW, CHANCE))

    benchmark(once)


def test_answered(benchmark: Any, targets: Targets) -> None:
    assert not benchmark(balancer(targets, 3).answered, 1, NOW, SECOND)


def test_failed(benchmark: Any, targets: Targets) -> None:
    """The one that opens it is among many that only double its latency."""
    assert not benchmark(balancer(targets, 3).failed, 1, NOW, False)


def test_full(benchmark: Any, targets: Targets) -> None:
    some = balancer(targets, 3, most=1)
    for number in range(3):
        some.take(NOW, number)
    assert benchmark(some.take, NOW, CHANCE) == TAKE_FULL


def test_join_and_leave_the_line(benchmark: Any, targets: Targets) -> None:
    def once() -> None:
        tag = targets.join_line(CHANCE)
        targets.served(tag)
        targets.leave_line(tag)

    benchmark(once)


def test_sweep_with_eight_workers(benchmark: Any, tmp_path: Path) -> None:
    opened = [Targets(str(tmp_path / "targets.shm"), b"boot") for _ in range(WORKERS)]
    assert benchmark(opened[0].sweep) == 0
