"""Active health checks: what a backend is asked, when it is asked again, and when it counts as down."""

import msgspec

from penstock.core.config import Backend

SOON_S = 1.0
"""A backend in trouble is asked so often, that its recovery is seen soon."""
FAILURES = 2
"""So many failed checks in a row and a backend is down; one may be a lost packet."""
JITTER = 0.2
"""Pauses are spread by this share, so that several hosts do not ask at the same moment."""
KIND_PATHS = {"ollama": "/api/tags", "openai": "/models", "demo": "/models", "anthropic": "/v1/models"}
"""Below the backend's url. None of them costs a token or makes a host load a model."""
DEMO_BASE = "/v1"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a backend and what came of it.

    at: epoch seconds. words: what it answered, or what failed. where: `place` of the backend that was asked.
    failed_in_row: of this and the checks before it.
    """

    at: float
    ok: bool
    latency_ms: float
    words: str
    where: str = ""
    failed_in_row: int = 0


def check_path(backend: Backend) -> str:
    """The path on the backend's server: as configured, or the model list of its kind."""
    if backend.health.path:
        return backend.health.path
    base = DEMO_BASE if backend.url is None else backend.url.path.rstrip("/")
    return base + KIND_PATHS[backend.kind]


def place(backend: Backend) -> str:
    """What is asked where: under the same name a changed configuration may mean another server."""
    return f"{backend.url or ''} {check_path(backend)}"


def alive(status: int) -> bool:
    """Whether an answer says that the backend works; one that refuses our key does."""
    return status < 500


def following(before: Check | None, now: Check) -> Check:
    """`now` with its place in the row of failures."""
    if now.ok:
        return now
    return msgspec.structs.replace(now, failed_in_row=1 + (before.failed_in_row if before else 0))


def is_down(was_down: bool, check: Check) -> bool:
    """One success is enough to be up; one failure is not enough to be down."""
    return not check.ok and (was_down or check.failed_in_row >= FAILURES)


def pause_s(interval_s: float, in_trouble: bool, random: float) -> float:
    """How long to wait after a check. random: 0 to 1."""
    pause = min(SOON_S, interval_s) if in_trouble else interval_s
    return pause * (1 + JITTER * (random - 0.5))
