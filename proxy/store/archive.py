"""Moves whole calendar months of usage rows out of the store into files: archive/usage-YYYY-MM.jsonl.gz.

A row is deleted only when it has been read from the finished file, and a month is merged with its file by id: whatever
ends the work at any point, the next time goes on from there and loses and doubles nothing.
"""

import fcntl
import gzip
import heapq
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from penstock.proxy.store import COLUMNS, Row, Store

DAY_S = 86_400
BATCH = 1000
"""Rows deleted in one transaction: the time another writer waits, some 10 ms."""


class ArchiveError(Exception):
    """A file of the archive cannot be read or written; the text says which and why. No row is lost by it."""


class Archived(NamedTuple):
    """What one run moved."""

    months: list[str]
    rows: int


class _Line(msgspec.Struct):
    """Of a line only the id matters here."""

    id: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def archive(
    store: Store,
    folder: Path,
    before: float,
    progress: Callable[[str, int, str], None] = lambda month, rows, doing: None,
) -> Archived:
    """Move the months that ended at or before `before` (epoch s). Raises ArchiveError, StoreError.

    progress: called after each batch with the month, its rows so far, and "written" or "deleted".
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            months = list(store.months(before))
            return Archived(months, sum(_move(store, folder, month, progress) for month in months))
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise ArchiveError(f"the archive in {folder}: {error}") from error


def file_of(folder: Path, month: str) -> Path:
    return folder / f"usage-{month}.jsonl.gz"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two at once could each write a file without the rows the other one has deleted."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _move(store: Store, folder: Path, month: str, progress: Callable[[str, int, str], None]) -> int:
    path = file_of(folder, month)
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as raw:
        os.fchmod(raw.fileno(), 0o600)
        # No time stamp inside: the same rows make the same file.
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as file:
            for done, line in enumerate(_merged(path, store.rows_of_month(month)), 1):
                file.write(line)
                if done % BATCH == 0:
                    progress(month, done, "written")
        raw.flush()
        os.fsync(raw.fileno())
    partial.replace(path)
    _sync_folder(folder)
    return _delete(store, path, month, progress)


def _merged(path: Path, rows: Iterable[Row]) -> Iterator[bytes]:
    """The file's lines and the rows', each id once, in their order; nothing is held in memory."""
    last = None
    for number, line in heapq.merge(_lines(path), map(_line, rows), key=_number):
        if number != last:
            yield line
        last = number


def _number(numbered: tuple[int, bytes]) -> int:
    return numbered[0]


def _line(row: Row) -> tuple[int, bytes]:
    return row[0], _encode(dict(zip(COLUMNS, row, strict=True))) + b"\n"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if path.exists():
        with gzip.open(path, "rb") as file:
            for line in file:
                yield _decode(line).id, line


def _delete(store: Store, path: Path, month: str, progress: Callable[[str, int, str], None]) -> int:
    """Delete what the file holds; how many rows that were."""
    deleted = 0
    numbers = (number for number, _ in _lines(path))
    while batch := list(islice(numbers, BATCH)):
        deleted += store.delete_rows(batch)
        progress(month, deleted, "deleted")
    return deleted


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk too, before anything is deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
