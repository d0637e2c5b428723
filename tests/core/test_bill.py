"""The compiled arithmetic of a bill says what core/cost.py says, and no target costs more than its worst case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.bill import Bill, dearest, make_bill, quote
from penstock.core.cost import Price, Spent, cost_nano, worst_case
from penstock.core.endpoint import Endpoint, match
from penstock.core.estimate import REMOTE_INPUT_TOKENS, input_bound
from penstock.core.prices import Terms
from penstock.ext import Quote, Usage

CHAT = match("POST", b"/v1/chat/completions")
EMBEDDINGS = match("POST", b"/v1/embeddings")
COUNTS = st.integers(0, 200_000)
PICO = st.integers(0, 10**9)
PRICES = st.builds(Price, input_pico=PICO, cached_pico=PICO, output_pico=PICO, reasoning_pico=PICO)


def bill(
    *prices: Price | None, endpoint: Endpoint = CHAT, context: int | None = None, longest: int | None = None
) -> Bill:
    return make_bill(endpoint, [(Terms(price, longest, context), "openai", 30.0) for price in prices])


def body(size: int, images: int = 0, *, remote: bool = False) -> bytes:
    """A JSON object of about so many bytes."""
    mark = b'"file_id":"f",' if remote else b""
    return b"{%b" % mark + b'"a":"' + (b"data:image" * images).ljust(size, b"x") + b'"}'


def tokens(price: Price) -> Quote:
    made = quote(price, CHAT)
    assert made is not None
    return made


@given(PRICES, COUNTS, COUNTS, st.integers(0, 4), st.integers(1, 8), st.booleans())
def test_the_worst_case_is_that_of_cost(
    price: Price, size: int, cap: int, images: int, choices: int, remote: bool
) -> None:
    text = body(size, images, remote=remote)
    bound = input_bound(len(text), "openai", inline_images=images, remote=remote)
    wanted = worst_case(price, input_tokens=bound, output_tokens=cap, choices=choices, total_s=30.0)
    made = bill(price)
    assert made.quote is not None
    found = made.quote.worst(text, choices, cap)
    assert found == made.worst(text, len(text), choices, cap) == (wanted.tokens, wanted.nano_usd)


@given(PRICES, COUNTS, COUNTS, COUNTS, COUNTS)
def test_tokens_cost_what_cost_says(price: Price, prompt: int, completion: int, cached: int, reasoning: int) -> None:
    spent = Spent(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, reasoning_tokens=reasoning)
    assert tokens(price).cost(Usage(prompt, completion, cached, reasoning)) == cost_nano(price, spent)


@given(st.lists(PRICES, min_size=1, max_size=4), COUNTS, COUNTS, st.data())
def test_no_target_is_dearer(prices: list[Price], size: int, completion: int, data: st.DataObject) -> None:
    text = body(size)
    worst = bill(*prices).worst(text, len(text), 1, completion)[1]
    for price in prices:
        cached, reasoned = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, completion))
        assert tokens(price).cost(Usage(len(text), completion, cached, reasoned)) <= worst


def test_a_target_without_a_price_leaves_the_plan_without_one() -> None:
    assert dearest([Price(input_pico=1), None]) is None
    assert bill(Price(input_pico=1), None).dearest is None


def test_input_from_elsewhere_counts_as_the_whole_context() -> None:
    text = body(100, remote=True)
    assert bill(Price(), context=8000).worst(text, len(text), 1, 50)[0] == 8050
    assert bill(Price()).worst(text, len(text), 1, 50)[0] == REMOTE_INPUT_TOKENS + 50


def test_no_prompt_is_longer_than_the_context_but_many_may_be() -> None:
    text = body(10**6)
    assert bill(Price(), context=8000).worst(text, len(text), 1, 50)[0] == 8050
    assert bill(Price(), endpoint=EMBEDDINGS, context=8000).worst(text, len(text), 1, 0)[0] > 10**6


@pytest.mark.parametrize(
    ("asked", "tier", "longest", "cap"),
    [(10, 5, 5, 10), (None, 50, 40, 40), (None, 50, None, 50), (None, None, 40, 40), (None, None, None, 4096)],
)
def test_the_cap_of_an_answer(asked: int | None, tier: int | None, longest: int | None, cap: int) -> None:
    assert bill(Price(), longest=longest).output_cap(asked, tier) == cap
    assert bill(Price(), endpoint=EMBEDDINGS, longest=longest).output_cap(asked, tier) == 0


def test_time_and_images_are_part_of_it() -> None:
    timed = Price(timed_pico=3600 * 10**12)  # a USD a second
    text = body(10)
    assert bill(timed).worst(text, len(text), 1, 5)[1] == 30 * 10**9
    painter = match("POST", b"/v1/images/generations")
    assert bill(Price(image_pico=10**12), endpoint=painter).worst(text, len(text), 3, 0)[1] == 3 * 10**9


def test_a_body_that_streams_through_is_bounded_by_its_length() -> None:
    whisper = match("POST", b"/v1/audio/transcriptions")
    a_second = Price(audio_second_pico=10**12)
    assert bill(a_second, endpoint=whisper).worst(b"", 5000, 1, 0)[1] == 10 * 10**9
