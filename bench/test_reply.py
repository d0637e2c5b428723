"""What reading along a streamed answer costs a chunk: reported, not judged. `pytest bench --benchmark-only`."""

from typing import Any

import pytest

from penstock.ext import (
    BUILD_PROFILE,
    DIALECT_CHAT,
    DIALECT_MESSAGES,
    DIALECT_OLLAMA,
    DIALECT_RESPONSES,
    ReplyScanner,
    scan_answer,
)

CHAT = (
    b'data: {"id":"chatcmpl-534","object":"chat.completion.chunk","created":1795230234,"model":"tiny",'
    b'"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":" model"},"finish_reason":null}]}\n\n'
)
USAGE = b'"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}'
RESPONSES = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_67c9fdcf37fc8190ba82116e33fb28c5",'
    b'"output_index":0,"content_index":0,"delta":"In","logprobs":[],"obfuscation":"aZ9kLmQp"}\n\n'
)
MESSAGES = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}\n\n'
)
OLLAMA = (
    b'{"model":"tiny:latest","created_at":"2026-11-21T03:03:37.595342116Z",'
    b'"message":{"role":"assistant","content":" are"},"done":false}\n'
)

CHUNKS = {
    "chat": (DIALECT_CHAT, CHAT),
    "chat, usage null": (DIALECT_CHAT, CHAT.replace(b"}]}", b'}],"usage":null}')),
    "chat, usage told": (DIALECT_CHAT, CHAT.replace(b"}]}", b"}]," + USAGE + b"}")),
    "chat, 300 events at once": (DIALECT_CHAT, CHAT * 300),
    "responses": (DIALECT_RESPONSES, RESPONSES),
    "messages": (DIALECT_MESSAGES, MESSAGES),
    "ollama": (DIALECT_OLLAMA, OLLAMA),
}


@pytest.fixture(autouse=True)
def _release_build() -> None:
    assert BUILD_PROFILE == "release", "a debug build tells nothing: SETUPTOOLS_RUST_CARGO_PROFILE=release"


@pytest.mark.parametrize("name", CHUNKS)
def test_feed(benchmark: Any, name: str) -> None:
    dialect, chunk = CHUNKS[name]
    benchmark.extra_info["bytes"] = len(chunk)
    scanner = ReplyScanner(dialect)
    scanner.feed(chunk)
    assert benchmark(scanner.feed, chunk) == 0


def test_feed_of_an_event_in_two_pieces(benchmark: Any) -> None:
    scanner = ReplyScanner(DIALECT_CHAT)

    def feed() -> int:
        scanner.feed(CHAT[:100])
        return scanner.feed(CHAT[100:])

    assert benchmark(feed) == 0


def test_a_whole_short_stream(benchmark: Any) -> None:
    def stream() -> int:
        scanner = ReplyScanner(DIALECT_CHAT)
        for _ in range(20):
            scanner.feed(CHAT)
        scanner.feed(b"data: [DONE]\n\n")
        return scanner.finish()

    assert benchmark(stream) == 1


def test_scan_answer(benchmark: Any) -> None:
    message = b'"message":{"role":"assistant","content":"%s"}' % (b"lorem ipsum dolor sit amet " * 40)
    body = b'{"id":"x","choices":[{"index":0,%s,"finish_reason":"stop"}],%s}' % (message, USAGE)
    assert benchmark(scan_answer, body, DIALECT_CHAT).complete
