"""The cache on a request's way: a kept answer, a flight to join, or a flight to lead.

Only plans with a TTL come here. What reaches no backend is admitted as a *hit*: one request, and nothing of the limits
on LLM requests, tokens and money; the leader of a flight is admitted in full, and pays for it.
"""

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache, partial
from math import inf

from penstock.core.cache_rules import (
    Directives,
    directives,
    has_memory,
    is_normal_finish,
    scope_of,
)
from penstock.core.config import Config
from penstock.core.errors import NotCached
from penstock.core.plan import Plan
from penstock.core.principal import ANONYMOUS
from penstock.core.replay import finishes
from penstock.ext import CACHE_MISSES, CACHE_SHARED, MEDIA_JSON, CacheClears, CacheEntry, CacheStore, cache_key
from penstock.proxy.admission import Admission
from penstock.proxy.cache_facts import CacheFacts
from penstock.proxy.exchange import Exchange
from penstock.proxy.flight import OTHER, WHOLE, Flight
from penstock.proxy.follow import follow
from penstock.proxy.log import Log
from penstock.proxy.replay import KINDS, MOST_BYTES, head_of, in_form, mark, replay, wanted_kind
from penstock.proxy.upstream.attempt import Attempts

SECOND = 1_000_000_000
YEAR_S = 31_536_000
MISS = (b"x-cache", b"MISS")
SHARED = (b"x-cache", b"SHARED")
BYPASS = (b"x-cache", b"BYPASS")
CACHE_CONTROL = b"cache-control"
# Headers that are read begin so; beside the body, all but the first can change an answer (core/cache_rules.py).
TELLING = (CACHE_CONTROL, b"openai-", b"anthropic-", b"x-demo-")
METHODS = frozenset({"GET", "POST"})
MAX_SCOPES = 10_000


