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

from penstock.core.errors import Fault, Level
from penstock.core.principal import Principal
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
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._handed = 0
        self._written = 0
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="penstock-log", daemon=True)
        self._thread.start()

    def event(self, level: Level, message: str, **fields: Any) -> None:
        """One line about something that is not a request."""
        if LEVELS[level] >= self._threshold:
            head = {"timestamp": self._clock.stamp(), "level": level, "message": message, "service": "penstock"}
            self._add(head | fields)

    def request(self, exchange: Exchange, ended: float) -> None:
        """The access line of a request; failures at their error's level, the rest at info."""
        level: Level = "info" if exchange.error is None else exchange.error.level
        if LEVELS[level] >= self._threshold:
            self._add(access_line(exchange, ended, level, self._clock.stamp()))

    def defect(self, exchange: Exchange, error: Exception) -> None:
        """A stack trace, for a request that met a defect of ours."""
        trace = "".join(traceback.format_exception(error))
        self.event("error", "a defect", requestId=exchange.request_id.decode("latin-1"), trace=trace)

    def flush(self) -> None:
        """Hand over what was collected; the lifespan calls this every FLUSH_S."""
        if self._handed - self._written > MAX_PENDING_BYTES:
            self._dropped += len(self._lines)
        elif self._lines:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self.event("warning", "log lines were dropped: the sink is too slow", dropped=dropped)
            self._handed += self._size
            self._queue.put(b"".join(self._lines))
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """Write what is left; waits a moment for a slow sink, not for ever."""
        self.flush()
        self._queue.put(None)
        self._thread.join(timeout=2.0)
        if self._sink is not sys.stderr.buffer and not self._thread.is_alive():
            self._sink.close()

    def _add(self, line: "dict[str, Any] | AccessLine") -> None:
        text = _encode(line) + b"\n"
        self._lines.append(text)
        self._size += len(text)

    def _write(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._sink.write(batch)
                self._sink.flush()
            except (OSError, ValueError):
                pass  # a closed pipe or a full disk: nowhere left to say so
            self._written += len(batch)


class AccessLine(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of a request's line, in their order; durations in ms. Absent facts are left out.

    A Struct, since a dict of the same costs twice the time.
    """

    timestamp: str
    level: Level
    message: str
    service: str
    requestId: str
    method: str
    url: str
    route: str
    status: int
    duration: float
    ip: str
    userAgent: str
    firstByte: float | None = None
    keyId: str | None = None
    userId: str | None = None
    tenantId: str | None = None
    model: str | None = None
    backend: str | None = None
    attempts: int | None = None
    promptTokens: int | None = None
    completionTokens: int | None = None
    costUsd: float | None = None
    fault: Fault | None = None
    error: str | None = None
    detail: str | None = None


def access_line(exchange: Exchange, ended: float, level: Level, timestamp: str) -> AccessLine:
    line = AccessLine(
        timestamp,
        level,
        "request",
        "penstock",
        exchange.request_id.decode("latin-1"),
        exchange.method,
        exchange.path.decode("latin-1"),
        exchange.endpoint.route if exchange.endpoint is not None else "none",
        exchange.status,
        round((ended - exchange.started) * 1000, 3),
        exchange.address or _peer(exchange),
        (exchange.head.user_agent or b"").decode("latin-1"),
    )
    if exchange.first_byte:
        line.firstByte = round((exchange.first_byte - exchange.started) * 1000, 3)
    if exchange.caller is not None:
        _whose(line, exchange.caller.principal)
    line.model = exchange.model
    if exchange.backend:
        line.backend = exchange.backend
        line.attempts = exchange.attempts
    if exchange.usage is not None:
        line.promptTokens = exchange.usage.prompt_tokens
        line.completionTokens = exchange.usage.completion_tokens
    if exchange.cost_nano:
        line.costUsd = exchange.cost_nano / 1e9
    if exchange.error is not None or exchange.client_left:
        _why(line, exchange)
    return line


def _peer(exchange: Exchange) -> str:
    """Of a request that was refused before anybody looked through its proxies."""
    peer = exchange.scope.get("client")
    return peer[0] if peer else ""


def _whose(line: AccessLine, principal: Principal) -> None:
    line.keyId = principal.key_id or None
    line.userId = principal.user_id or None
    line.tenantId = principal.tenant_id or None


def _why(line: AccessLine, exchange: Exchange) -> None:
    line.fault = exchange.fault
    line.error = exchange.error.code if exchange.error is not None else "client_left"
    if exchange.error is not None:
        line.detail = exchange.error.message
