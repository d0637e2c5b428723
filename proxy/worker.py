"""One worker process: the App on a uvloop, until it is told to drain."""

import asyncio
import ctypes
import gc
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvloop

from penstock.core.config import Server
from penstock.proxy import http1_server
from penstock.proxy.lifespan import Running, start, stop
from penstock.proxy.settings import Settings

# How long requests may take to end once the time for draining is over.
AFTER_DRAIN_S = 2.0
PARENT_CHECK_S = 1.0
M_MMAP_THRESHOLD = -3  # malloc.h

if TYPE_CHECKING:
    from penstock.proxy import granian_face

    Inbound = http1_server.Listener | granian_face.Listener


def run_worker(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve on `listener` until SIGTERM (drain) or the parent's death. Raises what keeps it from starting."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    tune_gc()
    tune_malloc()
    loop.run_until_complete(_serve(settings, listener, on_ready))


def tune_gc() -> None:
    """Collect cycles rarely: a request leaves none behind, and what was imported lives for ever anyway.

    With Python's own thresholds collecting took 9 % of the main thread's time under load (perf, 64 connections).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def tune_malloc() -> None:
    """Give large bodies back to the system as soon as they are freed.

    glibc maps them on their own at first, but raises its threshold (to 32 MiB) when the first is freed, and then keeps
    them: 20 MB of refused bodies stayed with an idle worker. Other C libraries have no such call and no such habit.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


async def _serve(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    drain = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, drain.set)
    running = await start(settings)
    running.tasks.append(loop.create_task(_outlive(os.getppid(), drain)))
    inbound = await _listen(running, settings.config.server, listener)
    listener.close()
    on_ready()
    await drain.wait()
    running.app.draining = True
    inbound.drain()
    await _drain(running, inbound, settings.config.server.drain_s)
    await stop(running)


async def _listen(running: Running, server: Server, listener: socket.socket) -> "Inbound":
    """Plain HTTP/1.1 on this loop; TLS, and with it HTTP/2, by granian."""
    loop = asyncio.get_running_loop()
    if server.tls is None:
        plain = http1_server.Listener(running.app, listener, server.receive_s)
        await plain.start()
        running.tasks.append(loop.create_task(plain.close_silent()))
        return plain
    from penstock.proxy import granian_face  # imported where it serves: most workers never need it
    from penstock.proxy.silence import close_silent

    secure = granian_face.Listener(running.app, server, listener)
    port = str(listener.getsockname()[1])
    running.tasks.append(loop.create_task(close_silent(running.app, secure.served, port, server.receive_s)))
    return secure


async def _outlive(parent: int, drain: asyncio.Event) -> None:
    """A worker whose parent was killed must not keep the port."""
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel sends no event for it
        await asyncio.sleep(PARENT_CHECK_S)
    drain.set()


async def _drain(running: Running, inbound: "Inbound", drain_s: float) -> None:
    """Wait for running requests, then end those that are left; each client is told."""
    await asyncio.wait({inbound.stopped}, timeout=drain_s or None)
    if not inbound.stopped.done():
        for exchange in tuple(running.app.active):
            exchange.cancel()
        await asyncio.wait({inbound.stopped}, timeout=AFTER_DRAIN_S)
