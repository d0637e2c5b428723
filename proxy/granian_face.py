"""TLS and HTTP/2 on the way in, by granian.

The one place that touches its worker class, which is private to it (hence the dependency's upper bound).

granian's own process manager is not used: it ends the server when two workers die within 5.5 s, and waits without
limit for streams to end (seen with 2.8.7; see `serve.py` for ours).
"""

import asyncio
import os
import socket
import sys
from typing import Any

from granian import _futures, _granian
from granian.http import HTTP1Settings, HTTP2Settings

from penstock.core.config import Server
from penstock.proxy.http1_server import BACKLOG, GRACE_S, Application

# Requests one worker takes on at once; each is a task here, and the limits that matter are ours.
MAX_CONCURRENT = 65_536
NO_LIMIT_MS = 86_400_000

_native: Any = _granian  # its stub is behind its build
_glue: Any = _futures


class Listener:
    """Serves an ASGI application over TLS from threads of granian's; the application runs on this loop.

    app, receive_s: may be changed at any time; a request that has begun keeps its application.
    """

    def __init__(self, app: Application, server: Server, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.app = app
        self.receive_s = server.receive_s
        self._loop = loop
        self._leaving = self._draining = False
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._signal = _native.WorkerSignal()
        self._signal.add_cb(lambda: loop.call_soon_threadsafe(self.stopped.set_result, None))

        self.served = served = set[tuple[str, str]]()  # clients' addresses; kept small by silence.py

        async def call(watcher: Any) -> None:
            protocol = watcher.proto
            served.add(watcher.scope["client"])
            send = protocol.send
            if self._leaving and watcher.scope["http_version"] != "2":
                send = _last(send)
            try:
                await self.app(watcher.scope, protocol.receive, send)
            except BaseException as error:  # noqa: BLE001 - granian logs it and answers 500 if nothing was sent
                watcher.err(error)
            else:
                watcher.done()

        scheduler = _glue._new_cbscheduler(loop, call, impl_asyncio=True)
        # A single-threaded runtime: measured equal to the multi-threaded one in CPU per request.
        _worker(server, listener).serve_str(scheduler, loop, self._signal)

    def drain(self) -> None:
        """Accept nothing more and let running requests end; then `stopped` is done."""
        if not self._draining:
            self._draining = True
            self._signal.set()

    def leave(self) -> None:
        """As `drain`, for a server that another process has taken over. granian closes what is idle at once, so first
        each HTTP/1.1 connection in use gets an answer that says it is the last. HTTP/2 tells what was taken."""
        self._leaving = True
        self._loop.call_later(GRACE_S, self.drain)


def _last(send: Any) -> Any:
    """`send` for an answer that ends its connection."""

    def send_last(message: dict[str, Any]) -> Any:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        return send(message)

    return send_last


def _worker(server: Server, listener: socket.socket) -> Any:
    tls = server.tls
    return _native.ASGIWorker(
        worker_id=1,
        sock=(None, _holder(listener)),
        ipc=None,
        backpressure=MAX_CONCURRENT,
        blocking_threads=8,
        http_mode="auto",
        http1_opts=HTTP1Settings(header_read_timeout=int(server.receive_s * 1000) or NO_LIMIT_MS),
        http2_opts=HTTP2Settings(),
        ssl_enabled=tls is not None,
        ssl_cert=tls.cert_file if tls else None,
        ssl_key=tls.key_file if tls else None,
        ssl_protocol_min="tls1.2",
        ssl_ca=(tls.client_ca_file or None) if tls else None,
        ssl_client_verify=bool(tls and tls.client_ca_file),
    )


def _holder(listener: socket.socket) -> Any:
    fd = os.dup(listener.fileno())  # it closes what it holds
    if sys.platform in ("linux", "freebsd"):
        return _native.SocketHolder(fd, False, BACKLOG)
    return _native.SocketHolder(fd, False)
