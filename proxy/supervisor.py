"""The parent of `penstock serve`: one thread, one loop (`poller.py`), no event loop of a library, so that every fork is
clean.

It serves nothing itself. Signals, the control socket, the words of its children and the clock come in; crew, reloads
and upgrades are what it does about them.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from socket import socket
from typing import Any

from penstock.proxy.children import Child, Children
from penstock.proxy.config_files import ConfigFiles
from penstock.proxy.control import Answer, Control
from penstock.proxy.crew import Crew
from penstock.proxy.handover import Predecessor, Upgrade
from penstock.proxy.link import Message
from penstock.proxy.notify import Notify
from penstock.proxy.poller import Poller, Signals
from penstock.proxy.reload import Outcome, Reloads, Told
from penstock.proxy.say import say
from penstock.proxy.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
LOOK_S = 1.0
"""How often the configuration's files are looked at."""


class Supervisor:
    """count: of workers. listen, environ: what the new process of an upgrade is told (`activation.py`), and gets."""

    def __init__(
        self,
        settings: Settings,
        listener: socket,
        count: int,
        *,
        listen: str,
        environ: Mapping[str, str],
        predecessor: Predecessor,
        notify: Notify,
        version: str,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._listener = listener
        self._predecessor = predecessor
        self._notify = notify
        self._version = version
        self._monotonic = monotonic
        self._started = monotonic()
        self._code: int | None = None
        self._failed = False
        self._control: Control | None = None
        self._last_reload = ""
        self._poller = poller = Poller(monotonic)
        self._children = children = Children(poller, monotonic)
        self._crew = crew = Crew(settings, listener, count, children=children, poller=poller, monotonic=monotonic)
        self._files = ConfigFiles(settings)
        self._reloads = Reloads(
            crew,
            self._files,
            children=children,
            poller=poller,
            wall_ns=wall_ns,
            on_begin=notify.reloading,
            on_outcome=self._reloaded,
        )
        self._upgrade = Upgrade(
            listener,
            listen,
            environ=environ,
            poller=poller,
            on_taken=self._hand_over,
            on_outcome=self._upgraded,
        )
        children.on_message = self._heard
        children.on_death = self._died
        children.on_fork = predecessor.close
        crew.on_worker = self._reloads.started
        crew.on_loss = self._reloads.lost
        crew.on_up = self._up
        crew.on_start_failed = self._start_failed
        crew.on_gone = self._gone

    def run(self) -> int:
        """Until everything has ended. The exit code: 0 drained, 1 could not start."""
        self._poller.add(Signals(SIGNALS, self._signalled))
        self._crew.start()
        self._poller.later(LOOK_S, self._look)
        while self._code is None:
            self._poller.turn()
        if self._control is not None:
            self._control.unlink()
        self._poller.close()
        return self._code

    # --- what comes in

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._children.reap()
            self._upgrade.reap()
        elif number == signal.SIGHUP:
            self._reloads.ask()
        elif self._crew.phase == "serving" or self._crew.polite:
            self._stop()
        else:
            self._crew.kill()

    def _heard(self, child: Child, message: Message) -> None:
        if message.word == "ready":
            self._crew.noticed_ready()
        else:
            self._reloads.heard(child, message)

    def _died(self, child: Child, status: int) -> None:
        if child.role == "reader":
            self._reloads.lost(child)
        else:
            self._crew.died(child, status)

    def _look(self) -> None:
        if self._crew.phase != "serving":
            return
        self._poller.later(LOOK_S, self._look)
        if not self._reloads.under_way and self._files.changed():
            self._reloads.ask()

    def _asked(self, request: dict[str, Any], answer: Answer) -> None:
        """What a client of the control socket wants."""
        if request.get("do") == "status":
            answer(self._status())
        elif request.get("do") not in ("reload", "upgrade"):
            answer({"ok": False, "lines": ["a request says what to do: reload, upgrade or status"]})
        elif self._crew.phase != "serving":
            answer({"ok": False, "lines": ["this server is ending"]})
        elif self._upgrade.under_way:
            answer({"ok": False, "lines": ["an upgrade is under way; try again"]})
        elif request["do"] == "reload":
            self._reloads.ask(_telling(answer))
        elif self._reloads.under_way:
            answer({"ok": False, "lines": ["a reload is under way; try again"]})
        else:
            self._reloads.held_back = True
            self._upgrade.ask(_telling(answer))

    # --- what becomes of it

    def _up(self) -> None:
        """Every worker is ready."""
        folder = Path(self._crew.settings.config.server.state_dir)
        try:
            self._control = Control(folder, self._poller, self._asked)
            self._poller.add(self._control)
        except OSError as error:
            say(f"no control socket in {folder} ({error.strerror or error}): only signals reach this server")
        self._notify.ready(f"serving with {len(self._crew.workers)} workers")
        self._predecessor.ready()

    def _start_failed(self) -> None:
        self._predecessor.failed(f"no worker could start: {self._crew.words}")
        self._failed = True
        self._listener.close()
        self._crew.stop()

    def _gone(self) -> None:
        self._code = 1 if self._failed else 0

    def _reloaded(self, outcome: Outcome) -> None:
        self._last_reload = "\n".join(outcome.lines)
        source = self._crew.settings.source or "what there is"
        for line in outcome.lines:
            say(line)
        self._notify.ready(f"{source}: {'reloaded' if outcome.ok else 'not reloaded'}")

    def _upgraded(self, outcome: Outcome) -> None:
        for line in outcome.lines:
            say(line)
        self._reloads.held_back = False
        self._reloads.go_on()

    def _hand_over(self, pid: int) -> None:
        """Another process serves: whoever is here is served to the end, and nobody new is let in."""
        self._notify.heir_ready(pid)
        self._listener.close()
        self._crew.leave()

    def _stop(self) -> None:
        self._notify.stopping()
        self._upgrade.abandon()
        self._listener.close()
        self._crew.stop()

    def _status(self) -> dict[str, Any]:
        crew, keeper = self._crew, self._crew.keeper
        now = self._monotonic()
        return {
            "ok": True,
            "pid": os.getpid(),
            "version": self._version,
            "uptime_s": round(now - self._started, 1),
            "phase": crew.phase,
            "source": str(crew.settings.source or ""),
            "workers": [
                {"pid": child.pid, "ready": child.ready, "age_s": round(now - child.born, 1)} for child in crew.workers
            ],
            "worker_deaths": crew.deaths,
            "keeper": None if keeper is None else keeper.pid,
            "last_reload": self._last_reload,
        }


def _telling(answer: Answer) -> Told:
    return lambda outcome: answer({"ok": outcome.ok, "lines": list(outcome.lines)})
