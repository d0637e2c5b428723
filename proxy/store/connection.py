"""Connections to a SQLite file: one for each thread, short transactions, and errors said in words."""

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.proxy.store import StoreError, Trouble

_DAMAGED = "the database {path} is damaged ({reason}): put a backup in its place, or move it away"
_READ_ONLY = "the database {path} cannot be written: check its mount and permissions"
_FULL = "no space is left for the database {path}: free some on its disk"
_LOCKED = "the database {path} is locked by another program: close what has it open"
_TROUBLES: dict[int, tuple[Trouble, str]] = {
    sqlite3.SQLITE_BUSY: ("locked", _LOCKED),
    sqlite3.SQLITE_LOCKED: ("locked", _LOCKED),
    sqlite3.SQLITE_FULL: ("full", _FULL),
    sqlite3.SQLITE_READONLY: ("read_only", _READ_ONLY),
    sqlite3.SQLITE_PERM: ("read_only", _READ_ONLY),
    sqlite3.SQLITE_CORRUPT: ("damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: ("damaged", _DAMAGED),
    sqlite3.SQLITE_CANTOPEN: ("unreachable", "the database {path} cannot be opened: is it a file, and may it be read?"),
    sqlite3.SQLITE_IOERR: (
        "unreachable",
        "the disk of the database {path} fails ({reason}): check it and its free space",
    ),
}


class Connections:
    """path: the file, made on first use (0600). busy_s: how long a call waits for another writer.

    Not to be carried over a fork: make it in the process that uses it.
    """

    def __init__(self, path: Path, busy_s: float) -> None:
        self.path = path
        self._busy_s = busy_s
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []

    @contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; sqlite3 errors leave as StoreError."""
        try:
            yield self._current()
        except sqlite3.Error as error:
            raise in_words(error, self.path) from error
        except OSError as error:
            raise _unreachable(error, self.path) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is the writer from its start; rolled back if it is left by an exception."""
        with self.use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def close(self) -> None:
        """Close every thread's connection; none may be in use."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._local = threading.local()

    def _current(self) -> sqlite3.Connection:
        """Raises StoreError when the file is not the one that was opened: rows must not go where nobody reads them."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            return self._open()
        if _identity(self.path) != self._local.identity:
            self._all.remove(connection)
            connection.close()
            self._local.connection = None
            raise StoreError("moved", f"the database {self.path} was moved away or replaced: it is opened anew")
        return connection

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            self.path.touch(0o600)
        connection = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
        # With a write-ahead log NORMAL syncs at checkpoints only. The death of any process loses nothing, a loss of
        # power at most the last transactions, never the database: what the spool promises, at a tenth of FULL's cost.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        self._local.connection = connection
        self._local.identity = _identity(self.path)
        self._all.append(connection)
        return connection


def in_words(error: sqlite3.Error, path: Path) -> StoreError:
    """What it means for the person who runs penstock."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells kinds of the same trouble apart
    trouble, words = _TROUBLES.get(code, ("failed", "the database {path} refuses: {reason}"))
    return StoreError(trouble, words.format(path=path, reason=error))


def _unreachable(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError("read_only", _READ_ONLY.format(path=path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("full", _FULL.format(path=path))
    return StoreError("unreachable", f"the database {path} cannot be opened: {error.strerror or error}")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _roll_back(connection: sqlite3.Connection) -> None:
    """Some errors have ended the transaction already."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.interrupt()
