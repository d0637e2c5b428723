"""What the configuration alone says of a request: its targets and fallbacks, and the limits of a key of the file."""

from typing import Any

from penstock.core.config import Config
from penstock.core.endpoint import Endpoint, match
from penstock.core.errors import InvalidRequest, ModelNotFound, NotFound, PenstockError
from penstock.core.explain import target_name
from penstock.core.keys import file_key_id
from penstock.core.limits import Limit, Rules, allowance
from penstock.core.measures import MEASURE_NANO_USD, NANO, UNLIMITED
from penstock.core.principal import Principal
from penstock.core.refusals import model_not_allowed
from penstock.core.route import Route, RouteGroup, Routes, unknown_model
from penstock.proxy.settings import Settings

Facts = dict[str, Any]


def explained_from_file(settings: Settings, wish: Facts) -> Facts:
    """As POST /admin/explain answers, as far as the file goes. wish: path, body with its model, key_id."""
    config, model = settings.config, wish["body"]["model"]
    facts: Facts = {"model": model, "endpoint": None}
    try:
        endpoint = match("POST", wish["path"].partition("?")[0].encode())
        facts["endpoint"] = endpoint.route
        facts["groups"] = [_group(config, group) for group in _route(config, endpoint, model).groups]
        if "key_id" in wish:
            facts |= _key(config, wish["key_id"], model)
    except PenstockError as error:
        facts["refused"] = {"status": error.status, "code": error.code, "message": error.message}
    return facts


def _route(config: Config, endpoint: Endpoint, model: str) -> Route:
    """Raises ModelNotFound, InvalidRequest."""
    if endpoint.own:
        raise InvalidRequest("penstock answers this path itself; no target is chosen for it", param="path")
    routes = Routes.of(config)
    route = routes.of_model(model, {})
    if route is not None:
        return route
    if reporting := [name for name, each in config.backends.items() if each.discover]:
        words = f"the file does not name the model {model[:200]!r}"
        raise ModelNotFound(f"{words}; only a server knows whether {' or '.join(reporting)} reports it")
    raise unknown_model(model, routes.models)


def _group(config: Config, group: RouteGroup) -> Facts:
    targets = [
        {
            "target": target_name(each.backend, each.model),
            "weight": each.weight,
            "max_in_flight": config.backends[each.backend].max_in_flight or None,
        }
        for each in group.targets
    ]
    return {"model": group.model, "balance": group.balance, "targets": targets}


def _key(config: Config, key_id: str, model: str) -> Facts:
    """Raises NotFound, ModelNotAllowed."""
    key = next((key for key in config.keys if file_key_id(key.name) == key_id), None)
    if key is None:
        raise NotFound(f"the file has no key with the id {key_id!r}; those of the store only a server knows")
    principal = Principal(key_id=key_id, name=key.name, tenant_id=key.tenant_id, user_id=key.user_id, tier=key.tier)
    allowed = allowance(principal, Rules.of(config))
    if not allowed.allows_model(model):
        raise model_not_allowed(allowed, model)
    limits = [_limit(each) for each in allowed.limits if each.amount != UNLIMITED]
    return {"key_id": key_id, "tier": key.tier or None, "limits": limits}


def _limit(limit: Limit) -> Facts:
    in_money = limit.measured.measure == MEASURE_NANO_USD
    return {
        "name": limit.measured.name,
        "scope": limit.scope,
        "limit": limit.amount / NANO if in_money else limit.amount,
    }
