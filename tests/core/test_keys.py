"""Keys: their form, when they hold, and what an admin may not ask."""

import pytest

from penstock.core.errors import InvalidRequest
from penstock.core.keys import (
    KeyPrefix,
    KeyTimes,
    Rotation,
    decoded,
    file_key_id,
    is_possible_key,
    make_key,
    make_key_id,
    previous_valid_until,
    read_new_key,
)

NOW = 1_800_000_000.0


def test_a_key_is_its_prefix_and_43_characters() -> None:
    key = make_key("psk_", bytes(range(32)))
    assert key == "psk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert is_possible_key(key.encode())
    with pytest.raises(ValueError, match="32 bytes"):
        make_key("psk_", b"short")


def test_ids() -> None:
    assert make_key_id(bytes(range(8))) == "key_0001020304050607"
    assert file_key_id("laptop") == "file:laptop"


@pytest.mark.parametrize("key", [b"", b"a b", "schlüssel".encode(), b"a\n", b"a\0", b"x" * 513, b"\x7f"])
def test_what_can_be_no_key(key: bytes) -> None:
    assert not is_possible_key(key)


def test_the_longest_key() -> None:
    assert is_possible_key(b"x" * 512)


@pytest.mark.parametrize("prefix", ["", "p-", "ü", "x" * 17, "a b"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError, match="1 to 16 letters"):
        KeyPrefix.parse(prefix)


@pytest.mark.parametrize(
    ("times", "previous", "standing"),
    [
        (KeyTimes(), False, "valid"),
        (KeyTimes(is_active=False), False, "revoked"),
        (KeyTimes(is_active=False, expires_at=NOW - 1), False, "revoked"),
        (KeyTimes(expires_at=NOW + 1), False, "valid"),
        (KeyTimes(expires_at=NOW), False, "expired"),
        (KeyTimes(previous_valid_until=NOW + 1), True, "valid"),
        (KeyTimes(previous_valid_until=NOW), True, "expired"),
        (KeyTimes(previous_valid_until=NOW - 1), False, "valid"),
        (KeyTimes(), True, "expired"),
        (KeyTimes(is_active=False, previous_valid_until=NOW + 1), True, "revoked"),
    ],
)
def test_when_a_key_holds(times: KeyTimes, previous: bool, standing: str) -> None:
    assert times.standing(NOW, is_previous=previous) == standing


def test_the_old_key_never_outlives_the_key() -> None:
    assert previous_valid_until(NOW, 60, None) == NOW + 60
    assert previous_valid_until(NOW, 60, NOW + 10) == NOW + 10


def test_a_wish_for_a_key() -> None:
    body = b'{"name": "ci", "tier": "pro", "quota_requests_per_hour": 5, "expires_at": "2030-12-31T23:59:59Z"}'
    wish, expires_at = read_new_key(body, {"pro"}, NOW)
    assert (wish.name, wish.tier, wish.quota_requests_per_hour, expires_at) == ("ci", "pro", 5, 1_924_991_999.0)
    assert read_new_key(b'{"name": "ci"}', (), NOW)[1] is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Object missing required field `name`"),
        (b"{", "Input data was truncated"),
        (b"\xff", "malformed"),
        (b'{"name": ""}', "Expected `str` of length >= 1"),
        (b'{"name": "x", "nme": 1}', "Object contains unknown field `nme`"),
        (b'{"name": "x\\n"}', "name must not have outer spaces or control characters"),
        (b'{"name": "x", "tier": "gold"}', "there is no such tier"),
        (b'{"name": "x", "quota_requests_per_hour": -1}', "Expected `int` >= 0"),
        (b'{"name": "x", "quota_requests_per_hour": 1e300}', "Expected `int"),
        (b'{"name": "x", "quota_requests_per_hour": 99999999999999999999999}', "Expected `int"),
        (b'{"name": "x", "expires_at": "2020-01-01T00:00:00Z"}', "expires_at must be a time in the future"),
        (b'{"name": "x", "expires_at": "2030-01-01T00:00:00"}', "expires_at must be a time in the future"),
        (b'{"name": "x", "expires_at": "tomorrow"}', "expires_at must be a time in the future"),
        (b'{"name": "x", "expires_at": 1e300}', "expires_at must be a time in the future"),
        (b'{"name": "x", "expires_at": true}', "Expected `"),
    ],
)
def test_what_an_admin_may_not_ask(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_new_key(body, {"pro"}, NOW)
    assert words in str(caught.value)


def test_grace_is_bounded() -> None:
    assert decoded(b"", Rotation).grace_s == 86_400
    with pytest.raises(InvalidRequest):
        decoded(b'{"grace_s": 1e9}', Rotation)
