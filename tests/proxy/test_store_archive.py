"""The archive: whole months, and whatever fails at any point, each row is afterwards in one place at least, once."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import NOW, row

from penstock.proxy.store import COLUMNS, StoreError
from penstock.proxy.store.archive import BATCH, ArchiveError, archive, file_of
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import instant

SEPTEMBER = instant("2026-09-10 12:00:00")
OCTOBER = instant("2026-10-10 12:00:00")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "penstock.db", busy_s=0.05)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def archived(folder: Path, month: str) -> list[dict[str, Any]]:
    path = file_of(folder, month)
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ids(store: SqliteStore, month: str) -> list[int]:
    return [each[0] for each in store.rows_of_month(month)]


def test_whole_months_that_are_old_enough(store: SqliteStore, folder: Path) -> None:
    rows = [row(3, OCTOBER, error_message="ü\n"), row(1, SEPTEMBER), row(2, SEPTEMBER), row(4, NOW)]
    store.insert_rows(rows)
    done = archive(store, folder, before=instant("2026-11-01"))
    assert done == (["2026-09", "2026-10"], 3)
    assert [tuple(each[name] for name in COLUMNS) for each in archived(folder, "2026-10")] == [rows[0]]
    assert [each["id"] for each in archived(folder, "2026-09")] == [1, 2]
    assert (ids(store, "2026-09"), ids(store, "2026-10"), ids(store, "2026-11")) == ([], [], [4])
    assert archive(store, folder, before=instant("2026-11-01")) == ([], 0)


def test_a_month_that_ends_a_moment_later_stays(store: SqliteStore, folder: Path) -> None:
    store.insert_rows([row(1, SEPTEMBER), row(2, OCTOBER)])
    assert archive(store, folder, before=instant("2026-10-31 23:59:59.999")).months == ["2026-09"]


def test_rows_that_come_late_join_their_month(store: SqliteStore, folder: Path) -> None:
    store.insert_rows([row(2, SEPTEMBER), row(4, SEPTEMBER)])
    archive(store, folder, NOW)
    store.insert_rows([row(1, SEPTEMBER), row(3, SEPTEMBER), row(4, SEPTEMBER), row(5, SEPTEMBER)])
    archive(store, folder, NOW)
    assert [each["id"] for each in archived(folder, "2026-09")] == [1, 2, 3, 4, 5]
    assert ids(store, "2026-09") == []


def test_only_the_owner_reads_it(store: SqliteStore, folder: Path) -> None:
    store.insert_rows([row(1, SEPTEMBER)])
    archive(store, folder, NOW)
    assert file_of(folder, "2026-09").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_progress_is_told(store: SqliteStore, folder: Path) -> None:
    store.insert_rows([row(each, SEPTEMBER) for each in range(2 * BATCH + 1)])
    told: list[tuple[str, int, str]] = []
    archive(store, folder, NOW, lambda *what: told.append(what))
    assert [(each[1] // BATCH, each[2]) for each in told] == [
        (1, "written"),
        (2, "written"),
        (1, "deleted"),
        (2, "deleted"),
        (2, "deleted"),
    ]


class Stop(Exception):
    """The process is killed here."""


class Stopping:
    """A store that ends the process at its n-th call; rows count as calls too."""

    def __init__(self, store: SqliteStore, at: int) -> None:
        self._store = store
        self._left = at

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Stop

    def rows_of_month(self, month: str) -> Iterator[tuple[Any, ...]]:
        for each in self._store.rows_of_month(month):
            self._step()
            yield each

    def delete_rows(self, numbers: list[int]) -> int:
        self._step()
        deleted = self._store.delete_rows(numbers)
        self._step()
        return deleted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("late", [False, True])
def test_killed_at_any_call_of_the_store(tmp_path: Path, late: bool) -> None:
    everything = set(range(1, 3 * BATCH // 2))
    stops = [1, 2, BATCH, *range(len(everything) - 1, len(everything) + 8)]
    for at in stops:
        store = SqliteStore(tmp_path / f"{at}.db")
        folder = tmp_path / f"archive{at}"
        store.migrate()
        if late:  # the month has a file already
            store.insert_rows([row(each, SEPTEMBER) for each in everything if each % 3 == 0])
            archive(store, folder, NOW)
        store.insert_rows([row(each, SEPTEMBER) for each in everything])
        killed(lambda store=store, folder=folder, at=at: archive(Stopping(store, at), folder, NOW))  # type: ignore[misc]
        held = [each["id"] for each in archived(folder, "2026-09")]
        assert len(held) == len(set(held))
        assert set(held) | set(ids(store, "2026-09")) == everything, at
        archive(store, folder, NOW)
        assert [each["id"] for each in archived(folder, "2026-09")] == sorted(everything)
        assert ids(store, "2026-09") == []
        store.close()


def killed(work: Callable[[], Any]) -> None:
    try:
        work()
    except Stop:
        pass


@pytest.mark.parametrize("step", ["fsync", "replace", "sync_folder"])
def test_killed_between_file_and_deletion(
    store: SqliteStore, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert_rows([row(1, SEPTEMBER), row(2, SEPTEMBER)])

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        match step:
            case "fsync":
                patch.setattr("os.fsync", stop)
            case "replace":
                patch.setattr(Path, "replace", stop)
            case _:
                patch.setattr("penstock.proxy.store.archive._sync_folder", stop)
        with pytest.raises(Stop):
            archive(store, folder, NOW)
    assert ids(store, "2026-09") == [1, 2]
    assert archive(store, folder, NOW).rows == 2
    assert [each["id"] for each in archived(folder, "2026-09")] == [1, 2]
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("cut", ["truncated", "garbage"])
def test_a_damaged_file_is_left_alone_and_so_are_the_rows(store: SqliteStore, folder: Path, cut: str) -> None:
    store.insert_rows([row(each, SEPTEMBER) for each in range(100)])
    archive(store, folder, NOW)
    path = file_of(folder, "2026-09")
    damaged = path.read_bytes()[:-20] if cut == "truncated" else b"garbage"
    path.write_bytes(damaged)
    store.insert_rows([row(200, SEPTEMBER)])
    with pytest.raises(ArchiveError, match="archive"):
        archive(store, folder, NOW)
    assert path.read_bytes() == damaged
    assert ids(store, "2026-09") == [200]


def test_a_folder_that_cannot_be_made(store: SqliteStore, tmp_path: Path) -> None:
    store.insert_rows([row(1, SEPTEMBER)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="file"):
        archive(store, tmp_path / "file", NOW)
    assert ids(store, "2026-09") == [1]


def test_a_store_that_fails_is_said_as_such(store: SqliteStore, folder: Path) -> None:
    store.path.rename(store.path.with_name("away"))
    with pytest.raises(StoreError):
        archive(store, folder, NOW)


def test_two_at_once_and_rows_that_come_meanwhile(store: SqliteStore, folder: Path) -> None:
    first = set(range(4 * BATCH))
    more = set(range(10 * BATCH, 12 * BATCH))
    store.insert_rows([row(each, SEPTEMBER) for each in first])
    failed: list[Exception] = []

    def work() -> None:
        own = SqliteStore(store.path)
        try:
            archive(own, folder, NOW)
        except (ArchiveError, StoreError) as error:
            failed.append(error)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    writer = SqliteStore(store.path)
    for number in more:
        writer.insert_rows([row(number, SEPTEMBER)])
    for each in threads:
        each.join()
    writer.close()
    assert failed == []
    archive(store, folder, NOW)
    assert [each["id"] for each in archived(folder, "2026-09")] == sorted(first | more)
    assert ids(store, "2026-09") == []
