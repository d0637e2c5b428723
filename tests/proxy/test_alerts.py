"""Alerts: each threshold once in a window, over restarts too, and kept until the webhook has taken it."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stored import NOW, row

from penstock.proxy.alerts import RETRY_FIRST_S, RETRY_MOST_S, Alerts, Budget, Payer, payload
from penstock.proxy.store import NANO, Alert, Row, StoreError
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import end, start

HOUR = 3600.0
PERCENTS = (50, 80, 100)
ADA = Budget("user", "ada", "day", 10 * NANO)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "penstock.db", busy_s=0.05)
    made.migrate()
    yield made
    made.close()


class Keeper:
    """What the keeper does with alerts: rows go into the store, then they are counted."""

    def __init__(self, store: SqliteStore, *limits: Budget, percents: Sequence[int] = PERCENTS) -> None:
        self.limits = limits
        self.store = store
        self.alerts = Alerts(store, self.of, percents)

    def of(self, payer: Payer) -> list[Budget]:
        return [each for each in self.limits if each.id in payer]

    def spend(self, *rows: Row, at: float = NOW) -> list[tuple[str, int]]:
        if self.store.insert_rows(rows) < len(rows):
            self.alerts.reload()
        return [(alert.id, alert.percent) for alert in self.alerts.note(rows, at)]


def cost(number: int, usd: float, at: float = NOW, **changes: object) -> Row:
    return row(number, at, cost_nano_usd=int(usd * NANO), **changes)


def test_each_threshold_once(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA)
    assert keeper.spend(cost(1, 4.9)) == []
    assert keeper.spend(cost(2, 0.1)) == [("ada", 50)]
    assert keeper.spend(cost(3, 2)) == []
    assert keeper.spend(cost(4, 5)) == [("ada", 80), ("ada", 100)]
    assert keeper.spend(cost(5, 5), cost(6, 5)) == []


def test_rows_that_cost_nothing_ask_nothing(store: SqliteStore) -> None:
    store.close()
    store.path.unlink()
    assert Alerts(store, lambda payer: [ADA], PERCENTS).note([cost(1, 0)], NOW) == []


def test_every_scope_and_window(store: SqliteStore) -> None:
    keeper = Keeper(
        store,
        Budget("key", "key_1", "hour", NANO),
        Budget("user", "ada", "day", 2 * NANO),
        Budget("tenant", "home", "month", 3 * NANO),
        Budget("tier", "pro", "month", 4 * NANO),
        Budget("tier", "free", "month", 1),
        percents=(100,),
    )
    assert keeper.spend(cost(1, 1)) == [("key_1", 100)]
    assert keeper.spend(cost(2, 1, api_key_id="key_2")) == [("ada", 100)]
    assert keeper.spend(cost(3, 1, user_id="bob")) == [("home", 100)]
    assert keeper.spend(cost(4, 1, tenant_id=None)) == [("pro", 100)]


def test_the_next_window_has_alerts_of_its_own(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA, percents=(100,))
    tomorrow = end("day", NOW)
    assert keeper.spend(cost(1, 10)) == [("ada", 100)]
    assert keeper.spend(cost(2, 9, tomorrow), at=tomorrow) == []
    assert keeper.spend(cost(3, 5, tomorrow - 1), at=tomorrow + 1) == []  # late, and of yesterday
    assert keeper.spend(cost(4, 1, tomorrow), at=tomorrow + 2) == [("ada", 100)]
    assert [alert.window_start for alert in store.unsent_alerts()] == [start("day", NOW), tomorrow]


def test_a_restart_goes_on_with_what_is_stored(store: SqliteStore) -> None:
    Keeper(store, ADA).spend(cost(1, 6))
    second = Keeper(store, ADA)
    assert second.spend(cost(2, 1)) == []
    assert second.spend(cost(3, 1)) == [("ada", 80)]


def test_rows_written_twice_are_counted_once(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA)
    rows = [cost(1, 3), cost(2, 1)]
    assert keeper.spend(*rows) == []
    assert keeper.spend(*rows) == []
    assert keeper.spend(cost(3, 1)) == [("ada", 50)]


def test_a_budget_that_changes_compares_what_was_spent_before(store: SqliteStore) -> None:
    keeper = Keeper(store)
    keeper.spend(cost(1, 6))
    keeper.limits = (ADA,)
    keeper.alerts.change(keeper.of, (60, 90))
    assert keeper.spend(cost(2, 0.5)) == [("ada", 60)]


def test_memory_is_given_back(store: SqliteStore) -> None:
    keeper = Keeper(store, *(Budget("user", f"u{each}", "hour", NANO) for each in range(50)))
    for hour in range(6):
        at = NOW + hour * HOUR
        keeper.spend(*(cost(hour * 100 + each, 1, at, user_id=f"u{each}") for each in range(50)), at=at)
    assert len(keeper.alerts._told) <= 4 * 50 * len(PERCENTS)
    assert sum(each.scope == "user" and each.window == "hour" for each in keeper.alerts._spent) <= 4 * 50


def test_any_order_agrees_with_adding_up_by_hand(store: SqliteStore) -> None:
    chance = random.Random(5)
    keeper = Keeper(store, ADA, Budget("tenant", "home", "hour", 3 * NANO))
    told: list[tuple[str, int]] = []
    spent = {"ada": 0, "home": 0}
    number = 0
    for _ in range(60):
        batch = []
        for _ in range(chance.randrange(4)):
            number += 1
            user = chance.choice(["ada", "bob"])
            usd = chance.randrange(100_000_000)
            spent["home"] += usd
            spent["ada"] += usd if user == "ada" else 0
            batch.append(row(number, cost_nano_usd=usd, user_id=user))
        if chance.random() < 0.1:
            keeper = Keeper(store, *keeper.limits)
        told += keeper.spend(*batch)
    amounts = {"ada": 10 * NANO, "home": 3 * NANO}
    wanted = {(name, each) for name in spent for each in PERCENTS if spent[name] * 100 >= amounts[name] * each}
    assert len(told) == len(set(told))
    assert set(told) == wanted


def test_what_the_store_could_not_take_is_told_later(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA)
    keeper.spend(cost(1, 1))
    store.insert_rows([cost(2, 5)])
    with store._connections.use() as connection:
        connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError):
            keeper.alerts.note([cost(2, 5)], NOW)
        connection.execute("PRAGMA query_only = 0")
    assert [alert.percent for alert in keeper.alerts.note([], NOW)] == [50]
    assert keeper.spend(cost(3, 1.9)) == []
    assert keeper.spend(cost(4, 0.1)) == [("ada", 80)]


def test_budgets_that_cannot_be_told_now_are_asked_again(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA, Budget("tenant", "home", "day", 10 * NANO))
    keeper.spend(cost(1, 1))
    known, answers = keeper.of, [True, False]

    def sometimes(payer: Payer) -> list[Budget]:
        if not (answers.pop(0) if answers else True):
            raise StoreError("locked", "not now")
        return known(payer)

    keeper.alerts._budgets = sometimes
    with pytest.raises(StoreError):
        keeper.spend(cost(2, 2), cost(3, 2, user_id="bob"))
    assert keeper.alerts.note([], NOW) == [
        Alert(
            scope="tenant",
            id="home",
            window="day",
            window_start=start("day", NOW),
            percent=50,
            limit_nano_usd=10 * NANO,
            spent_nano_usd=5 * NANO,
        )
    ]
    assert keeper.spend(cost(4, 2)) == [("ada", 50)]


def test_an_alert_waits_until_it_is_sent(store: SqliteStore) -> None:
    keeper = Keeper(store, ADA)
    assert keeper.alerts.next(0.0) is None
    keeper.spend(cost(1, 8))
    first = keeper.alerts.next(0.0)
    assert first is not None
    assert first.percent == 50
    assert keeper.alerts.failed(0.0) == RETRY_FIRST_S
    assert keeper.alerts.next(RETRY_FIRST_S - 0.1) is None
    again = Keeper(store, ADA).alerts  # a restart in between forgets the pause, not the alert
    assert again.next(0.0) == first
    assert keeper.alerts.next(RETRY_FIRST_S) == first
    keeper.alerts.sent(first, NOW)
    second = keeper.alerts.next(RETRY_FIRST_S)
    assert second is not None
    assert second.percent == 80
    keeper.alerts.sent(second, NOW)
    assert keeper.alerts.next(1e9) is None
    assert store.unsent_alerts() == []


def test_pauses_grow_to_a_bound(store: SqliteStore) -> None:
    alerts = Alerts(store, lambda payer: [], PERCENTS)
    pauses = [alerts.failed(0.0) for _ in range(30)]
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses[-1] == RETRY_MOST_S


def test_the_payload_in_words_of_people() -> None:
    alert = Alert(
        scope="tenant",
        id="home",
        window="month",
        window_start=start("month", NOW),
        percent=80,
        limit_nano_usd=50 * NANO,
        spent_nano_usd=40 * NANO + 1,
    )
    assert payload(alert) == {
        "scope": "tenant",
        "id": "home",
        "limit_usd": 50.0,
        "spent_usd": 40.000000001,
        "percent": 80,
        "window": "month",
        "window_start": "2026-11-01T00:00:00Z",
        "window_end": "2026-12-01T00:00:00Z",
    }
