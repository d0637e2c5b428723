"""Endpoints that penstock answers itself, by the names the table in `core/endpoint.py` gives them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from penstock.proxy.endpoints import admin, auth
from penstock.proxy.endpoints.backends import backend_do, backends
from penstock.proxy.endpoints.cache import cache, clear
from penstock.proxy.endpoints.chaos import chaos, one_fault
from penstock.proxy.endpoints.explain import explain
from penstock.proxy.endpoints.health import health, live, llm_health, ready
from penstock.proxy.endpoints.models import model, models
from penstock.proxy.endpoints.usage import own_usage
from penstock.proxy.exchange import Exchange

if TYPE_CHECKING:
    from penstock.proxy.app import App

OWN: Mapping[str, "Callable[[App, Exchange], Awaitable[None]]"] = {
    "health": health,
    "live": live,
    "ready": ready,
    "llm_health": llm_health,
    "models": models,
    "model": model,
    "usage": own_usage,
    "create_key": auth.create_key,
    "verify_key": auth.verify_key,
    "list_keys": auth.list_keys,
    "revoke_key": auth.revoke_key,
    "rotate_key": auth.rotate_key,
    "update_key": auth.update_key,
    "admin_stats": admin.stats,
    "admin_usage": admin.usage,
    "cache": cache,
    "clear_cache": clear,
    "chaos": chaos,
    "chaos_fault": one_fault,
    "backends": backends,
    "backend_do": backend_do,
    "explain": explain,
}
