"""The archive in the background of the keeper: once a day, on a thread of its own, with a store of its own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

from penstock.proxy.log import Log
from penstock.proxy.store import Store, StoreError
from penstock.proxy.store.archive import DAY_S, Archived, ArchiveError, archive

FIRST_S = 60.0
AGAIN_S = 3600.0
"""After a failure."""


class Archivist:
    """The archive, once a day. open_store: a store for its own thread."""

    def __init__(self, open_store: Callable[[], Store], folder: Path, keep_days: int, log: Log) -> None:
        self._open_store = open_store
        self._folder = folder
        self._keep_s = keep_days * DAY_S
        self._log = log
        self._thread = ThreadPoolExecutor(1, "penstock-archive")
        self._running: Future[Archived] | None = None
        self._stop = Event()
        self._due_at: float | None = None

    def step(self, now_s: float, wall_s: float) -> None:
        if self._due_at is None:
            self._due_at = now_s + FIRST_S
        if self._running is not None:
            if self._running.done():
                running, self._running = self._running, None
                self._ended(running, now_s)
        elif now_s >= self._due_at:
            self._due_at = now_s + DAY_S
            self._running = self._thread.submit(self._archive, wall_s - self._keep_s)

    def close(self) -> None:
        """Stops it at its next batch; the next run goes on from there."""
        self._stop.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _archive(self, before: float) -> Archived:
        store = self._open_store()
        try:
            return archive(store, self._folder, before, self._progress)
        finally:
            store.close()

    def _progress(self, *_: object) -> None:
        if self._stop.is_set():
            raise ArchiveError("stopped; the next run goes on")

    def _ended(self, running: Future[Archived], now_s: float) -> None:
        try:
            done = running.result()
        except (ArchiveError, StoreError) as error:
            self._due_at = now_s + AGAIN_S
            self._log.event("error", "the archive failed; its rows stay in the store", detail=str(error))
            return
        if done.rows:
            self._log.event("info", "usage was archived", months=done.months, rows=done.rows)
