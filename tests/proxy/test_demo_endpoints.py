"""The demo backend's endpoints in the shapes of those they stand for, read by a plain client."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from demo_wire import NOW_S, running

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
        },
    },
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running() as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


def chat(client: httpx.Client, **fields: Any) -> Any:
    answer = client.post("/v1/chat/completions", json={"model": "m", "messages": ASK, **fields})
    return answer.raise_for_status().json()


def streamed(client: httpx.Client, path: str, **fields: Any) -> list[tuple[str, Any]]:
    """(event name, data) of each event."""
    found = []
    with client.stream("POST", path, json={"model": "m", "stream": True, **fields}) as answer:
        for block in answer.read().decode().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in block.split("\n"))
            data = lines["data"]
            found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def test_chat_is_deterministic_but_for_its_id(client: httpx.Client) -> None:
    first, second = chat(client), chat(client)
    assert first.pop("id") != second.pop("id") and first == second
    assert (first["object"], first["created"], first["model"]) == ("chat.completion", NOW_S, "m")
    content = first["choices"][0]["message"]["content"]
    assert content.startswith("You said: “What is the weather in Paris?”")
    count = len(content.split())
    assert first["usage"]["completion_tokens"] == count and first["usage"]["total_tokens"] == count + 6


def test_chat_stream_says_the_same_as_the_whole_answer(client: httpx.Client) -> None:
    events = streamed(client, "/v1/chat/completions", messages=ASK)
    assert events.pop() == ("", "[DONE]")
    assert all("usage" not in data for _, data in events)
    deltas = [data["choices"][0]["delta"] for _, data in events]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == chat(client)["choices"][0]["message"]["content"]
    assert [data["choices"][0]["finish_reason"] for _, data in events[-2:]] == [None, "stop"]


def test_chat_stream_with_usage(client: httpx.Client) -> None:
    events = streamed(client, "/v1/chat/completions", messages=ASK, stream_options={"include_usage": True})
    *rest, usage, _ = [data for _, data in events]
    assert all(data["usage"] is None for data in rest)
    assert usage["choices"] == [] and usage["usage"] == chat(client)["usage"]


def test_chat_choices(client: httpx.Client) -> None:
    whole = chat(client, n=3)["choices"]
    assert [c["index"] for c in whole] == [0, 1, 2]
    texts = ["", "", ""]
    for _, data in streamed(client, "/v1/chat/completions", messages=ASK, n=3)[:-1]:
        choice = data["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [c["message"]["content"] for c in whole] and len(set(texts)) == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_chat_limit(client: httpx.Client, name: str) -> None:
    answer = chat(client, **{name: 4})
    assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 4
    assert answer["choices"][0]["message"]["content"] == "You said: “What is"


def test_chat_length_by_header(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json={"messages": ASK}, headers={"X-Demo-Tokens": "500"}).json()
    assert len(answer["choices"][0]["message"]["content"].split()) == 500
    assert answer["usage"]["completion_tokens"] == 500 and answer["choices"][0]["finish_reason"] == "stop"


def test_chat_calls_the_first_tool(client: httpx.Client) -> None:
    choice = chat(client, tools=[TOOL])["choices"][0]
    function = choice["message"]["tool_calls"][0]["function"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    assert function["name"] == "weather"
    assert json.loads(function["arguments"]) == {"city": "Paris", "unit": "C", "days": 1}


def test_chat_answers_in_words_once_the_tool_has(client: httpx.Client) -> None:
    messages = [*ASK, {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "sun"}]
    assert chat(client, tools=[TOOL], messages=messages)["choices"][0]["finish_reason"] == "stop"
    assert chat(client, tools=[TOOL], tool_choice="none")["choices"][0]["finish_reason"] == "stop"


def test_chat_json(client: httpx.Client) -> None:
    plain = chat(client, response_format={"type": "json_object"})
    assert json.loads(plain["choices"][0]["message"]["content"])["topic"] == "Paris"
    shape = {
        "type": "object",
        "properties": {"tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}}, "ok": {"type": "boolean"}},
        "$defs": {"Tag": {"anyOf": [{"type": "string", "minLength": 8}, {"type": "null"}]}},
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": shape}}
    fitting = chat(client, response_format=form)
    assert json.loads(fitting["choices"][0]["message"]["content"]) == {"tags": ["Paris..."], "ok": True}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model":"m"}', b'{"messages":[{"role":1}]}', b"", b"\xff"])
def test_bad_requests_say_why(client: httpx.Client, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/messages"):
        answer = client.post(path, content=body)
        assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert client.post("/v1/chat/completions", json={}).json()["error"]["param"] == "messages"


def test_completions(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json={"prompt": ["a", "b"], "n": 2, "max_tokens": 5}).json()
    assert answer["object"] == "text_completion" and len(answer["choices"]) == 4
    assert all(c["finish_reason"] == "length" and len(c["text"].split()) == 5 for c in answer["choices"])
    events = streamed(client, "/v1/completions", prompt="a", stream_options={"include_usage": True})
    text = "".join(data["choices"][0]["text"] for _, data in events[:-2])
    assert text == client.post("/v1/completions", json={"prompt": "a"}).json()["choices"][0]["text"]
    assert events[-2][1]["usage"]["completion_tokens"] == len(text.split())


def embed(client: httpx.Client, given: Any, **fields: Any) -> list[Any]:
    answer = client.post("/v1/embeddings", json={"input": given, **fields}).raise_for_status().json()
    return [item["embedding"] for item in answer["data"]]


def test_embeddings(client: httpx.Client) -> None:
    (one,) = embed(client, "a")
    assert len(one) == 256 and abs(sum(x * x for x in one) - 1) < 1e-5
    assert embed(client, ["a", "b"])[0] == one and embed(client, ["a", "b"])[1] != one
    assert len(embed(client, [1, 2, 3])) == 1 and len(embed(client, [[1], [2, 3]])) == 2
    (coded,) = embed(client, "a", encoding_format="base64", dimensions=8)
    assert list(struct.unpack("<8f", base64.b64decode(coded))) == embed(client, "a", dimensions=8)[0]
    assert client.post("/v1/embeddings", json={"input": []}).status_code == 400


def test_responses_stream(client: httpx.Client) -> None:
    events = streamed(client, "/v1/responses", input="Hello", instructions="be kind")
    names = [name.removeprefix("response.") for name, _ in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    ends = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(names[4:-4]) == {"output_text.delta"} and names[-4:] == ends
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert [data["type"] for _, data in events] == [name for name, _ in events]
    whole = events[-1][1]["response"]
    text = "".join(data["delta"] for _, data in events[4:-4])
    assert whole["status"] == "completed" and whole["output"][0]["content"][0]["text"] == text
    assert whole["usage"]["input_tokens"] == 3 and whole["usage"]["output_tokens"] == len(text.split())


def test_responses_limit(client: httpx.Client) -> None:
    answer = client.post("/v1/responses", json={"input": "x", "max_output_tokens": 3}).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert streamed(client, "/v1/responses", input="x", max_output_tokens=3)[-1][0] == "response.incomplete"


def test_messages(client: httpx.Client) -> None:
    answer = client.post("/v1/messages", json={"model": "c", "max_tokens": 99, "messages": ASK}).json()
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    events = streamed(client, "/v1/messages", max_tokens=99, messages=ASK)
    names = [name for name, _ in events]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")
    assert text == answer["content"][0]["text"]
    assert events[-2][1]["usage"]["output_tokens"] == answer["usage"]["output_tokens"] == len(text.split())


def test_messages_tool(client: httpx.Client) -> None:
    tool = {"name": "weather", "input_schema": TOOL["function"]["parameters"]}
    body = {"max_tokens": 99, "messages": ASK, "tools": [tool]}
    answer = client.post("/v1/messages", json=body).json()
    assert answer["stop_reason"] == "tool_use" and answer["content"][0]["input"]["city"] == "Paris"
    events = streamed(client, "/v1/messages", **body)
    parts = [data["delta"]["partial_json"] for name, data in events if name == "content_block_delta"]
    assert len(parts) > 1 and json.loads("".join(parts)) == answer["content"][0]["input"]


def test_models(client: httpx.Client) -> None:
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == ["demo", "demo-large", "demo-embed"]
    assert client.get("/v1/models/demo-large").json()["id"] == "demo-large"
    missing = client.get("/v1/models/org/none")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_files(client: httpx.Client) -> None:
    content = bytes(range(256)) * 20
    sent = client.post("/v1/files", files={"file": ("a.bin", content)}, data={"purpose": "batch"}).json()
    assert (sent["bytes"], sent["filename"], sent["purpose"]) == (len(content), "a.bin", "batch")
    assert sent["sha256"] == hashlib.sha256(content).hexdigest() and sent["object"] == "file"
    path = f"/v1/files/{sent['id']}"
    assert client.get(path).json() == sent and client.get(f"{path}/content").content == content
    assert sent in client.get("/v1/files?purpose=batch").json()["data"]
    assert client.get("/v1/files?purpose=vision").json()["data"] == []
    assert len(client.get(f"{path}/content", headers={"X-Demo-Bytes": "100001"}).content) == 100_001
    assert client.delete(path).json() == {"id": sent["id"], "object": "file", "deleted": True}
    assert client.get(path).status_code == 404


def test_large_files_are_hashed_only(client: httpx.Client) -> None:
    content = b"0123456789" * 500_000
    sent = client.post("/v1/files", files={"file": ("big", content)}).json()
    assert (sent["bytes"], sent["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert client.get(f"/v1/files/{sent['id']}/content").status_code == 404
    assert client.post("/v1/files", data={"purpose": "x"}).status_code == 400


def test_json_has_its_limit(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", content=b" " * (16 * 1024 * 1024 + 1))
    assert answer.status_code == 413


def test_speech_and_transcription(client: httpx.Client) -> None:
    def speak(**headers: str) -> httpx.Response:
        return client.post("/v1/audio/speech", json={"input": "a"}, headers=headers)

    assert len(speak().content) == 16_384 and speak().content == speak().content
    assert len(speak(**{"X-Demo-Bytes": "200000"}).content) == 200_000
    assert speak().headers["content-type"] == "audio/mpeg"
    heard = client.post("/v1/audio/transcriptions", files={"file": ("a.mp3", b"x" * 7)}, data={"model": "m"})
    assert "a.mp3" in heard.json()["text"] and "7 bytes" in heard.json()["text"]


def test_images_moderations_rerank(client: httpx.Client) -> None:
    images = client.post("/v1/images/generations", json={"prompt": "x", "n": 2}).json()["data"]
    assert all(base64.b64decode(image["b64_json"]).startswith(b"\x89PNG") for image in images) and len(images) == 2
    verdict = client.post("/v1/moderations", json={"input": ["a", "b"]}).json()
    assert [result["flagged"] for result in verdict["results"]] == [False, False]
    documents = ["cats sleep", "the red fox jumps", "red wine"]
    body = {"query": "red fox", "documents": documents, "top_n": 2}
    results = client.post("/v1/rerank", json=body).json()["results"]
    assert [result["index"] for result in results] == [1, 2]
    assert results[0]["document"] == {"text": documents[1]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": ASK, "n": 129}),
        ("completions", {"prompt": ["x"] * 3000}),
        ("embeddings", {"input": ["x"] * 1000, "dimensions": 8000}),
        ("moderations", {"input": ["x"] * 3000}),
    ],
)
def test_no_request_takes_all_the_memory(client: httpx.Client, path: str, body: Any) -> None:
    assert client.post(f"/v1/{path}", json=body).status_code == 400
    huge = client.post("/v1/chat/completions", json={"messages": ASK}, headers={"X-Demo-Bytes": "9" * 14})
    assert huge.status_code == 400


def test_schemas_that_are_odd_or_refer_to_themselves(client: httpx.Client) -> None:
    again = {"$ref": "#"}
    shape = {"properties": dict.fromkeys("abcdef", again) | {"s": {"type": "string", "minLength": 10**9}}}
    for odd in (shape, {"enum": 1}, {"type": "array", "minItems": 10**9, "items": 3}, {"$ref": "#/x/y"}):
        tool = {"type": "function", "function": {"name": "f", "parameters": odd}}
        message = chat(client, tools=[tool])["choices"][0]["message"]
        json.loads(message["tool_calls"][0]["function"]["arguments"])
    nested = b'{"messages":[],"tool_choice":' + b'{"a":' * 100_000
    assert client.post("/v1/chat/completions", content=nested).status_code == 400
