"""One client's connection to the plain listener (`http1_server.py`): HTTP/1.1 in, ASGI to the application.

It reads one request, has it answered, and goes on with the next:

    HEAD --request--> ANSWERING --answered--> HEAD ... --close--> CLOSED
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.ext import MESSAGE_DONE, Entry, Request, RequestParser, RequestRefused, ResponseHead
from penstock.proxy.sockets import address

if TYPE_CHECKING:
    from penstock.proxy.http1_server import Listener

# Between two requests of a client; load balancers keep their side for about 60 s and must not be the later ones.
KEEP_ALIVE_S = 75.0
# What may wait in memory on either side of a request before its sender is held back.
HIGH_WATER_BYTES = 65_536
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
BODILESS_STATUSES = frozenset({204, 304})
ASGI = {"version": "3.0", "spec_version": "2.3"}
DISCONNECT = {"type": "http.disconnect"}


class ServerConnection(asyncio.Protocol):
    """See the head of this file."""

    __slots__ = (
        "_answering",
        "_blocked",
        "_body",
        "_body_bytes",
        "_body_open",
        "_chunked",
        "_closed",
        "_closing",
        "_continue",
        "_has_body",
        "_head_begun",
        "_head_sent",
        "_keep",
        "_left",
        "_listener",
        "_message_end",
        "_parser",
        "_paused",
        "_receiver",
        "_request",
        "_served",
        "_since",
        "_start",
        "_task",
        "_transport",
        "client",
        "more_lines",
        "on_leave",
        "server",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._parser = RequestParser()
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._receiver: asyncio.Future[dict[str, Any]] | None = None
        self._blocked: asyncio.Future[None] | None = None
        self._start: dict[str, Any] | None = None
        self._left: int | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._answering = self._body_open = self._paused = self._served = False
        self._closed = self._closing = self._head_begun = self._head_sent = False
        self._message_end = self._continue = self._keep = self._chunked = self._has_body = False
        self._since = listener.loop.time()
        self.on_leave: Callable[[], None] | None = None
        self.more_lines = b""
        """Header lines for the next head, each ended by CRLF: what is left of the client's limits."""

    def __repr__(self) -> str:
        doing = "closed" if self._closed else "answering" if self._answering else "waiting for a request"
        return f"<ServerConnection {self.client[0]}:{self.client[1]} {doing}>"

    # --- what the socket does ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self.client = address(transport.get_extra_info("peername"))
        self.server = address(transport.get_extra_info("sockname"))
        self._listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            request, body, end = self._parser.feed(data)
        except RequestRefused as error:
            self._refuse(*error.args)
            return
        if request is None and not self._answering and not self._head_begun:
            self._head_begun = True
            self._since = self._listener.loop.time()
        self._take(request, body, end)
        if self._answering and not self._body_open and len(data) >= HIGH_WATER_BYTES:
            self._pause()  # requests beyond the one being answered wait with the client

    def eof_received(self) -> bool:
        if self._answering:
            # A client that sends no more has left; waiting until it takes what is written would hold its backend.
            self._transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = self._closing = True
        self._listener.forget(self)
        if self._blocked is not None:
            self.resume_writing()
        if self._answering:
            self._tell(DISCONNECT)
            if self.on_leave is not None:
                self.on_leave()

    def pause_writing(self) -> None:
        self._blocked = self._listener.loop.create_future()

    def resume_writing(self) -> None:
        blocked, self._blocked = self._blocked, None
        if blocked is not None and not blocked.done():
            blocked.set_result(None)

    # --- a request ---

    def _take(self, request: Request | None, body: bytes, end: int) -> None:
        """What the parser found goes to the application."""
        if request is not None:
            self._begin(request, end)
        if body:
            self._body.append(body)
            self._body_bytes += len(body)
            if self._body_bytes >= HIGH_WATER_BYTES and self._receiver is None:
                self._pause()
        if end == MESSAGE_DONE:
            self._body_open = False
        if self._answering and self._receiver is not None and (body or not self._body_open) and not self._message_end:
            self._tell(self._message())

    def _begin(self, request: Request, end: int) -> None:
        self._request = request
        self._answering = True
        self._body_open = end != MESSAGE_DONE
        self._message_end = self._head_begun = self._head_sent = False
        self._continue = request.expects_continue and self._body_open
        self._start = None
        scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": "1.0" if request.http10 else "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path.decode("latin-1"),
            "raw_path": request.path,
            "query_string": request.query,
            "headers": request.headers,
            "client": self.client,
            "server": self.server,
            "penstock.head": request.head,
            "penstock.connection": self,
        }
        self._task = self._listener.loop.create_task(self._run(scope))

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._listener.app(scope, self.receive, self.send)
        finally:
            self.on_leave = None
            if self._answering and not self._closing:
                self._abandoned()

    def receive(self) -> Awaitable[dict[str, Any]]:
        """ASGI's receive."""
        if self._closing:
            return self._listener.done(DISCONNECT)
        if self._body or not (self._body_open or self._message_end):
            return self._listener.done(self._message())
        if self._continue:
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._receiver = self._listener.loop.create_future()
        return self._receiver

    def whole_body(self) -> bytes | None:
        """The request's body, if all of it came with the head and none was given yet; `receive` gives it otherwise."""
        if self._body_open or self._message_end or len(self._body) != 1 or self._closing:
            return None
        self._body_bytes = 0
        self._message_end = True
        self._resume()
        return self._body.pop()

    def _message(self) -> dict[str, Any]:
        """What there is of the body, as ASGI's message."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._body_bytes = 0
        self._message_end = not self._body_open
        self._resume()
        return {"type": "http.request", "body": body, "more_body": self._body_open}

    def _tell(self, message: dict[str, Any]) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None and not receiver.done():
            receiver.set_result(message)

    # --- its answer ---

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's send. Done at once unless the client is behind; silent after it has left."""
        if message["type"] == "http.response.start":
            self._start = message
            return self._listener.sent
        if self._closing or not self._answering:
            return self._listener.sent
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        head = b""
        if self._start is not None:
            head = self._head(self._start, len(body), more)
            self._start = None
            self._head_sent = True
        if not self._has_body:
            body = b""
        elif self._left is not None:
            body = body[: self._left]
            self._left -= len(body)
            if not more and self._left:
                self._keep = False  # fewer bytes than were announced: only closing tells the client
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        if head or body:
            self._transport.write(head + body if head else body)
        if not more:
            self._answered()
        return self._listener.sent if self._blocked is None else self._blocked

    def answer(self, head: ResponseHead, request_id: bytes, standing: Entry | None, body: bytes) -> Awaitable[None]:
        """A backend's answer in one piece, with what it does not bring itself; for requests that are not HEAD."""
        if self._closing or not self._answering:
            return self._listener.sent
        end = self._end_of_head()
        reason = REASONS.get(head.status, b"")
        return self._send_whole(head.answer(reason, request_id, standing, self._listener.date(), end, body))

    def answer_stored(
        self, lines: bytes, age_s: int, request_id: bytes, standing: bytes, body: bytes, streams: bool
    ) -> Awaitable[None]:
        """A kept answer in one piece, status 200. lines: its header lines, a Date among them; standing: more."""
        if self._closing or not self._answering:
            return self._listener.sent
        framing = b"content-length: %d\r\n" % len(body)
        if streams and self._request is not None and not self._request.http10:
            framing = b"transfer-encoding: chunked\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        return self._send_whole(
            b"HTTP/1.1 200 OK\r\n%bx-cache: HIT\r\nage: %d\r\nx-request-id: %b\r\n%b%b%b%b"
            % (lines, age_s, request_id, standing, framing, self._end_of_head(), body)
        )

    def _send_whole(self, answer: bytes) -> Awaitable[None]:
        if self._keep and len(answer) <= HIGH_WATER_BYTES:
            self._listener.write_soon(self._transport, answer)
        else:
            self._transport.write(answer)
        self._answered()
        return self._listener.sent if self._blocked is None else self._blocked

    def _end_of_head(self) -> bytes:
        """What follows the framing line of an answer in one piece; decides whether the connection stays."""
        request = self._request
        keep = request is not None and request.keep_alive and not self._body_open and not self._listener.draining
        self._keep, self._head_sent = keep, True
        if not keep:
            return b"connection: close\r\n\r\n"
        return b"connection: keep-alive\r\n\r\n" if request is not None and request.http10 else b"\r\n"

    def _head(self, start: dict[str, Any], length: int, more: bool) -> bytes:
        """Status line and header lines; decides the framing."""
        request, status = self._request, start["status"]
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))]
        self._left = None
        dated = False
        for name, value in start["headers"]:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"date":
                dated = True
            elif name == b"content-type" and value.startswith(b"text/event-stream"):
                more = True  # a stream that came in one piece is framed like any other
        if not dated:
            parts.append(self._listener.date())
        if self.more_lines:
            parts.append(self.more_lines)
            self.more_lines = b""
        head_request = request is not None and request.method == "HEAD"
        self._has_body = not (head_request or status in BODILESS_STATUSES)
        http10 = request is not None and request.http10
        measured = self._left is not None
        self._chunked = self._has_body and not measured and more and not http10
        if self._has_body and not measured and not more:
            parts.append(b"content-length: %d\r\n" % length)
        elif self._chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        # A body that is left unread, or delimited by the close, takes the connection with it.
        self._keep = (
            request is not None
            and request.keep_alive
            and not self._body_open
            and not self._listener.draining
            and (measured or not self._has_body or self._chunked or not more)
        )
        if not self._keep:
            parts.append(b"connection: close\r\n")
        elif http10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _answered(self) -> None:
        """The answer is written: on to the next request, or the end."""
        self._answering = False
        self._served = True
        self._since = self._listener.loop.time()
        self.on_leave = None
        self._tell(DISCONNECT)
        if not self._keep or self._listener.closing:
            self.close()
            return
        self._resume()
        if self._parser.pending:
            self._listener.loop.call_soon(self._next)  # not from here: the answer's task is still at its end
        else:
            self._parser.next()

    def _next(self) -> None:
        if self._closing or self._answering:
            return
        try:
            self._take(*self._parser.next())
        except RequestRefused as error:
            self._refuse(*error.args)

    def _abandoned(self) -> None:
        """The application has returned without an end: the client must see that something is missing."""
        if self._head_sent:
            self.close()
        else:
            self._refuse(500, "the request was not answered")

    # --- endings ---

    def _refuse(self, status: int, text: str) -> None:
        """Answer what could not be read as a request, and close: where the next one begins is unknown."""
        if self._head_sent and self._answering:
            self.close()  # in the middle of another answer
            return
        error = {"message": text, "type": "invalid_request_error", "param": None, "code": "invalid_request"}
        body = msgspec.json.encode({"error": error})
        self._transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-penstock-error: caller\r\n"
            b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n%b"
            % (status, REASONS.get(status, b""), len(body), body)
        )
        self.close()

    def close(self) -> None:
        """Close once what was written is sent. An answer that is not finished then ends without its end."""
        self._closing = True
        self._listener.write_now()  # its last answer may be among what waits
        self._transport.close()

    def close_if_idle(self) -> None:
        if not self._answering:
            self.close()

    def close_if_silent(self, now: float, limit: float, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        """Close if a request's head is not whole in time, or none has begun for long."""
        if self._answering or self._closing:
            return
        waited = now - self._since
        if waited > (limit if self._head_begun or not self._served else keep_alive_s):
            self.close()

    def _pause(self) -> None:
        if not self._paused and not self._closing:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self._transport.resume_reading()
