"""The keeper on real rings: rows as the store wants them, and whoever is killed, each request has its row once."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from raw_client import wait_until

from penstock import ext
from penstock.ext import FLAG_BACKEND, OUTCOME_ANSWERED, Account, Rings, Spool, State, Usage
from penstock.proxy.keeper import Keeper, make
from penstock.proxy.log import Log
from penstock.proxy.store import COLUMNS
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import starts
from penstock.proxy.wall_clock import WallClock

WALL_NS = 1_795_248_300_250_000_000  # 2026-11-21 08:05:00.250
BOOT = b"boot"


class Place:
    """A state folder with its shared memory, a ring and a keeper, all in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "spool").mkdir()
        self.state = State(str(folder / "state.shm"), BOOT)
        self.ring = Spool(str(folder / "spool"), self.state, 256)
        self.store = SqliteStore(folder / "penstock.db")
        self.log = Log("info", str(folder / "log"), WallClock(time.time_ns))
        self.account = Account(self.state, [], b"key_1", b"home", b"ada", b"pro")

    def keeper(self) -> Keeper:
        rings = Rings(str(self.folder / "spool"), self.state)
        return make(
            rings,
            self.state,
            self.log,
            state_dir=self.folder,
            spool=self.folder / "spool",
            open_store=lambda: self.store,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_spool_gives_the_columns_the_store_takes() -> None:
    assert ext.COLUMNS == COLUMNS


def test_a_record_becomes_a_row(place: Place) -> None:
    entry = place.ring.admit(place.account, b"chat", b"smart", b"ab-1", 100, 10**9, 0, WALL_NS)
    assert isinstance(entry, ext.Entry)
    entry.close(OUTCOME_ANSWERED, 200, b"cloud", Usage(10, 5, 4, 3), 2_000_000, FLAG_BACKEND, 100.0, 20.0, b"")
    keeper = place.keeper()
    keeper.step(time.monotonic_ns(), WALL_NS)
    (row,) = place.store.rows_of_month("2026-11")
    assert dict(zip(COLUMNS[1:], row[1:], strict=True)) == {
        "request_id": "ab-1",
        "api_key_id": "key_1",
        "tenant_id": "home",
        "user_id": "ada",
        "tier": "pro",
        "endpoint": "chat",
        "model_used": "smart",
        "backend": "cloud",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 4,
        "reasoning_tokens": 3,
        "total_tokens": 15,
        "usage_estimated": 0,
        "cost_usd": 0.002,
        "cost_nano_usd": 2_000_000,
        "llm_request": 1,
        "response_cached": 0,
        "response_time_ms": 100.0,
        "ttft_ms": 20.0,
        "status_code": 200,
        "outcome": "answered",
        "error_message": None,
        "created_at": "2026-11-21 08:05:00.250",
    }
    assert place.store.window_sums(starts(WALL_NS / 1e9))["user", "ada"][0] == (1, 1, 15, 2_000_000)
    keeper.close(time.monotonic_ns(), WALL_NS)


def test_a_full_ring_waits_for_the_store_and_loses_nothing(place: Place) -> None:
    keeper = place.keeper()
    place.folder.joinpath("penstock.db").mkdir()
    for number in range(place.ring.free):
        entry = place.ring.admit(place.account, b"chat", b"", b"%d" % number, 1, 1, 0, WALL_NS)
        assert isinstance(entry, ext.Entry)
        entry.close(OUTCOME_ANSWERED, 200, b"", None, 0, 0, -1.0, -1.0, b"")
        keeper.step(time.monotonic_ns(), WALL_NS)
    assert place.ring.admit(place.account, b"chat", b"", b"", 1, 1, 0, WALL_NS) is None
    assert b"cannot be opened" in place.state.note
    place.folder.joinpath("penstock.db").rmdir()
    keeper.close(time.monotonic_ns(), WALL_NS)
    assert place.state.note == b""
    assert place.ring.free >= 256
    store = SqliteStore(place.folder / "penstock.db")
    assert sorted(int(row[1]) for row in store.rows_of_month("2026-11")) == list(range(256))
    store.close()


# Admits and closes for ever; says a request's id when it is closed, as a client that got its answer would.
WORKER = """
import os, sys, time
from penstock.ext import Account, Spool, State, Usage
folder = sys.argv[1]
state = State(folder + "/state.shm", b"boot")
ring = Spool(folder + "/spool", state, 1024)
account = Account(state, [], b"key_1", b"home", b"ada", b"pro")
number = 0
while True:
    number += 1
    name = b"%d-%d" % (os.getpid(), number)
    entry = ring.admit(account, b"chat", b"smart", name, 9, 9, time.monotonic_ns(), time.time_ns())
    if entry is None:
        time.sleep(0.001)
        continue
    entry.close(0, 200, b"cloud", Usage(1, 1), 5, 4, 1.0, 1.0, b"")
    os.write(1, name + b"\\n")
"""
KEEPER = """
import sys, time
from pathlib import Path
from penstock.ext import Rings, State
from penstock.proxy.keeper import make, run
from penstock.proxy.log import Log
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.wall_clock import WallClock
folder = Path(sys.argv[1])

def ready():
    state = State(str(folder / "state.shm"), b"boot")
    rings = Rings(str(folder / "spool"), state)
    log = Log("info", "", WallClock(time.time_ns))
    return make(rings, state, log, state_dir=folder, spool=folder / "spool",
                open_store=lambda: SqliteStore(folder / "penstock.db"))

run(folder, ready)
"""


class Scene:
    """Two workers and a keeper, started anew when they are killed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.said = [folder / "said0", folder / "said1"]
        self.workers = [self.start(WORKER, out) for out in self.said]
        self.keeper = self.start(KEEPER, folder / "keeper")

    def start(self, code: str, out: Path) -> "subprocess.Popen[bytes]":
        with out.open("ab") as sink:
            process = subprocess.Popen([sys.executable, "-c", code, str(self.folder)], stdout=sink)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def bytes_said(self) -> int:
        return sum(out.stat().st_size for out in self.said)

    def kill_workers(self, *numbers: int) -> None:
        for number in numbers:
            self.workers[number].kill()
            self.workers[number].wait()

    def kill(self, victim: str) -> None:
        """ "0" or "1" for a worker, "keeper", or "all"; others take their place."""
        numbers = [0, 1] if victim == "all" else [int(victim)] if victim != "keeper" else []
        self.kill_workers(*numbers)
        if not numbers or victim == "all":
            self.keeper.kill()
            self.keeper.wait()
            self.keeper = self.start(KEEPER, self.folder / "keeper")
        for number in numbers:
            self.workers[number] = self.start(WORKER, self.said[number])


def test_killing_anybody_loses_no_row_and_doubles_none(tmp_path: Path) -> None:
    chance = random.Random(11)
    (tmp_path / "spool").mkdir()
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        for _ in range(10):
            enough = scene.bytes_said() + chance.randrange(5_000, 50_000)
            wait_until(partial(said_more, scene, enough), 30)
            scene.kill(chance.choice(["0", "1", "keeper", "all"]))
        scene.kill_workers(0, 1)
        wait_until(lambda: settled(tmp_path), 30)
        scene.keeper.send_signal(signal.SIGTERM)
        assert scene.keeper.wait(30) == 0
    answered = {name for out in scene.said for name in out.read_text().splitlines()}
    store = SqliteStore(tmp_path / "penstock.db")
    rows = [(row[1], row[22]) for month in store.months(2e9) for row in store.rows_of_month(month)]
    store.close()
    names = {name for name, _ in rows}
    assert len(answered) > 1000
    assert len(names) == len(rows)
    assert answered <= names
    assert {name for name, outcome in rows if outcome == "lost"}.isdisjoint(answered)


def said_more(scene: Scene, enough: int) -> bool:
    return scene.bytes_said() > enough


def settled(folder: Path) -> bool:
    """The spool is empty: told without draining it, by looking as a drainer that takes nothing."""
    state = State(str(folder / "state.shm"), BOOT)
    rings = Rings(str(folder / "spool"), state)
    return rings.waiting == 0 and rings.open == 0 and os.path.exists(folder / "penstock.db")
