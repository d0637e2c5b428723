"""A demo backend in a thread, and raw sockets to talk to it, for tests that look at the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvloop

from penstock.proxy.demo import DemoOptions, Server, start

NOW_S = 1_700_000_000


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Server]:
    """Streams without pacing unless `rate` says otherwise."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    chosen = DemoOptions(**{"rate": 0, "seed": 1, **options})
    starting = start(options=chosen, clock=lambda: NOW_S)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(5)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.call_later, 0.001, loop.stop)  # after the connections' ends
        thread.join(5)
        loop.close()


class Raw:
    """One connection, read as bytes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=2)
        self.ended = ""
        """After `all`: "closed", "reset", or "open" where nothing more came for a while."""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> Raw:
        lines = [f"{method} {target} HTTP/1.1", "Host: demo"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body and "Transfer_Encoding" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self

    def chat(self, fault: str = "", *, stream: bool = False, message: str = "one two", **headers: str) -> Raw:
        body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": message}]}
        if fault:
            headers["X_Demo_Fault"] = fault
        return self.send("POST", "/v1/chat/completions", json.dumps(body).encode(), **headers)

    def some(self) -> bytes:
        return self.socket.recv(1 << 20)

    def until(self, mark: bytes) -> bytes:
        data = bytearray()
        searched = 0
        while data.find(mark, searched) < 0:
            searched = max(0, len(data) - len(mark))
            more = self.some()
            assert more, f"closed before {mark!r}: {data[-200:]!r}"
            data += more
        return bytes(data)

    def all(self, first_s: float = 2.0, idle_s: float = 0.02) -> bytes:
        """To the end of the connection, or until nothing comes for `idle_s` after what came first."""
        self.socket.settimeout(first_s)
        data, self.ended = b"", "closed"
        try:
            while more := self.some():
                data += more
                self.socket.settimeout(idle_s)
        except TimeoutError:
            self.ended = "open"
        except ConnectionResetError:
            self.ended = "reset"
        self.socket.settimeout(2)
        return data


def split(raw: bytes) -> tuple[bytes, bytes]:
    """Head and body."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    assert mark, raw
    return head, body


def unchunk(body: bytes) -> tuple[list[bytes], bytes]:
    """The chunks, and what is left behind the last complete one (b"" after a clean end)."""
    chunks, at = [], 0
    while True:
        end = body.find(b"\r\n", at)
        try:
            size = int(body[at:end], 16) if end >= 0 else -1
        except ValueError:
            size = -1
        start = end + 2
        if size < 0 or len(body) < start + size + 2:
            return chunks, body[at:] or b"<no last chunk>"
        if size == 0:
            return chunks, body[start + 2 :]
        chunks.append(body[start : start + size])
        at = start + size + 2


def events(chunks: list[bytes]) -> list[Any]:
    """The JSON of SSE events; [DONE] as a text."""
    found = [line[6:] for line in b"".join(chunks).split(b"\n") if line.startswith(b"data: ")]
    return ["[DONE]" if data == b"[DONE]" else json.loads(data) for data in found]
