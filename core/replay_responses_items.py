"""The events of one item of a response's output: added, what it says piece by piece, done."""

from collections.abc import Iterator
from typing import Any

from penstock.core.replay_wire import Fields, event, groups, pieces

# A call that is made at the backend -> the words for its course, beside "completed".
_COURSES: dict[str, tuple[str, ...]] = {
    "web_search_call": ("in_progress", "searching"),
    "file_search_call": ("in_progress", "searching"),
    "image_generation_call": ("in_progress", "generating"),
    "code_interpreter_call": ("in_progress",),
    "mcp_call": ("in_progress",),
    "mcp_list_tools": ("in_progress",),
}
# An item's type -> its text that comes in pieces, and what the events of the pieces are called.
_TEXTS = {
    "function_call": ("arguments", "function_call_arguments"),
    "mcp_call": ("arguments", "mcp_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
    "code_interpreter_call": ("code", "code_interpreter_call_code"),
}
# What an item has not while it is worked on.
_LATE: Fields = {
    "content": [],
    "summary": [],
    **dict.fromkeys(("arguments", "input", "code", "encrypted_content"), ""),
    **dict.fromkeys(("result", "results", "outputs", "output", "error")),
}


class Numbered:
    """Makes events; each says its place in the stream."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers

    def __call__(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(self._numbers), **fields}, kind)


def item_events(numbered: Numbered, index: int, item: Fields) -> Iterator[bytes]:
    kind = str(item.get("type"))
    at = {"item_id": item.get("id"), "output_index": index}
    course = _COURSES.get(kind, ())
    yield numbered("response.output_item.added", output_index=index, item=_begun(item))
    for word in course:
        yield numbered(f"response.{kind}.{word}", **at)
    for place, part in enumerate(item.get("summary") or []):
        yield from _summary(numbered, {**at, "summary_index": place}, part)
    for place, part in enumerate(item.get("content") or []):
        yield from _part(numbered, {**at, "content_index": place}, part)
    if kind in _TEXTS:
        yield from _text(numbered, at, item, *_TEXTS[kind])
    if course:
        yield from _ended(numbered, at, kind, item)
    yield numbered("response.output_item.done", output_index=index, item=item)


def _begun(item: Fields) -> Fields:
    late = {**_LATE, "status": "in_progress"}
    return {**item, **{name: value for name, value in late.items() if name in item}}


def _ended(numbered: Numbered, at: Fields, kind: str, item: Fields) -> Iterator[bytes]:
    if kind == "code_interpreter_call":
        yield numbered(f"response.{kind}.interpreting", **at)
    failed = item.get("status") == "failed" or item.get("error")
    if not failed:
        yield numbered(f"response.{kind}.completed", **at)
    elif kind.startswith("mcp"):
        yield numbered(f"response.{kind}.failed", **at)


def _text(numbered: Numbered, at: Fields, item: Fields, name: str, called: str) -> Iterator[bytes]:
    text = item.get(name)
    if not isinstance(text, str):
        return
    for piece in pieces(text):
        yield numbered(f"response.{called}.delta", **at, delta=piece)
    who = {"name": item["name"]} if called == "function_call_arguments" and "name" in item else {}
    yield numbered(f"response.{called}.done", **at, **who, **{name: text})


def _summary(numbered: Numbered, at: Fields, part: Fields) -> Iterator[bytes]:
    text = part.get("text") or ""
    yield numbered("response.reasoning_summary_part.added", **at, part={**part, "text": ""})
    for piece in pieces(text):
        yield numbered("response.reasoning_summary_text.delta", **at, delta=piece)
    yield numbered("response.reasoning_summary_text.done", **at, text=text)
    yield numbered("response.reasoning_summary_part.done", **at, part=part)


def _part(numbered: Numbered, at: Fields, part: Fields) -> Iterator[bytes]:
    kind = part.get("type")
    yield numbered("response.content_part.added", **at, part=_empty(part))
    if kind == "output_text":
        yield from _output_text(numbered, at, part)
    elif kind == "refusal":
        yield from _plain(numbered, at, "refusal", "refusal", part.get("refusal") or "")
    elif kind == "reasoning_text":
        yield from _plain(numbered, at, "reasoning_text", "text", part.get("text") or "")
    yield numbered("response.content_part.done", **at, part=part)


def _empty(part: Fields) -> Fields:
    nothing: Fields = {"text": "", "refusal": "", "annotations": [], "logprobs": []}
    return {**part, **{name: value for name, value in nothing.items() if name in part}}


def _plain(numbered: Numbered, at: Fields, called: str, name: str, text: str) -> Iterator[bytes]:
    for piece in pieces(text):
        yield numbered(f"response.{called}.delta", **at, delta=piece)
    yield numbered(f"response.{called}.done", **at, **{name: text})


def _output_text(numbered: Numbered, at: Fields, part: Fields) -> Iterator[bytes]:
    text = part.get("text") or ""
    told = part.get("logprobs") or []
    for piece, of_piece in _said(text, told):
        yield numbered("response.output_text.delta", **at, delta=piece, logprobs=of_piece)
    for place, annotation in enumerate(part.get("annotations") or []):
        yield numbered("response.output_text.annotation.added", **at, annotation_index=place, annotation=annotation)
    yield numbered("response.output_text.done", **at, text=text, logprobs=told)


def _said(text: str, told: list[Fields]) -> list[tuple[str, list[Fields]]]:
    """A text in pieces, each with the logprobs of its tokens; all in one where tokens are no whole characters."""
    if not told:
        return [(piece, []) for piece in pieces(text)]
    if "".join(token.get("token", "") for token in told) != text:
        return [(text, told)]
    return [("".join(token["token"] for token in group), group) for group in groups(told)]
