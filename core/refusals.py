"""A limit that says no becomes an error the caller can act on: which limit, of whom, how long to wait, what to do."""

from collections.abc import Iterable

from penstock.core.errors import BudgetExceeded, ModelNotAllowed, OutputLimit, OverLimit, RateLimited, TierUnknown
from penstock.core.limits import Allowance, Limit
from penstock.core.measures import MEASURE_IN_FLIGHT, MEASURE_NANO_USD, MEASURE_TOKENS, NANO

_UNITS = {
    "requests": "requests",
    "llm_requests": "requests to a model",
    "tokens": "tokens",
    "in_flight": "requests at one time",
}
_PERIODS = {"s": "a second", "minute": "a minute", "hour": "an hour", "day": "a day", "month": "a month"}
_OF_IP = {"5min": "in 5 minutes", "15min": "in 15 minutes"}

Headers = tuple[tuple[bytes, bytes], ...]


def used_up(allowance: Allowance, index: int, wait_ns: int, headers: Headers = ()) -> RateLimited:
    """The 429 of the limit at `index`, of which enough will be there in `wait_ns`."""
    limit = allowance.limits[index]
    wait_s = seconds(wait_ns)
    if limit.measured.measure == MEASURE_IN_FLIGHT:
        words = f"{said(limit)} are running already{_whose(limit, allowance)}; let one of them end"
    else:
        words = f"the limit of {said(limit)}{_whose(limit, allowance)} is used up; try again in {wait_s} s"
    kind = BudgetExceeded if limit.measured.measure == MEASURE_NANO_USD else RateLimited
    return kind(words, retry_after_s=wait_s, headers=headers, upgrade=allowance.upgrade if limit.of_tier else None)


def never_fits(allowance: Allowance, index: int, tokens: int, nano_usd: int, headers: Headers = ()) -> OverLimit:
    """The 403 of a request that could need more than the limit at `index` ever lets through."""
    limit = allowance.limits[index]
    whose = _whose(limit, allowance)
    if limit.measured.measure == MEASURE_TOKENS:
        words = f"this request could need {tokens} tokens, above the limit of {said(limit)}{whose}"
    elif limit.measured.measure == MEASURE_NANO_USD:
        words = f"this request could cost {usd(nano_usd)} USD, above the limit of {said(limit)}{whose}"
    else:
        return OverLimit(f"the limit of {said(limit)}{whose} lets no request through", headers=headers)
    return OverLimit(f"{words}; send less, or ask for less with max_tokens", headers=headers)


def address_used_up(limits: Iterable[Limit], wait_ns: int) -> RateLimited:
    """The 429 of the limits per address."""
    wait_s = seconds(wait_ns)
    words = " or ".join(said(limit) for limit in limits)
    return RateLimited(
        f"the limit of {words} from one address is used up; try again in {wait_s} s", retry_after_s=wait_s
    )


def tier_unknown(allowance: Allowance) -> TierUnknown:
    return TierUnknown(f'this key is of the tier "{allowance.tier}", which is no longer configured')


def model_not_allowed(allowance: Allowance, model: str) -> ModelNotAllowed:
    return ModelNotAllowed(
        f"the model {model[:200]!r} is not among those of the tier {allowance.tier!r}; GET /v1/models lists them",
        param="model",
    )


def check_output(allowance: Allowance, asked: int | None) -> None:
    """Raises OutputLimit for a request that asks for more output than its tier allows."""
    most = allowance.max_output_tokens
    if asked is not None and most is not None and asked > most:
        raise OutputLimit(
            f"{asked} output tokens are more than the {most} of the tier {allowance.tier!r}", param="max_tokens"
        )


def seconds(wait_ns: int) -> int:
    """Whole seconds, rounded up, so that waiting them is enough; at least 1."""
    return max(1, -(-wait_ns // NANO))


def usd(nano_usd: int) -> str:
    """Nano-USD as decimal text, cents at least: 1.50, 0.000002."""
    whole, part = divmod(nano_usd, NANO)
    return f"{whole}.{f'{part:09d}'.rstrip('0').ljust(2, '0')}"


def said(limit: Limit) -> str:
    """A limit as people say it: 100 requests an hour, 1.50 USD a month."""
    measured = limit.measured
    if limit.scope == "ip":
        period = _PERIODS.get(measured.per) or _OF_IP[measured.per]
        return f"{limit.amount} requests {period}"
    if measured.measure == MEASURE_NANO_USD:
        return f"{usd(limit.amount)} USD {_PERIODS[measured.per]}"
    return f"{limit.amount} {_UNITS[measured.what]} {_PERIODS.get(measured.per, '')}".rstrip()


def _whose(limit: Limit, allowance: Allowance) -> str:
    if limit.of_tier:
        return f' (tier "{allowance.tier}")'
    return f" (of your {limit.scope})" if limit.scope != "tier" else f' (of all of tier "{allowance.tier}")'
