"""A client of raw bytes, for tests of what no HTTP library would send and of how exactly an answer ends."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

JSON_TYPE = "Content-Type: application/json"
END_CHUNK = b"0\r\n\r\n"


@dataclass
class Answer:
    """One response. `clean`: it ended as its framing says."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    wire: bytes
    clean: bool

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data of its server-sent events, as they came."""
        return sse_data(self.body)


def sse_data(body: bytes) -> list[str]:
    return [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]


def request(
    method: str,
    target: str,
    body: bytes = b"",
    *lines: str,
    host: str | None = "localhost",
    length: bool = True,
) -> bytes:
    """A request's bytes; Host and Content-Length are added unless switched off."""
    head = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        head.append(f"Host: {host}")
    head += lines
    if length and (body or method in ("POST", "PUT", "PATCH")):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + END_CHUNK


class RawClient:
    """One TCP connection. Reads give up after `timeout_s`, so that a hanging server fails a test and not the run."""

    def __init__(self, port: int, *, timeout_s: float = 5.0, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._buffer = b""
        self._wire = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def try_send(self, data: bytes) -> Self:
        """Send to a server that may have had enough already."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """The next final response; interim ones are passed over."""
        while True:
            self._wire = b""
            head = self._until(b"\r\n\r\n")
            first, *lines = head[:-4].decode("latin-1").split("\r\n")
            status = int(first.split(" ")[1])
            if status >= 200:
                break
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"", self._wire, True)
        body, clean = self._body({name.lower(): value for name, value in headers})
        return Answer(status, headers, body, self._wire, clean)

    def interim(self) -> bytes:
        """A head that comes before the final one."""
        return self._until(b"\r\n\r\n")

    def until(self, mark: bytes) -> bytes:
        return self._until(mark)

    def ended(self) -> bool:
        """The server closed, in whatever way; False if it still has not when the timeout is over."""
        try:
            while self._more():
                pass
        except TimeoutError:
            return False
        return True

    def rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self._more():
                pass
        data, self._buffer = self._buffer, b""
        return data

    def all(self, quiet_s: float = 0.1) -> bytes:
        """What comes until the connection ends, or until nothing more follows the first bytes."""
        with contextlib.suppress(OSError):
            while self._more():
                self.socket.settimeout(quiet_s)
        data, self._buffer = self._buffer, b""
        return data

    def _body(self, fields: dict[str, str]) -> tuple[bytes, bool]:
        try:
            if "transfer-encoding" in fields:
                return self._chunks()
            if "content-length" in fields:
                return self._exactly(int(fields["content-length"]))
        except ConnectionError:
            return b"", False
        return self.rest(), True

    def _chunks(self) -> tuple[bytes, bool]:
        parts = []
        while True:
            try:
                size = int(self._until(b"\r\n"), 16)
                part, whole = self._exactly(size)
                parts.append(part)
                if not whole:
                    break
                self._until(b"\r\n")
            except (ConnectionError, AssertionError):
                break
            if size == 0:
                return b"".join(parts), True
        return b"".join(parts), False

    def _exactly(self, size: int) -> tuple[bytes, bool]:
        while len(self._buffer) < size:
            try:
                if not self._more():
                    break
            except ConnectionError:
                break
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data, len(data) == size

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            assert self._more(), f"closed before {mark!r}: {self._buffer[-200:]!r}"
        end = self._buffer.index(mark) + len(mark)
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        return data

    def _more(self) -> bool:
        data = self.socket.recv(1 << 18)
        self._buffer += data
        self._wire += data
        return bool(data)


def ask(port: int, data: bytes, method: str = "GET") -> Answer:
    """Send a request on a connection of its own and read the answer."""
    with RawClient(port) as client:
        return client.try_send(data).answer(method)


def chat_body(*, stream: bool = False, **fields: Any) -> bytes:
    return json.dumps(
        {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": "Hello"}], **fields}
    ).encode()


def chat(port: int, *lines: str, stream: bool = False, **fields: Any) -> Answer:
    """A chat request on a connection of its own."""
    body = chat_body(stream=stream, **fields)
    return ask(port, request("POST", "/v1/chat/completions", body, JSON_TYPE, *lines))


def wait_until(met: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Wait for a condition; fails when it does not come about."""
    until = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < until, "the condition did not come about in time"
        time.sleep(0.01)
