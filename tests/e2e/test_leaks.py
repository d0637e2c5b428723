"""After thousands of requests of every kind, with every kind of end, a worker is as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
import uvloop
from raw_client import JSON_TYPE, ask, chat_body, request, wait_until

from running import Demo, Penstock, config

REQUESTS = 2_000
TOGETHER = 32
GROWTH = 16 * 1024 * 1024

OCTETS = "Content-Type: application/octet-stream"


def chat(*lines: str, stream: bool = False) -> bytes:
    return request("POST", "/v1/chat/completions", chat_body(stream=stream), JSON_TYPE, *lines)


WHOLE = {
    "chat": chat(),
    "stream": chat("X-Demo-Tokens: 20", stream=True),
    "upload": request("POST", "/v1/echo", b"x" * 100_000, OCTETS),
    "status": chat("X-Demo-Fault: status=503"),
    "cut": chat("X-Demo-Fault: cut", stream=True),
    "reset": chat("X-Demo-Fault: reset"),
    "no end mark": chat("X-Demo-Fault: nodone", stream=True),
    "not HTTP": chat("X-Demo-Fault: badchunk", stream=True),
    "unknown model": request("POST", "/v1/chat/completions", b'{"model":"nobody"}', JSON_TYPE),
    "bad JSON": request("POST", "/v1/chat/completions", b"{", JSON_TYPE),
    "no such path": request("GET", "/nothing"),
    "refused early": request("POST", "/v1/echo", b"x" * 100_000, OCTETS, "X-Demo-Fault: early"),
}
LEFT = {
    "at once": chat(),
    "before the body": request("POST", "/v1/echo", b"", OCTETS, "Content-Length: 1000", length=False),
    "in the body": request("POST", "/v1/echo", b"", OCTETS, "Content-Length: 1000", length=False) + b"x" * 500,
    "before the head": chat("X-Demo-Fault: never"),
    "in the head": chat("X-Demo-Fault: slowhead=100"),
    "in the answer": chat("X-Demo-Fault: stall"),
    "in the stream": chat("X-Demo-Tokens: 10000", "X-Demo-Rate: 100", stream=True),
    "stalled stream": chat("X-Demo-Fault: stall", stream=True),
}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


@dataclass(frozen=True)
class Figures:
    """Of a worker. fds: open files but for the pool's idle connections, which are kept on purpose."""

    fds: int
    threads: int
    rss: int


def figures(worker: psutil.Process, backend_port: int) -> Figures:
    pooled = sum(bool(c.raddr) and c.raddr.port == backend_port for c in worker.net_connections("tcp4"))
    return Figures(worker.num_fds() - pooled, worker.num_threads(), worker.memory_info().rss)


def at_rest(demo: Demo, worker: psutil.Process) -> Figures:
    """The figures once no request is under way and two looks in a row see the same."""
    wait_until(lambda: demo.stats()["requests_active"] == 0)
    seen = figures(worker, demo.port)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        time.sleep(0.1)
        before, seen = seen, figures(worker, demo.port)
        if (before.fds, before.threads) == (seen.fds, seen.threads):
            break
    return seen


async def one(port: int, data: bytes, leaves_after_s: float | None) -> None:
    """A request to the end of its connection, or until the client has had enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        # "Connection: close", so that the answer's end is the connection's.
        writer.write(data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(leaves_after_s):
                while await reader.read(65_536):
                    pass
    finally:
        writer.transport.abort()


async def mixed(port: int, count: int, rng: random.Random) -> None:
    kinds = [(data, False) for data in WHOLE.values()] + [(data, True) for data in LEFT.values()]
    jobs = iter(rng.choices(kinds, k=count))

    async def work() -> None:
        for data, leaves in jobs:
            await one(port, data, rng.uniform(0, 0.05) if leaves else None)

    await asyncio.gather(*(work() for _ in range(TOGETHER)))


def test_nothing_is_left_behind(demo: Demo) -> None:
    with Penstock(config(demo.port, more='[log]\nlevel = "error"\n')) as proxy:
        assert ask(proxy.port, request("GET", "/health/live")).status == 200
        (worker,) = proxy.workers()
        rng = random.Random(7)
        uvloop.run(mixed(proxy.port, 600, rng))  # a worker that has met every kind of request
        before = at_rest(demo, worker)
        began = time.monotonic()
        uvloop.run(mixed(proxy.port, REQUESTS, rng))
        spent_s = time.monotonic() - began
        after = at_rest(demo, worker)
        print(f"{REQUESTS} requests in {spent_s:.1f} s; before {before}, after {after}")
        assert after.fds <= before.fds
        assert after.threads <= before.threads
        assert after.rss - before.rss < GROWTH
        assert demo.stats()["requests_active"] == 0
        assert demo.stats()["connections_open"] <= 100  # the pool's limit
        assert [process.pid for process in proxy.workers()] == [worker.pid]
        assert proxy.lines() == []  # no defect was met


def test_what_is_left_of_a_burst_is_only_the_pools_idle_connections(demo: Demo) -> None:
    text = config(demo.port, backend="[backends.demo.pool]\nmax_connections = 8\nidle_s = 0.2\n")
    with Penstock(text) as proxy:
        opened = demo.stats()["connections_open"]
        uvloop.run(burst(proxy.port))
        wait_until(lambda: demo.stats()["connections_open"] <= opened)


async def burst(port: int) -> None:
    await asyncio.gather(*(one(port, chat(), None) for _ in range(64)))
