"""The retry budget: never more than its share of the requests, whenever they come."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.proxy.upstream.retry_budget import EARNED, FIRST, MOST, RetryBudget


def test_a_few_are_there_from_the_start() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(int(FIRST) + 1)] == [True] * int(FIRST) + [False]


def test_five_requests_earn_one() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass
    budget.requests += 5
    assert budget.spend() and not budget.spend()


def test_what_is_saved_is_bounded() -> None:
    budget = RetryBudget()
    budget.requests += 1_000_000
    assert budget.saved == MOST
    assert sum(budget.spend() for _ in range(1000)) == MOST


@given(st.lists(st.one_of(st.integers(1, 50), st.none()), max_size=200))
def test_the_same_as_counting_at_every_request(steps: list[int | None]) -> None:
    """None: one is spent; a number: so many requests come."""
    budget, saved, spent, requests = RetryBudget(), FIRST, 0, 0
    for step in steps:
        if step is None:
            wanted = saved >= 1 - 1e-9
            if abs(saved - 1) > 1e-9:  # rounding may decide it either way
                assert budget.spend() is wanted
                saved -= wanted
                spent += wanted
        else:
            budget.requests += step
            requests += step
            for _ in range(step):
                saved = min(saved + EARNED, MOST)
        assert spent <= FIRST + EARNED * requests + 1e-6
        assert abs(budget.saved - saved) < 1e-6
