"""/admin/backends: how each backend does, and taking one out of service and back.

The flags stand in shared memory, so a call holds in every worker before it is answered. Requests that are under way at
a drained backend go on.
"""

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from penstock.core.errors import NotFound
from penstock.core.nearest import suggestion
from penstock.proxy.backend_facts import backend_facts
from penstock.proxy.exchange import Exchange
from penstock.proxy.inbound import discard
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App

PREFIX = b"/admin/backends/"


async def backends(app: "App", exchange: Exchange) -> None:
    await send_json(exchange, 200, {"backends": backend_facts(app, await app.health.last())})


async def backend_do(app: "App", exchange: Exchange) -> None:
    """POST /admin/backends/{name}/drain and /enable. Raises NotFound, with the nearest name."""
    name, do = _asked(exchange.path)
    if name not in app.config.backends:
        raise NotFound(f"no backend is called {name[:200]!r}{suggestion(name, app.config.backends)}", param="name")
    if do not in ACTIONS:
        raise NotFound(f"a backend can be drained or enabled; POST {PREFIX.decode()}{name}/drain or /enable")
    await discard(exchange)  # there is nothing to be told in a body
    ACTIONS[do](app, name)
    fields = {"backend": name, "why": "an administrator asked", "requestId": exchange.request_id.decode("latin-1")}
    app.log.event("info", f"a backend was {DONE[do]}", **fields)
    facts = backend_facts(app, await app.health.last())[name]
    await send_json(exchange, 200, {"name": name, **facts})


def _asked(path: bytes) -> tuple[str, str]:
    name, _, do = path.removeprefix(PREFIX).rpartition(b"/")
    return unquote_to_bytes(name).decode("utf-8", "replace"), do.decode("latin-1")


def _drain(app: "App", name: str) -> None:
    app.cells.backends[name].drained = True


def _enable(app: "App", name: str) -> None:
    """In service again, as if nothing had failed there."""
    app.cells.backends[name].drained = False
    for (backend, _), cell in tuple(app.cells.targets.items()):
        if backend == name:
            cell.reset()


ACTIONS = {"drain": _drain, "enable": _enable}
DONE = {"drain": "drained", "enable": "enabled"}
