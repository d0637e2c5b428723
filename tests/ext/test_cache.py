"""The store of answers: edges that a random history does not reach."""

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.ext import (
    CACHE_EVICTIONS,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_SHARED,
    CACHE_STORED,
    CLEAR_ALL,
    CLEAR_MODEL,
    CLEAR_TENANT,
    CacheClears,
    CacheStore,
)

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
TTL = 1_000


@pytest.fixture
def clears() -> CacheClears:
    return CacheClears("", b"boot")


@pytest.fixture
def store(clears: CacheClears) -> CacheStore:
    return CacheStore(1 << 20, clears, 1 << 17)


def put(store: CacheStore, key: bytes = KEY, body: bytes = b"body", now: int = 0, ttl: int = TTL, **more: int) -> bool:
    return store.put(key, b"m", b"t", b"head", [body], 3, now, ttl, **more)


def test_an_entry_is_given_back(store: CacheStore) -> None:
    chunks = [b"data: 1\n\n", b"", b"x" * 5_000, b"data: [DONE]\n\n"]
    assert store.put(KEY, b"m", b"t", b"head", chunks, 2**32 - 1, 5, TTL)
    entry = store.get(KEY, 17)
    assert entry
    assert (entry.head, entry.kind, entry.age_ns(17), entry.age_ns(0), entry.hits) == (b"head", 2**32 - 1, 12, 0, 1)
    assert [entry.chunk(index) for index in range(entry.chunks)] == chunks
    assert [entry.chunk(index) for index in (3, 1, 2, 0)] == [chunks[index] for index in (3, 1, 2, 0)]
    assert entry.body() == b"".join(chunks)
    with pytest.raises(IndexError):
        entry.chunk(4)
    assert store.get(OTHER, 17) is None


def test_an_entry_ends(store: CacheStore) -> None:
    put(store, now=100)
    assert store.get(KEY, 100 + TTL - 1)
    assert store.get(KEY, 100 + TTL) is None
    assert (store.entries, store.bytes) == (0, 0)


def test_an_entry_may_be_too_old_or_end_too_soon(store: CacheStore) -> None:
    put(store, now=100)
    assert store.get(KEY, 150, stored_from_ns=101) is None
    assert store.get(KEY, 150, stored_from_ns=100)
    assert store.get(KEY, 150, fresh_until_ns=101 + TTL) is None
    assert store.get(KEY, 150, fresh_until_ns=100 + TTL)
    assert store.entries == 1


def test_the_later_answer_counts(store: CacheStore) -> None:
    put(store)
    before = store.get(KEY, 0)
    put(store, body=b"later")
    after = store.get(KEY, 0)
    assert before and after
    assert (before.body(), after.body(), store.entries) == (b"body", b"later", 1)


@pytest.mark.parametrize("max_bytes", [0, 1, 500])
def test_no_room_at_all(clears: CacheClears, max_bytes: int) -> None:
    store = CacheStore(max_bytes, clears, 1_000)
    assert store.get(KEY, 0, b"m") is None
    assert not put(store)
    assert (store.entries, store.bytes, store.max_bytes, store.facts(5)) == (0, 0, max_bytes, [])


