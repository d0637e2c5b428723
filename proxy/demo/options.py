"""How the demo backend behaves: defaults of the server, and what one request asks for by header."""

from __future__ import annotations

import math
from random import Random

import msgspec

from penstock.proxy.demo.answer import Refused
from penstock.proxy.demo.fault import Fault
from penstock.proxy.demo.faults import parse_fault

MAX_TOKENS = 4_000_000
"""So that a header cannot take all the memory of the process the demo backend lives in."""
_MAX_BYTES = 10**15


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults for every request; an `X-Demo-*` header of the same name overrides each of the first five."""

    tokens: int | None = None
    """Length of an answer in tokens; None: as long as the text happens to be."""
    rate: float = 30.0
    """Tokens per second of a stream; 0: as fast as the client reads."""
    first_ms: float = 0.0
    """Delay before the head of an answer."""
    bytes: int | None = None
    """Size of the text of an answer, or of a binary body; None: as it happens to be."""
    fault: str = ""
    """What goes wrong, as in `X-Demo-Fault`; empty: nothing."""
    fault_probability: float = 1.0
    """Share of requests that `fault` hits."""
    idle_close_probability: float = 0.0
    """Share of answers after which the kept connection turns out to be closed."""
    seed: int | None = None
    """Seed of every random choice, so that a run can be repeated; None: another one each time."""


class Control(msgspec.Struct, frozen=True):
    """What applies to one request."""

    tokens: int | None
    rate: float
    first_s: float
    size_bytes: int | None
    fault: Fault | None

    def has_fault(self, name: str) -> bool:
        return self.fault is not None and self.fault.name == name


def default_control(options: DemoOptions) -> Control:
    """Raises Refused when the options name an unknown fault."""
    return Control(
        tokens=options.tokens,
        rate=options.rate,
        first_s=options.first_ms / 1000,
        size_bytes=options.bytes,
        fault=parse_fault(options.fault),
    )


def control_for(fields: dict[str, str], default: Control, calm: Control, options: DemoOptions, rng: Random) -> Control:
    """The control of a request with these header fields; `calm` is `default` without its fault."""
    base = default
    if default.fault is not None and options.fault_probability < 1:
        base = default if rng.random() < options.fault_probability else calm
    if not any(name.startswith("x-demo-") for name in fields):
        return base
    return Control(
        tokens=_count(fields, "x-demo-tokens", base.tokens, MAX_TOKENS),
        rate=_number(fields, "x-demo-rate", base.rate),
        first_s=_number(fields, "x-demo-first-ms", base.first_s * 1000) / 1000,
        size_bytes=_count(fields, "x-demo-bytes", base.size_bytes, _MAX_BYTES),
        fault=parse_fault(fields["x-demo-fault"]) if "x-demo-fault" in fields else base.fault,
    )


def _count(fields: dict[str, str], name: str, default: int | None, limit: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= limit):
        raise Refused(400, f"{name} must be a whole number up to {limit}, not {value!r}", param=name)
    return int(value)


def _number(fields: dict[str, str], name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number < 0 or not math.isfinite(number):
        raise Refused(400, f"{name} must be a number from 0, not {value!r}", param=name)
    return number
