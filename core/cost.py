"""What a request costs, exactly: integers only, pico-USD for one token inside, nano-USD outside, rounded up once.

A million tokens for one US dollar is 1,000,000 pico-USD a token, so every price a provider writes is a whole number.
"""

import math
from decimal import ROUND_CEILING, Decimal

import msgspec

from penstock.core.config import Backend, ModelPrice
from penstock.core.measures import NANO

MOST_NANO_USD = 1_000_000 * NANO
"""A million US dollars, above any limit: no request is said to cost more."""
MOST_TOKENS = 10**13
"""Above any limit in tokens."""
DEFAULT_MAX_OUTPUT_TOKENS = 4096
"""Of a model nobody knows the longest answer of."""
LEAST_AUDIO_BYTES_PER_S = 500
"""4 kbit/s: speech is not coded in less, so a recording is no longer than its bytes by this."""

_PICO = 10**12
_HOUR_NS = 3600 * NANO


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit costs in pico-USD; 0 where a part has no price. `timed_pico`: an hour of the backend's work."""

    input_pico: int = 0
    cached_pico: int = 0
    output_pico: int = 0
    reasoning_pico: int = 0
    image_pico: int = 0
    audio_second_pico: int = 0
    timed_pico: int = 0


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a request used. Cached tokens are among the prompt's, reasoning tokens among the completion's.

    audio_ns: length of the audio; backend_ns: time from sending it to the last byte of its answer.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    audio_ns: int = 0
    backend_ns: int = 0


def model_price(price: ModelPrice) -> Price | None:
    """A price as the configuration or the table writes it; None if none of its parts is there."""
    if all(part is None for part in _parts(price)):
        return None
    token_in, token_out = _per_token(price.input_usd_per_mtok), _per_token(price.output_usd_per_mtok)
    cached, reasoning = price.cached_input_usd_per_mtok, price.reasoning_usd_per_mtok
    return Price(
        input_pico=token_in,
        cached_pico=token_in if cached is None else _per_token(cached),
        output_pico=token_out,
        reasoning_pico=token_out if reasoning is None else _per_token(reasoning),
        image_pico=_pico(price.usd_per_image),
        audio_second_pico=_pico(price.usd_per_second),
    )


def backend_price(backend: Backend) -> Price | None:
    """The price by time of a backend we run ourselves: the hour itself, and the power it draws. None without either."""
    if backend.usd_per_gpu_hour is None and backend.power_watts is None:
        return None
    kilowatts = _decimal(backend.power_watts) / 1000
    power = kilowatts * _decimal(backend.usd_per_kwh)
    return Price(timed_pico=_up((_decimal(backend.usd_per_gpu_hour) + power) * _PICO))


def cost_nano(price: Price, spent: Spent) -> int:
    """What was used, in nano-USD, rounded up, at most MOST_NANO_USD."""
    prompt, completion = spent.prompt_tokens, spent.completion_tokens
    cached, reasoning = min(spent.cached_tokens, prompt), min(spent.reasoning_tokens, completion)
    pico = (
        (prompt - cached) * price.input_pico
        + cached * price.cached_pico
        + (completion - reasoning) * price.output_pico
        + reasoning * price.reasoning_pico
        + spent.images * price.image_pico
    )
    return _nano(price, pico, spent.audio_ns, spent.backend_ns)


# --- before the answer: what it can cost at most ------------------------------------------------------------


class Worst(msgspec.Struct, frozen=True):
    """What a request can need at most; held at admission and settled by what it did need."""

    tokens: int
    nano_usd: int


def worst_case(
    price: Price | None,
    *,
    input_tokens: int,
    output_tokens: int = 0,
    choices: int = 1,
    images: int = 0,
    audio_bytes: int = 0,
    total_s: float = 0,
) -> Worst:
    """The worst case of a request.

    input_tokens: the bound of estimate.input_bound. output_tokens: the cap of one answer (output_cap), 0 for
    embeddings, images and audio. choices: how many answers. audio_bytes: of an upload that is paid by its length.
    total_s: backends[].timeout.total_s, for what is paid by time; 0 = for ever, which the configuration rules out.
    """
    completion = output_tokens * choices
    tokens = min(input_tokens + completion, MOST_TOKENS)
    if price is None:
        return Worst(tokens, 0)
    # Cached or reasoning tokens may be the dearer ones.
    pico = (
        input_tokens * max(price.input_pico, price.cached_pico)
        + completion * max(price.output_pico, price.reasoning_pico)
        + images * price.image_pico
    )
    audio_ns = -(-audio_bytes * NANO // LEAST_AUDIO_BYTES_PER_S)
    return Worst(tokens, _nano(price, pico, audio_ns, span_ns(total_s)))


def output_cap(asked: int | None, tier: int | None, model: int | None, listed: int | None) -> int:
    """The most tokens one answer can have: what the request asks, else the tier's cap and the model's longest answer.

    asked: the request's own limit, already checked against the tier's. model, listed: the model's longest answer by the
    configuration and by the price table. Where the request asks nothing, this is spliced into it.
    """
    if asked is not None:
        return asked
    longest = model or listed
    if tier is None:
        return longest or DEFAULT_MAX_OUTPUT_TOKENS
    return min(tier, longest) if longest else tier


def span_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds, rounded up. What is no finite number above 0 counts as 0."""
    return math.ceil(seconds * NANO) if 0 < seconds < math.inf else 0


def _nano(price: Price, pico: int, audio_ns: int, backend_ns: int) -> int:
    """The sum of all parts in nano-USD. Time is paid by the hour: what it costs is a fraction of a pico-USD."""
    if price.timed_pico or price.audio_second_pico:
        timed = backend_ns * price.timed_pico + audio_ns * 3600 * price.audio_second_pico
        return min(-(-(pico * _HOUR_NS + timed) // (1000 * _HOUR_NS)), MOST_NANO_USD)
    return min(-(-pico // 1000), MOST_NANO_USD)


def _parts(price: ModelPrice) -> tuple[float | None, ...]:
    return (
        price.input_usd_per_mtok,
        price.cached_input_usd_per_mtok,
        price.output_usd_per_mtok,
        price.reasoning_usd_per_mtok,
        price.usd_per_image,
        price.usd_per_second,
    )


def _per_token(usd_per_mtok: float | None) -> int:
    return _up(_decimal(usd_per_mtok) * (_PICO // 1_000_000))


def _pico(usd: float | None) -> int:
    return _up(_decimal(usd) * _PICO)


def _decimal(value: float | None) -> Decimal:
    """The number as its decimal digits say it: 0.1 is a tenth."""
    return Decimal(repr(value)) if value is not None else Decimal(0)


def _up(value: Decimal) -> int:
    return int(value.to_integral_value(rounding=ROUND_CEILING))
