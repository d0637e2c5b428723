"""What comes in: the strict checks of a head, and the body, held or streamed through.

Our own listener refuses ambiguous framing itself. granian (TLS) is lenient where it must not be (it takes a missing or
doubled Host), so `check` refuses what a backend might read differently than we do. Of Content-Length beside
Transfer-Encoding granian shows only the latter: the body is then read as chunked, framed anew for the backend, and the
connection closed (RFC 9112 §6.3).
"""

import asyncio
from collections.abc import Awaitable
from functools import lru_cache
from typing import NamedTuple

from penstock.core.endpoint import Endpoint, Shape
from penstock.core.errors import BodyTooLarge, InvalidJson, InvalidRequest, OriginRefused, WrongContentType
from penstock.core.origin import OriginRules
from penstock.ext import MEDIA_JSON, MEDIA_MULTIPART, JsonError, multipart_field, peek
from penstock.proxy.exchange import ClientLeft, Exchange

# A form's small fields stand before its files in what SDKs send; the model is looked for in this much.
MULTIPART_PEEK_BYTES = 65_536


class Gate:
    """The origin rules with a memory of the Host values seen: they are few, and one comes with every request."""

    def __init__(self, rules: OriginRules) -> None:
        self.rules = rules
        self.host_allowed = lru_cache(maxsize=256)(rules.host_allowed)


def check(exchange: Exchange, gate: Gate) -> None:
    """Refuse a head that is ambiguous, or that a browser was tricked into sending."""
    head = exchange.head
    if head.problem is not None:
        raise InvalidRequest(head.problem)
    if not gate.host_allowed(head.host):
        name = head.host.decode("latin-1")[:100]
        raise InvalidRequest(
            f"this server does not go by the Host {name!r}; server.hosts lists its names", param="Host"
        )
    origin = head.origin
    if origin is not None and not gate.rules.origin_allowed(origin, head.host):
        raise OriginRefused("calls from this Origin are not allowed; cors.origins lists those that are", param="Origin")


class Sizes(NamedTuple):
    """The most bytes of a body that is held, and of one that streams through."""

    held: int
    upload: int


def read_body(exchange: Exchange, endpoint: Endpoint, sizes: Sizes) -> Awaitable[None] | None:
    """Read the request's body: JSON is held and peeked into, anything else streams through as an `Upload`.

    None: it is here already, as most are; else to be awaited.
    """
    media = exchange.head.media
    if endpoint.json_only and media != MEDIA_JSON:
        sent = (exchange.head.content_type or b"none").decode("latin-1")[:100]
        raise WrongContentType(f"Content-Type must be application/json, not {sent}", param="Content-Type")
    if not exchange.body_open:
        if endpoint.json_only:
            raise InvalidJson("the request has no body; a JSON object is needed")
        return None
    if media != MEDIA_JSON and (endpoint.shape is not Shape.OLLAMA or endpoint.route.startswith("/api/blobs")):
        return _begin_upload(exchange, sizes.upload)
    _bound(exchange.head.content_length or 0, sizes.held)
    body = exchange.whole_body()
    if body is None:
        return _gather(exchange, sizes.held)
    _bound(len(body), sizes.held)
    _hold(exchange, body)
    return None


async def _gather(exchange: Exchange, limit: int) -> None:
    """The whole of a body that did not come in one piece."""
    length = exchange.head.content_length
    parts: list[bytes] = []
    size = 0
    while exchange.body_open:
        parts.append(exchange.part(await exchange.message()))
        size += len(parts[-1])
        _bound(size, limit)
        if size == length:
            exchange.body_read()
    _hold(exchange, parts[0] if len(parts) == 1 else b"".join(parts))


def _hold(exchange: Exchange, body: bytes) -> None:
    exchange.body = body
    exchange.body_bytes = len(body)
    _peek(exchange)


def _bound(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"the body is over {limit} bytes (server.max_body_bytes, or max_upload_bytes for uploads)")


def _peek(exchange: Exchange) -> None:
    try:
        facts = peek(exchange.body)
    except JsonError as error:
        raise InvalidJson(f"the body is not a JSON object: {error}") from None
    if facts.model_mistyped:
        raise InvalidRequest('"model" must be a string', param="model")
    exchange.peek = facts
    exchange.model = facts.model


async def _begin_upload(exchange: Exchange, max_upload_bytes: int) -> None:
    length = exchange.head.content_length
    _bound(length or 0, max_upload_bytes)
    exchange.upload = Upload(exchange, max_upload_bytes)
    if exchange.head.media == MEDIA_MULTIPART and exchange.head.content_type is not None:
        exchange.model = await exchange.upload.find_model(exchange.head.content_type)


class Upload:
    """A body on its way through. `prefix` was read to find the model in; `next` gives what follows it."""

    __slots__ = ("_exchange", "_limit", "_size", "begun", "model_span", "prefix")

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self._size = 0
        self.prefix = b""
        self.begun = False
        self.model_span: tuple[int, int] | None = None

    async def find_model(self, content_type: bytes) -> str | None:
        """The form's "model" field, if it stands within the first MULTIPART_PEEK_BYTES."""
        while len(self.prefix) < MULTIPART_PEEK_BYTES and self._exchange.body_open:
            self.prefix += await self._receive()
            self.model_span = multipart_field(self.prefix, content_type, b"model")
            if self.model_span is not None:
                start, end = self.model_span
                return self.prefix[start:end].decode("utf-8", "replace")
        return None

    async def next(self) -> bytes:
        """The next part; b"" at the end. Raises ClientLeft, BodyTooLarge."""
        while self._exchange.body_open:
            if part := await self._receive():
                return part
        return b""

    async def _receive(self) -> bytes:
        part = self._exchange.part(await self._exchange.message())
        self._size += len(part)
        _bound(self._size, self._limit)
        if self._size == self._exchange.head.content_length:
            self._exchange.body_read()
        return part


# A client that is still sending does not read its answer, and closing on it would reset the connection before it
# could. So an early refusal first takes in what is on its way, up to this much and for this long.
DISCARD_BYTES = 33_554_432
DISCARD_S = 1.0


async def discard(exchange: Exchange) -> None:
    """Read and drop what is left of the body, unless the client waits to be told (Expect: 100-continue)."""
    if any(name == b"expect" for name, _ in exchange.scope["headers"]):
        return
    dropped = 0
    try:
        async with asyncio.timeout(DISCARD_S):
            while exchange.body_open and not exchange.client_left and dropped < DISCARD_BYTES:
                dropped += len(exchange.part(await exchange.message()))
    except (TimeoutError, ClientLeft):
        pass
    except asyncio.CancelledError:
        # The body's own time is over; the client is told what was wrong before that.
        task = asyncio.current_task()
        if exchange.client_left or task is None:
            raise
        task.uncancel()
