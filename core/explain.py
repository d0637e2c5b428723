"""Why a request goes to one target and not to another, in words and figures for people."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, Self

import msgspec

from penstock.core.config import Balance
from penstock.ext import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN

BREAKERS = {BREAKER_CLOSED: "closed", BREAKER_OPEN: "open", BREAKER_HALF_OPEN: "half_open"}
PASSED_OVER: dict[Balance, str] = {
    "least_in_flight": "another has less in flight for its weight",
    "weighted": "another was drawn, by weight",
    "latency": "another is quicker, or was drawn",
}
NOT_NEEDED = "it was not needed"
NOT_TRIED = "no target was tried yet"
View = tuple[int, str, int, int, int, int, int, int]
"""As ext.Balancer.view tells of a member: (usable, why, in flight, waiting, breaker, failures in a row, ns until a
probe, latency in ns)."""


class Stood(msgspec.Struct, frozen=True, kw_only=True):
    """A target as it stood when one was to be chosen.

    model: the name there, "" where requests name none. max_in_flight: 0 = no limit. why: what speaks against it, in
    the words of ext.Balancer.view; usable: it could be taken all the same. latency_ns: 0 = not measured yet.
    """

    backend: str
    model: str
    weight: int
    max_in_flight: int
    usable: bool
    why: str
    in_flight: int
    waiting: int
    breaker: int
    failures_in_row: int
    retry_in_ns: int
    latency_ns: int

    @classmethod
    def of(cls, backend: str, model: str, weight: int, max_in_flight: int, view: View) -> Self:
        usable, why, in_flight, waiting, breaker, failures, retry_in_ns, latency_ns = view
        return cls(
            backend=backend,
            model=model,
            weight=weight,
            max_in_flight=max_in_flight,
            usable=bool(usable),
            why=why,
            in_flight=in_flight,
            waiting=waiting,
            breaker=breaker,
            failures_in_row=failures,
            retry_in_ns=retry_in_ns,
            latency_ns=latency_ns,
        )

    @property
    def name(self) -> str:
        return target_name(self.backend, self.model)

    def told(self) -> dict[str, Any]:
        """Its figures, as answers have them."""
        return {
            "target": self.name,
            "weight": self.weight,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight or None,
            "waiting": self.waiting,
            "breaker": BREAKERS[self.breaker],
            "failures_in_row": self.failures_in_row,
            "retry_in_s": round(self.retry_in_ns / 1e9, 1),
            "latency_ms": round(self.latency_ns / 1e6, 3) if self.latency_ns else None,
        }


def target_name(backend: str, model: str | None) -> str:
    """How people are told of a target."""
    return f"{backend}/{model}" if model else backend


def candidates(stood: Sequence[Stood]) -> list[int]:
    """The indexes of those one would be chosen from: a backend that is down only where there is no other."""
    well = [index for index, each in enumerate(stood) if each.usable and each.why != "down"]
    return well or [index for index, each in enumerate(stood) if each.why == "down" and each.breaker != BREAKER_OPEN]


def chances(balance: Balance, stood: Sequence[Stood]) -> list[float]:
    """The share of requests each would get if all stayed as it is; all 0 where none can be taken."""
    shares = [0.0] * len(stood)
    among = candidates(stood)
    if balance == "weighted":
        total = sum(stood[index].weight for index in among)
        for index in among:
            shares[index] = stood[index].weight / total
    elif balance == "latency" and len(among) > 1:
        _duels(stood, among, shares)
    else:
        for index in (best := _least([_load(each) for each in stood], among)):
            shares[index] = 1 / len(best)
    return shares


def why_not(each: Stood) -> str:
    """What speaks against a target; "" if nothing does."""
    match each.why:
        case "drained":
            return "its backend is drained"
        case "open":
            return f"its breaker is open, for {each.retry_in_ns / 1e9:.1f} s more"
        case "half_open":
            return "its breaker is half open, and a probe is under way"
        case "full":
            return _full(each)
        case "down":
            return "its backend is down, a health check says"
    return ""


def remark(each: Stood) -> str:
    """What is to be known of a target that can be taken; "" as a rule."""
    return "its breaker is half open: one request tries it" if each.breaker == BREAKER_HALF_OPEN else ""


def _full(each: Stood) -> str:
    if each.waiting and each.in_flight < (each.max_in_flight or each.in_flight + 1):
        return f"{each.waiting} wait for it in line"
    return "its place is taken" if each.max_in_flight == 1 else f"all its {each.max_in_flight} places are taken"


def _load(each: Stood) -> float:
    return (each.in_flight + 1) / each.weight


def _least(scores: Sequence[float], among: Iterable[int]) -> list[int]:
    among = list(among)
    least = min((scores[index] for index in among), default=0.0)
    return [index for index in among if scores[index] == least]


def _duels(stood: Sequence[Stood], among: Sequence[int], shares: list[float]) -> None:
    """Two different ones are drawn, and the one with the lower latency for its load is taken."""
    scores = [each.latency_ns * _load(each) for each in stood]
    pairs = list(combinations(among, 2))
    for pair in pairs:
        for index in (best := _least(scores, pair)):
            shares[index] += 1 / len(best) / len(pairs)
