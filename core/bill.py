"""What a request can cost at most and what it did cost: the arithmetic of core/cost.py for the way of every request.

A Bill is part of a plan, made once; both ways of using it are a few integer operations.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from penstock.core.cost import (
    MOST_NANO_USD,
    MOST_TOKENS,
    Price,
    Worst,
    output_cap,
    worst_case,
)
from penstock.core.endpoint import Endpoint
from penstock.core.estimate import INLINE_IMAGE_TOKENS, REMOTE_INPUT_TOKENS, Kind, input_bound
from penstock.core.prices import Terms


class Asked(NamedTuple):
    """What a request says of its size.

    remote: it names input that is not in it. images: those it brings along. output_tokens: its own cap, None = it names
    none. choices: answers.
    """

    body_bytes: int
    remote: bool
    images: int
    output_tokens: int | None
    choices: int


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one plan can need, whichever of its targets answers.

    dearest: every part at the price of its dearest target; None = a target has no price.
    margin_tokens: what servers add to a prompt. context_tokens: None = not known, or of one target not known.
    longest: the longest answer of any target; None = not known.
    answers: its answers have tokens; else nothing but the input counts. plain: tokens are all that is paid for.
    """

    dearest: Price | None
    margin_tokens: int
    context_tokens: int | None
    longest: int | None
    total_s: float
    answers: bool
    batch: bool
    images: bool
    audio: bool

    @property
    def plain(self) -> bool:
        return not (self.images or self.audio or (self.dearest is not None and self.dearest.timed_pico))

    def output_cap(self, asked: int | None, tier: int | None) -> int:
        """The most tokens one answer can have."""
        return output_cap(asked, tier, self.longest, None) if self.answers else 0

    def worst(self, asked: Asked, cap: int) -> tuple[int, int]:
        """(tokens, nano-USD) it can need at most; `cap` is what output_cap says."""
        tokens_in = asked.body_bytes + self.margin_tokens + asked.images * INLINE_IMAGE_TOKENS
        if asked.remote:
            tokens_in = max(tokens_in, self.context_tokens or REMOTE_INPUT_TOKENS)
        if self.context_tokens is not None and not self.batch:
            tokens_in = min(tokens_in, self.context_tokens)
        price = self.dearest
        if price is None or not self.plain:
            return self._worst(asked, tokens_in, cap)
        tokens_out = cap * asked.choices
        nano = -(-(tokens_in * price.input_pico + tokens_out * price.output_pico) // 1000)
        return min(tokens_in + tokens_out, MOST_TOKENS), min(nano, MOST_NANO_USD)

    def _worst(self, asked: Asked, tokens_in: int, cap: int) -> tuple[int, int]:
        worst: Worst = worst_case(
            self.dearest,
            input_tokens=tokens_in,
            output_tokens=cap,
            choices=asked.choices,
            images=asked.choices if self.images else 0,
            audio_bytes=asked.body_bytes if self.audio else 0,
            total_s=self.total_s,
        )
        return worst.tokens, worst.nano_usd


def make_bill(endpoint: Endpoint, targets: Iterable[tuple[Terms, Kind, float]]) -> Bill:
    """targets: terms, kind and timeout.total_s of each."""
    targets = tuple(targets)
    terms = [each for each, _, _ in targets]
    contexts = [each.context_tokens for each in terms]
    longest = [each.max_output_tokens for each in terms if each.max_output_tokens]
    return Bill(
        dearest=dearest([each.price for each in terms]),
        margin_tokens=max((input_bound(0, kind) for _, kind, _ in targets), default=0),
        context_tokens=None if None in contexts else max(filter(None, contexts), default=None),
        longest=max(longest, default=None),
        total_s=max((total_s for _, _, total_s in targets), default=0),
        answers=endpoint.unit == "tokens",
        batch=endpoint.unit == "input" or endpoint.route == "/v1/completions",
        images=endpoint.unit == "images",
        audio=endpoint.unit == "audio",
    )


def dearest(prices: Iterable[Price | None]) -> Price | None:
    """A price no target is above: part by part the highest, cached input and reasoning as any other token."""
    known: list[Price] = []
    for price in prices:
        if price is None:
            return None
        known.append(price)
    highest = {name: max((getattr(price, name) for price in known), default=0) for name in Price.__struct_fields__}
    highest["input_pico"] = max(highest["input_pico"], highest["cached_pico"])
    highest["output_pico"] = max(highest["output_pico"], highest["reasoning_pico"])
    return Price(**highest) if known else None


def tokens_nano(price: Price, prompt: int, completion: int, cached: int, reasoning: int) -> int:
    """What tokens cost, in nano-USD: cost_nano for what is paid by nothing else."""
    pico = (
        (prompt - cached) * price.input_pico
        + cached * price.cached_pico
        + (completion - reasoning) * price.output_pico
        + reasoning * price.reasoning_pico
    )
    return min(-(-pico // 1000), MOST_NANO_USD)
