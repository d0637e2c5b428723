"""Reading what a backend compressed. Only to read along: the client gets the bytes as they came."""

import zlib
from collections.abc import Iterable

# A small body may unfold into a huge one.
MOST_BYTES = 67_108_864
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


def decoded(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The body without its Content-Encoding; None if that is none we can read (br, zstd), or it is broken."""
    for name, value in headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            return _inflated(body) if value.lower() in (b"gzip", b"x-gzip", b"deflate") else None
    return body


def _inflated(body: bytes) -> bytes | None:
    reader = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        text = reader.decompress(body, MOST_BYTES)
    except zlib.error:
        return None
    return text if reader.eof else None
