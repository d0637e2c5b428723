"""What a caller who meets a limit is told."""

import pytest

from penstock.core.config import Config, IpLimits, Limits, Override, Tier
from penstock.core.errors import BudgetExceeded, OutputLimit, RateLimited
from penstock.core.limits import Allowance, IpRules, Rules, allowance
from penstock.core.principal import Principal
from penstock.core.refusals import (
    address_used_up,
    check_output,
    model_not_allowed,
    never_fits,
    seconds,
    tier_unknown,
    usd,
    used_up,
)

TIERS = {
    "free": Tier(
        requests_per_hour=100, tokens_per_minute=20_000, usd_per_month=1.5, in_flight=2, max_output_tokens=500,
        upgrade_to="pro",
    ),
    "pro": Tier(requests_per_hour=1000),
}  # fmt: skip


def allowed(*overrides: Override) -> Allowance:
    principal = Principal(key_id="key_1", tenant_id="home", tier="free")
    return allowance(principal, Rules.of(Config(tiers=TIERS, limits=Limits(override=overrides))))


def index(given: Allowance, name: str) -> int:
    return [limit.measured.name for limit in given.limits].index(name)


def test_a_limit_of_the_tier_names_the_way_up() -> None:
    given = allowed()
    error = used_up(given, index(given, "requests_per_hour"), 61_000_000_001, ((b"x", b"y"),))
    assert str(error) == 'the limit of 100 requests an hour (tier "free") is used up; try again in 62 s'
    assert (type(error), error.retry_after_s, error.headers) == (RateLimited, 62, ((b"x", b"y"),))
    assert error.upgrade is not None
    assert error.upgrade["tier"] == "pro"


def test_a_limit_of_the_tenant_does_not() -> None:
    given = allowed(Override(tenant_id="home", requests_per_hour=5))
    error = used_up(given, index(given, "requests_per_hour"), 1)
    assert str(error) == "the limit of 5 requests an hour (of your tenant) is used up; try again in 1 s"
    assert error.upgrade is None


def test_money_and_what_is_in_flight() -> None:
    given = allowed()
    budget = used_up(given, index(given, "usd_per_month"), 10**9)
    assert isinstance(budget, BudgetExceeded)
    assert str(budget).startswith('the limit of 1.50 USD a month (tier "free") is used up')
    running = used_up(given, index(given, "in_flight"), 0)
    assert str(running) == '2 requests at one time are running already (tier "free"); let one of them end'
    assert running.retry_after_s == 1


def test_a_limit_of_nothing_over_a_whole_tier() -> None:
    given = allowed(Override(tier="free", requests_per_day=0))
    error = never_fits(given, index(given, "requests_per_day"), 5, 7)
    assert str(error) == 'the limit of 0 requests a day (of all of tier "free") lets no request through'


def test_what_can_never_pass() -> None:
    given = allowed()
    assert str(never_fits(given, index(given, "tokens_per_minute"), 40_960, 0)) == (
        'this request could need 40960 tokens, above the limit of 20000 tokens a minute (tier "free"); '
        "send less, or ask for less with max_tokens"
    )
    assert "could cost 2.00 USD, above the limit of 1.50 USD a month" in str(
        never_fits(given, index(given, "usd_per_month"), 0, 2_000_000_000)
    )


def test_by_address() -> None:
    rules = IpRules.of(Config(limits=Limits(ip=IpLimits(chat_per_s=10, all_per_5min=20))))
    assert str(address_used_up(rules.kinds["chat"], 10**9)) == (
        "the limit of 10 requests a second or 20 requests in 5 minutes from one address is used up; try again in 1 s"
    )


def test_output_and_models() -> None:
    given = allowed()
    check_output(given, None)
    check_output(given, 500)
    with pytest.raises(OutputLimit, match="501 output tokens are more than the 500 of the tier 'free'"):
        check_output(given, 501)
    assert "'x'" in str(model_not_allowed(given, "x"))
    assert '"free"' in str(tier_unknown(given))


@pytest.mark.parametrize(
    ("nano", "words"), [(0, "0.00"), (1_500_000_000, "1.50"), (2_000, "0.000002"), (1, "0.000000001")]
)
def test_money_in_words(nano: int, words: str) -> None:
    assert usd(nano) == words


def test_waiting_as_long_as_told_is_enough() -> None:
    assert [seconds(ns) for ns in (0, 1, 10**9, 10**9 + 1)] == [1, 1, 1, 2]
