"""State, Limits and Account in one process: what is admitted, given back, told and swept."""

import threading
from pathlib import Path

import pytest

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
    Limits,
    Refusal,
    Spool,
    State,
    StateFull,
    Usage,
)

SECOND = 10**9
HOUR = 3_600 * SECOND
NOW = 10**15
WALL = 500_000 * HOUR  # 2027-01-15 08:00
NAMES = (b"key", b"tenant", b"user", b"free")
CALENDAR = [WINDOW_HOUR, WINDOW_DAY, WINDOW_MONTH]

REQUESTS = (b"requests_per_hour", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 3)
LLM_REQUESTS = (b"llm_requests_per_day", 2, MEASURE_LLM_REQUESTS, WINDOW_DAY, 0, 3)
TOKENS = (b"tokens_per_minute", 3, MEASURE_TOKENS, WINDOW_BUCKET, 60 * SECOND, 600)
MONEY = (b"usd_per_month", 4, MEASURE_NANO_USD, WINDOW_MONTH, 0, 10**9)
IN_FLIGHT = (b"in_flight", 5, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 2)
METER = (b"", 6, MEASURE_NANO_USD, WINDOW_DAY, 0, UNLIMITED)
ALL = [REQUESTS, LLM_REQUESTS, TOKENS, MONEY, IN_FLIGHT, METER]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(str(tmp_path / "state.shm"), b"boot", 1024)


@pytest.fixture
def spool(tmp_path: Path, state: State) -> Spool:
    return Spool(str(tmp_path / "spool"), state, 64)


def admit(spool: Spool, account: Account, tokens: int = 0, nano_usd: int = 0, after: int = 0) -> Entry | Refusal:
    admitted = spool.admit(account, b"/chat", b"tiny", b"id", tokens, nano_usd, NOW + after, WALL + after)
    assert admitted is not None
    return admitted


def opened(admitted: Entry | Refusal) -> Entry:
    assert isinstance(admitted, Entry)
    return admitted


def refused(admitted: Entry | Refusal) -> Refusal:
    assert isinstance(admitted, Refusal)
    return admitted


def close(entry: Entry, tokens: int = 0, nano_usd: int = 0, flags: int = FLAG_BACKEND, ms: float = 0) -> None:
    entry.close(OUTCOME_ANSWERED, 200, b"one", Usage(tokens, 0), nano_usd, flags, ms, -1, b"")


def used(account: Account, after: int = 0) -> list[int]:
    return [line[4] for line in account.standing(NOW + after, WALL + after)]


def test_admits_from_all_limits_and_settles_them(state: State, spool: Spool) -> None:
    account = Account(state, ALL, *NAMES)
    entry = opened(admit(spool, account, 100, 10**8))
    assert used(account) == [1, 1, 100, 10**8, 1, 10**8]
    close(entry, 30, 5 * 10**7)
    assert used(account) == [1, 1, 30, 5 * 10**7, 0, 5 * 10**7]
    close(entry, 0, 0)
    assert used(account) == [1, 1, 30, 5 * 10**7, 0, 5 * 10**7]


def test_takes_nothing_where_one_refuses(state: State, spool: Spool) -> None:
    account = Account(state, ALL, *NAMES)
    entries = [opened(admit(spool, account, 10, 10)) for _ in range(2)]
    before = used(account)
    refusal = refused(admit(spool, account, 10, 10))
    assert (refusal.index, refusal.wait_ns, refusal.never) == (4, SECOND, False)
    assert used(account) == before
    close(entries[0])
    opened(admit(spool, account, 10, 10))
    assert refused(admit(spool, account)).index == 1


