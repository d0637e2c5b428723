"""The obvious store of answers: a dict, and S3-FIFO counted in blocks."""

from collections import Counter
from dataclasses import dataclass, field

from oracle.s3fifo import S3Fifo

BLOCK, HEADER = 512, 128


@dataclass
class Kept:
    """An answer, and who reads it."""

    model: bytes
    tenant: bytes
    head: bytes
    chunks: list[bytes]
    kind: int
    stored_ns: int
    expires_ns: int
    blocks: int
    hits: int = 0
    readers: int = 0
    gone: bool = False

    @property
    def size(self) -> int:
        return len(self.head) + sum(map(len, self.chunks))


@dataclass
class Counts:
    hits: Counter[bytes] = field(default_factory=Counter)
    misses: Counter[bytes] = field(default_factory=Counter)
    evictions: Counter[bytes] = field(default_factory=Counter)
    stored: Counter[bytes] = field(default_factory=Counter)


class Store(S3Fifo):
    """S3-FIFO that knows when an answer is too old, and of those that are read after they were removed."""

    def __init__(self, blocks: int, max_entry_bytes: int) -> None:
        super().__init__(blocks, use_to_stay=1)
        self.max_entry_bytes = max_entry_bytes
        self.kept: dict[bytes, Kept] = {}
        self.changed: dict[bytes, None] = {}
        self.counts = Counts()
        # Removed, and still read.
        self.read: list[Kept] = []
        self.now = 0

    def find(self, key: bytes, now: int, stored_from: int = 0, fresh_until: int = 0) -> Kept | None:
        kept = self.kept.get(key)
        if kept and kept.expires_ns <= now:
            self.remove(key)
            return None
        if not kept or kept.stored_ns < stored_from or kept.expires_ns < fresh_until:
            return None
        self.get(key)
        kept.hits += 1
        kept.readers += 1
        self.counts.hits[kept.model] += 1
        self.changed.setdefault(key)
        return kept

    def keep(self, key: bytes, kept: Kept, now: int) -> bool:
        bytes_ = HEADER + len(kept.model) + kept.size + 4 * len(kept.chunks)
        kept.blocks = -(-bytes_ // BLOCK)
        read = {id(other): other.blocks for other in [*self.kept.values(), *self.read] if other.readers}
        if kept.size > self.max_entry_bytes or kept.expires_ns == kept.stored_ns:
            return False
        if kept.blocks > self.capacity - sum(read.values()):
            return False
        self.now = now
        self.put(key, kept.blocks)
        self.kept[key] = kept
        self.counts.stored[kept.model] += 1
        self.changed.setdefault(key)
        return True

    def remove(self, key: bytes) -> None:
        super().remove(key)
        kept = self.kept.pop(key)
        self.changed.pop(key, None)
        kept.gone = True
        if kept.readers:
            self.used += kept.blocks
            self.read.append(kept)

    def let_go(self, kept: Kept) -> None:
        kept.readers -= 1
        if kept.gone and not kept.readers:
            self.read.remove(kept)
            self.used -= kept.blocks

    def evict_small(self) -> None:
        key = next(iter(self.small))
        if not self.is_over(key):
            self.count_if_it_leaves(key, self.use[key] < self.use_to_stay)
            super().evict_small()

    def evict_main(self) -> None:
        key = next(iter(self.main))
        if not self.is_over(key):
            self.count_if_it_leaves(key, self.use[key] == 0)
            super().evict_main()

    def is_over(self, key: bytes) -> bool:
        if self.kept[key].expires_ns > self.now:
            return False
        self.remove(key)
        return True

    def count_if_it_leaves(self, key: bytes, leaves: bool) -> None:
        self.counts.evictions[self.kept[key].model] += leaves

    def clear(self, model: bytes | None = None, tenant: bytes | None = None) -> None:
        for key, kept in list(self.kept.items()):
            if (model is None and tenant is None) or kept.model == model or kept.tenant == tenant:
                self.remove(key)

    def facts(self, limit: int) -> list[tuple[bytes, bytes, int, int, int]]:
        told = list(self.changed)[:limit]
        for key in told:
            del self.changed[key]
        kept = [(key, self.kept[key]) for key in told]
        return [(key, one.model, one.stored_ns, one.expires_ns, one.hits) for key, one in kept]