class Cache:
    """One per App. store: what is kept, which outlives it. facts: who is told what is kept; None = nobody.

    active: the App's requests under way. settle: the end of a request whose client left before its flight landed.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: CacheStore,
        clears: CacheClears,
        facts: CacheFacts | None,
        attempts: Attempts,
        admission: Admission | None,
        active: set[Exchange],
        settle: Callable[[Exchange], None],
        log: Log,
        most_bytes: int,
    ) -> None:
        self.store = store
        self.clears = clears
        self.facts = facts
        self._config = config
        self._attempts = attempts
        self._admission = admission
        self._active = active
        self._settle = settle
        self._log = log
        self.most_bytes = most_bytes
        self._now_ns = attempts.now_ns
        self._chunks_per_s = config.cache.replay_chunks_per_s
        self._flights: dict[bytes, Flight] = {}
        self._scopes: dict[tuple[object, ...], bytes] = {}
        self._directives = lru_cache(maxsize=256)(directives)

    def __repr__(self) -> str:
        return f"<Cache {self.store.entries} entries, {self.store.bytes} bytes, {len(self._flights)} flights>"

    def serve(self, plan: Plan, exchange: Exchange) -> Awaitable[None] | None:
        """The answer to a request whose plan has a TTL; None = it goes its way as if there were no cache.

        Raises NotCached, and what admission raises.
        """
        try:
            # A hit should cost little: what most requests do not say is one comparison for them.
            said: bytes = b""
            telling: tuple[tuple[bytes, bytes], ...] = ()
            for name, _ in exchange.scope["headers"]:
                if name.startswith(TELLING):
                    said, telling = self._read(exchange)
                    break
            if exchange.upload is not None or exchange.method not in METHODS:
                return None
            asked = None if not said else self._directives(said)
            if (asked is not None and asked.no_store) or has_memory(plan.endpoint, exchange.body):
                exchange.told = (*exchange.told, BYPASS)
                return None
            key = cache_key(exchange.body or b"{}", self._scope(plan, exchange, telling), plan.label)
            if (hit := self._hit(plan, exchange, key, asked)) is not None:
                return hit
            if asked is not None and asked.only_if_cached:
                raise NotCached("there is no kept answer to this request (Cache-Control: only-if-cached)")
            flight = self._flights.get(key) if asked is None or not asked.no_cache else None
            return self._lead(plan, exchange, key) if flight is None else self._join(plan, exchange, flight)
        except NoRoom:
            return self._serve_when_room(plan, exchange)

    async def _serve_when_room(self, plan: Plan, exchange: Exchange) -> None:
        """As `serve`, once there is room for the request's record."""
        admission = self._admission
        if admission is not None:
            await admission.when_room(exchange, lambda: admission.has_room)
        answer = self.serve(plan, exchange)
        if answer is not None:
            await answer

    # --- the three ways

    def _hit(self, plan: Plan, exchange: Exchange, key: bytes, asked: Directives | None) -> Awaitable[None] | None:
        """None: there is no entry that may be given, in the form that is asked for."""
        now_ns = self._now_ns()
        entry = self.store.get(key, now_ns) if asked is None else self._get(key, now_ns, asked)
        if entry is None:
            return None
        age_s = entry.age_ns(now_ns) // SECOND
        if age_s > plan.keep_s:  # a reload made its time shorter
            return None
        kind, told = entry.kind & KINDS, None
        wanted = OTHER if kind == OTHER else wanted_kind(exchange)
        if kind != wanted and (told := in_form(entry, exchange, wanted)) is None:
            return None
        self._admit(plan, exchange, hit=True)
        if told is None and kind == WHOLE:
            exchange.media = MEDIA_JSON
            if (answer := exchange.answer_stored(entry.head, age_s, entry.body(), False)) is not None:
                return answer
        return replay(entry, exchange, age_s, self._chunks_per_s, wanted, told)

    def _get(self, key: bytes, now_ns: int, asked: Directives) -> CacheEntry | None:
        """An entry that is as young, and good for as long, as the client says."""
        if asked.no_cache:
            return None
        since_ns = 0 if asked.max_age_s == inf else now_ns - int(asked.max_age_s * SECOND)
        until_ns = 0 if not asked.min_fresh_s else now_ns + int(min(asked.min_fresh_s, YEAR_S) * SECOND)
        return self.store.get(key, now_ns, None, max(since_ns, 0), until_ns)

    def _join(self, plan: Plan, exchange: Exchange, flight: Flight) -> Awaitable[None]:
        self._admit(plan, exchange, hit=True)
        exchange.told = (*exchange.told, SHARED)
        self.clears.count(plan.label, CACHE_SHARED)
        return follow(flight, exchange, self._attempts)

    def _lead(self, plan: Plan, exchange: Exchange, key: bytes) -> Awaitable[None]:
        """Begin a flight; who comes from now on joins the newest of its key."""
        self._admit(plan, exchange, hit=False)
        exchange.told = (*exchange.told, MISS)
        self.clears.count(plan.label, CACHE_MISSES)
        exchange.leads = flight = Flight(
            plan,
            exchange,
            attempts=self._attempts,
            active=self._active,
            log=self._log,
            most_bytes=self.most_bytes,
            on_long=partial(self._forget, key),
            on_end=partial(self._landed, key, tenant_of(exchange), self.clears.generation),
        )
        self._flights[key] = flight
        flight.start()
        return follow(flight, exchange, self._attempts)

    def _admit(self, plan: Plan, exchange: Exchange, *, hit: bool) -> None:
        """Raises what admission raises, NoRoom if the spool is full."""
        admission = self._admission
        if admission is not None and plan.endpoint.counted:
            is_in = admission.admit_hit(plan, exchange) if hit else admission.admit(plan, exchange)
            if not is_in:
                raise NoRoom
        exchange.cached = hit

    # --- a flight's end

    def _forget(self, key: bytes, flight: Flight) -> None:
        """Nobody joins it any more: it was given up, is too long, or over."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _landed(self, key: bytes, tenant: bytes, generation: int, flight: Flight) -> None:
        """Keep what it brought, if that may be given again; its leader's request gets what it cost.

        generation: of the clears, when it began.
        """
        try:
            if may_be_kept(flight):
                self._keep(key, tenant, generation, flight)
        finally:
            self._forget(key, flight)
            leader = flight.leader
            leader.take_over(flight.inner)
            if flight.error is not None and not flight.status:
                leader.told = (*flight.inner.told, *leader.told)
            if flight.is_orphan:
                self._settle(leader)

    def _keep(self, key: bytes, tenant: bytes, generation: int, flight: Flight) -> None:
        plan, size = flight.plan, sum(map(len, flight.chunks))
        head = head_of(flight.headers, formatdate(usegmt=True).encode())
        if size <= MOST_BYTES:
            named = mark(flight.kind, size)
            ttl_ns = int(plan.keep_s * SECOND)
            if (
                self.store.put(key, plan.label, tenant, head, flight.chunks, named, self._now_ns(), ttl_ns, generation)
                and self.facts is not None
            ):
                self.facts.note(key, flight.chunks)

    # --- what a request says

    def _read(self, exchange: Exchange) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
        """Its Cache-Control, all lines of it, and the headers that can change the answer."""
        lines = [line for line in exchange.scope["headers"] if line[0].startswith(TELLING)]
        said = b",".join(value for name, value in lines if name == CACHE_CONTROL)
        return said, tuple(line for line in lines if line[0] != CACHE_CONTROL)

    def _scope(self, plan: Plan, exchange: Exchange, telling: tuple[tuple[bytes, bytes], ...]) -> bytes:
        """Who it is for and how it is asked; the same few come again and again."""
        caller, peek = exchange.caller, exchange.peek
        principal, cap = ANONYMOUS, 0
        if caller is not None:
            principal = caller.principal
            if caller.bounded and peek is not None and peek.max_output_tokens is None:
                cap = plan.bill.output_cap(None, caller.allowance.max_output_tokens)
        if not exchange.query and not telling:
            memo = (plan.route, principal.tenant_id, principal.key_id, cap)
            scope = self._scopes.get(memo)
            if scope is None:
                if len(self._scopes) >= MAX_SCOPES:
                    self._scopes.clear()
                scope = self._scopes[memo] = scope_of(self._config, principal, plan.endpoint, cap=cap)
            return scope
        return scope_of(self._config, principal, plan.endpoint, query=exchange.query, headers=telling, cap=cap)


class NoRoom(Exception):
    """The spool has no room for a request's record."""


def tenant_of(exchange: Exchange) -> bytes:
    return b"" if exchange.caller is None else exchange.caller.principal.tenant_id.encode()


def may_be_kept(flight: Flight) -> bool:
    """A whole 200 that ended as it should, without a fault on purpose, and short enough to be here in full."""
    if flight.error is not None or not flight.is_plain or not flight.kept_whole or flight.fault_on_purpose:
        return False
    endpoint, inner = flight.plan.endpoint, flight.inner
    if endpoint.dialect is None:
        return flight.media == MEDIA_JSON
    if flight.kind == OTHER:
        return False
    reasons = finishes(endpoint.dialect, b"".join(flight.chunks), inner.finish_reason)
    return is_normal_finish(endpoint.dialect, reasons)