def test_the_longest_wait_is_told_and_enough(state: State, spool: Spool) -> None:
    account = Account(state, [TOKENS, REQUESTS, LLM_REQUESTS], *NAMES)
    for _ in range(3):
        close(opened(admit(spool, account, 200)), 200)
    refusal = refused(admit(spool, account, 200))
    assert (refusal.index, refusal.wait_ns) == (2, 16 * HOUR)
    assert isinstance(admit(spool, account, 200, after=refusal.wait_ns - 1), Refusal)
    opened(admit(spool, account, 200, after=refusal.wait_ns))


def test_a_bucket_flows_back_evenly(state: State, spool: Spool) -> None:
    account = Account(state, [TOKENS], *NAMES)
    opened(admit(spool, account, 600))
    refusal = refused(admit(spool, account, 10))
    assert refusal.wait_ns == SECOND
    opened(admit(spool, account, 10, after=SECOND))
    assert refused(admit(spool, account, 1, after=SECOND)).wait_ns == SECOND // 10


def test_worst_case_above_the_limit_is_never(state: State, spool: Spool) -> None:
    account = Account(state, ALL, *NAMES)
    refusal = refused(admit(spool, account, 601, 10**9 + 1))
    assert (refusal.index, refusal.never, refusal.wait_ns) == (2, True, 0)
    assert (b"x-ratelimit-limit", b"600") in refusal.headers


def test_llm_request_counts_only_with_a_backend(state: State, spool: Spool) -> None:
    account = Account(state, [REQUESTS, LLM_REQUESTS], *NAMES)
    close(opened(admit(spool, account)), flags=0)
    close(opened(admit(spool, account)))
    assert used(account) == [2, 1]


def test_more_than_reserved_is_charged(state: State, spool: Spool) -> None:
    account = Account(state, [TOKENS, MONEY], *NAMES)
    close(opened(admit(spool, account, 100, 10)), 900, 2 * 10**9)
    assert used(account) == [900, 2 * 10**9]
    assert refused(admit(spool, account, 1, 1)).index == 1


@pytest.mark.parametrize("window", CALENDAR)
def test_settling_after_the_window_changes_nothing(state: State, spool: Spool, window: int) -> None:
    account = Account(state, [(b"tokens", 9, MEASURE_TOKENS, window, 0, 1000)], *NAMES)
    early = opened(admit(spool, account, 100))
    later = 31 * 24 * HOUR
    opened(admit(spool, account, 7, after=later))
    close(early, 0)
    assert used(account, later) == [7]


@pytest.mark.parametrize("window", CALENDAR)
@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_clock_step_admits_nothing_twice(state: State, spool: Spool, window: int, step: int) -> None:
    """Whatever the clock does, what was used in the newest window reached stays used, and waits stay true."""
    account = Account(state, [(b"requests", 9, MEASURE_REQUESTS, window, 0, 5)], *NAMES)
    close(opened(admit(spool, account, after=max(step, 0))))
    for _ in range(4):
        close(opened(admit(spool, account, after=min(step, 0))))
    refusal = refused(admit(spool, account, after=0 if step > 0 else step))
    at = (0 if step > 0 else step) + refusal.wait_ns
    assert isinstance(admit(spool, account, after=at - 1), Refusal)
    opened(admit(spool, account, after=at))


def test_meters_never_refuse(state: State, spool: Spool) -> None:
    account = Account(state, [METER], *NAMES)
    assert not account.has_money
    assert opened(admit(spool, account, 0, 10**18)).headers == []
    opened(admit(spool, account, 0, 10**18))
    assert used(account) == [2**48 - 2]


def test_has_tokens_and_money(state: State) -> None:
    told = [(account.has_tokens, account.has_money) for account in (Account(state, [limit], *NAMES) for limit in ALL)]
    assert told == [(False, False), (False, False), (True, False), (False, True), (False, False), (False, False)]


def test_accounts_with_one_cell_share_it(state: State, spool: Spool) -> None:
    first, second = Account(state, [REQUESTS], *NAMES), Account(state, [(*REQUESTS[:5], 100)], *NAMES)
    opened(admit(spool, first))
    opened(admit(spool, second))
    assert used(first) == used(second) == [2]


