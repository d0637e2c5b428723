"""How often the store finds what it is asked for, against S3-FIFO and W-TinyLFU as their authors describe them."""

import hashlib
import random
from collections.abc import Iterable

import pytest

from oracle.s3fifo import Lru, S3Fifo, WTinyLfu, hit_rate, zipf_with_scans
from penstock.ext import CacheClears, CacheStore

BLOCK, BYTES_PER_BLOCK = 512, 526


def ours(blocks: int, trace: Iterable[bytes], sizes: dict[bytes, int]) -> float:
    store = CacheStore(blocks * BYTES_PER_BLOCK + 64, CacheClears("", b""), 1 << 20)
    found = []
    for name in trace:
        key = hashlib.sha256(name).digest()
        found.append(store.get(key, 1) is not None)
        if not found[-1]:
            store.put(key, b"m", b"t", b"", [bytes(BLOCK * sizes.get(name, 1) - 200)], 0, 1, 10**9)
    return sum(found) / len(found)


@pytest.mark.parametrize("scan", [0, 1_000], ids=["no scans", "scans"])
@pytest.mark.parametrize("skew", [0.8, 1.0])
@pytest.mark.parametrize("mixed", [False, True], ids=["one size", "sizes"])
def test_a_zipf_trace(scan: int, skew: float, mixed: bool) -> None:
    """Within 5 % of the better one, and above LRU."""
    chance = random.Random(3)
    trace = list(zipf_with_scans(chance, requests=40_000, keys=20_000, skew=skew, scan=scan, every=2_000))
    sizes = {key: chance.choice([1, 1, 1, 2, 3, 8, 20]) for key in sorted(set(trace))} if mixed else {}
    blocks = 4_000 if mixed else 1_000
    rates = {
        "ours": ours(blocks, trace, sizes),
        "S3-FIFO": hit_rate(S3Fifo(blocks), trace, sizes),
        "W-TinyLFU": hit_rate(WTinyLfu(blocks), trace, sizes),
        "LRU": hit_rate(Lru(blocks), trace, sizes),
    }
    print({name: round(rate, 4) for name, rate in rates.items()})
    assert rates["ours"] >= 0.95 * max(rates["S3-FIFO"], rates["W-TinyLFU"])
    assert rates["ours"] > rates["LRU"]