def test_what_is_not_stored(store: CacheStore) -> None:
    assert not put(store, ttl=0)
    assert not put(store, body=b"x" * ((1 << 17) - 3))
    assert put(store, body=b"x" * ((1 << 17) - 4))
    assert not store.put(OTHER, b"m" * 513, b"t", b"", [], 0, 0, TTL)
    with pytest.raises(ValueError, match="32 bytes"):
        put(store, key=b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        store.get(KEY + b"x", 0)
    with pytest.raises((OverflowError, ValueError)):
        store.put(KEY, b"m", b"t", b"", [], 2**32, 0, TTL)


def test_time_does_not_overflow(store: CacheStore) -> None:
    assert put(store, now=2**64 - 5, ttl=2**64 - 1)
    entry = store.get(KEY, 2**64 - 2)
    assert entry
    assert entry.expires_ns == 2**64 - 1


def test_an_evicted_entry_stays_for_its_reader(store: CacheStore) -> None:
    body = random.Random(1).randbytes(100_000)
    put(store, body=body)
    entry = store.get(KEY, 0)
    assert entry
    for number in range(1_000):
        key = hashlib.sha256(b"%d" % number).digest()
        put(store, key=key, body=b"x" * 10_000)
        store.get(key, 0)
    assert store.get(KEY, 0) is None
    assert entry.body() == body
    held = store.bytes
    del entry
    assert held - store.bytes >= 100_000


def test_what_is_read_is_not_made_room_of(clears: CacheClears) -> None:
    store = CacheStore(1 << 20, clears, 1 << 20)
    for number in range(10):
        assert put(store, key=number.to_bytes(32), body=b"x" * 90_000)
    reading = [store.get(number.to_bytes(32), 0) for number in range(10)]
    assert all(reading)
    assert not put(store, body=b"y" * 300_000)
    assert store.entries == 10
    del reading[:5]
    assert put(store, body=b"y" * 300_000)
    assert [entry.body() for entry in reading if entry] == [b"x" * 90_000] * 5


def test_entries_outlive_their_store(clears: CacheClears) -> None:
    store = CacheStore(1 << 20, clears, 1 << 17)
    put(store)
    entry = store.get(KEY, 0)
    assert entry
    del store
    assert entry.body() == b"body"
    del entry
    assert (clears.entries, clears.bytes) == (0, 0)


def test_clears(store: CacheStore, clears: CacheClears) -> None:
    def stored() -> list[bool]:
        return [store.get(bytes([number]) * 32, 0) is not None for number in range(4)]

    def fill() -> None:
        for number, (model, tenant) in enumerate([(b"a", b"x"), (b"a", b"y"), (b"b", b"x"), (b"b", b"y")]):
            store.put(bytes([number]) * 32, model, tenant, b"", [], 0, 0, TTL)

    fill()
    assert clears.clear(CLEAR_MODEL, b"a") == clears.generation == 1
    assert stored() == [False, False, True, True]
    fill()
    clears.clear(CLEAR_TENANT, b"x")
    assert stored() == [False, True, False, True]
    fill()
    clears.clear(CLEAR_MODEL, b"x")
    assert stored() == [True] * 4
    clears.clear(CLEAR_ALL)
    assert stored() == [False] * 4
    with pytest.raises(ValueError, match="CLEAR_"):
        clears.clear(3)


@pytest.mark.parametrize("clears_missed", [1, 62, 63, 64, 65, 200])
def test_a_store_that_is_far_behind_forgets_all(store: CacheStore, clears: CacheClears, clears_missed: int) -> None:
    put(store)
    for _ in range(clears_missed):
        clears.clear(CLEAR_MODEL, b"other")
    assert (store.get(KEY, 0) is None) == (clears_missed > 63)
    clears.clear(CLEAR_MODEL, b"m")
    assert store.get(KEY, 0) is None


def test_an_answer_asked_for_before_a_clear_is_not_stored(store: CacheStore, clears: CacheClears) -> None:
    since = clears.generation
    clears.clear(CLEAR_TENANT, b"other")
    assert put(store, since=since)
    clears.clear(CLEAR_TENANT, b"t")
    assert not put(store, since=since)
    assert put(store, since=clears.generation)
    assert store.entries == 1


def test_figures(store: CacheStore, clears: CacheClears) -> None:
    put(store)
    store.get(KEY, 0)
    store.get(KEY, 0, b"m")
    store.get(OTHER, 0)
    store.get(OTHER, 0, b"n")
    clears.count(b"m", CACHE_SHARED, 7)
    clears.count(b"n", CACHE_MISSES)
    assert sorted(clears.figures()) == [(b"m", 2, 0, 0, 7, 1), (b"n", 0, 2, 0, 0, 0)]
    assert [CACHE_HITS, CACHE_MISSES, CACHE_EVICTIONS, CACHE_SHARED, CACHE_STORED] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="CACHE_"):
        clears.count(b"m", 5)


