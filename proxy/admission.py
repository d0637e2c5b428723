"""Admission and settling: what a request may need is taken from its limits, and what it did need stays taken.

Both ends of a request's usage record stand here: `admit` opens it with what it holds, `settle` closes it.
"""

import asyncio
from collections.abc import Callable

from penstock.core.cost import LEAST_AUDIO_BYTES_PER_S, Spent, cost_nano, span_ns
from penstock.core.errors import NoPrice, PenstockError, SpoolFull, StateFullError
from penstock.core.estimate import (
    answer_estimate,
    completion_estimate,
    prompt_count,
    prompt_estimate,
)
from penstock.core.limits import Allowance
from penstock.core.plan import Plan, PlannedTarget
from penstock.core.refusals import check_output, model_not_allowed, never_fits, tier_unknown, used_up
from penstock.ext import (
    DIALECT_CHAT,
    FLAG_BACKEND,
    FLAG_CACHED,
    FLAG_ESTIMATED,
    OUTCOME_ANSWERED,
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_REFUSED,
    Entry,
    LogLines,
    Quote,
    Refusal,
    Spool,
    StateFull,
    Tariff,
    Usage,
)
from penstock.proxy.exchange import Exchange
from penstock.proxy.identify import Caller

# With when_full = "wait", a request waits so long for room in the spool, looking this often.
MOST_WAIT_S = 5.0
LOOK_S = 0.02
NO_USAGE = Usage()
# What reaches no backend costs nothing, whatever its plan has for a bill.
FREE = Quote(
    input_pico=0,
    cached_pico=0,
    output_pico=0,
    reasoning_pico=0,
    margin=0,
    context=None,
    batch=False,
    image=0,
    remote=0,
    longest=None,
    unknown_longest=0,
    most_tokens=0,
    most_nano_usd=0,
)


