"""Why a request went where it went, for administrators: in a header, at the end of a stream, and as a dry run.

A request with `X-Penstock-Explain: 1` and the right X-Admin-Key is explained. The choice is explained by what stood
in shared memory just before it; figures that are known only later (usage, cost) come in the last comment of a stream.
"""

import json
from copy import copy
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.core.config import Balance
from penstock.core.errors import PenstockError
from penstock.core.explain import NOT_NEEDED, NOT_TRIED, PASSED_OVER, Stood, chances, remark, target_name, why_not
from penstock.core.limits import Limit
from penstock.core.measures import (
    MEASURE_IN_FLIGHT,
    MEASURE_NANO_USD,
    MEASURE_TOKENS,
    NANO,
    UNLIMITED,
)
from penstock.core.plan import Plan
from penstock.core.route import RouteGroup
from penstock.core.standing import standings, told
from penstock.ext import MEDIA_EVENT_STREAM
from penstock.proxy.admission import check_price, cost, estimate, worst
from penstock.proxy.exchange import Exchange

if TYPE_CHECKING:
    from penstock.proxy.app import App
    from penstock.proxy.identify import Caller

HEADER = b"x-penstock-explain"
MOST_HEADER_BYTES = 7_500
"""With the other lines it fits the 8 KiB for a head that proxies in front of us allow as a rule."""
# What goes first where that is too long.
LEFT_OUT = ("limits", "groups")

Facts = dict[str, Any]


class StoodGroup(NamedTuple):
    """The targets of one group as they stood. model: whose they are."""

    model: str | None
    balance: Balance
    targets: list[Stood]