def test_figures_of_more_models_than_there_is_room_for(clears: CacheClears) -> None:
    names = [b"model %d" % number for number in range(300)]
    for _ in range(2):
        for name in names:
            clears.count(name, CACHE_HITS)
    figures = clears.figures()
    assert [figure for figure in figures if figure[0]] == [(figure[0], 2, 0, 0, 0, 0) for figure in figures[:256]]
    assert {figure[0] for figure in figures[:256]} < set(names)
    assert figures[256:] == [(b"", 88, 0, 0, 0, 0)]


def test_a_long_name_is_cut(clears: CacheClears) -> None:
    clears.count(b"x" * 500, CACHE_HITS)
    assert clears.figures() == [(b"x" * 160, 1, 0, 0, 0, 0)]


def test_facts_are_told_once(store: CacheStore) -> None:
    put(store, now=5)
    put(store, key=OTHER, now=6)
    assert store.facts(1) == [(KEY, b"m", 5, 5 + TTL, 0)]
    store.get(KEY, 7)
    store.get(KEY, 8)
    assert store.facts(9) == [(OTHER, b"m", 6, 6 + TTL, 0), (KEY, b"m", 5, 5 + TTL, 2)]
    assert store.facts(9) == []


def test_a_scan_does_not_drive_out_what_is_used(store: CacheStore) -> None:
    used = [hashlib.sha256(b"%d" % number).digest() for number in range(100)]
    for key in used * 2:
        if store.get(key, 0) is None:
            put(store, key=key)
    for number in range(100, 20_000):
        put(store, key=hashlib.sha256(b"%d" % number).digest())
    assert sum(store.get(key, 0) is not None for key in used) == 100


def test_one_that_comes_drives_out_at_once_what_is_all_used() -> None:
    """2,000 used entries are spared for it, not 30,000 three times over."""
    store = CacheStore(16 << 20, CacheClears("", b""), 1 << 20)
    keys = [hashlib.sha256(b"%d" % number).digest() for number in range(31_000)]
    for key in keys:
        assert put(store, key=key)
        store.get(key, 0)
    assert put(store, body=b"x" * 1_000_000)
    entry = store.get(KEY, 0)
    assert entry
    assert entry.body() == b"x" * 1_000_000
    there = sum(store.get(key, 0) is not None for key in keys)
    assert 31_000 - 2_500 < there < 31_000


def test_more_than_there_is(clears: CacheClears) -> None:
    with pytest.raises(MemoryError):
        CacheStore(2**62, clears, 1)


def test_many_threads(clears: CacheClears) -> None:
    store = CacheStore(1 << 20, clears, 1 << 17)
    keys = [hashlib.sha256(b"%d" % number).digest() for number in range(64)]

    def use(seed: int) -> int:
        chance, found = random.Random(seed), 0
        for _ in range(3_000):
            key = chance.choice(keys)
            entry = store.get(key, 0)
            if entry is None:
                store.put(key, b"m", b"t", key, [key[:8] * 100] * (key[0] % 40), 0, 0, TTL)
            else:
                assert entry.head == key
                assert entry.body() == key[:8] * 100 * (key[0] % 40)
                found += 1
        return found

    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(use, range(4))) > 100


def test_a_foreign_file_is_made_anew(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "cache.shm")
    CacheClears(path, b"boot").clear(CLEAR_ALL)
    assert CacheClears(path, b"boot").generation == 1
    assert CacheClears(path, b"later boot").generation == 0
    with open(path, "wb") as file:
        file.write(b"rubbish")
    assert CacheClears(path, b"later boot").generation == 0
    with pytest.raises(OSError, match="No such file"):
        CacheClears(os.path.join(tmp_path, "none", "cache.shm"), b"boot")
