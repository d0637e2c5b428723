"""One request, from its arrival to its settling: what is known of it, and the look-out for its client's leaving."""

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.core.endpoint import Endpoint
from penstock.core.errors import Fault, PenstockError
from penstock.core.plan import PlannedTarget
from penstock.ext import MEDIA_NONE, Entry, Peek, Refusal, RequestHead, ResponseHead, Usage

if TYPE_CHECKING:
    from penstock.proxy.explain import Explaining
    from penstock.proxy.flight import Flight
    from penstock.proxy.heartbeat import Heartbeat
    from penstock.proxy.identify import Caller
    from penstock.proxy.inbound import Upload
    from penstock.proxy.upstream.lane import Waiter
    from penstock.proxy.upstream.lease import Lease

# What a client names its request goes back to it and into the log, if it is not longer than names are.
LONGEST_REQUEST_ID = 200
RATE_HEADERS = frozenset(
    {b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset", b"ratelimit", b"ratelimit-policy"}
)
BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class ClientLeft(Exception):
    """The client closed the connection before its request was whole."""


class Try(msgspec.Struct, frozen=True):
    """An attempt that has ended. Times in ns, monotonic. outcome: in words. status: the backend's, 0 = it gave none."""

    backend: str
    model: str
    began_ns: int
    ended_ns: int
    outcome: str
    status: int


class Arrived:
    """What every request has from the start, in slots.

    CPython keeps up to 30 names of an instance beside it, and makes a dict of its own for one that has more: 2 us.
    A request learns some twenty further facts.
    """

    __slots__ = (
        "_door",
        "_loop",
        "_receive",
        "_receive_s",
        "_task",
        "body_open",
        "head",
        "method",
        "path",
        "query",
        "request_id",
        "scope",
        "send",
        "started",
    )


class Exchange(Arrived):
    """State of one request. Facts stand here in the order the phases of `App.handle` find them."""

    # Defaults live on the class: a request sets only what it learns.
    endpoint: Endpoint | None = None
    caller: "Caller | None" = None
    cors: tuple[tuple[bytes, bytes], ...] = ()
    body = b""
    body_bytes = 0  # of a held body
    peek: Peek | None = None
    upload: "Upload | None" = None
    model: str | None = None
    # What a limit needs spliced into the body: the stream's usage, and a cap on output (0 = none).
    asked_usage = False
    output_cap = 0
    standing: Entry | Refusal | None = None  # what is left of its limits, for the head of its answer
    waiter: "Waiter | None" = None  # while it stands in line
    place = 0  # in line, when it joined; 0 = it did not wait
    queued_s = 0.0
    told: tuple[tuple[bytes, bytes], ...] = ()  # header lines of ours on a backend's answer: how it came about
    heartbeat: "Heartbeat | None" = None
    lease: "Lease | None" = None  # its place at a target, until it is given back
    backend = ""
    attempts = 0
    since = 0.0  # when the first began, in the loop's time; the total timeout counts from there
    tries: tuple[Try, ...] = ()  # of requests that needed more than one, or are to be explained
    explains: "Explaining | None" = None
    target: PlannedTarget | None = None  # where the request was sent
    sent = 0.0
    status = 0
    media = MEDIA_NONE
    first_byte = 0.0
    usage: Usage | None = None
    finish_reason: str | None = None  # of its last choice
    stream_lines = 0
    answer_bytes = 0
    entry: Entry | None = None
    cost_nano = 0  # nano-USD
    cached = False  # answered from the cache, or with what another request brought
    leads: "Flight | None" = None  # what it began, and others may follow
    error: PenstockError | None = None
    client_left = False
    timed_out = False
    over = False  # the last byte is on its way, or the client has left: nothing to look out for
    _told_address: str | None = None
    _lasting = False
    _waiting_since: float | None = None
    _timer: asyncio.TimerHandle | None = None
    _watcher: "asyncio.Task[None] | None" = None

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Any,
        send: Any,
        loop: asyncio.AbstractEventLoop,
        receive_s: float,
        request_id: bytes,
    ) -> None:
        self.started = perf_counter()
        self.scope = scope
        self._receive = receive
        self.send = send
        self._loop = loop
        self._receive_s = receive_s
        self._task = asyncio.current_task(loop)
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.head = head = scope.get("penstock.head") or RequestHead(scope["headers"])
        # Our own listener tells of a client's leaving; under another server its receive has to be asked.
        self._door = door = scope.get("penstock.connection")
        if door is not None:
            door.on_leave = self.leave
        sent = head.request_id
        self.request_id = request_id if sent is None or len(sent) > LONGEST_REQUEST_ID else sent
        # HTTP/2 needs no length to announce a body (RFC 9113 §8.1), so any method that can have one may.
        self.body_open = head.has_body or (scope["http_version"] == "2" and self.method not in BODILESS)

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {self.path.decode('latin-1')} {self.status or 'waiting'} on {self.backend!r}>"

    @property
    def address(self) -> str:
        """The client's address; behind trusted proxies the one they tell, "" where the listener has none."""
        if self._told_address is not None:
            return self._told_address
        client = self.scope.get("client")
        return client[0] if client else ""

    @address.setter
    def address(self, told: str) -> None:
        self._told_address = told

    def now(self) -> float:
        """The loop's time, for deadlines."""
        return self._loop.time()

    def copy(self, scope: dict[str, Any], receive: Any, send: Any) -> "Exchange":
        """The same request, its body held, for another client; `owned_by` says whose it is."""
        made = Exchange(scope, receive, send, self._loop, self._receive_s, self.request_id)
        made.request_id = self.request_id
        made.endpoint, made.caller, made.model, made.peek = self.endpoint, self.caller, self.model, self.peek
        made.body, made.body_bytes, made.output_cap = self.body, self.body_bytes, self.output_cap
        made.explains = self.explains
        return made

    def take_over(self, other: "Exchange") -> None:
        """What became of the same request elsewhere became of this one: it pays."""
        self.target, self.backend, self.sent = other.target, other.backend, other.sent
        self.attempts, self.tries = other.attempts, other.tries
        self.place, self.queued_s = other.place, other.queued_s
        self.usage, self.stream_lines, self.answer_bytes = other.usage, other.stream_lines, other.answer_bytes

    def owned_by(self, task: "asyncio.Task[None]") -> None:
        """From now on `cancel` ends this task."""
        self._task = task

    # --- the request's body ---

    def whole_body(self) -> bytes | None:
        """The body, if our own listener has all of it in one piece already; else ask for messages."""
        body: bytes | None = None if self._door is None else self._door.whole_body()
        if body is not None:
            self.body_read()
        return body

    def message(self) -> Awaitable[dict[str, Any]]:
        """The client's next message; give it to `part`."""
        self._waiting_since = self._loop.time()
        message: Awaitable[dict[str, Any]] = self._receive()
        return message

    def part(self, message: dict[str, Any]) -> bytes:
        """The part of the body in a message; `body_open` says whether more follow. Raises ClientLeft."""
        self._waiting_since = None
        if message["type"] == "http.disconnect":
            self.client_left = True
            raise ClientLeft
        body: bytes = message["body"]
        if not message.get("more_body", False) or len(body) == self.head.content_length:
            self.body_read()
        return body

    def body_read(self) -> None:
        """The whole body is here, so the next message can only say that the client left."""
        self.body_open = False
        if self._lasting:
            self._watch()

    # --- the answer ---

    def outgoing(self, head: ResponseHead) -> list[tuple[bytes, bytes]]:
        """A backend's header lines as the client gets them: as they are, and our request id if there is none.

        CORS and rate limits are ours alone: a backend's own words on them speak of somebody else's.
        """
        headers = head.headers
        if self.cors:
            headers = [line for line in headers if not line[0].startswith(b"access-control-")]
            headers.extend(self.cors)
        if self.standing is not None and head.has_rate_limits:
            headers = [line for line in headers if line[0] not in RATE_HEADERS]
        headers.extend(self.told)
        if not head.has_request_id:
            headers.append((b"x-request-id", self.request_id))
        return headers

    # These hand on the server's own awaitable: a coroutine around it would cost as much as the call.

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> Awaitable[None]:
        """Send the head of an answer. From now on nothing can be tried again."""
        self.status = status
        self.first_byte = perf_counter()
        if self.explains is not None:
            headers = self.explains.head(headers)
        if self.standing is not None:
            if self._door is not None:
                self._door.more_lines = self.standing.header_lines
            else:
                headers.extend(self.standing.headers)
        sent: Awaitable[None] = self.send({"type": "http.response.start", "status": status, "headers": headers})
        return sent

    def answer(self, head: ResponseHead, body: bytes) -> Awaitable[None] | None:
        """Send a backend's whole answer as one piece; None where only `start` and `finish` can: another listener than
        ours, or a head of which lines have to go."""
        standing = self.standing
        told = self.told or self.explains
        if self._door is None or self.cors or told or (standing is not None and head.has_rate_limits):
            return None
        self.status = head.status
        self.first_byte = perf_counter()
        self.over = True
        sent: Awaitable[None] = self._door.answer(head, self.request_id, self.entry, body)
        return sent

    def answer_stored(self, lines: bytes, age_s: int, body: bytes, streams: bool) -> Awaitable[None] | None:
        """Send a kept answer as one piece, as `answer`; None where only `start` and `finish` can.

        lines: the header lines it is kept with, each ended by CRLF. streams: it goes in chunks.
        """
        if self._door is None or self.cors or self.explains is not None:
            return None
        self.status = 200
        self.first_byte = perf_counter()
        self.over = True
        standing = b"" if self.standing is None else self.standing.header_lines
        sent: Awaitable[None] = self._door.answer_stored(lines, age_s, self.request_id, standing, body, streams)
        return sent

    def write(self, body: bytes) -> Awaitable[None]:
        """Send a part of the body; waits while the client is slow."""
        sent: Awaitable[None] = self.send({"type": "http.response.body", "body": body, "more_body": True})
        return sent

    def finish(self, body: bytes = b"") -> Awaitable[None]:
        """Send the last part of the body."""
        if self.explains is not None:
            body += self.explains.comment()
        self.over = True
        sent: Awaitable[None] = self.send({"type": "http.response.body", "body": body})
        return sent

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

    # --- how it came about ---

    def waited(self, place: int, seconds: float) -> None:
        """It stood in line for a place at a target."""
        self.place = self.place or place
        self.queued_s += seconds
        line = b"x-penstock-queue", b"place=%d; waited_ms=%d" % (self.place, round(self.queued_s * 1000))
        self.told = (*(other for other in self.told if other[0] != line[0]), line)

    def tried(self, target: PlannedTarget, began_ns: int, ended_ns: int, outcome: str, status: int) -> None:
        """An attempt has ended."""
        made = Try(target.upstream.name, target.model, began_ns, ended_ns, outcome, status)
        self.tries = (*self.tries, made)

    # --- the client's leaving, and its silence ---

    def look_after(self) -> None:
        """The request lasts (told by `Watch`): look out for its client, or for the time its body takes."""
        self._lasting = True
        if not self.body_open:
            self._watch()
            return
        waited = 0.0 if self._waiting_since is None else self._loop.time() - self._waiting_since
        if self._receive_s and waited >= self._receive_s:
            self.timed_out = True
            self.cancel()
        elif self._receive_s:
            self._timer = self._loop.call_later(self._receive_s - waited, self.look_after)

    def _watch(self) -> None:
        """From now on a client that leaves cancels this request's task, whatever it waits for."""
        if self._watcher is None and not self.over and self._door is None:
            self._watcher = self._loop.create_task(self._until_left())

    async def _until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def leave(self) -> None:
        """The client has left."""
        if not self.over:
            self.client_left = True
            self.over = True
            self.cancel()

    @property
    def lasts(self) -> bool:
        """Somebody has to look after it: for its body's time, or for its client's leaving."""
        return self.body_open or self._door is None

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """The request is settled: nothing of it stays behind."""
        self.over = True
        self.body = b""
        self.explains = None  # it holds this request in turn
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.heartbeat is not None:
            self.heartbeat.stop()
