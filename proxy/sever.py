"""End an answer so that the client sees it was cut: close its connection without the end of the framing.

ASGI has no word for this, and granian ends every body in good order whatever the application does. What is left is
the socket itself: it belongs to this process, so it can be found by its two addresses and shut down. Only cut
answers pay for the search. HTTP/2 shares one connection among requests that are not cut, so there a cut reply ends
cleanly and only its last event, and the missing end mark, tell.
"""

import asyncio
import fcntl
import os
import socket
import stat
import struct
import sys

from penstock.proxy.exchange import Exchange

# How often the kernel is asked whether the last event has been sent, and for how long a slow client is waited for.
FLUSH_POLL_S = 0.005
FLUSH_S = 2.0
_SIOCOUTQ = 0x5411  # linux/sockios.h: bytes written and not yet acknowledged by the peer


async def sever(exchange: Exchange) -> None:
    """Close the client's connection once what was written is on its way. Does nothing on HTTP/2."""
    exchange.finishing = True
    if exchange.scope["http_version"] == "2":
        await exchange.finish()
        return
    client = find_socket(exchange.scope["client"], exchange.scope["server"])
    if client is None:
        await exchange.finish()
        return
    with client:
        await _flushed(client)
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has left in the meantime


def find_socket(client: tuple[str, str], server: tuple[str, str]) -> socket.socket | None:
    """A duplicate of this process's socket between the two addresses."""
    for entry in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
        found = _duplicate(int(entry))
        if found is not None:
            if _is_between(found, client, server):
                return found
            found.close()
    return None


def _duplicate(fd: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        return socket.socket(fileno=os.dup(fd))
    except OSError:
        return None  # closed since it was listed


def _is_between(found: socket.socket, client: tuple[str, str], server: tuple[str, str]) -> bool:
    try:
        peer, own = found.getpeername(), found.getsockname()
    except OSError:
        return False
    return len(peer) >= 2 and _same(peer, client) and _same(own, server)


def _same(address: tuple[object, ...], expected: tuple[str, str]) -> bool:
    return str(address[0]).removeprefix("::ffff:") == expected[0].removeprefix("::ffff:") and str(address[1]) == str(
        expected[1]
    )


async def _flushed(client: socket.socket) -> None:
    """Wait until nothing was left to send at two looks in a row: the server's own buffer is then empty too."""
    quiet = 0
    loop = asyncio.get_running_loop()
    until = loop.time() + FLUSH_S
    while quiet < 2 and loop.time() < until:
        await asyncio.sleep(FLUSH_POLL_S)
        quiet = 0 if _unsent_bytes(client) else quiet + 1


def _unsent_bytes(client: socket.socket) -> int:
    if sys.platform != "linux":
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(client.fileno(), _SIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    return int(count)
