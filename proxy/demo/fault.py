"""One fault as asked for, and the cut that several of them make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from penstock.proxy.demo.script import Script


class Fault(msgspec.Struct, frozen=True):
    name: str
    value: int | None = None
    """`status=503`, `hugehead=100000`: the number behind the name."""
    after: int | None = None
    """How many tokens (streams) or bytes (whole bodies) go out before it happens."""
    retry_after: str | None = None


def truncate(script: Script, fault: Fault) -> None:
    """Without `after`: three tokens of a stream, half of a whole body. The declared length stays."""
    if script.streamed:
        script.tokens = islice(script.tokens, 3 if fault.after is None else fault.after)
        script.closing, script.end_mark = (), b""
    else:
        script.closing = _take(script.closing, script.length // 2 if fault.after is None else fault.after)


def _take(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)
