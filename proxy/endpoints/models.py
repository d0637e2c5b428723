"""GET /v1/models and /v1/models/{id}: the configured models, merged with what backends report."""

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from penstock.core.route import unknown_model
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App


async def models(app: "App", exchange: Exchange) -> None:
    await app.discovery.refresh()
    await send_json(exchange, 200, {"object": "list", "data": list(allowed(app, exchange).values())})


async def model(app: "App", exchange: Exchange) -> None:
    await app.discovery.refresh()
    name = unquote_to_bytes(exchange.path.removeprefix(b"/v1/models/")).decode("utf-8", "replace")
    by_name = allowed(app, exchange)
    if name not in by_name:
        raise unknown_model(name, by_name)
    await send_json(exchange, 200, by_name[name])


def allowed(app: "App", exchange: Exchange) -> dict[str, dict[str, Any]]:
    """Those of `known` that the caller's tier may use."""
    caller = exchange.caller
    if caller is None or caller.allowance.models is None:
        return known(app)
    return {name: each for name, each in known(app).items() if caller.allowance.allows_model(name)}


def known(app: "App") -> dict[str, dict[str, Any]]:
    """Model objects by name: a configured name hides a reported one, a reported object stays as it is."""
    ours = {
        name: {
            "id": name,
            "object": "model",
            "created": int(app.started_at.timestamp()),
            "owned_by": "penstock",
        }
        for name in app.routes.models
    }
    return ours | {found["id"]: found for found in app.discovery.models if found["id"] not in ours}
