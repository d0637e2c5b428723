"""Allowances: what a tier gives, what overrides replace or add, and that counters keep their place."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.config import Config, IpLimits, Limits, Override, Tier
from penstock.core.limits import Allowance, IpRules, Limit, Rules, allowance, cell_id, nano_usd
from penstock.core.measures import (
    MEASURE_IN_FLIGHT,
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    MEASURED,
    MOST_LIMITS,
    UNLIMITED,
    WINDOW_BUCKET,
    WINDOW_HOUR,
    WINDOW_MONTH,
    WINDOW_NONE,
)
from penstock.core.principal import ANONYMOUS, Principal
from penstock.ext import Account, State
from penstock.ext import Limits as IpLimiter

ADA = Principal(key_id="key_1", name="laptop", tenant_id="home", user_id="ada", tier="free")
FREE = Tier(requests_per_hour=100, llm_requests_per_day=10, tokens_per_minute=20_000, usd_per_month=1.5, in_flight=2)


def allowed(*overrides: Override, tier: Tier = FREE, principal: Principal = ADA) -> Allowance:
    config = Config(tiers={"free": tier}, limits=Limits(override=overrides))
    return allowance(principal, Rules.of(config))


def limits(given: Allowance) -> set[tuple[str, str, str, int]]:
    return {
        (each.scope, each.subject, each.measured.name, each.amount) for each in given.limits if each.amount != UNLIMITED
    }


def meters(given: Allowance) -> list[str]:
    return [each.measured.name for each in given.limits if each.amount == UNLIMITED]


def test_a_tier_counts_per_key() -> None:
    given = allowed()
    assert limits(given) == {
        ("key", "key_1", "requests_per_hour", 100),
        ("key", "key_1", "llm_requests_per_day", 10),
        ("key", "key_1", "tokens_per_minute", 20_000),
        ("key", "key_1", "usd_per_month", 1_500_000_000),
        ("key", "key_1", "in_flight", 2),
    }
    assert meters(given) == ["tokens_per_day", "usd_per_day"]
    assert given.has_budget


def test_an_override_replaces_what_it_names() -> None:
    given = allowed(Override(tenant_id="home", requests_per_hour=5000))
    assert ("tenant", "home", "requests_per_hour", 5000) in limits(given)
    assert not [each for each in limits(given) if each[0] == "key" and each[2] == "requests_per_hour"]
    assert "requests_per_hour" in meters(given)


def test_overrides_of_several_scopes_hold_at_once() -> None:
    given = allowed(Override(tenant_id="home", in_flight=50), Override(user_id="ada", in_flight=5))
    assert {each for each in limits(given) if each[2] == "in_flight"} == {
        ("tenant", "home", "in_flight", 50),
        ("user", "ada", "in_flight", 5),
    }


def test_a_tier_wide_override_stands_beside_the_tiers_own() -> None:
    given = allowed(Override(tier="free", in_flight=20))
    assert {each for each in limits(given) if each[2] == "in_flight"} == {
        ("key", "key_1", "in_flight", 2),
        ("tier", "free", "in_flight", 20),
    }


@pytest.mark.parametrize("key", ["laptop", "key_1"])
def test_a_key_may_be_called_by_name_or_id(key: str) -> None:
    assert ("key", "key_1", "in_flight", 9) in limits(allowed(Override(key=key, in_flight=9)))


def test_a_keys_quota_and_what_the_file_says_louder() -> None:
    ada = Principal(key_id="key_1", name="laptop", tier="free", quota_requests_per_hour=7)
    assert ("key", "key_1", "requests_per_hour", 7) in limits(allowed(principal=ada))
    given = allowed(Override(key="laptop", requests_per_hour=8), principal=ada)
    assert [each for each in limits(given) if each[2] == "requests_per_hour"] == [
        ("key", "key_1", "requests_per_hour", 8)
    ]


def test_no_tier_is_no_limit() -> None:
    given = allowed(principal=Principal(key_id="key_2"))
    assert (limits(given), given.tier_known, given.models) == (set(), True, None)
    assert meters(given) == ["requests_per_hour", "tokens_per_day", "usd_per_day", "usd_per_month"]


def test_a_tier_that_is_gone_is_told() -> None:
    assert not allowed(principal=Principal(key_id="key_2", tier="gold")).tier_known


def test_nobody_has_no_overrides() -> None:
    assert limits(allowed(Override(user_id="ada", in_flight=1), principal=ANONYMOUS)) == set()


def test_models_and_the_way_up() -> None:
    tiers = {
        "free": Tier(requests_per_hour=100, in_flight=2, models=("small",), upgrade_to="pro", max_output_tokens=100),
        "pro": Tier(requests_per_hour=1000, usd_per_month=20.0, max_output_tokens=100),
    }
    given = allowance(ADA, Rules.of(Config(tiers=tiers)))
    assert given.allows_model("small")
    assert not given.allows_model("large")
    assert given.max_output_tokens == 100
    assert given.upgrade == {"tier": "pro", "requests_per_hour": 1000, "usd_per_month": 20.0, "in_flight": None}


# --- cells


def test_a_cell_does_not_depend_on_the_amount() -> None:
    hour = MEASURED["requests_per_hour"]
    assert Limit(hour, "key", "k", 1).cell()[1] == Limit(hour, "key", "k", 2).cell()[1]


def test_cells_differ_in_all_they_count() -> None:
    cells = [
        cell_id(scope, subject, measured)
        for scope in ("key", "user", "tenant", "tier", "ip")
        for subject in ("a", "b", "a\0b")
        for measured in MEASURED.values()
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 < cell < 1 << 64 for cell in cells)


def test_a_cell_keeps_its_place_from_version_to_version() -> None:
    """Else an upgrade would forget what is used."""
    assert hex(cell_id("key", "key_1", MEASURED["requests_per_hour"])) == PINNED


PINNED = "0xfd997ffc89db0011"


@pytest.mark.parametrize(
    ("name", "measure", "window", "period_ns"),
    [
        ("requests_per_s", MEASURE_REQUESTS, WINDOW_BUCKET, 10**9),
        ("tokens_per_minute", MEASURE_TOKENS, WINDOW_BUCKET, 60 * 10**9),
        ("requests_per_hour", MEASURE_REQUESTS, WINDOW_HOUR, 0),
        ("usd_per_month", MEASURE_NANO_USD, WINDOW_MONTH, 0),
        ("in_flight", MEASURE_IN_FLIGHT, WINDOW_NONE, 0),
    ],
)
def test_names_and_their_meaning(name: str, measure: int, window: int, period_ns: int) -> None:
    cell = Limit(MEASURED[name], "key", "k", 5).cell()
    assert (cell[0], *cell[2:]) == (name.encode(), measure, window, period_ns, 5)


def test_the_configuration_and_the_measures_have_the_same_names() -> None:
    assert set(Override.__struct_fields__) - {"key", "user_id", "tenant_id", "tier"} == set(MEASURED)


@given(st.decimals(min_value=0, max_value=250_000, places=9, allow_nan=False))
def test_money_is_what_its_digits_say(usd: Any) -> None:
    # A double holds 15 digits for certain: up to 250,000 USD that is nano-USD exactly below a million.
    if usd < 1_000_000 and len(str(usd).replace(".", "").strip("0")) <= 15:
        assert nano_usd(float(usd)) == int(usd * 10**9)


# --- a slow, obvious twin

amounts = st.dictionaries(st.sampled_from(sorted(MEASURED)), st.integers(0, 1000), max_size=3)
named = st.sampled_from(
    [
        (field, of)
        for field, some in {
            "key": ("key_1", "laptop", "other"),
            "user_id": ("ada", "bob"),
            "tenant_id": ("home", "away"),
            "tier": ("free", "pro"),
        }.items()
        for of in some
    ]
)


@given(amounts, st.dictionaries(named, amounts, max_size=5), st.none() | st.integers(0, 1000))
def test_the_rules_of_overrides(
    tier: dict[str, int], overrides: dict[tuple[str, str], dict[str, int]], quota: int | None
) -> None:
    principal = Principal(
        key_id="key_1", name="laptop", tenant_id="home", user_id="ada", tier="free", quota_requests_per_hour=quota
    )
    config = Config(
        tiers={"free": Tier(**tier), "pro": Tier()},
        limits=Limits(override=tuple(Override(**{field: of}, **sets) for (field, of), sets in overrides.items())),
    )
    given = allowance(principal, Rules.of(config))

    def nano(name: str, amount: int) -> int:
        return amount * 10**9 if name.startswith("usd") else amount

    expected: dict[tuple[str, str, str], int] = {}
    for name in MEASURED:
        of_key = overrides.get(("key", "key_1"), {}).get(name, overrides.get(("key", "laptop"), {}).get(name))
        if of_key is None and name == "requests_per_hour":
            of_key = quota
        of_user = overrides.get(("user_id", "ada"), {}).get(name)
        of_tenant = overrides.get(("tenant_id", "home"), {}).get(name)
        beside = overrides.get(("tier", "free"), {}).get(name)
        if of_key is None and of_user is None and of_tenant is None:
            of_key = tier.get(name)
        for scope, subject, amount in (
            ("key", "key_1", of_key),
            ("user", "ada", of_user),
            ("tenant", "home", of_tenant),
            ("tier", "free", beside),
        ):
            if amount is not None:
                expected[scope, subject, name] = nano(name, amount)
    assert limits(given) == {(*where, amount) for where, amount in expected.items()}
    assert len({cell[1] for cell in given.cells()}) == len(given.limits)
    assert len(given.limits) <= max(MOST_LIMITS, len(expected))


# --- by address


def test_limits_by_address() -> None:
    rules = IpRules.of(
        Config(limits=Limits(ip=IpLimits(chat_per_s=10, all_per_5min=2000, unauthenticated_per_15min=3)))
    )
    chat = IpRules.cells(rules.kinds["chat"], "192.0.2.1")
    assert [(name, period, amount) for name, _, _, _, period, amount in chat] == [
        (b"chat_per_s", 10**9, 10),
        (b"all_per_5min", 300 * 10**9, 2000),
    ]
    assert len(rules.kinds["search"]) == 1
    assert rules.unauthenticated[0].measured.period_ns == 900 * 10**9
    assert chat[0][1] != IpRules.cells(rules.kinds["chat"], "192.0.2.2")[0][1]


def test_without_limits_by_address_there_is_nothing_to_take() -> None:
    rules = IpRules.of(Config())
    assert (set(rules.kinds.values()), rules.unauthenticated) == ({()}, ())


# --- what shared memory makes of them


@pytest.mark.parametrize("amount", [0, 1, 250_000])
def test_shared_memory_takes_every_limit(tmp_path: Path, amount: int) -> None:
    names = sorted(MEASURED)
    state = State(str(tmp_path / "state.shm"), b"boot", cells=1024)
    for some in (names[:10], names[10:]):
        given = allowed(tier=Tier(**dict.fromkeys(some, amount)))
        account = Account(state, given.cells(), b"key_1", b"home", b"ada", b"free")
        assert [row[0].decode() for row in account.standing(0, 10**18)] == [each.measured.name for each in given.limits]
        assert account.has_money == given.has_budget


def test_shared_memory_takes_every_limit_by_address(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.shm"), b"boot", cells=1024)
    rules = IpRules.of(Config(limits=Limits(ip=IpLimits(chat_per_s=10**9, all_per_5min=1))))
    taken = IpLimiter(state, IpRules.cells(rules.kinds["chat"], "192.0.2.1"))
    assert [taken.take(0, 10**18), taken.take(0, 10**18)] == [0, 300 * 10**9]
