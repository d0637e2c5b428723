"""Backends close idle connections whenever they like, also as the next request arrives: never a client's error.

The full size is its own command: PENSTOCK_SOAK=1 pytest tests/e2e/test_stale.py -rP
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop
from raw_client import JSON_TYPE, chat_body, chunked, request

from running import Demo, Penstock, config

REQUESTS = 20_000 if os.environ.get("PENSTOCK_SOAK") else 2_000
CONNECTIONS = 64
OCTETS = "Content-Type: application/octet-stream"


@pytest.fixture(scope="module")
def flaky() -> Iterator[Demo]:
    """Every second answer is followed by a close: a little later, or exactly when the next request comes."""
    with Demo("--rate", "0", "--idle-close-probability", "0.5", "--seed", "7") as process:
        yield process


@pytest.fixture(scope="module")
def proxy(flaky: Demo) -> Iterator[Penstock]:
    with Penstock(config(flaky.port)) as process:
        yield process


class Client:
    """A keep-alive connection that reads answers of known shape, fast."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send a request: status and body of the answer."""
        self._writer.write(data)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            return status, await self._reader.readuntil(b"\r\n0\r\n\r\n")
        _, _, rest = head.partition(b"content-length: ")
        return status, await self._reader.readexactly(int(rest.partition(b"\r\n")[0]))


async def spread(port: int, count: int, connections: int, ask: Callable[[Client, int], Awaitable[None]]) -> None:
    """`count` requests over so many connections, each taking the next number when it is free."""
    numbers = iter(range(count))

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        try:
            for number in numbers:
                await ask(Client(reader, writer), number)
        finally:
            writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))


def test_streams(flaky: Demo, proxy: Penstock) -> None:
    chat = request("POST", "/v1/chat/completions", chat_body(stream=True), JSON_TYPE, "X-Demo-Tokens: 5")
    failed: list[tuple[int, bytes]] = []

    async def ask(client: Client, number: int) -> None:
        status, body = await client.ask(chat)
        if status != 200 or b"data: [DONE]\n\n" not in body:
            failed.append((status, body[-300:]))

    before = flaky.stats()["connections_total"]
    began = time.monotonic()
    uvloop.run(spread(proxy.port, REQUESTS, CONNECTIONS, ask))
    spent_s = time.monotonic() - began
    opened = flaky.stats()["connections_total"] - before
    print(f"{REQUESTS} streams over {CONNECTIONS} connections in {spent_s:.1f} s, {opened} backend connections")
    assert failed == []
    assert opened > REQUESTS // 5  # else the backend did not close as it should, and this proves nothing
    assert sum(line.get("attempts", 1) > 1 for line in proxy.lines()) > REQUESTS // 20


@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_large_bodies_that_are_held(flaky: Demo, proxy: Penstock, size: int) -> None:
    body = json.dumps({"model": "demo", "padding": "x" * size}).encode()
    echo = request("POST", "/v1/echo", body, JSON_TYPE)

    async def ask(client: Client, number: int) -> None:
        status, answer = await client.ask(echo)
        assert (status, json.loads(answer)["body_bytes"]) == (200, len(body))

    uvloop.run(spread(proxy.port, 20_000_000 // size if size > 1_000_000 else 100, 8, ask))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_uploads(flaky: Demo, proxy: Penstock, framing: str) -> None:
    data = os.urandom(50_000)
    if framing == "length":
        upload = request("POST", "/v1/echo", data, OCTETS)
    else:
        upload = request("POST", "/v1/echo", b"", OCTETS, "Transfer-Encoding: chunked", length=False) + chunked(data)

    async def ask(client: Client, number: int) -> None:
        status, answer = await client.ask(upload)
        assert (status, json.loads(answer)["body_bytes"]) == (200, len(data)), answer

    uvloop.run(spread(proxy.port, 200, 8, ask))


def test_uploads_that_wait_for_a_place(flaky: Demo) -> None:
    """What a neighbour gives back has served before, and an upload cannot be sent twice."""
    upload = request("POST", "/v1/echo", os.urandom(50_000), OCTETS)
    failed: list[tuple[int, bytes]] = []

    async def ask(client: Client, number: int) -> None:
        status, answer = await client.ask(upload)
        if status != 200:
            failed.append((status, answer))

    limits = "[backends.demo.pool]\nmax_connections = 2\n[backends.demo.timeout]\nconnect_s = 30\n"
    with Penstock(config(flaky.port, backend=limits)) as proxy:
        uvloop.run(spread(proxy.port, 200, 16, ask))
    assert failed == []


def test_held_bodies_that_wait_for_a_place(flaky: Demo) -> None:
    chat = request("POST", "/v1/chat/completions", chat_body(), JSON_TYPE)
    failed: list[tuple[int, bytes]] = []

    async def ask(client: Client, number: int) -> None:
        status, answer = await client.ask(chat)
        if status != 200:
            failed.append((status, answer))

    limits = "[backends.demo.pool]\nmax_connections = 2\n[backends.demo.timeout]\nconnect_s = 30\n"
    with Penstock(config(flaky.port, backend=limits)) as proxy:
        uvloop.run(spread(proxy.port, 500, 16, ask))
    assert failed == []
