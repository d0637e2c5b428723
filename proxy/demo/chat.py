"""POST /v1/chat/completions: whole and streamed, choices, tool calls, structured answers."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.proxy.demo import choices, schema, text
from penstock.proxy.demo.answer import Answer, encode, json_answer
from penstock.proxy.demo.choices import Choice, StreamOptions
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo
from penstock.proxy.demo.text import Content


class Message(msgspec.Struct):
    role: str
    content: Content = None


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class Tool(msgspec.Struct):
    type: str = "function"
    function: Function | None = None


class ChatRequest(msgspec.Struct):
    messages: list[Message]
    model: str = "demo"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def last_words(self) -> str:
        """What the user said last."""
        return next((text.plain(m.content) for m in reversed(self.messages) if m.role == "user"), "")


def answer(request: Request, demo: Demo) -> Answer:
    wanted = request.decode(ChatRequest)
    made = [_choice(wanted, request, demo, i) for i in range(choices.count(wanted.n, request.control))]
    prompt = text.count_words(*(text.plain(m.content) for m in wanted.messages))
    figures = choices.usage(prompt, sum(len(choice.tokens) for choice in made))
    head = {
        "id": demo.next_id("chatcmpl-"),
        "object": "chat.completion.chunk" if wanted.stream else "chat.completion",
        "created": demo.now_s(),
        "model": wanted.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
    if wanted.stream:
        opening = [_part(i, _opening(choice)) for i, choice in enumerate(made)]
        return choices.stream(head, made, _chunk, options=wanted.stream_options, figures=figures, opening=opening)
    return json_answer({**head, "choices": [_whole(i, c) for i, c in enumerate(made)], "usage": figures})


def _choice(wanted: ChatRequest, request: Request, demo: Demo, index: int) -> Choice:
    tool = _tool_to_call(wanted)
    said = wanted.last_words
    if tool is not None:
        arguments = encode(schema.example(tool.parameters, topic(said)) or {}).decode()
        function = {"name": tool.name, "arguments": arguments}
        call = {"id": demo.next_id("call_"), "type": "function", "function": function}
        return Choice(text.pieces(arguments), request.finish("tool_calls"), call)
    form = wanted.response_format or {}
    if form.get("type") == "json_schema":
        shape = (form.get("json_schema") or {}).get("schema") or {}
        found = text.of_json(schema.example(shape, topic(said)), wanted.limit)
    elif form.get("type") == "json_object":
        found = text.of_json({"answer": "Hello from the demo backend.", "topic": topic(said)}, wanted.limit)
    else:
        found = text.reply_to(said, wanted.model, request.control, wanted.limit, index)
    return Choice(found.tokens, request.finish("length" if found.is_cut else "stop"))


def topic(message: str) -> str:
    """The last word of a message: often what it is about."""
    words = message.split()
    return words[-1].strip(".,;:!?\"'()") if words else "demo"


def _tool_to_call(wanted: ChatRequest) -> Function | None:
    """The tool that is asked for by name, else the first; none once its result is there."""
    choice = wanted.tool_choice
    if not wanted.tools or choice == "none" or (wanted.messages and wanted.messages[-1].role == "tool"):
        return None
    functions = [tool.function for tool in wanted.tools if tool.function is not None]
    name = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    return next((function for function in functions if name in (None, function.name)), None)


def _whole(index: int, choice: Choice) -> dict[str, object]:
    content = None if choice.call else "".join(choice.tokens)
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if choice.call:
        message["tool_calls"] = [choice.call]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish}


def _part(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(index: int, choice: Choice, token: str | None, finish: str | None) -> dict[str, Any]:
    if token is None:
        return _part(index, {}, finish)
    if choice.call is None:
        return _part(index, {"content": token})
    return _part(index, {"tool_calls": [{"index": 0, "function": {"arguments": token}}]})


def _opening(choice: Choice) -> dict[str, Any]:
    if choice.call is None:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": choice.call["function"]["name"], "arguments": ""}
    call = {"index": 0, **choice.call, "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
