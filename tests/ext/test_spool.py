"""The spool: rows as they were written, full rings, dead owners, and files that are not what they should be."""

import os
import random
import struct
from pathlib import Path

import pytest

from penstock.ext import (
    COLUMNS,
    FLAG_BACKEND,
    FLAG_CACHED,
    FLAG_ESTIMATED,
    MEASURE_IN_FLIGHT,
    MEASURE_LLM_REQUESTS,
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    OUTCOME_ANSWERED,
    OUTCOME_CANCELLED,
    OUTCOME_LOST,
    OUTCOME_REFUSED,
    WINDOW_BUCKET,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_NONE,
    Account,
    Entry,
    Rings,
    Spool,
    State,
    Usage,
)

HOUR = 3_600 * 10**9
NOW = 10**15
WALL = 500_000 * HOUR + 123_456_789
NAMES = (b"key_1", b"tenant", b"user", b"free")
LIMITS = [
    (b"requests_per_hour", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 100),
    (b"llm_requests_per_day", 2, MEASURE_LLM_REQUESTS, WINDOW_DAY, 0, 100),
    (b"tokens_per_minute", 3, MEASURE_TOKENS, WINDOW_BUCKET, 60 * 10**9, 6_000),
    (b"tokens_per_day", 4, MEASURE_TOKENS, WINDOW_DAY, 0, 10**6),
    (b"usd_per_day", 5, MEASURE_NANO_USD, WINDOW_DAY, 0, 10**9),
    (b"in_flight", 6, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 100),
]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(str(tmp_path / "state.shm"), b"boot", 1024)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "spool")


def admit(spool: Spool, account: Account, request_id: bytes = b"req-1", tokens: int = 100) -> Entry:
    entry = spool.admit(account, b"/v1/chat", b"tiny", request_id, tokens, 1_000, NOW, WALL)
    assert isinstance(entry, Entry)
    return entry


def close(entry: Entry, outcome: int = OUTCOME_ANSWERED, flags: int = FLAG_BACKEND, error: bytes = b"") -> None:
    entry.close(outcome, 200, b"one", Usage(12, 9, 4, 3), 250, flags, 12.5, 3.25, error)


def rows(rings: Rings, limit: int = 1_000) -> list[dict[str, object]]:
    taken = [dict(zip(COLUMNS, row, strict=True)) for row in rings.take(limit)]
    rings.free()
    return taken


def test_a_row_tells_all(state: State, folder: str) -> None:
    close(admit(Spool(folder, state, 8), Account(state, LIMITS, *NAMES)), flags=FLAG_BACKEND | FLAG_ESTIMATED)
    (row,) = rows(Rings(folder, state))
    assert isinstance(row.pop("id"), int)
    assert row == {
        "request_id": "req-1",
        "api_key_id": "key_1",
        "tenant_id": "tenant",
        "user_id": "user",
        "tier": "free",
        "endpoint": "/v1/chat",
        "model_used": "tiny",
        "backend": "one",
        "prompt_tokens": 12,
        "completion_tokens": 9,
        "cached_tokens": 4,
        "reasoning_tokens": 3,
        "total_tokens": 21,
        "usage_estimated": 1,
        "cost_usd": 2.5e-07,
        "cost_nano_usd": 250,
        "llm_request": 1,
        "response_cached": 0,
        "response_time_ms": 12.5,
        "ttft_ms": 3.25,
        "status_code": 200,
        "outcome": "answered",
        "error_message": None,
        "created_at": "2027-01-15 08:00:00.123",
    }


def test_a_booked_row_holds_nothing(state: State, folder: str) -> None:
    spool, account = Spool(folder, state, 8), Account(state, LIMITS, b"key_2", b"", b"", b"")
    entry = spool.book(account, b"/v1/chat", b"", b"req-2", WALL)
    assert entry is not None
    assert entry.headers == []
    assert entry.header_lines == b""
    entry.close(OUTCOME_REFUSED, 429, b"", None, 0, FLAG_CACHED, -1, float("nan"), b"requests_per_hour")
    (row,) = rows(Rings(folder, state))
    told = ("api_key_id", "tenant_id", "model_used", "ttft_ms", "response_time_ms", "llm_request", "response_cached")
    assert [row[name] for name in told] == ["key_2", None, None, None, None, 0, 1]
    assert (row["outcome"], row["status_code"], row["error_message"]) == ("refused", 429, "requests_per_hour")
    assert [line[4] for line in account.standing(NOW, WALL)] == [0] * 6


