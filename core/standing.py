"""What a caller has used and has left, as GET /usage tells it: the limits of an allowance beside their counters."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from penstock.core.limits import Limit
from penstock.core.measures import (
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    NANO,
    UNLIMITED,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_MONTH,
)

# Of several limits of one measure, the one over the longest of the usual windows says most.
_REQUESTS = (WINDOW_HOUR, WINDOW_DAY, WINDOW_MONTH)
_TOKENS = (WINDOW_DAY, WINDOW_MONTH, WINDOW_HOUR)
_MONEY = (WINDOW_MONTH, WINDOW_DAY, WINDOW_HOUR)


class Standing(msgspec.Struct, frozen=True):
    """One limit or meter and how much of it is used.

    used: in the limit's unit; of a bucket what has not flowed back yet, of money and tokens with what is held.
    reset_at: when nothing of it will be used any more, if nothing is added. Of what is in flight: None.
    """

    limit: Limit
    used: int
    reset_at: datetime | None

    @property
    def remaining(self) -> int | None:
        """None = without limit."""
        return None if self.limit.amount == UNLIMITED else max(0, self.limit.amount - self.used)


def standings(
    limits: Iterable[Limit], counters: Iterable[tuple[bytes, int, int, int, int, int]], wall_ns: int
) -> list[Standing]:
    """limits: of an Allowance. counters: what `ext.Account.standing` said of them at wall_ns, in the same order."""
    found = []
    for limit, (_, _, _, _, used, resets_in_ns) in zip(limits, counters, strict=True):
        at = datetime.fromtimestamp((wall_ns + resets_in_ns + NANO // 2) // NANO, UTC) if limit.measured.per else None
        found.append(Standing(limit, used, at))
    return found


def usage(found: Sequence[Standing]) -> dict[str, Any]:
    """The answer of GET /usage; null where nothing is limited."""
    requests = _of(found, MEASURE_REQUESTS, _REQUESTS)
    tokens = _of(found, MEASURE_TOKENS, _TOKENS)
    money = _of(found, MEASURE_NANO_USD, _MONEY)
    return {
        "requests_used": requests.used if requests else None,
        "requests_limit": _amount(requests),
        "requests_remaining": requests.remaining if requests else None,
        "window_reset": _iso(requests),
        "tokens": {
            "used": tokens.used if tokens else None,
            "limit": _amount(tokens),
            "remaining": tokens.remaining if tokens else None,
            "window_reset": _iso(tokens),
        },
        "cost_usd": _usd(money.used) if money else None,
        "budget_usd": _usd(_amount(money)),
        "budget_remaining_usd": _usd(money.remaining) if money else None,
        "budget_reset": _iso(money),
        "limits": [told(each) for each in found if each.limit.amount != UNLIMITED],
    }


def _of(found: Sequence[Standing], measure: int, windows: Sequence[int]) -> Standing | None:
    """What stands for a measure: a limit before a meter, then the more usual window, then the least that remains."""
    fitting = [
        each for each in found if each.limit.measured.measure == measure and each.limit.measured.window in windows
    ]
    return min(fitting, key=lambda each: _rank(each, windows), default=None)


def _rank(each: Standing, windows: Sequence[int]) -> tuple[bool, int, int]:
    remaining = each.remaining
    return remaining is None, windows.index(each.limit.measured.window), remaining or 0


def told(each: Standing) -> dict[str, Any]:
    """One limit or meter, as answers have it."""
    limit = each.limit
    shown = _usd if limit.measured.measure == MEASURE_NANO_USD else _count
    return {
        "name": limit.measured.name,
        "scope": limit.scope,
        "limit": shown(limit.amount),
        "used": shown(each.used),
        "remaining": shown(each.remaining),
        "window_reset": _iso(each),
    }


def _amount(each: Standing | None) -> int | None:
    return None if each is None or each.limit.amount == UNLIMITED else each.limit.amount


def _count(amount: int | None) -> int | None:
    return amount


def _usd(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else nano_usd / NANO


def _iso(each: Standing | None) -> str | None:
    if each is None or each.reset_at is None:
        return None
    return each.reset_at.isoformat(timespec="seconds").replace("+00:00", "Z")
