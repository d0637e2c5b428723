"""Keys are made, ended, renewed and changed here, for the endpoints and the command line alike.

Calls block: an event loop runs them in a thread. After each change every worker is told through shared memory.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import UNSET

from penstock.core.errors import InvalidRequest, NotFound, StoreUnavailable
from penstock.core.key_requests import CreateKey, RotateKey, UpdateKey, check_tier, expiry_s
from penstock.core.keys import KEY_BYTES, make_key, make_key_id, previous_valid_until
from penstock.ext import KeyHasher
from penstock.proxy.store import KeyChange, KeyExists, KeyRecord, Store, StoreError

T = TypeVar("T")

ID_BYTES = 8


class KeyRegister:
    """store: None = none is kept. changed: tells all workers. wall_s: epoch s. random: so many bytes of it."""

    def __init__(
        self,
        store: Store | None,
        hasher: KeyHasher,
        *,
        prefix: str,
        tiers: Collection[str],
        changed: Callable[[], object],
        wall_s: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._prefix = prefix
        self._tiers = tiers
        self._changed = changed
        self._wall_s = wall_s
        self._random = random

    def create(self, wish: CreateKey) -> tuple[str, KeyRecord]:
        """A new key and what is kept of it. Raises InvalidRequest, StoreUnavailable."""
        check_tier(wish.tier, self._tiers)
        now = self._wall_s()
        expires_at = expiry_s(wish.expires_at, now)
        key, key_hash = self._new_key()
        record = KeyRecord(
            id=make_key_id(self._random(ID_BYTES)),
            tenant_id=wish.tenant_id,
            user_id=wish.user_id,
            key_name=wish.name,
            key_hash=key_hash,
            tier=wish.tier,
            quota_requests_per_hour=wish.quota_requests_per_hour,
            created_at=now,
            expires_at=expires_at,
        )
        return key, self._change(lambda: self._kept().create_key(record))

    def revoke(self, key_id: str) -> KeyRecord:
        """End a key, in every worker within a second. Raises NotFound, StoreUnavailable."""
        _of_store(key_id)
        return _found(key_id, self._change(lambda: self._kept().revoke_key(key_id, self._wall_s())))

    def rotate(self, wish: RotateKey) -> tuple[str, KeyRecord]:
        """A new key in an old one's place; the old one holds for `grace_s` more. Raises as `update`."""
        _of_store(wish.id)
        now = self._wall_s()
        record = _found(wish.id, self._read(lambda: self._kept().key(wish.id)))
        if not record.is_active:
            raise InvalidRequest("a revoked key cannot be rotated; create another one", param="id")
        if record.expires_at is not None and record.expires_at <= now:
            raise InvalidRequest("an expired key cannot be rotated; give it a later expires_at first", param="id")
        until = previous_valid_until(now, wish.grace_s, record.expires_at)
        key, key_hash = self._new_key()
        changed = self._change(lambda: self._kept().rotate_key(wish.id, key_hash, until))
        return key, _found(wish.id, changed)

    def update(self, wish: UpdateKey) -> KeyRecord:
        """Change what is told of a key. Raises InvalidRequest, NotFound, StoreUnavailable."""
        _of_store(wish.id)
        if wish.tier is not UNSET:
            check_tier(wish.tier, self._tiers)
        change = KeyChange(
            key_name=wish.name,
            tier=wish.tier,
            quota_requests_per_hour=wish.quota_requests_per_hour,
            expires_at=UNSET if wish.expires_at is UNSET else expiry_s(wish.expires_at, self._wall_s()),
        )
        return _found(wish.id, self._change(lambda: self._kept().change_key(wish.id, change)))

    def record(self, key_id: str) -> KeyRecord:
        """One key. Raises NotFound, StoreUnavailable."""
        return _found(key_id, self._read(lambda: self._kept().key(key_id)))

    def records(self) -> list[KeyRecord]:
        """All keys of the store, also revoked ones, oldest first. Raises StoreUnavailable."""
        store = self._store
        return [] if store is None else self._read(store.all_keys)

    def _new_key(self) -> tuple[str, str]:
        key = make_key(self._prefix, self._random(KEY_BYTES))
        return key, self._hasher.digest(key.encode()).hex()

    def _kept(self) -> Store:
        if self._store is None:
            raise NotFound('keys are not stored here (store.url = "none"): the configuration file lists them')
        return self._store

    def _change(self, act: Callable[[], T]) -> T:
        done = self._read(act)
        self._changed()
        return done

    def _read(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except StoreError as error:
            raise StoreUnavailable(str(error), retry_after_s=1) from None
        except KeyExists as error:
            raise StoreUnavailable(f"{error}; try again", retry_after_s=1) from None


def facts(record: KeyRecord) -> dict[str, Any]:
    """What may be told of a key: everything but its hashes. Times in ISO 8601."""
    return {
        "id": record.id,
        "tenant_id": record.tenant_id,
        "user_id": record.user_id,
        "name": record.key_name,
        "tier": record.tier,
        "quota_requests_per_hour": record.quota_requests_per_hour,
        "expires_at": iso(record.expires_at),
        "created_at": iso(record.created_at),
    }


def state_of(record: KeyRecord, now_s: float) -> dict[str, Any]:
    """What becomes of a key in the course of time."""
    expired = record.expires_at is not None and record.expires_at <= now_s
    previous = record.previous_valid_until
    return {
        "status": "revoked" if not record.is_active else "expired" if expired else "active",
        "last_used_at": iso(record.last_used_at),
        "revoked_at": iso(record.revoked_at),
        "previous_valid_until": iso(previous if previous is not None and previous > now_s else None),
    }


def iso(at: float | None) -> str | None:
    """Epoch s as "2030-01-01T00:00:00Z", a fraction in ms."""
    if at is None:
        return None
    time = datetime.fromtimestamp(round(at, 3), UTC)
    return time.isoformat(timespec="milliseconds" if time.microsecond else "seconds").replace("+00:00", "Z")


def _of_store(key_id: str) -> None:
    if key_id.startswith("file:"):
        raise InvalidRequest("this key is kept in the configuration file; change it there", param="id")


def _found(key_id: str, record: KeyRecord | None) -> KeyRecord:
    if record is None:
        raise NotFound(f"there is no key with the id {key_id!r}", param="id")
    return record
