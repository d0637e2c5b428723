"""Keys: their form, and how long an old one holds."""

import pytest

from penstock.core.keys import KeyPrefix, file_key_id, is_possible_key, make_key, make_key_id, previous_valid_until

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


def test_the_old_key_never_outlives_the_key() -> None:
    assert previous_valid_until(NOW, 60, None) == NOW + 60
    assert previous_valid_until(NOW, 60, NOW + 10) == NOW + 10
