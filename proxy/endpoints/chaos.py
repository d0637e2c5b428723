"""/admin/chaos: an administrator looks at faults on purpose, sets them, and stops one or all of them."""

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from penstock.core.chaos import read_fault
from penstock.core.errors import NotFound
from penstock.proxy.chaos import Chaos
from penstock.proxy.endpoints.small_body import small_json
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App

PREFIX = b"/admin/chaos/"


async def chaos(app: "App", exchange: Exchange) -> None:
    """GET: every fault. POST: one more. DELETE: none happens any more, in any worker."""
    faults = _enabled(app)
    if exchange.method == "POST":
        fault = read_fault(await small_json(exchange), app.config.backends)
        await faults.add(fault)
        _note(app, exchange, "a fault on purpose was set", fault.name)
    elif exchange.method == "DELETE":
        await faults.stop_all()
        _note(app, exchange, "all faults on purpose were stopped", "")
    else:
        await faults.tick()  # what another worker has just written is told too
    await send_json(exchange, 200, {"faults": faults.told()})


async def one_fault(app: "App", exchange: Exchange) -> None:
    """DELETE: this one does not happen any more."""
    faults = _enabled(app)
    name = unquote_to_bytes(exchange.path.removeprefix(PREFIX)).decode(errors="replace")
    await faults.stop(name)
    _note(app, exchange, "a fault on purpose was stopped", name)
    await send_json(exchange, 200, {"faults": faults.told()})


def _enabled(app: "App") -> Chaos:
    if app.attempts.chaos is None:
        raise NotFound("there are no faults on purpose here: chaos.enabled is false in the configuration")
    return app.attempts.chaos


def _note(app: "App", exchange: Exchange, message: str, name: str) -> None:
    app.log.event("warning", message, name=name, requestId=exchange.request_id.decode("latin-1"))
