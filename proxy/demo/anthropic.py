"""POST /v1/messages: Anthropic's shape, whole and streamed, with tool use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.proxy.demo import schema, text
from penstock.proxy.demo.answer import Answer, Stream, anthropic_error, encode, json_answer, sse
from penstock.proxy.demo.chat import topic
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo
from penstock.proxy.demo.text import Content, Part


class Message(msgspec.Struct):
    role: str
    content: Content = None


class Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] = {}


class MessagesRequest(msgspec.Struct):
    messages: list[Message]
    max_tokens: int
    model: str = "demo"
    stream: bool | None = None
    system: str | list[Part] | None = None
    tools: list[Tool] | None = None
    tool_choice: dict[str, Any] | None = None


class Reply(msgspec.Struct):
    block: dict[str, Any]
    """The content block when it is complete."""
    tokens: list[str]
    stop: str | None


def answer(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(MessagesRequest)
    reply = _reply(wanted, request, demo)
    prompt = text.count_words(text.plain(wanted.system), *(text.plain(m.content) for m in wanted.messages))
    message: dict[str, Any] = {
        "id": demo.next_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": wanted.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prompt, 1),
    }
    if wanted.stream:
        return _stream(message, reply)
    usage = _usage(prompt, len(reply.tokens))
    return json_answer({**message, "content": [reply.block], "stop_reason": reply.stop, "usage": usage})


def _usage(given: int, made: int) -> dict[str, int]:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": given, **cache, "output_tokens": made}


def _reply(wanted: MessagesRequest, request: Request, demo: Demo) -> Reply:
    said = next((text.plain(m.content) for m in reversed(wanted.messages) if m.role == "user"), "")
    tool = _tool_to_call(wanted)
    if tool is not None:
        values = schema.example(tool.input_schema, topic(said)) or {}
        block = {"type": "tool_use", "id": demo.next_id("toolu_"), "name": tool.name, "input": values}
        return Reply(block, text.pieces(encode(values).decode()), request.finish("tool_use"))
    found = text.reply_to(said, wanted.model, request.control, wanted.max_tokens)
    stop = "max_tokens" if found.is_cut else "end_turn"
    return Reply({"type": "text", "text": found.text}, found.tokens, request.finish(stop))


def _tool_to_call(wanted: MessagesRequest) -> Tool | None:
    """The tool asked for by name, else the first; none once its result is there."""
    choice = wanted.tool_choice or {}
    last = wanted.messages[-1].content if wanted.messages else None
    has_result = isinstance(last, list) and any(part.type == "tool_result" for part in last)
    if not wanted.tools or choice.get("type") == "none" or has_result:
        return None
    name = choice.get("name")
    return next((tool for tool in wanted.tools if name in (None, tool.name)), None)


def _stream(message: dict[str, Any], reply: Reply) -> Stream:
    is_text = reply.block["type"] == "text"
    empty = {**reply.block, "text": ""} if is_text else {**reply.block, "input": {}}
    kind, field = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")

    def tokens() -> Iterator[bytes]:
        for token in reply.tokens:
            yield _event("content_block_delta", index=0, delta={"type": kind, field: token})

    delta = {"stop_reason": reply.stop, "stop_sequence": None}
    return Stream(
        opening=[
            _event("message_start", message=message),
            _event("content_block_start", index=0, content_block=empty),
            _event("ping"),
        ],
        tokens=tokens(),
        closing=[
            _event("content_block_stop", index=0),
            _event("message_delta", delta=delta, usage={"output_tokens": len(reply.tokens)}),
        ],
        end_mark=_event("message_stop"),
        error=b"event: error\ndata: %b\n\n" % anthropic_error(529, "The demo backend failed as asked."),
    )


def _event(name: str, **fields: Any) -> bytes:
    return sse({"type": name, **fields}, name)