def test_long_texts_are_cut_at_a_character(state: State, folder: str) -> None:
    spool = Spool(folder, state, 8)
    long = "ä€😀" * 200
    limits = [(b"", 100 + n, MEASURE_REQUESTS, WINDOW_HOUR, 0, 10) for n in range(16)]
    for account in (Account(state, [], *[long.encode()] * 4), Account(state, limits, *[long.encode()] * 4)):
        entry = spool.admit(account, long.encode(), long.encode(), long.encode(), 0, 0, NOW, WALL)
        assert isinstance(entry, Entry)
        entry.close(OUTCOME_CANCELLED, 499, long.encode(), Usage(1, 2), 3, 0, 1, 1, long.encode())
    for row in rows(Rings(folder, state)):
        for name in COLUMNS[1:9]:
            assert long.startswith(str(row[name] or ""))
        assert (row["prompt_tokens"], row["cost_nano_usd"], row["status_code"]) == (1, 3, 499)
        assert row["api_key_id"]


def test_bytes_that_are_no_text(state: State, folder: str) -> None:
    spool = Spool(folder, state, 8)
    close(admit(spool, Account(state, LIMITS, *NAMES), b"\xff\x00\xfe"), error=b"\x80" * 300)
    (row,) = rows(Rings(folder, state))
    assert row["request_id"] == "\ufffd\x00\ufffd"


def test_absurd_numbers(state: State, folder: str) -> None:
    account = Account(state, LIMITS, *NAMES)
    entry = admit(Spool(folder, state, 8), account)
    with pytest.raises(ValueError):
        entry.close(9, 200, b"", None, 0, 0, 0, 0, b"")
    huge = 2**63 - 1
    entry.close(OUTCOME_ANSWERED, 10**6, b"", Usage(huge, huge, 5, huge), huge, 255, float("inf"), -1, b"")
    (row,) = rows(Rings(folder, state))
    assert (row["prompt_tokens"], row["total_tokens"], row["cached_tokens"], row["status_code"]) == (huge, huge, 5, 0)
    assert row["response_time_ms"] is None
    assert [line[4] for line in account.standing(NOW, WALL)][3:] == [2**48 - 2, 2**48 - 2, 0]


def test_a_full_ring_admits_nothing_until_it_is_drained(state: State, folder: str) -> None:
    spool, account, rings = Spool(folder, state, 4), Account(state, LIMITS, *NAMES), Rings(folder, state)
    entries = [admit(spool, account) for _ in range(4)]
    assert spool.free == 0
    used = account.standing(NOW, WALL)
    assert spool.admit(account, b"/v1/chat", b"tiny", b"id", 1, 1, NOW, WALL) is None
    assert spool.book(account, b"/v1/chat", b"tiny", b"id", WALL) is None
    assert account.standing(NOW, WALL) == used
    close(entries[2])
    assert (rings.waiting, rings.open, rings.capacity, rings.owned) == (1, 3, 4, 1)
    assert len(rings.take(10)) == 1
    assert spool.book(account, b"/v1/chat", b"tiny", b"id", WALL) is None, "taken is not stored"
    assert len(rings.take(10)) == 1, "what was not stored comes again"
    rings.free()
    assert spool.free == 1
    close(admit(spool, account))


def test_rows_of_all_rings_in_turn(state: State, folder: str) -> None:
    account, rings = Account(state, [], *NAMES), Rings(folder, state)
    spools = [Spool(folder, state, 512) for _ in range(3)]
    assert [spool.number for spool in spools] == [0, 1, 2]
    for number, spool in enumerate(spools):
        for _ in range(200):
            close(admit(spool, account, b"%d" % number))
    taken = rows(rings, 300)
    assert [sum(row["request_id"] == str(n) for row in taken) for n in range(3)] == [128, 108, 64]
    while more := rows(rings, 100):
        taken += more
    assert len({row["id"] for row in taken}) == len(taken) == 600
    assert rings.take(0) == []


def test_a_new_owner_settles_what_a_dead_one_left(state: State, folder: str) -> None:
    account = Account(state, LIMITS, *NAMES)
    spool = Spool(folder, state, 64)
    entries = [admit(spool, account, b"%d" % n) for n in range(10)]
    close(entries[3])
    assert Spool(folder, state, 64).number == 1, "the ring of a living owner is not taken"
    del spool, entries
    state.beat(NOW)
    again = Spool(folder, state, 64)
    assert (again.number, again.recovered, again.free) == (0, 9, 54)
    assert [line[4] for line in account.standing(NOW, WALL)] == [10, 10, 21, 21, 250, 0]
    told = rows(Rings(folder, state))
    assert sorted((row["outcome"], row["status_code"]) for row in told) == [("answered", 200)] + [("lost", 0)] * 9
    assert {row["llm_request"] for row in told} == {1}


