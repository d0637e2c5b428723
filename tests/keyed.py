"""What a worker holds to know its callers, on a store of its own and a clock a test moves."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from scripted import Client, exchange

from penstock.core.config import Config
from penstock.core.endpoint import EXACT
from penstock.core.errors import PenstockError
from penstock.core.key_requests import CreateKey
from penstock.core.limits import Rules
from penstock.core.principal import ANONYMOUS
from penstock.ext import KeyHasher, State
from penstock.proxy.client_address import ClientAddresses
from penstock.proxy.endpoints import OWN
from penstock.proxy.entrance import Entrance
from penstock.proxy.held import Held
from penstock.proxy.identify import Identify, caller_maker
from penstock.proxy.key_register import KeyRegister
from penstock.proxy.keys import KeyRing
from penstock.proxy.store import KeyRecord, StoreError
from penstock.proxy.store.sqlite import SqliteStore

NOW_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z
ADMIN = b"the-admin-key-of-tests"
JSON = (b"content-type", b"application/json")


class Clock:
    """Both clocks, moved together."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def wall_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s) * 1_000_000_000

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)


class Refusing:
    """A store that cannot be read until it is given."""

    def __init__(self, store: SqliteStore | None = None) -> None:
        self.store = store
        self.asked = 0

    def keys_since(self, revision: int) -> list[KeyRecord]:
        return self._there().keys_since(revision)

    def key_by_hash(self, key_hash: str) -> KeyRecord | None:
        self.asked += 1
        return self._there().key_by_hash(key_hash)

    def _there(self) -> SqliteStore:
        if self.store is None:
            raise StoreError("locked", "the database is locked")
        return self.store


class Keyed:
    """One worker's parts. `app` has what the endpoints use of an App."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "[tiers.free]\nrequests_per_hour = 100\n[tiers.pro]\n",
        of_file: Iterable[Held] = (),
        admin: bytes | None = ADMIN,
        open_to_all: bool = False,
        stored: bool = True,
        **bounds: int,
    ) -> None:
        self.clock = Clock()
        self.config = msgspec.toml.decode(config, type=Config)
        self.hasher = KeyHasher(bytes(range(32)))
        self.state = State(str(folder / "state.shm"), b"boot", 4096)
        self.store = SqliteStore(folder / "penstock.db") if stored else None
        if self.store is not None:
            self.store.migrate()
        self.source = Refusing(self.store)
        self.ring = KeyRing(
            self.source if stored else None,
            of_file,
            generation=lambda: self.state.keys_generation,
            monotonic=self.clock.wall_s,
            **bounds,
        )
        self.identify = Identify(
            self.ring,
            self.hasher,
            caller_maker(Rules.of(self.config), self.state),
            anonymous=ANONYMOUS if open_to_all else None,
            admin_key=admin,
            wall_s=self.clock.wall_s,
        )
        self.count = 0
        self.register = KeyRegister(
            self.store,
            self.hasher,
            prefix="psk_",
            tiers=self.config.tiers,
            changed=self.state.bump_keys,
            wall_s=self.clock.wall_s,
            random=self._random,
        )
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.app: Any = SimpleNamespace(
            kept=SimpleNamespace(
                identify=self.identify,
                ring=self.ring,
                register=self.register,
                store=self.store,
                wall_ns=self.clock.wall_ns,
                now_ns=self.clock.wall_ns,
            ),
            clock=self.clock.now,
            log=SimpleNamespace(event=lambda level, message, **fields: self.events.append((message, fields))),
            routes=SimpleNamespace(models={"m": ()}),
            discovery=SimpleNamespace(models=[]),
            started_at=self.clock.now(),
        )

    def _random(self, count: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(2, "big").rjust(count, b"r")

    async def caller(self, *lines: tuple[bytes, bytes]) -> Any:
        """Who sent a request with these header lines, as App.handle asks."""
        made = exchange(Client(), "GET", "/v1/models", *lines)
        try:
            return self.identify(made) or await self.identify.by_store(made)
        finally:
            made.close()

    async def call(
        self, own: str, body: Any = None, *lines: tuple[bytes, bytes], admin: bytes | None = ADMIN, query: bytes = b""
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer of one of our endpoints; of an error, what its class says."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = () if body is None else (JSON, (b"content-length", str(len(raw)).encode()))
        shown = () if admin is None else ((b"x-admin-key", admin),)
        client = Client([] if body is None else [raw])
        made = exchange(client, "GET" if body is None else "POST", "/x", *sent, *shown, *lines, query=query)
        endpoint = next(each for each in EXACT.values() if each.own == own)
        entrance = Entrance(ClientAddresses(()), self.identify, None)
        try:
            if not entrance.enter(made, endpoint):
                await entrance.enter_by_store(made)
            await OWN[own](self.app, made)
        except PenstockError as error:
            return error.status, {"error": error.message, "param": error.param, "code": error.code}
        finally:
            made.close()
        return client.sent[0]["status"], msgspec.json.decode(b"".join(m["body"] for m in client.sent[1:]))


def wish(name: str = "laptop", **more: Any) -> CreateKey:
    """A new key of the tier "free"."""
    return CreateKey(tenant_id="home", user_id="ada", name=name, tier="free", **more)


def bearer(key: str | bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + (key.encode() if isinstance(key, str) else key)


def together(*calls: Any) -> Any:
    """Run calls at once; their results in order."""
    return asyncio.gather(*calls)
