"""What a key and a hit cost: reported, not judged. `pytest bench --benchmark-only`.

Why BLAKE3 and not SHA-256 makes the key, and the hashes' own times: head of ext/src/cache/key.rs. With Python's call,
reading and sorting (median us, Python 3.11.7, Linux 6.18, Intel Xeon model 207, 2 cores, garbage collection off):

| body                                         | 1 KB | 16 KB | 256 KB |  1 MB |
|----------------------------------------------|-----:|------:|-------:|------:|
| key of a chat in English                     |  2.2 |   5.7 |     78 |   304 |
| key of a chat in code (an escape in 6 bytes) |  3.5 |    28 |    395 | 1,599 |
| SHA-256 alone (hashlib, SHA-NI)              |  1.1 |   9.9 |    150 |   614 |

A hit of 2 KB read whole: 0.5 us; a miss: 0.09 us; 22 KB stored in place of another: 3.8 us; a stream of 1,000 chunks
read one by one: 95 us.
"""

import hashlib
import json
import time
from typing import Any

import pytest

from penstock.ext import BUILD_PROFILE, CacheClears, CacheEntry, CacheStore, cache_key

SIZES = [1 << 10, 16 << 10, 256 << 10, 1 << 20]
HOUR = 3_600 * 10**9


@pytest.fixture(autouse=True)
def _release_build() -> None:
    assert BUILD_PROFILE == "release", "a debug build tells nothing: SETUPTOOLS_RUST_CARGO_PROFILE=release"


def chat(size: int, text: str, compact: bool = False) -> bytes:
    """A chat request of about that size, as Python's json writes it or without white space."""
    separators = (",", ":") if compact else None
    body: dict[str, Any] = {"model": "llama3.1:8b", "messages": [], "temperature": 0.7, "max_tokens": 500}
    body["stream"] = True
    turns = max(2, size // 4096)
    content = (text * (size // turns))[: size // turns - 40]
    roles = ["user", "assistant"] * turns
    body["messages"] = [{"role": role, "content": content} for role in roles[:turns]]
    return json.dumps(body, ensure_ascii=False, separators=separators).encode()


TEXTS = {
    "English": ("lorem ipsum dolor sit amet, ", False),
    "English, no white space": ("lorem ipsum dolor sit amet, ", True),
    "code": ('if x == "a":\n\tprint(x)\n', False),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", TEXTS)
def test_cache_key(benchmark: Any, size: int, text: str) -> None:
    body = chat(size, *TEXTS[text])
    benchmark.extra_info["bytes"] = len(body)
    assert len(benchmark(cache_key, body, b"tenant", b"llama3.1:8b")) == 32


def test_cache_key_of_1_mb_of_numbers(benchmark: Any) -> None:
    body = json.dumps({"model": "m", "input": list(range(150_000))}).encode()
    assert len(benchmark(cache_key, body, b"tenant", b"m")) == 32


@pytest.mark.parametrize("size", SIZES)
def test_sha256_alone(benchmark: Any, size: int) -> None:
    body = chat(size, "lorem ipsum dolor sit amet, ")
    assert len(benchmark(lambda: hashlib.sha256(body).digest())) == 32


@pytest.fixture
def store() -> CacheStore:
    store = CacheStore(64 << 20, CacheClears("", b""), 8 << 20)
    for number in range(10_000):
        store.put(hashlib.sha256(b"%d" % number).digest(), b"m", b"t", b"h" * 200, [b"x" * 1_000] * 2, 0, 1, HOUR)
    return store


def test_hit(benchmark: Any, store: CacheStore) -> None:
    key = hashlib.sha256(b"9000").digest()

    def hit() -> bytes:
        entry = store.get(key, 2)
        assert isinstance(entry, CacheEntry)
        return entry.head + entry.body()

    assert len(benchmark(hit)) == 2_200


def test_miss(benchmark: Any, store: CacheStore) -> None:
    assert benchmark(store.get, bytes(32), 2, b"m") is None


def test_replay_of_a_stream_chunk_by_chunk(benchmark: Any, store: CacheStore) -> None:
    key = hashlib.sha256(b"stream").digest()
    store.put(key, b"m", b"t", b"", [b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'] * 1_000, 0, 1, HOUR)

    def replay() -> int:
        entry = store.get(key, 2)
        assert entry
        return sum(len(entry.chunk(index)) for index in range(entry.chunks))

    assert benchmark(replay) == 47_000


def test_put_where_another_must_go(benchmark: Any, store: CacheStore) -> None:
    keys = iter(range(10**9))
    chunks = [b"x" * 1_000] * 20

    def put() -> bool:
        key = hashlib.sha256(b"new %d" % next(keys)).digest()
        return store.put(key, b"m", b"t", b"h" * 200, chunks, 0, time.monotonic_ns(), HOUR)

    assert benchmark(put)
