"""GET /health, /health/live and /health/ready: what works, whether the process answers, whether it can serve."""

import asyncio
import resource
from typing import TYPE_CHECKING, Any

from penstock.core.errors import Draining, PenstockError
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json
from penstock.proxy.upstream.fetch import fetch

if TYPE_CHECKING:
    from penstock.proxy.app import App
    from penstock.proxy.shared import Shared

PROBE_S = 2.0
# The keeper says at least every 0.5 s that it lives, but one that waits for a locked database takes its time.
KEEPER_SILENT_S = 15.0
# Never a completion, and nothing that makes a host load a model.
PROBES = {"ollama": b"/api/version"}


async def live(app: "App", exchange: Exchange) -> None:
    await send_json(exchange, 200, {"status": "alive"})


async def ready(app: "App", exchange: Exchange) -> None:
    if app.draining:
        raise Draining("this server is shutting down", retry_after_s=1)
    await send_json(exchange, 200, {"status": "ready"})


async def health(app: "App", exchange: Exchange) -> None:
    """200 healthy, 503 degraded: a model has no backend that answers, or the store takes no rows."""
    names = list(app.upstreams)
    states = dict(zip(names, await asyncio.gather(*(_probe(app, name) for name in names)), strict=True))
    degraded = _orphans(app, states)
    providers: dict[str, Any] = {"status": "healthy", "backends": states}
    if degraded:
        providers |= {"status": "unhealthy", "error": f"no healthy backend for {', '.join(degraded)}"}
    checks = {"providers": providers}
    if app.shared is not None and app.shared.store is not None:
        checks["database"] = database(app.shared, app.uptime_s)
    healthy = all(check["status"] == "healthy" for check in checks.values())
    body = {
        "status": "healthy" if healthy else "degraded",
        "timestamp": app.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "version": app.version,
        "uptime": round(app.uptime_s, 3),
        "memory": {"max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
        "environment": app.config.server.environment,
        "checks": checks,
    }
    await send_json(exchange, 200 if healthy else 503, body)


def database(shared: "Shared", uptime_s: float) -> dict[str, Any]:
    """What the keeper says of the store, and whether it lives."""
    note = shared.state.note.decode(errors="replace")
    silent_s = min((shared.now_ns() - shared.state.beaten_ns) / 1e9, uptime_s)
    if not note and silent_s > KEEPER_SILENT_S:
        note = "the process that stores usage rows does not answer"
    return {"status": "unhealthy", "error": note} if note else {"status": "healthy"}


async def _probe(app: "App", name: str) -> dict[str, Any]:
    path = PROBES.get(app.config.backends[name].kind, b"/v1/models")
    before = app.loop.time()
    try:
        status, _ = await fetch(app.upstreams[name], app.pools[name], path, timeout_s=PROBE_S)
    except PenstockError as error:
        return {"status": "unhealthy", "error": error.message}
    if status >= 500:
        return {"status": "unhealthy", "error": f"answers {status}"}
    return {"status": "healthy", "latency_ms": round((app.loop.time() - before) * 1000, 3)}


def _orphans(app: "App", states: dict[str, dict[str, Any]]) -> list[str]:
    """Configured models none of whose targets is healthy, and the default backend if it is not."""
    healthy = {name for name, state in states.items() if state["status"] == "healthy"}
    models = [
        name
        for name, route in app.routes.models.items()
        if not any(target.backend in healthy for target in route.groups[0].targets)
    ]
    default = app.routes.default_backend
    return [*models, *([f"the default backend {default}"] if default and default not in healthy else [])]
