"""KeyHasher: HMAC-SHA-256 as the standard library computes it."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ext import KeyHasher


@given(st.binary(min_size=1, max_size=200), st.lists(st.binary(max_size=200), max_size=3))
def test_digests_are_those_of_the_standard_library(secret: bytes, keys: list[bytes]) -> None:
    hasher = KeyHasher(secret)
    assert [hasher.digest(key) for key in keys] == [hmac.digest(secret, key, "sha256") for key in keys]


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="the secret is empty"):
        KeyHasher(b"")


def test_the_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(KeyHasher(b"hunter2"))
