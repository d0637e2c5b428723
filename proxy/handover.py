"""`penstock upgrade`: a new process takes over the listening socket; the old one goes on until that one serves.

The new one is started as this one was (program, arguments, environment), so whatever is installed now is what runs. It
inherits the socket, and a link over which it says "ready" or why it cannot. No connection is lost in between: the
kernel's queue belongs to the socket, and the old process stops accepting only when all new workers do.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from signal import SIGKILL, SIGTERM

from penstock.proxy.activation import HANDOVER, handover_variable
from penstock.proxy.children import how
from penstock.proxy.link import Link, Message
from penstock.proxy.poller import Poller, Timer
from penstock.proxy.reload import Outcome, Told

LIMIT_S = 60.0
"""Until the new process must serve: it may have to bring the database up to date."""


class Upgrade:
    """The old process's side: one attempt after the other, until one succeeds. on_taken: the new process's id."""

    def __init__(
        self,
        listener: socket.socket,
        listen: str,
        *,
        environ: Mapping[str, str],
        poller: Poller,
        on_taken: Callable[[int], None],
        on_outcome: Told,
    ) -> None:
        self._listener = listener
        self._listen = listen
        self._environ = environ
        self._poller = poller
        self._on_taken = on_taken
        self._on_outcome = on_outcome
        self._pid = 0
        self._link: Link | None = None
        self._told: list[Told] = []
        self._words = ""
        self._timer: Timer | None = None

    @property
    def under_way(self) -> bool:
        return bool(self._pid)

    def ask(self, told: Told) -> None:
        """Start a new process; told: whether it has taken over."""
        if os.getpid() == 1:
            told(Outcome(False, ("this is process 1 of a container, which ends with it: replace the container",)))
            return
        self._told.append(told)
        if self._pid:
            return
        self._words = ""
        try:
            self._start()
        except OSError as error:
            self._end(Outcome(False, (f"the new process cannot be started: {error.strerror or error}",)))

    def reap(self) -> None:
        """Take notice if the new process has ended."""
        if not self._pid:
            return
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if done:
            if self._link is not None:
                self._link.read_all()
            reason = self._words or f"{how(status)}; what it said is in the log"
            self._end(Outcome(False, ("the new process did not come up, so this one goes on:", *reason.splitlines())))

    def abandon(self) -> None:
        """The server ends: the new process does too, unless it has taken over."""
        if self._pid:
            os.kill(self._pid, SIGTERM)

    def _start(self) -> None:
        ours, theirs = Link.pair()
        fds = (self._listener.fileno(), theirs.fileno())
        try:
            for fd in fds:
                os.set_inheritable(fd, True)
            environ = {**self._environ, HANDOVER: handover_variable(*fds, self._listen)}
            arguments = [sys.executable, *sys.orig_argv[1:]]
            self._pid = os.posix_spawn(sys.executable, arguments, environ, setsigmask=())
        except OSError:
            ours.close()
            raise
        finally:
            os.set_inheritable(self._listener.fileno(), False)
            theirs.close()
        ours.on_message = self._heard
        ours.on_end = lambda: self._poller.remove(ours)
        self._link = ours
        self._poller.add(ours)
        self._timer = self._poller.later(LIMIT_S, self._too_late)

    def _heard(self, message: Message) -> None:
        if message.word == "failed":
            self._words = message.text
        elif message.word == "ready" and self._pid:
            pid = self._pid
            self._on_taken(pid)
            self._end(Outcome(True, (f"process {pid} has taken over; process {os.getpid()} ends with its requests",)))

    def _too_late(self) -> None:
        self._words = f"it did not serve within {LIMIT_S:g} s"
        os.kill(self._pid, SIGKILL)

    def _end(self, outcome: Outcome) -> None:
        self._pid = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._poller.remove(self._link)
            self._link = None
        self._on_outcome(outcome)
        told, self._told = self._told, []
        for each in told:
            each(outcome)


class Predecessor:
    """The new process's side. fd: the link's end that came with the socket; -1 = there is no predecessor."""

    def __init__(self, fd: int) -> None:
        self._link = Link(socket.socket(fileno=fd)) if fd >= 0 else None
        if fd >= 0:
            os.set_inheritable(fd, False)

    def ready(self) -> None:
        """All workers serve: the old process may go."""
        self._say("ready", "")

    def failed(self, words: str) -> None:
        """This process cannot take over, and ends."""
        self._say("failed", words)

    def _say(self, word: str, words: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.send(word, words)
            link.finish()
            link.close()

    def close(self) -> None:
        """As a child does with what is its parent's."""
        if self._link is not None:
            self._link.close()
