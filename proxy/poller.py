"""The parent's one loop: sockets by poll(2), signals by a wakeup descriptor, timers. One thread and nothing hidden.

poll and not epoll: an epoll descriptor is one kernel object shared with every fork, and a child that tidies up would
take the parent's registrations away.
"""

import heapq
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Source(Protocol):
    """What the poller looks after."""

    def fileno(self) -> int: ...
    @property
    def wants_write(self) -> bool: ...
    def readable(self) -> object: ...
    def writable(self) -> object: ...
    def close(self) -> None: ...


class Timer:
    """What will happen, unless it is cancelled."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self._act = None

    def fire(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


class Poller:
    """monotonic: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._selector = selectors.PollSelector()
        self._monotonic = monotonic
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()
        self._sources: dict[Source, int] = {}

    def add(self, source: Source) -> None:
        events = _events(source)
        self._selector.register(source, events, source)
        self._sources[source] = events

    def remove(self, source: Source) -> None:
        """Look after it no more, and close it. Doing so twice does nothing."""
        if self._sources.pop(source, None) is not None:
            self._selector.unregister(source)
            source.close()

    def later(self, after_s: float, act: Callable[[], None]) -> Timer:
        timer = Timer(act)
        heapq.heappush(self._timers, (self._monotonic() + after_s, next(self._numbers), timer))
        return timer

    def turn(self) -> None:
        """Wait for the next thing to happen, and have it done."""
        for source, events in self._sources.items():
            if (wanted := _events(source)) != events:
                self._selector.modify(source, wanted, source)
                self._sources[source] = wanted
        for key, events in self._selector.select(self._patience_s()):
            if key.data in self._sources and events & READ:
                key.data.readable()
            if key.data in self._sources and events & WRITE:
                key.data.writable()
        while self._timers and self._timers[0][0] <= self._monotonic():
            heapq.heappop(self._timers)[2].fire()

    def close(self) -> None:
        """Close everything, as a forked child does with what it got from its parent."""
        for source in tuple(self._sources):
            source.close()
        self._sources.clear()
        self._selector.close()

    def _patience_s(self) -> float | None:
        return max(self._timers[0][0] - self._monotonic(), 0.0) if self._timers else None


def _events(source: Source) -> int:
    return READ | WRITE if source.wants_write else READ


class Signals:
    """Signals as something that can be polled for. on_signal: called in the loop's turn, never in between."""

    wants_write = False

    def __init__(self, numbers: Iterable[signal.Signals], on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._numbers = tuple(numbers)
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, _nothing)

    def fileno(self) -> int:
        return self._reader.fileno()

    def readable(self) -> None:
        try:
            numbers = self._reader.recv(4096)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):
            self._on_signal(number)

    def writable(self) -> None:
        pass

    def close(self) -> None:
        """Signals do again what they do by default."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _nothing(number: int, frame: object) -> None:
    """The wakeup descriptor tells of it; a handler has to be there for that."""
