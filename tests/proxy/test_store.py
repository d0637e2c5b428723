"""The SQLite store: rows once each, keys with their revisions, sums and reports; and databases in a bad way."""

import os
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import NOW, key, row

from penstock.proxy.store import COLUMNS, Alert, KeyChange, KeyExists, KeyRecord, Report, StoreError, Sums, Trouble
from penstock.proxy.store.sqlite import CHUNK, SqliteStore
from penstock.proxy.store.windows import end, instant, month_bounds, starts, text

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "penstock.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(path, busy_s=0.05)
    made.migrate()
    yield made
    made.close()


def count(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT count(*) FROM ai_usage_logs").fetchone()[0]
    connection.close()
    return int(found)


# --- windows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "hour", "day", "month"),
    [
        ("2026-11-21 08:05:00.250", "2026-11-21 09:00", "2026-11-22 00:00", "2026-12-01 00:00"),
        ("2026-12-31 23:59:59.999", "2027-01-01 00:00", "2027-01-01 00:00", "2027-01-01 00:00"),
        ("2028-02-29 00:00:00.000", "2028-02-29 01:00", "2028-03-01 00:00", "2028-03-01 00:00"),
        ("2027-01-31 12:00:00.000", "2027-01-31 13:00", "2027-02-01 00:00", "2027-02-01 00:00"),
    ],
)
def test_windows_end_where_the_next_begins(at: str, hour: str, day: str, month: str) -> None:
    for window, wanted in (("hour", hour), ("day", day), ("month", month)):
        assert text(end(window, instant(at))) == f"{wanted}:00.000"  # type: ignore[arg-type]


def test_text_keeps_the_order_and_the_instant() -> None:
    moments = sorted(random.Random(1).uniform(1.7e9, 1.9e9) for _ in range(1000))
    written = [text(each) for each in moments]
    assert written == sorted(written)
    assert all(abs(instant(each) - moment) < 0.001 for each, moment in zip(written, moments, strict=True))
    assert month_bounds("2026-11") == (instant("2026-11-01"), instant("2026-12-01"))


# --- usage rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [1, 7, 60, 130])
def test_many_rows_are_kept_as_given_however_many_are_alike(store: SqliteStore, path: Path, kinds: int) -> None:
    names = [{"api_key_id": f"key_{kind}" if kind else None, "error_message": None} for kind in range(kinds)]
    rows = [row(each, prompt_tokens=each, ttft_ms=None, **names[each % kinds]) for each in range(1, 2 * CHUNK + 31)]
    assert store.insert_rows(rows[:7]) == 7
    assert store.insert_rows(rows) == len(rows) - 7
    assert store.insert_rows(rows[::-1]) == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute(f"SELECT {', '.join(COLUMNS)} FROM ai_usage_logs ORDER BY id").fetchall() == rows
    connection.close()


def test_rows_are_kept_as_given(store: SqliteStore) -> None:
    rows = [row(1), row(2, error_message="backend_failed", outcome="failed"), row(2**63 - 1, model_used=None)]
    assert store.insert_rows(rows) == 3
    assert list(store.rows_of_month("2026-11")) == rows


def test_a_row_counts_once_however_often_it_is_written(store: SqliteStore) -> None:
    assert store.insert_rows([row(1), row(2)]) == 2
    assert store.insert_rows([row(2, total_tokens=99), row(3), row(3)]) == 1
    assert store.insert_rows([]) == 0
    assert [each[0] for each in store.rows_of_month("2026-11")] == [1, 2, 3]
    assert store.report("user", 0, NOW + 1).total.total_tokens == 45


