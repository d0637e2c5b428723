"""Answers of our own: JSON bodies, and errors in the form the moment allows (before the head, or inside a stream)."""

from typing import Any

import msgspec

from penstock.core.endpoint import Shape
from penstock.core.errors import PenstockError, RateLimited
from penstock.ext import MEDIA_EVENT_STREAM, MEDIA_NDJSON
from penstock.proxy.exchange import Exchange
from penstock.proxy.sever import sever

# On our own answers only: a backend's answer goes on as it came.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-xss-protection", b"1; mode=block"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
)
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")

_encode = msgspec.json.Encoder().encode


async def send_json(exchange: Exchange, status: int, value: Any, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer with a JSON body; HEAD gets the same head and no body."""
    body = _encode(value)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *SECURITY_HEADERS,
        (b"x-request-id", exchange.request_id),
        *exchange.cors,
        *exchange.told,
        *extra,
    ]
    if exchange.scope["scheme"] == "https":
        headers.append(HSTS)
    await exchange.start(status, headers)
    await exchange.finish(b"" if exchange.method == "HEAD" else body)


async def refuse(exchange: Exchange, error: PenstockError) -> None:
    """Answer with an error; nothing of the answer has gone out yet."""
    extra = [(b"x-penstock-error", error.fault.encode()), *error.headers]
    if error.retry_after_s is not None:
        extra.append((b"retry-after", str(error.retry_after_s).encode()))
    await send_json(exchange, error.status, envelope(error, shape_of(exchange)), tuple(extra))


def envelope(error: PenstockError, shape: Shape) -> dict[str, Any]:
    """OpenAI's error object, or Ollama's on its native paths; with the next tier, where one would help."""
    upgrade = {"upgrade": error.upgrade} if isinstance(error, RateLimited) and error.upgrade else {}
    if shape is Shape.OLLAMA:
        return {"error": error.message, **upgrade}
    # In the object itself: SDKs hand that on as the error's body.
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code, **upgrade}
    }


def shape_of(exchange: Exchange) -> Shape:
    if exchange.endpoint is not None:
        return exchange.endpoint.shape
    return Shape.OLLAMA if exchange.path.startswith(b"/api/") else Shape.OPENAI


def last_event(exchange: Exchange, error: PenstockError) -> bytes:
    """The error as the last event of a stream that has begun; b"" where the media type has no room for one."""
    text = _encode(envelope(error, shape_of(exchange)))
    if exchange.media == MEDIA_EVENT_STREAM:
        # The cut may have come inside an event: two line ends close whatever is open (WHATWG HTML §9.2.6).
        return b"\n\ndata: " + text + b"\n\n"
    if exchange.media == MEDIA_NDJSON:
        return b"\n" + text + b"\n"
    return b""


async def cut(exchange: Exchange, error: PenstockError, *, told: bool = False) -> None:
    """An answer that has begun cannot be finished: say so as its last event, and end it uncleanly.

    told: the backend has already said in the stream what went wrong.
    """
    exchange.error = error
    if exchange.heartbeat is not None:
        exchange.heartbeat.stop()
    event = b"" if told else last_event(exchange, error)
    if exchange.explains is not None and (comment := exchange.explains.comment()):
        event = b"\n" + comment + event
    if event:
        await exchange.write(event)
    await sever(exchange)
