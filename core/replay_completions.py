"""/v1/completions: a stream's chunks as one whole answer, and a whole answer as chunks."""

from collections.abc import Iterator
from typing import Any

from penstock.core.replay_choices import by_index, gather, stream, whole, without
from penstock.core.replay_merge import grow
from penstock.core.replay_wire import Fields, decode, groups, pieces

_KIND = "text_completion"


def whole_of(body: bytes) -> bytes:
    """The answer a stream tells. Raises NotConvertibleError."""
    head, found = gather(body)
    return whole(head, _KIND, [_choice(index, parts) for index, parts in by_index(found, "text").items()])


def stream_of(body: bytes, include_usage: bool) -> list[bytes]:
    """The events of a whole answer. Raises NotConvertibleError."""
    return stream(decode(body), _KIND, "text", _parts, include_usage)


def _choice(index: int, parts: list[Fields]) -> Fields:
    rest: Fields = {}
    for part in parts:
        more = without(part, "text", "index")
        if more != rest or any(more.values()):
            grow(rest, more, join=False)
    return {"text": "".join(part.get("text") or "" for part in parts), "index": index, **rest}


def _parts(index: int, choice: Fields) -> Iterator[Fields]:
    has_logprobs = "logprobs" in choice

    def part(text: str, finish: str | None = None, logprobs: Any = None) -> Fields:
        known = {"logprobs": logprobs} if has_logprobs else {}
        return {"text": text, "index": index, **known, "finish_reason": finish}

    for text, told in _said(choice.get("text") or "", choice.get("logprobs")):
        yield part(text, logprobs=told)
    yield {**part("", choice.get("finish_reason")), **without(choice, "text", "index", "logprobs", "finish_reason")}


def _said(text: str, told: Fields | None) -> list[tuple[str, Fields | None]]:
    """A text in pieces, each with what is told of its tokens: lists that run side by side."""
    if not told:
        return [(piece, None) for piece in pieces(text)]
    tokens = told.get("tokens") or []
    fits = all(value is None or (isinstance(value, list) and len(value) == len(tokens)) for value in told.values())
    if not fits or "".join(map(str, tokens)) != text:
        return [(text, told)]
    return [("".join(tokens[group[0] : group[-1] + 1]), _slice(told, group)) for group in groups([*range(len(tokens))])]


def _slice(told: Fields, group: list[int]) -> Fields:
    return {name: value and value[group[0] : group[-1] + 1] for name, value in told.items()}
