"""Listening sockets that somebody else opened: systemd (sd_listen_fds(3)), or the penstock that this one replaces.

Both tell of them in the environment, from which the words are taken, so that no child of ours takes them for its own.
"""

import socket
from collections.abc import MutableMapping
from typing import NamedTuple

from penstock.core.address import Address

FIRST_FD = 3
HANDOVER = "PENSTOCK_HANDOVER"


class Given(NamedTuple):
    """listen: what server.listen was for it, "" where the socket alone says where it is. link_fd: who gave it, -1 =
    not a penstock."""

    listener: socket.socket
    listen: str
    link_fd: int = -1

    def address(self) -> Address:
        """Where it listens."""
        host, port = self.listener.getsockname()[:2]
        return Address(host, port)


def given_socket(environ: MutableMapping[str, str], pid: int) -> Given | None:
    """The listening socket that came with this process, if one did. pid: ours. Raises OSError with words for people."""
    handover = environ.pop(HANDOVER, "")
    if handover:
        try:
            listener_fd, link_fd, listen = handover.split(" ", 2)
            return Given(_listener(int(listener_fd)), listen, int(link_fd))
        except ValueError:
            raise OSError(f"the variable {HANDOVER} is not from a penstock that is replaced; unset it") from None
    told = [environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    if told[0] != str(pid) or not told[1].isdecimal() or told[1] == "0":
        return None
    if told[1] != "1":
        raise OSError(f"{told[1]} sockets were given (LISTEN_FDS); one is served")
    return Given(_listener(FIRST_FD), "")


def handover_variable(listener_fd: int, link_fd: int, listen: str) -> str:
    """What tells the next penstock of a socket."""
    return f"{listener_fd} {link_fd} {listen}"


def _listener(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise OSError(f"the socket that was given as descriptor {fd} is none: {error.strerror}") from None
    if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise OSError(f"the socket that was given as descriptor {fd} is not a listening TCP socket")
    sock.set_inheritable(False)
    sock.setblocking(False)  # as in `serve.bind`
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
