"""What the compiled balancer is given: its numbers for our words, and ids that are the same in every process."""

import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.balance import BALANCES, backend_id, breaker_rules, target_id
from penstock.core.config import Balance, Breaker
from penstock.ext import BREAKER_CLOSED, BREAKER_OPEN, TAKE_NONE, Balancer, Targets

SECOND_NS = 1_000_000_000
texts = st.text(max_size=6)


def test_every_word_has_a_number_of_its_own() -> None:
    assert set(BALANCES) == set(get_args(Balance))
    assert len(set(BALANCES.values())) == len(BALANCES)


def test_rules_in_the_balancers_units() -> None:
    rules = breaker_rules(Breaker(failures=3, failure_ratio=0.25, window_s=0.5, min_requests=7, recovery_s=1.5))
    assert rules == (3, 0.25, SECOND_NS // 2, 7, SECOND_NS * 3 // 2)


@pytest.mark.parametrize("balance", get_args(Balance))
@pytest.mark.parametrize(
    "breaker",
    [
        Breaker(),
        Breaker(failures=0, failure_ratio=0),
        Breaker(failures=10**6, failure_ratio=1, window_s=86_400, min_requests=10**6, recovery_s=86_400),
        Breaker(failures=1, failure_ratio=0.01, window_s=0.01, min_requests=1, recovery_s=0.01),
    ],
)
def test_the_balancer_takes_whatever_the_configuration_may_say(balance: Balance, breaker: Breaker) -> None:
    shared = Targets("", bytes(16))
    member = (shared.backend(backend_id("b", "")), shared.target(target_id("b", "", "m")), 1000, 1_000_000)
    balancer = Balancer(shared, [member] * 64, BALANCES[balance], breaker_rules(breaker))
    assert 0 <= balancer.take(SECOND_NS, 1) < 64


def test_a_breaker_opens_and_lets_one_try_as_configured() -> None:
    shared = Targets("", bytes(16))
    target = shared.target(target_id("b", "http://h", "m"))
    members = [(shared.backend(backend_id("b", "http://h")), target, 1, 0)]
    balancer = Balancer(shared, members, BALANCES["weighted"], breaker_rules(Breaker(failures=2, recovery_s=3)))
    for opens in (False, True):
        assert target.breaker(SECOND_NS) == BREAKER_CLOSED
        taken = balancer.take(SECOND_NS, 1)
        assert balancer.failed(taken, SECOND_NS) == opens
        balancer.release(taken)
    assert target.breaker(SECOND_NS) == BREAKER_OPEN
    assert balancer.take(4 * SECOND_NS - 1_000_000, 1) == TAKE_NONE
    assert balancer.take(4 * SECOND_NS + 1_000_000, 1) >= 0


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_ids_differ_when_anything_does(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (target_id(*one) == target_id(*other)) == (one == other)
    assert (backend_id(*one[:2]) == backend_id(*other[:2])) == (one[:2] == other[:2])
    assert 0 < target_id(*one) < 1 << 64
    assert target_id(*one) != backend_id(*one[:2])


def test_ids_are_the_same_in_another_process() -> None:
    code = "from penstock.core.balance import *; print(backend_id('b', 'http://h'), target_id('b', 'http://h', 'm'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout.split() == [str(backend_id("b", "http://h")), str(target_id("b", "http://h", "m"))]
