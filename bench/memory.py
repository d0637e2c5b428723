"""Scenario "memory": what an open stream costs while nothing is said on it."""

import asyncio

from bench.figures import Figure, say
from bench.processes import Failure
from bench.stand import Stand, Way
from bench.streams import Stream
from bench.wire import SILENT

GATE = 40.0
BATCH = 50
SETTLE_S = 1.0


async def measure(stand: Stand, *, streams: int, repeats: int) -> Figure:
    """Growth of the tree's unique memory (USS) per stream. What the first streams leave behind for good is not it."""
    found = {}
    for way in (stand.penstock, stand.nginx):
        await _grown_bytes(way, BATCH)
        found[way.name] = [await _grown_bytes(way, streams) / streams / 1024 for _ in range(repeats)]
        say(f"memory {way.name}: {[round(value, 1) for value in found[way.name]]} KB per stream")
    # The first growth is the honest one: later ones find memory that the allocator kept.
    ours = found["penstock"]
    more = {"streams": streams, "repeats_kb": found}
    return Figure(
        "memory", f"per idle open stream, {streams} of them", "KB", ours[0], found["nginx"][0],
        ours[0], "KB", min(ours), max(ours), GATE, more,
    )  # fmt: skip


async def _grown_bytes(way: Way, count: int) -> int:
    before = way.server.unique_bytes()
    streams: list[Stream] = []
    try:
        async with asyncio.timeout(60):
            while len(streams) < count:
                batch = [await Stream.open(way.streams, SILENT) for _ in range(min(BATCH, count - len(streams)))]
                streams += batch
                await asyncio.gather(*(stream.begun for stream in batch))
        await asyncio.sleep(SETTLE_S)
        if any(stream.ended.done() for stream in streams):
            raise Failure("a silent stream has ended")
        return way.server.unique_bytes() - before
    finally:
        for stream in streams:
            stream.close()
        await asyncio.sleep(SETTLE_S)
