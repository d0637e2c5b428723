"""Scenarios "first-byte" and "chunk-delay": what a client waits longer than without a proxy, in milliseconds."""

import asyncio
import socket
import time
from statistics import median, quantiles

from bench.figures import Figure, say
from bench.processes import Failure
from bench.stand import Stand, Way
from bench.stream import GAP_S
from bench.streams import Stream
from bench.wire import PACED, SHORT, request

FIRST_BYTE_GATE = 0.3
WARM = 50


async def first_byte(stand: Stand, *, requests: int) -> Figure:
    """One client, a connection to each, in turn. The thread blocks on its socket, so no event loop's delay is in it."""
    ways = (stand.direct, stand.penstock, stand.nginx)
    times = await asyncio.to_thread(_ask_in_turn, ways, requests)
    return _added("first-byte", "added to the first byte, one client", times, FIRST_BYTE_GATE)


def _ask_in_turn(ways: tuple[Way, ...], requests: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    sockets = [(way.name, socket.create_connection(("127.0.0.1", way.streams), 10)) for way in ways]
    try:
        asked = [(name, each, request(SHORT, each.getpeername()[1])) for name, each in sockets]
        for number in range(WARM + requests):
            for name, each, text in asked:
                took_s = _ask(each, text)
                if number >= WARM:
                    times[name].append(took_s)
    finally:
        for _, each in sockets:
            each.close()
    return times


def _ask(connection: socket.socket, text: bytes) -> float:
    """Seconds to the first byte of the answer; it is read to its end."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start = time.perf_counter()
    connection.sendall(text)
    data = connection.recv(65536)
    took_s = time.perf_counter() - start
    if not data.startswith(b"HTTP/1.1 200 "):
        raise Failure(f"not the expected answer: {data[:300]!r}")
    while not data.endswith(b"0\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            raise Failure("a stream was cut")
        data += more
    if b"[DONE]" not in data:
        raise Failure("a stream ended without its end mark")
    return took_s


async def chunk(stand: Stand, *, rounds: int, chunks: int) -> Figure:
    """One stream on each way at once, in different slots of the gap; delay = arrival - the upstream's stamp."""
    ways = (stand.direct, stand.penstock, stand.nginx)
    delays: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        streams = [(way.name, await Stream.open(way.streams, PACED, keep_delays=True)) for way in ways]
        async with asyncio.timeout(chunks * GAP_S + 10):
            await asyncio.gather(*(stream.ended for _, stream in streams))
        for name, stream in streams:
            stream.check(chunks)
            stream.close()
            delays[name] += stream.delays_s[1:]
    length = min(len(values) for values in delays.values())
    return _added("chunk-delay", "added to each chunk, one client", {n: v[:length] for n, v in delays.items()}, None)


def _added(scenario: str, what: str, times_s: dict[str, list[float]], gate: float | None) -> Figure:
    """Medians of (via a proxy - direct) over pairs that followed each other; low and high are quartiles."""
    added = {
        name: [(via - direct) * 1000 for via, direct in zip(times_s[name], times_s["direct"], strict=True)]
        for name in ("penstock", "nginx")
    }
    ours, theirs = median(added["penstock"]), median(added["nginx"])
    low, _, high = quantiles(added["penstock"])
    say(f"{scenario}: penstock +{ours:.3f} ms, nginx +{theirs:.3f} ms")
    medians = {name: median(values) * 1000 for name, values in times_s.items()}
    more = {"median_ms": medians, "pairs": len(added["penstock"]), "spread": "quartiles"}
    return Figure(scenario, what, "ms", ours, theirs, ours, "ms", low, high, gate, more)
