"""The scenarios by name, and how long each takes in a full and in a short run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench import cached, delays, governed, memory, plain, stream
from bench.figures import Figure
from bench.stand import Stand


@dataclass(frozen=True)
class Scenario:
    """chunks: events of a paced stream, one every stream.GAP_S. limit_s: a run that takes longer is broken."""

    measure: Callable[[Stand], Awaitable[Figure | list[Figure]]]
    chunks: int = 1
    limit_s: float = 120


FULL: dict[str, Scenario] = {
    "plain": Scenario(lambda stand: plain.measure(stand, rounds=15, round_s=2, warm_s=2)),
    "governed": Scenario(lambda stand: governed.measure(stand, rounds=15, round_s=2, warm_s=2), limit_s=240),
    "parts": Scenario(lambda stand: governed.parts(stand, rounds=7, round_s=1.5, warm_s=1), limit_s=240),
    "cache": Scenario(lambda stand: cached.measure(stand, rounds=15, round_s=2, warm_s=2)),
    "stream": Scenario(lambda stand: stream.measure(stand, rounds=8, round_s=3, chunks=360), chunks=360),
    "memory": Scenario(lambda stand: memory.measure(stand, streams=1000, repeats=3)),
    "first-byte": Scenario(lambda stand: delays.first_byte(stand, requests=3000)),
    "chunk-delay": Scenario(lambda stand: delays.chunk(stand, rounds=5, chunks=300), chunks=300),
}
SHORT: dict[str, Scenario] = {
    "plain": Scenario(lambda stand: plain.measure(stand, rounds=3, round_s=0.7, warm_s=0.5), limit_s=30),
    "governed": Scenario(lambda stand: governed.measure(stand, rounds=2, round_s=0.7, warm_s=0.5), limit_s=60),
    "parts": Scenario(lambda stand: governed.parts(stand, rounds=1, round_s=0.4, warm_s=0.3), limit_s=60),
    "cache": Scenario(lambda stand: cached.measure(stand, rounds=3, round_s=0.7, warm_s=0.5), limit_s=30),
    "stream": Scenario(lambda stand: stream.measure(stand, rounds=1, round_s=1, chunks=130), chunks=130, limit_s=30),
    "memory": Scenario(lambda stand: memory.measure(stand, streams=300, repeats=1), limit_s=30),
    "first-byte": Scenario(lambda stand: delays.first_byte(stand, requests=200), limit_s=30),
    "chunk-delay": Scenario(lambda stand: delays.chunk(stand, rounds=1, chunks=100), chunks=100, limit_s=30),
}
