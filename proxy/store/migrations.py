"""Brings a database's tables to this version: numbered SQL files, forward only, one process at a time."""

import fcntl
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from penstock.proxy.store import StoreError

FOLDER = files("penstock.proxy.store").joinpath("sql")


def migrations() -> dict[int, str]:
    """Version -> SQL, in order; the number is how the file's name begins."""
    found = {int(file.name[:4]): file.read_text("utf-8") for file in FOLDER.iterdir() if file.name.endswith(".sql")}
    return dict(sorted(found.items()))


def migrate(connection: sqlite3.Connection, path: Path, steps: dict[int, str] | None = None) -> int:
    """The version it is at afterwards. Raises StoreError for a newer one, OSError, sqlite3.Error; then nothing changed.

    The file lock keeps other penstocks out (one waits, and finds the work done), BEGIN IMMEDIATE anyone else.
    """
    steps = migrations() if steps is None else steps
    with locked(path):
        if version(connection, path, max(steps)) == max(steps):
            return max(steps)
        # Set before the first transaction: it cannot change within one.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply(connection, version(connection, path, max(steps)), steps)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return max(steps)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside the database, waiting for it."""
    with path.with_name(f"{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """0 = no tables yet. Raises StoreError for one newer than `newest`."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    found = int(connection.execute("SELECT max(version) FROM schema_version").fetchone()[0] or 0) if known else 0
    if found > newest:
        raise StoreError(
            "newer",
            f"the database {path} is of a newer penstock (its tables are version {found}, this one knows {newest}): "
            "run that version, or give this one another server.state_dir",
        )
    return found


def statements(sql: str) -> Iterator[str]:
    """Statement by statement: executescript would commit before it begins."""
    statement = ""
    for piece in re.split("(?<=;)", sql):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _apply(connection: sqlite3.Connection, done: int, steps: dict[int, str]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)"
    )
    for number, sql in steps.items():
        if number > done:
            for statement in statements(sql):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?, datetime('now'))", (number,))
