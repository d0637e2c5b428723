"""The openai package for Python, sync and async, against penstock: its users change the base URL and nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest

from running import Penstock

ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


@pytest.fixture(scope="module")
def client(proxy: Penstock) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="sk-client", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def hasty_client(hasty: Penstock) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{hasty.url}/v1", api_key="sk-client", max_retries=0) as client:
        yield client


def run(proxy: Penstock, work: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-client", max_retries=0) as client:
            await work(client)

    asyncio.run(main())


# --- chat --------------------------------------------------------------------------------------------------


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=ASK)
    assert answer.choices[0].finish_reason == "stop" and "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="demo", messages=ASK).choices[0].message.content
    with client.chat.completions.create(model="demo", messages=ASK, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_chat_stream_with_usage(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    with client.chat.completions.create(model="demo", messages=ASK, stream=True, stream_options=options) as stream:
        *_, last = stream
    assert last.usage and last.usage.completion_tokens and not last.choices


def test_a_stream_left_early(client: openai.OpenAI) -> None:
    headers = {"X-Demo-Tokens": "100000", "X-Demo-Rate": "1000"}
    with client.chat.completions.create(model="demo", messages=ASK, stream=True, extra_headers=headers) as stream:
        assert next(iter(stream)).id
    assert client.chat.completions.create(model="demo", messages=ASK).id


def test_choices(client: openai.OpenAI) -> None:
    assert len(client.chat.completions.create(model="demo", messages=ASK, n=3).choices) == 3


def test_a_tool_call_and_its_result(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model="demo", messages=ASK, tools=TOOLS).choices[0].message
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"sky":"clear"}'}
    talk: Any = [*ASK, message.model_dump(exclude_none=True), result]
    after = client.chat.completions.create(model="demo", messages=talk, tools=TOOLS)
    assert after.choices[0].finish_reason == "stop" and after.choices[0].message.content


def test_a_streamed_tool_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="demo", messages=ASK, tools=TOOLS) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Paris"}


def test_json_schema(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}
    answer = client.chat.completions.create(model="demo", messages=ASK, response_format=form)
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Paris"}


def test_a_renamed_model(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="renamed", messages=ASK).model == "demo-large"


def test_the_raw_answer_has_our_request_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=ASK)
    assert raw.request_id and raw.parse()._request_id == raw.request_id


# --- the other endpoints -----------------------------------------------------------------------------------


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="demo", prompt="Hello").choices[0].text
    with client.completions.create(model="demo", prompt="Hello", stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == whole and whole.strip()


def test_embeddings(client: openai.OpenAI) -> None:
    """The SDK asks for base64 unless told otherwise."""
    plain = client.embeddings.create(model="demo-embed", input=["a", "b"], dimensions=16, encoding_format="float")
    coded = client.embeddings.create(model="demo-embed", input=["a", "b"], dimensions=16)
    assert [item.index for item in plain.data] == [0, 1]
    for one, other in zip(plain.data, coded.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)


def test_embeddings_as_text(client: openai.OpenAI) -> None:
    raw: Any = client.embeddings.create(model="demo-embed", input="a", dimensions=4, encoding_format="base64")
    assert len(struct.unpack("<4f", base64.b64decode(raw.data[0].embedding))) == 4


def test_responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="demo", input="Hello")
    assert whole.status == "completed" and whole.output_text.startswith("Hello!") and whole.usage
    with client.responses.stream(model="demo", input="Hello") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == whole.output_text
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert len(names) == len(set(names)) and {"demo", "demo-large", "demo-embed", "renamed"} <= set(names)
    for name in names:
        assert client.models.retrieve(name).id == name


def test_files(client: openai.OpenAI) -> None:
    content = b'{"custom_id":"\x00\xff"}\r\n' * 1000
    file = client.files.create(file=("a.jsonl", content), purpose="batch")
    assert file.bytes == len(content)
    assert (file.model_extra or {})["sha256"] == hashlib.sha256(content).hexdigest()
    assert file.id in [found.id for found in client.files.list(purpose="batch")]
    assert client.files.retrieve(file.id).filename == "a.jsonl"
    assert client.files.content(file.id).read() == content
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_speech(client: openai.OpenAI) -> None:
    ask: Any = {"model": "demo", "input": "x", "voice": "alloy", "extra_headers": {"X-Demo-Bytes": "300000"}}
    whole = client.audio.speech.create(**ask).read()
    with client.audio.speech.with_streaming_response.create(**ask) as answer:
        assert b"".join(answer.iter_bytes()) == whole and len(whole) == 300_000


def test_transcription(client: openai.OpenAI) -> None:
    audio = b"RIFF" + bytes(200_000)
    assert "200004 bytes" in client.audio.transcriptions.create(model="demo", file=("a.wav", audio)).text


def test_a_forms_model_field_is_what_routes_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.transcriptions.create(model="nobody", file=("a.wav", b"RIFF"))
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as unreachable:
        client.audio.transcriptions.create(model="lost", file=("a.wav", b"RIFF"))
    assert unreachable.value.code == "backend_unreachable"


def test_images_and_moderations(client: openai.OpenAI) -> None:
    pictures = client.images.generate(model="demo", prompt="x").data
    assert pictures and base64.b64decode(pictures[0].b64_json or "").startswith(b"\x89PNG")
    assert not client.moderations.create(input="x").results[0].flagged


# --- errors ---------------------------------------------------------------------------------------------------


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="demo-large") as caught:
        client.chat.completions.create(model="demo-larg", messages=ASK)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert caught.value.type == "invalid_request_error" and caught.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=7, messages=ASK)  # type: ignore[call-overload]
    assert (caught.value.param, caught.value.code) == ("model", "invalid_request")


def test_the_backends_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="demo-embed", input="a", dimensions=0)
    assert caught.value.param == "dimensions"


def test_an_unreachable_backend(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="lost", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (502, "backend_unreachable")


def test_a_silent_backend(hasty_client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        hasty_client.chat.completions.create(model="demo", messages=ASK, extra_headers={"X-Demo-Fault": "never"})
    assert (caught.value.status_code, caught.value.code) == (504, "backend_timeout")


def test_an_overloaded_backend(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="demo", messages=ASK, extra_headers={"X-Demo-Fault": "status=503"})
    assert caught.value.status_code == 503


def test_a_rate_limit_of_the_backends(client: openai.OpenAI) -> None:
    headers = {"X-Demo-Fault": "status=429;retry-after=17"}
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="demo", messages=ASK, extra_headers=headers)
    assert caught.value.response.headers["retry-after"] == "17"


@pytest.mark.parametrize("fault", ["cut", "rst", "noend", "inband"])
def test_a_stream_that_breaks_off_is_an_error(client: openai.OpenAI, fault: str) -> None:
    """Not a short answer: the SDK raises on our last event."""
    headers = {"X-Demo-Fault": fault}
    with (
        pytest.raises(openai.APIError),
        client.chat.completions.create(model="demo", messages=ASK, stream=True, extra_headers=headers) as stream,
    ):
        list(stream)


# --- many at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_hundred_at_once(proxy: Penstock, stream: bool) -> None:
    """Each gets its own answer, not its neighbour's."""

    async def one(client: openai.AsyncOpenAI, number: int) -> None:
        talk: Any = [{"role": "user", "content": f"Please repeat the number {number} to me in words"}]
        if stream:
            parts = await client.chat.completions.create(model="demo", messages=talk, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in parts])
        else:
            text = (await client.chat.completions.create(model="demo", messages=talk)).choices[0].message.content or ""
        assert f" {number} " in text

    async def all_of_them(client: openai.AsyncOpenAI) -> None:
        await asyncio.gather(*(one(client, 1000 + number) for number in range(100)))

    run(proxy, all_of_them)


def test_async(proxy: Penstock) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        models = [model.id async for model in client.models.list()]
        assert "demo" in models
        async with client.responses.stream(model="demo", input="Hello") as stream:
            assert (await stream.get_final_response()).output_text
        file = await client.files.create(file=("a", b"abc"), purpose="user_data")
        assert (await client.files.content(file.id)).content == b"abc"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="none", messages=ASK)

    run(proxy, work)


def test_an_async_task_that_is_cancelled_frees_the_backend(proxy: Penstock) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        headers = {"X-Demo-Fault": "never"}
        asked = client.chat.completions.create(model="demo", messages=ASK, extra_headers=headers)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked, 0.1)
        assert (await client.chat.completions.create(model="demo", messages=ASK)).id

    run(proxy, work)