class Admission:
    """One per worker. waits: whether requests wait for room in the spool. Clocks are in ns.

    log_lines: where access lines go; None = there are none.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        waits: bool,
        log_lines: LogLines | None,
        monotonic_ns: Callable[[], int],
        wall_ns: Callable[[], int],
    ) -> None:
        self._spool = spool
        self._log_lines = log_lines
        self._waits = waits
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns

    # --- before the backend

    def admit(self, plan: Plan, exchange: Exchange) -> bool:
        """Take what the request can need from all limits of its caller; False = the spool has no room for its record.

        Raises RateLimited, BudgetExceeded, OverLimit and the other refusals of core/refusals.py.
        """
        caller = exchange.caller
        if caller is None:
            return True  # an endpoint that is open to everybody counts for nobody
        if caller.restricted:
            check_allowed(plan, exchange, caller.allowance)
        if plan.bill.dearest is None:
            check_price(plan, caller)
        try:
            entry = self._open(plan, exchange, caller)
        except StateFull as error:
            raise StateFullError(str(error), retry_after_s=1) from None
        return self._is_in(entry, exchange, caller)

    def _open(self, plan: Plan, exchange: Exchange, caller: Caller) -> Entry | Refusal | None:
        """Take what the request needs at worst, and decide what must be written into it for that to be the most."""
        now_ns, wall_ns = self._monotonic_ns(), self._wall_ns()
        tariff, peek = plan.tariff, exchange.peek
        if tariff is not None and peek is not None:
            entry = self._spool.admit_by(
                caller.account,
                tariff,
                exchange.request_id,
                peek,
                exchange.body,
                caller.allowance.max_output_tokens,
                now_ns,
                wall_ns,
            )
            if isinstance(entry, Entry):
                exchange.output_cap, exchange.asked_usage = entry.output_cap, entry.ask_usage
            return entry
        tokens, nano_usd = worst(plan, exchange, caller) if caller.bounded else (0, 0)
        return self._spool.admit(
            caller.account, plan.route, plan.label, exchange.request_id, tokens, nano_usd, now_ns, wall_ns
        )

    def admit_hit(self, plan: Plan, exchange: Exchange) -> bool:
        """As `admit`, for a request that reaches no backend: it counts as a request, and costs nothing."""
        caller = exchange.caller
        if caller is None:
            return True
        if caller.restricted:
            check_allowed(plan, exchange, caller.allowance)
        try:
            entry = self._spool.admit_hit(
                caller.account,
                plan.tariff or Tariff(plan.route, plan.label, FREE, False),
                exchange.request_id,
                self._monotonic_ns(),
                self._wall_ns(),
            )
        except StateFull as error:
            raise StateFullError(str(error), retry_after_s=1) from None
        return self._is_in(entry, exchange, caller)

    def _is_in(self, entry: Entry | Refusal | None, exchange: Exchange, caller: Caller) -> bool:
        """False = the spool has no room. Raises what a refusal says."""
        exchange.standing = entry
        if isinstance(entry, Entry):
            exchange.entry = entry
            return True
        if isinstance(entry, Refusal):
            raise refused(entry, caller.allowance)
        return False

    async def admit_when_room(self, plan: Plan, exchange: Exchange) -> None:
        """The spool is full, since the store takes no rows: wait for room, or refuse. Raises SpoolFull."""
        await self.when_room(exchange, lambda: self.admit(plan, exchange))

    @property
    def has_room(self) -> bool:
        """For another request's record."""
        return self._spool.free > 0

    async def when_room(self, exchange: Exchange, admitted: Callable[[], bool]) -> None:
        """Try again and again, if requests wait for room. Raises SpoolFull."""
        deadline = exchange.now() + (MOST_WAIT_S if self._waits else 0)
        while exchange.now() < deadline:
            await asyncio.sleep(LOOK_S)
            if admitted():
                return
        raise SpoolFull("the store takes no usage rows and the spool for them is full", retry_after_s=5)

    # --- after it

    def settle(self, exchange: Exchange, ended: float) -> bool:
        """Close the request's record: what it did not need goes back. Requests nobody was admitted for get one too.

        Returns whether the access line is written too: nearly every request ends here in one compiled call.
        """
        entry, target, usage = exchange.entry, exchange.target, exchange.usage
        plain = exchange.error is None and exchange.status < 400 and not exchange.client_left
        if plain and entry is not None and usage is not None and target is not None and target.quote is not None:
            exchange.cost_nano = entry.settle(
                target.quote,
                usage,
                exchange.backend,
                exchange.status,
                exchange.attempts,
                exchange.started,
                exchange.first_byte,
                ended,
                self._log_lines,
                self._wall_ns(),
                exchange.request_id,
                exchange.head,
                exchange.method,
                exchange.path,
                exchange.endpoint.route,  # type: ignore[union-attr]  # who has an entry has an endpoint
                exchange.model,
                exchange.address,
            )
            return True
        entry = entry or self._book(exchange)
        if entry is not None:
            self._close(entry, exchange, ended)
        return False

    def _close(self, entry: Entry, exchange: Exchange, ended: float) -> None:
        target, usage, flags = exchange.target, exchange.usage, 0
        if target is None:
            label, nano_usd, usage = b"", 0, None
            if exchange.cached and exchange.error is None:
                flags = FLAG_CACHED
        else:
            label, flags = target.upstream.label, FLAG_BACKEND
            if usage is None and (usage := estimate(exchange)) is not None:
                flags |= FLAG_ESTIMATED
            if usage is not None and target.quote is not None:
                nano_usd = target.quote.cost(usage)
            else:
                nano_usd = cost(target, exchange, usage or NO_USAGE, ended)
            exchange.cost_nano = nano_usd
        started, first, error = exchange.started, exchange.first_byte, exchange.error
        plain = error is None and exchange.status < 400 and not exchange.client_left
        entry.close(
            OUTCOME_ANSWERED if plain else outcome(exchange),
            exchange.status,
            label,
            usage,
            nano_usd,
            flags,
            (ended - started) * 1000,
            (first - started) * 1000 if first else -1.0,
            error.code.encode() if error is not None else b"",
        )

    def _book(self, exchange: Exchange) -> Entry | None:
        """A record for a request that was not admitted; None if it is nobody's, or there is no room."""
        caller, endpoint = exchange.caller, exchange.endpoint
        if caller is None or endpoint is None or not endpoint.counted:
            return None
        model = (exchange.model or "").encode()
        return self._spool.book(caller.account, endpoint.route.encode(), model, exchange.request_id, self._wall_ns())


