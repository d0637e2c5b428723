"""Plans: everything about a request that depends only on (endpoint, model), decided once and executed often."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from penstock.core.bill import Bill, make_bill, quote
from penstock.core.config import Balance
from penstock.core.cost import Price
from penstock.core.endpoint import EXACT, Endpoint, Shape
from penstock.core.estimate import Kind
from penstock.core.prices import Terms
from penstock.core.route import Route, RouteGroup, Target
from penstock.ext import (
    DIALECT_CHAT,
    DIALECT_MESSAGES,
    DIALECT_OLLAMA,
    DIALECT_RESPONSES,
    Balancer,
    Quote,
    Tariff,
)

# The field that caps the tokens of an answer. OpenAI's newest models refuse max_tokens, older servers know only that.
CAP_NAMES = {
    DIALECT_CHAT: b"max_tokens",
    DIALECT_RESPONSES: b"max_output_tokens",
    DIALECT_MESSAGES: b"max_tokens",
    DIALECT_OLLAMA: b"options.num_predict",
}
OPENAI_CAP = b"max_completion_tokens"
OPENAI_HOST = "api.openai.com"
COMPLETIONS = "/v1/completions"


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds each phase of an attempt may take; inf = no limit. idle_s is the silence between two reads."""

    connect_s: float
    send_s: float
    first_byte_s: float
    idle_s: float
    total_s: float


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """What every request to one backend shares.

    v1, api: path prefixes our /v1 and /api go to there.
    lines: header lines of ours, each ended by CRLF: Host and the backend's credential.
    label: its name as usage rows have it.
    heartbeat_s: how often a stream hears of us while the backend is silent; 0 = never.
    """

    name: str
    label: bytes
    kind: Kind
    host: str
    v1: bytes
    api: bytes
    lines: bytes
    timeouts: Timeouts
    heartbeat_s: float = 0

    def path(self, path: bytes) -> bytes:
        """The path a request has on this backend: /v1/X -> {url}/X, /api/X -> {url}/api/X."""
        return self.v1 + path[3:] if path.startswith(b"/v1/") else self.api + path

    def start(self, method: str, target: bytes) -> bytes:
        """Request line and our header lines; `target` is our path, and the query if there is one."""
        return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), self.path(target), self.lines)


class PlannedTarget(msgspec.Struct, frozen=True):
    """One place to try.

    start: request line and our header lines, where the endpoint has one method and one path; b"" = made per request.
    rename, rename_json: its name for the model where that differs, as text and as a JSON string.
    terms: what the model costs there; quote: its tokens, None = they are not all that is paid for.
    cap_name: how its requests cap an answer; b"" = they cannot.
    model: the model's name there; "" where the request names none, or nobody knows it.
    """

    upstream: Upstream
    start: bytes
    rename: str | None
    rename_json: bytes | None
    terms: Terms = Terms()
    quote: Quote | None = None
    cap_name: bytes = b""
    model: str = ""


class Group(msgspec.Struct, frozen=True):
    """Targets that share the requests for one model. balancer: chooses among them; its members are in their order."""

    balancer: Balancer
    targets: tuple[PlannedTarget, ...]


class Plan(msgspec.Struct, frozen=True):
    """The decision for one (endpoint, model): groups of targets in the order to try them.

    targets: those of all groups. bill: what a request can cost, whichever of them answers.
    route, label: the endpoint and the model as usage rows name them.
    heartbeat_s: how often a stream hears of us while nothing comes: the shortest of its backends; 0 = never.
    tariff: route, label and bill, compiled; None where more than the body's own tokens has to be reckoned with.
    keep_s: how long its answers are kept and given again; 0 = they are not.
    """

    endpoint: Endpoint
    model: str | None
    targets: tuple[PlannedTarget, ...]
    bill: Bill
    route: bytes
    label: bytes
    groups: tuple[Group, ...] = ()
    heartbeat_s: float = 0
    tariff: Tariff | None = None
    keep_s: float = 0


