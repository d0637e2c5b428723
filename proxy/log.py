"""JSON lines for people and machines: one per request, one per event. Writing never blocks a request.

No prompt, answer, key, header or query goes in. Lines are collected and handed to a thread in batches; if the sink
stalls, lines are dropped and the next batch says how many.
"""

import sys
import threading
import traceback
from queue import SimpleQueue
from typing import Any, BinaryIO

import msgspec

from penstock.core.errors import Level
from penstock.core.principal import ANONYMOUS
from penstock.ext import LogLines
from penstock.ext import access_line as encode_access_line
from penstock.proxy.exchange import Exchange
from penstock.proxy.wall_clock import WallClock

LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FLUSH_S = 0.1
# About 20,000 lines; a sink that is further behind than this has stalled.
MAX_PENDING_BYTES = 8_388_608

_encode = msgspec.json.Encoder().encode


class Log:
    """level: the least that is written. path: "" = standard error."""

    def __init__(self, level: Level, path: str, clock: WallClock) -> None:
        self._threshold = LEVELS[level]
        self._clock = clock
        self._sink: BinaryIO = open(path, "ab", buffering=0) if path else sys.stderr.buffer  # noqa: SIM115, PTH123
        self.lines = LogLines()
        self._dropped = 0
        self._handed = 0
        self._written = 0
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="penstock-log", daemon=True)
        self._thread.start()

    def writes(self, level: Level) -> bool:
        return LEVELS[level] >= self._threshold

    def event(self, level: Level, message: str, **fields: Any) -> None:
        """One line about something that is not a request."""
        if self.writes(level):
            head = {"timestamp": self._clock.stamp(), "level": level, "message": message, "service": "penstock"}
            self.lines.push(_encode(head | fields) + b"\n")

    def request(self, exchange: Exchange, ended: float) -> None:
        """The access line of a request; failures at their error's level, the rest at info."""
        level: Level = "info" if exchange.error is None else exchange.error.level
        if self.writes(level):
            self.lines.push(access_line(exchange, ended, level, self._clock.stamp()))

    def defect(self, exchange: Exchange, error: Exception) -> None:
        """A stack trace, for a request that met a defect of ours."""
        trace = "".join(traceback.format_exception(error))
        self.event("error", "a defect", requestId=exchange.request_id.decode("latin-1"), trace=trace)

    def flush(self) -> None:
        """Hand over what was collected; the lifespan calls this every FLUSH_S."""
        stalled = self._handed - self._written > MAX_PENDING_BYTES
        if self._dropped and not stalled:
            dropped, self._dropped = self._dropped, 0
            self.event("warning", "log lines were dropped: the sink is too slow", dropped=dropped)
        batch, count = self.lines.take()
        if stalled:
            self._dropped += count
        elif batch:
            self._handed += len(batch)
            self._queue.put(batch)

    def close(self) -> None:
        """Write what is left; waits a moment for a slow sink, not for ever."""
        self.flush()
        self._queue.put(None)
        self._thread.join(timeout=2.0)
        if self._sink is not sys.stderr.buffer and not self._thread.is_alive():
            self._sink.close()

    def _write(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._sink.write(batch)
                self._sink.flush()
            except (OSError, ValueError):
                pass  # a closed pipe or a full disk: nowhere left to say so
            self._written += len(batch)


def access_line(exchange: Exchange, ended: float, level: Level, timestamp: str) -> bytes:
    """The line of a request; durations in ms, absent facts left out. Compiled: a fifth of msgspec's time."""
    usage, error, caller = exchange.usage, exchange.error, exchange.caller
    principal = ANONYMOUS if caller is None else caller.principal
    fault = exchange.fault if error is not None or exchange.client_left else None
    return encode_access_line(
        timestamp,
        level,
        exchange.request_id,
        exchange.method,
        exchange.path,
        "none" if exchange.endpoint is None else exchange.endpoint.route,
        exchange.status,
        exchange.started,
        ended,
        exchange.first_byte,
        exchange.address,
        exchange.head.user_agent,
        principal.key_id,
        principal.user_id,
        principal.tenant_id,
        exchange.model,
        exchange.backend,
        exchange.attempts,
        None if usage is None else usage.prompt_tokens,
        None if usage is None else usage.completion_tokens,
        exchange.cost_nano,
        fault,
        None if fault is None else "client_left" if error is None else error.code,
        None if error is None else error.message,
    )
