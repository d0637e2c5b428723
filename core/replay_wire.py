"""How answers are written: JSON, events (SSE), lines (NDJSON), and a text in the pieces a stream has it in."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
# A text becomes at most so many events: each costs some 250 bytes beside its words.
MOST_PIECES = 1024
_WORDS = re.compile(r"\s*\S+|\s+")

Fields = dict[str, Any]


class NotConvertibleError(ValueError):
    """An answer that is not what its route's answers are, so that nobody knows what the other kind of it would be."""


def decode(data: bytes) -> Fields:
    """A JSON object. Raises NotConvertibleError."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = _lenient(data)
    if not isinstance(found, dict):
        raise NotConvertibleError("not a JSON object")
    return found


def _lenient(data: bytes) -> Any:
    """Some backends cut their text between the halves of a surrogate pair, which is whole again when it is joined."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NotConvertibleError("not JSON") from None


def encode(value: Any) -> bytes:
    """Compact JSON, in UTF-8."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # The halves of surrogate pairs: as escapes they are what they would have been in one text.
        return json.dumps(value, separators=(",", ":")).encode()


def event(fields: Fields, name: str = "") -> bytes:
    """One event; OpenAI and Anthropic name it where they give it a type."""
    data = b"data: %b\n\n" % encode(fields)
    return b"event: %b\n%b" % (name.encode(), data) if name else data


def line(fields: Fields) -> bytes:
    """One line of NDJSON."""
    return encode(fields) + b"\n"


def events(stream: bytes) -> Iterator[bytes]:
    """The data of a whole stream's events that have some (WHATWG HTML §9.2.6), without comments and other fields."""
    if b"\r" in stream:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for block in stream.removeprefix(b"\xef\xbb\xbf").split(b"\n\n"):
        data = [each[5:].removeprefix(b" ") for each in block.split(b"\n") if each.startswith(b"data:")]
        if data:
            yield b"\n".join(data)


def chunks(stream: bytes) -> Iterator[Fields]:
    """The objects of a stream of events up to its end mark. Raises NotConvertibleError, also for one with an error."""
    for data in events(stream):
        if data == b"[DONE]":
            return
        found = decode(data)
        if found.get("error"):
            raise NotConvertibleError("the stream tells of an error")
        yield found


def lines(stream: bytes) -> list[Fields]:
    """The objects of a stream of lines. Raises NotConvertibleError, also for one with an error or without end."""
    found = [decode(each) for each in stream.split(b"\n") if each.strip()]
    if not found or any("error" in each for each in found) or found[-1].get("done") is not True:
        raise NotConvertibleError("the stream tells of an error, or is not whole")
    return found


def pieces(text: str) -> list[str]:
    """A text in words, or in groups of them where it is long. Joined they are the text."""
    return ["".join(group) for group in groups(_WORDS.findall(text))]


def groups(values: list[Any]) -> list[list[Any]]:
    """One of each, or several where they are many."""
    size = -(-len(values) // MOST_PIECES) or 1
    return [values[start : start + size] for start in range(0, len(values), size)]
