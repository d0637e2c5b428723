"""The OpenAI SDK reads what the demo backend answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from demo_wire import running

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with running() as server:
        base = f"http://127.0.0.1:{server.port}/v1"
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:
            yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=ASK)
    assert answer.choices[0].message.content and answer.usage and answer.usage.completion_tokens


def test_stream(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    with client.chat.completions.create(model="demo", messages=ASK, stream=True, stream_options=options) as s:
        chunks = list(s)
    assert chunks[-1].usage and chunks[-1].usage.total_tokens
    assert "Paris" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_tools(client: openai.OpenAI) -> None:
    call = client.chat.completions.create(model="demo", messages=ASK, tools=TOOLS).choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    with client.chat.completions.stream(model="demo", messages=ASK, tools=TOOLS) as stream:
        choice = stream.get_final_completion().choices[0]
    streamed = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and streamed.function.name == "weather"
    assert streamed.function.arguments == call.function.arguments


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="demo-embed", input=["a", "b"], dimensions=16)
    assert [len(item.embedding) for item in answer.data] == [16, 16]


def test_responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="demo", input="Hello")
    assert whole.output_text.startswith("Hello!") and whole.usage
    with client.responses.stream(model="demo", input="Hello") as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_the_rest(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo", "demo-large", "demo-embed"]
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    assert client.files.content(file.id).read() == b"{}\n" and client.files.delete(file.id).deleted
    assert client.audio.speech.create(model="demo", input="x", voice="alloy").read()
    assert client.audio.transcriptions.create(model="demo", file=("a.wav", b"RIFF")).text
    assert client.images.generate(model="demo", prompt="x").data[0].b64_json
    assert not client.moderations.create(input="x").results[0].flagged


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("none")
    with pytest.raises(openai.RateLimitError):
        fault = {"X-Demo-Fault": "status=429"}
        client.chat.completions.create(model="demo", messages=ASK, extra_headers=fault)
    with pytest.raises(openai.APIError, match="failed as asked"):
        fault = {"X-Demo-Fault": "inband"}
        list(client.chat.completions.create(model="demo", messages=ASK, stream=True, extra_headers=fault))
