"""Endpoints that penstock answers itself, by the names the table in `core/endpoint.py` gives them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from penstock.proxy.endpoints.health import health, live, ready
from penstock.proxy.endpoints.models import model, models
from penstock.proxy.exchange import Exchange

if TYPE_CHECKING:
    from penstock.proxy.app import App

OWN: Mapping[str, "Callable[[App, Exchange], Awaitable[None]]"] = {
    "health": health,
    "live": live,
    "ready": ready,
    "models": models,
    "model": model,
}
