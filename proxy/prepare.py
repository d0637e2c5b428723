"""Before the first worker starts: the state folder is made, the tables are brought up to date, and where the shared
memory is new, what was used is counted again from the store."""

from penstock.core.limits import cell_id
from penstock.core.measures import MEASURED, WINDOW_DAY, WINDOW_HOUR, WINDOW_MONTH
from penstock.ext import Rings, State
from penstock.proxy.keeper import alone
from penstock.proxy.settings import Settings
from penstock.proxy.shared import open_store
from penstock.proxy.state_folder import StateFolder
from penstock.proxy.store import Scope, Store, StoreError, Sums
from penstock.proxy.store.windows import starts

WINDOWS = (WINDOW_HOUR, WINDOW_DAY, WINDOW_MONTH)
BATCH = 2000


def prepare(settings: Settings, wall_ns: int) -> str:
    """Make the state folder ready; "" or words about a store that fails, which is no reason not to serve.

    Raises OSError for a folder that cannot be used.
    """
    folder = StateFolder(settings.config.server.state_dir)
    folder.make()
    folder.hasher(settings.hash_key)
    state = folder.open_state()
    store = open_store(settings.config, folder)
    if store is None:
        return ""
    try:
        store.migrate()
        if state.fresh:
            _book_what_waits(folder, state, store)
            _count_again(state, store, wall_ns)
    except StoreError as error:
        return str(error)
    finally:
        store.close()
    return ""


def _book_what_waits(folder: StateFolder, state: State, store: Store) -> None:
    """Rows that nobody stored before everything ended are part of what was used."""
    with alone(folder.path, lambda after_s: True) as is_alone:
        if not is_alone:
            return  # the keeper of another penstock on this folder has them
        rings = Rings(str(folder.spool), state)
        while rows := rings.take(BATCH):
            store.insert_rows(rows)
            rings.free()


def _count_again(state: State, store: Store, wall_ns: int) -> None:
    """Set the calendar cells of everybody who used something in the current windows."""
    for (scope, subject), of_windows in store.window_sums(starts(wall_ns / 1e9)).items():
        for window, sums in zip(WINDOWS, of_windows, strict=True):
            _seed(state, scope, subject, window, sums, wall_ns)


def _seed(state: State, scope: Scope, subject: str, window: int, sums: Sums, wall_ns: int) -> None:
    used = {"requests": sums.requests, "llm_requests": sums.llm_requests, "tokens": sums.tokens, "usd": sums.nano_usd}
    for measured in MEASURED.values():
        if measured.window == window and used[measured.what]:
            state.seed(cell_id(scope, subject, measured), window, wall_ns, used[measured.what])
