"""One request, from its arrival to its settling: what is known of it, and the watch for its client's leaving."""

import asyncio
from typing import TYPE_CHECKING, Any

from penstock.core.endpoint import Endpoint
from penstock.core.errors import Fault, PenstockError
from penstock.ext import MEDIA_NONE, Peek, RequestHead, Usage

if TYPE_CHECKING:
    from penstock.proxy.inbound import Upload

# Most answers come sooner, and then the watch (a task, and one more call into the server) is never begun.
WATCH_AFTER_S = 0.005
BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ClientLeft(Exception):
    """The client closed the connection before its request was whole."""


class Exchange:
    """State of one request. Fields are filled in as the phases of `App.handle` run, in the order they stand here."""

    __slots__ = (
        "_loop",
        "_receive",
        "_receive_s",
        "_send",
        "_task",
        "_ticked",
        "_timer",
        "_waiting_since",
        "_watcher",
        "attempts",
        "backend",
        "body",
        "body_open",
        "bytes_out",
        "client_left",
        "cors",
        "endpoint",
        "error",
        "finishing",
        "first_byte",
        "head",
        "media",
        "method",
        "model",
        "path",
        "peek",
        "query",
        "request_id",
        "scope",
        "started",
        "status",
        "timed_out",
        "upload",
        "usage",
    )

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Any,
        send: Any,
        *,
        loop: asyncio.AbstractEventLoop,
        receive_s: float,
        request_id: bytes,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._loop = loop
        self._receive_s = receive_s
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._waiting_since: float | None = None
        self._ticked = False
        self._timer = loop.call_later(WATCH_AFTER_S, self._tick)
        self.started = loop.time()
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.head = RequestHead(scope["headers"])
        self.request_id = request_id
        self.cors: tuple[tuple[bytes, bytes], ...] = ()
        self.endpoint: Endpoint | None = None
        # HTTP/2 needs no length to announce a body (RFC 9113 §8.1), so any method that can have one may.
        self.body_open = self.head.has_body or (scope["http_version"] == "2" and self.method not in BODILESS)
        self.body = b""
        self.peek: Peek | None = None
        self.upload: Upload | None = None
        self.model: str | None = None
        self.backend = ""
        self.attempts = 0
        self.status = 0
        self.media = MEDIA_NONE
        self.first_byte = 0.0
        self.bytes_out = 0
        self.usage: Usage | None = None
        self.error: PenstockError | None = None
        self.client_left = False
        self.timed_out = False
        self.finishing = False

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {self.path.decode('latin-1')} {self.status or 'waiting'} on {self.backend!r}>"

    def now(self) -> float:
        return self._loop.time()

    # --- the request's body ---

    async def receive(self) -> bytes:
        """The next part of the body; `body_open` says whether more follow. Raises ClientLeft."""
        self._waiting_since = self._loop.time()
        message = await self._receive()
        self._waiting_since = None
        if message["type"] == "http.disconnect":
            self.client_left = True
            raise ClientLeft
        body: bytes = message["body"]
        if not message.get("more_body", False):
            self.body_read()
        return body

    def body_read(self) -> None:
        """The whole body is here, so the next message can only say that the client left."""
        self.body_open = False
        if self._ticked:
            self.watch()

    # --- the answer ---

    def outgoing(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """A backend's header lines as the client gets them: as they are, and our request id if there is none."""
        if self.cors:
            headers = [line for line in headers if not line[0].startswith(b"access-control-")]
            headers.extend(self.cors)
        for name, _ in headers:
            if name == b"x-request-id":
                return headers
        headers.append((b"x-request-id", self.request_id))
        return headers

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the answer. From now on nothing can be tried again."""
        self.status = status
        self.first_byte = self._loop.time()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes) -> None:
        """Send a part of the body; waits while the client is slow."""
        self.bytes_out += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the last part of the body."""
        self.bytes_out += len(body)
        self.finishing = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    @property
    def answering(self) -> bool:
        """The head of the answer has gone out."""
        return self.status != 0

    @property
    def fault(self) -> Fault | None:
        """Whose fault it is that the request failed; None if it did not."""
        if self.error is not None:
            return self.error.fault
        return "caller" if self.client_left else None

    # --- the client's leaving, and its silence ---

    def _tick(self) -> None:
        """The request is not done after WATCH_AFTER_S: watch its client, or the time its body takes."""
        self._ticked = True
        if not self.body_open:
            self.watch()
            return
        waited = 0.0 if self._waiting_since is None else self._loop.time() - self._waiting_since
        if waited >= self._receive_s:
            self.timed_out = True
            self.cancel()
        else:
            self._timer = self._loop.call_later(self._receive_s - waited, self._tick)

    def watch(self) -> None:
        """From now on a client that leaves cancels this request's task, whatever it waits for."""
        if self._watcher is None and not self.finishing:
            self._watcher = self._loop.create_task(self._until_left())

    async def _until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finishing:
            self.leave()

    def leave(self) -> None:
        """The client has left."""
        self.client_left = True
        self.cancel()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """The request is over: nothing of it stays behind."""
        self.finishing = True
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
