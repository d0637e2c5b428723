"""This process's client sockets, found by looking at its file descriptors.

granian owns them and gives no handle, but two things need one: ending a cut answer uncleanly (`sever.py`) and closing
connections that stay silent (`silence.py`).
"""

import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

Address = tuple[str, str]
"""(IP, port), as ASGI's scope has it under granian."""

TCP_ESTABLISHED = 1  # include/net/tcp_states.h


class Moved(NamedTuple):
    """How long ago bytes moved on a connection, in s (Linux's tcp_info: ms since last sent and received)."""

    sent_s: float
    received_s: float


def client_sockets(port: str) -> Iterator[socket.socket]:
    """Duplicates of the connections on a listening port; each is to be closed by whoever takes it."""
    for entry in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        found = _duplicate(int(entry))
        if found is None:
            continue
        try:
            ours = found.getsockname()[1:2] == (int(port),) and bool(found.getpeername())
        except OSError:
            ours = False  # a listening socket, or one that has just closed
        if ours:
            yield found
        else:
            found.close()


def address(peer: tuple[object, ...]) -> Address:
    """A socket's address as ASGI has it; IPv4 in IPv6 as IPv4."""
    return str(peer[0]).removeprefix("::ffff:"), str(peer[1])


def find_client(scope: dict[str, Any]) -> socket.socket | None:
    """A duplicate of the socket a request came on."""
    found: socket.socket | None = None
    for connection in client_sockets(scope["server"][1]):
        if found is None and _peer(connection) == address(scope["client"]):
            found = connection
        else:
            connection.close()
    return found


def is_open(connection: socket.socket) -> bool:
    """Whether the other side has not closed, even if bytes it sent before are still unread (Linux)."""
    if sys.platform != "linux":
        return True
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED


def moved(connection: socket.socket) -> Moved | None:
    """When bytes last moved; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    # struct tcp_info (linux/tcp.h): eight bytes of flags, then u32 fields; the tenth and twelfth are these two.
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    sent_ms, _, received_ms = struct.unpack_from("3I", info, 8 + 9 * 4)
    return Moved(sent_ms / 1000, received_ms / 1000)


def _peer(connection: socket.socket) -> Address | None:
    try:
        return address(connection.getpeername())
    except OSError:
        return None  # it has just closed


def _duplicate(fd: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        return socket.socket(fileno=os.dup(fd))
    except OSError:
        return None  # closed since it was listed
