"""What a fault on purpose does to one attempt: before it, instead of it, or to its answer on the way.

An answer that is changed comes through a stand-in for its connection, which has what readers of an answer use. It is
never given back to the pool: its connection ends with it.
"""

import asyncio
from typing import Any, NoReturn

import msgspec

from penstock.core.config import ChaosFault
from penstock.core.endpoint import Shape
from penstock.core.errors import BackendTimeout, BadAnswer, ConnectFailed
from penstock.core.plan import Timeouts
from penstock.ext import MEDIA_EVENT_STREAM, MEDIA_NDJSON, ResponseHead, ResponseParser
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.connection import Connection, Push

# Line ends stay, so that readers by line meet the rubbish line by line.
RUBBISH = bytes(byte if byte in b"\r\n" else ord("#") for byte in range(256))
EVENT_ENDS = {MEDIA_EVENT_STREAM: b"\n\n", MEDIA_NDJSON: b"\n"}


class Fault:
    """A fault while it holds in this worker. over: set when it does no longer, so that nothing waits for it."""

    def __init__(self, facts: ChaosFault) -> None:
        self.facts = facts
        self.name = facts.name
        self.over = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Fault {self.name} {self.facts.kind}{', over' if self.over.is_set() else ''}>"

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the fault is over."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            pass


class Hit:
    """A fault that meets one attempt."""

    __slots__ = ("_fault", "_timeouts")

    def __init__(self, fault: Fault, timeouts: Timeouts) -> None:
        self._fault = fault
        self._timeouts = timeouts

    async def before(self, exchange: Exchange) -> "Instead | None":
        """Before the attempt takes a connection: may wait; an answer in its place, or None.

        Raises ConnectFailed; BackendTimeout where a backend so slow would have been given up.
        """
        facts = self._fault.facts
        if facts.kind == "latency":
            await self._fault.pause(min(facts.latency_ms / 1000, self._timeouts.first_byte_s))
            if facts.latency_ms / 1000 > self._timeouts.first_byte_s and not self._fault.over.is_set():
                raise BackendTimeout(f"the backend did not begin its answer in time{self._why}", phase="first_byte")
        elif facts.kind == "connection_reset":
            raise ConnectFailed(f"the backend reset the connection{self._why}", phase="connect")
        elif facts.kind == "error_status":
            return Instead(facts.status, self._refusal(exchange), exchange.method == "HEAD")
        return None

    def wrap(self, connection: Any) -> Any:
        """The connection as the attempt's answer comes through it; its head is here."""
        kind = self._fault.facts.kind
        if kind == "cut_stream":
            return Cut(connection, self._fault)
        if kind == "bad_body":
            return Rubbish(connection, self._fault)
        if kind == "slow_tokens":
            return Slow(connection, self._fault)
        return connection

    @property
    def _why(self) -> str:
        return f" (a fault on purpose: {self._fault.name})"

    def _refusal(self, exchange: Exchange) -> bytes:
        words = f"the backend failed{self._why}"
        if exchange.endpoint is not None and exchange.endpoint.shape is Shape.OLLAMA:
            return msgspec.json.encode({"error": words})
        error = {"message": words, "type": "server_error", "param": None, "code": "chaos"}
        return msgspec.json.encode({"error": error})


class Instead:
    """A whole answer that no backend gave."""

    reusable = False
    answered = True
    readable = True
    complete = False

    def __init__(self, status: int, body: bytes, head_request: bool) -> None:
        parser = ResponseParser()
        parser.expect(head_request)
        head = b"HTTP/1.1 %d Fault\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (
            status,
            len(body),
        )
        response, self._body, _ = parser.feed(head if head_request else head + body)
        if response is None:
            raise ValueError(head)
        self.response: ResponseHead = response
        self.complete = not self._body

    def take(self) -> bytes:
        body, self._body, self.complete = self._body, b"", True
        return body

    async def read(self) -> bytes:
        return self.take()

    async def news(self) -> None:
        """All of it is here."""

    async def pushed(self, push: Push) -> None:
        """All of it is here."""

    def close(self) -> None:
        """There is nothing to close."""


