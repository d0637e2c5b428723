"""An answer as it will go over the wire: status, framing, pieces, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain

from penstock.proxy.demo.answer import JSON_TYPE, Answer, Whole
from penstock.proxy.demo.http import Head, answer_head, has_body, reason

ErrorBody = Callable[..., bytes]
"""(status, message, param, code) → an error in the dialect of the endpoint."""


class Framing(Enum):
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    """The end of the connection is the end of the body."""


class Ending(Enum):
    DONE = auto()
    CLOSE = auto()
    """TCP closed in order, whatever the framing promised."""
    RESET = auto()
    """TCP reset."""
    STALL = auto()
    """Nothing more, for ever."""


@dataclass(slots=True)
class Script:
    status: int
    headers: list[tuple[str, str]]
    framing: Framing
    streamed: bool
    keep_alive: bool
    error_body: ErrorBody
    error: bytes
    """The dialect's in-band error: an event of a stream, or a whole body."""
    opening: Iterable[bytes] = ()
    tokens: Iterable[bytes] = ()
    closing: Iterable[bytes] = ()
    end_mark: bytes = b""
    length: int = 0
    bodyless: bool = False
    """The answer to HEAD."""
    version: str = "HTTP/1.1"
    silent: bool = False
    """Not even a head is sent."""
    head_pause_s: float = 0.0
    """Wait between two bytes of the head."""
    trailer: bytes = b""
    """Raw bytes behind the end of the body."""
    ending: Ending = field(default=Ending.DONE)

    def pieces(self) -> Iterable[bytes]:
        return chain(self.opening, self.tokens, self.closing, (self.end_mark,) if self.end_mark else ())

    def set_body(self, body: bytes, content_type: str) -> None:
        """A whole body in place of whatever there was."""
        self.headers = [("Content-Type", content_type)]
        self.framing, self.streamed = Framing.LENGTH, False
        self.opening, self.tokens, self.closing, self.end_mark = (), (), (body,), b""
        self.length = len(body)

    def fail(self, status: int, extra: list[tuple[str, str]]) -> None:
        """An error status in place of the answer."""
        self.status = status
        self.set_body(self.error_body(status, f"{reason(status)}, as asked for by a demo fault"), JSON_TYPE)
        self.headers += extra

    def head(self) -> bytes:
        headers = list(self.headers)
        if not has_body(self.status):
            pass
        elif self.framing is Framing.LENGTH:
            headers.append(("Content-Length", str(self.length)))
        elif self.framing is Framing.CHUNKED:
            headers.append(("Transfer-Encoding", "chunked"))
        if not self.keep_alive:
            headers.append(("Connection", "close"))
        return answer_head(self.status, headers, self.version)


def script_for(answer: Answer, head: Head, error_body: ErrorBody) -> Script:
    """The right answer; faults change it afterwards."""
    open_ended = Framing.CLOSE if head.version == "HTTP/1.0" else Framing.CHUNKED
    keep_alive = head.wants_keep_alive and head.version != "HTTP/1.0"
    if isinstance(answer, Whole):
        framing = open_ended if answer.chunked else Framing.LENGTH
        message = "the demo backend failed as asked"
        return Script(
            status=answer.status,
            headers=[("Content-Type", answer.content_type), *answer.headers],
            framing=framing,
            streamed=False,
            keep_alive=keep_alive,
            error_body=error_body,
            error=error_body(500, message),
            closing=answer.pieces(),
            length=len(answer.body),
            bodyless=head.method == "HEAD",
        )
    return Script(
        status=200,
        headers=[("Content-Type", answer.content_type), ("Cache-Control", "no-cache")],
        framing=open_ended,
        streamed=True,
        keep_alive=keep_alive,
        error_body=error_body,
        error=answer.error,
        opening=answer.opening,
        tokens=answer.tokens,
        closing=answer.closing,
        end_mark=answer.end_mark,
    )
