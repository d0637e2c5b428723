"""What all workers share (design: one memory-mapped file, one spool folder, one store), as one process opens it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes

from penstock.core.config import Config
from penstock.core.limits import Rules
from penstock.core.principal import ANONYMOUS
from penstock.ext import CacheClears, Spool, State, Targets
from penstock.proxy.held import held_of_file
from penstock.proxy.identify import Identify, caller_maker
from penstock.proxy.key_register import KeyRegister
from penstock.proxy.keys import KeyRing
from penstock.proxy.settings import Settings
from penstock.proxy.state_folder import StateFolder, boot_id
from penstock.proxy.store import Store
from penstock.proxy.store.sqlite import SqliteStore


@dataclass(frozen=True)
class Shared:
    """store: None = there is none. spool: None = no request has a record (no store, and no limit that needs one)."""

    folder: StateFolder
    state: State
    store: Store | None
    spool: Spool | None
    ring: KeyRing
    identify: Identify
    register: KeyRegister
    now_ns: Callable[[], int]
    """Monotonic, of this boot."""
    wall_ns: Callable[[], int]


def keeps_state(config: Config) -> bool:
    """Something outlives a request: keys, limits or usage rows."""
    return config.auth.mode != "none" or has_records(config) or _limits_addresses(config)


def has_records(config: Config) -> bool:
    """Requests have usage records: to be stored, or because a limit needs to be given back when a worker dies."""
    return config.store.url != "none" or has_limits(config)


def has_limits(config: Config) -> bool:
    """Some tier or override limits something."""
    sections = (*config.tiers.values(), *config.limits.override)
    return any(section.amounts() for section in sections)


def open_store(config: Config, folder: StateFolder) -> Store | None:
    return SqliteStore(folder.database) if config.store.url == "sqlite" else None


class Memory:
    """The mapped files of one process, each opened when it is first needed and held to the end."""

    def __init__(self, state_dir: str) -> None:
        self.folder = StateFolder(state_dir)
        self._state: State | None = None
        self._spool: Spool | None = None
        self._targets: Targets | None = None
        self._cache_clears: CacheClears | None = None

    def state(self) -> State:
        """Raises OSError."""
        self._state = self._state or self.folder.open_state()
        return self._state

    def spool(self, records: int) -> Spool:
        """This process's ring. Raises OSError."""
        self._spool = self._spool or Spool(str(self.folder.spool), self.state(), records)
        return self._spool

    def targets(self) -> Targets:
        """What all workers know of the targets; of this process alone where nothing else is kept, and no folder can be
        used. Raises OSError, but for that."""
        if self._targets is None:
            self._targets = Targets(self._where(self.folder.targets), boot_id())
        return self._targets

    def cache_clears(self) -> CacheClears:
        """What all workers know of each other's kept answers; as `targets`."""
        if self._cache_clears is None:
            self._cache_clears = CacheClears(self._where(self.folder.cache), boot_id())
        return self._cache_clears

    def sweep(self) -> None:
        """Take away what dead workers held. Raises OSError."""
        self.targets().sweep()
        if self._cache_clears is not None:
            self._cache_clears.sweep()

    def _where(self, file: Path) -> str:
        return "" if self._state is None and not self.folder.path.is_dir() else str(file)


def open_shared(
    settings: Settings,
    memory: Memory,
    *,
    now_ns: Callable[[], int],
    wall_ns: Callable[[], int],
    previous: tuple[Settings, Shared] | None = None,
) -> Shared:
    """Open everything, as a worker does at its start. now_ns: monotonic. Raises OSError, ConfigError.

    previous: what there was before a reload. Its keys are taken over unless they are others now, since reading a
    hundred thousand of them holds a worker up.
    """
    config = settings.config

    def wall_s() -> float:
        return wall_ns() / 1e9

    state = memory.state()
    hasher = memory.folder.hasher(settings.hash_key)
    if previous is not None and same_keys(settings, previous[0]):
        store, ring = previous[1].store, previous[1].ring
    else:
        store = open_store(config, memory.folder)
        ring = KeyRing(
            store if _reads_keys(settings) else None,
            held_of_file(config.keys, settings.file_keys, hasher),
            generation=lambda: state.keys_generation,
            monotonic=lambda: now_ns() / 1e9,
        )
    identify = Identify(
        ring,
        hasher,
        caller_maker(Rules.of(config), state),
        anonymous=ANONYMOUS if config.auth.mode == "none" else None,
        admin_key=settings.admin_key,
        wall_s=wall_s,
    )
    register = KeyRegister(
        store,
        hasher,
        prefix=config.auth.key_prefix,
        tiers=config.tiers,
        changed=state.bump_keys,
        wall_s=wall_s,
        random=token_bytes,
    )
    spool = memory.spool(config.store.spool_records) if has_records(config) else None
    return Shared(memory.folder, state, store, spool, ring, identify, register, now_ns, wall_ns)


def same_keys(new: Settings, old: Settings) -> bool:
    """Whether the same credentials are read from the same places."""
    return _key_sources(new) == _key_sources(old)


def _key_sources(settings: Settings) -> tuple[object, ...]:
    config = settings.config
    return config.store.url, _reads_keys(settings), settings.hash_key, config.keys, settings.file_keys


def _reads_keys(settings: Settings) -> bool:
    """Whether keys of the store are asked for, or managed."""
    return settings.config.auth.mode == "keys" or settings.admin_key is not None


def _limits_addresses(config: Config) -> bool:
    return any(getattr(config.limits.ip, name) for name in config.limits.ip.__struct_fields__)
