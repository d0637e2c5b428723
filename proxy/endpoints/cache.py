"""/admin/cache: an administrator looks at what is kept, and clears it: all, a model's or a tenant's."""

from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.core.errors import InvalidRequest, NotFound
from penstock.core.key_requests import Name
from penstock.ext import CLEAR_ALL, CLEAR_MODEL, CLEAR_TENANT
from penstock.proxy.cache import Cache
from penstock.proxy.endpoints.small_body import read_small
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App


class ClearCache(Struct, frozen=True, kw_only=True):
    """POST /admin/cache/clear. Neither of them: all is cleared."""

    model: Name | None = None
    tenant: Name | None = None


async def cache(app: "App", exchange: Exchange) -> None:
    """How full it is, and what it was good for, over all workers since the state folder's memory is there."""
    kept = _enabled(app)
    kept.clears.sweep()
    figures = sorted(kept.clears.figures())
    body = {
        "entries": kept.clears.entries,
        "bytes": kept.clears.bytes,
        "max_bytes": app.config.cache.max_bytes,
        **_told([sum(column) for column in zip(*(line[1:] for line in figures), strict=True)] or [0] * 5),
        "models": [{"model": line[0].decode(errors="replace"), **_told(line[1:])} for line in figures],
    }
    await send_json(exchange, 200, body)


async def clear(app: "App", exchange: Exchange) -> None:
    """Forget, in every worker, before the next look."""
    kept = _enabled(app)
    asked = await read_small(exchange, ClearCache) if exchange.body_open else ClearCache()
    if asked.model is not None and asked.tenant is not None:
        raise InvalidRequest('give "model" or "tenant" or neither of them; two calls clear both', param="tenant")
    if asked.model is not None:
        kept.clears.clear(CLEAR_MODEL, asked.model.encode())
    elif asked.tenant is not None:
        kept.clears.clear(CLEAR_TENANT, asked.tenant.encode())
    else:
        kept.clears.clear(CLEAR_ALL)
    app.log.event("warning", "the cache was cleared", requestId=exchange.request_id.decode("latin-1"))
    await send_json(exchange, 200, {"cleared": {"model": asked.model, "tenant": asked.tenant}})


def _enabled(app: "App") -> Cache:
    if app.cache is None:
        raise NotFound("there is no cache here: cache.max_bytes is 0 in the configuration")
    return app.cache


def _told(figures: "list[int] | tuple[int, ...]") -> dict[str, float]:
    """hit_rate: the share of requests for which no backend was asked, those that shared another's call among them."""
    hits, misses, evictions, shared, stored = figures
    spared, asked = hits + shared, hits + shared + misses
    return {
        "hits": hits,
        "misses": misses,
        "shared": shared,
        "stored": stored,
        "evictions": evictions,
        "hit_rate": round(spared / asked, 4) if asked else 0.0,
    }
