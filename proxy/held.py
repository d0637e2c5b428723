"""One credential as a worker holds it: whose it is, until when it holds, and what was made of it for its requests."""

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.core.config import Key
from penstock.core.keys import file_key_id
from penstock.core.principal import Principal
from penstock.ext import KeyHasher
from penstock.proxy.store import KeyRecord

if TYPE_CHECKING:
    from penstock.proxy.identify import Caller

_NO_DIGEST = bytes(32)


class Held:
    """One credential the ring knows and whose it is. A rotated key has two of these until the old one ends."""

    __slots__ = ("caller", "digest", "principal", "replaced", "revoked", "until_s")

    def __init__(
        self,
        digest: bytes,
        principal: Principal | None,
        *,
        until_s: float = inf,
        revoked: bool = False,
        replaced: bool = False,
    ) -> None:
        self.digest = digest
        self.principal = principal
        self.until_s = until_s
        """Epoch s at which it ends; inf = never."""
        self.revoked = revoked
        self.replaced = replaced
        """It is the key from before a rotation."""
        self.caller: Caller | None = None
        """Made by `Identify` on first use."""

    def __repr__(self) -> str:
        state = "revoked" if self.revoked else f"until {self.until_s}"
        return f"<Held {self.principal.key_id if self.principal else 'nobody'} {state}>"


# What the ring says of a digest it does not hold. No keyed hash equals theirs.
NOBODY = Held(_NO_DIGEST, None)
"""No such key."""
UNREAD = Held(_NO_DIGEST, None)
"""The store could not be read yet, so nobody knows."""
ELSEWHERE = Held(_NO_DIGEST, None)
"""The store may know more: `ask` it."""


def held_of_file(keys: Iterable[Key], secrets: Iterable[tuple[str, bytes]], hasher: KeyHasher) -> list[Held]:
    """The keys of the configuration file. secrets: (name, key) of each, in the same order."""
    return [
        Held(
            hasher.digest(secret),
            Principal(
                key_id=file_key_id(key.name),
                name=key.name,
                tenant_id=key.tenant_id,
                user_id=key.user_id,
                tier=key.tier,
            ),
        )
        for key, (_, secret) in zip(keys, secrets, strict=True)
    ]


def held_of(record: KeyRecord) -> list[Held]:
    """A key of the store as the credentials it has: the one now, and the one before its last rotation."""
    principal = Principal(
        key_id=record.id,
        name=record.key_name,
        tenant_id=record.tenant_id,
        user_id=record.user_id,
        tier=record.tier,
        quota_requests_per_hour=record.quota_requests_per_hour,
        expires_at=record.expires_at,
    )
    until_s = inf if record.expires_at is None else record.expires_at
    revoked = not record.is_active
    held = [Held(bytes.fromhex(record.key_hash), principal, until_s=until_s, revoked=revoked)]
    if record.previous_key_hash is not None and record.previous_valid_until is not None:
        ends = min(until_s, record.previous_valid_until)
        old = replace(principal, expires_at=ends)
        held.append(Held(bytes.fromhex(record.previous_key_hash), old, until_s=ends, revoked=revoked, replaced=True))
    return held
