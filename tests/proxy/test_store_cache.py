"""ai_cache: each hit of each worker's entry is counted once, and what has expired goes."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import NOW

from penstock.proxy.store import CacheFact
from penstock.proxy.store.migrations import migrate, migrations
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import text

HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "penstock.db")
    made.migrate()
    yield made
    made.close()


def fact(key: str = "aa", entry: str = "1-5", **changes: Any) -> CacheFact:
    fields = {"model": "m", "created_at": NOW, "expires_at": NOW + HOUR, "hits": 0} | changes
    return CacheFact(key=key, entry=entry, **fields)


def kept(store: SqliteStore, columns: str = "*") -> list[tuple[Any, ...]]:
    with sqlite3.connect(store.path) as connection:
        found = connection.execute(f"SELECT {columns} FROM ai_cache ORDER BY cache_key").fetchall()
    connection.close()
    return found


def test_the_columns(store: SqliteStore) -> None:
    store.keep_cache_facts([fact(hits=3, response='{"a":1}')], NOW)
    assert kept(store, "cache_key, response_data, model_used, created_at, expires_at, hit_count") == [
        ("aa", '{"a":1}', "m", text(NOW), text(NOW + HOUR), 3)
    ]


def test_telling_the_same_again_adds_nothing(store: SqliteStore) -> None:
    for _ in range(3):
        store.keep_cache_facts([fact(hits=3)], NOW)
    store.keep_cache_facts([fact(hits=5), fact(hits=4)], NOW)
    assert kept(store, "hit_count") == [(5,)]


def test_hits_of_all_entries_of_a_key_are_summed(store: SqliteStore) -> None:
    store.keep_cache_facts([fact(hits=3), fact(entry="2-5", hits=1), fact("bb", hits=7)], NOW)
    store.keep_cache_facts([fact(entry="2-5", hits=2), fact(entry="2-9", hits=10)], NOW)
    assert kept(store, "cache_key, hit_count") == [("aa", 15), ("bb", 7)]


def test_the_newest_entry_says_the_rest(store: SqliteStore) -> None:
    store.keep_cache_facts([fact(created_at=NOW + 60, expires_at=NOW + 2 * HOUR, response="new")], NOW)
    store.keep_cache_facts([fact(entry="2-5", response="old", hits=1)], NOW)
    store.keep_cache_facts([fact(created_at=NOW + 60, expires_at=NOW + 2 * HOUR, hits=1)], NOW)
    assert kept(store, "response_data, created_at, expires_at, hit_count") == [
        ("new", text(NOW + 60), text(NOW + 2 * HOUR), 2)
    ]


def test_what_has_expired_goes(store: SqliteStore) -> None:
    store.keep_cache_facts([fact(hits=3), fact("bb", expires_at=NOW + 2 * HOUR)], NOW)
    store.keep_cache_facts([], NOW + HOUR)
    assert kept(store, "cache_key") == [("aa",), ("bb",)]
    store.keep_cache_facts([], NOW + HOUR + 1)
    assert kept(store, "cache_key") == [("bb",)]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM ai_cache_told").fetchone() == (1,)
    connection.close()


def test_any_order_of_telling_gives_the_same_sum(store: SqliteStore) -> None:
    source = random.Random(1)
    hits = {(key, entry): source.randrange(50) for key in ("aa", "bb") for entry in ("1-1", "2-1", "3-1")}
    told = [(key, entry, source.randrange(most + 1)) for (key, entry), most in hits.items() for _ in range(20)]
    told += [(key, entry, most) for (key, entry), most in hits.items()]
    source.shuffle(told)
    for start in range(0, len(told), 10):
        store.keep_cache_facts([fact(key, entry, hits=count) for key, entry, count in told[start : start + 10]], NOW)
    assert kept(store, "cache_key, hit_count") == [
        (key, sum(count for (of, _), count in hits.items() if of == key)) for key in ("aa", "bb")
    ]


def test_a_database_from_before_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "penstock.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, {1: migrations()[1]})
    connection.close()
    store = SqliteStore(path)
    assert store.migrate() == 2
    store.keep_cache_facts([fact()], NOW)
    assert len(kept(store)) == 1
    store.close()
