"""/auth: an administrator makes, lists, changes and ends keys; anybody may ask whether a key is good."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from penstock.core.key_requests import CreateKey, NamedKey, RotateKey, UpdateKey, VerifyKey
from penstock.core.principal import Principal
from penstock.proxy.endpoints.small_body import read_small
from penstock.proxy.exchange import Exchange
from penstock.proxy.key_register import facts, iso, state_of
from penstock.proxy.reply import send_json
from penstock.proxy.store import KeyRecord

if TYPE_CHECKING:
    from penstock.proxy.app import App

    Handler = Callable[[App, Exchange], Awaitable[None]]

# A key is told once, and no cache on the way may keep it.
SECRET = ((b"cache-control", b"no-store"),)


async def create_key(app: "App", exchange: Exchange) -> None:
    wish = await read_small(exchange, CreateKey)
    key, record = await asyncio.to_thread(app.kept.register.create, wish)
    _note(app, exchange, "key created", record)
    await send_json(exchange, 201, {"api_key": key, **facts(record)}, SECRET)


async def rotate_key(app: "App", exchange: Exchange) -> None:
    wish = await read_small(exchange, RotateKey)
    key, record = await asyncio.to_thread(app.kept.register.rotate, wish)
    _note(app, exchange, "key rotated", record)
    body = {"api_key": key, **facts(record), "previous_valid_until": iso(record.previous_valid_until)}
    await send_json(exchange, 200, body, SECRET)


async def revoke_key(app: "App", exchange: Exchange) -> None:
    wish = await read_small(exchange, NamedKey)
    record = await asyncio.to_thread(app.kept.register.revoke, wish.id)
    _note(app, exchange, "key revoked", record)
    await send_json(exchange, 200, _told(app, record))


async def update_key(app: "App", exchange: Exchange) -> None:
    wish = await read_small(exchange, UpdateKey)
    record = await asyncio.to_thread(app.kept.register.update, wish)
    _note(app, exchange, "key changed", record)
    await send_json(exchange, 200, _told(app, record))


async def list_keys(app: "App", exchange: Exchange) -> None:
    """Those of the store, and those of the configuration file."""
    records = await asyncio.to_thread(app.kept.register.records)
    of_file = [_told_of_file(held.principal) for held in app.kept.ring.of_file.values() if held.principal]
    await send_json(exchange, 200, {"keys": [*of_file, *(_told(app, record) for record in records)]})


async def verify_key(app: "App", exchange: Exchange) -> None:
    """Whether a key is good now, and whose it is; of one that is not, never why."""
    wish = await read_small(exchange, VerifyKey)
    principal = await app.kept.identify.verify(wish.api_key.encode())
    if principal is None:
        await send_json(exchange, 200, {"valid": False}, SECRET)
        return
    body = {"valid": True, **_facts_of(principal), "expires_at": iso(principal.expires_at)}
    await send_json(exchange, 200, body, SECRET)


def _told(app: "App", record: KeyRecord) -> dict[str, Any]:
    return {**facts(record), **state_of(record, app.clock().timestamp())}


def _told_of_file(principal: Principal) -> dict[str, Any]:
    """Of a key in the configuration file: in the same form, as far as it applies."""
    never = dict.fromkeys(("expires_at", "created_at", "last_used_at", "revoked_at", "previous_valid_until"))
    return {**_facts_of(principal), **never, "status": "active"}


def _facts_of(principal: Principal) -> dict[str, Any]:
    return {
        "id": principal.key_id,
        "tenant_id": principal.tenant_id,
        "user_id": principal.user_id,
        "name": principal.name,
        "tier": principal.tier,
        "quota_requests_per_hour": principal.quota_requests_per_hour,
    }


def _note(app: "App", exchange: Exchange, message: str, record: KeyRecord) -> None:
    """Who may end keys may be asked when he did."""
    app.log.event("info", message, keyId=record.id, requestId=exchange.request_id.decode("latin-1"))
