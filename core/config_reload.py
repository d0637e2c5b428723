"""What a reload cannot change: it stays as it is running, and whoever reloads is told."""

from msgspec.structs import replace

from penstock.core.address import Address
from penstock.core.config import Config

ONLY_A_RESTART = "only a restart or `penstock upgrade` changes it"


def keep_running(running: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """The new configuration as far as a running server can take it up, and a line about everything it cannot."""
    notes = []
    server = new.server
    for name in ("listen", "workers", "state_dir", "tls"):
        if getattr(server, name) != getattr(running.server, name):
            notes.append(f"server.{name} stays{_told(getattr(running.server, name))}: {ONLY_A_RESTART}")
            server = replace(server, **{name: getattr(running.server, name)})
    if server.tls is not None and server.receive_s != running.server.receive_s:
        notes.append(f"server.receive_s stays {running.server.receive_s:g} for heads under TLS: {ONLY_A_RESTART}")
    store = new.store
    if store.spool_records != running.store.spool_records:
        notes.append(f"store.spool_records stays {running.store.spool_records}: {ONLY_A_RESTART}")
        store = replace(store, spool_records=running.store.spool_records)
    return replace(new, server=server, store=store), tuple(notes)


def _told(value: object) -> str:
    """What it is now, where that is one word."""
    return f" {value}" if isinstance(value, (int, str, Address)) and value != "" else " as it is"
