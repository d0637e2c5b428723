"""The parent's child processes: forked with a link to talk over, reaped when they end."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Literal

from penstock.proxy.link import Link, Message
from penstock.proxy.poller import Poller

Role = Literal["worker", "keeper", "reader"]
Life = Callable[[Link], None]
"""What a child does, in its own process, until it ends."""
LONGEST_WORDS = 8192


class Child:
    """One of them. link: the parent's end."""

    def __init__(self, role: Role, pid: int, link: Link, born: float) -> None:
        self.role = role
        self.pid = pid
        self.link = link
        self.born = born
        self.ready = False
        self.ending = False
        """It was told to end, so its end is no accident."""
        self.words = ""
        """What it said went wrong."""

    def __repr__(self) -> str:
        return f"<{self.role} {self.pid} {'ready' if self.ready else 'starting'}>"

    def tell(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


class Children:
    """All of them. A child gets none of what the parent's poller looks after: it is closed there.

    on_message, on_death: what the parent does about a child's words, and about its end (a wait status).
    """

    def __init__(self, poller: Poller, monotonic: Callable[[], float]) -> None:
        self._poller = poller
        self._monotonic = monotonic
        self._by_pid: dict[int, Child] = {}
        self.on_message: Callable[[Child, Message], None] = lambda child, message: None
        self.on_death: Callable[[Child, int], None] = lambda child, status: None
        self.on_fork: Callable[[], None] = lambda: None
        """In a new child, first of all."""

    def of(self, role: Role) -> list[Child]:
        return [child for child in self._by_pid.values() if child.role == role]

    def fork(self, role: Role, life: Life) -> Child:
        """Raises OSError where the system has no room for another process."""
        ours, theirs = Link.pair()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        if not pid:
            self._live(life, ours, theirs)
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child = Child(role, pid, ours, self._monotonic())
        ours.on_message = lambda message: self._heard(child, message)
        ours.on_end = lambda: self._poller.remove(ours)
        self._by_pid[pid] = child
        self._poller.add(ours)
        return child

    def reap(self) -> None:
        """Take notice of all that have ended."""
        for pid, child in tuple(self._by_pid.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._by_pid[pid]
                self._last_words(child)
                self.on_death(child, status)

    def _live(self, life: Life, parents: Link, link: Link) -> None:
        """The child's whole life; never returns."""
        code = 1
        try:
            parents.close()
            self._poller.close()
            self.on_fork()
            for number in (signal.SIGINT, signal.SIGHUP):  # these reach the whole group; the parent decides
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            life(link)
            code = 0
        except BaseException as error:  # noqa: BLE001 - the outermost place of the process
            link.send("failed", (str(error) or repr(error))[:LONGEST_WORDS])
            traceback.print_exc()
        finally:
            # Threads of the server under us may still hold the interpreter; nothing is left to clean up.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _heard(self, child: Child, message: Message) -> None:
        if message.word == "ready":
            child.ready = True
        elif message.word == "failed":
            child.words = message.text
        self.on_message(child, message)

    def _last_words(self, child: Child) -> None:
        """What a child said before it ended comes before its end."""
        child.link.read_all()
        self._poller.remove(child.link)


def how(status: int) -> str:
    """How a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"
