"""/admin: the figures of all callers together, and reports of usage and cost."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.core.errors import NotFound, StoreUnavailable
from penstock.core.measures import NANO
from penstock.core.report_request import read_report_request
from penstock.proxy.endpoints.models import known
from penstock.proxy.exchange import Exchange
from penstock.proxy.key_register import iso
from penstock.proxy.reply import send_json
from penstock.proxy.store import ReportLine, Store, StoreError

if TYPE_CHECKING:
    from penstock.proxy.app import App

T = TypeVar("T")


async def stats(app: "App", exchange: Exchange) -> None:
    now = app.clock().timestamp()
    found = await _asked(app, lambda store: store.stats(now))
    body = {
        "total_requests": found.total_requests,
        "cache_hit_rate": found.cache_hit_rate,
        "active_api_keys": found.active_api_keys + len(app.kept.ring.of_file),
        "avg_response_time_ms": found.avg_response_time_ms,
        "models_loaded": len(known(app)),
        "total_tokens": found.total_tokens,
        "total_cost_usd": found.nano_usd / NANO,
    }
    await send_json(exchange, 200, body)


async def usage(app: "App", exchange: Exchange) -> None:
    """Usage and cost grouped by user, tenant, key, model, endpoint, backend or day."""
    asked = read_report_request(exchange.query, app.clock().timestamp())
    report = await _asked(app, lambda store: store.report(asked.by, asked.since, asked.until, asked.key_id))
    body = {
        "by": asked.by,
        "since": iso(asked.since),
        "until": iso(asked.until),
        "lines": [{asked.by: line.name, **_told(line)} for line in report.lines],
        "total": _told(report.total),
    }
    await send_json(exchange, 200, body)


async def _asked(app: "App", question: Callable[[Store], T]) -> T:
    """The store's answer. Raises NotFound where there is no store, StoreUnavailable."""
    store = app.kept.store
    if store is None:
        raise NotFound('usage is not stored here (store.url = "none")')
    try:
        return await asyncio.to_thread(question, store)
    except StoreError as error:
        raise StoreUnavailable(str(error), retry_after_s=1) from None


def _told(line: ReportLine) -> dict[str, Any]:
    told = line._asdict()
    del told["name"]
    told["cost_usd"] = told.pop("nano_usd") / NANO
    return told
