"""Figures: what a scenario found, its gate and verdict."""

import sys
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One row of the report. value is what the gate judges, in `unit`; low and high are of the same kind."""

    scenario: str
    what: str
    unit: str
    penstock: float
    nginx: float | None
    value: float
    value_unit: str
    low: float
    high: float
    gate: float | None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return self.gate is None or self.value <= self.gate

    @property
    def verdict(self) -> str:
        if self.gate is None:
            return "–"
        return "pass" if self.passes else "FAIL"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Ratios:
    """Costs in CPU seconds per unit of work, by server, a value per round."""

    scenario: str
    what: str
    cost_s: dict[str, list[float]]
    gate: float
    per_s: dict[str, list[float]] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def figure(self) -> Figure:
        ours, theirs = self.cost_s["penstock"], self.cost_s["nginx"]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return Figure(
            self.scenario,
            self.what,
            "µs",
            median(ours) * 1e6,
            median(theirs) * 1e6,
            median(ratios),
            "× nginx",
            min(ratios),
            max(ratios),
            self.gate,
            {
                "rounds_us": {name: [round(c * 1e6, 2) for c in costs] for name, costs in self.cost_s.items()},
                "per_s": {name: round(median(values)) for name, values in self.per_s.items()},
                **self.more,
            },
        )


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
