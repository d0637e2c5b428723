"""Migrations: forward only, whole or not at all, one process at a time, and never on a newer database."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from stored import row

from penstock.proxy.store import COLUMNS, KeyRecord, StoreError
from penstock.proxy.store.migrations import migrate, migrations, statements
from penstock.proxy.store.sqlite import SqliteStore


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]


def test_numbers_run_on_without_a_gap() -> None:
    assert list(migrations()) == list(range(1, len(migrations()) + 1))


def test_the_tables_have_the_columns_the_code_writes(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "a.db")._connections.use() as connection:
        assert migrate(connection, tmp_path / "a.db") == max(migrations())
        assert columns(connection, "ai_usage_logs") == list(COLUMNS)
        assert columns(connection, "ai_api_keys") == list(KeyRecord.__struct_fields__)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_again_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    store.migrate()
    store.insert_rows([row(1)])
    assert store.migrate() == max(migrations())
    assert len(list(store.rows_of_month("2026-11"))) == 1
    store.close()


def test_only_what_is_missing_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path)
    first = {1: "CREATE TABLE a (x);"}
    migrate(connection, path, first)
    connection.execute("INSERT INTO a VALUES (1)")
    assert migrate(connection, path, {**first, 2: "ALTER TABLE a ADD COLUMN y;", 3: "CREATE TABLE b (z);"}) == 3
    assert connection.execute("SELECT * FROM a").fetchall() == [(1, None)]
    assert [v for (v,) in connection.execute("SELECT version FROM schema_version")] == [1, 2, 3]
    connection.close()


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path)
    migrate(connection, path, {1: "CREATE TABLE a (x);"})
    broken = {1: "", 2: "CREATE TABLE b (x);", 3: "CREATE TABLE c (x); ALTER TABLE nowhere ADD COLUMN y;"}
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, broken)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sorted(tables) == ["a", "schema_version"]
    assert not connection.in_transaction
    connection.close()


def test_a_newer_database_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(path)
    store.migrate()
    with connect(path) as other:
        other.execute("INSERT INTO schema_version VALUES (99, '')")
    other.close()
    with pytest.raises(
        StoreError, match=rf"newer penstock .* version 99, this one knows {max(migrations())}"
    ) as caught:
        store.migrate()
    assert caught.value.trouble == "newer"
    store.close()


def test_statements_may_hold_semicolons() -> None:
    sql = "-- a; b\nCREATE TABLE a (x TEXT DEFAULT ';');\nCREATE TABLE b (x);\n"
    assert [each.strip()[-2:] for each in statements(sql)] == [");", ");"]


def test_many_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = "from pathlib import Path; from penstock.proxy.store.sqlite import SqliteStore as S; S(Path({!r})).migrate()"
    argv = [sys.executable, "-c", code.format(str(path))]
    processes = [subprocess.Popen(argv) for _ in range(4)]
    assert [each.wait(30) for each in processes] == [0] * 4
    with connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM schema_version").fetchone() == (len(migrations()),)
    connection.close()
