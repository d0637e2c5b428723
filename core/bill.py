"""What a request can cost at most and what it did cost, for the way of every request: a bill is part of a plan.

Where nothing but tokens is paid for, as nearly always, the compiled ext.Quote does the arithmetic of core/cost.py.
"""

from collections.abc import Iterable

import msgspec

from penstock.core.cost import DEFAULT_MAX_OUTPUT_TOKENS, MOST_NANO_USD, MOST_TOKENS, Price, output_cap, worst_case
from penstock.core.endpoint import Endpoint, Unit
from penstock.core.estimate import INLINE_IMAGE_TOKENS, REMOTE_INPUT_TOKENS, Kind, inline_images, input_bound
from penstock.core.prices import Terms
from penstock.ext import Quote, remote_input


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one plan can need, whichever of its targets answers.

    dearest: every part at the price of its dearest target; None = a target has no price.
    quote: the same, where tokens are all that is paid for; None = they are not.
    margin_tokens: what servers add to a prompt. context_tokens: None = not known, or of one target not known.
    longest: the longest answer of any target; None = not known.
    batch: a request may bring many prompts. unit: what its answers are paid by.
    """

    dearest: Price | None
    quote: Quote | None
    margin_tokens: int
    context_tokens: int | None
    longest: int | None
    total_s: float
    unit: Unit
    batch: bool

    def output_cap(self, asked: int | None, tier: int | None) -> int:
        """The most tokens one answer can have."""
        return output_cap(asked, tier, self.longest, None) if self.unit != "input" else 0

    def worst(self, body: bytes, body_bytes: int, choices: int, cap: int) -> tuple[int, int]:
        """(tokens, nano-USD) a request can need at most: what `quote` says, and where there is none.

        body: b"" of one that streams through, which has `body_bytes` bytes. choices: answers. cap: the most tokens of
        one answer, as `output_cap` says.
        """
        bound = self.margin_tokens + body_bytes + inline_images(body) * INLINE_IMAGE_TOKENS
        if body and remote_input(body):
            bound = max(bound, self.context_tokens or REMOTE_INPUT_TOKENS)
        if self.context_tokens is not None and not self.batch:
            bound = min(bound, self.context_tokens)
        worst = worst_case(
            self.dearest,
            input_tokens=bound,
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
    context = None if None in contexts else max(filter(None, contexts), default=None)
    margin = max((input_bound(0, kind) for _, kind, _ in targets), default=0)
    batch = endpoint.unit == "input" or endpoint.route == "/v1/completions"
    price = dearest([each.price for each in terms])
    longest = max((each.max_output_tokens for each in terms if each.max_output_tokens), default=None)
    return Bill(
        dearest=price,
        quote=quote(price or Price(), endpoint, margin=margin, context=context, longest=longest, batch=batch),
        margin_tokens=margin,
        context_tokens=context,
        longest=longest,
        total_s=max((total_s for _, _, total_s in targets), default=0),
        unit=endpoint.unit,
        batch=batch,
    )


def quote(
    price: Price,
    endpoint: Endpoint,
    *,
    margin: int = 0,
    context: int | None = None,
    longest: int | None = None,
    batch: bool = False,
) -> Quote | None:
    """The price of tokens alone; None where images, audio or time are paid for."""
    if endpoint.unit in ("images", "audio") or price.timed_pico:
        return None
    return Quote(
        longest=longest,
        unknown_longest=DEFAULT_MAX_OUTPUT_TOKENS if endpoint.unit != "input" else 0,
        input_pico=price.input_pico,
        cached_pico=price.cached_pico,
        output_pico=price.output_pico,
        reasoning_pico=price.reasoning_pico,
        margin=margin,
        context=context,
        batch=batch,
        image=INLINE_IMAGE_TOKENS,
        remote=REMOTE_INPUT_TOKENS,
        most_tokens=MOST_TOKENS,
        most_nano_usd=MOST_NANO_USD,
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
