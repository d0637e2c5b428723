"""What an endpoint gives back: a whole body or a stream of events, as data; sending it is another's work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import shake_128

import msgspec

BLOCK_BYTES = 64 * 1024
JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"

encode = msgspec.json.encode


class Refused(Exception):
    """The request gets an error as its answer."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class Blocks(msgspec.Struct, frozen=True):
    """A deterministic binary body of any size that is never in memory as a whole."""

    seed: bytes
    size: int

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        block = shake_128(self.seed).digest(min(self.size, BLOCK_BYTES))
        for left in range(self.size, 0, -BLOCK_BYTES):
            yield block[:left]


class Whole(msgspec.Struct):
    body: bytes | Blocks
    status: int = 200
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def pieces(self) -> Iterable[bytes]:
        """The body in blocks, so that a large one waits for a slow client."""
        if isinstance(self.body, Blocks):
            return self.body
        body = self.body
        return (body[i : i + BLOCK_BYTES] for i in range(0, len(body), BLOCK_BYTES))


class Stream(msgspec.Struct):
    opening: list[bytes]
    """Events before the first token."""
    tokens: Iterable[bytes]
    """One event per token; these are paced."""
    closing: list[bytes]
    """Events after the last token: finish reason, usage."""
    end_mark: bytes
    """What says that the reply is complete."""
    error: bytes
    """How this dialect says in the middle of a stream that it failed."""
    content_type: str = SSE_TYPE


Answer = Whole | Stream


def json_answer(value: object, status: int = 200) -> Whole:
    return Whole(encode(value), status)


def sse(value: object, event: str | None = None) -> bytes:
    if event is None:
        return b"data: %b\n\n" % encode(value)
    return b"event: %b\ndata: %b\n\n" % (event.encode(), encode(value))


def openai_error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def anthropic_error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return encode({"type": "error", "error": {"type": kind, "message": message}})
