"""From the configuration's words to the compiled balancer's: rules as numbers, and ids that all workers agree on."""

from collections.abc import Mapping
from hashlib import blake2b

from penstock.core.config import Balance, Breaker
from penstock.ext import BALANCE_LATENCY, BALANCE_LEAST_IN_FLIGHT, BALANCE_WEIGHTED

BALANCES: Mapping[Balance, int] = {
    "least_in_flight": BALANCE_LEAST_IN_FLIGHT,
    "weighted": BALANCE_WEIGHTED,
    "latency": BALANCE_LATENCY,
}
SECOND_NS = 1_000_000_000

BreakerRules = tuple[int, float, int, int, int]
"""(failures, ratio, window_ns, min_requests, recovery_ns), as ext.Balancer takes them."""


def breaker_rules(breaker: Breaker) -> BreakerRules:
    return (
        breaker.failures,
        breaker.failure_ratio,
        round(breaker.window_s * SECOND_NS),
        breaker.min_requests,
        round(breaker.recovery_s * SECOND_NS),
    )


def backend_id(backend: str, url: str) -> int:
    """The id of a backend's cell in shared memory, 64 bits, never 0. url: "" of a built-in one.

    The address is part of it: what was learned of one server says nothing about another under the same name.
    """
    return _id(b"backend", backend, url)


def target_id(backend: str, url: str, model: str) -> int:
    """The id of a target's cell. model: its name there, "" where requests name none or any."""
    return _id(b"target", backend, url, model)


def _id(kind: bytes, *parts: str) -> int:
    # No part is ambiguous: each has its length before it.
    text = b"".join(b"%d:%b" % (len(raw), raw) for raw in (kind, *(part.encode() for part in parts)))
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") or 1
