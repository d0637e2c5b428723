"""Which breakers a good health check may open the way for: those of backends whose connections broke, not of slow or
failing ones, where a health check says nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from scripted import NO_LIMITS, Client, Peer, Side, backend, exchange, play, pool, starts, target

from penstock.core.config import Breaker, Retry
from penstock.core.errors import BackendError
from penstock.ext import peek
from penstock.proxy.exchange import Exchange

CUT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
ENDS: dict[str, tuple[Callable[[Peer], object], bool]] = {
    "closes": (Peer.end, True),
    "resets": (Peer.reset, True),
    "closes in mid answer": (lambda peer: (peer.send(CUT), peer.end()), True),
    "fails": (lambda peer: peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), False),
    "says nothing": (lambda peer: None, False),
}


def asks() -> Exchange:
    body = b'{"model":"m"}'
    lines = (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))
    made = exchange(Client(), "POST", "/v1/chat/completions", *lines)
    made.body, made.peek = body, peek(body)
    made.body_read()
    return made


@pytest.mark.parametrize("end", ENDS)
def test_a_breaker_that_opened(end: str) -> None:
    async def scene() -> None:
        async with backend() as server, pool(server.port) as made:
            side = Side({"b": made}, breaker=Breaker(failures=1), retry=Retry(attempts=1))
            where = target(server.port, timeouts=msgspec.structs.replace(NO_LIMITS, first_byte_s=5.0))
            plan = side.plan((where,))
            request = asks()
            request.endpoint = plan.endpoint
            running = starts(side.attempts.run(plan, request))
            peer = await server.accept()
            await peer.request()
            happens, may_probe = ENDS[end]
            happens(peer)
            if end == "says nothing":
                made.sweep(request.now() + 6.0)
            try:
                reply = await running
                assert reply.head.status == 500
            except BackendError:
                assert end != "fails"
            side.attempts.settle(request)
            (cell,) = side.cells.targets.values()
            assert cell.retry_in_ns(side.attempts.now_ns()) > 0
            assert cell.probe_early() == may_probe
            request.close()

    play(scene())
