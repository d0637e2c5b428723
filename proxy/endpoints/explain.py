"""POST /admin/explain: what would become of a request, without sending anything anywhere.

The would-be request goes the way of `App.handle` as far as its plan, then is held against limits and targets without
taking anything from either.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.core.endpoint import Endpoint, match
from penstock.core.errors import InvalidKey, InvalidRequest, KeyExpired, KeyRevoked, PenstockError
from penstock.core.explain_request import ExplainRequest
from penstock.core.principal import ANONYMOUS, Principal
from penstock.proxy.admission import check_allowed, check_price
from penstock.proxy.endpoints.small_body import read_small
from penstock.proxy.exchange import Exchange
from penstock.proxy.explain import Facts, foreseen, limit_facts, plan_facts, stood
from penstock.proxy.held import held_of
from penstock.proxy.identify import Caller
from penstock.proxy.inbound import Sizes, read_body
from penstock.proxy.key_register import state_of
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.core.plan import Plan
    from penstock.proxy.app import App


async def explain(app: "App", exchange: Exchange) -> None:
    wish = await read_small(exchange, ExplainRequest, app.config.server.max_body_bytes)
    if wish.key is not None and wish.key_id is not None:
        raise InvalidRequest('give "key" or "key_id", not both', param="key_id")
    await send_json(exchange, 200, await dry_run(app, wish))


async def dry_run(app: "App", wish: ExplainRequest) -> Facts:
    """`refused`: the error the request would meet before any target is tried; None = it would be tried."""
    would_be = would_be_exchange(app, wish)
    try:
        return await _explained(app, wish, would_be)
    except PenstockError as error:
        principal = None if would_be.caller is None else would_be.caller.principal
        return {
            "endpoint": None if would_be.endpoint is None else would_be.endpoint.route,
            "model": would_be.model,
            "key_id": (principal.key_id or None) if principal else None,
            "tier": (principal.tier or None) if principal else None,
            "refused": _told(error),
        }
    finally:
        would_be.close()


async def _explained(app: "App", wish: ExplainRequest, would_be: Exchange) -> Facts:
    endpoint = _match(would_be)
    would_be.endpoint = endpoint
    would_be.caller = await _caller(app, wish)
    server = app.config.server
    if (reading := read_body(would_be, endpoint, Sizes(server.max_body_bytes, server.max_upload_bytes))) is not None:
        await reading
    plan = await app.plan(endpoint, would_be.model)
    facts = {**plan_facts(app, plan, would_be), "groups": [foreseen(group) for group in stood(app, plan)]}
    del facts["request_id"]
    limits = limit_facts(app, plan, would_be, ahead=True) if endpoint.counted else {"limits": [], "worst_case": None}
    return {**facts, "waiting": app.cells.shared.waiting, **limits, "refused": _refusal(plan, would_be, limits)}


def _match(would_be: Exchange) -> Endpoint:
    endpoint = match(would_be.method, would_be.path)
    if endpoint.own:
        raise InvalidRequest("penstock answers this path itself; no target is chosen for it", param="path")
    return endpoint


def _refusal(plan: "Plan", would_be: Exchange, limits: Facts) -> Facts | None:
    """Why admission would not let it in."""
    caller = would_be.caller
    if caller is None or not plan.endpoint.counted:
        return None
    try:
        check_allowed(plan, would_be, caller.allowance)
        check_price(plan, caller)
    except PenstockError as error:
        return _told(error)
    refusing = [each["name"] for each in limits["limits"] if each["refuses"]]
    if not refusing:
        return None
    message = f"too little is left of {', '.join(refusing)}"
    return {"status": 429, "code": "rate_limit_exceeded", "message": message}


def _told(error: PenstockError) -> Facts:
    return {"status": error.status, "code": error.code, "message": error.message}


# --- the would-be request --------------------------------------------------------------------------------


def would_be_exchange(app: "App", wish: ExplainRequest) -> Exchange:
    """A request that nobody sent and nobody hears of."""
    path, _, query = wish.path.partition("?")
    body = b"" if wish.body is None else msgspec.json.encode(wish.body)
    headers = [(b"host", b"localhost")]
    if wish.body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": wish.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": None,
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        """Nobody listens."""

    return Exchange(scope, receive, send, app.loop, 0.0, b"")


async def _caller(app: "App", wish: ExplainRequest) -> Caller | None:
    """Whose limits count. Raises InvalidKey, KeyRevoked, KeyExpired, NotFound, StoreUnavailable."""
    identify = app.kept.identify
    if wish.key is not None:
        principal = await identify.verify(wish.key.encode())
        if principal is None:
            raise InvalidKey("this API key is not valid")
        return identify.caller_of(principal)
    if wish.key_id is not None:
        return identify.caller_of(await _principal(app, wish.key_id))
    return identify.caller_of(ANONYMOUS) if app.config.auth.mode == "none" else None


async def _principal(app: "App", key_id: str) -> Principal:
    of_file = [held.principal for held in app.kept.ring.of_file.values()]
    for principal in of_file:
        if principal is not None and principal.key_id == key_id:
            return principal
    record = await asyncio.to_thread(app.kept.register.record, key_id)
    match state_of(record, app.clock().timestamp())["status"]:
        case "revoked":
            raise KeyRevoked("this API key has been revoked")
        case "expired":
            raise KeyExpired("this API key has expired")
    principal = held_of(record)[0].principal
    if principal is None:
        raise InvalidKey("this API key is not valid")
    return principal
