"""Tells a webhook when a budget is nearly spent: once for each threshold in a window, kept until it was received."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from penstock.proxy.store import COLUMNS, NANO, Alert, Row, Scope, Store, StoreError
from penstock.proxy.store.windows import Window, end, instant, start, starts, text

RETRY_FIRST_S = 5.0
RETRY_MOST_S = 600.0
KEPT_S = 7200.0
"""How long after its end a window may still get rows."""
WINDOWS: tuple[Window, ...] = ("hour", "day", "month")

_KEY, _USER, _TENANT, _TIER, _NANO_USD, _CREATED_AT = (
    COLUMNS.index(name) for name in ("api_key_id", "user_id", "tenant_id", "tier", "cost_nano_usd", "created_at")
)


class Budget(NamedTuple):
    """A usd limit and what it counts over."""

    scope: Scope
    id: str
    window: Window
    nano_usd: int


class Payer(NamedTuple):
    """Whom a row belongs to; None = nobody."""

    key_id: str | None
    user_id: str | None
    tenant_id: str | None
    tier: str | None


Budgets = Callable[[Payer], Sequence[Budget]]
"""Those a payer's rows count for. May raise StoreError."""


class _Spending(NamedTuple):
    """What counts as one: a scope's id in one of its windows."""

    scope: Scope
    id: str
    window: Window
    began: float


class Alerts:
    """budgets: those a payer's rows count for. percents: the thresholds.

    What was spent is read once from the store and added up from then on. Calls may raise StoreError; the next one goes
    on where that one stopped.
    """

    def __init__(self, store: Store, budgets: Budgets, percents: Iterable[int]) -> None:
        self._store = store
        self._budgets = budgets
        self._percents = sorted(set(percents))
        self._spent: dict[_Spending, int] = {}
        self._loaded_at: float | None = None
        self._touched: dict[_Spending, int] = {}
        """What was spent on and not compared yet, with its budget in nano-USD."""
        self._uncounted: list[Row] = []
        self._told: set[tuple[_Spending, int]] = set()
        self._unsent: list[Alert] | None = None
        self._received: list[tuple[Alert, float]] = []
        self._failures = 0
        self._again_at = 0.0
        self._hour = 0.0

    def change(self, budgets: Budgets, percents: Iterable[int]) -> None:
        """Other budgets or thresholds from the next rows on."""
        self._budgets = budgets
        self._percents = sorted(set(percents))
        self.reload()

    def reload(self) -> None:
        """Read what was spent anew, with the next rows."""
        self._loaded_at = None

    def note(self, rows: Iterable[Row], wall_s: float) -> list[Alert]:
        """Count rows that are in the store; the alerts they gave rise to, now in the store too."""
        self._uncounted += rows
        try:
            self._count()
        except StoreError:  # of whoever knows the budgets
            self.reload()
            raise
        self._uncounted.clear()
        if not self._touched:
            return []
        if self._loaded_at is None:
            self._load(wall_s)
        crossed = [alert for touched in self._touched.items() for alert in self._crossed(*touched)]
        opened = self._store.open_alerts(crossed) if crossed else []
        self._told.update((_spending(alert), alert.percent) for alert in crossed)
        self._touched.clear()
        if self._unsent is not None:
            self._unsent += opened
        self._forget(wall_s)
        return opened

    # --- sending

    def next(self, now_s: float) -> Alert | None:
        """The alert to send now, oldest first; None while there is none or a failure is too fresh."""
        self._close()
        if self._unsent is None:
            self._unsent = self._store.unsent_alerts()
        return self._unsent[0] if self._unsent and now_s >= self._again_at else None

    def sent(self, alert: Alert, wall_s: float) -> None:
        """The webhook has it."""
        self._failures = 0
        self._received.append((alert, wall_s))  # so that it is not sent twice if the store fails now
        if self._unsent is not None:
            self._unsent.remove(alert)
        self._close()

    def failed(self, now_s: float) -> float:
        """The webhook did not take it; in how many seconds it is tried again."""
        pause: float = min(RETRY_FIRST_S * 2 ** min(self._failures, 10), RETRY_MOST_S)
        self._failures += 1
        self._again_at = now_s + pause
        return pause

    # --- parts

    def _close(self) -> None:
        while self._received:
            self._store.close_alert(*self._received[0])
            del self._received[0]

    def _count(self) -> None:
        """Add up by payer and hour, so that budgets are looked up once for many rows."""
        costs: defaultdict[tuple[Payer, str], int] = defaultdict(int)
        for row in self._uncounted:
            if row[_NANO_USD]:
                costs[Payer(row[_KEY], row[_USER], row[_TENANT], row[_TIER]), row[_CREATED_AT][:13]] += row[_NANO_USD]
        for (payer, hour), nano_usd in costs.items():
            at = instant(f"{hour}:00:00")
            for budget in self._budgets(payer):
                spending = _Spending(budget.scope, budget.id, budget.window, start(budget.window, at))
                self._touched[spending] = budget.nano_usd
                self._add(spending, nano_usd)

    def _add(self, spending: _Spending, nano_usd: int) -> None:
        """Nothing for windows whose sums are not known: those not loaded yet, or over when they were."""
        if self._loaded_at is not None and spending.began >= start(spending.window, self._loaded_at):
            self._spent[spending] = self._spent.get(spending, 0) + nano_usd

    def _load(self, wall_s: float) -> None:
        began = starts(wall_s)
        sums = self._store.window_sums(began)
        self._spent = {
            _Spending(scope, name, window, began[place]): of_windows[place].nano_usd
            for (scope, name), of_windows in sums.items()
            for place, window in enumerate(WINDOWS)
        }
        self._loaded_at = wall_s

    def _crossed(self, spending: _Spending, amount: int) -> list[Alert]:
        spent = self._spent.get(spending, 0)
        return [
            Alert(
                scope=spending.scope,
                id=spending.id,
                window=spending.window,
                window_start=spending.began,
                percent=percent,
                limit_nano_usd=amount,
                spent_nano_usd=spent,
            )
            for percent in self._percents
            if spent * 100 >= amount * percent > 0 and (spending, percent) not in self._told
        ]

    def _forget(self, wall_s: float) -> None:
        """Once an hour, drop windows that are over and whose last rows are in."""
        if start("hour", wall_s) != self._hour:
            self._hour = start("hour", wall_s)
            over = wall_s - KEPT_S
            self._spent = {each: spent for each, spent in self._spent.items() if end(each.window, each.began) > over}
            self._told = {each for each in self._told if end(each[0].window, each[0].began) > over}


def _spending(alert: Alert) -> _Spending:
    return _Spending(alert.scope, alert.id, alert.window, alert.window_start)


def payload(alert: Alert) -> dict[str, Any]:
    """What the webhook gets. Money in USD, times in ISO 8601."""
    return {
        "scope": alert.scope,
        "id": alert.id,
        "limit_usd": alert.limit_nano_usd / NANO,
        "spent_usd": alert.spent_nano_usd / NANO,
        "percent": alert.percent,
        "window": alert.window,
        "window_start": _iso(alert.window_start),
        "window_end": _iso(end(alert.window, alert.window_start)),
    }


def _iso(at: float) -> str:
    return text(at)[:19].replace(" ", "T") + "Z"
