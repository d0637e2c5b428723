"""/v1/chat/completions: a stream's chunks as one whole answer, and a whole answer as chunks."""

from collections.abc import Iterator
from typing import Any

from penstock.core.replay_choices import by_index, gather, stream, whole, without
from penstock.core.replay_merge import grow
from penstock.core.replay_wire import Fields, decode, groups, pieces

_CALLS = "tool_calls"
# What the model says piece by piece, in the order it is said.
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
# The part of a tool call that comes in pieces.
_LONG = {"function": "arguments", "custom": "input", "function_call": "arguments"}


def whole_of(body: bytes) -> bytes:
    """The answer a stream tells. Raises NotConvertibleError."""
    head, found = gather(body)
    return whole(head, "chat.completion", [_choice(index, parts) for index, parts in by_index(found, "delta").items()])


def stream_of(body: bytes, include_usage: bool) -> list[bytes]:
    """The events of a whole answer. Raises NotConvertibleError."""
    return stream(decode(body), "chat.completion.chunk", "message", _parts, include_usage)


# --- from chunks


def _choice(index: int, parts: list[Fields]) -> Fields:
    rest: Fields = {}
    said: Fields = {}
    texts: dict[str, list[str]] = {}
    calls: dict[int, Fields] = {}
    # Who tells of refusals in a stream is OpenAI, or like it, and whole messages there have "annotations" too.
    if "refusal" in (parts[0].get("delta") or {}):
        said["annotations"] = []
    for part in parts:
        delta = part.get("delta") or {}
        if delta.keys() <= said.keys() and (only := _only_text(delta)) is not None:
            name, text = only
            texts.setdefault(name, []).append(text)
        else:
            _take_texts(said, texts)
            _take_calls(calls, delta.get(_CALLS) or [])
            grow(said, without(delta, _CALLS))
        more = without(part, "delta", "index")
        if more != rest or any(more.values()):
            # Lists in logprobs are joined, of all else the last word counts.
            grow(rest, more, join=False)
    _take_texts(said, texts)
    ordered = {"role": said.pop("role", None) or "assistant", "content": said.pop("content", None), **said}
    if calls:
        ordered[_CALLS] = [without(calls[place], "index") for place in sorted(calls)]
    finish = rest.pop("finish_reason", None)
    return {"index": index, "message": ordered, **rest, "finish_reason": finish}


def _only_text(delta: Fields) -> tuple[str, str] | None:
    """The name and the piece of a text that nearly every chunk is, some servers' with the role again; else None."""
    said = [name for name, value in delta.items() if value is not None and name != "role"]
    if len(said) == 1 and said[0] in _TEXTS and type(text := delta[said[0]]) is str:
        return said[0], text
    return None


def _take_texts(said: Fields, texts: dict[str, list[str]]) -> None:
    """Joined at once: one by one, each piece would copy all that came before."""
    grow(said, {name: "".join(parts) for name, parts in texts.items()})
    texts.clear()


def _take_calls(calls: dict[int, Fields], news: list[Fields]) -> None:
    """Pieces of calls; without an index, one with a new id is a new call."""
    for piece in news:
        place = piece.get("index")
        if place is None:
            last = max(calls, default=-1)
            is_new = not calls or (piece.get("id") and piece["id"] != calls[last].get("id"))
            place = last + 1 if is_new else last
        grow(calls.setdefault(place, {}), piece)


# --- to chunks


def _parts(index: int, choice: Fields) -> Iterator[Fields]:
    has_logprobs = "logprobs" in choice

    def part(delta: Fields, finish: str | None = None, logprobs: Any = None) -> Fields:
        known = {"logprobs": logprobs} if has_logprobs else {}
        return {"index": index, "delta": delta, **known, "finish_reason": finish}

    message = choice.get("message") or {}
    logprobs = choice.get("logprobs") or {}
    said = list(_rest(message))
    opening = _opening(message)
    if len(message.get(_CALLS) or []) == 1 and not any(message.get(name) for name in _TEXTS):
        opening |= said.pop(0)
    yield part(opening)
    for name in _TEXTS:
        if text := message.get(name):
            for piece, told in _said(text, logprobs.get(name)):
                yield part({name: piece}, logprobs={**_other(logprobs), name: told} if told else None)
    for delta in said:
        yield part(delta)
    yield {**part({}, choice.get("finish_reason")), **without(choice, "index", "message", "logprobs", "finish_reason")}


def _opening(message: Fields) -> Fields:
    """Who speaks. OpenAI says content null there when only calls follow; the field refusal is not everybody's."""
    content = message.get("content")
    opening = {"role": message.get("role", "assistant"), "content": None if content is None else ""}
    return {**opening, "refusal": None} if "refusal" in message else opening


def _other(logprobs: Fields) -> Fields:
    """The lists beside the one that is told, as OpenAI has them: null."""
    return dict.fromkeys(logprobs)


def _said(text: Any, told: list[Fields] | None) -> list[tuple[Any, list[Fields] | None]]:
    """A text in pieces, each with the logprobs of its tokens; all in one where tokens are no whole characters."""
    if not isinstance(text, str):
        return [(text, told)]
    if not told:
        return [(piece, None) for piece in pieces(text)]
    if "".join(token.get("token", "") for token in told) != text:
        return [(text, told)]
    return [("".join(token["token"] for token in group), group) for group in groups(told)]


def _rest(message: Fields) -> Iterator[Fields]:
    """Calls: first who is called, then with what. Other fields as they are, but for those that say nothing."""
    for place, call in enumerate(message.get(_CALLS) or []):
        kind = "custom" if "custom" in call else "function"
        opening, rest = _cut(kind, call.get(kind) or {})
        yield {_CALLS: [{"index": place, **call, kind: opening}]}
        yield from ({_CALLS: [{"index": place, kind: each}]} for each in rest)
    if call := message.get("function_call"):
        opening, rest = _cut("function_call", call)
        yield from ({"function_call": each} for each in (opening, *rest))
    for name, value in without(message, "role", _CALLS, "function_call", *_TEXTS).items():
        if value not in (None, [], {}, ""):
            yield {name: value}


def _cut(kind: str, called: Fields) -> tuple[Fields, list[Fields]]:
    """A call without what it is called with, and that in pieces."""
    name = _LONG[kind]
    text = called.get(name)
    if not isinstance(text, str):
        return called, []
    return {**called, name: ""}, [{name: piece} for piece in pieces(text)]
