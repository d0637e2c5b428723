"""Faults of HTTP itself: odd heads, lengths that are not true, broken chunks, unasked-for codings."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from penstock.proxy.demo.answer import BLOCK_BYTES
from penstock.proxy.demo.fault import Fault, truncate
from penstock.proxy.demo.script import Ending, Framing, Script

_PADDING_LINE_BYTES = 4000


def slowhead(script: Script, fault: Fault) -> None:
    script.head_pause_s = (50 if fault.value is None else fault.value) / 1000


def contentlength(script: Script, fault: Fault) -> None:
    if script.framing is not Framing.LENGTH:
        script.opening, script.tokens = list(script.opening), list(script.tokens)
        script.closing = [*script.closing, script.end_mark]
        script.end_mark = b""
        script.length = sum(len(piece) for piece in script.pieces())
        script.framing = Framing.LENGTH


def shortlength(script: Script, fault: Fault) -> None:
    contentlength(script, fault)
    script.length += 10
    script.ending = Ending.CLOSE


def longlength(script: Script, fault: Fault) -> None:
    contentlength(script, fault)
    script.trailer = b"ten bytes!"


def badchunk(script: Script, fault: Fault) -> None:
    truncate(script, fault)
    script.framing = Framing.CHUNKED
    script.trailer = b"ZZ\r\nnot a chunk\r\n"
    script.ending = Ending.CLOSE


def twoheads(script: Script, fault: Fault) -> None:
    script.trailer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nunsolicited"


def hugehead(script: Script, fault: Fault) -> None:
    left = BLOCK_BYTES if fault.value is None else fault.value
    while left > 0:
        name = f"X-Demo-Padding-{len(script.headers)}"
        width = min(left, _PADDING_LINE_BYTES)
        script.headers.append((name, "x" * max(1, width - len(name) - 4)))
        left -= width


def gzip(script: Script, fault: Fault) -> None:
    squeezer = zlib.compressobj(wbits=31)  # 31: gzip's frame around deflate

    def squeezed(pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            # flushed each time, else the events of a stream would wait for each other
            yield squeezer.compress(piece) + squeezer.flush(zlib.Z_SYNC_FLUSH)

    def last(pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from squeezed(pieces)
        yield squeezer.flush()

    closing = [*script.closing, script.end_mark] if script.end_mark else script.closing
    script.opening, script.tokens, script.closing = (
        squeezed(script.opening),
        squeezed(script.tokens),
        last(closing),
    )
    script.end_mark = b""
    script.headers.append(("Content-Encoding", "gzip"))
    if script.framing is Framing.LENGTH:
        script.closing = list(script.closing)
        script.length = sum(map(len, script.closing))


def http10(script: Script, fault: Fault) -> None:
    script.version = "HTTP/1.0"
    script.keep_alive = False
    if script.framing is Framing.CHUNKED:
        script.framing = Framing.CLOSE
