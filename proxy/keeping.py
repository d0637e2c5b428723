"""The keeper's process, from the settings of `penstock serve`."""

from functools import lru_cache, partial

from penstock.core.limits import Rules, allowance
from penstock.core.measures import MEASURE_NANO_USD, UNLIMITED, WINDOW_DAY, WINDOW_HOUR, WINDOW_MONTH
from penstock.core.principal import Principal
from penstock.ext import Rings
from penstock.proxy import keeper
from penstock.proxy.alerts import Budget, Budgets, Payer
from penstock.proxy.log import Log
from penstock.proxy.settings import Settings
from penstock.proxy.state_folder import StateFolder
from penstock.proxy.store import Store
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import Window
from penstock.proxy.wall_clock import WallClock

FILE = "file:"
# A database that is locked for longer is trouble, and its keeper must not seem dead meanwhile.
BUSY_S = 1.0
WINDOWS: dict[int, Window] = {WINDOW_HOUR: "hour", WINDOW_DAY: "day", WINDOW_MONTH: "month"}


def run_keeper(settings: Settings, clock: WallClock) -> None:
    """Keep until SIGTERM. For a process of its own."""
    folder = StateFolder(settings.config.server.state_dir)
    keeper.run(folder.path, lambda: _make(settings, folder, clock))


def _make(settings: Settings, folder: StateFolder, clock: WallClock) -> keeper.Keeper:
    config = settings.config
    state = folder.open_state()
    stored = config.store.url != "none"
    return keeper.make(
        Rings(str(folder.spool), state),
        state,
        Log(config.log.level, config.log.file, clock),
        state_dir=folder.path,
        spool=folder.spool,
        open_store=partial(SqliteStore, folder.database, BUSY_S) if stored else None,
        keep_days=config.store.keep_days,
        webhook=config.alerts.webhook,
        budgets=budgets(Rules.of(config), SqliteStore(folder.database) if stored else None),
        budget_percent=config.alerts.budget_percent,
    )


def budgets(rules: Rules, store: Store | None) -> Budgets:
    """The limits in money that a payer's rows count for."""

    @lru_cache(maxsize=10_000)
    def of(payer: Payer) -> tuple[Budget, ...]:
        principal = Principal(
            key_id=payer.key_id or "",
            name=_name(payer.key_id or "", store),
            tenant_id=payer.tenant_id or "",
            user_id=payer.user_id or "",
            tier=payer.tier or "",
        )
        return tuple(
            Budget(limit.scope, limit.subject, WINDOWS[limit.measured.window], limit.amount)
            for limit in allowance(principal, rules).limits
            if limit.measured.measure == MEASURE_NANO_USD and limit.amount != UNLIMITED and limit.scope != "ip"
        )

    return of


def _name(key_id: str, store: Store | None) -> str:
    """What overrides may call a key."""
    if key_id.startswith(FILE):
        return key_id.removeprefix(FILE)
    record = store.key(key_id) if store is not None and key_id else None
    return record.key_name if record is not None else ""
