"""Close TLS connections that stay silent: those that never begin a request, and idle ones kept too long.

granian's timer for heads starts only when it knows the protocol's version, so a connection that sends nothing, a part
of a handshake or of an HTTP/2 preface would stay for ever (seen with 2.8.7). Looking at every socket costs about 10 us
each, so it is done in a thread, a few times within the limit. (The plain listener knows its connections itself.)
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

from penstock.proxy.exchange import Exchange
from penstock.proxy.http1_connection import KEEP_ALIVE_S
from penstock.proxy.sockets import Address, address, client_sockets, moved


async def close_silent(
    active: Callable[[], Iterable[Exchange]], served: set[Address], port: str, receive_s: Callable[[], float]
) -> None:
    """Look again and again; owned by the worker. served: addresses that have had a request answered.

    receive_s = 0: only idle connections are closed.
    """
    while True:
        limit = receive_s() or KEEP_ALIVE_S
        await asyncio.sleep(min(max(limit / 3, 0.1), 5.0))
        busy = {exchange.scope["client"] for exchange in active()}
        seen = await asyncio.to_thread(_look, port, busy, frozenset(served), limit)
        served &= seen


def _look(port: str, busy: set[Address], served: frozenset[Address], limit: float) -> set[Address]:
    """Shut down what is silent; the addresses of all connections."""
    seen: set[Address] = set()
    for connection in client_sockets(port):
        with connection:
            try:
                client = address(connection.getpeername())
                seen.add(client)
                still = moved(connection)
                if still is None or client in busy:
                    continue
                if min(still) > (KEEP_ALIVE_S if client in served else limit):
                    connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has closed meanwhile
    return seen
