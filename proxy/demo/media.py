"""Audio, images, moderations and reranking: small deterministic answers in the right shape."""

from __future__ import annotations

import base64
import struct
import zlib
from hashlib import sha256
from typing import Any

import msgspec

from penstock.proxy.demo import text
from penstock.proxy.demo.answer import Answer, Blocks, Refused, Whole, encode, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo

_SPEECH_BYTES = 16 * 1024
_AUDIO_TYPES = {"opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav"}
_IMAGE_SIDE = 8
_MAX_INPUTS = 2048
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class SpeechRequest(msgspec.Struct):
    input: str
    model: str = "demo"
    voice: Any = None
    response_format: str | None = None


class ImageRequest(msgspec.Struct):
    prompt: str
    n: int | None = None
    response_format: str | None = None


class ModerationRequest(msgspec.Struct):
    input: str | list[Any]
    model: str = "demo"


class RerankRequest(msgspec.Struct):
    query: str
    documents: list[str | dict[str, Any]]
    model: str = "demo"
    top_n: int | None = None
    return_documents: bool | None = None


def speech(request: Request, demo: Demo) -> Answer:
    """Noise, not music: the same bytes for the same text; 16 KB or X-Demo-Bytes."""
    wanted = request.decode(SpeechRequest)
    size = _SPEECH_BYTES if request.control.size_bytes is None else request.control.size_bytes
    kind = _AUDIO_TYPES.get(wanted.response_format or "", "audio/mpeg")
    return Whole(Blocks(wanted.input.encode(), size), content_type=kind, chunked=True)


def transcription(request: Request, demo: Demo) -> Answer:
    form = request.form()
    part = form.get("file")
    if part is None:
        raise Refused(400, "'file' is a required property", param="file")
    said = f"This is what the demo backend heard in {part.filename or 'the file'}, {part.size} bytes of it."
    if form.text("response_format", "json") == "text":
        return Whole(f"{said}\n".encode(), content_type="text/plain; charset=utf-8")
    given, made = part.size // 1000, text.count_words(said)
    details = {"text_tokens": 0, "audio_tokens": given}
    usage = {"type": "tokens", "input_tokens": given, "input_token_details": details, "output_tokens": made}
    return json_answer({"text": said, "usage": {**usage, "total_tokens": given + made}})


def images(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(ImageRequest)
    pictures = [_png(f"{i}:{wanted.prompt}") for i in range(min(max(1, wanted.n or 1), 10))]
    coded = [base64.b64encode(picture).decode() for picture in pictures]
    if wanted.response_format == "url":
        data = [{"url": f"data:image/png;base64,{image}"} for image in coded]
    else:
        data = [{"b64_json": image} for image in coded]
    return json_answer({"created": demo.now_s(), "data": data})


def _png(seed: str) -> bytes:
    """A small square in a colour of its own."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + sha256(seed.encode()).digest()[:3] * _IMAGE_SIDE
    head = struct.pack(">IIBBBBB", _IMAGE_SIDE, _IMAGE_SIDE, 8, 2, 0, 0, 0)
    data = zlib.compress(row * _IMAGE_SIDE)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")


def moderations(request: Request, demo: Demo) -> Answer:
    """Nothing is ever flagged."""
    wanted = request.decode(ModerationRequest)
    count = len(wanted.input) if isinstance(wanted.input, list) else 1
    if count > _MAX_INPUTS:
        raise Refused(400, f"at most {_MAX_INPUTS} inputs in one request", param="input")
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return json_answer({"id": demo.next_id("modr-"), "model": wanted.model, "results": [result] * count})


def rerank(request: Request, demo: Demo) -> Answer:
    """By the words a document shares with the query; equal ones stay in their order."""
    wanted = request.decode(RerankRequest)
    texts = [d if isinstance(d, str) else str(d.get("text", encode(d).decode())) for d in wanted.documents]
    scores = [_score(wanted.query, document) for document in texts]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[: wanted.top_n]
    results: list[dict[str, object]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if wanted.return_documents is not False:
        results = [{**result, "document": {"text": texts[i]}} for result, i in zip(results, order, strict=True)]
    count = text.count_words(wanted.query, *texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return json_answer({"id": demo.next_id("rerank-"), "model": wanted.model, "results": results, "usage": usage})


def _score(query: str, document: str) -> float:
    asked, found = set(query.lower().split()), set(document.lower().split())
    return round((0.01 + len(asked & found)) / (0.01 + len(asked | found)), 6)
