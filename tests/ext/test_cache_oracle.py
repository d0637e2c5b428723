"""CacheStore against its slow twin on random histories: what is there, what it counts, every byte that is read."""

import random

import pytest

from oracle import cache_store as oracle
from penstock.ext import CLEAR_ALL, CLEAR_MODEL, CLEAR_TENANT, CacheClears, CacheEntry, CacheStore

BLOCKS = 1_000
BYTES_PER_BLOCK = oracle.BLOCK + 14
STEPS = {"get": 40, "put": 40, "let go": 14, "pass": 3, "read": 8, "facts": 2, "clear": 0.2}
SETS = BLOCKS // 8 + 1
PUT_TOGETHER = 4


def keys(chance: random.Random, count: int) -> list[bytes]:
    """Not more in a set of ghosts than it has places for, so that the twin needs no sets."""
    found: list[bytes] = []
    taken = [0] * SETS
    while len(found) < count:
        key = chance.randbytes(32)
        own = int.from_bytes(key[-8:], "little") * SETS >> 64
        if taken[own] < PUT_TOGETHER:
            taken[own] += 1
            found.append(key)
    return found


class Pair:
    """Ours and the twin, and those that are being read."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.clears = CacheClears("", b"")
        self.ours = CacheStore(BLOCKS * BYTES_PER_BLOCK + 64, self.clears, 60_000)
        self.theirs = oracle.Store(BLOCKS, 60_000)
        self.keys = keys(chance, 150)
        self.now = 1_000
        self.read: list[tuple[CacheEntry, oracle.Kept]] = []

    def get(self) -> None:
        key = self.chance.choice(self.keys[: self.chance.choice([5, 40, 150])])
        rules = (0, 0) if self.chance.random() < 0.8 else (self.now - 200, self.now + 200)
        ours = self.ours.get(key, self.now, b"asked", *rules)
        theirs = self.theirs.find(key, self.now, *rules)
        assert (ours is None) == (theirs is None)
        if ours is None or theirs is None:
            self.theirs.counts.misses[b"asked"] += 1
            return
        self.read.append((ours, theirs))
        if len(self.read) > 30 or self.chance.random() < 0.7:
            del ours
            self.let_go(-1)

    def let_go(self, index: int) -> None:
        _, theirs = self.read.pop(index)
        self.theirs.let_go(theirs)

    def put(self) -> None:
        chance = self.chance
        length = chance.choice([0, 1, 40, 400, 511, 512, 3_000, 20_000])
        chunks = [chance.randbytes(chance.randint(0, length)) for _ in range(chance.choice([0, 1, 1, 3, 30]))]
        head = chance.randbytes(chance.choice([0, 20, 600]))
        model, tenant = chance.choice([b"", b"m", b"n" * 100]), chance.choice([b"s", b"t"])
        ttl = chance.choice([0, 50, 1_000, 10**6])
        kept = oracle.Kept(model, tenant, head, chunks, chance.randrange(2**32), self.now, self.now + ttl, 0)
        key = chance.choice(self.keys)
        stored = self.ours.put(key, model, tenant, head, chunks, kept.kind, self.now, ttl)
        assert stored == self.theirs.keep(key, kept, self.now)

    def clear(self) -> None:
        kind = self.chance.choice([CLEAR_ALL, CLEAR_MODEL, CLEAR_TENANT])
        self.clears.clear(kind, b"m" if kind == CLEAR_MODEL else b"t")
        self.theirs.clear(b"m" if kind == CLEAR_MODEL else None, b"t" if kind == CLEAR_TENANT else None)
        self.ours.get(self.keys[0], 0, None, 2**63)

    def do(self, what: str) -> None:
        match what:
            case "get":
                self.get()
            case "put":
                self.put()
            case "let go" if self.read:
                self.let_go(self.chance.randrange(len(self.read)))
            case "read" if self.read:
                same(*self.chance.choice(self.read), self.chance)
            case "pass":
                self.now += self.chance.randrange(300)
            case "facts":
                limit = self.chance.choice([0, 1, 10, 1_000])
                assert self.ours.facts(limit) == self.theirs.facts(limit)
            case "clear":
                self.clear()

    def check(self) -> None:
        assert self.ours.entries == len(self.theirs.kept) == self.clears.entries
        assert self.ours.bytes == self.theirs.used * oracle.BLOCK == self.clears.bytes
        counts = self.theirs.counts
        for model, hits, misses, evictions, shared, stored in self.clears.figures():
            assert (hits, misses) == (counts.hits[model], counts.misses[model])
            assert (evictions, shared, stored) == (counts.evictions[model], 0, counts.stored[model])


def same(ours: CacheEntry, theirs: oracle.Kept, chance: random.Random) -> None:
    assert (ours.head, ours.kind, ours.hits) == (theirs.head, theirs.kind, theirs.hits)
    assert (ours.stored_ns, ours.expires_ns) == (theirs.stored_ns, theirs.expires_ns)
    assert ours.chunks == len(theirs.chunks)
    assert ours.body() == b"".join(theirs.chunks)
    for index in [*range(ours.chunks), *chance.choices(range(ours.chunks), k=3 * (ours.chunks > 0))]:
        assert ours.chunk(index) == theirs.chunks[index]


@pytest.mark.parametrize("seed", range(20))
def test_any_history(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(chance)
    for what in chance.choices(list(STEPS), list(STEPS.values()), k=1_500):
        pair.do(what)
        pair.check()
    for ours, theirs in pair.read:
        same(ours, theirs, chance)
