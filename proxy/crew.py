"""The workers and the keeper of the store: as many as there should be, whatever happens to them, until they are told
to end.

A worker that dies is replaced at once, however often that happens. Only where replacements die before they were ever
ready is the next one put off, for longer each time, and never for good while the server has served anybody.
"""

import socket
import time
from collections.abc import Callable
from signal import SIGKILL, SIGTERM
from typing import Literal

from penstock.core.config import Config
from penstock.proxy.children import Child, Children, Role, how
from penstock.proxy.keeping import run_keeper
from penstock.proxy.link import Link
from penstock.proxy.poller import Poller
from penstock.proxy.say import say
from penstock.proxy.settings import Settings
from penstock.proxy.shared import keeps_state
from penstock.proxy.wall_clock import WallClock
from penstock.proxy.worker import run_worker

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
# So many deaths before any worker was ever ready, and the start has failed.
START_ATTEMPTS = 3
KILL_AFTER_S = 5.0
# A keeper says nothing when it is ready; one that lived so long was.
KEEPER_READY_S = 1.0

Phase = Literal["serving", "workers end", "keeper ends", "gone"]


class Slot:
    """A place in the crew, and who fills it."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.child: Child | None = None
        self.failures = 0
        """Deaths in a row of those who were never ready."""
        self.deaths = 0


class Crew:
    """settings: what the next worker or keeper starts with. The hooks are for whoever has to know of a worker."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        count: int,
        *,
        children: Children,
        poller: Poller,
        monotonic: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._listener = listener
        self._children = children
        self._poller = poller
        self._monotonic = monotonic
        self._workers = [Slot("worker") for _ in range(count)]
        self._keeper = Slot("keeper")
        self._relieved: list[Child] = []
        """Workers that serve until those that came in their place do."""
        self._failed_starts = 0
        self._was_ready = False
        self._is_up = False
        self.phase: Phase = "serving"
        self.polite = False
        """It ends for another process, and may be told to make haste."""
        self.words = ""
        """Why the last worker that could not start could not."""
        self.on_up: Callable[[], None] = lambda: None
        """Every worker is ready, for the first time."""
        self.on_start_failed: Callable[[], None] = lambda: None
        self.on_gone: Callable[[], None] = lambda: None
        self.on_worker: Callable[[Child], None] = lambda child: None
        """A worker has been started."""
        self.on_loss: Callable[[Child], None] = lambda child: None

    @property
    def workers(self) -> list[Child]:
        return [*(slot.child for slot in self._workers if slot.child is not None), *self._relieved]

    @property
    def serving(self) -> list[Child]:
        """The workers that were not told to end."""
        return [child for child in self.workers if not child.ending]

    @property
    def keeper(self) -> Child | None:
        return self._keeper.child

    @property
    def deaths(self) -> int:
        """Of workers, since the start."""
        return sum(slot.deaths for slot in self._workers)

    def start(self) -> None:
        if keeps_state(self.settings.config):
            self._fill(self._keeper)
        for slot in self._workers:
            self._fill(slot)

    def noticed_ready(self) -> None:
        """Some worker has said that it is ready."""
        self._was_ready = True
        for slot in self._workers:
            if slot.child is not None and slot.child.ready:
                slot.failures = 0
        if not all(slot.child is not None and slot.child.ready for slot in self._workers):
            return
        for child in self._relieved:
            self._send_off(child)
        if not self._is_up:
            self._is_up = True
            self.on_up()

    def died(self, child: Child, status: int) -> None:
        """Somebody of the crew has ended: another takes the place, unless everything ends."""
        slot = next((slot for slot in (*self._workers, self._keeper) if slot.child is child), None)
        if slot is None:
            self._relieved.remove(child)
        else:
            slot.child = None
        if child.role == "worker":
            self.on_loss(child)
        if self.phase != "serving":
            self._next_phase()
        elif slot is None:
            pass  # somebody else has the place
        elif child.ending:
            if child.role == "worker" or keeps_state(self.settings.config):
                self._fill(slot)
        else:
            self._replace(slot, child, status)

    def follow(self, settings: Settings) -> None:
        """Serve by these from now on. Workers have them already; a keeper whose work is another one is replaced."""
        before, self.settings = self.settings, settings
        if self.phase != "serving":
            return
        keeper = self._keeper.child
        if keeper is None:
            if keeps_state(settings.config) and not keeps_state(before.config):
                self._fill(self._keeper)
        elif _keepers(before.config) != _keepers(settings.config) or settings.config.log.file:  # which may be moved
            keeper.ending = True
            keeper.tell(SIGTERM)

    def relieve(self) -> None:
        """Replace every worker, for what they take up at their start alone: each goes when all new ones serve."""
        for slot in self._workers:
            if slot.child is not None:
                self._relieved.append(slot.child)
                slot.child = None
            self._fill(slot)

    def _send_off(self, child: Child) -> None:
        if child.ending:
            return
        child.ending = True
        self._leave_to(child)
        if limit := self.settings.config.server.drain_s:
            self._poller.later(limit + KILL_AFTER_S, lambda: self._kill_relieved(child))

    def _kill_relieved(self, child: Child) -> None:
        if child in self._relieved:
            child.tell(SIGKILL)

    def _leave_to(self, child: Child) -> None:
        """Tell a worker to go, since others accept what comes now."""
        if child.ready:
            child.link.send("leave")
        else:
            child.tell(SIGTERM)

    # --- the end

    def stop(self) -> None:
        """Let every worker drain, then the keeper, which books what they did last."""
        self.polite = False
        self._end(lambda child: child.tell(SIGTERM))

    def leave(self) -> None:
        """As `stop`, but another process serves on the same socket already."""
        self.polite = True
        self._end(self._leave_to)

    def kill(self) -> None:
        """End at once what was told to end."""
        for child in self.workers or ([self.keeper] if self.keeper is not None else []):
            child.tell(SIGKILL)

    def _end(self, tell: Callable[[Child], None]) -> None:
        for child in self.workers:
            child.ending = True
            tell(child)
        if self.phase == "serving":
            self.phase = "workers end"
            if limit := self.settings.config.server.drain_s:
                self._poller.later(limit + KILL_AFTER_S, self._kill_workers)
        self._next_phase()

    def _kill_workers(self) -> None:
        for child in self.workers:
            child.tell(SIGKILL)

    def _next_phase(self) -> None:
        if self.phase == "workers end" and not self.workers:
            self.phase = "keeper ends"
            if self.keeper is not None:
                self.keeper.tell(SIGTERM)
                self._poller.later(KILL_AFTER_S, self.kill)
        if self.phase == "keeper ends" and self.keeper is None:
            self.phase = "gone"
            self.on_gone()

    # --- starting

    def _replace(self, slot: Slot, child: Child, status: int) -> None:
        was_ready = child.ready or (child.role == "keeper" and self._monotonic() - child.born > KEEPER_READY_S)
        slot.deaths += 1
        slot.failures = 0 if was_ready else slot.failures + 1
        pause_s = min(FIRST_PAUSE_S * 2 ** min(slot.failures - 1, 10), LONGEST_PAUSE_S) if slot.failures else 0.0
        when = f" in {pause_s:g} s" if pause_s else ""
        say(f"{child.role} {child.pid} died ({how(status)}); starting another{when}")
        if child.role == "worker" and not self._was_ready:
            self._failed_starts += 1
            self.words = child.words or how(status)
            if self._failed_starts >= START_ATTEMPTS:
                self.on_start_failed()
                return
        if pause_s:
            self._poller.later(pause_s, lambda: self._fill(slot))
        else:
            self._fill(slot)

    def _fill(self, slot: Slot) -> None:
        if self.phase != "serving" or slot.child is not None:
            return
        try:
            slot.child = self._children.fork(slot.role, self._work if slot.role == "worker" else self._keep)
        except OSError as error:
            say(f"cannot start a {slot.role}: {error.strerror or error}; trying again in {LONGEST_PAUSE_S:g} s")
            self._poller.later(LONGEST_PAUSE_S, lambda: self._fill(slot))
            return
        if slot.role == "worker":
            self.on_worker(slot.child)

    def _work(self, link: Link) -> None:
        run_worker(self.settings, self._listener, link)

    def _keep(self, link: Link) -> None:
        self._listener.close()
        run_keeper(self.settings, WallClock(time.time_ns))


def _keepers(config: Config) -> tuple[object, ...]:
    """What the keeper works by."""
    return keeps_state(config), config.store, config.log, config.alerts, config.tiers, config.limits
