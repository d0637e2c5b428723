"""Anthropic's /v1/messages: a stream's events as one whole message, and a whole message as events."""

import json
from collections.abc import Iterator
from typing import Any

from penstock.core.replay_wire import Fields, NotConvertibleError, chunks, decode, encode, event, pieces

_PARTIAL = "partial_json"
# A delta's type -> the field it carries, and the block's field it is added to.
_DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
}
# What a block's texts are called in its deltas, in the order they come.
_TEXTS = (("thinking", "thinking_delta"), ("text", "text_delta"))


def whole_of(body: bytes) -> bytes:
    """The message a stream tells. Raises NotConvertibleError."""
    message: Fields = {}
    blocks: dict[int, Fields] = {}
    ended = False
    for each in chunks(body):
        match each.get("type"):
            case "message_start":
                message = dict(each.get("message") or {})
            case "content_block_start":
                blocks[each.get("index", 0)] = dict(each.get("content_block") or {})
            case "content_block_delta":
                _grow(blocks.setdefault(each.get("index", 0), {}), each.get("delta") or {})
            case "message_delta":
                message.update(each.get("delta") or {})
                usage = {**(message.get("usage") or {}), **(each.get("usage") or {})}
                message |= {"usage": usage, **_unknown(each)}
            case "message_stop":
                ended = True
    if not message or not ended:
        raise NotConvertibleError("a stream that is not whole")
    message["content"] = [_closed(blocks[index]) for index in sorted(blocks)]
    return encode(message)


def stream_of(body: bytes, include_usage: bool = False) -> list[bytes]:
    """The events of a whole message. Raises NotConvertibleError."""
    message = decode(body)
    content = message.get("content")
    if message.get("type") != "message" or not isinstance(content, list):
        raise NotConvertibleError("not a message")
    usage = message.get("usage") or {}
    began = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    if usage:
        began["usage"] = {**usage, "output_tokens": min(1, usage.get("output_tokens") or 0)}
    ended = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    said = [each for index, block in enumerate(content) for each in _block(index, block)]
    return [
        _event("message_start", message=began),
        *said[:1],
        _event("ping"),
        *said[1:],
        _event("message_delta", delta=ended, usage=usage),
        _event("message_stop"),
    ]


# --- from events


def _grow(block: Fields, delta: Fields) -> None:
    kind = delta.get("type")
    if kind == "input_json_delta":
        block[_PARTIAL] = block.get(_PARTIAL, "") + (delta.get(_PARTIAL) or "")
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
    elif kind in _DELTAS:
        source, name = _DELTAS[kind]
        block[name] = (block.get(name) or "") + (delta.get(source) or "")
    else:
        raise NotConvertibleError(f"a delta of an unknown kind: {kind!s:.40}")


def _closed(block: Fields) -> Fields:
    """A block whose input came as JSON in pieces has it as an object."""
    text = block.pop(_PARTIAL, "")
    if not text:
        return block
    try:
        return {**block, "input": json.loads(text)}
    except (ValueError, RecursionError):
        raise NotConvertibleError("the input of a tool is no JSON") from None


def _unknown(each: Fields) -> Fields:
    """What else a message_delta says of the message (context_management)."""
    return {name: value for name, value in each.items() if name not in ("type", "delta", "usage")}


# --- to events


def _block(index: int, block: Fields) -> Iterator[bytes]:
    opening = dict(block)
    deltas: list[Fields] = []
    for name, kind in _TEXTS:
        if isinstance(text := opening.get(name), str):
            opening[name] = ""
            deltas += [{"type": kind, name: piece} for piece in pieces(text)]
    if opening.get("type") == "text" and opening.get("citations"):
        deltas += [{"type": "citations_delta", "citation": each} for each in opening["citations"]]
        opening["citations"] = []
    if opening.get("type") == "thinking":
        deltas += [{"type": "signature_delta", "signature": opening["signature"]}] if opening.get("signature") else []
        opening["signature"] = ""
    if "input" in opening:
        deltas += [{"type": "input_json_delta", _PARTIAL: piece} for piece in _input(opening["input"])]
        opening["input"] = {}
    yield _event("content_block_start", index=index, content_block=opening)
    yield from (_event("content_block_delta", index=index, delta=delta) for delta in deltas)
    yield _event("content_block_stop", index=index)


def _input(value: Any) -> list[str]:
    """What a tool is called with, in pieces; the first is empty, as Anthropic's is."""
    return ["", *pieces(encode(value).decode())]


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)
