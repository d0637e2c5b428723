"""The keeper: rows leave the spool when the store has them, whatever the store goes through; and its errands."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from raw_client import wait_until
from stored import NOW, key, row

from penstock.proxy.alerts import RETRY_FIRST_S, Budget
from penstock.proxy.archivist import FIRST_S
from penstock.proxy.keeper import (
    BATCH,
    FEW,
    MOST_BATCHES,
    NOTE_BYTES,
    PERIOD_S,
    QUIET_PERIOD_S,
    RETRY_MOST_S,
    SECOND,
    make,
)
from penstock.proxy.log import Log
from penstock.proxy.store import NANO, Row, Store
from penstock.proxy.store.archive import DAY_S
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.wall_clock import WallClock


class Spool:
    """Records of workers, in a list: given again until they are freed."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.taken = 0

    def take(self, limit: int) -> list[Row]:
        self.taken = min(limit, len(self.rows))
        return self.rows[: self.taken]

    def free(self) -> None:
        del self.rows[: self.taken]
        self.taken = 0

    @property
    def waiting(self) -> int:
        return len(self.rows)


class Memory:
    """What workers share, as far as the keeper touches it."""

    def __init__(self) -> None:
        self.note = b""
        self.beats: list[int] = []
        self.sweeps: list[tuple[int, int]] = []
        self.reconciled: list[str] = []

    def beat(self, now_ns: int) -> None:
        self.beats.append(now_ns)

    def sweep(self, now_ns: int, wall_ns: int) -> int:
        self.sweeps.append((now_ns, wall_ns))
        return 0

    def reconcile(self, folder: str) -> int:
        self.reconciled.append(folder)
        return 0


