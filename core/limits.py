"""What a principal may: the limits that count for it, from its tier, the overrides and its own quota.

A tier's limits count per key. What an override of a key, user or tenant sets is no longer taken from the tier; a
tier-wide override stands beside it. Each limit counts in a cell of shared memory whose id depends on what is counted
and for whom, not on the amount: a changed limit keeps what is used.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from penstock.core.config import Amounts, Config, Override, Tier
from penstock.core.endpoint import IpClass
from penstock.core.measures import MEASURE_NANO_USD, MEASURED, METERS, MOST_LIMITS, NANO, UNLIMITED, Measured
from penstock.core.principal import Principal

Scope = Literal["key", "user", "tenant", "tier", "ip"]
Cell = tuple[bytes, int, int, int, int, int]
"""As ext.Account and ext.Limits take it: (name, cell, measure, window, period_ns, amount)."""

_QUOTA = MEASURED["requests_per_hour"]


def cell_id(scope: Scope, subject: str, measured: Measured) -> int:
    """The 64-bit name of a counter in shared memory. Never 0, which marks an empty place there."""
    text = f"{scope}\0{subject}\0{measured.what}\0{measured.per}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") or 1


class Limit(msgspec.Struct, frozen=True):
    """One limit or meter: so much of `measured`, for one subject.

    amount: in the measure's unit, money in nano-USD; UNLIMITED of a meter.
    of_tier: it is the tier's, counted per key, so that another tier would change it.
    """

    measured: Measured
    scope: Scope
    subject: str
    amount: int
    of_tier: bool = False

    def cell(self) -> Cell:
        measured = self.measured
        cell = cell_id(self.scope, self.subject, measured)
        return measured.name.encode(), cell, measured.measure, measured.window, measured.period_ns, self.amount


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a principal may.

    limits: all that count, at most 16, meters (never refused) last.
    tier: the tier's name; tier_known is False if the configuration has no such tier: then nothing is allowed.
    models: None = all.
    max_output_tokens: None = the tier sets no cap.
    upgrade: the next tier and the amounts it changes (None = no longer limited), as callers are told; None = no next.
    """

    limits: tuple[Limit, ...]
    tier: str = ""
    tier_known: bool = True
    models: frozenset[str] | None = None
    max_output_tokens: int | None = None
    upgrade: dict[str, Any] | None = None

    def cells(self) -> list[Cell]:
        """The limits as ext.Account takes them, in the order of `limits`."""
        return [limit.cell() for limit in self.limits]

    def allows_model(self, model: str) -> bool:
        return self.models is None or model in self.models

    @property
    def has_budget(self) -> bool:
        """A limit in money: what a model costs must be known."""
        return any(limit.measured.measure == MEASURE_NANO_USD and limit.amount != UNLIMITED for limit in self.limits)


class Rules(msgspec.Struct, frozen=True):
    """The limits of a configuration, indexed: made once, asked once per key."""

    tiers: Mapping[str, Tier]
    overrides: Mapping[tuple[Scope, str], Mapping[str, int]]
    """(scope, whom) -> limit name -> amount."""

    @classmethod
    def of(cls, config: Config) -> "Rules":
        overrides: dict[tuple[Scope, str], dict[str, int]] = {}
        for override in config.limits.override:
            overrides.setdefault(_named(override), {}).update(_amounts(override))
        return cls(config.tiers, overrides)


def allowance(principal: Principal, rules: Rules) -> Allowance:
    """What a principal may."""
    tier = rules.tiers.get(principal.tier)
    own = [
        *_of_key(principal, rules),
        *_of(rules, "user", principal.user_id),
        *_of(rules, "tenant", principal.tenant_id),
    ]
    replaced = {limit.measured.name for limit in own}
    of_tier = [
        Limit(MEASURED[name], "key", principal.key_id, amount, of_tier=True)
        for name, amount in (_amounts(tier) if tier else {}).items()
        if name not in replaced
    ]
    limits = [*of_tier, *own, *_of(rules, "tier", principal.tier)]
    return Allowance(
        limits=(*limits, *_meters(principal, limits)),
        tier=principal.tier,
        tier_known=tier is not None or not principal.tier,
        models=frozenset(tier.models) if tier and tier.models is not None else None,
        max_output_tokens=tier.max_output_tokens if tier else None,
        upgrade=_upgrade(tier, rules.tiers) if tier else None,
    )


