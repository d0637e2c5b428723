"""Kept answers in the other kind are what the demo backend itself answers, and what the SDKs' types take."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from demo_wire import running
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from penstock.core.replay import CHAT, COMPLETIONS, MESSAGES, RESPONSES, stream_of, whole_of
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_RESPONSES

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": PARAMETERS}}
ASKED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "chat": (CHAT, DIALECT_CHAT, {"messages": ASK}),
    "chat, three choices": (CHAT, DIALECT_CHAT, {"messages": ASK, "n": 3}),
    "chat, cut": (CHAT, DIALECT_CHAT, {"messages": ASK, "n": 2, "max_tokens": 3}),
    "chat, a call": (CHAT, DIALECT_CHAT, {"messages": ASK, "tools": TOOLS}),
    "chat, calls": (CHAT, DIALECT_CHAT, {"messages": ASK, "tools": TOOLS, "n": 2}),
    "chat, JSON": (CHAT, DIALECT_CHAT, {"messages": ASK, "response_format": SCHEMA}),
    "completions": (COMPLETIONS, DIALECT_CHAT, {"prompt": "One"}),
    "completions, many": (COMPLETIONS, DIALECT_CHAT, {"prompt": ["One", "two"], "n": 2, "max_tokens": 5}),
    "responses": (RESPONSES, DIALECT_RESPONSES, {"input": "One"}),
    "responses, cut": (RESPONSES, DIALECT_RESPONSES, {"input": "One", "max_output_tokens": 3}),
    "messages": (MESSAGES, DIALECT_MESSAGES, {"messages": ASK, "max_tokens": 100}),
    "messages, a call": (
        MESSAGES,
        DIALECT_MESSAGES,
        {"messages": ASK, "max_tokens": 9, "tools": [{"name": "weather", "input_schema": PARAMETERS}]},
    ),
}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def answer(path: str, asked: dict[str, Any], **more: Any) -> bytes:
    """Of a backend that has not answered before: the ids of such are alike."""
    with running() as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
        body = json.dumps({"model": "demo", **asked, **more})
        connection.request("POST", path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        read = reply.read()
        connection.close()
    assert reply.status == 200, read
    return read


def data(stream: bytes) -> Iterator[Any]:
    for event in stream.split(b"\n\n"):
        line = event.partition(b"data: ")[2]
        if line and line != b"[DONE]":
            yield json.loads(line)


@pytest.mark.parametrize("name", ASKED)
def test_whole_answers_are_those_of_the_backend(name: str) -> None:
    path, dialect, asked = ASKED[name]
    options = {"stream_options": {"include_usage": True}} if dialect == DIALECT_CHAT else {}
    streamed = answer(path, asked, stream=True, **options)
    assert json.loads(whole_of(dialect, path, [streamed])) == json.loads(answer(path, asked))


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("name", [name for name in ASKED if "call" not in name and "messages" not in name])
def test_streams_are_those_of_the_backend_byte_for_byte(name: str, include_usage: bool) -> None:
    path, dialect, asked = ASKED[name]
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    made = b"".join(stream_of(dialect, path, answer(path, asked), include_usage))
    assert made == answer(path, asked, stream=True, **options)


@pytest.mark.parametrize("name", [name for name in ASKED if "call" in name or "messages" in name])
def test_streams_tell_what_the_backend_tells(name: str) -> None:
    """Tools' arguments are cut at other places, and a last usage may say more."""
    path, dialect, asked = ASKED[name]
    made = b"".join(stream_of(dialect, path, answer(path, asked)))
    streamed = answer(path, asked, stream=True)
    assert whole_of(dialect, path, [made]) == whole_of(dialect, path, [streamed])
    (first, *_, last), (one, *_, end) = list(data(made)), list(data(streamed))
    assert (first, last) == (one, end)


# --- the types of the openai package ----------------------------------------------------------------------


def strict(kind: type[BaseModel], value: Any) -> Any:
    """As `kind`, every field of its type; the SDK itself would take anything."""
    return kind.model_validate(value, strict=False)


@pytest.mark.parametrize("name", [name for name in ASKED if "chat" in name])
def test_the_sdk_reads_chats(name: str) -> None:
    path, dialect, asked = ASKED[name]
    whole = strict(ChatCompletion, json.loads(answer(path, asked)))
    state = ChatCompletionStreamState()
    for chunk in data(b"".join(stream_of(dialect, path, answer(path, asked), include_usage=True))):
        list(state.handle_chunk(strict(ChatCompletionChunk, chunk)))
    gathered = state.current_completion_snapshot
    assert gathered.usage == whole.usage
    assert [
        (choice.finish_reason, choice.message.content, choice.message.refusal, _called(choice.message.tool_calls))
        for choice in gathered.choices
    ] == [
        (choice.finish_reason, choice.message.content, choice.message.refusal, _called(choice.message.tool_calls))
        for choice in whole.choices
    ]
    strict(ChatCompletion, json.loads(whole_of(dialect, path, [answer(path, asked, stream=True)])))