def test_many_threads_and_two_stores_write_at_once(path: Path) -> None:
    first, second = SqliteStore(path), SqliteStore(path)
    first.migrate()

    def write(store: SqliteStore, number: int) -> None:
        for batch in range(20):
            store.insert_rows([row(number * 1000 + batch * 10 + each) for each in range(10)])

    threads = [threading.Thread(target=write, args=((first, second)[n % 2], n)) for n in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert count(path) == 6 * 200
    first.close()
    second.close()


def test_the_file_is_for_its_owner_only(store: SqliteStore, path: Path) -> None:
    store.insert_rows([row(1)])
    for each in path.parent.glob("penstock.db*"):
        if not each.name.endswith(".lock"):
            assert each.stat().st_mode & 0o077 == 0, each


# --- sums ------------------------------------------------------------------------------------------------


def test_window_sums_by_scope(store: SqliteStore) -> None:
    store.insert_rows(
        [
            row(1, NOW),
            row(2, NOW - HOUR, api_key_id="key_2"),
            row(3, NOW - DAY, user_id="bob"),
            row(4, instant("2026-10-31 23:59:59.999")),
            row(5, NOW, outcome="refused", llm_request=0, total_tokens=0, cost_nano_usd=0),
            row(6, NOW, outcome="failed", llm_request=0, total_tokens=0, cost_nano_usd=0),
            row(7, instant("2026-11-01 00:00:00.000"), api_key_id=None, tier=None),
        ]
    )
    sums = store.window_sums(starts(NOW))
    one = Sums(1, 1, 15, 2_000_000)
    assert sums["key", "key_1"] == (Sums(2, 1, 15, 2_000_000), Sums(2, 1, 15, 2_000_000), Sums(3, 2, 30, 4_000_000))
    assert sums["key", "key_2"] == (Sums(), one, one)
    assert sums["user", "bob"] == (Sums(), Sums(), one)
    assert sums["user", "ada"] == (
        Sums(2, 1, 15, 2_000_000),
        Sums(3, 2, 30, 4_000_000),
        Sums(4, 3, 45, 6_000_000),
    )
    assert sums["tenant", "home"][2] == Sums(5, 4, 60, 8_000_000)
    assert sums["tier", "pro"][2] == Sums(4, 3, 45, 6_000_000)
    assert set(store.window_sums(starts(NOW), "key_2")) == {
        ("key", "key_2"),
        ("user", "ada"),
        ("tenant", "home"),
        ("tier", "pro"),
    }


def test_window_sums_agree_with_counting_by_hand(store: SqliteStore) -> None:
    chance = random.Random(7)
    rows = [
        row(
            number,
            NOW - chance.uniform(0, 40 * DAY),
            api_key_id=f"key_{chance.randrange(5)}",
            user_id=chance.choice(["ada", "bob"]),
            outcome=chance.choice(["answered", "refused", "failed", "lost", "cancelled"]),
            total_tokens=chance.randrange(1000),
            cost_nano_usd=chance.randrange(10**12),
            llm_request=chance.randrange(2),
        )
        for number in range(2000)
    ]
    store.insert_rows(rows)
    found = store.window_sums(starts(NOW))
    for place, began in enumerate(starts(NOW)):
        wanted: Counter[tuple[str, str]] = Counter()
        requests: Counter[tuple[str, str]] = Counter()
        for each in rows:
            if each[24] >= text(began):
                for scope, column in (("key", 2), ("user", 4), ("tenant", 3), ("tier", 5)):
                    wanted[scope, each[column]] += each[16]
                    requests[scope, each[column]] += each[22] != "refused"
        for name, windows in found.items():
            assert (windows[place].nano_usd, windows[place].requests) == (wanted[name], requests[name])


# --- reports ---------------------------------------------------------------------------------------------


def reported(store: SqliteStore, by: Any) -> tuple[list[str], Report]:
    found = store.report(by, NOW - DAY, NOW + 1)
    return [each.name for each in found.lines], found


def test_reports_by_everything(store: SqliteStore) -> None:
    store.insert_rows(
        [
            row(1, model_used="small", cost_nano_usd=1, user_id="bob", endpoint="embeddings", backend="gpu1"),
            row(2, response_cached=1, llm_request=0, cost_nano_usd=0, response_time_ms=2.0),
            row(3, NOW - 10 * HOUR, outcome="failed", response_time_ms=9000.0),
            row(4, outcome="lost"),
            row(5, outcome="refused", model_used=None),
            row(6, outcome="cancelled"),
            row(7, NOW - DAY - 1),
            row(8, NOW + 1),
        ]
    )
    names, found = reported(store, "model")
    assert names == ["smart", "", "small"]
    line = found.lines[0]
    assert (line.requests, line.failed, line.refused, line.cancelled, line.cached) == (4, 2, 0, 1, 1)
    assert (line.prompt_tokens, line.completion_tokens, line.total_tokens) == (40, 20, 60)
    assert (line.average_ms, line.p50_ms, line.p95_ms) == (2.0, 2.0, 2.0)
    assert found.lines[1].average_ms is None
    assert (found.total.requests, found.total.refused, found.total.nano_usd) == (6, 1, 8_000_001)
    assert reported(store, "user")[0] == ["ada", "bob"]
    assert reported(store, "tenant")[0] == ["home"]
    assert reported(store, "key")[0] == ["key_1"]
    assert reported(store, "endpoint")[0] == ["chat", "embeddings"]
    assert reported(store, "backend")[0] == ["cloud", "gpu1"]
    assert reported(store, "day")[0] == ["2026-11-20", "2026-11-21"]
    assert store.report("user", NOW - DAY, NOW + 1, key_id="key_2").total.requests == 0


def test_percentiles_are_the_nearest_rank(store: SqliteStore) -> None:
    times = list(range(1, 101))
    random.Random(3).shuffle(times)
    store.insert_rows([row(each, response_time_ms=float(each)) for each in times])
    total = store.report("user", 0, NOW + 1).total
    assert (total.p50_ms, total.p95_ms, total.average_ms) == (50.0, 95.0, 50.5)


def test_a_report_of_nothing(store: SqliteStore) -> None:
    found = store.report("user", 0, NOW)
    assert found.lines == []
    assert found.total.requests == 0
    assert found.total.p50_ms is None


def test_stats(store: SqliteStore) -> None:
    assert store.stats(NOW).total_requests == 0
    store.insert_rows([row(1), row(2, response_cached=1, response_time_ms=50.0), row(3, outcome="failed")])
    store.create_key(key(1))
    store.create_key(key(2, expires_at=NOW - 1))
    store.create_key(key(3, expires_at=NOW + 1))
    store.create_key(key(4))
    store.revoke_key("key_4", NOW)
    found = store.stats(NOW)
    assert (found.total_requests, found.cache_hit_rate, found.active_api_keys) == (3, 0.5, 2)
    assert (found.avg_response_time_ms, found.total_tokens, found.nano_usd) == (75.0, 45, 6_000_000)
    assert store.stats(NOW, since=NOW + 1).total_requests == 0


# --- keys ------------------------------------------------------------------------------------------------


def test_a_key_comes_back_as_it_was_made(store: SqliteStore) -> None:
    made = key(1, quota_requests_per_hour=50, expires_at=NOW + DAY)
    stored = store.create_key(made)
    assert stored == store.key("key_1") == store.key_by_hash(made.key_hash)
    assert stored.revision == 1
    assert KeyRecord(**{name: getattr(stored, name) for name in stored.__struct_fields__} | {"revision": 0}) == made
    assert store.key("key_2") is None
    assert store.key_by_hash("0" * 64) is None


def test_ids_and_hashes_are_taken_once(store: SqliteStore) -> None:
    store.create_key(key(1))
    for other in (key(1, key_hash="f" * 64), key(2, key_hash=key(1).key_hash)):
        with pytest.raises(KeyExists):
            store.create_key(other)
    store.create_key(key(2))
    with pytest.raises(KeyExists):
        store.rotate_key("key_2", key(1).key_hash, NOW)
    assert [each.id for each in store.all_keys()] == ["key_1", "key_2"]


def test_every_change_has_a_revision_and_workers_fetch_what_is_new(store: SqliteStore) -> None:
    for number in (1, 2, 3):
        store.create_key(key(number))
    assert [each.id for each in store.keys_since(1)] == ["key_2", "key_3"]
    store.revoke_key("key_2", NOW)
    store.change_key("key_1", KeyChange(tier="free"))
    store.rotate_key("key_3", "a" * 64, NOW + HOUR)
    assert [(each.id, each.revision) for each in store.keys_since(3)] == [("key_2", 4), ("key_1", 5), ("key_3", 6)]
    assert store.keys_since(6) == []


def test_revoking(store: SqliteStore) -> None:
    store.create_key(key(1))
    revoked = store.revoke_key("key_1", NOW)
    assert revoked is not None
    assert (revoked.is_active, revoked.revoked_at) == (False, NOW)
    again = store.revoke_key("key_1", NOW + DAY)
    assert again is not None
    assert again.revoked_at == NOW
    assert store.revoke_key("key_9", NOW) is None


def test_rotating_keeps_the_id_and_the_hash_before(store: SqliteStore) -> None:
    before = store.create_key(key(1))
    rotated = store.rotate_key("key_1", "a" * 64, NOW + HOUR)
    assert rotated is not None
    assert (rotated.key_hash, rotated.previous_key_hash) == ("a" * 64, before.key_hash)
    assert rotated.previous_valid_until == NOW + HOUR
    assert store.key_by_hash(before.key_hash) == store.key_by_hash("a" * 64) == rotated
    assert store.rotate_key("key_9", "b" * 64, NOW) is None


def test_changing_sets_what_is_named_and_nothing_else(store: SqliteStore) -> None:
    made = store.create_key(key(1, quota_requests_per_hour=50))
    assert store.change_key("key_1", KeyChange()) == made
    changed = store.change_key("key_1", KeyChange(quota_requests_per_hour=None, expires_at=NOW + 5, key_name="phone"))
    assert changed is not None
    assert (changed.quota_requests_per_hour, changed.expires_at, changed.key_name) == (None, NOW + 5, "phone")
    assert (changed.tier, changed.key_hash) == (made.tier, made.key_hash)
    assert store.change_key("key_9", KeyChange(tier="free")) is None


def test_last_used_is_no_change(store: SqliteStore) -> None:
    made = store.create_key(key(1))
    store.touch_keys({"key_1": text(NOW), "file:laptop": text(NOW)})
    store.touch_keys({"key_1": text(NOW - 5)})
    touched = store.key("key_1")
    assert touched is not None
    assert (touched.last_used_at, touched.revision) == (NOW, made.revision)


# --- alerts ----------------------------------------------------------------------------------------------


def test_alerts_open_once_and_stay_until_they_are_sent(store: SqliteStore) -> None:
    alert = Alert(
        scope="user",
        id="ada",
        window="day",
        window_start=starts(NOW).day,
        percent=80,
        limit_nano_usd=10,
        spent_nano_usd=8,
    )
    other = Alert(
        scope="user",
        id="ada",
        window="day",
        window_start=starts(NOW).day,
        percent=50,
        limit_nano_usd=10,
        spent_nano_usd=8,
    )
    assert store.open_alerts([alert, other]) == [alert, other]
    assert store.open_alerts([alert]) == []
    assert store.unsent_alerts() == [alert, other]
    store.close_alert(alert, NOW)
    assert store.unsent_alerts() == [other]
    assert store.open_alerts([alert]) == []


# --- databases in a bad way ------------------------------------------------------------------------------


def trouble(call: Any) -> tuple[Trouble, str]:
    with pytest.raises(StoreError) as caught:
        call()
    return caught.value.trouble, str(caught.value)


def test_locked(store: SqliteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    kind, words = trouble(lambda: store.insert_rows([row(1)]))
    assert kind == "locked"
    assert str(path) in words
    other.execute("COMMIT")
    other.close()
    assert store.insert_rows([row(1)]) == 1


def test_full(store: SqliteStore, path: Path) -> None:
    with store._connections.use() as connection:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 2}")
    kind, words = trouble(lambda: store.insert_rows([row(each) for each in range(1000)]))
    assert kind == "full"
    assert "free some" in words
    assert count(path) == 0  # nothing of it, rather than half
    with store._connections.use() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert store.insert_rows([row(each) for each in range(1000)]) == 1000


def test_read_only(store: SqliteStore) -> None:
    store.create_key(key(1))
    with store._connections.use() as connection:
        connection.execute("PRAGMA query_only = 1")
    assert trouble(lambda: store.insert_rows([row(1)]))[0] == "read_only"
    assert [each.id for each in store.all_keys()] == ["key_1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_no_permission_to_write(store: SqliteStore, path: Path) -> None:
    store.close()
    path.chmod(0o400)
    assert trouble(lambda: store.insert_rows([row(1)]))[0] == "read_only"


def test_garbage_is_left_as_it_is(tmp_path: Path) -> None:
    garbage = b"this is not a database at all, but it is quite long" * 100
    path = tmp_path / "penstock.db"
    path.write_bytes(garbage)
    store = SqliteStore(path)
    for call in (store.migrate, lambda: store.insert_rows([row(1)]), store.all_keys):
        assert trouble(call)[0] == "damaged"
    store.close()
    assert path.read_bytes() == garbage


def test_damage_in_the_middle(store: SqliteStore, path: Path) -> None:
    store.insert_rows([row(each) for each in range(2000)])
    store.close()
    with path.open("r+b") as file:
        for page in range(2, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    kind, words = trouble(lambda: list(store.rows_of_month("2026-11")))
    assert kind == "damaged"
    assert "backup" in words


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "penstock.db").mkdir()
    assert trouble(SqliteStore(tmp_path / "penstock.db").migrate)[0] == "unreachable"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert trouble(SqliteStore(tmp_path / "nowhere" / "penstock.db").migrate)[0] == "unreachable"


def test_a_file_moved_away_is_noticed_and_made_anew(store: SqliteStore, path: Path) -> None:
    store.insert_rows([row(1)])
    path.rename(path.with_name("old.db"))
    assert trouble(lambda: store.insert_rows([row(2)]))[0] == "moved"
    store.migrate()
    assert store.insert_rows([row(2)]) == 1
    assert [each[0] for each in store.rows_of_month("2026-11")] == [2]


def test_an_error_nobody_foresaw_is_said(store: SqliteStore, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("DROP VIEW llm_usage")
        other.execute("DROP TABLE ai_usage_logs")
    other.close()
    kind, words = trouble(lambda: store.insert_rows([row(1)]))
    assert (kind, "no such table" in words) == ("failed", True)
