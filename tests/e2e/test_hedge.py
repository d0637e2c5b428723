"""Hedging: a slow answer is overtaken by a second attempt at an idle target, within its share, and the loser ends."""

from __future__ import annotations

import time

from puppet import Puppet, ask_many, several
from raw_client import chat, wait_until

from running import Demo, Penstock

# "a" is preferred so much that it gets nearly all first attempts.
WEIGHTED = 'balance = "weighted"'
SLOW_S = 2.0


def hedged(one: int, two: int, share: float) -> Penstock:
    text = several({"a": one, "b": two}, model=WEIGHTED, more=f"[hedge]\nmax_share = {share}\n")
    return Penstock(text.replace('["a", "b"]', '[{ backend = "a", weight = 1000 }, "b"]'))


def test_a_slow_answer_is_overtaken() -> None:
    with Puppet() as one, Puppet() as two, hedged(one.port, two.port, 0.2) as proxy:
        ask_many(proxy.port, 60, 1)
        for _ in range(3):
            one.slow_once_s, before = SLOW_S, len(two.seen)
            began = time.monotonic()
            while one.slow_once_s:
                assert chat(proxy.port).status == 200
            assert time.monotonic() - began < SLOW_S / 2
            assert len(two.seen) > before


def test_off_by_default() -> None:
    with Puppet() as one, Puppet() as two, hedged(one.port, two.port, 0.0) as proxy:
        ask_many(proxy.port, 60, 1)
        one.slow_once_s, before = 0.7, len(one.seen) + len(two.seen)
        while one.slow_once_s:
            chat(proxy.port)
            before += 1
        assert len(one.seen) + len(two.seen) == before


def test_never_more_than_its_share() -> None:
    with Puppet() as one, Puppet() as two, hedged(one.port, two.port, 0.1) as proxy:
        ask_many(proxy.port, 60, 1)
        one.delay_s = 0.05  # from now on nearly every answer is slower than what it was used to
        ask_many(proxy.port, 100, 1)
        extra = len(one.seen) + len(two.seen) - 160
        assert 1 <= extra <= 16


def test_the_loser_is_cancelled() -> None:
    with Demo("--rate", "0") as one, Demo("--rate", "0") as two, hedged(one.port, two.port, 0.5) as proxy:
        ask_many(proxy.port, 60, 1)
        # Both are slow for this one; the first attempt's 60 s end with the second's answer.
        answers = [chat(proxy.port, "X-Demo-First-Ms: 100") for _ in range(5)]
        assert {answer.status for answer in answers} == {200}
        wait_until(lambda: one.stats()["requests_active"] == two.stats()["requests_active"] == 0, 0.5)
        lines = [line for line in proxy.lines() if line.get("attempts", 0) > 1]
        wait_until(lambda: any(line.get("attempts", 0) > 1 for line in proxy.lines()))
        assert all(line["status"] == 200 for line in lines)
