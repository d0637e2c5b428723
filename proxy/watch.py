"""Looks after requests that last: most are over before it looks, and cost one list entry.

A request is seen between PERIOD_S and twice PERIOD_S after it began. From then on its client's leaving is noticed
at once; a client that leaves earlier is noticed at that look.
"""

import asyncio
from typing import Protocol

# An abort must reach the backend within 100 ms; a watch costs a task and one more call into the server (10 us).
PERIOD_S = 0.005


class Lasting(Protocol):
    """What is looked after."""

    over: bool

    def look_after(self) -> None: ...


class Watch:
    """One per worker. The timer runs only while there is something young."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._young: list[Lasting] = []
        self._older: list[Lasting] = []
        self._running = False

    def add(self, lasting: Lasting) -> None:
        self._young.append(lasting)
        if not self._running:
            self._running = True
            self._loop.call_later(PERIOD_S, self._look)

    def _look(self) -> None:
        ripe, self._older, self._young = self._older, self._young, []
        for lasting in ripe:
            if not lasting.over:
                lasting.look_after()
        self._running = bool(self._older)
        if self._running:
            self._loop.call_later(PERIOD_S, self._look)