class StandIn:
    """A connection whose answer is changed on its way: what it has beyond reading an answer is the connection's own."""

    reusable = False

    def __init__(self, connection: Connection, fault: Fault) -> None:
        self._connection = connection
        self._fault = fault
        self._here = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._fault!r} of {self._connection!r}>"

    @property
    def complete(self) -> bool:
        """The answer has ended, and all of it was taken."""
        return self._connection.complete and not self._here

    @property
    def readable(self) -> bool:
        """There is something to `take`, or nothing more will come."""
        return bool(self._here) or self._connection.readable

    def take(self) -> bytes:
        """What may be taken now, changed."""
        here, self._here = self._here or self._connection.take(), b""
        return self._changed(here)

    async def read(self) -> bytes:
        """The next body bytes; b"" only at the end. Raises BackendError."""
        await self.news()
        return self.take()

    async def pushed(self, push: Push) -> None:
        """As of a connection whose `read` always has more to say."""
        await self.news()

    async def news(self) -> None:
        """Wait until there is more to take, or the end. Raises BackendError."""
        if not self._here and not self._connection.complete:
            self._here = await self._connection.read()

    def _changed(self, body: bytes) -> bytes:
        raise NotImplementedError


class Counting(StandIn):
    """Leaves the first `after_bytes` of the body as they are."""

    def __init__(self, connection: Connection, fault: Fault) -> None:
        super().__init__(connection, fault)
        self._left = fault.facts.after_bytes

    def _changed(self, body: bytes) -> bytes:
        if len(body) <= self._left or self._fault.over.is_set():
            self._left -= min(len(body), self._left)
            return body
        good, rest = body[: self._left], body[self._left :]
        self._left = 0
        return good + self._wrong(rest)

    def _wrong(self, body: bytes) -> bytes:
        raise NotImplementedError


class Rubbish(Counting):
    """bad_body: what follows is not what it says it is."""

    def _wrong(self, body: bytes) -> bytes:
        return body.translate(RUBBISH)


class Cut(Counting):
    """cut_stream: what follows never comes."""

    _is_cut = False

    @property
    def complete(self) -> bool:
        return not self._is_cut and super().complete

    @property
    def readable(self) -> bool:
        return self.complete or (self._left > 0 and super().readable)

    def _wrong(self, body: bytes) -> bytes:
        self._is_cut = True
        self._connection.close()
        return b""

    async def read(self) -> bytes:
        if body := await super().read():
            return body
        if self._is_cut:
            self._fail()
        return b""

    async def news(self) -> None:
        if not self._is_cut:
            await super().news()
            if self._here and not self._left:
                self._changed(self._here)
        if self._is_cut:
            self._fail()

    def _fail(self) -> NoReturn:
        raise BadAnswer(f"the backend cut its answer off (a fault on purpose: {self._fault.name})", phase="body")


class Slow(StandIn):
    """slow_tokens: one event at a time, each after a pause; what is no stream pauses before each piece."""

    def __init__(self, connection: Connection, fault: Fault) -> None:
        super().__init__(connection, fault)
        self._end = EVENT_ENDS.get(connection.response.media, b"") if connection.response else b""
        self._ready = b""

    @property
    def complete(self) -> bool:
        return not self._ready and super().complete

    @property
    def readable(self) -> bool:
        return bool(self._ready) or self.complete

    def take(self) -> bytes:
        if self._fault.over.is_set():
            ready, self._ready = self._ready + (self._here or self._connection.take()), b""
            self._here = b""
        else:
            ready, self._ready = self._ready, b""
        return ready

    async def news(self) -> None:
        await super().news()
        if self._here and not self._ready:
            await self._wait()
            event, end, rest = self._here.partition(self._end) if self._end else (self._here, b"", b"")
            self._ready, self._here = event + end, rest

    async def _wait(self) -> None:
        """A pause that a backend would not be granted ends as it would there."""
        connection, gap_s = self._connection, self._fault.facts.gap_ms / 1000
        left_s = connection.total_deadline - asyncio.get_running_loop().time()
        await self._fault.pause(max(0.0, min(gap_s, connection.silence_s, left_s)))
        if gap_s > min(connection.silence_s, left_s) and not self._fault.over.is_set():
            connection.close()
            raise BackendTimeout("the backend did not go on with its answer in time", phase="body")
