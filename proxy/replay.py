"""A kept answer, given again: in one piece where that is possible, and as a stream or whole, whichever is asked for."""

import asyncio
import re
from collections.abc import Awaitable, Iterable, Sequence

from penstock.core.replay import NotConvertibleError, is_streamed, media_of, stream_of, whole_of
from penstock.ext import (
    DIALECT_CHAT,
    DIALECT_OLLAMA,
    MEDIA_EVENT_STREAM,
    MEDIA_JSON,
    MEDIA_NDJSON,
    MEDIA_OTHER,
    CacheEntry,
    UsageRemover,
)
from penstock.proxy.exchange import RATE_HEADERS, Exchange
from penstock.proxy.flight import EVENTS, LINES, OTHER, WHOLE

# Up to here an answer goes out in one piece; above, a client may be slow, and what it has not read should not be held
# twice.
ONE_PIECE_BYTES = 262_144
MEDIA = {WHOLE: MEDIA_JSON, EVENTS: MEDIA_EVENT_STREAM, LINES: MEDIA_NDJSON, OTHER: MEDIA_OTHER}
STREAMED = (EVENTS, LINES)
EVENT_ENDS = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")
LINE_ENDS = re.compile(rb"(?<=\n)")


# --- what the client asks for


def wanted_kind(exchange: Exchange) -> int:
    """In which form it wants a model's answer."""
    endpoint, peek = exchange.endpoint, exchange.peek
    if endpoint is None or peek is None:
        return WHOLE
    if endpoint.dialect == DIALECT_OLLAMA:
        return LINES if is_streamed(endpoint, peek.stream) else WHOLE
    return EVENTS if peek.stream and is_streamed(endpoint, True) else WHOLE


def wants_usage(exchange: Exchange) -> bool:
    return exchange.peek is not None and exchange.peek.include_usage


# --- forms


def as_stream(exchange: Exchange, body: bytes) -> list[bytes] | None:
    """A whole answer as the events, or lines, of a stream; None if it cannot be told as one."""
    endpoint = exchange.endpoint
    if endpoint is None or endpoint.dialect is None:
        return None
    try:
        return stream_of(endpoint.dialect, endpoint.route, body, wants_usage(exchange))
    except NotConvertibleError:
        return None


def as_whole(exchange: Exchange, chunks: Sequence[bytes]) -> bytes | None:
    """A stream as the whole answer; None if it cannot be told as one."""
    endpoint = exchange.endpoint
    if endpoint is None or endpoint.dialect is None:
        return None
    try:
        return whole_of(endpoint.dialect, endpoint.route, chunks)
    except NotConvertibleError:
        return None


def content_type(exchange: Exchange, kind: int) -> bytes:
    """Of an answer in another form than the backend gave it."""
    dialect = DIALECT_CHAT if exchange.endpoint is None else exchange.endpoint.dialect
    return media_of(DIALECT_CHAT if dialect is None else dialect, streamed=kind in STREAMED)


# --- an entry

# What an entry is called by the store, which takes any number: its kind, and its size in bytes.
KIND_BITS = 2
KINDS = (1 << KIND_BITS) - 1
MOST_BYTES = (1 << (32 - KIND_BITS)) - 1


def mark(kind: int, size: int) -> int:
    return size << KIND_BITS | kind


def size_of(entry: CacheEntry) -> int:
    """Of its body."""
    return entry.kind >> KIND_BITS


def replay(
    entry: CacheEntry, exchange: Exchange, age_s: int, chunks_per_s: float, wanted: int, told: bytes | None
) -> Awaitable[None]:
    """Answer with an entry. told: its body in the form `wanted`, where that is another than it has; None = as it is.

    chunks_per_s: how fast a stream goes; 0 = at once.
    """
    lines, streams = entry.head, wanted in STREAMED
    exchange.media = MEDIA[wanted]
    if told is not None:
        lines = b"content-type: %b\r\n%b" % (content_type(exchange, wanted), _without_type(lines))
    elif streams and chunks_per_s:
        parts = _without_usage(_events(entry, wanted), exchange)
        return _in_parts(exchange, _as_headers(lines, age_s, exchange), parts, chunks_per_s)
    elif (size := size_of(entry)) > ONE_PIECE_BYTES and entry.chunks > 1:
        headers = _as_headers(lines, age_s, exchange)
        if not streams:
            headers.append((b"content-length", b"%d" % size))
        return _in_parts(exchange, headers, _without_usage(_pieces(entry), exchange), 0)
    body = entry.body() if told is None else told
    if told is None and wanted == EVENTS and _has_usage(exchange):
        remover = UsageRemover()
        body = remover.feed(body) + remover.finish()
    exchange.answer_bytes = len(body)
    return exchange.answer_stored(lines, age_s, body, streams) or _at_once(exchange, lines, age_s, body, streams)


