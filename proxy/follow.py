"""One client on a flight: it gets every byte, from the first on and at its own pace, in the form it asked for.

While it keeps up, each chunk goes to it the moment it comes, from the flight's own callback; when it is behind, its
own task brings it what is there as soon as it has taken the last.
"""

import asyncio
import sys
from time import perf_counter

from penstock.core.errors import BadAnswer
from penstock.ext import DIALECT_CHAT, UsageRemover
from penstock.proxy.exchange import RATE_HEADERS, Exchange
from penstock.proxy.flight import EVENTS, OTHER, WHOLE, Flight
from penstock.proxy.heartbeat import begin_heartbeat, told_as_error
from penstock.proxy.relay import Outlet
from penstock.proxy.replay import MEDIA, as_stream, as_whole, content_type, wanted_kind, wants_usage
from penstock.proxy.reply import cut
from penstock.proxy.sever import sever
from penstock.proxy.upstream.attempt import Attempts

# What a backend says to one client alone, and what is said anew to each.
OF_ONE_CLIENT = frozenset({b"set-cookie", b"x-request-id"})
OURS = b"x-penstock-"
NEVER = frozenset({b"x-cache"})


async def follow(flight: Flight, exchange: Exchange, attempts: Attempts) -> None:
    """Answer with what the flight brings. Raises its error, where nothing of an answer has gone out."""
    if flight.plan.heartbeat_s:
        begin_heartbeat(flight.plan.heartbeat_s, exchange, lambda _: attempts.comment(flight.inner), attempts.loop)
    follower = Follower(flight, exchange, attempts.loop)
    flight.join(follower)
    try:
        await follower.run()
    finally:
        flight.leave(follower)


