"""Eviction policies, slow and obvious: S3-FIFO (Yang et al., SOSP 2023) and W-TinyLFU (Einziger et al., 2017).

Each keeps keys with sizes in a capacity of the same unit: `get` says whether a key is there, `put` adds it.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from random import Random

MOST_USE = 3


class S3Fifo:
    """Three queues: small for what is new, main for what was used again, ghosts for keys that left the small one."""

    def __init__(self, capacity: int, use_to_stay: int = 2) -> None:
        """use_to_stay: hits in the small queue that bring a key to the main one (the paper: more than one)."""
        self.capacity = capacity
        self.use_to_stay = use_to_stay
        self.small: OrderedDict[bytes, int] = OrderedDict()
        self.main: OrderedDict[bytes, int] = OrderedDict()
        # A key, and how much was evicted until it was, itself too.
        self.ghosts: dict[bytes, int] = {}
        self.use: dict[bytes, int] = {}
        self.evicted = 0
        self.used = self.small_used = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self.use

    def get(self, key: bytes) -> bool:
        if key not in self.use:
            return False
        self.use[key] = min(self.use[key] + 1, MOST_USE)
        return True

    def put(self, key: bytes, size: int) -> None:
        if key in self.use:
            queue = self.main if key in self.main else self.small
            self.remove(key)
        else:
            marked = self.ghosts.pop(key, None)
            remembered = marked is not None and self.evicted - marked <= self.capacity - self.capacity // 10
            queue = self.main if remembered else self.small
        while self.capacity - self.used < size:
            self.evict()
        queue[key] = size
        self.use[key] = 0
        self.used += size
        self.small_used += size * (queue is self.small)

    def remove(self, key: bytes) -> None:
        del self.use[key]
        if key in self.small:
            self.small_used -= self.small[key]
            self.used -= self.small.pop(key)
        else:
            self.used -= self.main.pop(key)

    def evict(self) -> None:
        if self.small and (not self.main or self.small_used >= self.capacity // 10):
            self.evict_small()
        else:
            self.evict_main()

    def evict_small(self) -> None:
        key, size = next(iter(self.small.items()))
        if self.use[key] >= self.use_to_stay:
            del self.small[key]
            self.small_used -= size
            self.main[key] = size
            self.use[key] = 0
            return
        self.evicted += size
        self.ghosts[key] = self.evicted
        self.remove(key)

    def evict_main(self) -> None:
        key = next(iter(self.main))
        if self.use[key] == 0:
            self.remove(key)
            return
        self.use[key] -= 1
        self.main.move_to_end(key)


class WTinyLfu:
    """A window of 1 %, LRU; what leaves it must be asked for more often than what it would drive out of the main part.

    The main part is a segmented LRU, 80 % protected. How often: counted exactly, to 15, halved every 10 capacities.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.parts = {"window": OrderedDict[bytes, int](), "probation": OrderedDict[bytes, int]()}
        self.parts["protected"] = OrderedDict()
        room = max(1, capacity // 100)
        self.room = {"window": room, "protected": (capacity - room) * 8 // 10}
        self.used = Counter[str]()
        self.asked = Counter[bytes]()
        self.samples = 0

    def get(self, key: bytes) -> bool:
        self.ask(key)
        found = next((name for name, part in self.parts.items() if key in part), None)
        if found == "probation":
            self.enter("protected", key, self.leave(found, key))
            while self.used["protected"] > self.room["protected"]:
                self.enter("probation", *self.oldest("protected"))
        elif found:
            self.parts[found].move_to_end(key)
        return found is not None

    def put(self, key: bytes, size: int) -> None:
        self.enter("window", key, size)
        while self.used["window"] > self.room["window"]:
            self.admit(*self.oldest("window"))

    def admit(self, key: bytes, size: int) -> None:
        while self.used.total() + size > self.capacity:
            name = "probation" if self.parts["probation"] else "protected"
            victim = next(iter(self.parts[name]), None)
            if victim is None or self.asked[key] <= self.asked[victim]:
                return
            self.leave(name, victim)
        self.enter("probation", key, size)

    def ask(self, key: bytes) -> None:
        self.asked[key] = min(self.asked[key] + 1, 15)
        self.samples += 1
        if self.samples >= 10 * self.capacity:
            self.samples //= 2
            self.asked = Counter({key: count // 2 for key, count in self.asked.items() if count > 1})

    def enter(self, name: str, key: bytes, size: int) -> None:
        self.parts[name][key] = size
        self.used[name] += size

    def leave(self, name: str, key: bytes) -> int:
        size = self.parts[name].pop(key)
        self.used[name] -= size
        return size

    def oldest(self, name: str) -> tuple[bytes, int]:
        key = next(iter(self.parts[name]))
        return key, self.leave(name, key)


class Lru:
    """What both must beat."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used = capacity, 0
        self.keys: OrderedDict[bytes, int] = OrderedDict()

    def get(self, key: bytes) -> bool:
        if key in self.keys:
            self.keys.move_to_end(key)
        return key in self.keys

    def put(self, key: bytes, size: int) -> None:
        self.keys[key] = size
        self.used += size
        while self.used > self.capacity:
            self.used -= self.keys.popitem(last=False)[1]


def hit_rate(policy: S3Fifo | WTinyLfu | Lru, trace: Iterable[bytes], sizes: dict[bytes, int]) -> float:
    hits = [_asked(policy, key, sizes.get(key, 1)) for key in trace]
    return sum(hits) / len(hits)


def _asked(policy: S3Fifo | WTinyLfu | Lru, key: bytes, size: int) -> bool:
    found = policy.get(key)
    if not found:
        policy.put(key, size)
    return found


def zipf_with_scans(chance: Random, requests: int, keys: int, skew: float, scan: int, every: int) -> Iterator[bytes]:
    """Requests for `keys` keys, the k-th asked for 1 / k**skew as often as the first; after each `every` of them `scan`
    keys that are asked for this once."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    once = keys
    for start in range(0, requests, every):
        count = min(every, requests - start)
        for key in chance.choices(range(keys), cum_weights=weights, k=count):
            yield key.to_bytes(8)
        for _ in range(scan):
            once += 1
            yield once.to_bytes(8)
