"""`penstock serve`: read the configuration, take or open the listening socket, make the state folder ready, and
supervise."""

import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version

from penstock.core.address import Address
from penstock.core.config_problem import ConfigError
from penstock.proxy.activation import Given, given_socket
from penstock.proxy.handover import Predecessor
from penstock.proxy.http1_server import BACKLOG
from penstock.proxy.notify import Notify
from penstock.proxy.prepare import prepare
from penstock.proxy.processors import cores
from penstock.proxy.say import say
from penstock.proxy.settings import Overrides, Settings, load, locate, variables
from penstock.proxy.shared import keeps_state
from penstock.proxy.state_folder import StateFolder
from penstock.proxy.supervisor import Supervisor


class CannotServe(Exception):
    """The words for people about why."""


def serve(option: str | None, overrides: Overrides) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 drained, 1 could not start. option: the configuration file."""
    environ = variables()
    predecessor = Predecessor(-1)
    try:
        given = _given()
        if given is not None:
            predecessor = Predecessor(given.link_fd)
            if not given.listen and overrides.listen is None:
                overrides = replace(overrides, listen=given.address())
        settings = _load(option, overrides)
        listener = _listener(settings, given)
        _prepare(settings)
    except CannotServe as error:
        print(error, file=sys.stderr)
        predecessor.failed(str(error))
        return 1
    with listener:
        announce(settings, listener)
        return Supervisor(
            settings,
            listener,
            settings.config.server.workers or cores(),
            listen="" if given is not None and not given.listen else str(settings.config.server.listen),
            environ=dict(environ),
            predecessor=predecessor,
            notify=Notify(environ.get("NOTIFY_SOCKET", ""), time.monotonic_ns),
            version=version("penstock"),
        ).run()


def _given() -> Given | None:
    try:
        return given_socket(variables(), os.getpid())
    except OSError as error:
        raise CannotServe(f"penstock: {error}") from None


def _load(option: str | None, overrides: Overrides) -> Settings:
    try:
        return load(locate(option), overrides)
    except ConfigError as error:
        raise CannotServe(str(error)) from None


def _listener(settings: Settings, given: Given | None) -> socket.socket:
    """The socket that was given, unless the configuration wants another one by now; else a new one."""
    listen = settings.config.server.listen
    if given is not None and given.listen in ("", str(listen)):
        return given.listener
    try:
        return bind(listen)
    except OSError as error:
        reason = error.strerror or error
        raise CannotServe(f"penstock: cannot listen on {listen}: {reason}; --listen takes another address") from None


def _prepare(settings: Settings) -> None:
    """Make the state folder ready; a store that fails is told and no reason not to serve."""
    place = settings.config.server.state_dir
    if not keeps_state(settings.config):
        with suppress(OSError):  # it is for the control socket alone, and that says what is wrong
            StateFolder(place).make()
        return
    try:
        trouble = prepare(settings, time.time_ns())
    except OSError as error:
        words = f"cannot use the state folder {place}: {error.strerror or error}; server.state_dir names another"
        raise CannotServe(f"penstock: {words}") from None
    except ConfigError as error:
        raise CannotServe(str(error)) from None
    if trouble:
        say(f"{trouble}; serving all the same, usage waits until it works")


def bind(address: Address) -> socket.socket:
    """The listening socket all workers accept from; a dying worker takes no waiting connection with it."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    # Whether `accept` blocks belongs to the socket, not to a descriptor of it: a worker that starts would make it block
    # for all others, since Python's duplicates take this over, and one of them would hang in it.
    listener.setblocking(False)
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
