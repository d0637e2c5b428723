"""Which budgets a payer's rows count for."""

from pathlib import Path

from penstock.core.config_read import read_config
from penstock.core.limits import Rules
from penstock.proxy.alerts import Budget, Payer
from penstock.proxy.keeping import budgets
from penstock.proxy.store import KeyRecord
from penstock.proxy.store.sqlite import SqliteStore

TEXT = """
[backends.demo]
kind = "demo"
[tiers.free]
requests_per_hour = 5
usd_per_day = 1.5
[[limits.override]]
tenant_id = "home"
usd_per_month = 10
[[limits.override]]
key = "laptop"
usd_per_hour = 0.25
"""
RULES = Rules.of(read_config(TEXT, "penstock.toml").config)
NANO = 1_000_000_000


def test_of_the_tier_and_the_tenant() -> None:
    found = budgets(RULES, None)(Payer("key_1", "ada", "home", "free"))
    assert set(found) == {Budget("key", "key_1", "day", 3 * NANO // 2), Budget("tenant", "home", "month", 10 * NANO)}


def test_a_key_that_is_called_by_its_name(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "penstock.db")
    store.migrate()
    record = KeyRecord(id="key_7", tenant_id="", user_id="", key_name="laptop", key_hash="00", tier="", created_at=0.0)
    store.create_key(record)
    for key_id in ("key_7", "file:laptop"):
        found = budgets(RULES, store)(Payer(key_id, None, None, None))
        assert found == (Budget("key", key_id, "hour", NANO // 4),)
    store.close()


def test_nobody_has_no_budget() -> None:
    assert budgets(RULES, None)(Payer(None, None, None, None)) == ()
