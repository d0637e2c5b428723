"""Costs agree with exact fractions, and no request costs more than its worst case."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.config import Backend, ModelPrice
from penstock.core.cost import (
    MOST_NANO_USD,
    Price,
    Spent,
    backend_price,
    cost_nano,
    model_price,
    output_cap,
    span_ns,
    worst_case,
)

usd = st.none() | st.decimals(0, 1000, places=6).map(float)
prices = st.builds(
    ModelPrice,
    input_usd_per_mtok=st.decimals(0, 1000, places=6).map(float),
    cached_input_usd_per_mtok=usd,
    output_usd_per_mtok=usd,
    reasoning_usd_per_mtok=usd,
    usd_per_image=usd,
    usd_per_second=usd,
)
tokens = st.integers(0, 10_000_000)


def exact(value: float | None) -> Fraction:
    return Fraction(Decimal(repr(value))) if value is not None else Fraction(0)


@st.composite
def spendings(draw: st.DrawFn) -> Spent:
    prompt, completion = draw(tokens), draw(tokens)
    return Spent(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=draw(st.integers(0, prompt)),
        reasoning_tokens=draw(st.integers(0, completion)),
        images=draw(st.integers(0, 10)),
        audio_ns=draw(st.integers(0, 10**13)),
        backend_ns=draw(st.integers(0, 10**13)),
    )


@given(prices, spendings())
def test_costs_are_exact_and_rounded_up_once(price: ModelPrice, spent: Spent) -> None:
    token_in, token_out = exact(price.input_usd_per_mtok) / 10**6, exact(price.output_usd_per_mtok) / 10**6
    cached, reasoning = price.cached_input_usd_per_mtok, price.reasoning_usd_per_mtok
    dollars = (
        (spent.prompt_tokens - spent.cached_tokens) * token_in
        + spent.cached_tokens * (token_in if cached is None else exact(cached) / 10**6)
        + (spent.completion_tokens - spent.reasoning_tokens) * token_out
        + spent.reasoning_tokens * (token_out if reasoning is None else exact(reasoning) / 10**6)
        + spent.images * exact(price.usd_per_image)
        + Fraction(spent.audio_ns, 10**9) * exact(price.usd_per_second)
    )
    compiled = model_price(price)
    assert compiled is not None
    assert cost_nano(compiled, spent) == min(ceil(dollars * 10**9), MOST_NANO_USD)


@given(st.decimals(0, 100, places=4), st.decimals(0, 10_000, places=2), st.decimals(0, 10, places=4), spendings())
def test_time_costs_what_the_hour_and_its_power_cost(hour: Decimal, watts: Decimal, kwh: Decimal, spent: Spent) -> None:
    backend = Backend(kind="demo", usd_per_gpu_hour=float(hour), power_watts=float(watts), usd_per_kwh=float(kwh))
    price = backend_price(backend)
    assert price is not None
    dollars = (Fraction(hour) + Fraction(watts) / 1000 * Fraction(kwh)) * Fraction(spent.backend_ns, 3600 * 10**9)
    assert cost_nano(price, spent) == min(ceil(dollars * 10**9), MOST_NANO_USD)


def test_no_part_is_no_price() -> None:
    assert model_price(ModelPrice()) is None
    assert backend_price(Backend(kind="demo")) is None
    assert model_price(ModelPrice(input_usd_per_mtok=0.0)) == Price()


def test_a_known_bill() -> None:
    price = model_price(ModelPrice(input_usd_per_mtok=2.5, cached_input_usd_per_mtok=1.25, output_usd_per_mtok=10.0))
    assert price is not None
    spent = Spent(prompt_tokens=1_000, cached_tokens=400, completion_tokens=100)
    assert cost_nano(price, spent) == 600 * 2500 + 400 * 1250 + 100 * 10_000


def test_usage_that_makes_no_sense_costs_no_less_than_nothing() -> None:
    spent = Spent(prompt_tokens=1, cached_tokens=9, completion_tokens=1, reasoning_tokens=9)
    assert cost_nano(Price(input_pico=1000, output_pico=1000), spent) == 0
    assert cost_nano(Price(input_pico=10**12), Spent(prompt_tokens=10**15)) == MOST_NANO_USD


@given(prices, spendings(), st.integers(1, 20), st.integers(0, 10**12))
def test_nothing_costs_more_than_its_worst_case(price: ModelPrice, spent: Spent, choices: int, timed: int) -> None:
    compiled = model_price(price)
    assert compiled is not None
    for each in (compiled, Price(timed_pico=timed)):
        worst = worst_case(
            each,
            input_tokens=spent.prompt_tokens,
            output_tokens=-(-spent.completion_tokens // choices),
            choices=choices,
            images=spent.images,
            audio_bytes=-(-spent.audio_ns * 500 // 10**9),
            total_s=spent.backend_ns / 10**9 + 1,
        )
        assert worst.nano_usd >= cost_nano(each, spent)
        assert worst.tokens >= spent.prompt_tokens + spent.completion_tokens


def test_without_a_price_tokens_are_still_known() -> None:
    worst = worst_case(None, input_tokens=10, output_tokens=5, choices=3)
    assert (worst.tokens, worst.nano_usd) == (25, 0)


@pytest.mark.parametrize(
    ("asked", "tier", "model", "listed", "cap"),
    [
        (7, 100, 50, 40, 7),
        (None, None, None, None, 4096),
        (None, 100, None, None, 100),
        (None, 100, 50, 40, 50),
        (None, 10, 50, None, 10),
        (None, None, None, 40, 40),
        (0, None, None, None, 0),
    ],
)
def test_the_longest_answer(
    asked: int | None, tier: int | None, model: int | None, listed: int | None, cap: int
) -> None:
    assert output_cap(asked, tier, model, listed) == cap


@pytest.mark.parametrize(
    ("seconds", "ns"), [(0.0, 0), (1e-10, 1), (1.5, 1_500_000_000), (float("inf"), 0), (float("nan"), 0), (-1.0, 0)]
)
def test_spans(seconds: float, ns: int) -> None:
    assert span_ns(seconds) == ns
