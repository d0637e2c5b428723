"""API keys: what they look like, and the bounds that hold for them.

A key is 256 random bits, so there is nothing to guess and a keyed SHA-256 keeps it (ext.KeyHasher); the slow hashes
made for passwords would only slow every request down.
"""

import re
from base64 import urlsafe_b64encode
from typing import Self

KEY_BYTES = 32
LONGEST_KEY_BYTES = 512
SHORTEST_OWN_KEY_BYTES = 16
"""Of keys that people make themselves, in the configuration file."""
LONGEST_GRACE_S = 30 * 86_400
"""That an old key holds beside the new one after a rotation."""
LATEST_EXPIRY_S = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second ISO 8601 can say in four digits."""

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


def previous_valid_until(now_s: float, grace_s: float, expires_at: float | None) -> float:
    """Until when the old key holds after a rotation now, epoch seconds: never longer than the key itself."""
    until = now_s + grace_s
    return until if expires_at is None else min(until, expires_at)
