"""Scripted bytes on real sockets: a backend a test plays by hand, and a request without a server under it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from math import inf
from typing import Any, TypeVar

import msgspec
import uvloop

from penstock.core.address import Url
from penstock.core.config import Backend as BackendSection
from penstock.core.config import Balance, Config, Retry
from penstock.core.endpoint import match
from penstock.core.plan import Group, Plan, PlannedTarget, Timeouts, make_plan, upstream
from penstock.core.route import Route, Target
from penstock.ext import ResponseHead, Targets, peek
from penstock.proxy.exchange import Exchange
from penstock.proxy.inbound import Upload
from penstock.proxy.upstream.attempt import Attempts, Reply
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.pool import Pool, Resolve
from penstock.proxy.upstream.targets import TargetCells

PATIENCE_S = 5.0
# Small, so that a backend that does not read is felt after some kilobytes.
SOCKET_BYTES = 4096
NO_LIMITS = Timeouts(connect_s=inf, send_s=inf, first_byte_s=inf, idle_s=inf, total_s=inf)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHAT = match("POST", b"/v1/chat/completions")
JSON = (b"content-type", b"application/json")
GET = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"

T = TypeVar("T")


def play(scene: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on the loop of production; one that hangs fails."""

    async def bounded() -> T:
        async with asyncio.timeout(4 * PATIENCE_S):
            return await scene

    return uvloop.run(bounded())


async def until(met: Callable[[], Any]) -> None:
    """Let the loop turn until a condition holds; fails when it does not come about."""
    async with asyncio.timeout(PATIENCE_S):
        while not met():
            await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Peer:
    """The backend's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """A request's head and body, as framed by its Content-Length."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    return head + await self.reader.readexactly(int(line[15:]))
            return head

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        """Close in order, behind what was sent."""
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def left(self) -> bytes:
        """Wait until our side has closed; what came before that."""
        async with asyncio.timeout(PATIENCE_S):
            data = b""
            with contextlib.suppress(ConnectionError):
                while more := await self.reader.read(1 << 20):
                    data += more
            return data


class Backend:
    """A listening socket. `accept` gives its connections in the order they were made."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.all: list[Peer] = []
        self.port = 0

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.all.append(Peer(reader, writer))
        self.peers.put_nowait(self.all[-1])

    async def accept(self) -> Peer:
        async with asyncio.timeout(PATIENCE_S):
            return await self.peers.get()


@contextlib.asynccontextmanager
async def backend(
    greet: Callable[[Peer], None] | None = None, *, reads: bool = True, small: bool = False
) -> AsyncIterator[Backend]:
    """greet: what happens to a connection as soon as it is accepted. reads: False takes nothing in, which needs
    small socket buffers to be felt; small: them alone."""
    made = Backend()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not reads:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        made(reader, writer)
        if greet is not None:
            greet(made.all[-1])

    listener = socket.create_server(("127.0.0.1", 0))
    if small or not reads:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
    server = await asyncio.start_server(connected, sock=listener)
    made.port = listener.getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for peer in made.all:
            peer.writer.transport.abort()
        await turns()


async def loopback(host: str, port: int) -> list[tuple[int, str]]:
    return [(int(socket.AF_INET), "127.0.0.1")]


@contextlib.asynccontextmanager
async def pool(
    port: int,
    *,
    name: str = "b",
    most: int = 4,
    connect_s: float = PATIENCE_S,
    idle_s: float = 30.0,
    resolve: Resolve = loopback,
) -> AsyncIterator[Pool]:
    """A pool of connections to a loopback port; nothing of it may be left at the end but idle connections."""
    made = Pool(
        name, "b.test", port, tls=None, connect_s=connect_s, max_connections=most, idle_s=idle_s, resolve=resolve
    )
    try:
        yield made
    finally:
        made.close()
        await turns()


def counts(made: Pool) -> str:
    """The figures of a pool: "1 active, 2 idle, 0 connecting, 0 waiting"."""
    return repr(made).partition(": ")[2].rpartition(",")[0]


EMPTY = "0 active, 0 idle, 0 connecting, 0 waiting"


def starts(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task the test owns."""
    return asyncio.get_running_loop().create_task(work)


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task as a client's leaving does, and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def once(connection: Connection, peer: Peer, answer: bytes = OK) -> bytes:
    """One whole exchange: the body of the answer."""
    connection.send(GET)
    await peer.request()
    peer.send(answer)
    await head_of(connection)
    return await rest_of(connection)


async def head_of(connection: Connection) -> ResponseHead:
    """Wait for the head of the answer."""
    while connection.response is None:
        await connection.news()
    return connection.response


async def rest_of(connection: Connection) -> bytes:
    """Read the answer's body to its end."""
    parts = []
    while not connection.complete:
        parts.append(await connection.read())
    return b"".join(parts)


# --- a request without a server under it ----------------------------------------------------------------


