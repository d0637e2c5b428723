"""`penstock keys`: make, list, revoke and rotate keys in the store. A new key goes to stdout alone, words to stderr."""

import argparse
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.proxy.key_register import KeyRegister
    from penstock.proxy.settings import Settings
    from penstock.proxy.state_folder import StateFolder
    from penstock.proxy.store import KeyRecord

FAILED = 1
COLUMNS = ("id", "name", "tenant", "user", "tier", "status", "expires", "last used")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _action(actions, "create", "make a key; it is shown this once")
    create.add_argument("--name", required=True, help="what you call it")
    create.add_argument("--tenant", default="default", metavar="ID", help="default: default")
    create.add_argument("--user", metavar="ID", help="default: the name")
    create.add_argument("--tier", default="", help='default: none, which is without limits but for "overrides"')
    create.add_argument("--quota", type=int, metavar="N", help="requests an hour, instead of the tier's")
    create.add_argument("--expires", metavar="TIME", help='such as "2030-01-01T00:00:00Z"; default: never')
    listing = _action(actions, "list", "show all keys of the store, never what they are")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    revoke = _action(actions, "revoke", "end a key, on a running server within a second")
    revoke.add_argument("id", metavar="ID")
    rotate = _action(actions, "rotate", "replace a key by a new one, which is shown this once")
    rotate.add_argument("id", metavar="ID")
    rotate.add_argument("--grace", type=float, default=86_400.0, metavar="S", help="the old one holds so long (86400)")


def run(arguments: argparse.Namespace) -> int:
    """The exit code: 0 done, 1 failed."""
    from penstock.core.config_problem import ConfigError
    from penstock.core.errors import PenstockError
    from penstock.proxy.settings import load, locate

    try:
        register = _register(load(locate(arguments.config)))
        ACTIONS[arguments.action](register, arguments)
    except ConfigError as error:
        return _complain(str(error))
    except PenstockError as error:
        return _complain(f"penstock: {error.message}")
    return 0


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary}.", allow_abbrev=False
    )
    made.add_argument("--config", metavar="FILE", help="default: penstock.toml in this folder, if it is there")
    return made


def _register(settings: "Settings") -> "KeyRegister":
    """The keys of the state folder; a server that runs on it is told of changes."""
    from penstock.core.errors import StoreUnavailable
    from penstock.proxy.key_register import KeyRegister
    from penstock.proxy.state_folder import StateFolder
    from penstock.proxy.store import StoreError
    from penstock.proxy.store.sqlite import SqliteStore

    config = settings.config
    folder = StateFolder(config.server.state_dir)
    hasher = folder.hasher(settings.hash_key)
    store = None
    if config.store.url == "sqlite":
        folder.make()
        store = SqliteStore(folder.database)
        try:
            store.migrate()
        except StoreError as error:
            raise StoreUnavailable(str(error)) from None
    return KeyRegister(
        store,
        hasher,
        prefix=config.auth.key_prefix,
        tiers=config.tiers,
        changed=lambda: _tell(folder),
        wall_s=_now,
        random=secrets.token_bytes,
    )


def _tell(folder: "StateFolder") -> None:
    """Tell the workers that keys changed, if a server runs: shared memory without one is not ours to open."""
    from penstock.proxy.keeper import alone

    with alone(folder.path, lambda after_s: True) as nobody_runs:
        if not nobody_runs:
            folder.open_state().bump_keys()


def _create(register: "KeyRegister", arguments: argparse.Namespace) -> None:
    from penstock.core.key_requests import CreateKey, read_fields

    wish = {
        "name": arguments.name,
        "tenant_id": arguments.tenant,
        "user_id": arguments.name if arguments.user is None else arguments.user,
        "tier": arguments.tier,
        "quota_requests_per_hour": arguments.quota,
        "expires_at": arguments.expires,
    }
    _show(*register.create(read_fields(wish, CreateKey)), "made")


def _rotate(register: "KeyRegister", arguments: argparse.Namespace) -> None:
    from penstock.core.key_requests import RotateKey, read_fields

    wish = read_fields({"id": arguments.id, "grace_s": arguments.grace}, RotateKey)
    _show(*register.rotate(wish), "rotated")


def _revoke(register: "KeyRegister", arguments: argparse.Namespace) -> None:
    record = register.revoke(arguments.id)
    print(f"penstock: key {record.id} ({record.key_name}) is revoked", file=sys.stderr)


def _list(register: "KeyRegister", arguments: argparse.Namespace) -> None:
    import msgspec

    from penstock.proxy.key_register import facts, state_of

    told = [{**facts(record), **state_of(record, _now())} for record in register.records()]
    if arguments.json:
        for each in told:
            print(msgspec.json.encode(each).decode())
        return
    names = ("id", "name", "tenant_id", "user_id", "tier", "status", "expires_at", "last_used_at")
    lines = [COLUMNS, *(tuple(each[name] or "-" for name in names) for each in told)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


ACTIONS = {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate}


def _show(key: str, record: "KeyRecord", done: str) -> None:
    print(f"penstock: key {record.id} ({record.key_name}) is {done}; it is not shown again:", file=sys.stderr)
    print(key)


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _complain(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED
