"""What reading and renaming a request body costs: reported, not judged. `pytest bench --benchmark-only`."""

import json
from typing import Any

import pytest

from penstock.ext import BUILD_PROFILE, multipart_field, peek, splice


@pytest.fixture(autouse=True)
def _release_build() -> None:
    assert BUILD_PROFILE == "release", "a debug build tells nothing: SETUPTOOLS_RUST_CARGO_PROFILE=release"


def chat(content: str, messages: int = 1, ascii_only: bool = True) -> bytes:
    roles = ["system", *["user", "assistant"] * messages][:messages]
    body: dict[str, Any] = {
        "model": "llama3.1:8b",
        "messages": [{"role": role, "content": content} for role in roles],
        "temperature": 0.7,
        "max_tokens": 500,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(body, ensure_ascii=ascii_only).encode()


BODIES = {
    "1 KB, one text": chat("lorem ipsum dolor sit amet, " * 30),
    "1 KB, 11 messages": chat('Hello there,\nwhat is "this"? ', messages=11),
    "1 MB of English": chat("lorem ipsum dolor sit amet, " * 37_000),
    "1 MB of Japanese in UTF-8": chat("日本語のテキスト" * 43_000, ascii_only=False),
    "1 MB of escaped code": chat('if x == "a":\n\tprint(x)\n' * 37_000),
    "0.5 MB of numbers": json.dumps({"model": "m", "input": [at * 0.123456789 for at in range(30_000)]}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_peek(benchmark: Any, name: str) -> None:
    body = BODIES[name]
    benchmark.extra_info["bytes"] = len(body)
    assert benchmark(peek, body).model is not None


@pytest.mark.parametrize("name", ["1 KB, one text", "1 MB of English"])
def test_splice_of_the_model(benchmark: Any, name: str) -> None:
    body = BODIES[name]
    edits = [(start, end, b'"other:70b"') for start, end in peek(body).model_spans]
    assert peek(benchmark(splice, body, edits)).model == "other:70b"


def test_multipart_field(benchmark: Any) -> None:
    head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n%s\r\n' % bytes(50_000)
    body = head + b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--XX--\r\n'
    start, end = benchmark(multipart_field, body, b"multipart/form-data; boundary=XX", b"model")
    assert body[start:end] == b"whisper-1"
