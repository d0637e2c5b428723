"""API keys: what they look like, when they hold, and the bounds of what an admin may ask of them.

A key is 256 random bits, so there is nothing to guess and a keyed SHA-256 keeps it (ext.KeyHasher); the slow hashes
made for passwords would only slow every request down.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Container
from datetime import datetime
from typing import Annotated, Literal, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from penstock.core.errors import InvalidRequest

KEY_BYTES = 32
LONGEST_KEY_BYTES = 512
SHORTEST_OWN_KEY_BYTES = 16
"""Of keys that people make themselves, in the configuration file."""
LONGEST_GRACE_S = 30 * 86_400
LATEST_EXPIRY_S = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second ISO 8601 can say in four digits."""

_T = TypeVar("_T")
_PREFIX = re.compile(r"[A-Za-z0-9_]{1,16}")
_KEY = re.compile(rb"[!-~]+")


class KeyPrefix(str):
    """What new keys begin with."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a prefix. Raises ValueError."""
        if not _PREFIX.fullmatch(text):
            raise ValueError('expected 1 to 16 letters, digits and underscores, such as "psk_"')
        return cls(text)


def make_key(prefix: str, random: bytes) -> str:
    """The key of 32 random bytes: the prefix and 43 characters of base64url."""
    if len(random) != KEY_BYTES:
        raise ValueError(f"a key is made of {KEY_BYTES} bytes, not {len(random)}")
    return prefix + urlsafe_b64encode(random).decode().rstrip("=")


def make_key_id(random: bytes) -> str:
    """The id of a key in the store, of 8 random bytes: "key_" and 16 hexadecimal digits."""
    return f"key_{random[:8].hex()}"


def file_key_id(name: str) -> str:
    """The id of a key of the configuration file."""
    return f"file:{name}"


def is_possible_key(key: bytes) -> bool:
    """Whether this could be a key at all: visible ASCII, 1 to 512 bytes. Anything else is not worth hashing."""
    return len(key) <= LONGEST_KEY_BYTES and _KEY.fullmatch(key) is not None


# --- when a key holds -----------------------------------------------------------------------------------


class KeyTimes(Struct, frozen=True, kw_only=True):
    """What decides whether a key holds. Epoch seconds."""

    is_active: bool = True
    """False = revoked."""
    expires_at: float | None = None
    """None = never. At this very second it has expired."""
    previous_valid_until: float | None = None
    """After a rotation: how long the key before still holds. None = there is none."""

    def standing(self, now_s: float, *, is_previous: bool = False) -> Literal["valid", "revoked", "expired"]:
        """Whether the key holds now; is_previous: the caller showed the key from before the last rotation."""
        if not self.is_active:
            return "revoked"
        if self.expires_at is not None and now_s >= self.expires_at:
            return "expired"
        if is_previous and (self.previous_valid_until is None or now_s >= self.previous_valid_until):
            return "expired"
        return "valid"


def previous_valid_until(now_s: float, grace_s: float, expires_at: float | None) -> float:
    """Until when the old key holds after a rotation now: never longer than the key itself."""
    until = now_s + grace_s
    return until if expires_at is None else min(until, expires_at)


# --- what an admin may ask --------------------------------------------------------------------------------

_Text = Annotated[str, Meta(max_length=200)]
_Quota = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for a new key."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    tenant_id: _Text = ""
    user_id: _Text = ""
    tier: _Text = ""
    quota_requests_per_hour: _Quota | None = None
    """None = as the tier says."""
    expires_at: str | float | None = None
    """ISO 8601 with its offset, or epoch seconds. None = never."""


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for a key's rotation."""

    grace_s: Annotated[float, Meta(ge=0, le=LONGEST_GRACE_S)] = 86_400
    """How long the old key holds beside the new one. 0 = it ends at once."""


def read_new_key(body: bytes, tiers: Container[str], now_s: float) -> tuple[NewKey, float | None]:
    """The wish for a key and when that key expires (epoch seconds). Raises InvalidRequest."""
    wish = decoded(body, NewKey)
    for field in ("name", "tenant_id", "user_id"):
        if not (text := getattr(wish, field)).isprintable() or text != text.strip():
            raise InvalidRequest(f"{field} must not have outer spaces or control characters", param=field)
    check_tier(wish.tier, tiers)
    return wish, expiry(wish.expires_at, now_s)


def check_tier(tier: str, tiers: Container[str]) -> None:
    """Raises InvalidRequest for a tier the configuration does not have. "" = no tier."""
    if tier and tier not in tiers:
        raise InvalidRequest("there is no such tier in the configuration", param="tier")


def expiry(wish: str | float | None, now_s: float) -> float | None:
    """A time in the future as epoch seconds. Raises InvalidRequest."""
    if wish is None:
        return None
    at = _from_text(wish) if isinstance(wish, str) else wish
    if at is None or not now_s < at <= LATEST_EXPIRY_S:
        raise InvalidRequest(
            'expires_at must be a time in the future, such as "2030-12-31T23:59:59Z" or epoch seconds',
            param="expires_at",
        )
    return at


def decoded(body: bytes, kind: type[_T]) -> _T:
    """A JSON body as a struct. Raises InvalidRequest that says which field is wrong."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(error)) from None


def _from_text(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
        # A time without offset would mean another moment on every machine.
        return time.timestamp() if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