# --- what a request can need ------------------------------------------------------------------------------


def check_allowed(plan: Plan, exchange: Exchange, allowance: Allowance) -> None:
    """Raises TierUnknown, ModelNotAllowed, OutputLimit."""
    if not allowance.tier_known:
        raise tier_unknown(allowance)
    if allowance.models is not None and not allowance.allows_model(plan.model or ""):
        raise model_not_allowed(allowance, plan.model or "")
    check_output(allowance, None if exchange.peek is None else exchange.peek.max_output_tokens)


def worst(plan: Plan, exchange: Exchange, caller: Caller) -> tuple[int, int]:
    """(tokens, nano-USD) to be held, of requests whose plan has no tariff: what ext.Tariff does, in all cases."""
    bill, peek, body = plan.bill, exchange.peek, exchange.body
    asked = None if peek is None else peek.max_output_tokens
    cap = bill.output_cap(asked, caller.allowance.max_output_tokens)
    choices = 1
    if peek is not None:
        choices = peek.choices
        if asked is None:
            exchange.output_cap = cap
        if plan.endpoint.dialect == DIALECT_CHAT:
            exchange.asked_usage = bool(peek.stream) and not peek.include_usage
            choices *= prompt_count(body)
    if body and bill.quote is not None:
        return bill.quote.worst(body, choices, cap)
    return bill.worst(body, body_bytes(exchange), choices, cap)


def check_price(plan: Plan, caller: Caller) -> None:
    """Raises NoPrice."""
    if caller.on_budget and plan.bill.dearest is None:
        name = plan.model or f"of {plan.endpoint.route}"
        raise NoPrice(f"the model {name!r} has no price, and this key has a budget: set [models.NAME.price]")


def refused(refusal: Refusal, allowance: Allowance) -> PenstockError:
    if refusal.never:
        return never_fits(allowance, refusal.index, refusal.tokens, refusal.nano_usd)
    return used_up(allowance, refusal.index, refusal.wait_ns)


def body_bytes(exchange: Exchange) -> int:
    """The size of the request's body, as far as it is known before it was read."""
    return exchange.body_bytes or exchange.head.content_length or 0


# --- what it did need -------------------------------------------------------------------------------------


def outcome(exchange: Exchange) -> int:
    """Of a request that was not simply answered. What a backend refuses is passed on as it says it, and has failed."""
    if exchange.client_left:
        return OUTCOME_CANCELLED
    refused = exchange.error is not None and exchange.error.fault in ("caller", "policy", "capacity")
    return OUTCOME_REFUSED if refused and exchange.target is None else OUTCOME_FAILED


def estimate(exchange: Exchange) -> Usage | None:
    """Tokens of an answer whose backend told none, by what it gave; None if it gave nothing that has tokens."""
    endpoint = exchange.endpoint
    if exchange.status != 200 or endpoint is None or endpoint.unit in ("images", "audio"):
        return None
    completion = 0
    if exchange.stream_lines:
        completion = completion_estimate(exchange.stream_lines, endpoint.dialect)
    elif endpoint.unit == "tokens":
        completion = answer_estimate(exchange.answer_bytes)
    return Usage(prompt_estimate(body_bytes(exchange)), completion)


def cost(target: PlannedTarget, exchange: Exchange, usage: Usage, ended: float) -> int:
    """What the request cost, in nano-USD. An answer that never began costs nothing, but the time it took."""
    price = target.terms.price
    if price is None:
        return 0
    unit = exchange.endpoint.unit if exchange.endpoint is not None else "tokens"
    answered = exchange.status == 200
    spent = Spent(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        images=(exchange.peek.choices if exchange.peek else 1) if answered and unit == "images" else 0,
        audio_ns=audio_ns(exchange) if answered and unit == "audio" else 0,
        backend_ns=span_ns(ended - exchange.sent) if price.timed_pico else 0,
    )
    return cost_nano(price, spent)


def audio_ns(exchange: Exchange) -> int:
    """Its length as the backend told it, else the longest that so many bytes can be."""
    if exchange.usage is not None and exchange.usage.seconds:
        return span_ns(exchange.usage.seconds)
    return body_bytes(exchange) * 1_000_000_000 // LEAST_AUDIO_BYTES_PER_S