def test_two_limits_of_an_account_with_one_cell_both_take(state: State, spool: Spool) -> None:
    """The second meets a cell that has changed since it was looked at."""
    twice = [(*TOKENS[:5], 600), (b"", *TOKENS[1:5], 600)]
    account = Account(state, twice, *NAMES)
    opened(admit(spool, account, 100))
    assert used(account) == [200, 200]
    opened(admit(spool, account, 100))
    opened(admit(spool, account, 100))
    assert used(account) == [600, 600]
    assert isinstance(admit(spool, account, 1), Refusal)


def test_what_the_first_took_may_leave_nothing_for_the_second(state: State, spool: Spool) -> None:
    account = Account(state, [TOKENS, TOKENS], *NAMES)
    assert isinstance(admit(spool, account, 400), Refusal)
    assert used(account) == [0, 0]


def test_headers_tell_of_the_tightest(state: State, spool: Spool) -> None:
    account = Account(state, ALL, *NAMES)
    assert opened(admit(spool, account, 60, 1)).headers == [
        (b"x-ratelimit-limit", b"3"),
        (b"x-ratelimit-remaining", b"2"),
        (b"x-ratelimit-reset", str((WALL + HOUR) // SECOND).encode()),
        (
            b"ratelimit-policy",
            b'"requests_per_hour";q=3;w=3600, "llm_requests_per_day";q=3;w=86400, '
            b'"tokens_per_minute";q=600;qu="tokens";w=60, "usd_per_month";q=1000000000;qu="nano-usd";w=2678400, '
            b'"in_flight";q=2;qu="concurrent-requests"',
        ),
        (b"ratelimit", b'"requests_per_hour";r=2;t=3600'),
    ]
    only = Account(state, [IN_FLIGHT], *NAMES)
    assert (b"ratelimit", b'"in_flight";r=0;t=0') in opened(admit(spool, only)).headers


def test_limits_without_a_record(state: State) -> None:
    second = (b"per_s", 7, MEASURE_REQUESTS, WINDOW_BUCKET, SECOND, 2)
    quarter = (b"per_15min", 8, MEASURE_REQUESTS, WINDOW_BUCKET, 900 * SECOND, 3)
    limits = Limits(state, [second, quarter])
    assert [limits.take(NOW, WALL) for _ in range(3)] == [0, 0, SECOND // 2]
    assert limits.take(NOW + SECOND // 2, WALL) == 0
    assert limits.take(NOW + SECOND, WALL) == 299 * SECOND
    assert limits.take(NOW + 300 * SECOND, WALL) == 0
    assert Limits(state, []).take(NOW, WALL) == 0


@pytest.mark.parametrize(
    "limit",
    [
        (b"", 1, 9, WINDOW_HOUR, 0, 1),
        (b"", 1, MEASURE_REQUESTS, 9, 0, 1),
        (b"", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, -2),
        (b"", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 2**48),
        (b"", 1, MEASURE_REQUESTS, WINDOW_BUCKET, 0, 1),
        (b"", 1, MEASURE_REQUESTS, WINDOW_BUCKET, SECOND, UNLIMITED),
        (b"", 1, MEASURE_REQUESTS, WINDOW_NONE, 0, 1),
        (b"", 1, MEASURE_IN_FLIGHT, WINDOW_HOUR, 0, 1),
    ],
)
def test_limits_that_make_no_sense(state: State, limit: tuple[bytes, int, int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        Account(state, [limit], *NAMES)


def test_at_most_16_limits_and_none_in_flight_without_a_record(state: State) -> None:
    with pytest.raises(ValueError):
        Account(state, [REQUESTS] * 17, *NAMES)
    with pytest.raises(ValueError):
        Limits(state, [IN_FLIGHT])


def test_one_cell_has_one_window(state: State) -> None:
    assert Limits(state, [REQUESTS]).take(NOW, WALL) == 0
    with pytest.raises(ValueError):
        Limits(state, [(*REQUESTS[:3], WINDOW_DAY, 0, 3)]).take(NOW, WALL)


@pytest.mark.parametrize("cell", [0, 1, 2, 2**63, 2**64 - 1])
def test_any_cell_number_will_do(state: State, cell: int) -> None:
    limits = Limits(state, [(b"", cell, MEASURE_REQUESTS, WINDOW_HOUR, 0, 2)])
    assert [limits.take(NOW, WALL) for _ in range(3)] == [0, 0, HOUR]
    assert state.used(cell, WINDOW_HOUR, WALL) == 2


def test_seeded_amounts_count(state: State, spool: Spool) -> None:
    state.seed(4, WINDOW_MONTH, WALL, 10**9 - 5)
    account = Account(state, [MONEY], *NAMES)
    assert state.used(4, WINDOW_MONTH, WALL) == 10**9 - 5
    assert isinstance(admit(spool, account, 0, 6), Refusal)
    opened(admit(spool, account, 0, 5))
    assert state.used(4, WINDOW_MONTH, WALL + 31 * 24 * HOUR) == 0
    with pytest.raises(ValueError):
        state.seed(4, WINDOW_BUCKET, WALL, 1)


def test_a_full_table_says_so_until_it_is_swept(tmp_path: Path) -> None:
    state = State(str(tmp_path / "small"), b"boot", 64)

    def take(cell: int, now: int = NOW) -> int:
        return Limits(state, [(b"", cell, MEASURE_REQUESTS, WINDOW_BUCKET, SECOND, 1)]).take(now, WALL)

    for cell in range(100, 156):
        assert take(cell) == 0
    with pytest.raises(StateFull):
        take(200)
    assert state.cells_used == 56
    assert state.sweep(NOW, WALL) == 0
    assert state.sweep(NOW + SECOND, WALL) == 56
    assert state.cells_used == 0
    assert take(200) == 0


def test_sweep_keeps_what_counts(state: State, spool: Spool) -> None:
    account = Account(state, ALL, *NAMES)
    entry = opened(admit(spool, account, 600, 10**9))
    assert state.sweep(NOW + 59 * SECOND, WALL + 59 * SECOND) == 0
    assert state.sweep(NOW + 60 * SECOND, WALL + HOUR) == 1, "the bucket; calendars have two hours of grace"
    assert state.sweep(NOW + 60 * SECOND, WALL + 3 * HOUR) == 1
    close(entry, 600, 10**9, ms=60_000)
    assert state.sweep(NOW + 60 * SECOND, WALL + 3 * HOUR) == 1, "nothing is in flight any more"
    assert used(account, 3 * HOUR) == [0, 1, 0, 10**9, 0, 10**9]
    assert state.sweep(NOW + 60 * SECOND, WALL + 40 * 24 * HOUR) == 3
    assert state.cells_used == 0
    opened(admit(spool, account, 600, 10**9))
    assert used(account) == [1, 1, 600, 10**9, 1, 10**9]


def test_notes_are_never_torn(state: State) -> None:
    notes = [bytes([65 + n]) * (n * 36) for n in range(15)]
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(state.note)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(20_000):
        state.note = notes[n % 15]
    stop.set()
    for reader in readers:
        reader.join()
    assert seen <= {*notes, b""}
    with pytest.raises(ValueError):
        state.note = b"x" * 513


def test_small_facts(tmp_path: Path, state: State) -> None:
    other = State(str(tmp_path / "state.shm"), b"boot")
    assert (state.fresh, other.fresh) == (True, False)
    before = state.keys_generation
    assert state.bump_keys() == before + 1 == other.keys_generation
    assert state.beaten_ns == 0
    state.beat(NOW)
    assert other.beaten_ns == NOW
    assert other.note == b""
    state.note = b"full disk"
    assert other.note == b"full disk"
