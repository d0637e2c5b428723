"""What may be kept and given again, for how long, to whom; and what a client's Cache-Control says of it (RFC 9111)."""

from collections.abc import Iterable, Mapping
from math import inf

import msgspec

from penstock.core.config import Config
from penstock.core.endpoint import EXACT, GET, Endpoint
from penstock.core.principal import Principal
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES

_RESPONSES = "/v1/responses"
_TO_COME = ("/ai/generate", "simple_chat")
"""Routes that have names in the settings already."""
KEPT = frozenset(
    endpoint.route
    for endpoint in EXACT.values()
    if not endpoint.own and (endpoint.repeatable or endpoint.methods == GET)
)
"""Routes whose answers may be kept: those that only compute, with a body of JSON, and Ollama's lists."""
ROUTES = (*sorted(KEPT), *_TO_COME)
"""Those the settings may name."""

NORMAL_FINISHES: Mapping[int, frozenset[str]] = {
    DIALECT_CHAT: frozenset({"stop", "tool_calls", "function_call", "length"}),
    DIALECT_RESPONSES: frozenset({"completed"}),
    DIALECT_MESSAGES: frozenset({"end_turn", "tool_use", "max_tokens", "stop_sequence"}),
    DIALECT_OLLAMA: frozenset({"stop", "length"}),
}
"""Why a model stops that has said what it had to say; not filters, refusals, pauses, or what nobody knows yet."""

# Of a request's headers, those that go to the backend and can change its answer.
_TELLING = (b"openai-", b"anthropic-", b"x-demo-")


def keep_s(config: Config, endpoint: Endpoint, model: str | None) -> float:
    """Seconds an answer is kept, 0 = not at all: what its route says, else the model, else cache.ttl_s.

    An explicit 0 of either, route or model, is the last word. cache.ttl_s is for models' answers, not for lists.
    """
    cache = config.cache
    if not cache.max_bytes or endpoint.route not in KEPT:
        return 0
    known = config.models.get(model or "")
    of_model = known.cache_ttl_s if known is not None else None
    of_route = cache.routes.get(endpoint.route)
    if of_model == 0 or of_route == 0:
        return 0
    return of_route or of_model or (cache.ttl_s if endpoint.counted else 0)


def scope_of(
    config: Config,
    principal: Principal,
    endpoint: Endpoint,
    *,
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    cap: int = 0,
) -> bytes:
    """What beside body and model tells requests apart: whose they are, as cache.scope says, and how they are asked.

    headers: of the request, names in lower case. cap: what is written into a request that caps its answer nowhere.
    A key without a tenant shares with nobody; without keys all share.
    """
    whose = b""
    if config.cache.scope == "tenant" and principal.tenant_id:
        whose = b"tenant " + principal.tenant_id.encode()
    elif config.cache.scope != "all" and principal.key_id:
        whose = b"key " + principal.key_id.encode()
    told = sorted(line for line in headers if line[0].startswith(_TELLING))
    parts = (whose, endpoint.route.encode(), query, b"%d" % cap, *(part for line in told for part in line))
    # Each with its length, so that no two lists give the same bytes.
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def has_memory(endpoint: Endpoint, body: bytes) -> bool:
    """Whether the answer depends on what was said before, or only begins here: a conversation kept at the backend, work
    in the background. Such a request is for a backend each time."""
    # A name may be spelt with escapes.
    if endpoint.route != _RESPONSES or not any(word in body for word in (b"conversation", b"background", b"\\u")):
        return False
    try:
        asked = msgspec.json.decode(body, type=_Asked)
    except msgspec.DecodeError:
        return True
    return asked.conversation is not None or bool(asked.background)


class _Asked(msgspec.Struct):
    conversation: object = None
    background: object = None


def is_normal_finish(dialect: int | None, reasons: Iterable[str | None]) -> bool:
    """Whether an answer with these finish reasons, one a choice, may be kept. One without (embeddings) may."""
    return all(reason in NORMAL_FINISHES.get(dialect, ()) for reason in reasons) if dialect is not None else True


class Directives(msgspec.Struct, frozen=True):
    """What a request's Cache-Control asks (RFC 9111 §5.2.1). max-stale says nothing here: nothing stale is given.

    no_store: neither give a kept answer nor keep this one. no_cache: ask a backend, and keep the answer.
    max_age_s: the oldest answer wanted. min_fresh_s: how long it must still be good.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age_s: float = inf
    min_fresh_s: float = 0

    def accepts(self, age_s: float, left_s: float) -> bool:
        """Whether an answer of this age, that is good for so long, may be given."""
        return not self.no_store and not self.no_cache and age_s <= self.max_age_s and left_s >= self.min_fresh_s


NOTHING_SAID = Directives()


def directives(value: bytes) -> Directives:
    """The value of Cache-Control, several lines joined by commas. Unknown words say nothing (§5.2.3)."""
    if not value:
        return NOTHING_SAID
    said: dict[bytes, bytes] = {}
    for part in value.lower().split(b","):
        name, _, argument = part.strip(b" \t").partition(b"=")
        # Of one said twice the first counts (§4.2.1).
        said.setdefault(name, argument.strip(b'"'))
    return Directives(
        b"no-store" in said,
        b"no-cache" in said,
        b"only-if-cached" in said,
        _seconds(said.get(b"max-age"), inf, 0),
        _seconds(said.get(b"min-fresh"), 0, inf),
    )


def _seconds(argument: bytes | None, absent: float, bad: float) -> float:
    """delta-seconds (§1.2.2); one that is none counts as the strictest."""
    if argument is None:
        return absent
    return float(argument[:12]) if argument.isdigit() else bad
