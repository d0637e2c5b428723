"""Scenario "stream": CPU time per streamed chunk, 48 streams at once; each chunk is a read and a write of its own."""

import asyncio

from bench.figures import Figure, Ratios, say
from bench.stand import Stand, Way
from bench.streams import Stream
from bench.wire import PACED

STREAMS = 48
GAP_S = 0.01
GATE = 1.5


async def measure(stand: Stand, *, rounds: int, round_s: float, chunks: int) -> Figure:
    """Rounds of penstock and nginx in turn. `chunks` is what the stand's upstream sends per stream."""
    ways = (stand.penstock, stand.nginx)
    cost: dict[str, list[float]] = {way.name: [] for way in ways}
    per_read: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        await _round(way, round_s, chunks)
    for number in range(rounds):
        for way in ways:
            cpu_s, chunks_per_read = await _round(way, round_s, chunks)
            cost[way.name].append(cpu_s)
            per_read[way.name].append(chunks_per_read)
        say(f"stream {number + 1}/{rounds}: {cost['penstock'][-1] * 1e6:.1f} : {cost['nginx'][-1] * 1e6:.1f} µs")
    more = {"chunks_per_read": per_read, "chunks_per_s": round(STREAMS / GAP_S)}
    return Ratios("stream", f"CPU per chunk, {STREAMS} streams", cost, GATE, more=more).figure()


async def _round(way: Way, seconds: float, chunks: int) -> tuple[float, float]:
    """CPU seconds per chunk, and chunks per read of the client's. Opening and closing are left out."""
    streams = [await Stream.open(way.streams, PACED) for _ in range(STREAMS)]
    async with asyncio.timeout(10):
        await asyncio.gather(*(stream.begun for stream in streams))
    await asyncio.sleep(10 * GAP_S)
    cpu_s = way.server.cpu_s()
    await asyncio.sleep(seconds)
    used_s = way.server.cpu_s() - cpu_s
    async with asyncio.timeout(chunks * GAP_S + 10):
        await asyncio.gather(*(stream.ended for stream in streams))
    for stream in streams:
        stream.check(chunks)
        stream.close()
    return used_s / (STREAMS * seconds / GAP_S), STREAMS * chunks / sum(stream.reads for stream in streams)
