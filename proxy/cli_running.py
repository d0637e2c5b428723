"""`penstock reload`, `upgrade` and `status`: ask the running server, over its control socket."""

import argparse
import sys
from typing import Any

from penstock.core.config_problem import ConfigError
from penstock.proxy.control import NAME, ask
from penstock.proxy.settings import locate, state_dir_of

FAILED = 1
# Reading and building have 30 s each, and a new process 60 s.
PATIENCE_S = 120.0


def have_done(what: str, arguments: argparse.Namespace) -> int:
    """Ask for a reload or an upgrade, and say what became of it. The exit code: 0 done, 1 not."""
    answer = _ask(what, arguments)
    if answer is None:
        return FAILED
    done = answer.get("ok") is True
    for line in answer.get("lines", ()):
        print(line, file=sys.stdout if done else sys.stderr)
    return 0 if done else FAILED


def show_status(arguments: argparse.Namespace) -> int:
    """Say how the server is."""
    status = _ask("status", arguments)
    if status is None:
        return FAILED
    workers = status["workers"]
    ready = sum(worker["ready"] for worker in workers)
    print(f"penstock {status['version']}, process {status['pid']}, up {status['uptime_s']:g} s, {status['phase']}")
    print(f"configuration: {status['source'] or 'no file'}")
    print(f"workers: {ready} of {len(workers)} ready, {status['worker_deaths']} died since the start")
    for worker in workers:
        print(f"  {worker['pid']}  {'ready' if worker['ready'] else 'starting'}  {worker['age_s']:g} s old")
    print(f"keeper of the store: {status['keeper'] or 'none'}")
    if status["last_reload"]:
        print("last reload:", *status["last_reload"].splitlines(), sep="\n  ")
    return 0


def _ask(what: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    try:
        folder = state_dir_of(locate(arguments.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None
    try:
        return ask(folder, {"do": what}, PATIENCE_S)
    except OSError as error:
        reason = error.strerror or error
        words = (
            "; one that was started with another state_dir hears signals"
            if isinstance(error, FileNotFoundError)
            else ""
        )
        print(f"penstock: no server answers at {folder / NAME}: {reason}{words}", file=sys.stderr)
        return None