def upstream(name: str, kind: Kind, url: str, secret: bytes, timeouts: Timeouts, heartbeat_s: float = 0) -> Upstream:
    """The shared part of a backend's requests, from its configuration.

    An openai URL is the API base as SDKs call it (it ends in /v1 as a rule); the others are the server's root.
    """
    parts = urlsplit(url)
    base = parts.path.rstrip("/").encode()
    lines = b"host: %b\r\n" % parts.netloc.encode()
    if secret:
        lines += b"x-api-key: %b\r\n" % secret if kind == "anthropic" else b"authorization: Bearer %b\r\n" % secret
    return Upstream(
        name=name,
        label=name.encode(),
        kind=kind,
        host=parts.hostname or "",
        v1=base if kind in ("openai", "demo") else base + b"/v1",
        api=base,
        lines=lines,
        timeouts=timeouts,
        heartbeat_s=heartbeat_s,
    )


TermsOf = Callable[[str | None, Target], Terms]
"""What a model (by its public name) costs at a target."""
BalancerOf = Callable[[tuple[Target, ...], Balance], Balancer]
"""What chooses among targets, its members in their order."""


def no_terms(model: str | None, target: Target) -> Terms:
    """Of targets nobody knows the price of."""
    return Terms()


def no_balancer(targets: tuple[Target, ...], balance: Balance) -> Any:
    """Of plans that are looked at and not run."""


def make_plan(
    endpoint: Endpoint,
    model: str | None,
    route: Route,
    upstreams: Mapping[str, Upstream],
    terms_of: TermsOf = no_terms,
    balancer_of: BalancerOf = no_balancer,
    keep_s: float = 0,
) -> Plan:
    """Bind a route's targets to their backends and work out what must be rewritten for each, and what it costs."""
    native = endpoint.shape is Shape.OLLAMA
    groups = tuple(
        Group(
            balancer_of(group.targets, group.balance),
            tuple(
                _planned(endpoint, upstreams, model, group.model or model, target, terms_of) for target in group.targets
            ),
        )
        for group in (_native_only(route, upstreams) if native else route.groups)
    )
    bound = tuple(target for group in groups for target in group.targets)
    bill = make_bill(endpoint, ((each.terms, each.upstream.kind, each.upstream.timeouts.total_s) for each in bound))
    heartbeats = [each.upstream.heartbeat_s for each in bound if each.upstream.heartbeat_s and not native]
    route_name, label = endpoint.route.encode(), (model or "").encode()
    return Plan(
        endpoint,
        model,
        bound,
        bill,
        route_name,
        label,
        groups,
        min(heartbeats, default=0),
        _tariff(endpoint, bill, route_name, label),
        keep_s,
    )


def _tariff(endpoint: Endpoint, bill: Bill, route: bytes, label: bytes) -> Tariff | None:
    # A request to /v1/completions may bring several prompts, each with answers of its own.
    if bill.quote is None or endpoint.route == COMPLETIONS:
        return None
    return Tariff(route, label, bill.quote, endpoint.dialect == DIALECT_CHAT)


def _native_only(route: Route, upstreams: Mapping[str, Upstream]) -> tuple[RouteGroup, ...]:
    """The groups without targets that have no native API, unless none has: then its refusal is the answer."""
    kept = tuple(
        msgspec.structs.replace(group, targets=targets)
        for group in route.groups
        if (targets := tuple(each for each in group.targets if upstreams[each.backend].kind == "ollama"))
    )
    return kept or route.groups


def _planned(
    endpoint: Endpoint,
    upstreams: Mapping[str, Upstream],
    model: str | None,
    public: str | None,
    target: Target,
    terms_of: TermsOf,
) -> PlannedTarget:
    """model: the name in the request; public: the one whose target this is, another for a fallback."""
    upstream = upstreams[target.backend]
    terms = terms_of(public, target)
    name = target.model
    start = b""
    if len(endpoint.methods) == 1 and (path := endpoint.route.encode()) in EXACT:
        (method,) = endpoint.methods
        start = upstream.start(method, path)
    renamed = model is not None and name is not None and name != model
    return PlannedTarget(
        upstream,
        start,
        name if renamed else None,
        msgspec.json.encode(name) if renamed else None,
        terms,
        quote(terms.price or Price(), endpoint),
        _cap_name(endpoint, upstream),
        name or "",
    )


def _cap_name(endpoint: Endpoint, upstream: Upstream) -> bytes:
    if endpoint.dialect is None or endpoint.unit != "tokens":
        return b""
    if endpoint.route == "/v1/chat/completions" and upstream.host == OPENAI_HOST:
        return OPENAI_CAP
    return CAP_NAMES[endpoint.dialect]
