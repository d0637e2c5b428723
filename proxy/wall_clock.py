"""Wall time as text, made quickly: what did not change since the last call is kept."""

from collections.abc import Callable
from datetime import UTC, datetime

MILLISECOND = 1_000_000


class WallClock:
    """read: nanoseconds since the epoch (`time.time_ns`)."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.read = read
        self._millisecond = -1
        self._stamp = ""
        self._second = -1
        self._to_the_second = ""

    def now(self) -> datetime:
        """Now, in UTC."""
        return datetime.fromtimestamp(self.read() / 1e9, UTC)

    def stamp(self) -> str:
        """Now in UTC, ISO 8601 with milliseconds. Under load most calls fall into the millisecond of the one before."""
        millisecond = self.read() // MILLISECOND
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._stamp = self._made(*divmod(millisecond, 1000))
        return self._stamp

    def _made(self, second: int, millisecond: int) -> str:
        if second != self._second:
            self._second = second
            self._to_the_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._to_the_second}{millisecond:03d}Z"
