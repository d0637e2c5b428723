"""End an answer so that the client sees it was cut: close its connection without the end of the framing.

ASGI has no word for this. Our own listener hands its connection over in the scope. granian (TLS) ends every body in
good order whatever the application does; what is left there is the socket itself: it belongs to this process, so it
can be found by its address and shut down. Only cut answers pay for the search. HTTP/2 shares one connection among
requests that are not cut, so there a cut reply ends cleanly and only its last event, and the missing end mark, tell.
"""

import asyncio
import fcntl
import socket
import struct
import sys

from penstock.proxy.exchange import Exchange
from penstock.proxy.sockets import find_client

# How often the kernel is asked whether the last event has been sent, and for how long a slow client is waited for.
FLUSH_POLL_S = 0.005
FLUSH_S = 2.0
_SIOCOUTQ = 0x5411  # linux/sockios.h: bytes written and not yet acknowledged by the peer


async def sever(exchange: Exchange) -> None:
    """Close the client's connection once what was written is on its way. On HTTP/2, end the answer."""
    exchange.over = True
    if (connection := exchange.scope.get("penstock.connection")) is not None:
        connection.close()
        return
    client = None if exchange.scope["http_version"] == "2" else find_client(exchange.scope)
    if client is None:
        await exchange.finish()
        return
    with client:
        await _flushed(client)
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has left in the meantime


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
