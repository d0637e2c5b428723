"""GET /usage: the caller's own figures, as the counters in shared memory have them."""

from pathlib import Path
from typing import Any

import pytest
from keyed import Keyed, bearer, wish
from scripted import play

from penstock.core.errors import MissingKey
from penstock.ext import FLAG_BACKEND, OUTCOME_ANSWERED, Spool, Usage

CONFIG = """
[tiers.free]
requests_per_hour = 100
tokens_per_minute = 1_000
usd_per_month = 1.0
in_flight = 2
[[limits.override]]
tenant_id = "home"
requests_per_day = 500
"""


async def used(keyed: Keyed, folder: Path) -> dict[str, Any]:
    """One request of 12 tokens for 0.25 USD, then GET /usage."""
    key, _ = keyed.register.create(wish())
    await keyed.ring.refresh()
    caller = await keyed.caller(bearer(key))
    now = keyed.clock.wall_ns()
    (folder / "spool").mkdir()
    spool = Spool(str(folder / "spool"), keyed.state, 256)
    entry: Any = spool.admit(caller.account, b"/v1/x", b"m", b"r", 100, 500_000_000, now, now)
    entry.close(OUTCOME_ANSWERED, 200, b"b", Usage(10, 2), 250_000_000, FLAG_BACKEND, 1.0, 1.0, b"")
    status, answer = await keyed.call("usage", None, bearer(key), admin=None)
    assert status == 200
    return answer


def test_what_is_used_and_left(tmp_path: Path) -> None:
    answer = play(used(Keyed(tmp_path, config=CONFIG), tmp_path))
    limits = {(each["scope"], each["name"]): each for each in answer.pop("limits")}
    assert answer == {
        "requests_used": 1,
        "requests_limit": 100,
        "requests_remaining": 99,
        "window_reset": "2027-01-15T09:00:00Z",
        "tokens": {"used": 12, "limit": None, "remaining": None, "window_reset": "2027-01-16T00:00:00Z"},
        "cost_usd": 0.25,
        "budget_usd": 1.0,
        "budget_remaining_usd": 0.75,
        "budget_reset": "2027-02-01T00:00:00Z",
    }
    assert set(limits) == {
        ("key", "requests_per_hour"),
        ("key", "tokens_per_minute"),
        ("key", "usd_per_month"),
        ("key", "in_flight"),
        ("tenant", "requests_per_day"),
    }
    assert limits["tenant", "requests_per_day"]["remaining"] == 499
    assert limits["key", "in_flight"] == {
        "name": "in_flight",
        "scope": "key",
        "limit": 2,
        "used": 0,
        "remaining": 2,
        "window_reset": None,
    }


def test_what_is_not_limited_is_counted_and_null(tmp_path: Path) -> None:
    answer = play(used(Keyed(tmp_path, config="[tiers.free]\n"), tmp_path))
    assert (answer["requests_used"], answer["requests_limit"], answer["requests_remaining"]) == (1, None, None)
    assert (answer["cost_usd"], answer["budget_usd"], answer["budget_remaining_usd"]) == (0.25, None, None)
    assert answer["tokens"]["used"] == 12
    assert answer["limits"] == []


def test_it_needs_a_key(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path)
        with pytest.raises(MissingKey):
            await keyed.caller()
        assert (await keyed.call("usage", admin=None))[0] == 401
        free = Keyed(tmp_path, open_to_all=True)
        status, answer = await free.call("usage", admin=None)
        assert (status, answer["requests_limit"]) == (200, None)

    play(scene())
