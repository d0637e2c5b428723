"""The keeper: one process for each state_dir, which brings the workers' usage records into the store.

A process and not a thread: beside a busy event loop sqlite3 would hand the interpreter back and forth for every row.
It also looks after what workers share, tells of budgets, and moves old rows to the archive.
"""

import fcntl
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from penstock.proxy.alerts import Alerts, Budgets
from penstock.proxy.archivist import Archivist
from penstock.proxy.log import Log
from penstock.proxy.store import COLUMNS, Row, Store, StoreError
from penstock.proxy.webhook import Messenger, poster

PERIOD_S = 0.2
QUIET_PERIOD_S = 0.5
"""After a step that brought fewer than FEW rows: most of its cost was the step itself."""
FEW = 200
BATCH = 2000
"""Rows in one transaction: some 6 ms in which other writers wait."""
MOST_BATCHES = 20
"""In one step, so that the heartbeat goes on while a long queue is worked off."""
MOST_LAST_STEPS = 100
"""At the end: 4 million rows, though workers that still live may bring more."""
RETRY_MOST_S = 5.0
RECONCILE_S = 2.0
SWEEP_S = 10.0
TOUCH_S = 2.0
LOCK_AGAIN_S = 0.5
LOCK = "keeper.lock"
NOTE_BYTES = 512
SECOND = 1_000_000_000

_key = itemgetter(COLUMNS.index("api_key_id"))
_created_at = itemgetter(COLUMNS.index("created_at"))


class Queue(Protocol):
    """The workers' closed records: ext.Rings."""

    def take(self, limit: int) -> list[Row]: ...
    def free(self) -> None: ...
    @property
    def waiting(self) -> int: ...


class Shared(Protocol):
    """What workers share: ext.State."""

    note: bytes

    def beat(self, now_ns: int) -> None: ...
    def sweep(self, now_ns: int, wall_ns: int) -> int: ...
    def reconcile(self, folder: str) -> int: ...


