"""Targets in one process: what a balancer takes, when a breaker turns, who waits, and what the file survives."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from penstock.ext import (
    BALANCE_LATENCY,
    BALANCE_LEAST_IN_FLIGHT,
    BALANCE_WEIGHTED,
    BREAKER_CLOSED,
    BREAKER_HALF_OPEN,
    BREAKER_OPEN,
    TAKE_FULL,
    TAKE_NONE,
    TAKE_PROBE,
    BackendCell,
    Balancer,
    StateFull,
    TargetCell,
    Targets,
)

MS = 10**6
SECOND = 10**9
NOW = 10**15
RECOVERY = 60 * SECOND
RULE = (5, 0.5, 30 * SECOND, 10, RECOVERY)

_Member = tuple[BackendCell, TargetCell, int, int]


@pytest.fixture
def targets() -> Targets:
    return Targets("", b"")


def members(targets: Targets, *facts: tuple[int, int]) -> list[_Member]:
    """A backend with one target for each (weight, max_in_flight)."""
    cells = [(targets.backend(number), targets.target(number)) for number in range(len(facts))]
    return [(*pair, *fact) for pair, fact in zip(cells, facts, strict=True)]


def balancer(targets: Targets, *facts: tuple[int, int], balance: int = BALANCE_LEAST_IN_FLIGHT) -> Balancer:
    return Balancer(targets, members(targets, *facts), balance, RULE)


def fail(balancer: Balancer, index: int, now: int = NOW, *, connect: bool = False) -> None:
    """Until its breaker opens."""
    assert [balancer.failed(index, now, connect) for _ in range(5)] == [False] * 4 + [True]


# --- what is taken --------------------------------------------------------------------------------


def test_least_in_flight_goes_by_weight(targets: Targets) -> None:
    three = balancer(targets, (1, 0), (2, 0), (3, 0))
    taken = Counter(three.take(NOW, number) for number in range(60))
    assert taken == {0: 10, 1: 20, 2: 30}


def test_chance_decides_among_equals(targets: Targets) -> None:
    three = balancer(targets, (1, 0), (1, 0), (1, 0))
    firsts = []
    for number in range(9):
        firsts.append(three.take(NOW, number))
        three.release(firsts[-1])
    assert firsts == [0, 1, 2] * 3


def test_weights_are_chances(targets: Targets) -> None:
    two = balancer(targets, (1, 0), (9, 0), balance=BALANCE_WEIGHTED)
    assert Counter(two.take(NOW, number) for number in range(100)) == {0: 10, 1: 90}


def test_the_faster_of_two_by_chance(targets: Targets) -> None:
    two = balancer(targets, (1, 0), (1, 0), balance=BALANCE_LATENCY)
    two.answered(0, NOW, 100 * MS)
    assert two.take(NOW, 0) == 1, "not measured and idle: first"
    two.answered(1, NOW, 300 * MS)
    two.release(1)
    assert [two.take(NOW, number) for number in range(6)] == [0, 0, 0, 1, 0, 0], "300 * 1 is less than 100 * 4"
    assert [cell[6:] for cell in two.view(NOW)] == [(0, 100 * MS), (0, 300 * MS)]


def test_failing_fast_never_looks_fast(targets: Targets) -> None:
    two = balancer(targets, (1, 0), (1, 0), balance=BALANCE_LATENCY)
    two.answered(0, NOW, 500 * MS)
    two.failed(1, NOW)
    assert two.take(NOW, 0) == 0
    cell = targets.target(0)
    two.failed(0, NOW)
    assert cell.latency_ns == SECOND
    for _ in range(20):
        two.failed(0, NOW)
    assert cell.latency_ns == 60 * SECOND


def test_a_latency_of_long_ago_is_tried_again(targets: Targets) -> None:
    two = balancer(targets, (1, 0), (1, 0), balance=BALANCE_LATENCY)
    two.answered(1, NOW, 60 * SECOND)
    later = NOW + 15 * 60 * SECOND
    two.answered(0, later, 100 * MS)
    assert two.take(later, 0) == 1


def test_places_are_the_backends(targets: Targets) -> None:
    """Two targets of one backend share its places."""
    backend = targets.backend(1)
    pair = [(backend, targets.target(number), 1, 3) for number in (1, 2)]
    one, other = Balancer(targets, pair[:1], 0, RULE), Balancer(targets, pair, 0, RULE)
    assert [one.take(NOW, 0), other.take(NOW, 0), other.take(NOW, 1)] == [0, 0, 1]
    assert [one.take(NOW, 0), other.take(NOW, 0)] == [TAKE_FULL, TAKE_FULL]
    other.release(1)
    assert one.take(NOW, 0) == 0


def test_a_full_one_is_passed_over(targets: Targets) -> None:
    two = balancer(targets, (100, 1), (1, 2))
    assert [two.take(NOW, 0) for _ in range(4)] == [0, 1, 1, TAKE_FULL]
    assert two.full(NOW) == 0b11
    assert [row[1] for row in two.view(NOW)] == ["full", "full"]
    two.release(1)
    assert two.full(NOW) == 0b01
    assert two.full(NOW, 0b01) == 0


def test_who_is_avoided_drained_or_open_is_not_taken(targets: Targets) -> None:
    three = balancer(targets, (1, 0), (1, 0), (1, 0))
    assert three.take(NOW, 0, 0b011) == 2
    targets.backend(2).drained = True
    fail(three, 1)
    assert three.take(NOW, 0) == 0
    assert three.take(NOW, 0, 0b001) == TAKE_NONE
    assert [row[:2] for row in three.view(NOW)] == [(True, ""), (False, "open"), (False, "drained")]
    targets.backend(2).drained = False
    assert three.take(NOW, 0, 0b011) == 2


def test_one_that_is_down_is_the_last_resort(targets: Targets) -> None:
    two = balancer(targets, (1, 1), (1, 1))
    targets.backend(1).down = True
    assert [two.take(NOW, 1), two.take(NOW, 1)] == [0, TAKE_FULL], "better to wait for one that is up"
    assert two.view(NOW)[1][:2] == (False, "down")
    assert two.take(NOW, 1, 0b01) == 1, "better a try than nothing"


def test_hedges_go_only_where_nobody_is(targets: Targets) -> None:
    four = balancer(targets, (1, 0), (1, 0), (1, 0), (1, 9))
    assert four.take(NOW, 0, 0b1110) == 0
    targets.backend(1).down = True
    fail(four, 2)
    targets.backend(3).wait(1, 1)
    assert four.take_idle(NOW, 0, 0) == TAKE_NONE
    targets.backend(3).wait(0, 0)
    assert [four.take_idle(NOW + RECOVERY, 0, 0b0001), four.take_idle(NOW, 0, 0b0001)] == [3, TAKE_NONE]


def test_what_is_released_twice_is_not_below_none(targets: Targets) -> None:
    one = balancer(targets, (1, 1))
    one.release(one.take(NOW, 0))
    one.release(0)
    assert targets.backend(0).in_flight == 0
    assert [one.take(NOW, 0), one.take(NOW, 0)] == [0, TAKE_FULL]


def test_nothing_to_take() -> None:
    none = balancer(Targets("", b""))
    assert (none.take(NOW, 0), none.take_idle(NOW, 0, 0), none.retry_in_ns(NOW)) == (TAKE_NONE, TAKE_NONE, 0)
    none.release(5)
    assert not none.answered(63, NOW, 1)
    assert not none.failed(2**40, NOW)


def test_64_members(targets: Targets) -> None:
    many = balancer(targets, *[(1, 1)] * 64)
    assert sorted(many.take(NOW, number) for number in range(64)) == list(range(64))
    assert (many.take(NOW, 0), many.full(NOW)) == (TAKE_FULL, 2**64 - 1)
    assert many.take(NOW, 0, 2**64 - 1) == TAKE_NONE


def test_what_makes_no_sense(targets: Targets) -> None:
    with pytest.raises(ValueError, match="64"):
        balancer(targets, *[(1, 1)] * 65)
    with pytest.raises(ValueError, match="of these targets"):
        Balancer(Targets("", b""), members(targets, (1, 1)), 0, RULE)
    with pytest.raises(ValueError, match="weight"):
        balancer(targets, (0, 1))
    with pytest.raises(ValueError, match="BALANCE_"):
        balancer(targets, (1, 1), balance=3)


# --- breakers ---------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    for _ in range(4):
        one.failed(0, NOW)
    one.answered(0, NOW, MS)
    assert (cell.failures_in_row, cell.breaker(NOW), cell.window(NOW)) == (0, BREAKER_CLOSED, (5, 4))
    fail(one, 0)
    assert (cell.failures_in_row, cell.breaker(NOW)) == (5, BREAKER_OPEN)
    assert (cell.retry_in_ns(NOW + SECOND), one.retry_in_ns(NOW + SECOND)) == (59 * SECOND, 59 * SECOND)
    assert one.take(NOW + RECOVERY - 1, 0) == TAKE_NONE


def test_a_share_of_failures_opens_it(targets: Targets) -> None:
    one = balancer(targets, (1, 0))
    opened = []
    for number in range(5):
        one.answered(0, NOW + number, MS)
        opened.append(one.failed(0, NOW + number))
    assert opened == [False] * 4 + [True]


def test_answers_that_are_cut_count_once(targets: Targets) -> None:
    """Else no ratio above a half could ever be reached by a target that cuts all it begins."""
    one = Balancer(targets, members(targets, (1, 0)), 0, (5, 1.0, 30 * SECOND, 10, RECOVERY))
    opened = []
    for _ in range(10):
        one.answered(0, NOW, MS)
        opened.append(one.failed(0, NOW, late=True))
    assert opened == [False] * 9 + [True]
    assert targets.target(0).window(NOW) == (10, 10)


def test_the_window_slides(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    for at in range(0, 30, 3):
        one.answered(0, NOW + at * SECOND, MS)
        if at < 9:
            one.failed(0, NOW + at * SECOND)
    windows = [cell.window(NOW + after * SECOND) for after in (0, 27, 30, 33, 36, 54, 57)]
    assert windows == [(13, 3), (13, 3), (11, 2), (9, 1), (7, 0), (1, 0), (0, 0)]


def test_one_probe_closes_or_opens_it(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    fail(one, 0)
    at = NOW + RECOVERY
    assert (cell.breaker(at - 1), cell.breaker(at)) == (BREAKER_OPEN, BREAKER_HALF_OPEN)
    assert [one.take(at, 0), one.take(at, 0)] == [TAKE_PROBE, TAKE_NONE]
    assert one.view(at)[0][1] == "half_open"
    assert one.retry_in_ns(at) == SECOND
    assert one.failed(TAKE_PROBE, at)
    one.release(TAKE_PROBE)
    assert one.take(at, 0) == TAKE_NONE
    at += RECOVERY
    assert one.take(at, 0) == TAKE_PROBE
    assert one.answered(TAKE_PROBE, at, MS)
    assert (cell.breaker(at), cell.window(at), cell.failures_in_row) == (BREAKER_CLOSED, (0, 0), 0)
    assert one.take(at, 0) == 0


def test_a_probe_that_tells_nothing_is_given_back(targets: Targets) -> None:
    one = balancer(targets, (1, 0))
    fail(one, 0)
    at = NOW + RECOVERY
    assert one.take(at, 0) == TAKE_PROBE
    one.release(TAKE_PROBE)
    assert one.take(at, 0) == TAKE_PROBE
    assert one.take(at + 2 * RECOVERY - 1, 0) == TAKE_NONE
    assert one.take(at + 2 * RECOVERY, 0) == TAKE_PROBE, "who tells nothing for so long is lost"


def test_only_the_probe_tells_while_it_is_not_closed(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    old = one.take(NOW, 0)
    fail(one, 0)
    at = NOW + RECOVERY
    assert not one.answered(old, at, MS)
    assert one.take(at, 0) == TAKE_PROBE
    assert not one.failed(old, at)
    one.release(old)
    assert one.take(at, 0) == TAKE_NONE, "the probe is still out"
    assert one.answered(TAKE_PROBE, at, MS)
    assert cell.breaker(at) == BREAKER_CLOSED


def test_a_check_that_connects_lets_a_probe_out_early(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    assert not cell.probe_early()
    fail(one, 0)
    assert not cell.probe_early(), "connections were never what failed"
    cell.reset()
    fail(one, 0, connect=True)
    assert cell.probe_early()
    assert not cell.probe_early()
    assert (cell.breaker(NOW), one.retry_in_ns(NOW)) == (BREAKER_HALF_OPEN, 0)
    assert [one.take(NOW, 0), one.take(NOW, 0)] == [TAKE_PROBE, TAKE_NONE]


def test_reset_forgets(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 0)), targets.target(0)
    fail(one, 0)
    cell.reset()
    assert (cell.breaker(NOW), cell.failures_in_row, cell.window(NOW), cell.latency_ns) == (0, 0, (0, 0), 0)
    assert one.take(NOW, 0) == 0


def test_a_breaker_may_be_off(targets: Targets) -> None:
    never = Balancer(targets, members(targets, (1, 0)), 0, (0, 0.0, 30 * SECOND, 1, RECOVERY))
    assert not any(never.failed(0, NOW) for _ in range(1_000))


def test_retry_in_looks_at_what_is_not_drained(targets: Targets) -> None:
    two = balancer(targets, (1, 0), (1, 0))
    fail(two, 0)
    assert two.retry_in_ns(NOW) == 0
    targets.backend(1).drained = True
    assert two.retry_in_ns(NOW) == RECOVERY


# --- the line ---------------------------------------------------------------------------------------


def test_a_key_waits_behind_its_own(targets: Targets) -> None:
    hog, other = 1, 2
    assert [targets.join_line(hog) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert targets.join_line(other) == 1
    targets.served(4)
    assert [targets.join_line(other), targets.join_line(3), targets.join_line(hog)] == [4, 4, 6]
    assert targets.waiting == 9
    for _ in range(12):
        targets.leave_line(1)
    assert targets.waiting == 0


def test_newcomers_wait_behind_those_who_wait(targets: Targets) -> None:
    one, cell = balancer(targets, (1, 5)), targets.backend(0)
    cell.wait(3, 2)
    assert (cell.waiting, one.take(NOW, 0), one.full(NOW)) == (2, TAKE_FULL, 1)
    assert one.take(NOW, 0, 0, 9) == 0, "one's own order is one's own"
    cell.wait(0, 0)
    assert one.take(NOW, 0) == 0


def test_lower_tags_of_others_go_first(tmp_path: Path) -> None:
    path = str(tmp_path / "targets.shm")
    ours, theirs = Targets(path, b"boot"), Targets(path, b"boot")
    theirs.backend(0).wait(3, 4)
    one = balancer(ours, (1, 5))
    assert [one.take(NOW, 0, 0, tag) for tag in (0, 4, 3, 2)] == [TAKE_FULL, TAKE_FULL, 0, 0]
    without_limit = balancer(ours, (1, 0))
    assert without_limit.take(NOW, 0) == 0, "where there is no limit nobody needs to wait"


def test_ahead_is_an_estimate_of_others(tmp_path: Path) -> None:
    path = str(tmp_path / "targets.shm")
    ours, theirs = Targets(path, b"boot"), Targets(path, b"boot")
    tags = [theirs.join_line(1) for _ in range(10)]
    for number in (0, 1):
        theirs.backend(number).wait(tags[0], 10)
    assert [ours.ahead(tag) for tag in (1, 2, 6, 11)] == [0, 1, 5, 10]
    assert theirs.ahead(11) == 0


# --- the file ---------------------------------------------------------------------------------------


def test_what_one_says_another_sees(tmp_path: Path) -> None:
    path = str(tmp_path / "targets.shm")
    ours, theirs = Targets(path, b"boot"), Targets(path, b"boot")
    assert (ours.slot, theirs.slot) == (0, 1)
    fail(balancer(ours, (1, 0)), 0)
    ours.backend(0).drained = True
    assert balancer(theirs, (1, 0)).view(NOW)[0][:2] == (False, "drained")
    assert theirs.target(0).breaker(NOW) == BREAKER_OPEN
    assert (ours.generation, theirs.bump(), ours.generation) == (0, 1, 1)


def test_another_boot_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "targets.shm"
    Targets(str(path), b"boot").backend(5).drained = True
    assert Targets(str(path), b"boot").backend(5).drained
    assert not Targets(str(path), b"next").backend(5).drained
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_suffix(".slots").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"x" * 5_000, b"\0" * 10**6])
def test_a_file_that_is_not_ours_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "targets.shm"
    path.write_bytes(content)
    assert not Targets(str(path), b"boot").backend(5).drained


def test_a_file_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "targets.shm"
    Targets(str(path), b"boot").backend(5).drained = True
    path.write_bytes(path.read_bytes()[:600_000])
    assert not Targets(str(path), b"boot").backend(5).drained


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"targets\.shm"):
        Targets(str(tmp_path / "none" / "targets.shm"), b"boot")
    (tmp_path / "link.shm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Targets(str(tmp_path / "link.shm"), b"boot")


def test_a_slot_is_free_when_its_holder_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "targets.shm")
    first, second = Targets(path, b"boot"), Targets(path, b"boot")
    balancer(second, (1, 0)).take(NOW, 0)
    assert (first.sweep(), first.backend(0).in_flight) == (0, 1)
    del second
    assert (first.sweep(), first.backend(0).in_flight, first.sweep()) == (1, 0, 0)
    assert Targets(path, b"boot").slot == 1


def test_256_slots(tmp_path: Path) -> None:
    path = str(tmp_path / "targets.shm")
    opened = [Targets(path, b"boot", 2, 2) for _ in range(256)]
    assert [targets.slot for targets in opened] == list(range(256))
    balancer(opened[255], (1, 0)).take(NOW, 0)
    assert opened[0].backend(0).in_flight == 1
    with pytest.raises(OSError, match="256 processes"):
        Targets(path, b"boot")
    del opened[255]
    assert Targets(path, b"boot").slot == 255
    assert opened[0].backend(0).in_flight == 0


def test_cells_nobody_has_are_anybodys_when_all_were_used(tmp_path: Path) -> None:
    targets = Targets(str(tmp_path / "targets.shm"), b"boot", 2, 2)
    held = [targets.backend(number) for number in (0, 1)]
    with pytest.raises(StateFull):
        targets.backend(2)
    held[0].drained = True
    del held
    last = [targets.backend(2)]
    with pytest.raises(StateFull):
        targets.backend(3)
    assert targets.backend(0).drained, "what an operator said stays"
    last.clear()
    assert not targets.backend(3).drained


def test_threads_share_a_slot(targets: Targets) -> None:
    one = balancer(targets, (1, 3))
    most: list[int] = []

    def work() -> None:
        for number in range(2_000):
            if (got := one.take(NOW, number)) >= 0:
                most.append(targets.backend(0).in_flight)
                one.release(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert targets.backend(0).in_flight == 0
    assert len(most) > 2_000
