"""/v1/echo…: tells what arrived, to the letter, for tests of what a proxy changes."""

from __future__ import annotations

from penstock.proxy.demo.answer import Answer, json_answer
from penstock.proxy.demo.request import Request
from penstock.proxy.demo.state import Demo


def answer(request: Request, demo: Demo) -> Answer:
    head, body = request.head, request.body
    return json_answer(
        {
            "method": head.method,
            "target": head.target,
            "headers": head.headers,
            "body_bytes": body.size,
            "body_sha256": body.sha256,
            "chunked": head.is_chunked,
            "body": _text(body.bytes()) if body.is_whole else None,
        }
    )


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
