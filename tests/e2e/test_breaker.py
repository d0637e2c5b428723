"""Breakers over real workers: a backend that fails gets probes and nothing else, and is back soon after it works."""

from __future__ import annotations

import time

import pytest
from puppet import Puppet, ask_many, several
from raw_client import chat, wait_until

from running import Penstock, free_port

RECOVERY_S = 0.6
RULES = f"[breaker]\nfailures = 5\nwindow_s = 10\nrecovery_s = {RECOVERY_S}\n"
CLIENTS = 8


def breakers(proxy: Penstock) -> list[str]:
    """The changes that were logged."""
    return [line["breaker"] for line in proxy.lines() if "breaker" in line]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_backend_that_fails_gets_probes_only(workers: int, status: int) -> None:
    with Puppet() as bad, Puppet() as good:
        bad.status = status
        with Penstock(several({"bad": bad.port, "good": good.port}, more=RULES, workers=workers)) as proxy:
            began = time.monotonic()
            while time.monotonic() - began < 2.5:
                assert {answer.status for answer in ask_many(proxy.port, 60, CLIENTS)} == {200}
            lasted = time.monotonic() - began
            # What opened it, what was under way at that moment in all workers, and a probe for each recovery_s.
            assert 5 <= len(bad.seen) <= 5 + CLIENTS + lasted / RECOVERY_S + 1
            opened = bad.seen[0] + 0.5
            gaps = [b - a for a, b in zip(bad.seen, bad.seen[1:], strict=False) if a > opened]
            assert all(gap > RECOVERY_S * 0.9 for gap in gaps)
            wait_until(lambda: {"open", "half_open"} <= set(breakers(proxy)))
            assert "closed" not in breakers(proxy)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_backend_that_works_again_is_back_in_time(workers: int) -> None:
    with Puppet() as bad, Puppet() as good:
        bad.status = 500
        with Penstock(several({"bad": bad.port, "good": good.port}, more=RULES, workers=workers)) as proxy:
            ask_many(proxy.port, 60, CLIENTS)
            bad.status, works, before = 200, time.monotonic(), len(bad.seen)
            while len(bad.seen) < before + 5:
                assert {answer.status for answer in ask_many(proxy.port, 16, CLIENTS)} == {200}
                assert time.monotonic() - works < RECOVERY_S + 1
            wait_until(lambda: "closed" in breakers(proxy))


def test_a_target_that_fails_fast_attracts_nothing_by_being_fast() -> None:
    rules = "[breaker]\nfailures = 1_000_000\nmin_requests = 1_000_000\n[retry]\nbackoff_ms = 0\n"
    with Puppet() as bad, Puppet() as good:
        bad.status, good.delay_s = 503, 0.01
        text = several({"bad": bad.port, "good": good.port}, model='balance = "latency"', more=rules)
        with Penstock(text) as proxy:
            ask_many(proxy.port, 150, 2)
            assert len(bad.seen) < len(good.seen) / 5


def test_nobody_left_says_when_to_come_again() -> None:
    with Puppet() as bad:
        bad.status = 500
        rules = "[breaker]\nfailures = 3\nrecovery_s = 30\n"
        with Penstock(several({"bad": bad.port}, more=rules)) as proxy:
            assert [chat(proxy.port).status for _ in range(3)] == [500] * 3
            answer = chat(proxy.port)
            assert (answer.status, answer.header("x-penstock-error")) == (503, "capacity")
            assert 28 <= int(answer.header("retry-after") or 0) <= 30
            assert len(bad.seen) == 3


def test_a_callers_errors_open_nothing() -> None:
    with Puppet() as backend:
        backend.status = 422
        with Penstock(several({"a": backend.port}, more=RULES)) as proxy:
            assert {answer.status for answer in ask_many(proxy.port, 40, 4)} == {422}
            assert len(backend.seen) == 40 and breakers(proxy) == []


def test_each_change_says_why() -> None:
    with Penstock(several({"gone": free_port()}, more="[breaker]\nfailures = 2\n")) as proxy:
        chat(proxy.port)
        wait_until(lambda: breakers(proxy))
        (line,) = [line for line in proxy.lines() if "breaker" in line]
        assert (line["level"], line["backend"], line["target"], line["breaker"]) == ("warning", "gone", "demo", "open")
        assert "2 failures in a row" in line["why"] and "cannot be reached" in line["why"]
