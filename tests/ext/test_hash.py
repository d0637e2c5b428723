"""KeyHasher: HMAC-SHA-256 as the standard library computes it."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ext import KeyHasher, RequestHead


@given(st.binary(min_size=1, max_size=200), st.lists(st.binary(max_size=200), max_size=3))
def test_digests_are_those_of_the_standard_library(secret: bytes, keys: list[bytes]) -> None:
    hasher = KeyHasher(secret)
    assert [hasher.digest(key) for key in keys] == [hmac.digest(secret, key, "sha256") for key in keys]


def test_the_credential_of_a_request() -> None:
    hasher = KeyHasher(b"secret")

    def digest_of(*lines: tuple[bytes, bytes]) -> bytes | None:
        return hasher.digest_of(RequestHead([(b"host", b"a"), *lines]), 8)

    assert digest_of((b"x-api-key", b"psk_1234")) == hasher.digest(b"psk_1234")
    assert digest_of((b"authorization", b"Bearer k"), (b"api-key", b"k")) == hasher.digest(b"k")
    assert digest_of() is None, "no key"
    assert digest_of((b"authorization", b"Bearer k"), (b"api-key", b"j")) is None, "two keys"
    assert digest_of((b"x-api-key", b"psk_12345")) is None, "over-long"


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="the secret is empty"):
        KeyHasher(b"")


def test_the_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(KeyHasher(b"hunter2"))
