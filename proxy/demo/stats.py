"""What the demo backend saw: connections, requests, and which of them were given up by their client."""

from __future__ import annotations

import time
from collections import deque

import msgspec

_LAST_ABORTED = 1000


class Aborted(msgspec.Struct, frozen=True):
    """A request whose client closed the connection before the answer was complete."""

    path: str
    phase: str
    """receiving, waiting, head, body, streaming"""
    monotonic_ns: int
    """Comparable across the processes of a host."""


class Stats:
    """A connection that begins with a request for /demo/… is an observer and is not counted."""

    def __init__(self) -> None:
        self.connections_open = 0
        self.requests_active = 0
        self.reset()

    def reset(self) -> None:
        """Zeroes all but what is open right now."""
        self.connections_total = self.connections_open
        self.requests_total = self.requests_active
        self.bytes_sent = 0
        self.aborted: deque[Aborted] = deque(maxlen=_LAST_ABORTED)

    def connection_opened(self) -> None:
        self.connections_open += 1
        self.connections_total += 1

    def connection_is_observer(self) -> None:
        self.connections_open -= 1
        self.connections_total = max(0, self.connections_total - 1)

    def request_began(self) -> None:
        self.requests_active += 1
        self.requests_total += 1

    def request_aborted(self, path: str, phase: str) -> None:
        self.aborted.append(Aborted(path, phase, time.monotonic_ns()))

    def report(self) -> dict[str, object]:
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "requests_total": self.requests_total,
            "requests_active": self.requests_active,
            "aborted": list(self.aborted),
            "bytes_sent": self.bytes_sent,
        }