class Scene:
    """A keeper with a clock that tests move."""

    def __init__(self, folder: Path, **wanted: Any) -> None:
        self.folder = folder
        self.path = folder / "penstock.db"
        self.spool = Spool()
        self.memory = Memory()
        self.now_s = 1000.0
        self.stores: list[SqliteStore] = []
        self.log = Log("info", str(folder / "log"), WallClock(lambda: int(NOW * SECOND)))
        self.keeper = make(
            self.spool,
            self.memory,
            self.log,
            state_dir=folder,
            spool=folder / "spool",
            **{"open_store": self.open_store} | wanted,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.close(*self.clock())
        for each in self.stores:
            each.close()

    def open_store(self) -> Store:
        self.stores.append(SqliteStore(self.path, busy_s=0.02))
        return self.stores[-1]

    def clock(self) -> tuple[int, int]:
        return int(self.now_s * SECOND), int((NOW + self.now_s - 1000.0) * SECOND)

    def step(self, after_s: float = PERIOD_S) -> None:
        self.now_s += after_s
        self.keeper.step(*self.clock())

    def stored(self) -> list[int]:
        other = sqlite3.connect(self.path)
        found = [number for (number,) in other.execute("SELECT id FROM ai_usage_logs ORDER BY id")]
        other.close()
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The log, once its thread has written all of it."""
        self.log.flush()
        wait_until(lambda: self.log._handed == self.log._written)
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as made:
        yield made


# --- rows ------------------------------------------------------------------------------------------------


def test_it_waits_longer_after_a_step_that_brought_little(scene: Scene) -> None:
    scene.step()
    assert scene.keeper.pause_s == QUIET_PERIOD_S
    scene.spool.rows = [row(number) for number in range(1, FEW + 1)]
    scene.step()
    assert scene.keeper.pause_s == PERIOD_S
    scene.spool.rows = [row(FEW + 1)]
    scene.step()
    assert scene.keeper.pause_s == QUIET_PERIOD_S


def test_rows_go_from_the_spool_into_the_store(scene: Scene) -> None:
    scene.spool.rows = [row(1), row(2)]
    scene.step()
    assert scene.stored() == [1, 2]
    assert scene.spool.rows == []
    scene.step()
    assert scene.lines() == []


def test_a_long_queue_is_worked_off_without_losing_the_heartbeat(scene: Scene) -> None:
    most = BATCH * MOST_BATCHES
    scene.spool.rows = [row(each) for each in range(most + 10)]
    scene.step()
    assert scene.spool.waiting == 10
    scene.step()
    assert len(scene.stored()) == most + 10


def test_rows_the_store_has_already_are_freed(tmp_path: Path) -> None:
    """The keeper was killed between the store's commit and freeing."""
    with Scene(tmp_path) as first:
        first.spool.rows = [row(1), row(2)]
        first.step()
    with Scene(tmp_path) as second:
        second.spool.rows = [row(1), row(2), row(3)]
        second.step()
        assert second.stored() == [1, 2, 3]
        assert second.spool.rows == []


def test_without_a_store_rows_are_let_go(tmp_path: Path) -> None:
    with Scene(tmp_path, open_store=None) as scene:
        scene.spool.rows = [row(each) for each in range(BATCH + 1)]
        scene.step()
        assert scene.spool.rows == []
        assert not scene.path.exists()


def test_keys_are_told_when_they_were_used(scene: Scene) -> None:
    scene.step()
    store = scene.stores[0]
    store.create_key(key(1))
    scene.spool.rows = [row(1, NOW), row(2, NOW + 1, api_key_id=None)]
    scene.step()
    scene.spool.rows = [row(3, NOW + 2)]
    scene.step(10)
    used = store.key("key_1")
    assert used is not None
    assert used.last_used_at == NOW + 2


def test_what_is_shared_is_looked_after(scene: Scene) -> None:
    for _ in range(int(30 / PERIOD_S)):
        scene.step()
    assert scene.memory.beats == sorted(scene.memory.beats)
    assert len(scene.memory.beats) == 150
    assert 14 <= len(scene.memory.reconciled) <= 15
    assert set(scene.memory.reconciled) == {str(scene.folder / "spool")}
    assert len(scene.memory.sweeps) == 3


def test_closing_brings_the_last_rows_in(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.step()
        scene.spool.rows = [row(1)]
    assert scene.stored() == [1]


def test_closing_takes_a_long_queue_too(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.spool.rows = [row(each) for each in range(2 * BATCH * MOST_BATCHES + 1)]
    assert len(scene.stored()) == 2 * BATCH * MOST_BATCHES + 1


def test_closing_does_not_wait_for_a_store_in_trouble(tmp_path: Path) -> None:
    (tmp_path / "penstock.db").mkdir()
    with Scene(tmp_path) as scene:
        scene.spool.rows = [row(1)]
    assert scene.spool.waiting == 1
    assert len(scene.memory.beats) == 1


# --- a store in trouble ----------------------------------------------------------------------------------


def test_a_locked_store_keeps_rows_waiting_and_says_so(scene: Scene) -> None:
    scene.step()
    other = sqlite3.connect(scene.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    scene.spool.rows = [row(1), row(2)]
    scene.step()
    assert b"locked by another program" in scene.memory.note
    assert scene.spool.waiting == 2
    scene.spool.rows.append(row(3))
    for _ in range(60):
        scene.step()
    assert scene.memory.beats[-1] == int(scene.now_s * SECOND)
    other.execute("COMMIT")
    other.close()
    scene.step(RETRY_MOST_S)
    assert scene.stored() == [1, 2, 3]
    assert scene.memory.note == b""
    told = [(line["level"], line["message"], line["trouble"], line["waiting"]) for line in scene.lines()]
    assert told == [
        ("error", "the store fails; usage waits in the spool", "locked", 2),
        ("info", "the store works again", "locked", 0),
    ]


def test_pauses_grow_to_five_seconds(scene: Scene) -> None:
    scene.path.mkdir()
    tried = []
    for _ in range(200):
        before = scene.keeper._store_at
        scene.step()
        if scene.keeper._store_at != before:
            tried.append(scene.now_s)
    pauses = [round(b - a, 3) for a, b in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2 * PERIOD_S
    assert pauses[-1] == pytest.approx(RETRY_MOST_S, abs=PERIOD_S)


def test_a_full_disk(scene: Scene) -> None:
    scene.step()
    with scene.stores[0]._connections.use() as connection:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
        scene.spool.rows = [row(each) for each in range(500)]
        scene.step()
        assert b"no space is left" in scene.memory.note
        assert (scene.spool.waiting, scene.stored()) == (500, [])
        connection.execute("PRAGMA max_page_count = 100000")
    scene.step(RETRY_MOST_S)
    assert len(scene.stored()) == 500


def test_a_store_that_may_only_be_read(scene: Scene) -> None:
    scene.step()
    with scene.stores[0]._connections.use() as connection:
        connection.execute("PRAGMA query_only = 1")
        scene.spool.rows = [row(1)]
        scene.step()
        assert b"cannot be written" in scene.memory.note
        connection.execute("PRAGMA query_only = 0")
    scene.step(RETRY_MOST_S)
    assert scene.stored() == [1]


def test_a_damaged_store_is_never_touched_and_a_backup_can_be_put_in_its_place(scene: Scene) -> None:
    garbage = os.urandom(100_000)
    scene.path.write_bytes(garbage)
    scene.spool.rows = [row(1)]
    for _ in range(10):
        scene.step(RETRY_MOST_S)
    assert scene.path.read_bytes() == garbage
    assert b"damaged" in scene.memory.note
    assert b"backup" in scene.memory.note
    scene.path.rename(scene.folder / "damaged.db")
    scene.step(RETRY_MOST_S)
    scene.step(RETRY_MOST_S)
    assert scene.stored() == [1]
    assert scene.memory.note == b""


def test_a_store_that_was_moved_away_is_made_anew(scene: Scene) -> None:
    scene.spool.rows = [row(1)]
    scene.step()
    scene.path.rename(scene.folder / "old.db")
    scene.spool.rows = [row(2)]
    scene.step()
    scene.step()
    assert scene.stored() == [2]


def test_a_newer_store_is_refused(scene: Scene) -> None:
    scene.step()
    with sqlite3.connect(scene.path) as other:
        other.execute("INSERT INTO schema_version VALUES (99, '')")
    other.close()
    with Scene(scene.folder) as second:
        second.spool.rows = [row(1)]
        second.step()
        assert b"newer penstock" in second.memory.note
        assert second.spool.waiting == 1


def test_a_spool_that_cannot_be_read_is_trouble_too(scene: Scene) -> None:
    class Broken(Spool):
        def take(self, limit: int) -> list[Row]:
            raise PermissionError(13, "Permission denied")

    scene.keeper._queue = Broken()
    scene.step()
    assert b"spool cannot be read: Permission denied" in scene.memory.note


def test_a_note_is_cut_between_characters(tmp_path: Path) -> None:
    folder = tmp_path / ("ü" * 100)
    (folder / ("ü" * 120) / "penstock.db").mkdir(parents=True)
    with Scene(folder) as scene:
        scene.stores[0]._connections.path = folder / ("ü" * 120) / "penstock.db"
        scene.step()
        assert NOTE_BYTES - 3 < len(scene.memory.note) <= NOTE_BYTES
        scene.memory.note.decode()


# --- alerts ----------------------------------------------------------------------------------------------


class Webhook:
    """A real server that keeps what it gets; `status` is what it answers."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.status = 200
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


def alerting(folder: Path, webhook: Webhook) -> Scene:
    return Scene(
        folder,
        webhook=webhook.url,
        budgets=lambda payer: [Budget("user", "ada", "day", 10 * NANO)],
        budget_percent=(50, 80, 100),
    )


def delivered(scene: Scene) -> None:
    """Let what is on its way arrive, and the keeper see it."""
    messenger = scene.keeper._messenger
    assert messenger is not None
    while messenger._sending is not None:
        wait([messenger._sending[1]], timeout=10)
        scene.step()


def test_a_webhook_is_told_once_each(tmp_path: Path, webhook: Webhook) -> None:
    with alerting(tmp_path, webhook) as scene:
        scene.spool.rows = [row(1, cost_nano_usd=8 * NANO)]
        scene.step()
        delivered(scene)
        scene.spool.rows = [row(2, cost_nano_usd=1 * NANO)]
        scene.step()
        delivered(scene)
        assert [(each["percent"], each["spent_usd"], each["id"]) for each in webhook.got] == [
            (50, 8, "ada"),
            (80, 8, "ada"),
        ]
        assert [line["message"] for line in scene.lines()] == ["a budget is nearly spent"] * 2
    with alerting(tmp_path, webhook) as again:
        again.spool.rows = [row(3, cost_nano_usd=1 * NANO)]
        again.step()
        delivered(again)
    assert [each["percent"] for each in webhook.got] == [50, 80, 100]


def test_a_webhook_that_fails_is_asked_again(tmp_path: Path, webhook: Webhook) -> None:
    webhook.status = 503
    with alerting(tmp_path, webhook) as scene:
        scene.spool.rows = [row(1, cost_nano_usd=5 * NANO)]
        scene.step()
        delivered(scene)
        scene.step(RETRY_FIRST_S - 1)
        assert len(webhook.got) == 1
        webhook.status = 204
        scene.step(1)
        delivered(scene)
        assert len(webhook.got) == 2
        scene.step(1000)
        delivered(scene)
        failures = [line for line in scene.lines() if line["message"] == "the webhook failed"]
        assert [(line["detail"], line["retryAfter"]) for line in failures] == [("it answered 503", RETRY_FIRST_S)]
    assert len(webhook.got) == 2


def test_a_webhook_that_is_away_keeps_nothing_up_and_is_told_after_a_restart(tmp_path: Path, webhook: Webhook) -> None:
    url, webhook.url = webhook.url, "http://127.0.0.1:9/hook?token=secret"
    with alerting(tmp_path, webhook) as scene:
        scene.spool.rows = [row(1, cost_nano_usd=5 * NANO)]
        scene.step()
        delivered(scene)
        assert scene.stored() == [1]
        assert "secret" not in (tmp_path / "log").read_text()
    webhook.url = url
    with alerting(tmp_path, webhook) as again:
        again.step()
        delivered(again)
    assert [each["percent"] for each in webhook.got] == [50]


def test_an_alert_on_its_way_when_the_keeper_ends_is_sent_once(tmp_path: Path, webhook: Webhook) -> None:
    with alerting(tmp_path, webhook) as scene:
        scene.spool.rows = [row(1, cost_nano_usd=5 * NANO)]
        scene.step()
        scene.spool.rows = [row(2, cost_nano_usd=3 * NANO)]
    assert [each["percent"] for each in webhook.got] == [50]
    with alerting(tmp_path, webhook) as again:
        again.step()
        delivered(again)
    assert [each["percent"] for each in webhook.got] == [50, 80]


# --- archive ---------------------------------------------------------------------------------------------


def archived(scene: Scene) -> None:
    archivist = scene.keeper._archivist
    assert archivist is not None
    if archivist._running is not None:
        wait([archivist._running], timeout=10)
        scene.step()


def test_old_months_are_archived_once_a_day(tmp_path: Path) -> None:
    with Scene(tmp_path, keep_days=30) as scene:
        scene.spool.rows = [row(1, NOW - 60 * DAY_S), row(2, NOW)]
        scene.step()
        scene.step(FIRST_S)
        archived(scene)
        assert scene.stored() == [2]
        assert [path.name for path in (tmp_path / "archive").glob("*.gz")] == ["usage-2026-09.jsonl.gz"]
        scene.spool.rows = [row(3, NOW - 60 * DAY_S)]
        scene.step(DAY_S / 2)
        archived(scene)
        assert scene.stored() == [2, 3]
        scene.step(DAY_S / 2)
        archived(scene)
        assert scene.stored() == [2]
        assert [line["rows"] for line in scene.lines()] == [1, 1]


def test_an_archive_that_fails_is_said_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file")
    with Scene(tmp_path, keep_days=30) as scene:
        scene.spool.rows = [row(1, NOW - 60 * DAY_S)]
        scene.step()
        scene.step(FIRST_S)
        archived(scene)
        assert scene.stored() == [1]
        assert [line["level"] for line in scene.lines()] == ["error"]
        (tmp_path / "archive").unlink()
        scene.step(3600)
        archived(scene)
        assert scene.stored() == []


# --- the process -----------------------------------------------------------------------------------------

# A keeper over a "spool" of files whose names are row ids.
PROCESS = """
import signal, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from penstock.proxy.keeper import make, run
from penstock.proxy.log import Log
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.wall_clock import WallClock
from stored import row
from test_keeper import Memory

folder = Path({folder!r})

class Files:
    waiting = 0
    def take(self, limit):
        self.taken = [path for path in folder.glob("*.row")][:limit]
        return [row(int(path.stem)) for path in self.taken]
    def free(self):
        for path in self.taken:
            path.unlink()

def ready():
    print("keeps", flush=True)
    log = Log("info", "", WallClock(time.time_ns))
    store = lambda: SqliteStore(folder / "penstock.db")
    return make(Files(), Memory(), log, state_dir=folder, spool=folder, open_store=store, keep_days=1)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waits", flush=True)
run(folder, ready)
print("ends", flush=True)
"""


@contextmanager
def started(code: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has begun to wait for its turn."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert told(process) == "waits"
        yield process
    finally:
        process.kill()
        process.communicate()


def code_for(folder: Path) -> str:
    here = Path(__file__).parent
    return PROCESS.format(folder=str(folder), path=[str(here), str(here.parent)])


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stored(folder: Path) -> list[int]:
    store = SqliteStore(folder / "penstock.db")
    found = [each[0] for each in store.rows_of_month("2026-11")]
    store.close()
    return found


def test_a_second_keeper_waits_for_the_first_and_takes_over(tmp_path: Path) -> None:
    code = code_for(tmp_path)
    with started(code) as first:
        assert told(first) == "keeps"
        with started(code) as second, started(code) as third:
            (tmp_path / "1.row").touch()
            wait_until(lambda: not (tmp_path / "1.row").exists())
            third.send_signal(signal.SIGTERM)
            assert told(third) == "ends"
            first.kill()
            assert told(second) == "keeps"
            (tmp_path / "2.row").touch()
            wait_until(lambda: not (tmp_path / "2.row").exists())
            second.send_signal(signal.SIGINT)
            (tmp_path / "3.row").touch()
            second.send_signal(signal.SIGTERM)
            assert told(second) == "ends"
            assert second.wait(10) == third.wait(10) == 0
    assert stored(tmp_path) == [1, 2, 3]


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code_for(tmp_path)!r}])"
    with started(code) as parent:
        assert told(parent) == "keeps"
        parent.kill()
        assert told(parent) == "ends"
