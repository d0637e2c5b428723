"""The worker's snapshot of all keys, those of the configuration file and those of the store: credential -> principal.

It is read again, as far as it changed, when the generation in shared memory rises, so that a revoked key ends in every
worker within the tick of `run`. Beyond `most` keys the rest is asked for one by one and kept in a bounded cache.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from penstock.core.errors import StoreUnavailable
from penstock.proxy.held import ELSEWHERE, NOBODY, UNREAD, Held, held_of
from penstock.proxy.store import KeyRecord, StoreError

TICK_S = 0.1
# What another host has changed, or a program that does not share our memory: that, too, holds within a second.
POLL_S = 0.5
RETRY_S = 1.0
MOST_HELD = 100_000
MOST_BORROWED = 10_000
MISSING_S = 1.0
# So many changed keys are taken in before requests get their turn: some 2 ms.
AT_ONCE = 1000


class KeySource(Protocol):
    """What the ring reads of a store. Calls block, and raise StoreError."""

    def keys_since(self, revision: int) -> Sequence[KeyRecord]: ...
    def key_by_hash(self, key_hash: str) -> KeyRecord | None: ...


class KeyRing:
    """One per worker; its methods are for the event loop's thread.

    store: None = the file's keys are all. generation: the number in shared memory that rises with each change of a
    key. monotonic: seconds, for pauses.
    """

    def __init__(
        self,
        store: KeySource | None,
        of_file: Iterable[Held],
        *,
        generation: Callable[[], int],
        monotonic: Callable[[], float],
        most: int = MOST_HELD,
        most_borrowed: int = MOST_BORROWED,
    ) -> None:
        self._store = store
        self._generation = generation
        self._monotonic = monotonic
        self._most = most
        self._most_borrowed = most_borrowed
        self.of_file = {held.digest: held for held in of_file}
        self._held = dict(self.of_file)
        self._digests: dict[str, tuple[bytes, ...]] = {}
        self._borrowed: dict[str, None] = {}
        self._missing: dict[bytes, float] = {}
        self._absent = NOBODY if store is None else UNREAD
        self._revision = 0
        self._afresh = True
        self._seen = -1
        self._changes = 0
        self._read_again_at = 0.0
        self.trouble = ""
        """What kept the store from being read the last time, for people; "" = nothing."""

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._held)} credentials at revision {self._revision} {self.trouble or 'well'}>"

    # --- on the way of every request

    def find(self, digest: bytes) -> Held:
        """What is held under a keyed hash, else NOBODY, UNREAD or ELSEWHERE: one look-up in any case."""
        return self._held.get(digest, self._absent)

    def may_be_elsewhere(self, held: Held) -> bool:
        """Whether the store may know what was not found: it has more keys than are held, or a change to be read."""
        return held is ELSEWHERE or (held is NOBODY and self._store is not None and self._generation() != self._seen)

    async def ask(self, digest: bytes) -> Held:
        """The store's word about a key that is ELSEWHERE. Raises StoreUnavailable."""
        if self._store is None or self._missing.get(digest, 0.0) > self._monotonic():
            return NOBODY
        if self.trouble:  # no request waits for what has just failed
            raise unavailable()
        changes = -1
        while changes != self._changes:  # a change that was read meanwhile may be newer than the answer
            changes = self._changes
            try:
                record = await asyncio.to_thread(self._store.key_by_hash, digest.hex())
            except (StoreError, ValueError):
                raise unavailable() from None
        if record is None:
            self._miss(digest)
            return NOBODY
        self._borrow(record)
        return self._held.get(digest, NOBODY)

    # --- in the background

    async def run(self) -> None:
        """Read what changes, for as long as the worker runs."""
        while True:
            await asyncio.sleep(TICK_S)
            if self.due():
                await self.refresh()

    def due(self) -> bool:
        """Whether `refresh` has something to do."""
        if self._store is None:
            return False
        if self._monotonic() >= self._read_again_at:
            return True
        return not self.trouble and self._generation() != self._seen

    async def refresh(self) -> None:
        """Take in the keys that changed in the store; if it cannot be read, all stays as it is. One call at a time."""
        if self._store is None:
            return
        generation = self._generation()  # before reading: what changes meanwhile is read the next time
        try:
            records = await asyncio.to_thread(self._store.keys_since, self._revision)
        except StoreError as error:
            self.trouble = str(error)
            if error.trouble == "moved":  # another database, with revisions of its own
                self._afresh, self._revision = True, 0
            self._read_again_at = self._monotonic() + RETRY_S
            return
        except ValueError:
            self.trouble = "the table of keys holds a value that is none: put a backup in its place"
            self._read_again_at = self._monotonic() + RETRY_S
            return
        await self._take_in(records)
        self.trouble = ""
        self._seen = generation
        self._read_again_at = self._monotonic() + POLL_S

    def forget_callers(self) -> None:
        """The configuration changed: what each key may do is decided anew."""
        for held in self._held.values():
            held.caller = None

    # --- parts

    async def _take_in(self, records: Sequence[KeyRecord]) -> None:
        if self._afresh:
            self._held, self._digests, self._borrowed = dict(self.of_file), {}, {}
            self._absent = NOBODY
        self._changes += 1
        self._missing.clear()
        for count, record in enumerate(records, 1):
            self._put(record)
            self._revision = record.revision
            if count % AT_ONCE == 0 and not self._afresh:
                await asyncio.sleep(0)
        self._afresh = False

    def _put(self, record: KeyRecord) -> None:
        """Hold a key as it is now, if it was held or there is room."""
        known = self._remove(record.id)
        if len(self._held) - len(self._borrowed) < self._most:
            self._borrowed.pop(record.id, None)
        elif not known:
            self._absent = ELSEWHERE
            return
        self._hold(record)

    def _remove(self, key_id: str) -> bool:
        digests = self._digests.pop(key_id, ())
        for digest in digests:
            self._held.pop(digest, None)
        return bool(digests)

    def _hold(self, record: KeyRecord) -> None:
        try:
            held = [each for each in held_of(record) if each.digest not in self.of_file]
        except ValueError:  # no hash: nobody can have that key
            held = []
        self._digests[record.id] = tuple(each.digest for each in held)
        self._held.update((each.digest, each) for each in held)

    def _borrow(self, record: KeyRecord) -> None:
        """Hold a key for a while: until so many others were asked for."""
        if not self._remove(record.id):
            self._borrowed[record.id] = None
        self._hold(record)
        if len(self._borrowed) > self._most_borrowed:
            oldest = next(iter(self._borrowed))
            del self._borrowed[oldest]
            self._remove(oldest)

    def _miss(self, digest: bytes) -> None:
        if len(self._missing) >= self._most_borrowed:
            self._missing.clear()
        self._missing[digest] = self._monotonic() + MISSING_S


def unavailable() -> StoreUnavailable:
    return StoreUnavailable("the store of keys cannot be read now; try again in a moment", retry_after_s=1)
