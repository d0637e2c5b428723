"""Wall time as text, made quickly: the part down to the second is kept from one call to the next."""

from collections.abc import Callable
from datetime import UTC, datetime


class WallClock:
    """read: nanoseconds since the epoch (`time.time_ns`)."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.read = read
        self._second = -1
        self._text = ""

    def now(self) -> datetime:
        """Now, in UTC."""
        return datetime.fromtimestamp(self.read() / 1e9, UTC)

    def stamp(self) -> str:
        """Now in UTC, ISO 8601 with milliseconds. `datetime.isoformat` takes four times as long (1.4 µs)."""
        second, ns = divmod(self.read(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._text}{ns // 1_000_000:03d}Z"
