"""The slow, obvious twin of ext's limits: what an account admits, told with datetimes, fractions and no bits."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from penstock.ext import (
    MEASURE_IN_FLIGHT,
    MEASURE_LLM_REQUESTS,
    MEASURE_NANO_USD,
    MEASURE_TOKENS,
    UNLIMITED,
    WINDOW_BUCKET,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_NONE,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window_start(window: int, wall_ns: int) -> datetime:
    """When the calendar window of an instant began."""
    now = EPOCH + timedelta(microseconds=wall_ns // 1000)
    now = now.replace(minute=0, second=0, microsecond=0)
    if window == WINDOW_HOUR:
        return now
    now = now.replace(hour=0)
    return now if window == WINDOW_DAY else now.replace(day=1)


def window_end_ns(window: int, start: datetime) -> int:
    """When it ends, ns since 1970."""
    if window == WINDOW_HOUR:
        end = start + timedelta(hours=1)
    elif window == WINDOW_DAY:
        end = start + timedelta(days=1)
    else:
        end = (start + timedelta(days=31)).replace(day=1)
    return (end - EPOCH) // timedelta(microseconds=1) * 1000


@dataclass
class Hold:
    amount: int
    window: datetime | None = None
    drained_at: Fraction = Fraction(0)


@dataclass
class Limit:
    """One limit. level: units in a bucket, which drains; used: of the calendar window that began at `start`, or in
    flight."""

    measure: int
    window: int
    period_ns: int
    amount: int
    level: Fraction = Fraction(0)
    at_ns: int = 0
    used: int = 0
    start: datetime | None = None

    @property
    def unit_ns(self) -> int:
        """The time in which a bucket loses a unit, rounded up."""
        return -(-self.period_ns // max(self.amount, 1)) or 1

    def drain(self, now_ns: int) -> None:
        self.level = max(Fraction(0), self.level - Fraction(now_ns - self.at_ns, self.unit_ns))
        self.at_ns = now_ns

    def current(self, wall_ns: int) -> tuple[datetime, int]:
        """The window that counts, which is never older than the one it counted in last, and what it has counted."""
        start = window_start(self.window, wall_ns)
        if self.start is None or start > self.start:
            return start, 0
        return self.start, self.used

    def wait_ns(self, n: int, now_ns: int, wall_ns: int) -> int | None:
        """0 if n can be taken, None if never, else how long to wait."""
        if self.amount == UNLIMITED or n == 0:
            return 0
        if n > self.amount:
            return None
        if self.window == WINDOW_BUCKET:
            self.drain(now_ns)
            return int(max(Fraction(0), self.level + n - self.amount) * self.unit_ns)
        if self.window == WINDOW_NONE:
            return 0 if self.used + n <= self.amount else 10**9
        start, used = self.current(wall_ns)
        return 0 if used + n <= self.amount else window_end_ns(self.window, start) - wall_ns

    def take(self, n: int, wall_ns: int) -> Hold:
        if self.window == WINDOW_BUCKET:
            self.level += n
            return Hold(n, drained_at=self.at_ns + self.level * self.unit_ns)
        if self.window != WINDOW_NONE and n:
            self.start, self.used = self.current(wall_ns)
        self.used += n
        return Hold(n, self.start)

    def settle(self, hold: Hold, actual: int, now_ns: int) -> None:
        if self.window == WINDOW_BUCKET:
            self.drain(now_ns)
            left = max(Fraction(0), (hold.drained_at - now_ns) / self.unit_ns)
            back = min(Fraction(max(0, hold.amount - actual)), left)
            self.level = max(Fraction(0), self.level - back) + max(0, actual - hold.amount)
        elif self.window == WINDOW_NONE or self.start == hold.window:
            self.used += actual - hold.amount

    def standing(self, now_ns: int, wall_ns: int) -> tuple[int, int]:
        """(used, ns until it resets)."""
        if self.window == WINDOW_BUCKET:
            self.drain(now_ns)
            return -(-self.level.numerator // self.level.denominator), int(self.level * self.unit_ns)
        if self.window == WINDOW_NONE:
            return self.used, 0
        start, used = self.current(wall_ns)
        return used, window_end_ns(self.window, start) - wall_ns


@dataclass
class Account:
    limits: list[Limit]

    def admit(self, tokens: int, nano_usd: int, now_ns: int, wall_ns: int) -> "Entry | tuple[int, int, bool]":
        """An entry, or (index, wait_ns, never)."""
        needs = [needed(limit.measure, tokens, nano_usd) for limit in self.limits]
        waits = [limit.wait_ns(n, now_ns, wall_ns) for limit, n in zip(self.limits, needs, strict=True)]
        if None in waits:
            return waits.index(None), 0, True
        longest = max((wait for wait in waits if wait is not None), default=0)
        if longest:
            return waits.index(longest), longest, False
        holds = [limit.take(n, wall_ns) for limit, n in zip(self.limits, needs, strict=True)]
        return Entry(self.limits, holds)


@dataclass
class Entry:
    limits: list[Limit]
    holds: list[Hold] = field(default_factory=list)

    def close(self, tokens: int, nano_usd: int, backend: bool, now_ns: int) -> None:
        for limit, hold in zip(self.limits, self.holds, strict=True):
            actual = {
                MEASURE_LLM_REQUESTS: hold.amount if backend else 0,
                MEASURE_TOKENS: tokens,
                MEASURE_NANO_USD: nano_usd,
                MEASURE_IN_FLIGHT: 0,
            }.get(limit.measure, hold.amount)
            if hold.amount:
                limit.settle(hold, actual, now_ns)


def needed(measure: int, tokens: int, nano_usd: int) -> int:
    return {MEASURE_TOKENS: tokens, MEASURE_NANO_USD: nano_usd}.get(measure, 1)


UNITS = {
    MEASURE_TOKENS: ';qu="tokens"',
    MEASURE_NANO_USD: ';qu="nano-usd"',
    MEASURE_IN_FLIGHT: ';qu="concurrent-requests"',
}


def headers(limits: list[Limit], told: int | None, now_ns: int, wall_ns: int) -> dict[str, str]:
    """What an answer says of limits that are all named "limit"; of the tightest, or of the one told of."""
    shown = {index: limit for index, limit in enumerate(limits) if limit.amount != UNLIMITED}
    if not shown:
        return {}
    left = {index: max(0, limit.amount - limit.standing(now_ns, wall_ns)[0]) for index, limit in shown.items()}
    tightness = {
        index: (limit.window == WINDOW_NONE, Fraction(left[index], max(limit.amount, 1)))
        for index, limit in shown.items()
    }
    one = told if told in shown else min(shown, key=lambda index: tightness[index])
    _, resets_in = shown[one].standing(now_ns, wall_ns)
    return {
        "x-ratelimit-limit": str(shown[one].amount),
        "x-ratelimit-remaining": str(left[one]),
        "x-ratelimit-reset": str(-(-(wall_ns + resets_in) // 10**9)),
        "ratelimit-policy": ", ".join(policy(limit, wall_ns) for limit in shown.values()),
        "ratelimit": f'"limit";r={left[one]};t={-(-resets_in // 10**9)}',
    }


def policy(limit: Limit, wall_ns: int) -> str:
    told = f'"limit";q={limit.amount}{UNITS.get(limit.measure, "")}'
    if limit.window == WINDOW_NONE:
        return told
    if limit.window == WINDOW_BUCKET:
        return f"{told};w={max(1, (limit.unit_ns * limit.amount + 5 * 10**8) // 10**9)}"
    start = window_start(limit.window, wall_ns)
    length_ns = window_end_ns(limit.window, start) - (start - EPOCH) // timedelta(microseconds=1) * 1000
    return f"{told};w={length_ns // 10**9}"
