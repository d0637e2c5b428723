"""Each backend as all workers see it: what is in flight and waits there, its breakers, its last check, its models."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from penstock.core.explain import BREAKERS
from penstock.core.health import Check, check_path
from penstock.ext import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, TargetCell

if TYPE_CHECKING:
    from penstock.proxy.app import App

# Of several targets' breakers the one to be told of their backend.
_WORST = (BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_CLOSED)


def backend_facts(app: "App", checks: Mapping[str, Check]) -> dict[str, dict[str, Any]]:
    """By name, in the file's order. checks: the last of each backend, where there was one."""
    app.health.meet()
    models = _models(app)
    targets: dict[str, dict[str, TargetCell]] = {name: {} for name in app.config.backends}
    for (backend, model), cell in sorted(app.cells.targets.items()):
        targets[backend][model] = cell
    return {
        name: _facts(app, name, targets[name], checks.get(name), sorted(models[name])) for name in app.config.backends
    }


def _facts(
    app: "App", name: str, targets: Mapping[str, TargetCell], check: Check | None, models: list[str]
) -> dict[str, Any]:
    backend, cell, now_ns = app.config.backends[name], app.cells.backends[name], app.health.now_ns()
    breakers = {each.breaker(now_ns) for each in targets.values()}
    breaker = next((state for state in _WORST if state in breakers), BREAKER_CLOSED)
    latencies = [each.latency_ns for each in targets.values() if each.latency_ns]
    broken = cell.down or (bool(breakers) and breakers == {BREAKER_OPEN})
    return {
        "status": "drained" if cell.drained else "unhealthy" if broken else "healthy",
        "kind": backend.kind,
        "drained": cell.drained,
        "down": cell.down,
        "breaker": BREAKERS[breaker],
        "in_flight": cell.in_flight,
        "max_in_flight": backend.max_in_flight or None,
        "waiting": cell.waiting,
        "latency_ms": _ms(sum(latencies) // len(latencies)) if latencies else None,
        "last_check": None if check is None else _told(check, check_path(backend)),
        "targets": [_target(model, each, now_ns) for model, each in targets.items()],
        "models": models,
    }


def _target(model: str, cell: TargetCell, now_ns: int) -> dict[str, Any]:
    requests, failures = cell.window(now_ns)
    return {
        "model": model or None,
        "breaker": BREAKERS[cell.breaker(now_ns)],
        "failures_in_row": cell.failures_in_row,
        "requests": requests,
        "failures": failures,
        "retry_in_s": round(cell.retry_in_ns(now_ns) / 1e9, 1),
        "latency_ms": _ms(cell.latency_ns) if cell.latency_ns else None,
    }


def _told(check: Check, path: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(check.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"at": at, "ok": check.ok, "path": path, "latency_ms": check.latency_ms}
    return told if check.ok else {**told, "error": check.words, "failed_in_row": check.failed_in_row}


def _models(app: "App") -> dict[str, set[str]]:
    """The public names a backend serves, as configured and as reported."""
    served: dict[str, set[str]] = {name: set() for name in app.config.backends}
    for name, route in app.routes.models.items():
        for target in route.groups[0].targets:
            served[target.backend].add(name)
    for name, backends in app.discovery.by_name.items():
        for backend in backends:
            served[backend].add(name)
    return served


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
