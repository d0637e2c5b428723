"""What a request can cost at most and what it did cost: the arithmetic of core/cost.py for the way of every request.

A Bill is part of a plan, made once; both ways of using it are a few integer operations.
"""

from collections.abc import Iterable

import msgspec

from penstock.core.cost import (
    MOST_NANO_USD,
    MOST_TOKENS,
    Price,
    Worst,
    output_cap,
    worst_case,
)
from penstock.core.endpoint import Endpoint, Unit
from penstock.core.estimate import INLINE_IMAGE_TOKENS, REMOTE_INPUT_TOKENS, Kind, input_bound
from penstock.core.prices import Terms


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one plan can need, whichever of its targets answers.

    dearest: every part at the price of its dearest target; None = a target has no price.
    input_pico, output_pico: its tokens, 0 without a price. plain: nothing else than tokens is paid for.
    margin_tokens: what servers add to a prompt. context_tokens: None = not known, or of one target not known.
    longest: the longest answer of any target; None = not known.
    answers: its answers have tokens; else nothing but the input counts. batch: it may bring many prompts.
    """

    dearest: Price | None
    input_pico: int
    output_pico: int
    plain: bool
    margin_tokens: int
    context_tokens: int | None
    longest: int | None
    total_s: float
    unit: Unit
    batch: bool

    def output_cap(self, asked: int | None, tier: int | None) -> int:
        """The most tokens one answer can have."""
        return output_cap(asked, tier, self.longest, None) if self.unit != "input" else 0

    def worst(self, body_bytes: int, remote: bool, images: int, choices: int, cap: int) -> tuple[int, int]:
        """(tokens, nano-USD) it can need at most.

        remote: it names input that is not in it. images: those it brings along. choices: answers. cap: the most tokens
        one answer can have, as `output_cap` says.
        """
        tokens_in = body_bytes + self.margin_tokens
        if images:
            tokens_in += images * INLINE_IMAGE_TOKENS
        context = self.context_tokens
        if remote:
            tokens_in = max(tokens_in, context or REMOTE_INPUT_TOKENS)
        if context is not None and tokens_in > context and not self.batch:
            tokens_in = context
        if not self.plain:
            return self._worst(body_bytes, tokens_in, choices, cap)
        tokens_out = cap * choices
        nano = -(-(tokens_in * self.input_pico + tokens_out * self.output_pico) // 1000)
        return min(tokens_in + tokens_out, MOST_TOKENS), min(nano, MOST_NANO_USD)

    def _worst(self, body_bytes: int, tokens_in: int, choices: int, cap: int) -> tuple[int, int]:
        worst: Worst = worst_case(
            self.dearest,
            input_tokens=tokens_in,
            output_tokens=cap,
            choices=choices,
            images=choices if self.unit == "images" else 0,
            audio_bytes=body_bytes if self.unit == "audio" else 0,
            total_s=self.total_s,
        )
        return worst.tokens, worst.nano_usd


def make_bill(endpoint: Endpoint, targets: Iterable[tuple[Terms, Kind, float]]) -> Bill:
    """targets: terms, kind and timeout.total_s of each."""
    targets = tuple(targets)
    terms = [each for each, _, _ in targets]
    contexts = [each.context_tokens for each in terms]
    longest = [each.max_output_tokens for each in terms if each.max_output_tokens]
    price = dearest([each.price for each in terms])
    return Bill(
        dearest=price,
        input_pico=price.input_pico if price else 0,
        output_pico=price.output_pico if price else 0,
        plain=endpoint.unit in ("tokens", "input") and not (price and price.timed_pico),
        margin_tokens=max((input_bound(0, kind) for _, kind, _ in targets), default=0),
        context_tokens=None if None in contexts else max(filter(None, contexts), default=None),
        longest=max(longest, default=None),
        total_s=max((total_s for _, _, total_s in targets), default=0),
        unit=endpoint.unit,
        batch=endpoint.unit == "input" or endpoint.route == "/v1/completions",
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
