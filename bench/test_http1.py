"""The http1 calls that are on the path of every request. Reported, not asserted.

pytest bench/test_http1.py --benchmark-only
"""

from collections.abc import Callable
from typing import Any

import pytest

from penstock.ext import BUILD_PROFILE, RequestHead, ResponseParser

if BUILD_PROFILE != "release":
    pytest.skip("a debug build says nothing", allow_module_level=True)

Benchmark = Callable[..., Any]

# What the OpenAI SDK for Python sends, shortened.
REQUEST = [
    (b"host", b"127.0.0.1:8080"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-0123456789abcdef0123456789abcdef"),
    (b"user-agent", b"OpenAI/Python 1.60.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-request-id", b"0123456789abcdef"),
    (b"content-length", b"1024"),
]
START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:9000\r\nauthorization: Bearer of-the-backend\r\n"
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Tue, 21 Nov 2023 04:00:00 GMT\r\nServer: uvicorn\r\nContent-Length: 1024\r\n"
    b"Content-Type: application/json\r\nX-Request-ID: 0123456789abcdef\r\nConnection: keep-alive\r\n"
    b"Cache-Control: no-cache\r\nVary: Origin\r\nopenai-processing-ms: 12\r\n\r\n"
)
BODY = b"x" * 1024
CHUNK = b"c8\r\n" + b"x" * 200 + b"\r\n"


def streaming(framing: bytes) -> ResponseParser:
    parser = ResponseParser()
    parser.expect()
    parser.feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    return parser


def test_read_request_head(benchmark: Benchmark) -> None:
    benchmark(RequestHead, REQUEST)


@pytest.mark.parametrize("size", [0, 1024, 100_000])
def test_encode_request(benchmark: Benchmark, size: int) -> None:
    benchmark(RequestHead(REQUEST).encode, START, size, b"x" * size)


def test_encode_request_that_asks_for_no_coding(benchmark: Benchmark) -> None:
    benchmark(RequestHead(REQUEST).encode, START, 1024, BODY, True)


def test_feed_whole_response(benchmark: Benchmark) -> None:
    parser, whole = ResponseParser(), HEAD + BODY

    def answer() -> None:
        parser.expect()
        parser.feed(whole)

    benchmark(answer)


@pytest.mark.parametrize("form", ["headers", "answer"])
def test_head_of_a_whole_response(benchmark: Benchmark, form: str) -> None:
    parser, whole = ResponseParser(), HEAD + BODY

    def answer() -> None:
        parser.expect()
        head, body, _ = parser.feed(whole)
        assert head is not None
        assert head.headers if form == "headers" else head.answer(b"OK", b"id", None, b"", b"\r\n", body)

    benchmark(answer)


@pytest.mark.parametrize("chunks", [1, 3, 300])
def test_feed_chunks(benchmark: Benchmark, chunks: int) -> None:
    benchmark(streaming(b"transfer-encoding: chunked\r\n").feed, CHUNK * chunks)


def test_feed_body_until_close(benchmark: Benchmark) -> None:
    benchmark(streaming(b"").feed, BODY)
