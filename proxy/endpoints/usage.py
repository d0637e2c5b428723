"""GET /usage: what the caller has used, and what is left of each limit."""

from typing import TYPE_CHECKING

from penstock.core.errors import NotFound
from penstock.core.standing import standings, usage
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import send_json

if TYPE_CHECKING:
    from penstock.proxy.app import App


async def own_usage(app: "App", exchange: Exchange) -> None:
    caller = exchange.caller
    if caller is None:
        raise NotFound("there are no keys here")
    wall_ns = app.kept.wall_ns()
    counters = caller.account.standing(app.kept.now_ns(), wall_ns)
    await send_json(exchange, 200, usage(standings(caller.allowance.limits, counters, wall_ns)))
