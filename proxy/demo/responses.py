"""POST /v1/responses: whole, and as the sequence of typed events."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec

from penstock.proxy.demo import text
from penstock.proxy.demo.answer import Answer, Stream, json_answer, sse
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo
from penstock.proxy.demo.text import Content

_WHERE = {"output_index": 0, "content_index": 0}


class InputItem(msgspec.Struct):
    role: str = ""
    content: Content = None


class ResponsesRequest(msgspec.Struct):
    input: str | list[InputItem] = ""
    model: str = "demo"
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    text: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        given = self.input
        said = [given] if isinstance(given, str) else [text.plain(item.content) for item in given]
        return [self.instructions or "", *said]

    @property
    def last_words(self) -> str:
        if isinstance(self.input, str):
            return self.input
        return next((text.plain(i.content) for i in reversed(self.input) if i.role == "user"), "")


def answer(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(ResponsesRequest)
    found = text.reply_to(wanted.last_words, wanted.model, request.control, wanted.max_output_tokens)
    open_ = _response(wanted, demo)
    item_id = demo.next_id("msg_")
    if not wanted.stream:
        return json_answer(_ended(open_, wanted, found, item_id, request))
    return _stream(open_, _ended(open_, wanted, found, item_id, request), found, item_id)


def _response(wanted: ResponsesRequest, demo: Demo) -> dict[str, Any]:
    """The response object while nothing is there yet."""
    return {
        "id": demo.next_id("resp_"),
        "object": "response",
        "created_at": demo.now_s(),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": wanted.instructions,
        "max_output_tokens": wanted.max_output_tokens,
        "model": wanted.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": wanted.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": wanted.store is not False,
        "temperature": 1.0 if wanted.temperature is None else wanted.temperature,
        "text": wanted.text or {"format": {"type": "text"}},
        "tool_choice": wanted.tool_choice or "auto",
        "tools": wanted.tools or [],
        "top_p": 1.0 if wanted.top_p is None else wanted.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": wanted.metadata or {},
    }


def _ended(
    open_: dict[str, Any], wanted: ResponsesRequest, found: text.Text, item_id: str, request: Request
) -> dict[str, Any]:
    status = "incomplete" if found.is_cut else "completed"
    given, made = text.count_words(*wanted.texts), len(found.tokens)
    return {
        **open_,
        "status": request.finish(status) or "in_progress",
        "incomplete_details": {"reason": "max_output_tokens"} if found.is_cut else None,
        "output": [_item(item_id, status, [_part(found.text)])],
        "usage": {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        },
    }


def _item(item_id: str, status: str, content: list[Any]) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(said: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": said}


def _stream(open_: dict[str, Any], ended: dict[str, Any], found: text.Text, item_id: str) -> Stream:
    numbers = count()
    here = {"item_id": item_id, **_WHERE}

    def event(name: str, **fields: Any) -> bytes:
        kind = f"response.{name}"
        return sse({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    opening = [
        event("created", response=open_),
        event("in_progress", response=open_),
        event("output_item.added", output_index=0, item=_item(item_id, "in_progress", [])),
        event("content_part.added", **here, part=_part("")),
    ]
    first = next(numbers)
    numbers = count(first + len(found.tokens))
    closing = [
        event("output_text.done", **here, text=found.text, logprobs=[]),
        event("content_part.done", **here, part=_part(found.text)),
        event("output_item.done", output_index=0, item=ended["output"][0]),
    ]
    # no [DONE] in this dialect: the typed last event is the mark
    last = "incomplete" if found.is_cut else "completed"
    return Stream(opening, _deltas(found, here, first), closing, event(last, response=ended), _error(first))


def _deltas(found: text.Text, here: dict[str, Any], first: int) -> Iterator[bytes]:
    kind = "response.output_text.delta"
    for number, token in enumerate(found.tokens, first):
        yield sse({"type": kind, "sequence_number": number, **here, "delta": token, "logprobs": []}, kind)


def _error(number: int) -> bytes:
    message = "The demo backend failed as asked."
    fields = {"type": "error", "code": "server_error", "message": message, "param": None}
    return sse({**fields, "sequence_number": number}, "error")