def _called(calls: Any) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in calls or []]


texts = st.text(st.characters(codec="utf-8"), max_size=8)
calls = st.builds(
    lambda index, text: {"tool_calls": [{"index": index, "function": {"arguments": text}}]}, st.integers(0, 2), texts
)
deltas = (
    st.builds(lambda text: {"content": text}, texts)
    | st.builds(lambda text: {"refusal": text}, texts)
    | st.builds(lambda text: {"content": None, "reasoning_content": text}, texts)
    | st.builds(lambda text: {"role": "assistant", "content": text}, texts)
    | calls
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), deltas), max_size=30))
def test_any_stream_is_what_the_sdk_makes_of_it(said: list[tuple[int, dict[str, Any]]]) -> None:
    named = [
        {"index": place, "id": f"call_{place}", "type": "function", "function": {"name": f"f{place}", "arguments": ""}}
        for place in range(3)
    ]
    opening = [(index, {"role": "assistant", "content": None, "tool_calls": named}) for index in range(3)]
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
        for index, delta, finish in [
            *((index, delta, None) for index, delta in (*opening, *said)),
            *((index, {}, "stop") for index in range(3)),
        ]
    ]
    state = ChatCompletionStreamState()
    for chunk in chunks:
        list(state.handle_chunk(strict(ChatCompletionChunk, chunk)))
    raw = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
    made = ChatCompletion.model_validate_json(whole_of(DIALECT_CHAT, CHAT, [raw]))
    gathered = state.current_completion_snapshot
    for one, other in zip(made.choices, gathered.choices, strict=True):
        assert (one.finish_reason, one.message.content or "") == (other.finish_reason, other.message.content or "")
        assert (one.message.refusal or "") == (other.message.refusal or "")
        assert _reasoning(one.message) == _reasoning(other.message)
        assert _called(one.message.tool_calls) == _called(other.message.tool_calls)


def _reasoning(message: Any) -> str:
    return getattr(message, "reasoning_content", None) or ""


@pytest.mark.parametrize("name", [name for name in ASKED if "completions" in name])
def test_the_sdk_reads_completions(name: str) -> None:
    path, dialect, asked = ASKED[name]
    for chunk in data(b"".join(stream_of(dialect, path, answer(path, asked)))):
        # The SDK's type has no room for the null that OpenAI's own chunks have.
        strict(Completion, {**chunk, "choices": [{**choice, "finish_reason": "stop"} for choice in chunk["choices"]]})
    strict(Completion, json.loads(whole_of(dialect, path, [answer(path, asked, stream=True)])))


ITEMS: list[dict[str, Any]] = [
    {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "I think"}],
        "content": [{"type": "reasoning_text", "text": "So I am"}],
        "encrypted_content": "x",
        "status": "completed",
    },
    {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city": "Oslo"}',
    },
    {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "write", "input": "free text"},
    {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": "weather", "queries": ["weather"]},
    },
    {"id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["a"], "results": None},
    {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "AAAA"},
    {
        "id": "ci_1",
        "type": "code_interpreter_call",
        "status": "completed",
        "container_id": "c",
        "code": "print(1)",
        "outputs": [{"type": "logs", "logs": "1"}],
    },
    {
        "id": "mcp_1",
        "type": "mcp_call",
        "name": "f",
        "server_label": "s",
        "arguments": "{}",
        "output": "1",
        "error": None,
    },
    {"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "s", "tools": []},
    {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [
            {
                "type": "output_text",
                "text": "So be",
                "annotations": [
                    {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
                ],
                "logprobs": [
                    {"token": "So", "bytes": [83, 111], "logprob": -0.5, "top_logprobs": []},
                    {"token": " be", "bytes": [32, 98, 101], "logprob": -0.5, "top_logprobs": []},
                ],
            },
            {"type": "refusal", "refusal": "Not that"},
        ],
    },
]


@pytest.mark.parametrize("item", [*ITEMS, None], ids=lambda item: item["type"] if item else "all")
def test_the_sdk_reads_responses(item: dict[str, Any] | None) -> None:
    body = {**json.loads(answer(RESPONSES, {"input": "One"})), "output": [item] if item else ITEMS}
    body["usage"]["input_tokens_details"]["cache_write_tokens"] = 0
    strict(Response, body)
    made = b"".join(stream_of(DIALECT_RESPONSES, RESPONSES, json.dumps(body).encode()))
    events = [EVENT.validate_python(event) for event in data(made)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert all(type(event).__name__ != "BaseModel" for event in events)
    assert json.loads(whole_of(DIALECT_RESPONSES, RESPONSES, [made])) == body
