"""Calendar windows and instants in UTC, as the tables write them."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from penstock.proxy.store import Starts

Window = Literal["hour", "day", "month"]


def text(instant: float) -> str:
    """Epoch s as "2026-11-21 08:05:00.250"; in the order of text they are in the order of time."""
    return datetime.fromtimestamp(round(instant, 3), UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def instant(written: str) -> float:
    """The epoch s of `text`. Raises ValueError."""
    return datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp()


def start(window: Window, at: float) -> float:
    """When the window that holds `at` began, epoch s."""
    return _beginning(window, datetime.fromtimestamp(at, UTC)).timestamp()


def end(window: Window, at: float) -> float:
    """When the window that holds `at` ends, epoch s."""
    began = _beginning(window, datetime.fromtimestamp(at, UTC))
    match window:
        case "hour":
            return (began + timedelta(hours=1)).timestamp()
        case "day":
            return (began + timedelta(days=1)).timestamp()
        case "month":
            return _beginning("month", began + timedelta(days=31)).timestamp()


def starts(at: float) -> Starts:
    """When the hour, day and month that hold `at` began."""
    return Starts(start("hour", at), start("day", at), start("month", at))


def month_name(at: float) -> str:
    """ "2026-11"."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def month_bounds(name: str) -> tuple[float, float]:
    """[start, end) of "2026-11", epoch s."""
    began = instant(f"{name}-01")
    return began, end("month", began)


def _beginning(window: Window, at: datetime) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    match window:
        case "hour":
            return hour
        case "day":
            return hour.replace(hour=0)
        case "month":
            return hour.replace(hour=0, day=1)