def test_the_drainer_settles_what_a_dead_owner_left(state: State, folder: str) -> None:
    account, rings = Account(state, LIMITS, *NAMES), Rings(folder, state)
    spool = Spool(folder, state, 64)
    entries = [admit(spool, account) for _ in range(5)]
    assert rows(rings) == [], "their owner lives"
    del spool, entries
    state.beat(NOW)
    assert [row["outcome"] for row in rows(rings)] == ["lost"] * 5
    assert [line[4] for line in account.standing(NOW, WALL)] == [5, 5, 0, 0, 0, 0]
    assert (rings.owned, rings.open, Spool(folder, state, 64).recovered) == (0, 0, 0)


SETTLING = 3
INTENT, HELD, RELEASING = 1, 2, 3


def poke(folder: str, at: int, byte: int) -> None:
    """Writes a byte of a ring of 64 records as its owner would have, had it died just there."""
    with open(f"{folder}/000.ring", "r+b") as ring:
        ring.seek(at)
        ring.write(bytes([byte]))


def state_at(slot: int) -> int:
    return 4096 + slot


def flag_at(slot: int, hold: int) -> int:
    return 8192 + slot * 1024 + (15 + hold * 5) * 8


def test_a_begun_settling_is_finished_with_its_own_facts(state: State, folder: str) -> None:
    account, spool = Account(state, LIMITS, *NAMES), Spool(folder, state, 64)
    close(admit(spool, account))
    settled = [line[4] for line in account.standing(NOW, WALL)]
    poke(folder, state_at(0), SETTLING)
    # As if tokens_per_day and in_flight had not had their turn: recovery gives both back once more, and only these.
    poke(folder, flag_at(0, 3), HELD)
    poke(folder, flag_at(0, 5), HELD)
    other = [admit(spool, account) for _ in range(2)]
    del spool
    before = [line[4] for line in account.standing(NOW, WALL)]
    assert before == [3, 3, settled[2] + 200, settled[3] + 200, settled[4] + 2_000, 2]
    del other
    state.beat(NOW)
    assert Spool(folder, state, 64).recovered == 3
    (row,) = [row for row in rows(Rings(folder, state)) if row["outcome"] == "answered"]
    assert (row["total_tokens"], row["cost_nano_usd"], row["request_id"]) == (21, 250, "req-1")
    assert [line[4] for line in account.standing(NOW, WALL)] == [3, 3, 21, 0, 250, 0]


@pytest.mark.parametrize("flag", [INTENT, RELEASING])
def test_a_hold_in_doubt_stays_taken_until_it_is_reconciled(state: State, folder: str, flag: int) -> None:
    account, spool = Account(state, LIMITS, *NAMES), Spool(folder, state, 64)
    entry = admit(spool, account)
    poke(folder, flag_at(0, 5), flag)
    assert state.reconcile(folder) == 0, "its record is open"
    del spool, entry
    assert Spool(folder, state, 64).recovered == 1
    assert state.used(6, WINDOW_NONE, WALL) == 1
    assert state.reconcile(folder) == 1
    assert state.used(6, WINDOW_NONE, WALL) == 0


def test_what_was_held_in_another_state_is_not_given_back(tmp_path: Path, folder: str) -> None:
    """After a reboot the cells are seeded with what rows say: that never held what was reserved."""
    before = State(str(tmp_path / "state.shm"), b"boot")
    spool = Spool(folder, before, 64)
    admit(spool, Account(before, LIMITS, *NAMES))
    del spool
    state = State(str(tmp_path / "state.shm"), b"another boot")
    assert state.fresh
    state.seed(4, WINDOW_DAY, WALL, 500)
    assert Spool(folder, state, 64).recovered == 1
    assert state.used(4, WINDOW_DAY, WALL) == 500
    assert state.keys_generation > before.keys_generation


