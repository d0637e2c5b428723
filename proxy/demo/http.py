"""HTTP/1.1 as a server needs it: request heads and bodies out of bytes, heads of answers into bytes.

Correct for well-formed input and BadRequest for the rest. Bytes go in by `feed`; `head` and then `body`
give what is complete, so any split of the input gives the same result. Bytes of a next request simply
wait in the buffer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from http.client import responses
from typing import NamedTuple

MAX_HEAD_BYTES = 256 * 1024
MAX_LINE_BYTES = 8 * 1024
_TARGET = re.compile(r"[!-~]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

Headers = Iterable[tuple[str, str]]


class BadRequest(Exception):
    """The client sent something that is not HTTP/1.1."""


class Head(NamedTuple):
    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    """In the order and case they came in, latin-1."""
    fields: dict[str, str]
    """By lower-case name; repeated ones joined by a comma."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def is_chunked(self) -> bool:
        return "transfer-encoding" in self.fields

    @property
    def length(self) -> int:
        return int(self.fields.get("content-length", 0))

    @property
    def wants_keep_alive(self) -> bool:
        connection = self.fields.get("connection", "").lower()
        return "keep-alive" in connection if self.version == "HTTP/1.0" else "close" not in connection

    @property
    def expects_continue(self) -> bool:
        return self.fields.get("expect", "").lower() == "100-continue"


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class Parser:
    """The requests of one connection, one after another."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0
        self._chunked = False
        self._state = _State.SIZE

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    def head(self) -> Head | None:
        """The next request's head, None while it is not complete. Call it only after the last body's end."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest("the head is too long")
            return None
        head = parse_head(self._buffer[:end])
        self._buffer = self._buffer[end + 4 :]
        self._chunked, self._left = head.is_chunked, head.length
        self._state = _State.SIZE
        return head

    def body(self) -> bytes | None:
        """The next piece of the body, b"" at its end, None when more input is needed."""
        if self._chunked:
            return self._chunk()
        if not self._left:
            return b""
        return self._take() or None

    def _take(self) -> bytes:
        piece = self._buffer[: self._left]
        self._buffer = self._buffer[len(piece) :]
        self._left -= len(piece)
        return piece

    def _chunk(self) -> bytes | None:
        while self._state is not _State.DATA:
            line = self._line()
            if line is None:
                return None
            if self._state is _State.TRAILER and not line:
                self._chunked = False
                return b""
            self._step(line)
        piece = self._take()
        if not self._left:
            self._state = _State.DATA_END
        return piece or None

    def _step(self, line: bytes) -> None:
        """What a line between chunks means; trailers are read over."""
        if self._state is _State.SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadRequest("bad chunk size")
            self._left = int(match[1], 16)
            self._state = _State.DATA if self._left else _State.TRAILER
        elif self._state is _State.DATA_END:
            if line:
                raise BadRequest("chunk longer than its size")
            self._state = _State.SIZE

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise BadRequest("line too long")
            return None
        line = self._buffer[:end]
        self._buffer = self._buffer[end + 2 :]
        return line


def parse_head(raw: bytes) -> Head:
    lines = raw.decode("latin-1").split("\r\n")
    if raw.count(b"\n") != len(lines) - 1 or raw.count(b"\r") != len(lines) - 1:
        raise BadRequest("bare line break in the head")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not _TARGET.fullmatch(parts[1]) or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest("bad request line")
    headers: list[tuple[str, str]] = []
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name.split() != [name]:
            raise BadRequest("bad header line")
        value = value.strip(" \t")
        headers.append((name, value))
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    _check_framing(fields)
    return Head(parts[0], parts[1], parts[2], headers, fields)


def _check_framing(fields: dict[str, str]) -> None:
    """RFC 9112 §6.3: one length, or chunked, never both."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 19):
        raise BadRequest("bad Content-Length")
    if coding is not None and (coding.lower() != "chunked" or length is not None):
        raise BadRequest("bad Transfer-Encoding")


def answer_head(status: int, headers: Headers, version: str = "HTTP/1.1") -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{version} {status} {reason(status)}\r\n{lines}\r\n".encode("latin-1")


def reason(status: int) -> str:
    return responses.get(status, "Unknown")


def has_body(status: int) -> bool:
    """RFC 9110 §6.4.1: these statuses end with the head."""
    return status >= 200 and status not in (204, 304)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
