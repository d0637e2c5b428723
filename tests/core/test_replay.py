"""Kept answers in the other kind: recorded streams, shapes of many backends, and what cannot be converted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.endpoint import EXACT
from penstock.core.replay import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    RESPONSES,
    NotConvertibleError,
    finishes,
    is_streamed,
    media_of,
    stream_of,
    whole_of,
)
from penstock.core.replay_wire import MOST_PIECES, pieces
from penstock.ext import (
    DIALECT_CHAT,
    DIALECT_MESSAGES,
    DIALECT_OLLAMA,
    DIALECT_RESPONSES,
    REPLY_COMPLETE,
    ReplyScanner,
    Usage,
    UsageRemover,
    scan_answer,
)

STREAMS = Path(__file__).parents[1] / "golden" / "streams"
DIALECTS = {
    CHAT: DIALECT_CHAT,
    COMPLETIONS: DIALECT_CHAT,
    RESPONSES: DIALECT_RESPONSES,
    MESSAGES: DIALECT_MESSAGES,
    OLLAMA_CHAT: DIALECT_OLLAMA,
    OLLAMA_GENERATE: DIALECT_OLLAMA,
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def recorded(name: str) -> bytes:
    return (STREAMS / name).read_bytes()


def sse(*events: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events) + end


def chat(*deltas: dict[str, Any], finish: str = "stop", **choice: Any) -> bytes:
    chunks = [{**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return sse(*chunks, {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": finish, **choice}]})


def whole(route: str, stream: bytes) -> Any:
    return json.loads(whole_of(DIALECTS[route], route, [stream]))


def stream(route: str, answer: Any, include_usage: bool = False) -> list[bytes]:
    return stream_of(DIALECTS[route], route, json.dumps(answer).encode(), include_usage)


def objects(events: list[bytes]) -> list[Any]:
    """What the events of a stream say."""
    data = [each[each.find(b"data: ") + 6 :] if b"data: " in each else each for each in events]
    return [json.loads(each) for each in data if each != b"[DONE]\n\n"]


def message(stream: bytes) -> Any:
    return whole(CHAT, stream)["choices"][0]["message"]


def used(usage: Usage | None) -> tuple[int, ...] | None:
    if usage is None:
        return None
    return (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)


# --- recorded streams -------------------------------------------------------------------------------------


def test_chat() -> None:
    answer = whole(CHAT, recorded("chat-usage.sse"))
    usage = answer.pop("usage")
    assert (usage["total_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (43, 4)
    text = 'Hello! The field "usage" is null.\n'
    said = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    assert answer == {
        "id": "chatcmpl-BfT3kq8yA0hO1s",
        "object": "chat.completion",
        "created": 1750000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_34a54ae93c",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}],
    }
    without = whole(CHAT, recorded("chat.sse"))
    assert without == answer


def test_chat_of_other_servers() -> None:
    ollama = whole(CHAT, recorded("chat-ollama-usage.sse"))
    said = {"role": "assistant", "content": "😀e model"}
    assert ollama["choices"] == [{"index": 0, "message": said, "finish_reason": "length"}]
    assert ollama["usage"] == {"prompt_tokens": 27, "completion_tokens": 3, "total_tokens": 30}
    vllm = whole(CHAT, recorded("chat-crlf-vllm.sse"))
    assert vllm["choices"][0]["message"]["content"] == "日本語error"
    assert vllm["choices"][0]["stop_reason"] is None
    assert vllm["usage"]["total_tokens"] == 13


def test_chat_that_calls() -> None:
    said = message(recorded("chat-tools.sse"))
    call = {"id": "call_9x", "type": "function", "function": {"name": "get_weather", "arguments": '{"usage":5}'}}
    assert said == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_completions() -> None:
    answer = whole(COMPLETIONS, recorded("completions.sse"))
    assert answer == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1750000000,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": "One two", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }


@pytest.mark.parametrize("name", ["responses.sse", "responses-incomplete.sse", "responses-failed.sse"])
def test_responses(name: str) -> None:
    last = json.loads(recorded(name).rstrip().rpartition(b"data: ")[2])
    assert whole(RESPONSES, recorded(name)) == last["response"]


def test_messages() -> None:
    answer = whole(MESSAGES, recorded("messages.sse"))
    assert answer["content"] == [{"type": "text", "text": "Hello message_stop!"}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["usage"] == {
        "input_tokens": 25,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 100,
        "output_tokens": 15,
        "service_tier": "standard",
    }


def test_ollama() -> None:
    answer = whole(OLLAMA_CHAT, recorded("ollama-chat.ndjson"))
    assert answer["message"] == {"role": "assistant", "content": "😀e model isi in"}
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "length", 6)
    assert answer["created_at"] == "2026-11-21T03:03:37.598970337Z"
    called = whole(OLLAMA_CHAT, recorded("ollama-tools.ndjson"))["message"]
    assert (called["content"], called["thinking"]) == ("", 'The key is "done":true')
    assert called["tool_calls"][0]["function"]["arguments"]["city"] == "oslo"
    made = whole(OLLAMA_GENERATE, recorded("ollama-generate.ndjson"))
    assert (made["response"], made["context"][:2]) == ("<b> in", [108, 101])


GOLDEN = [
    ("chat.sse", CHAT),
    ("chat-usage.sse", CHAT),
    ("chat-tools.sse", CHAT),
    ("chat-ollama-usage.sse", CHAT),
    ("chat-crlf-vllm.sse", CHAT),
    ("completions.sse", COMPLETIONS),
    ("responses.sse", RESPONSES),
    ("responses-incomplete.sse", RESPONSES),
    ("messages.sse", MESSAGES),
    ("messages-late-input.sse", MESSAGES),
    ("ollama-chat.ndjson", OLLAMA_CHAT),
    ("ollama-tools.ndjson", OLLAMA_CHAT),
    ("ollama-generate.ndjson", OLLAMA_GENERATE),
]


@pytest.mark.parametrize(("name", "route"), GOLDEN)
def test_there_and_back_says_the_same(name: str, route: str) -> None:
    answer = whole(route, recorded(name))
    made = b"".join(stream(route, answer, include_usage=True))
    back = whole(route, made)
    assert back == answer
    # What is made ends as its dialect ends, and says what was used.
    scanner = ReplyScanner(DIALECTS[route])
    scanner.feed(made)
    scanner.finish()
    assert scanner.flags == REPLY_COMPLETE
    kept = scan_answer(json.dumps(answer).encode(), DIALECTS[route])
    assert kept is not None and kept.complete
    assert used(scanner.usage) == used(kept.usage)
    assert scanner.finish_reason == kept.finish_reason


@pytest.mark.parametrize(("name", "route"), GOLDEN)
def test_where_the_bytes_are_cut_does_not_matter(name: str, route: str) -> None:
    raw = recorded(name)
    one_by_one = [raw[place : place + 1] for place in range(len(raw))]
    assert whole_of(DIALECTS[route], route, one_by_one) == whole_of(DIALECTS[route], route, [raw])


# --- chat, piece by piece ---------------------------------------------------------------------------------


def test_calls_are_told_apart_by_index() -> None:
    def piece(index: int, **call: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **call}]}

    said = message(
        chat(
            {"role": "assistant", "content": None},
            piece(1, id="b", type="function", function={"name": "two", "arguments": ""}),
            piece(0, id="a", type="function", function={"name": "one", "arguments": '{"x"'}),
            piece(1, function={"arguments": "{}"}),
            piece(0, function={"arguments": ":1}"}),
            finish="tool_calls",
        )
    )
    assert said["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "two", "arguments": "{}"}},
    ]


def test_calls_without_index_and_names_that_are_repeated() -> None:
    def piece(**call: Any) -> dict[str, Any]:
        return {"tool_calls": [call]}

    said = message(
        chat(
            piece(id="a", type="function", function={"name": "one", "arguments": "{"}),
            piece(id="a", type="function", function={"name": "one", "arguments": "}"}),
            piece(id="b", type="function", function={"name": "two", "arguments": "{}"}),
        )
    )
    called = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in said["tool_calls"]]
    assert called == [("a", "one", "{}"), ("b", "two", "{}")]


def test_other_kinds_of_text_are_joined_too() -> None:
    said = message(
        chat(
            {"role": "assistant", "content": None, "reasoning_content": "I "},
            {"reasoning_content": "think"},
            {"content": "So"},
            {"content": ".", "annotations": [{"type": "url_citation"}]},
            {"refusal": "No", "audio": {"id": "audio_1", "data": "AA", "transcript": "S"}},
            {"refusal": "!", "audio": {"data": "BB", "transcript": "o", "expires_at": 9}},
            {"function_call": {"name": "f", "arguments": "{"}},
            {"function_call": {"arguments": "}"}},
        )
    )
    assert said == {
        "role": "assistant",
        "content": "So.",
        "reasoning_content": "I think",
        "refusal": "No!",
        "annotations": [{"type": "url_citation"}],
        "audio": {"id": "audio_1", "data": "AABB", "transcript": "So", "expires_at": 9},
        "function_call": {"name": "f", "arguments": "{}"},
    }


def test_choices_run_side_by_side() -> None:
    order = [(1, "b"), (0, "a"), (1, "B"), (0, "A")]
    chunks = [{**HEAD, "choices": [{"index": at, "delta": {"content": text}}]} for at, text in order]
    ends = [{**HEAD, "choices": [{"index": at, "delta": {}, "finish_reason": "stop"}]} for at in (0, 1)]
    answer = whole(CHAT, sse(*chunks, *ends))
    assert [(each["index"], each["message"]["content"]) for each in answer["choices"]] == [(0, "aA"), (1, "bB")]
    together = {**HEAD, "choices": [{"index": at, "delta": {"content": "x"}, "finish_reason": "stop"} for at in (1, 0)]}
    assert [each["index"] for each in whole(CHAT, sse(together))["choices"]] == [0, 1]


def test_logprobs_are_joined() -> None:
    def told(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": []}], "refusal": None}

    chunks = [
        {**HEAD, "choices": [{"index": 0, "delta": {"content": token}, "logprobs": told(token), "finish_reason": None}]}
        for token in ("One", " two")
    ]
    end = {**HEAD, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]}
    answer = whole(CHAT, sse(*chunks, end))
    logprobs = answer["choices"][0]["logprobs"]
    assert ([each["token"] for each in logprobs["content"]], logprobs["refusal"]) == (["One", " two"], None)
    made = objects(stream(CHAT, answer))
    assert [(part["choices"][0]["delta"].get("content"), part["choices"][0]["logprobs"]) for part in made[1:3]] == [
        ("One", told("One")),
        (" two", told(" two")),
    ]


def test_logprobs_of_tokens_that_are_no_whole_characters() -> None:
    told = [{"token": "\\xf0\\x9f", "bytes": [240, 159]}, {"token": "\\x98\\x80", "bytes": [152, 128]}]
    said = {"role": "assistant", "content": "😀"}
    answer = {
        **HEAD,
        "choices": [{"index": 0, "message": said, "logprobs": {"content": told}, "finish_reason": "stop"}],
    }
    made = objects(stream(CHAT, answer))
    assert made[1]["choices"][0]["delta"] == {"content": "😀"}
    assert made[1]["choices"][0]["logprobs"] == {"content": told}


def test_what_else_stands_in_chunks() -> None:
    # Azure's first chunk names nothing; filters tell of each piece; OpenAI pads; llama.cpp ends with its timings.
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"x": 1}]}
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    middle = {
        **HEAD,
        "obfuscation": "xyz",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "content_filter_results": safe}],
    }
    last = {
        **HEAD,
        "timings": {"ms": 5},
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "content_filter_results": safe}],
    }
    usage = {**HEAD, "choices": [], "usage": USAGE}
    answer = whole(CHAT, sse(first, middle, last, usage))
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "content_filter_results": safe,
        "finish_reason": "stop",
    }
    assert answer == {
        **HEAD,
        "object": "chat.completion",
        "choices": [choice],
        "usage": USAGE,
        "prompt_filter_results": [{"x": 1}],
        "timings": {"ms": 5},
    }


def test_halves_of_a_character_are_whole_again() -> None:
    high = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n'
    low = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\\ude00"},"finish_reason":"stop"}]}\n\n'
    assert message(high + low + b"data: [DONE]\n\n")["content"] == "😀"


# --- from whole answers -----------------------------------------------------------------------------------

ANSWER = {
    **HEAD,
    "object": "chat.completion",
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi  there,\nyou. ", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


def test_a_stream_as_openai_writes_it() -> None:
    made = stream(CHAT, ANSWER)
    head = {**HEAD, "system_fingerprint": "fp"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert objects(made) == [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hi"}),
        chunk({"content": "  there,"}),
        chunk({"content": "\nyou."}),
        chunk({"content": " "}),
        chunk({}, "stop"),
    ]
    assert made[-1] == b"data: [DONE]\n\n"
    assert all(each.startswith(b"data: {") and each.endswith(b"}\n\n") for each in made[:-1])


def test_usage_is_for_those_who_ask() -> None:
    without, asked = b"".join(stream(CHAT, ANSWER)), stream(CHAT, ANSWER, include_usage=True)
    assert b"usage" not in without
    *chunks, last = objects(asked)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"], last["id"]) == ([], USAGE, HEAD["id"])
    remover = UsageRemover()
    taken = remover.feed(b"".join(asked)) + remover.finish()
    assert taken.count(b"data: ") == without.count(b"data: ")


def test_no_usage_is_made_up() -> None:
    answer = {name: value for name, value in ANSWER.items() if name != "usage"}
    assert [chunk["usage"] for chunk in objects(stream(CHAT, answer, include_usage=True))] == [None] * 6


def test_calls_come_in_pieces() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "one", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "custom", "custom": {"name": "two", "input": "free text"}},
    ]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    answer = {**HEAD, "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}]}
    deltas = [chunk["choices"][0]["delta"] for chunk in objects(stream(CHAT, answer))]
    assert deltas == [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, **calls[0], "function": {"name": "one", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {"tool_calls": [{"index": 1, **calls[1], "custom": {"name": "two", "input": ""}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "free"}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": " text"}}]},
        {},
    ]


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "m",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I think"}]},
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city": "Oslo"}',
        },
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "So be", "annotations": [{"type": "file_path"}], "logprobs": []},
                {"type": "refusal", "refusal": "Not that"},
            ],
        },
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
}


def test_the_events_of_a_response() -> None:
    made = stream(RESPONSES, RESPONSE)
    events = objects(made)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert [each.split(b"\n")[0].decode() for each in made] == [f"event: {each['type']}" for each in events]
    assert [each["type"].removeprefix("response.") for each in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert events[0]["response"]["usage"] is None
    assert events[9]["item"] == {**RESPONSE["output"][1], "status": "in_progress", "arguments": ""}  # type: ignore[index]
    assert events[12] == {
        "type": "response.function_call_arguments.done",
        "sequence_number": 12,
        "item_id": "fc_1",
        "output_index": 1,
        "name": "weather",
        "arguments": '{"city": "Oslo"}',
    }
    assert events[-1]["response"] == RESPONSE


def test_a_response_that_ends_without_its_output() -> None:
    """As some servers do; the items were told before."""
    events = objects(stream(RESPONSES, RESPONSE))
    events[-1]["response"]["output"] = []
    assert whole(RESPONSES, sse(*events, end=b"")) == RESPONSE


def test_messages_with_all_kinds_of_blocks() -> None:
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "I think", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "eA=="},
            {"type": "text", "text": "So be it", "citations": [{"type": "char_location", "cited_text": "x"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo", "n": [1, 2.5, None]}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 9, "service_tier": "standard"},
    }
    made = stream(MESSAGES, answer)
    assert whole(MESSAGES, b"".join(made)) == answer
    assert [each["type"] for each in objects(made)][:3] == ["message_start", "content_block_start", "ping"]


def test_ollama_lines() -> None:
    answer = {
        "model": "m",
        "created_at": "2026-11-21T03:03:37Z",
        "message": {
            "role": "assistant",
            "content": "So be",
            "thinking": "I think",
            "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
        },
        "done": True,
        "done_reason": "stop",
        "eval_count": 2,
    }
    made = stream(OLLAMA_CHAT, answer)
    assert all(each.endswith(b"}\n") and each.count(b"\n") == 1 for each in made)
    messages = [each["message"] for each in objects(made)]
    assert [(each["content"], each.get("thinking")) for each in messages] == [
        ("", "I"),
        ("", " think"),
        ("So", None),
        (" be", None),
        ("", None),
        ("", None),
    ]
    assert [each["done"] for each in objects(made)] == [False] * 5 + [True]
    assert whole(OLLAMA_CHAT, b"".join(made)) == answer


# --- what cannot be converted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("chat-cut.sse", CHAT),
        ("chat-error.sse", CHAT),
        ("messages-cut.sse", MESSAGES),
        ("messages-error.sse", MESSAGES),
        ("responses-cut.sse", RESPONSES),
        ("responses-error.sse", RESPONSES),
        ("ollama-cut.ndjson", OLLAMA_CHAT),
        ("ollama-error.ndjson", OLLAMA_CHAT),
    ],
)
def test_cut_and_failed_streams(name: str, route: str) -> None:
    with pytest.raises(NotConvertibleError):
        whole(route, recorded(name))


MISSHAPEN: list[Any] = [
    [],
    None,
    {},
    {"choices": []},
    {"choices": {}},
    {"choices": [1]},
    {"choices": [{"index": [], "delta": {}}]},
    {"choices": [{"delta": "x", "finish_reason": "stop"}]},
    {"choices": [{"delta": {"tool_calls": "x"}, "finish_reason": "stop"}]},
    {"choices": [{"text": 1, "finish_reason": "stop"}]},
    {"choices": [{"message": "x", "finish_reason": "stop"}]},
    {"type": "message_delta", "delta": 1},
    {"type": "message", "content": [1]},
    {"object": "response", "status": "completed", "output": [1]},
    {"object": "response", "status": "queued", "output": []},
    {"type": "response.completed", "response": 1},
    {"done": True, "message": "x"},
    {"done": True, "response": 1},
    {"error": {"message": "x"}},
]


@pytest.mark.parametrize("route", list(DIALECTS))
@pytest.mark.parametrize("value", MISSHAPEN, ids=str)
def test_what_is_no_answer(route: str, value: Any) -> None:
    with pytest.raises(NotConvertibleError):
        stream(route, value)
    with pytest.raises(NotConvertibleError):
        whole(route, json.dumps(value).encode() + b"\n" if route.startswith("/api") else sse(value))


def test_routes_of_one_kind() -> None:
    with pytest.raises(NotConvertibleError):
        whole_of(DIALECT_CHAT, "/v1/embeddings", [b"{}"])
    with pytest.raises(NotConvertibleError):
        stream_of(DIALECT_OLLAMA, "/api/embed", b"{}")


@pytest.mark.parametrize(
    "convert", [lambda raw: whole_of(DIALECT_CHAT, CHAT, [raw]), lambda raw: stream_of(1, "", raw)]
)
@given(raw=st.binary(max_size=80) | st.binary(max_size=40).map(lambda raw: b'data: {"choices":[' + raw))
def test_any_bytes(convert: Callable[[bytes], Any], raw: bytes) -> None:
    with pytest.raises(NotConvertibleError):
        convert(raw)


# --- any answer -------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=60)
calls = st.lists(
    st.builds(
        lambda name, arguments: {
            "id": f"call_{name}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        texts.filter(bool),
        texts,
    ),
    max_size=3,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | texts)}
    if draw(st.booleans()):
        said |= {"refusal": draw(st.none() | texts.filter(bool)), "annotations": []}
    if draw(st.booleans()):
        said["reasoning_content"] = draw(texts.filter(bool))
    if called := draw(calls):
        said["tool_calls"] = called
    return said


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"])),
        }
        for index, message in enumerate(draw(st.lists(messages(), min_size=1, max_size=3)))
    ]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE}


@settings(deadline=None)
@given(answers(), st.randoms(use_true_random=False))
def test_any_chat_there_and_back(answer: dict[str, Any], random: Any) -> None:
    made = b"".join(stream(CHAT, answer, include_usage=True))
    cuts = sorted(random.randrange(len(made)) for _ in range(5))
    parts = [made[start:end] for start, end in zip([0, *cuts], [*cuts, len(made)], strict=True)]
    assert json.loads(whole_of(DIALECT_CHAT, CHAT, parts)) == answer


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_any_completion_there_and_back(said: list[str]) -> None:
    choices = [{"text": text, "index": i, "logprobs": None, "finish_reason": "stop"} for i, text in enumerate(said)]
    answer = {**HEAD, "object": "text_completion", "choices": choices}
    assert whole(COMPLETIONS, b"".join(stream(COMPLETIONS, answer))) == answer


@settings(deadline=None)
@given(texts, texts)
def test_any_response_there_and_back(text: str, arguments: str) -> None:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    call = {**RESPONSE["output"][1], "arguments": arguments}  # type: ignore[index, dict-item]
    answer = {**RESPONSE, "output": [item, call]}
    made = stream(RESPONSES, answer)
    assert whole(RESPONSES, b"".join(made)) == answer
    said = [each["delta"] for each in objects(made) if each["type"] == "response.output_text.delta"]
    assert "".join(said) == text


@given(texts)
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_a_long_text_has_not_more_pieces() -> None:
    text = "word " * 100_000
    found = pieces(text)
    assert "".join(found) == text and len(found) <= MOST_PIECES


def test_completion_logprobs_stay_side_by_side() -> None:
    told = {
        "tokens": ["One", " two"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": None,
        "text_offset": [3, 6],
    }
    choice = {"text": "One two", "index": 0, "logprobs": told, "finish_reason": "stop"}
    answer = {**HEAD, "object": "text_completion", "choices": [choice]}
    made = objects(stream(COMPLETIONS, answer))
    assert [
        (each["choices"][0]["text"], (each["choices"][0]["logprobs"] or {}).get("text_offset")) for each in made
    ] == [
        ("One", [3]),
        (" two", [6]),
        ("", None),
    ]
    assert whole(COMPLETIONS, sse(*made)) == answer


# --- which kind is asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said", "expected"),
    [
        (CHAT, None, False),
        (CHAT, True, True),
        (CHAT, False, False),
        (OLLAMA_CHAT, None, True),
        (OLLAMA_CHAT, False, False),
        (OLLAMA_GENERATE, True, True),
        ("/api/embed", None, False),
        ("/api/tags", None, False),
        ("/v1/embeddings", True, False),
        (MESSAGES, True, True),
    ],
)
def test_who_is_answered_by_a_stream(path: str, said: bool | None, expected: bool) -> None:
    assert is_streamed(EXACT[path.encode()], said) is expected


def test_content_types() -> None:
    assert media_of(DIALECT_CHAT, streamed=True) == b"text/event-stream; charset=utf-8"
    assert media_of(DIALECT_OLLAMA, streamed=True) == b"application/x-ndjson"
    assert media_of(DIALECT_RESPONSES, streamed=False) == b"application/json"


def test_why_choices_ended() -> None:
    assert finishes(DIALECT_CHAT, recorded("chat.sse"), "stop") == ["stop"]
    body = json.dumps({"choices": [{"finish_reason": "stop"}, {"finish_reason": "content_filter"}]}, indent=1).encode()
    assert finishes(DIALECT_CHAT, body, "stop") == ["stop", "content_filter"]
    quoted = chat({"content": '"finish_reason": "odd"'})
    assert finishes(DIALECT_CHAT, quoted, "stop") == ["stop"]
    assert finishes(DIALECT_CHAT, b'{"data":[]}', None) == []
    assert finishes(DIALECT_MESSAGES, recorded("messages.sse"), "end_turn") == ["end_turn"]
