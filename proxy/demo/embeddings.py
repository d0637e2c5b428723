"""POST /v1/embeddings: unit vectors out of a hash, the same for the same text."""

from __future__ import annotations

import base64
import math
import struct
from hashlib import shake_128

import msgspec

from penstock.proxy.demo import text
from penstock.proxy.demo.answer import Answer, Refused, encode, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo

_DEFAULT_DIMENSIONS = 256
_MAX_DIMENSIONS = 8192
_MAX_NUMBERS = 2_000_000

Input = str | list[str | int | list[int]]


class EmbeddingRequest(msgspec.Struct):
    input: Input
    """One text, or several; a text may also be a list of token ids."""
    model: str = "demo-embed"
    encoding_format: str | None = None
    dimensions: int | None = None


def answer(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(EmbeddingRequest)
    dimensions = _DEFAULT_DIMENSIONS if wanted.dimensions is None else wanted.dimensions
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise Refused(400, f"'dimensions' must be from 1 to {_MAX_DIMENSIONS}", param="dimensions")
    items = _items(wanted.input)
    if len(items) * dimensions > _MAX_NUMBERS:
        raise Refused(400, "too many inputs for one request", param="input")
    as_text = wanted.encoding_format == "base64"
    vectors = [_base64(vector(i, dimensions)) if as_text else vector(i, dimensions) for i in items]
    count = sum(text.count_words(item) if isinstance(item, str) else len(item) for item in items)
    return json_answer(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)],
            "model": wanted.model,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
    )


def vector(item: str | list[int], dimensions: int) -> list[float]:
    """Length 1; each number one that a 32-bit float holds exactly, so that both encodings agree."""
    digest = shake_128(encode(item)).digest(2 * dimensions)
    raw = struct.unpack(f"<{dimensions}h", digest)
    length = math.sqrt(sum(x * x for x in raw)) or 1.0
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(x / length for x in raw))))


def _items(given: Input) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    numbers = [item for item in given if isinstance(item, int)]
    if numbers and len(numbers) == len(given):
        return [numbers]
    if numbers or not given:
        raise Refused(400, "'input' must be a text, texts, or lists of token ids", param="input")
    return [item for item in given if not isinstance(item, int)]


def _base64(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
