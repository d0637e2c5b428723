"""Which target would be taken, and what speaks against the others."""

from typing import Any

import pytest

from penstock.core.explain import Stood, candidates, chances, remark, why_not
from penstock.ext import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN


def stood(**more: Any) -> Stood:
    plain: dict[str, Any] = {
        "backend": "b",
        "model": "m",
        "weight": 1,
        "max_in_flight": 0,
        "usable": not more.get("why") or more.get("why") == "down",
        "why": "",
        "in_flight": 0,
        "waiting": 0,
        "breaker": BREAKER_CLOSED,
        "failures_in_row": 0,
        "retry_in_ns": 0,
        "latency_ns": 0,
    }
    return Stood(**{**plain, **more})


def test_least_in_flight_counts_weight() -> None:
    assert chances("least_in_flight", [stood(in_flight=2, weight=3), stood(in_flight=2)]) == [1, 0]
    assert chances("least_in_flight", [stood(in_flight=1), stood(in_flight=1)]) == [0.5, 0.5]


def test_weighted() -> None:
    assert chances("weighted", [stood(weight=3), stood(weight=1), stood(why="drained", weight=9)]) == [0.75, 0.25, 0]


def test_the_lower_latency_of_two() -> None:
    three = [stood(latency_ns=1_000), stood(latency_ns=2_000), stood(latency_ns=3_000)]
    assert chances("latency", three) == pytest.approx([2 / 3, 1 / 3, 0])
    assert chances("latency", [stood(latency_ns=1_000, in_flight=3), stood(latency_ns=2_000)]) == [0, 1]
    assert chances("latency", [stood(latency_ns=1_000), stood()]) == [0, 1], "not measured yet: tried first"
    assert chances("latency", [stood(latency_ns=9_000)]) == [1]


def test_down_only_without_another() -> None:
    down, open_ = stood(why="down"), stood(why="open", breaker=BREAKER_OPEN)
    assert candidates([down, stood()]) == [1]
    assert candidates([down, open_]) == [0]
    assert candidates([open_, stood(why="full")]) == []
    assert chances("weighted", [open_]) == [0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"why": "drained"}, "its backend is drained"),
        ({"why": "open", "retry_in_ns": 12_340_000_000}, "its breaker is open, for 12.3 s more"),
        ({"why": "full", "max_in_flight": 4, "in_flight": 4}, "all its 4 places are taken"),
        ({"why": "full", "max_in_flight": 4, "in_flight": 3, "waiting": 7}, "7 wait for it in line"),
        ({"why": "down"}, "its backend is down, a health check says"),
    ],
)
def test_what_speaks_against_it(more: dict[str, Any], words: str) -> None:
    assert why_not(stood(**more)) == words


def test_a_probe_is_told() -> None:
    assert (
        remark(stood()) == ""
        and remark(stood(breaker=BREAKER_HALF_OPEN)) == "its breaker is half open: one request tries it"
    )


def test_what_is_told() -> None:
    told = stood(backend="gpu", model="llama3", latency_ns=1_500_000, max_in_flight=4).told()
    assert told["target"] == "gpu/llama3" and told["latency_ms"] == 1.5 and told["max_in_flight"] == 4
    assert stood(model="").told()["target"] == "b" and stood().told()["latency_ms"] is None