def in_form(entry: CacheEntry, exchange: Exchange, wanted: int) -> bytes | None:
    """An entry's body in another form than it has; None if it cannot be told so."""
    if wanted == WHOLE:
        return as_whole(exchange, [entry.chunk(index) for index in range(entry.chunks)])
    events = as_stream(exchange, entry.body())
    return None if events is None else b"".join(events)


def _has_usage(exchange: Exchange) -> bool:
    """A kept stream has a chunk of usage that this client did not ask for."""
    endpoint = exchange.endpoint
    return endpoint is not None and endpoint.dialect == DIALECT_CHAT and not wants_usage(exchange)


def _without_usage(parts: Iterable[bytes], exchange: Exchange) -> Iterable[bytes]:
    if exchange.media != MEDIA_EVENT_STREAM or not _has_usage(exchange):
        yield from parts
        return
    remover = UsageRemover()
    for part in parts:
        if kept := remover.feed(part):
            yield kept
    yield remover.finish()


def _events(entry: CacheEntry, kind: int) -> Iterable[bytes]:
    """Its events or lines, one by one, and broken where the backend's own pieces ended."""
    ends = LINE_ENDS if kind == LINES else EVENT_ENDS
    for index in range(entry.chunks):
        yield from ends.split(entry.chunk(index))


def _pieces(entry: CacheEntry) -> Iterable[bytes]:
    """Its chunks, some joined; read from the entry as they are needed."""
    held: list[bytes] = []
    size = 0
    for index in range(entry.chunks):
        held.append(entry.chunk(index))
        size += len(held[-1])
        if size >= ONE_PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


async def _in_parts(
    exchange: Exchange, headers: list[tuple[bytes, bytes]], parts: Iterable[bytes], per_s: float
) -> None:
    """Part by part, while the client keeps up. per_s: 0 = as fast as it can."""
    await exchange.start(200, headers)
    for part in parts:
        if part:
            exchange.answer_bytes += len(part)
            await exchange.write(part)
            await asyncio.sleep(1 / per_s if per_s else 0)
    await exchange.finish()


async def _at_once(exchange: Exchange, lines: bytes, age_s: int, body: bytes, streams: bool) -> None:
    """Where the listener is not our own."""
    headers = _as_headers(lines, age_s, exchange)
    if not streams:
        headers.append((b"content-length", b"%d" % len(body)))
    await exchange.start(200, headers)
    await exchange.finish(body)


# --- heads


# What an entry's head has not: framing, what is one client's, limits and marks of others, and what is said anew.
LEFT_OUT = RATE_HEADERS | {
    b"content-length",
    b"set-cookie",
    b"x-request-id",
    b"x-cache",
    b"age",
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
}
OURS = b"x-penstock-"


def head_of(headers: Iterable[tuple[bytes, bytes]], date: bytes) -> bytes:
    """An answer's header lines as an entry has them. date: when the answer came, if it does not say so."""
    kept = [line for line in headers if line[0] not in LEFT_OUT and not line[0].startswith(OURS)]
    if not any(name == b"date" for name, _ in kept):
        kept.append((b"date", date))
    return b"".join(b"%b: %b\r\n" % line for line in kept)


def _without_type(lines: bytes) -> bytes:
    return b"".join(line for line in lines.splitlines(keepends=True) if not line.startswith(b"content-type:"))


def _as_headers(lines: bytes, age_s: int, exchange: Exchange) -> list[tuple[bytes, bytes]]:
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]
    if exchange.cors:
        headers = [line for line in headers if not line[0].startswith(b"access-control-")]
        headers.extend(exchange.cors)
    return [*headers, (b"x-cache", b"HIT"), (b"age", b"%d" % age_s), (b"x-request-id", exchange.request_id)]