class Explaining:
    """The explanation of one request under way; made before its target is chosen."""

    def __init__(self, app: "App", plan: Plan, exchange: Exchange) -> None:
        self._app = app
        self._plan = plan
        self._exchange = exchange
        self._stood = stood(app, plan)

    def head(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The head of the answer, with what is known now."""
        if self._has_room:
            headers = [line for line in headers if line[0] != b"content-length"]
        return [*headers, self.line()]

    def line(self) -> tuple[bytes, bytes]:
        """The header line; `left_out` names what had no room in it."""
        facts = self.facts(final=False)
        text = compact(facts)
        for part in LEFT_OUT:
            if len(text) > MOST_HEADER_BYTES:
                facts[part] = None
                facts["left_out"] = [*facts.get("left_out", ()), part]
                text = compact(facts)
        return HEADER, text

    def comment(self) -> bytes:
        """An SSE comment (WHATWG HTML §9.2.5) with the final figures, for the end of a stream; b"" of other answers."""
        if not self._has_room:
            return b""
        # It may stand behind an event without its blank line, which must not swallow it.
        return b"\n: penstock-explain " + compact(self.facts(final=True)) + b"\n\n"

    @property
    def _has_room(self) -> bool:
        """The answer is a model's stream of events."""
        exchange = self._exchange
        streams = exchange.media == MEDIA_EVENT_STREAM and exchange.status == 200
        return streams and self._plan.endpoint.dialect is not None

    def facts(self, *, final: bool) -> Facts:
        """final: the answer is at its end, so usage that the backend has not told can be estimated."""
        exchange = self._exchange
        return {
            **plan_facts(self._app, self._plan, exchange),
            "groups": [_taken(group, exchange) for group in self._stood],
            "attempts": attempts(exchange),
            "queue": queue(exchange),
            **limit_facts(self._app, self._plan, exchange, ahead=False),
            **_spent(exchange, final),
            "error": None if exchange.error is None else exchange.error.code,
            "elapsed_ms": _ms(perf_counter() - exchange.started),
        }


def begin_explaining(app: "App", plan: Plan, exchange: Exchange) -> None:
    """Explain a request if that is asked for, and by an administrator. Raises RateLimited (a wrong key counts)."""
    asked = any(name == HEADER and value.strip() == b"1" for name, value in exchange.scope["headers"])
    if asked and app.entrance.admits_admin(exchange):
        exchange.explains = Explaining(app, plan, exchange)


def compact(facts: Facts) -> bytes:
    """As ASCII without a line end, so that it can stand in a header and in a comment."""
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


# --- targets ---------------------------------------------------------------------------------------------


def stood(app: "App", plan: Plan) -> list[StoodGroup]:
    """The groups of a plan as they stand now."""
    now_ns = app.health.now_ns()
    groups = []
    for group in plan.groups:
        members = app.cells.members(group.balancer)
        views = group.balancer.view(now_ns)
        of_route = _route_group(app, plan, members[0].backend, members[0].model)
        targets = [
            Stood.of(each.backend, each.model, each.weight, each.max_in_flight, view)
            for each, view in zip(members, views, strict=True)
        ]
        groups.append(StoodGroup(of_route.model or plan.model, of_route.balance, targets))
    return groups


def _route_group(app: "App", plan: Plan, backend: str, model: str) -> RouteGroup:
    """Where the configuration put a target."""
    route = None if plan.model is None else app.routes.of_model(plan.model, app.discovery.by_name)
    for group in () if route is None else route.groups:
        if any((each.backend, each.model or "") == (backend, model) for each in group.targets):
            return group
    return RouteGroup(())


def _taken(group: StoodGroup, exchange: Exchange) -> Facts:
    """A group as a request under way found it."""
    last = {(each.backend, each.model): each for each in exchange.tries}
    here = any((each.backend, each.model) in last for each in group.targets)
    passed_over = PASSED_OVER[group.balance] if here else NOT_NEEDED if last else NOT_TRIED
    targets = []
    for each in group.targets:
        tried = last.get((each.backend, each.model))
        why = tried.outcome if tried else why_not(each) or passed_over
        targets.append({**each.told(), "taken": tried is not None, "why": why})
    return {"model": group.model, "balance": group.balance, "targets": targets}


def foreseen(group: StoodGroup) -> Facts:
    """A group as a request would find it now, with the share of such requests each target would get."""
    targets = [
        {**each.told(), "chance": round(chance, 4), "why": why_not(each) or remark(each)}
        for each, chance in zip(group.targets, chances(group.balance, group.targets), strict=True)
    ]
    return {"model": group.model, "balance": group.balance, "targets": targets}


# --- the rest --------------------------------------------------------------------------------------------


def plan_facts(app: "App", plan: Plan, exchange: Exchange) -> Facts:
    principal = None if exchange.caller is None else exchange.caller.principal
    return {
        "request_id": exchange.request_id.decode("latin-1"),
        "endpoint": plan.endpoint.route,
        "model": plan.model,
        "key_id": (principal.key_id or None) if principal else None,
        "tier": (principal.tier or None) if principal else None,
    }


def attempts(exchange: Exchange) -> list[Facts]:
    """What was tried, times in ms since the request began (perf_counter and monotonic_ns are one clock on Linux)."""
    began_ms = exchange.started * 1000
    return [
        {
            "target": target_name(each.backend, each.model),
            "began_ms": round(each.began_ns / 1e6 - began_ms, 3),
            "took_ms": round((each.ended_ns - each.began_ns) / 1e6, 3),
            "outcome": each.outcome,
            "status": each.status or None,
        }
        for each in exchange.tries
    ]


def queue(exchange: Exchange) -> Facts | None:
    """None = it did not wait in line."""
    return {"place": exchange.place, "waited_ms": _ms(exchange.queued_s)} if exchange.place else None


def limit_facts(app: "App", plan: Plan, exchange: Exchange, *, ahead: bool) -> Facts:
    """What the request can need at most, and how the limits of its caller stand.

    ahead: nothing was taken from them yet, so each says whether it `refuses`: too little is left.
    """
    caller = exchange.caller
    if caller is None or app.shared is None:
        return {"limits": [], "worst_case": None}
    most = _worst(plan, exchange, caller)
    wall_ns = app.shared.wall_ns()
    found = standings(caller.allowance.limits, caller.account.standing(app.shared.now_ns(), wall_ns), wall_ns)
    limits = []
    for each in found:
        if each.limit.amount != UNLIMITED:
            refuses = {"refuses": (each.remaining or 0) < needs(each.limit, *(most or (0, 0)))} if ahead else {}
            limits.append({**told(each), **refuses})
    return {"limits": limits, "worst_case": None if most is None else _worst_told(plan, *most)}


def _worst(plan: Plan, exchange: Exchange, caller: "Caller") -> tuple[int, int] | None:
    """(tokens, nano-USD); None if nobody can say, which is then why the request is refused."""
    try:
        check_price(plan, caller)
        return worst(plan, copy(exchange), caller)  # of a copy, since it decides what is written into the request
    except PenstockError:
        return None


def _worst_told(plan: Plan, tokens: int, nano_usd: int) -> Facts:
    return {"tokens": tokens, "usd": nano_usd / NANO if plan.bill.dearest is not None else None}


def needs(limit: Limit, tokens: int, nano_usd: int) -> int:
    """How much of a limit one request takes, in its unit."""
    return {MEASURE_TOKENS: tokens, MEASURE_NANO_USD: nano_usd, MEASURE_IN_FLIGHT: 1}.get(limit.measured.measure, 1)


def _spent(exchange: Exchange, final: bool) -> Facts:
    """Usage and cost as far as they are known."""
    target, estimated = exchange.target, exchange.usage is None
    usage = estimate(exchange) if estimated and final else exchange.usage
    if target is None or usage is None:
        return {"usage": None, "cost_usd": None}
    nano_usd = cost(target, exchange, usage, perf_counter())
    return {
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "estimated": estimated,
        },
        "cost_usd": nano_usd / NANO if target.terms.price is not None else None,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
