"""The store's table ai_cache is told of kept answers on a timer: when they came, until when they hold, how often they
were given; what was answered only where the settings ask for it."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic_ns

from penstock.core.config import CacheFacts as Section
from penstock.ext import CacheStore
from penstock.proxy.log import Log
from penstock.proxy.store import CacheFact, Store, StoreError

SECOND = 1_000_000_000
# Facts in one transaction, some 10 ms in which other writers wait, and those that wait for a store that fails.
BATCH = 1_000
MOST_WAITING = 10_000
# Bodies that wait for the next flush, where they are asked for.
MOST_BODY_BYTES = 16_777_216
# Lines stay for so long after their answers have expired.
STAY_S = 86_400


class CacheFacts:
    """One per App. name: of this process, which no other has. wall_ns: since the epoch."""

    def __init__(
        self, kept: CacheStore, store: Store, section: Section, name: str, wall_ns: Callable[[], int], log: Log
    ) -> None:
        self._kept = kept
        self._store = store
        self._section = section
        self._name = name
        self._wall_ns = wall_ns
        self._log = log
        self._waiting: list[CacheFact] = []
        self._bodies: dict[bytes, bytes] = {}
        self._body_bytes = 0
        self._fails = False

    def note(self, key: bytes, chunks: Sequence[bytes]) -> None:
        """An answer is kept: what it says, if that is asked for."""
        size = sum(map(len, chunks)) if self._section.bodies else MOST_BODY_BYTES
        if self._body_bytes + size < MOST_BODY_BYTES:
            self._body_bytes += size
            self._bodies[key] = b"".join(chunks)

    async def run(self) -> None:
        """Again and again, while the App is the current one."""
        while True:
            await asyncio.sleep(self._section.flush_s)
            await self.flush()

    async def flush(self) -> None:
        """Tell what changed since the last time. What cannot be told now is told later."""
        while True:
            self._collect()
            facts, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                await asyncio.to_thread(self._store.keep_cache_facts, facts, self._wall_ns() / SECOND - STAY_S)
            except StoreError as error:
                self._waiting = facts + self._waiting
                self._failed(error)
                return
            self._fails = False
            if not self._waiting and len(facts) < BATCH:
                self._bodies, self._body_bytes = {}, 0
                return

    def _collect(self) -> None:
        if len(self._waiting) > MOST_WAITING:
            return
        since_boot_ns = self._wall_ns() - monotonic_ns()
        for key, model, stored_ns, expires_ns, hits in self._kept.facts(BATCH):
            body = self._bodies.pop(key, None)
            self._waiting.append(
                CacheFact(
                    key=key.hex(),
                    entry=f"{self._name}-{stored_ns}",
                    model=model.decode(errors="replace"),
                    created_at=(stored_ns + since_boot_ns) / SECOND,
                    expires_at=(expires_ns + since_boot_ns) / SECOND,
                    hits=hits,
                    response=None if body is None else body.decode(errors="replace"),
                )
            )

    def _failed(self, error: StoreError) -> None:
        if not self._fails:
            self._log.event("warning", "facts of kept answers wait for the store", detail=str(error))
        self._fails = True