def test_ids_go_on_after_a_reboot_with_the_clock_behind(tmp_path: Path, folder: str) -> None:
    seen: list[object] = []
    for boot, wall in [(b"one", WALL), (b"two", WALL - 1_000 * HOUR), (b"three", WALL)]:
        state = State(str(tmp_path / "state.shm"), boot)
        spool = Spool(folder, state, 64)
        for _ in range(5):
            entry = spool.book(Account(state, [], *NAMES), b"", b"", b"", wall)
            assert entry is not None
            close(entry)
        seen += [row["id"] for row in rows(Rings(folder, state))]
    assert len({int(str(number)) // 1024 for number in seen}) == 15
    assert all(0 < int(str(number)) < 2**63 for number in seen)


def test_reconcile_keeps_what_is_open(state: State, folder: str) -> None:
    account, spool = Account(state, LIMITS, *NAMES), Spool(folder, state, 64)
    entries = [admit(spool, account) for _ in range(3)]
    assert state.reconcile(folder) == 0
    os.remove(f"{folder}/000.ring")
    assert state.reconcile(folder) == 1
    assert state.used(6, WINDOW_NONE, WALL) == 0
    for entry in entries:
        close(entry)
    assert state.used(6, WINDOW_NONE, WALL) == 0


BROKEN = {
    "empty": lambda data: b"",
    "short": lambda data: data[:100],
    "truncated": lambda data: data[:-1],
    "foreign": lambda data: b"#!/bin/sh\n" * 1_000,
    "zeros": lambda data: bytes(len(data)),
    "huge count": lambda data: data[:8] + struct.pack("<Q", 2**62) + data[16:],
    "count 0": lambda data: data[:8] + bytes(8) + data[16:],
    "count 3": lambda data: data[:8] + struct.pack("<Q", 3) + data[16:],
    "more than there is": lambda data: data[:8] + struct.pack("<Q", 2**22) + data[16:],
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_files_are_made_anew(tmp_path: Path, folder: str, how: str) -> None:
    path, ring = tmp_path / "state.shm", Path(folder) / "000.ring"
    State(str(path), b"boot", 1024)
    Spool(folder, State(str(path), b"boot"), 64)
    for file in (path, ring):
        file.write_bytes(BROKEN[how](file.read_bytes()))
    state = State(str(path), b"boot", 1024)
    assert state.fresh
    assert Rings(folder, state).take(10) == []
    close(admit(Spool(folder, state, 64), Account(state, LIMITS, *NAMES)))
    assert len(rows(Rings(folder, state))) == 1
    assert (path.stat().st_mode & 0o777, ring.stat().st_mode & 0o777) == (0o600, 0o600)
    assert ring.stat().st_blocks * 512 >= ring.stat().st_size, "a hole would be a SIGBUS on a full disk"


@pytest.mark.parametrize("seed", range(20))
def test_garbage_behind_the_headers_harms_nobody(tmp_path: Path, folder: str, seed: int) -> None:
    rng = random.Random(seed)
    path, ring = tmp_path / "state.shm", Path(folder) / "000.ring"
    state = State(str(path), b"boot", 64)
    spool, account = Spool(folder, state, 64), Account(state, LIMITS, *NAMES)
    kept = [admit(spool, account) for _ in range(8)]
    del spool, kept
    for file in (path, ring):
        data = bytearray(file.read_bytes())
        states = range(4096, 4096 + 64)
        for _ in range(400):
            data[rng.choice(states) if rng.random() < 0.3 else rng.randrange(4096, len(data))] = rng.choice(
                (0, 1, 2, 3, 255, 77)
            )
        file.write_bytes(data)
    again = State(str(path), b"boot", 64)
    spool = Spool(folder, again, 64)
    rings = Rings(folder, again)
    assert len(rings.take(1_000)) == rings.waiting
    rings.free()
    again.reconcile(folder)
    again.sweep(NOW, WALL)
    assert spool.free == 64


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state.shm"
    {"folder": os.mkdir, "pipe": os.mkfifo, "link": lambda path: os.symlink("/dev/zero", path)}[kind](path)
    with pytest.raises(OSError):
        State(str(path), b"boot")


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        State(str(tmp_path / "nowhere" / "state.shm"), b"boot")
    state = State(str(tmp_path / "state.shm"), b"boot")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Spool(str(tmp_path / "file"), state)
    assert Rings(str(tmp_path / "nowhere"), state).take(1) == []


def test_outcomes() -> None:
    assert (OUTCOME_ANSWERED, OUTCOME_REFUSED, OUTCOME_CANCELLED, OUTCOME_LOST) == (0, 1, 3, 4)
