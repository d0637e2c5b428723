"""The quick arithmetic of a bill says what core/cost.py says, and no target costs more than its worst case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.bill import dearest, make_bill, tokens_nano
from penstock.core.cost import Price, Spent, cost_nano, worst_case
from penstock.core.endpoint import Endpoint, match
from penstock.core.estimate import REMOTE_INPUT_TOKENS, input_bound
from penstock.core.prices import Terms

CHAT = match("POST", b"/v1/chat/completions")
COUNTS = st.integers(0, 200_000)
PICO = st.integers(0, 10**9)
PRICES = st.builds(Price, input_pico=PICO, cached_pico=PICO, output_pico=PICO, reasoning_pico=PICO)


def bill(*prices: Price | None, endpoint: Endpoint = CHAT, context: int | None = None, longest: int | None = None):  # type: ignore[no-untyped-def]
    return make_bill(endpoint, [(Terms(price, longest, context), "openai", 30.0) for price in prices])


@given(PRICES, COUNTS, COUNTS, st.integers(0, 4), st.integers(1, 8))
def test_the_worst_case_is_that_of_cost(price: Price, body: int, cap: int, images: int, choices: int) -> None:
    bound = input_bound(body, "openai", inline_images=images)
    wanted = worst_case(price, input_tokens=bound, output_tokens=cap, choices=choices, total_s=30.0)
    assert bill(price).worst(body, False, images, choices, cap) == (wanted.tokens, wanted.nano_usd)


@given(PRICES, COUNTS, COUNTS, st.floats(0, 1), st.floats(0, 1))
def test_tokens_cost_what_cost_says(price: Price, prompt: int, completion: int, cached: float, reasoned: float) -> None:
    parts = int(prompt * cached), int(completion * reasoned)
    spent = Spent(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=parts[0], reasoning_tokens=parts[1])
    assert tokens_nano(price, prompt, completion, *parts) == cost_nano(price, spent)


@given(st.lists(PRICES, min_size=1, max_size=4), COUNTS, COUNTS, st.data())
def test_no_target_is_dearer(prices: list[Price], prompt: int, completion: int, data: st.DataObject) -> None:
    worst = bill(*prices).worst(prompt, False, 0, 1, completion)[1]
    for price in prices:
        cached, reasoned = data.draw(st.integers(0, prompt)), data.draw(st.integers(0, completion))
        assert tokens_nano(price, prompt, completion, cached, reasoned) <= worst


def test_a_target_without_a_price_leaves_the_plan_without_one() -> None:
    assert dearest([Price(input_pico=1), None]) is None
    assert bill(Price(input_pico=1), None).dearest is None


def test_input_from_elsewhere_counts_as_the_whole_context() -> None:
    free = Price()
    assert bill(free, context=8000).worst(100, True, 0, 1, 50)[0] == 8050
    assert bill(free).worst(100, True, 0, 1, 50)[0] == REMOTE_INPUT_TOKENS + 50
    assert bill(free, context=8000).worst(10**6, False, 0, 1, 50)[0] == 8050


def test_many_prompts_may_be_longer_than_a_context() -> None:
    batch = match("POST", b"/v1/embeddings")
    assert bill(Price(), endpoint=batch, context=8000).worst(10**6, False, 0, 1, 0)[0] > 10**6


@pytest.mark.parametrize(
    ("asked", "tier", "longest", "cap"),
    [(10, 5, 5, 10), (None, 50, 40, 40), (None, 50, None, 50), (None, None, 40, 40), (None, None, None, 4096)],
)
def test_the_cap_of_an_answer(asked: int | None, tier: int | None, longest: int | None, cap: int) -> None:
    assert bill(Price(), longest=longest).output_cap(asked, tier) == cap
    assert bill(Price(), endpoint=match("POST", b"/v1/embeddings"), longest=longest).output_cap(asked, tier) == 0


def test_time_and_images_are_part_of_it() -> None:
    timed = Price(timed_pico=3600 * 10**12)  # a USD a second
    assert bill(timed).worst(10, False, 0, 1, 5)[1] == 30 * 10**9
    painter = match("POST", b"/v1/images/generations")
    assert bill(Price(image_pico=10**12), endpoint=painter).worst(10, False, 0, 3, 0)[1] == 3 * 10**9