def nano_usd(usd: float) -> int:
    """US dollars as the configuration writes them, in nano-USD: exactly what the decimal digits say."""
    return round(Decimal(repr(usd)) * NANO)


def _named(override: Override) -> tuple[Scope, str]:
    if override.key:
        return "key", override.key
    if override.user_id:
        return "user", override.user_id
    return ("tenant", override.tenant_id) if override.tenant_id else ("tier", override.tier)


def _amounts(section: Amounts) -> dict[str, int]:
    """The limits a table sets, money in nano-USD."""
    return {
        name: nano_usd(amount) if MEASURED[name].measure == MEASURE_NANO_USD else int(amount)
        for name, amount in section.amounts().items()
    }


def _of(rules: Rules, scope: Scope, subject: str) -> Iterator[Limit]:
    """The override of a user, tenant or tier. "" is nobody, who has none."""
    for name, amount in rules.overrides.get((scope, subject), {}).items():
        yield Limit(MEASURED[name], scope, subject, amount)


def _of_key(principal: Principal, rules: Rules) -> Iterator[Limit]:
    """A key's own limits: its quota, and the file's overrides by its name or its id, the later louder."""
    if not principal.key_id:
        return
    amounts: dict[str, int] = {}
    if principal.quota_requests_per_hour is not None:
        amounts[_QUOTA.name] = principal.quota_requests_per_hour
    for called in (principal.name, principal.key_id):
        amounts.update(rules.overrides.get(("key", called), {}))
    for name, amount in amounts.items():
        yield Limit(MEASURED[name], "key", principal.key_id, amount)


def _meters(principal: Principal, limits: Iterable[Limit]) -> Iterator[Limit]:
    """What is counted for the key without being limited, as far as there is room."""
    limits = list(limits)
    counted = {limit.measured.name for limit in limits if limit.scope == "key"}
    missing = [measured for measured in METERS if measured.name not in counted]
    for measured in missing[: max(0, MOST_LIMITS - len(limits))]:
        yield Limit(measured, "key", principal.key_id, UNLIMITED)


def _upgrade(tier: Tier, tiers: Mapping[str, Tier]) -> dict[str, Any] | None:
    better = tiers.get(tier.upgrade_to)
    if better is None:
        return None
    names = [name for name in (*MEASURED, "max_output_tokens") if getattr(tier, name) != getattr(better, name)]
    return {"tier": tier.upgrade_to, **{name: getattr(better, name) for name in names}}


# --- by address -----------------------------------------------------------------------------------------


class IpRules(msgspec.Struct, frozen=True):
    """[limits.ip]: which buckets an address has. Subjects are what `network.address_group` makes of an address."""

    kinds: Mapping[IpClass, tuple[Limit, ...]]
    """What every request takes one of, by kind; empty where nothing is limited."""
    unauthenticated: tuple[Limit, ...]
    """What a request without a valid key takes one of."""

    @classmethod
    def of(cls, config: Config) -> "IpRules":
        ip = config.limits.ip
        everything = _bucket("all_per_5min", 300, ip.all_per_5min)
        kinds: dict[IpClass, tuple[Limit, ...]] = {
            "chat": (*_bucket("chat_per_s", 1, ip.chat_per_s), *everything),
            "search": (*_bucket("search_per_s", 1, ip.search_per_s), *everything),
            "general": (*_bucket("general_per_s", 1, ip.general_per_s), *everything),
        }
        return cls(kinds, _bucket("unauthenticated_per_15min", 900, ip.unauthenticated_per_15min))

    @staticmethod
    def cells(limits: Iterable[Limit], group: str) -> list[Cell]:
        """The buckets of one address, as ext.Limits takes them."""
        return [msgspec.structs.replace(limit, subject=group).cell() for limit in limits]


def _bucket(name: str, period_s: int, amount: int) -> tuple[Limit, ...]:
    what, _, per = name.partition("_per_")
    requests = MEASURED["requests_per_s"]
    measured = msgspec.structs.replace(requests, name=name, what=what, per=per, period_ns=period_s * NANO)
    return (Limit(measured, "ip", "", amount),) if amount else ()
