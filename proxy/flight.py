"""A flight: one call of a backend that several clients follow, those too who come while it is under way.

It is a task of its own with a request of its own, whose client is no socket but this file, so that attempts and relay
are what they are for any request. Whoever asked first, the leader, follows it like the others. What comes is kept for
those who join later; the flight goes at the pace of its fastest follower. When the last one leaves, it is cancelled,
and with it the backend's work.

    UNDER WAY --first bytes: begun--> BEGUN --the task's end: over--> LANDED (error: what went wrong)
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from penstock.core.errors import Draining, InternalError, PenstockError
from penstock.core.plan import Plan
from penstock.ext import (
    DIALECT_CHAT,
    MEDIA_EVENT_STREAM,
    MEDIA_JSON,
    MEDIA_NDJSON,
    MEDIA_NONE,
    RequestHead,
)
from penstock.proxy.exchange import Exchange
from penstock.proxy.log import Log
from penstock.proxy.relay import relay
from penstock.proxy.upstream.attempt import Attempts, Reply

# How far the backend may be ahead of the fastest follower before it is held back.
HIGH_WATER_BYTES = 262_144
# What came while a follower was behind goes on to it in pieces of this size.
PIECE_BYTES = 65_536
# Answers are shared, so each must be one that every client can read, and a whole one.
NOT_SHARED = (b"accept-encoding", b"range", b"if-range", b"if-none-match", b"if-modified-since", b"if-match")

CHAOS = b"x-penstock-chaos"

# What an answer is. OTHER = not a model's, or not a good one: it goes on as it is.
WHOLE, EVENTS, LINES, OTHER = range(4)


class Listener(Protocol):
    """One that follows. position: the number of the chunk it takes next; taken_bytes: those before it."""

    position: int
    taken_bytes: int

    def pass_on(self, chunk: bytes) -> None:
        """It has all that came before: here is the next."""

    def wake(self) -> None:
        """There is something to look at: the first bytes, or the end."""


class Flight:
    """One per call of a backend. Made in the leader's task; `start` begins it.

    most_bytes: so much of the answer is kept; of a longer one, what all have taken is let go. on_long: called when
    nobody can join it any more. on_end: called once, when it is over, before anybody is woken. active: the App's
    requests under way.
    """

    def __init__(
        self,
        plan: Plan,
        leader: Exchange,
        *,
        attempts: Attempts,
        active: set[Exchange],
        log: Log,
        most_bytes: int,
        on_long: "Callable[[Flight], None]",
        on_end: "Callable[[Flight], None]",
    ) -> None:
        self.plan = plan
        self.leader = leader
        self.inner = inner_of(leader, self)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.media = MEDIA_NONE
        self.kind = OTHER
        self.begun = self.over = False
        self.kept_whole = True
        self.is_plain = False  # a 200, as it is
        self.is_orphan = False  # its leader has left, and is settled at the end
        self.error: PenstockError | None = None
        self.followers: dict[Listener, None] = {}
        self.live: dict[Listener, None] = {}  # those that have all and wait for more
        self._attempts = attempts
        self._active = active
        self._log = log
        self._most_bytes = most_bytes
        self._on_long = on_long
        self._on_end = on_end
        self._chunks: list[bytes] = []
        self._first = 0  # the number of the first chunk that is still here
        self._size = self._let_go = 0
        self._sent: asyncio.Future[None] = attempts.loop.create_future()
        self._sent.set_result(None)  # what `send` returns while it is not held back
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "landed" if self.over else "begun" if self.begun else "under way"
        return f"<Flight {self.plan.endpoint.route} {state}: {len(self.followers)} followers, {self._size} bytes>"

    def start(self) -> None:
        """Begin. Nothing has to be awaited: whoever leads it follows it."""
        self._task = task = self._attempts.loop.create_task(self._run())
        self.inner.owned_by(task)
        self._active.add(self.inner)
        task.add_done_callback(self._ended)  # also where it is cancelled before its first step

    def let_go(self) -> bool:
        """Its leader's request has ended; whether to settle it now: else it is settled at the flight's end."""
        self.leader.leads = None
        self.is_orphan = not self.over
        return self.over

    # --- for those who follow

    @property
    def fault_on_purpose(self) -> bool:
        """One hit its request."""
        return any(name == CHAOS for name, _ in self.inner.told)

    @property
    def chunks(self) -> list[bytes]:
        """What is here of the body, as it came."""
        return self._chunks

    def join(self, follower: Listener) -> None:
        self.followers[follower] = None

    def leave(self, follower: Listener) -> None:
        """It wants no more. The last one ends the flight."""
        self.followers.pop(follower, None)
        self.live.pop(follower, None)
        if not self.followers and not self.over and self._task is not None:
            self._task.cancel()
            self._on_long(self)
        self.look_for_room()

    def take(self, follower: Listener) -> bytes:
        """The next piece for one that is behind; b"" = it has all that is here."""
        start = end = follower.position - self._first
        size = 0
        while end < len(self._chunks) and (not size or size + len(self._chunks[end]) <= PIECE_BYTES):
            size += len(self._chunks[end])
            end += 1
        if start == end:
            return b""
        piece = self._chunks[start] if end == start + 1 else b"".join(self._chunks[start:end])
        follower.position += end - start
        follower.taken_bytes += size
        self.look_for_room()
        return piece

    def has_more(self, follower: Listener) -> bool:
        return follower.position - self._first < len(self._chunks)

    # --- its task

    async def _run(self) -> None:
        inner, plan = self.inner, self.plan
        if plan.heartbeat_s:  # each follower has its own
            plan = msgspec.structs.replace(plan, heartbeat_s=0)
        try:
            reply = await self._attempts.run(plan, inner)
            inner.asked_usage = False  # what is kept has it; it is taken out for those who did not ask
            self._answered(reply)
            await relay(reply, inner, plan.endpoint)
        except PenstockError as error:
            inner.error = error
        except asyncio.CancelledError:
            inner.error = Draining("the request was given up: nobody waits for it, or this server is shutting down")
        except Exception as error:  # noqa: BLE001 - the outermost place of this task, as App.handle is of a request's
            self._log.defect(inner, error)
            inner.error = InternalError("an internal error; the log has more under the request id")

    def _answered(self, reply: Reply) -> None:
        head = reply.head
        self.media = head.media
        self.is_plain = head.status == 200 and not head.encoded
        if not self.is_plain or self.plan.endpoint.dialect is None:
            return
        if head.media == MEDIA_EVENT_STREAM:
            self.kind = EVENTS
        elif head.media == MEDIA_NDJSON:
            self.kind = LINES
        elif head.media == MEDIA_JSON and reply.connection is None:
            self.kind = WHOLE

    def send(self, message: dict[str, Any]) -> Awaitable[None]:
        """ASGI's, for the request of the flight."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
            return self._sent
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if body:
            self._keep(body, more)
        if not more:
            return self._sent
        if not self.begun:
            self.begun = True
            self._wake()
        return self._sent if self._is_room() else self._wait_for_room()

    def _keep(self, body: bytes, more: bool) -> None:
        self._chunks.append(body)
        self._size += len(body)
        if more:  # the last one goes out together with the end
            for follower in tuple(self.live):
                follower.pass_on(body)
        if self._size > self._most_bytes:
            if self.kept_whole:
                self.kept_whole = False
                self._on_long(self)
                self._wake()  # for those who need the whole of it
            self._drop_taken()

    def _drop_taken(self) -> None:
        """Let go of what all have taken, of an answer that is too long to be kept."""
        count = min((follower.position for follower in self.followers), default=self._first) - self._first
        count = min(count, len(self._chunks))
        if count > 0:
            self._let_go += sum(map(len, self._chunks[:count]))
            self._first += count
            del self._chunks[:count]

    def _is_room(self) -> bool:
        if not self.kept_whole and self._size - self._let_go > self._most_bytes:
            return False
        if self.live:
            return True
        return self._size - max((each.taken_bytes for each in self.followers), default=0) <= HIGH_WATER_BYTES

    def _wait_for_room(self) -> Awaitable[None]:
        self._room = self._attempts.loop.create_future()
        return self._room

    def look_for_room(self) -> None:
        """A follower has taken something, or left, or waits for the whole."""
        if not self.kept_whole:
            self._drop_taken()
        if self._room is not None and self._is_room():
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    def _wake(self) -> None:
        for follower in tuple(self.followers):
            follower.wake()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Once, whatever happened."""
        inner = self.inner
        if inner.error is None and task.cancelled():  # before its first step
            inner.error = Draining("the request was given up before it was sent")
        inner.close()
        if inner.lease is not None:
            self._attempts.settle(inner)
        self._active.discard(inner)
        self.error = error = inner.error
        self.begun = self.over = True
        try:
            self._on_end(self)
        finally:
            self._wake()
        # It, its request and its task hold each other, and an error holds its frames: nothing waits for the collector.
        self._task = inner.send = None
        if error is not None:
            error.__traceback__ = error.__context__ = None


def inner_of(leader: Exchange, flight: Flight) -> Exchange:
    """The request of a flight: the leader's, without its client."""
    lines = [line for line in leader.scope["headers"] if line[0] not in NOT_SHARED]
    lines.append((b"accept-encoding", b"identity"))
    # An answer that is cut ends like any other here, as it does on HTTP/2 (`sever.py`); `inner.error` tells.
    scope = {**leader.scope, "headers": lines, "http_version": "2", "penstock.head": RequestHead(lines)}
    scope.pop("penstock.connection", None)
    made = leader.copy(scope, no_more, flight.send)
    made.body_open = False
    endpoint, peek = leader.endpoint, leader.peek
    streams = endpoint is not None and endpoint.dialect == DIALECT_CHAT and peek is not None and bool(peek.stream)
    made.asked_usage = streams and peek is not None and not peek.include_usage
    return made


async def no_more() -> dict[str, Any]:
    """ASGI's receive, of a request that is here already and whose client never leaves."""
    raise RuntimeError("a flight's request has no messages")
