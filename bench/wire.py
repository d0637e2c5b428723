"""The bytes of the benchmark: requests, the plain answer, the events of a stream, and what a whole one looks like."""

import json

# Models, which say what the upstream does (bench/upstream.py).
PLAIN = "plain"
PACED = "paced"
SHORT = "short"
SILENT = "silent"

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
REQUEST_BYTES = 1024
ANSWER_BYTES = 1024
DONE = b"data: [DONE]\n\n"
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":%020d,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" some seven words in a piece"},"finish_reason":null}]}\n\n'
)
EVENT_BYTES = len(_EVENT % 0)
_STAMP = _EVENT.index(b"%020d")


def _filled(size: int, document: dict[str, object], message: dict[str, str]) -> bytes:
    """The document as JSON of exactly `size` bytes: the message's text makes up the rest."""
    message["content"] = "x" * (size - len(json.dumps(document)))
    return json.dumps(document).encode()


def _answer() -> bytes:
    message = {"role": "assistant", "content": ""}
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 230, "completion_tokens": 190, "total_tokens": 420},
    }
    return _filled(ANSWER_BYTES, document, message)


ANSWER = _answer()


def request(model: str, port: int) -> bytes:
    """A whole chat request with a JSON body of REQUEST_BYTES and the header lines SDKs send."""
    message = {"role": "user", "content": ""}
    document = {"model": model, "stream": model != PLAIN, "temperature": 0.2, "messages": [message]}
    body = _filled(REQUEST_BYTES, document, message)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "Accept: application/json\r\n"
        "Accept-Encoding: identity\r\n"
        f"Authorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\n"
        "User-Agent: bench/1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def event(stamp_ns: int) -> bytes:
    """One event of a stream; `created` is the time it was sent, by the machine's monotonic clock."""
    return _EVENT % stamp_ns


def stamp_ns(data: bytes) -> int:
    """The stamp of the first event in `data`."""
    start = data.index(b'"created":') + 10
    return int(data[start : start + 20])
