"""A reload, as the parent runs it: all workers take the new configuration up, or none does.

    reading (a child of its own) -> building (every worker) -> swapping -> outcome

The file is read in a process of its own, so that no slow disk or backend name holds the parent up. Every worker builds
its App beside the one that serves; only when all have built theirs are they told to swap, and running requests stay
where they are. Whatever fails before that leaves everything as it was.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from signal import SIGKILL
from typing import Literal

from penstock.core.config_problem import ConfigError
from penstock.core.config_reload import keep_running
from penstock.proxy.children import Child, Children
from penstock.proxy.config_files import ConfigFiles, certificates
from penstock.proxy.crew import Crew
from penstock.proxy.link import Link, Message
from penstock.proxy.poller import Poller, Timer
from penstock.proxy.prepare import prepare
from penstock.proxy.settings import Settings
from penstock.proxy.shared import keeps_state

LIMIT_S = 30.0
"""Each step takes at most this long."""
Step = Literal["", "reading", "building", "swapping"]
NEW_CERTIFICATE = "the files of server.tls changed: new workers take them up, and the old ones end with their requests"


@dataclass(frozen=True)
class Outcome:
    """What became of a reload or an upgrade, in lines for people."""

    ok: bool
    lines: tuple[str, ...]


Told = Callable[[Outcome], None]
REFUSED = "not reloaded, all stays as it was:"


def read_anew(settings: Settings, wall_ns: int) -> tuple[Settings, tuple[str, ...]]:
    """What the configuration says now, as far as a running server can take it up, and notes on the rest.

    The state folder is made ready for it. Raises ConfigError, OSError.
    """
    new = settings.reload()
    config, notes = keep_running(settings.config, new.config)
    new = replace(new, config=config)
    if keeps_state(config) and (trouble := prepare(new, wall_ns)):
        notes = (*notes, trouble)
    return new, notes


class Reloads:
    """One after the other; what is asked for while one runs is answered by the next. on_outcome: for the log."""

    def __init__(
        self,
        crew: Crew,
        files: ConfigFiles,
        *,
        children: Children,
        poller: Poller,
        wall_ns: Callable[[], int],
        on_begin: Callable[[], None],
        on_outcome: Told,
    ) -> None:
        self._crew = crew
        self._files = files
        self._children = children
        self._poller = poller
        self._wall_ns = wall_ns
        self._on_begin = on_begin
        self._on_outcome = on_outcome
        self._certificates = certificates(crew.settings.config)
        self._step: Step = ""
        self._asked: list[Told] = []
        self._running: list[Told] = []
        self._pickled = b""
        self._notes: tuple[str, ...] = ()
        self._new: Settings | None = None
        self._waiting: set[Child] = set()
        self._timer: Timer | None = None
        self.held_back = False
        """Nothing is begun while this holds, for what is asked for waits."""

    @property
    def under_way(self) -> bool:
        return bool(self._step)

    def ask(self, told: Told | None = None) -> None:
        """Read the configuration again; told: what becomes of it."""
        self._asked.append(told or (lambda outcome: None))
        self.go_on()

    def go_on(self) -> None:
        """Begin what was asked for, if it can begin."""
        if self._step or not self._asked or self.held_back or self._crew.phase != "serving":
            return
        self._running, self._asked = self._asked, []
        self._on_begin()
        self._files.look()
        self._enter("reading")
        try:
            self._waiting = {self._children.fork("reader", self._read)}
        except OSError as error:
            self._refuse(f"cannot start a process to read it: {error.strerror or error}")

    # --- what the children say

    def heard(self, child: Child, message: Message) -> None:
        match self._step, message.word:
            case "reading", "read" if child in self._waiting:
                self._build(message.payload)
            case "reading", "refused" if child in self._waiting:
                self._refuse(message.text)
            case "building", "built":
                self._done(child)
            case "building", "failed" if child in self._waiting and child.ready:
                self._fail(f"a worker cannot serve by it: {message.text}")
            case "swapping", "swapped":
                self._done(child)

    def started(self, worker: Child) -> None:
        """One more worker, with the settings of before: it takes part."""
        if self._step == "building":
            self._waiting.add(worker)
            worker.link.send("build", self._pickled)

    def lost(self, child: Child) -> None:
        """A process has ended; who comes in its place is told by `started`."""
        if child.role == "reader" and self._step == "reading" and child in self._waiting:
            self._refuse("the process that read it died")
        elif child.role == "worker":
            self._done(child)

    # --- steps

    def _read(self, link: Link) -> None:
        """In a process of its own."""
        try:
            new, notes = read_anew(self._crew.settings, self._wall_ns())
        except ConfigError as error:
            link.send("refused", str(error))
        except OSError as error:
            link.send("refused", f"cannot use the state folder: {error.strerror or error}: {error.filename or ''}")
        else:
            link.send("read", pickle.dumps((pickle.dumps(new), notes)))
        link.finish()

    def _build(self, payload: bytes) -> None:
        self._pickled, self._notes = pickle.loads(payload)  # noqa: S301 - from our own child
        self._new = pickle.loads(self._pickled)  # noqa: S301
        self._waiting = set(self._crew.serving)
        self._enter("building")
        for worker in self._crew.serving:
            worker.link.send("build", self._pickled)
        self._step_if_all()

    def _done(self, child: Child) -> None:
        if self._step in ("building", "swapping"):
            self._waiting.discard(child)
            self._step_if_all()

    def _step_if_all(self) -> None:
        if self._waiting or self._new is None:
            return
        if self._step == "building":
            self._swap(self._new)
        elif self._step == "swapping":
            self._renew_certificates()
            source = self._new.source or "what there is"
            self._end(Outcome(True, (f"{source}: reloaded", *self._notes)))

    def _swap(self, new: Settings) -> None:
        self._files.watch(new)
        self._crew.follow(new)
        self._waiting = set(self._crew.serving)
        self._enter("swapping")
        for worker in self._crew.serving:
            worker.link.send("swap")
        self._step_if_all()

    def _renew_certificates(self) -> None:
        """A worker reads them at its start alone."""
        before, self._certificates = self._certificates, certificates(self._crew.settings.config)
        if before != self._certificates:
            self._notes = (*self._notes, NEW_CERTIFICATE)
            self._crew.relieve()

    def _enter(self, step: Step) -> None:
        self._step = step
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._poller.later(LIMIT_S, self._too_late) if step else None

    def _too_late(self) -> None:
        if self._step == "reading":
            for reader in self._waiting:
                reader.ending = True
                reader.tell(SIGKILL)
            self._refuse(f"it could not be read within {LIMIT_S:g} s")
        elif self._step == "building":
            self._fail(f"a worker was not ready for it within {LIMIT_S:g} s")
        else:
            self._waiting.clear()
            self._step_if_all()

    def _fail(self, words: str) -> None:
        for worker in self._crew.serving:
            worker.link.send("drop")
        self._refuse(words)

    def _refuse(self, words: str) -> None:
        self._end(Outcome(False, (REFUSED, *words.splitlines())))

    def _end(self, outcome: Outcome) -> None:
        self._enter("")
        self._waiting, self._new, self._pickled, self._notes = set(), None, b"", ()
        self._on_outcome(outcome)
        told, self._running = self._running, []
        for each in told:
            each(outcome)
        self.go_on()
