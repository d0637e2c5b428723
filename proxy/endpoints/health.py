"""GET /health, /health/live, /health/ready and /api/llm/health: what works, and how each backend does."""

import asyncio
import resource
from typing import TYPE_CHECKING, Any

from penstock.core.errors import Draining
from penstock.core.route import Route
from penstock.ext import BREAKER_OPEN
from penstock.proxy.backend_facts import backend_facts
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App
    from penstock.proxy.shared import Shared

# Whoever looks after us does not wait longer than some seconds either.
PROBE_S = 2.0
# The keeper says at least every 0.5 s that it lives, but one that waits for a locked database takes its time.
KEEPER_SILENT_S = 15.0

State = dict[str, Any]


async def live(app: "App", exchange: Exchange) -> None:
    await send_json(exchange, 200, {"status": "alive"})


async def ready(app: "App", exchange: Exchange) -> None:
    if app.draining:
        raise Draining("this server is shutting down", retry_after_s=1)
    await send_json(exchange, 200, {"status": "ready"})


async def health(app: "App", exchange: Exchange) -> None:
    """200 healthy, 503 degraded: a model has no healthy target, or the store takes no rows."""
    providers = await _providers(app)
    checks = {"providers": providers}
    if app.shared is not None and app.shared.store is not None:
        checks["database"] = database(app.shared, app.uptime_s)
    healthy = all(check["status"] == "healthy" for check in checks.values())
    body = {
        "status": "healthy" if healthy else "degraded",
        "timestamp": _now(app),
        "version": app.version,
        "uptime": round(app.uptime_s, 3),
        "memory": {"max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
        "environment": app.config.server.environment,
        "checks": checks,
    }
    await send_json(exchange, 200 if healthy else 503, body)


async def llm_health(app: "App", exchange: Exchange) -> None:
    """Each backend as all workers see it; asks none of them."""
    backends = backend_facts(app, await app.health.last())
    working = [each["status"] == "healthy" for each in backends.values()]
    status = "healthy" if all(working) else "degraded" if any(working) else "unhealthy"
    await send_json(exchange, 200, {"status": status, "timestamp": _now(app), "backends": backends})


def database(shared: "Shared", uptime_s: float) -> State:
    """What the keeper says of the store, and whether it lives."""
    note = shared.state.note.decode(errors="replace")
    silent_s = min((shared.now_ns() - shared.state.beaten_ns) / 1e9, uptime_s)
    if not note and silent_s > KEEPER_SILENT_S:
        note = "the process that stores usage rows does not answer"
    return {"status": "unhealthy", "error": note} if note else {"status": "healthy"}


def _now(app: "App") -> str:
    return app.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- providers -------------------------------------------------------------------------------------------


async def _providers(app: "App") -> State:
    names = list(app.upstreams)
    states = dict(zip(names, await asyncio.gather(*(_state(app, name) for name in names)), strict=True))
    providers: State = {"status": "healthy", "backends": states}
    if orphans := _orphans(app, {name for name in names if states[name]["status"] == "healthy"}):
        providers |= {"status": "unhealthy", "error": f"no healthy backend for {', '.join(orphans)}"}
    return providers


async def _state(app: "App", name: str) -> State:
    """Whether a backend can serve: asked now, unless the configuration says that it is never to be asked."""
    if app.cells.backends[name].drained:
        return {"status": "unhealthy", "error": "drained by an administrator"}
    if not app.config.backends[name].health.interval_s:
        return {"status": "healthy"}
    try:
        async with asyncio.timeout(PROBE_S):
            check = await app.health.probes.ask(name)
    except TimeoutError:
        return {"status": "unhealthy", "error": f"no answer within {PROBE_S:g} s"}
    if not check.ok:
        return {"status": "unhealthy", "error": check.words}
    return {"status": "healthy", "latency_ms": check.latency_ms}


def _orphans(app: "App", healthy: set[str]) -> list[str]:
    """Configured models that no target can answer for, their fallbacks' neither, and the default backend likewise."""
    app.health.meet()
    now_ns = app.health.now_ns()

    def works(backend: str, model: str | None) -> bool:
        cell = app.cells.targets.get((backend, model or ""))
        return backend in healthy and (cell is None or cell.breaker(now_ns) != BREAKER_OPEN)

    def served(route: Route) -> bool:
        return any(works(target.backend, target.model) for group in route.groups for target in group.targets)

    models = [name for name, route in app.routes.models.items() if not served(route)]
    default = app.routes.default_backend
    return [*models, *([f"the default backend {default}"] if default and not works(default, None) else [])]
