"""Limits beside their counters: which of several is told as the caller's own, and what is left of it."""

import pytest

from penstock.core.limits import Limit
from penstock.core.measures import MEASURED, NANO, UNLIMITED
from penstock.core.standing import standings, usage

WALL_NS = 1_800_000_000 * NANO


def told(*limits: tuple[str, str, int, int]) -> dict:  # type: ignore[type-arg]
    """limits: (scope, name, amount, used)."""
    known = [Limit(MEASURED[name], scope, "x", amount) for scope, name, amount, _ in limits]  # type: ignore[arg-type]
    counters = [(b"", 0, 0, amount, used, 60 * NANO) for *_, amount, used in limits]
    return usage(standings(known, counters, WALL_NS))


@pytest.mark.parametrize(
    ("limits", "used", "limit", "remaining"),
    [
        ([], None, None, None),
        ([("key", "requests_per_hour", UNLIMITED, 5)], 5, None, None),
        ([("key", "requests_per_hour", 10, 5)], 5, 10, 5),
        ([("key", "requests_per_hour", 10, 12)], 12, 10, 0),
        ([("key", "requests_per_hour", UNLIMITED, 5), ("key", "requests_per_day", 100, 7)], 7, 100, 93),
        ([("key", "requests_per_day", 100, 99), ("key", "requests_per_hour", 10, 5)], 5, 10, 5),
        ([("key", "requests_per_hour", 10, 5), ("tenant", "requests_per_hour", 100, 97)], 97, 100, 3),
        ([("key", "requests_per_s", 10, 5), ("key", "llm_requests_per_hour", 10, 5)], None, None, None),
    ],
)
def test_of_several_the_one_that_says_most(limits, used, limit, remaining) -> None:  # type: ignore[no-untyped-def]
    answer = told(*limits)
    assert (answer["requests_used"], answer["requests_limit"], answer["requests_remaining"]) == (used, limit, remaining)


def test_money_is_told_in_usd() -> None:
    answer = told(("key", "usd_per_day", UNLIMITED, 1), ("tenant", "usd_per_month", 2_500_000_000, 1_000_000_001))
    assert (answer["cost_usd"], answer["budget_usd"]) == (1.000000001, 2.5)
    assert answer["limits"][0]["remaining"] == 1.499999999


def test_times_are_whole_seconds() -> None:
    known = [Limit(MEASURED["requests_per_hour"], "key", "x", 1)]
    for late in (1, NANO // 2 - 1):
        found = standings(known, [(b"", 0, 0, 1, 0, 3600 * NANO - late)], WALL_NS + late)
        assert usage(found)["window_reset"] == "2027-01-15T09:00:00Z"


def test_limits_and_counters_belong_together() -> None:
    with pytest.raises(ValueError, match="zip"):
        standings([Limit(MEASURED["requests_per_hour"], "key", "x", 1)], [], WALL_NS)