def run(state_dir: Path, make: "Callable[[], Keeper]") -> None:
    """Keep until SIGTERM or the parent's death, once no other process keeps this state_dir. For a process of its own.

    make: called when this process is the one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def ends(after_s: float) -> bool:
        """Wait so long; whether it is time to end."""
        return signal.sigtimedwait({signal.SIGTERM}, after_s) is not None or os.getppid() != parent

    with alone(state_dir, ends) as is_alone:
        if not is_alone:
            return
        (state_dir / LOCK).write_text(str(os.getpid()))
        keeper = make()
        # Rows are no rubbish that anything has to be searched for: thousands of tuples that go as they came.
        gc.freeze()
        gc.set_threshold(100_000)
        while not ends(keeper.pause_s):
            keeper.step(time.monotonic_ns(), time.time_ns())
        keeper.close(time.monotonic_ns(), time.time_ns())


@contextmanager
def alone(state_dir: Path, ends: Callable[[float], bool]) -> Iterator[bool]:
    """Wait for the lock that says who keeps a state_dir; False if it was time to end before that."""
    with (state_dir / LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if ends(LOCK_AGAIN_S):
                    yield False
                    return
            else:
                yield True
                return


def make(
    queue: Queue,
    state: Shared,
    log: Log,
    *,
    state_dir: Path,
    spool: Path,
    open_store: Callable[[], Store] | None,
    keep_days: int = 0,
    webhook: str = "",
    budgets: Budgets = lambda payer: (),
    budget_percent: Sequence[int] = (),
) -> "Keeper":
    """A keeper with what the configuration asks for.

    open_store: None = rows are kept nowhere. keep_days: 0 = nothing is archived. webhook: "" = nobody is told.
    """
    if open_store is None:
        return Keeper(queue, state, spool, None, log)
    store = open_store()
    messenger = Messenger(Alerts(store, budgets, budget_percent), poster(webhook), log) if webhook else None
    archivist = Archivist(open_store, state_dir / "archive", keep_days, log) if keep_days else None
    return Keeper(queue, state, spool, store, log, messenger=messenger, archivist=archivist)


class Keeper:
    """The work, a step at a time. store: None = rows are kept nowhere."""

    def __init__(
        self,
        queue: Queue,
        state: Shared,
        spool: Path,
        store: Store | None,
        log: Log,
        *,
        messenger: Messenger | None = None,
        archivist: Archivist | None = None,
    ) -> None:
        self._queue = queue
        self._state = state
        self._spool = str(spool)
        self._store = store
        self._log = log
        self._messenger = messenger
        self._archivist = archivist
        self._taken: list[Row] = []
        self._brought = 0
        self._used_at: dict[str | None, str] = {}
        self._trouble: StoreError | None = None
        self._ready = False
        self._retry_s = 0.0
        self._store_at = self._reconcile_at = self._sweep_at = self._touch_at = 0.0

    def __repr__(self) -> str:
        return f"<Keeper {self._waiting()} waiting {self._trouble or 'well'}>"

    @property
    def pause_s(self) -> float:
        """How long to wait for the next step."""
        return PERIOD_S if self._brought >= FEW else QUIET_PERIOD_S

    def step(self, now_ns: int, wall_ns: int) -> None:
        """Do what is due. now_ns: monotonic, wall_ns: since the epoch."""
        self._state.beat(now_ns)
        try:
            self._look_after(now_ns, wall_ns)
        except OSError as error:
            self._log.event("warning", "what workers share cannot be looked after", detail=str(error))
        now_s = now_ns / SECOND
        if now_s >= self._store_at:
            try:
                self._keep(now_s, wall_ns / SECOND)
            except StoreError as error:
                self._failed(error, now_s)
            else:
                self._recovered()
        self._log.flush()

    def close(self, now_ns: int, wall_ns: int) -> None:
        """Bring in what is there, whatever the pauses say, and end. What cannot be stored now stays in the spool."""
        if self._messenger is not None:
            self._messenger.stop()
        self._store_at = 0.0
        for _ in range(MOST_LAST_STEPS):
            self._touch_at = 0.0
            self.step(now_ns, wall_ns)
            if self._trouble is not None or not self._waiting():
                break
        if self._archivist is not None:
            self._archivist.close()
        if self._store is not None:
            self._store.close()
        self._log.close()

    # --- parts

    def _look_after(self, now_ns: int, wall_ns: int) -> None:
        """Give back what dead workers held and cells nobody uses."""
        now_s = now_ns / SECOND
        if now_s >= self._reconcile_at:
            self._reconcile_at = now_s + RECONCILE_S
            self._state.reconcile(self._spool)
        if now_s >= self._sweep_at:
            self._sweep_at = now_s + SWEEP_S
            self._state.sweep(now_ns, wall_ns)

    def _keep(self, now_s: float, wall_s: float) -> None:
        if self._store is None:
            while self._take():
                self._queue.free()
            return
        if not self._ready:
            self._store.migrate()
            self._ready = True
        self._drain(self._store, wall_s)
        if self._used_at and now_s >= self._touch_at:
            self._store.touch_keys({key: at for key, at in self._used_at.items() if key is not None})
            self._used_at.clear()
            self._touch_at = now_s + TOUCH_S
        if self._messenger is not None:
            self._messenger.step(now_s, wall_s)
        if self._archivist is not None:
            self._archivist.step(now_s, wall_s)

    def _drain(self, store: Store, wall_s: float) -> None:
        """Rows are freed in the spool when the store has them, not before."""
        self._brought = 0
        for _ in range(MOST_BATCHES):
            is_rest = bool(self._taken)
            rows = self._taken = self._taken or self._take()
            if not rows:
                break
            new = store.insert_rows(rows)
            self._queue.free()
            self._taken = []
            self._brought += len(rows)
            self._used_at.update(zip(map(_key, rows), map(_created_at, rows), strict=True))
            if self._messenger is not None:
                self._messenger.note(rows, new, wall_s)
            if len(rows) < BATCH and not is_rest:
                break

    def _take(self) -> list[Row]:
        try:
            return self._queue.take(BATCH)
        except OSError as error:
            raise StoreError("failed", f"the spool {self._spool} cannot be read: {error.strerror or error}") from error

    def _failed(self, error: StoreError, now_s: float) -> None:
        self._ready = False
        self._retry_s = min(max(2 * self._retry_s, PERIOD_S), RETRY_MOST_S)
        self._store_at = now_s + self._retry_s
        self._state.note = _cut(str(error))
        if self._trouble is None or str(self._trouble) != str(error):
            self._log.event("error", "the store fails; usage waits in the spool", **self._figures(error))
        self._trouble = error

    def _recovered(self) -> None:
        if self._trouble is not None:
            self._log.event("info", "the store works again", **self._figures(self._trouble))
            self._trouble = None
            self._state.note = b""
        self._retry_s = 0.0

    def _figures(self, error: StoreError) -> dict[str, object]:
        return {"trouble": error.trouble, "detail": str(error), "waiting": self._waiting()}

    def _waiting(self) -> int | None:
        try:
            return self._queue.waiting
        except OSError:
            return None


def _cut(words: str) -> bytes:
    """At most NOTE_BYTES, without half a character."""
    return words.encode()[:NOTE_BYTES].decode(errors="ignore").encode()
