"""One worker process: an App on a uvloop, and another one when its parent says so, until it is told to drain."""

import asyncio
import ctypes
import gc
import pickle
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvloop

from penstock.core.config import Server
from penstock.proxy import http1_server
from penstock.proxy.generations import Generations
from penstock.proxy.lifespan import Generation, WorkerParts, build
from penstock.proxy.link import Link, Message
from penstock.proxy.settings import Settings
from penstock.proxy.shared import Memory

# How long requests may take to end once the time for draining is over.
AFTER_DRAIN_S = 2.0
SWEEP_S = 1.0
M_MMAP_THRESHOLD = -3  # malloc.h

if TYPE_CHECKING:
    from penstock.proxy import granian_face

    Inbound = http1_server.Listener | granian_face.Listener


def run_worker(settings: Settings, listener: socket.socket, link: Link) -> None:
    """Serve on `listener` until SIGTERM (drain), the word "leave" or the parent's death.

    Raises what keeps it from starting.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    tune_gc()
    tune_malloc()
    loop.run_until_complete(_serve(settings, listener, link))


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


async def _serve(settings: Settings, listener: socket.socket, link: Link) -> None:
    loop = asyncio.get_running_loop()
    ending = Ending()
    loop.add_signal_handler(signal.SIGTERM, ending.drain)
    parts = WorkerParts(settings, loop)
    generations = Generations(await build(settings, parts))
    tasks = [loop.create_task(generations.tick()), loop.create_task(_sweep(parts.memory))]
    inbound = await _listen(generations, settings.config.server, listener, tasks)
    listener.close()
    obey = Obedience(parts, generations, inbound, link, ending)
    loop.add_reader(link.fileno(), link.readable)
    link.send("ready")
    await ending.told.wait()
    obey.end()
    await _drain(generations, inbound, ending)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await generations.close()


class Ending:
    """That a worker has to end, and how: SIGTERM after "leave" is obeyed too."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.polite = False
        self.on_haste: Callable[[], None] = lambda: None

    def drain(self) -> None:
        self.told.set()
        self.on_haste()

    def leave(self) -> None:
        """Another process serves on the same socket already."""
        self.polite = not self.told.is_set()
        self.told.set()


class Obedience:
    """What the parent says is done: a reload in two steps, so that all workers take it up or none does; and the end."""

    def __init__(
        self, parts: WorkerParts, generations: Generations, inbound: "Inbound", link: Link, ending: Ending
    ) -> None:
        self._parts = parts
        self._generations = generations
        self._inbound = inbound
        self._link = link
        self._ending = ending
        self._building: asyncio.Task[None] | None = None
        self._built: Generation | None = None
        link.on_message = self._message
        link.on_end = self._orphaned

    def end(self) -> None:
        """There will be no other App."""
        self._link.on_message = lambda message: None
        self._drop()

    def _orphaned(self) -> None:
        """A worker whose parent was killed must not keep the port."""
        self._parts.loop.remove_reader(self._link.fileno())
        self._ending.drain()

    def _message(self, message: Message) -> None:
        match message.word:
            case "build":
                self._drop()
                self._building = self._parts.loop.create_task(self._build(message.payload))
            case "swap":
                self._swap()
            case "drop":
                self._drop()
            case "leave":
                self._ending.leave()

    async def _build(self, pickled: bytes) -> None:
        try:
            settings: Settings = pickle.loads(pickled)  # noqa: S301 - from our parent, who has read the file
            self._built = await build(settings, self._parts, self._generations.current)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on as it was and the words are told
            self._link.send("failed", str(error) or repr(error))
        else:
            self._link.send("built")

    def _swap(self) -> None:
        new, self._built = self._built, None
        if new is None:
            return
        self._generations.swap(new)
        self._inbound.receive_s = new.settings.config.server.receive_s
        self._inbound.app = new.app
        self._link.send("swapped")

    def _drop(self) -> None:
        if self._building is not None:
            self._building.cancel()
            self._building = None
        if self._built is not None:
            self._generations.drop(self._built)
            self._built = None


async def _listen(
    generations: Generations, server: Server, listener: socket.socket, tasks: list[asyncio.Task[None]]
) -> "Inbound":
    """Plain HTTP/1.1 on this loop; TLS, and with it HTTP/2, by granian."""
    loop = asyncio.get_running_loop()
    app = generations.current.app
    if server.tls is None:
        plain = http1_server.Listener(app, listener, server.receive_s)
        await plain.start()
        tasks.append(loop.create_task(plain.close_silent()))
        return plain
    from penstock.proxy import granian_face  # imported where it serves: most workers never need it
    from penstock.proxy.silence import close_silent

    secure = granian_face.Listener(app, server, listener)
    port = str(listener.getsockname()[1])
    silent = close_silent(lambda: generations.exchanges, secure.served, port, lambda: secure.receive_s)
    tasks.append(loop.create_task(silent))
    return secure


async def _sweep(memory: Memory) -> None:
    """Take away what dead workers held at targets, and in the cache."""
    while True:
        memory.sweep()
        await asyncio.sleep(SWEEP_S)


async def _drain(generations: Generations, inbound: "Inbound", ending: Ending) -> None:
    """Wait for running requests, then end those that are left; each client is told."""
    if ending.polite:
        inbound.leave()
        ending.on_haste = lambda: _haste(generations, inbound)
    else:
        _haste(generations, inbound)
    drain_s = generations.current.settings.config.server.drain_s
    await asyncio.wait({inbound.stopped}, timeout=drain_s or None)
    if not inbound.stopped.done():
        _haste(generations, inbound)
        for exchange in tuple(generations.exchanges):
            exchange.cancel()
        await asyncio.wait({inbound.stopped}, timeout=AFTER_DRAIN_S)


def _haste(generations: Generations, inbound: "Inbound") -> None:
    """Nobody else takes what comes now."""
    for generation in generations:
        generation.app.draining = True
    inbound.drain()
