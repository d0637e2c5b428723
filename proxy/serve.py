"""`penstock serve`: bind, fork the workers and the keeper of the store, keep them alive, drain them.

The parent serves nothing and has no threads and no event loop, so a fork of it is always clean. A child that dies
is replaced at once, with a growing pause only if replacements keep dying too.
"""

import os
import signal
import socket
import sys
import time
import traceback
from math import inf
from typing import Literal

from penstock.core.address import Address
from penstock.proxy.http1_server import BACKLOG
from penstock.proxy.keeping import run_keeper
from penstock.proxy.prepare import prepare
from penstock.proxy.settings import Settings
from penstock.proxy.shared import keeps_state
from penstock.proxy.wall_clock import WallClock
from penstock.proxy.worker import run_worker

Role = Literal["worker", "keeper"]
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
MAX_PAUSE_S = 5.0
# So many deaths before any worker was ever ready, and the start has failed.
START_ATTEMPTS = 3
KILL_AFTER_S = 5.0


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 drained, 1 could not start."""
    server = settings.config.server
    try:
        listener = bind(server.listen)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"penstock: cannot listen on {server.listen}: {reason}; --listen takes another address",
            file=sys.stderr,
        )
        return 1
    with listener:
        if keeps_state(settings.config) and not _prepared(settings):
            return 1
        announce(settings, listener)
        return Supervisor(settings, listener).run()


def _prepared(settings: Settings) -> bool:
    """Whether the state folder can be used; a store that fails is told and no reason not to serve."""
    place = settings.config.server.state_dir
    try:
        trouble = prepare(settings, time.time_ns())
    except OSError as error:
        words = f"cannot use the state folder {place}: {error.strerror or error}; server.state_dir names another"
        print(f"penstock: {words}", file=sys.stderr)
        return False
    if trouble:
        print(f"penstock: {trouble}; serving all the same, usage waits until it works", file=sys.stderr)
    return True


def bind(address: Address) -> socket.socket:
    """The listening socket all workers accept from; a dying worker takes no waiting connection with it."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def announce(settings: Settings, listener: socket.socket) -> None:
    """What a person at the terminal wants to know first."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.config.server.tls else "http"
    shown = f"[{host}]" if ":" in host else host
    print(f"penstock serves {scheme}://{shown}:{port}/v1  ({settings.source or 'no configuration file'})")
    for line in settings.found:
        print(f"  {line}")
    sys.stdout.flush()


class Supervisor:
    """The parent process's state: what each of its children does, by process id."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._count = settings.config.server.workers or cores()
        self._children: dict[int, Role] = {}
        self._deaths = 0
        self._ready_reader, self._ready_writer = os.pipe()
        os.set_blocking(self._ready_reader, False)
        self._was_ready = False

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if keeps_state(self._settings.config):
            self._spawn("keeper")
        for _ in range(self._count):
            self._spawn("worker")
        while True:
            caught = signal.sigwait(SIGNALS)
            if caught != signal.SIGCHLD:
                return self._stop()
            if self._replace_dead() and not self._was_ready and self._deaths >= START_ATTEMPTS:
                self._stop()
                return 1

    def _spawn(self, role: Role) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = role
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._be(role)
            code = 0
        except BaseException:  # noqa: BLE001 - the outermost place of the process
            traceback.print_exc()
        finally:
            # Threads of the server under us may still hold the interpreter; nothing is left to clean up.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _be(self, role: Role) -> None:
        """A child's whole life."""
        if role == "worker":
            run_worker(self._settings, self._listener, self._ready)
        else:
            self._listener.close()
            run_keeper(self._settings, WallClock(time.time_ns))

    def _ready(self) -> None:
        """Said by a worker, in its own process."""
        os.write(self._ready_writer, b"r")

    def _replace_dead(self) -> bool:
        """Reap dead children and start others in their place; was any dead?"""
        dead = self._reap()
        self._note_ready()
        for pid, role, status in dead:
            print(f"penstock: {role} {pid} died ({_how(status)}); starting another", file=sys.stderr, flush=True)
            self._deaths += 1
            if self._deaths > self._count:
                self._pause(min(0.05 * 2 ** min(self._deaths - self._count, 10), MAX_PAUSE_S))
            self._spawn(role)
        return bool(dead)

    def _reap(self) -> list[tuple[int, Role, int]]:
        dead = []
        for pid, role in tuple(self._children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._children[pid]
                dead.append((pid, role, status))
        return dead

    def _note_ready(self) -> None:
        """A worker that became ready since the last death ends a row of deaths."""
        try:
            if os.read(self._ready_reader, 4096):
                self._was_ready = True
                self._deaths = 0
        except BlockingIOError:
            pass

    def _pause(self, seconds: float) -> None:
        """Wait, but not through a signal to stop."""
        caught = signal.sigtimedwait(SIGNALS - {signal.SIGCHLD}, seconds)
        if caught is not None:
            os.kill(os.getpid(), caught.si_signo)

    def _stop(self) -> int:
        """Let every worker drain, then the keeper, which books what they did last.

        A second signal, or too long a time, ends them at once.
        """
        self._listener.close()
        limit = self._settings.config.server.drain_s
        self._end("worker", limit + KILL_AFTER_S if limit else inf)
        self._end("keeper", KILL_AFTER_S)
        return 0

    def _end(self, role: Role, limit_s: float) -> None:
        self._tell(role, signal.SIGTERM)
        waited = 0.0
        while role in self._children.values():
            caught = signal.sigtimedwait(SIGNALS, 0.5)
            waited += 0.5 if caught is None else 0.0
            self._reap()
            again = caught is not None and caught.si_signo != signal.SIGCHLD
            if again or waited > limit_s:
                self._tell(role, signal.SIGKILL)

    def _tell(self, role: Role, number: signal.Signals) -> None:
        for pid, its in self._children.items():
            if its == role:
                os.kill(pid, number)


def cores() -> int:
    """Processors this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"