class Client:
    """What ASGI says about a client: parts of a body one by one, then nothing until `leave`."""

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        whole = list(parts)
        for number, part in enumerate(whole, 1):
            self.part(part, more=number < len(whole))

    def part(self, body: bytes, *, more: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self._messages.get()

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def exchange(
    client: Client,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    *lines: tuple[bytes, bytes],
    query: bytes = b"",
    receive_s: float = 15.0,
) -> Exchange:
    """The state of a request, as the application makes it from a scope; its owner is the running task."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(b"host", b"localhost"), *lines],
        "client": ("127.0.0.9", "4711"),
        "server": ("127.0.0.1", "8080"),
    }
    return Exchange(scope, client.receive, client.send, asyncio.get_running_loop(), receive_s, b"id-1")


def asks(body: bytes = b'{"model":"m"}', client: Client | None = None) -> Exchange:
    """A request whose body is held."""
    made = exchange(client or Client(), "POST", "/v1/chat/completions", JSON, (b"content-length", b"%d" % len(body)))
    made.endpoint = CHAT
    made.body = body
    made.peek = peek(body)
    made.body_read()
    return made


def uploads(client: Client, length: int | None = None) -> Exchange:
    """A request whose body streams through."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    made = exchange(client, "POST", "/v1/audio/transcriptions", (b"content-type", b"audio/wav"), framing)
    made.upload = Upload(made, 1 << 30)
    return made


async def body_of(reply: Reply) -> bytes:
    parts = [reply.body]
    if reply.connection is not None:
        while not reply.connection.complete:
            parts.append(await reply.connection.read())
        reply.pool.release(reply.connection)
    return b"".join(parts)


def target(port: int, *, name: str = "b", timeouts: Timeouts = NO_LIMITS, rename: str | None = None) -> PlannedTarget:
    shared = upstream(name, "openai", f"http://127.0.0.1:{port}/v1", b"", timeouts)
    return make_plan(CHAT, "m", Route.to(Target(name, rename)), {name: shared}).targets[0]


def plan_to(*targets: PlannedTarget) -> Plan:
    """A plan with one group; `attempts` and `run` give it its balancer."""
    made = make_plan(CHAT, "m", Route(()), {})
    return msgspec.structs.replace(made, targets=targets, groups=(Group(None, targets),))  # type: ignore[arg-type]


class Lines:
    """A log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, level: str, message: str, **fields: Any) -> None:
        self.events.append((message, {"level": level, **fields}))

    @property
    def breakers(self) -> list[tuple[str, str]]:
        """The changes of breakers: (backend, state)."""
        return [(fields["backend"], fields["breaker"]) for _, fields in self.events if "breaker" in fields]


class Side:
    """One worker's way to its backends: Attempts with cells of its own, and the plans that go with them."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        *,
        shared: Targets | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
        most: Mapping[str, int] | None = None,
        heartbeat_s: float = 0,
        balance: Balance = "least_in_flight",
        previous: Attempts | None = None,
        **sections: Any,
    ) -> None:
        """most: max_in_flight of backends. sections: of the configuration, [retry] without a pause if not given."""
        url = Url.parse("http://127.0.0.1:1/v1")
        backends = {
            name: BackendSection(kind="openai", url=url, max_in_flight=(most or {}).get(name, 0))
            for name in sorted(pools)
        }
        sections.setdefault("retry", Retry(backoff_ms=0))
        self.log = Lines()
        self.shared = shared or Targets("", b"boot")
        self.cells = TargetCells(Config(backends=backends, **sections), self.shared)
        self._heartbeat_s = heartbeat_s
        self._balance = balance
        self.attempts = Attempts(
            Config(backends=backends, **sections),
            pools=pools,
            cells=self.cells,
            log=self.log,  # type: ignore[arg-type]
            loop=asyncio.get_running_loop(),
            now_ns=now_ns,
            draw=random.Random(5).getrandbits,
            previous=previous,
        )

    def plan(self, *groups: tuple[PlannedTarget, ...]) -> Plan:
        """The model's own targets first, then those of its fallbacks."""
        bound = tuple(
            Group(
                self.cells.balancer_of(
                    tuple(Target(each.upstream.name, each.model) for each in targets), self._balance
                ),
                targets,
            )
            for targets in groups
        )
        flat = tuple(each for targets in groups for each in targets)
        made = make_plan(CHAT, "m", Route(()), {})
        return msgspec.structs.replace(made, targets=flat, groups=bound, heartbeat_s=self._heartbeat_s)

    @property
    def in_flight(self) -> int:
        return sum(cell.in_flight for cell in self.cells.backends.values())


async def run(plan: Plan, made: Exchange, pools: Mapping[str, Pool], **sections: Any) -> Reply:
    """One request over the targets of `plan_to`; its place is given back with the answer's head."""
    side = Side(pools, **sections)
    try:
        return await side.attempts.run(side.plan(plan.targets), made)
    finally:
        side.attempts.release(made)
        assert side.in_flight == 0