class Follower:
    """See the head of this file."""

    __slots__ = ("_awake", "_exchange", "_flight", "_loop", "_outlet", "position", "taken_bytes")

    def __init__(self, flight: Flight, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._flight = flight
        self._exchange = exchange
        self._loop = loop
        self._outlet: Outlet | None = None
        self._awake: asyncio.Future[None] | None = None
        self.position = self.taken_bytes = 0

    def __repr__(self) -> str:
        return f"<Follower at chunk {self.position} of {self._flight!r}>"

    # --- what the flight calls

    def pass_on(self, chunk: bytes) -> None:
        """The next chunk, while this one is live."""
        self.position += 1
        self.taken_bytes += len(chunk)
        if self._outlet is not None and not self._outlet.push(chunk):
            self._flight.live.pop(self, None)
            self.wake()

    def wake(self) -> None:
        if self._awake is not None and not self._awake.done():
            self._awake.set_result(None)

    # --- its task

    async def run(self) -> None:
        """From the flight's first bytes to its end."""
        flight, exchange = self._flight, self._exchange
        while not flight.begun:
            await self._news()
        if flight.error is not None and not flight.status:
            raise flight.error
        exchange.media = flight.media
        # The leader gets what its request brought, as it would without the others.
        wanted = flight.kind if exchange.leads is flight or flight.kind == OTHER else wanted_kind(exchange)
        if exchange.heartbeat is not None and wanted != EVENTS:
            exchange.heartbeat.stop()
            if exchange.heartbeat.begun:
                await self._told_as_error()
                return
        if wanted == flight.kind:
            await self._as_it_came()
        elif wanted == WHOLE:
            await self._as_whole()
        else:
            await self._as_stream()

    async def _news(self) -> None:
        """Until the flight wakes it."""
        self._awake = self._loop.create_future()
        await self._awake

    async def _until_over(self) -> bytes:
        """All of the body. Raises the flight's error, BadAnswer if it is too long to be kept for that."""
        # What is kept is kept for all: this one neither holds the backend back nor makes it wait.
        self.position = self.taken_bytes = sys.maxsize
        self._flight.look_for_room()
        while not self._flight.over and self._flight.kept_whole:
            await self._news()
        if not self._flight.kept_whole:
            raise BadAnswer("the answer this request shares is too long to be told in another form", phase="body")
        if self._flight.error is not None:
            raise self._flight.error
        return b"".join(self._flight.chunks)

    async def _as_it_came(self) -> None:
        flight, exchange = self._flight, self._exchange
        remover = None
        if flight.kind == EVENTS and exchange.endpoint is not None and exchange.endpoint.dialect == DIALECT_CHAT:
            remover = None if wants_usage(exchange) else UsageRemover()
        if exchange.answering:  # a heartbeat took the head with it
            exchange.first_byte = perf_counter()
            await exchange.write(b"")
        elif remover is not None or exchange.heartbeat is not None:  # the length would be another
            await exchange.start(flight.status, [line for line in self._lines() if line[0] != b"content-length"])
        else:
            await exchange.start(flight.status, self._lines())
        await self._finish(await self._all_but_the_last(remover), remover)

    async def _all_but_the_last(self, remover: UsageRemover | None) -> bytes:
        """Send on what comes; the last piece is returned, to be sent with the end."""
        flight = self._flight
        self._outlet = outlet = Outlet(self._exchange, None, remover)
        while True:
            while piece := flight.take(self):
                if flight.over and not flight.has_more(self):
                    return piece
                if not outlet.push(piece):
                    await outlet.flush()
            if flight.over:
                return b""
            flight.live[self] = None
            await self._news()
            flight.live.pop(self, None)
            await outlet.flush()

    async def _finish(self, last: bytes, remover: UsageRemover | None) -> None:
        flight, exchange = self._flight, self._exchange
        if remover is not None:
            last = remover.feed(last) + remover.finish()
        if flight.error is None:
            await exchange.finish(last)
            return
        exchange.error = flight.error
        if last:
            await exchange.write(last)
        await sever(exchange)

    async def _as_stream(self) -> None:
        """The flight brings a whole answer, and the client wants a stream."""
        exchange = self._exchange
        wanted = wanted_kind(exchange)
        exchange.media = MEDIA[wanted]
        events = as_stream(exchange, await self._until_over())
        if events is None:
            raise BadAnswer("the answer this request shares cannot be told as a stream", phase="body")
        if exchange.answering:
            exchange.first_byte = perf_counter()
        else:
            await exchange.start(self._flight.status, self._lines(wanted))
        await exchange.finish(b"".join(events))

    async def _as_whole(self) -> None:
        """The flight brings a stream, and the client wants a whole answer."""
        body = as_whole(self._exchange, [await self._until_over()])
        if body is None:
            raise BadAnswer("the stream this request shares cannot be told as a whole answer", phase="body")
        self._exchange.media = MEDIA[WHOLE]
        await self._exchange.start(self._flight.status, self._lines(WHOLE))
        await self._exchange.finish(body)

    async def _told_as_error(self) -> None:
        """A stream was asked for, a comment has taken the head with it, and the answer is no stream."""
        body = await self._until_over()
        await cut(self._exchange, told_as_error(self._flight.status, body))

    def _lines(self, told_as: int | None = None) -> list[tuple[bytes, bytes]]:
        """The header lines of the answer as this client gets them. told_as: another form than it has."""
        exchange = self._exchange
        without = NEVER if exchange.leads is self._flight else NEVER | OF_ONE_CLIENT
        if exchange.standing is not None:
            without |= RATE_HEADERS
        if told_as is not None:
            without |= {b"content-type", b"content-length"}
        lines = [line for line in self._flight.headers if line[0] not in without]
        if exchange.cors:
            lines = [line for line in lines if not line[0].startswith(b"access-control-")]
            lines.extend(exchange.cors)
        if exchange.leads is not self._flight:
            lines = [line for line in lines if not line[0].startswith(OURS)]
            lines.append((b"x-request-id", exchange.request_id))
        if told_as is not None:
            lines.insert(0, (b"content-type", content_type(exchange, told_as)))
        lines.extend(exchange.told)
        return lines
