"""Limits against their slow twin on random histories, clock steps included, and calendar windows against datetime."""

import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import limits as oracle
from penstock.ext import (
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
    Refusal,
    Rings,
    Spool,
    State,
    Usage,
)

HOUR = 3_600 * 10**9
START = 1_795_230_000 * 10**9
CALENDAR = [WINDOW_HOUR, WINDOW_DAY, WINDOW_MONTH]
NAMES = (b"key", b"tenant", b"user", b"free")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[State, Spool, Rings]]:
    with tempfile.TemporaryDirectory() as folder:
        state = State(f"{folder}/state.shm", b"boot")
        yield state, Spool(f"{folder}/spool", state, 4096), Rings(f"{folder}/spool", state)


measures = st.sampled_from([MEASURE_REQUESTS, MEASURE_LLM_REQUESTS, MEASURE_TOKENS, MEASURE_NANO_USD])
buckets = st.tuples(measures, st.just(WINDOW_BUCKET), st.sampled_from([10**9, 60 * 10**9, 7]), st.integers(0, 50))
calendars = st.tuples(measures, st.sampled_from(CALENDAR), st.just(0), st.integers(0, 50) | st.just(UNLIMITED))
in_flight = st.tuples(st.just(MEASURE_IN_FLIGHT), st.just(WINDOW_NONE), st.just(0), st.integers(0, 4))
accounts = st.lists(buckets | calendars | in_flight, max_size=6)
waits_ms = st.integers(0, 90_000) | st.sampled_from([0, 1, 999, 1000, 3_600_000, 86_400_000, 40 * 86_400_000])
clock_steps = st.sampled_from([0, 0, 0, HOUR, -HOUR, 25 * HOUR, -25 * HOUR, 800 * HOUR])
steps = st.lists(
    st.tuples(st.just("admit"), st.integers(0, 20), st.integers(0, 20))
    | st.tuples(st.just("close"), st.integers(0, 40), st.integers(0, 40))
    | st.tuples(st.just("wait"), waits_ms, clock_steps),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(accounts, steps, st.data())
def test_any_history(
    shared: tuple[State, Spool, Rings],
    account: list[tuple[int, int, int, int]],
    steps: list[tuple[str, int, int]],
    data: st.DataObject,
) -> None:
    state, spool, rings = shared
    cells = [int.from_bytes(os.urandom(8)) for _ in account]
    limits = [(b"limit", cell, *limit) for cell, limit in zip(cells, account, strict=True)]
    ours = Account(state, limits, *NAMES)
    theirs = oracle.Account([oracle.Limit(*limit) for limit in account])
    now, wall = 10**15, START
    open_entries: list[tuple[Entry, oracle.Entry, int]] = []
    for what, a, b in steps:
        if what == "wait":
            now, wall = now + a * 10**6, wall + a * 10**6 + b
        elif what == "admit":
            got = spool.admit(ours, b"/chat", b"tiny", b"id", a, b, now, wall)
            wanted = theirs.admit(a, b, now, wall)
            if isinstance(wanted, tuple):
                assert isinstance(got, Refusal)
                assert (got.index, got.wait_ns, got.never) == wanted
                check_headers(got, oracle.headers(theirs.limits, got.index, now, wall))
            else:
                assert isinstance(got, Entry)
                check_headers(got, oracle.headers(theirs.limits, None, now, wall))
                open_entries.append((got, wanted, now))
        elif open_entries:
            entry, twin, began = open_entries.pop(a % len(open_entries))
            reached = data.draw(st.booleans())
            close(entry, a, b, FLAG_BACKEND if reached else 0, (now - began) / 1e6)
            twin.close(a, b, reached, now)
        standing = [(used, resets) for _, _, _, _, used, resets in ours.standing(now, wall)]
        assert standing == [limit.standing(now, wall) for limit in theirs.limits]
    for entry, _, _ in open_entries:
        close(entry, 0, 0, 0, 0)
    while rings.take(1000):
        rings.free()


def check_headers(told: Entry | Refusal, expected: dict[str, str]) -> None:
    assert {name.decode(): value.decode() for name, value in told.headers} == expected
    assert told.header_lines == b"".join(b"%s: %s\r\n" % line for line in told.headers)


def close(entry: Entry, tokens: int, nano_usd: int, flags: int, ms: float) -> None:
    entry.close(OUTCOME_ANSWERED, 200, b"one", Usage(tokens // 2, tokens - tokens // 2), nano_usd, flags, ms, -1, b"")


moments = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))
MONTH_ENDS = [
    datetime(2000, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2000, 2, 29, tzinfo=UTC),
    datetime(2000, 3, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
    datetime(2028, 2, 29, 23, tzinfo=UTC),
    datetime(2100, 2, 28, 23, 59, tzinfo=UTC),
    datetime(2100, 3, 1, tzinfo=UTC),
]


def check_windows(state: State, moment: datetime) -> None:
    wall = (moment - oracle.EPOCH) // timedelta(microseconds=1) * 1000
    limits = [(b"limit", int.from_bytes(os.urandom(8)), MEASURE_REQUESTS, window, 0, 1) for window in CALENDAR]
    for limit, (*_, resets_in) in zip(limits, Account(state, limits, *NAMES).standing(0, wall), strict=True):
        window = limit[3]
        assert wall + resets_in == oracle.window_end_ns(window, oracle.window_start(window, wall))


@settings(max_examples=500, deadline=None)
@given(moments)
def test_windows_end_when_datetime_says(shared: tuple[State, Spool, Rings], moment: datetime) -> None:
    check_windows(shared[0], moment)


@pytest.mark.parametrize("moment", MONTH_ENDS, ids=str)
def test_windows_at_month_ends(shared: tuple[State, Spool, Rings], moment: datetime) -> None:
    check_windows(shared[0], moment)


@given(moments)
def test_rows_tell_the_time_as_datetime_does(moment: datetime) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = State(str(Path(folder) / "state.shm"), b"boot", 64)
        spool, rings = Spool(folder, state, 4), Rings(folder, state)
        wall = (moment - oracle.EPOCH) // timedelta(microseconds=1) * 1000
        entry = spool.book(Account(state, [], *NAMES), b"", b"", b"", wall)
        assert entry
        close(entry, 0, 0, 0, 0)
        told = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=None)
        assert rings.take(1)[0][-1] == told.isoformat(" ", "milliseconds")
