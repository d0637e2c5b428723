"""Proxies and addresses: whose word counts for who called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.network import Network, address_group, client_address

TRUSTED = (Network.parse("10.0.0.0/8"), Network.parse("fd00::1"))


@pytest.mark.parametrize(
    ("text", "read"),
    [("10.0.0.7", "10.0.0.7"), ("10.0.0.7/32", "10.0.0.7"), ("10.0.0.0/8", "10.0.0.0/8"), ("FD00::/8", "fd00::/8")],
)
def test_networks(text: str, read: str) -> None:
    assert Network.parse(text) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1/8", 'without bits beyond its length: "10.0.0.0/8"'),
        ("proxy.example", '"fd00::/8"'),
        ("", '"fd00::/8"'),
        ("fe80::1%eth0", '"fd00::/8"'),
    ],
)
def test_what_is_no_network(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="expected an IP address or network") as caught:
        Network.parse(text)
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", b"203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", b"1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", b"203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", b"[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", b"2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", b"203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("::ffff:10.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("fd00::1", b"203.0.113.9", "203.0.113.9"),
        ("", b"203.0.113.9", ""),
    ],
)
def test_who_called(peer: str, forwarded: bytes | None, client: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == client


@given(st.binary(max_size=60))
def test_whatever_is_forwarded_there_is_an_answer(forwarded: bytes) -> None:
    assert client_address("10.0.0.1", forwarded, TRUSTED)


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
    ],
)
def test_what_a_limit_per_address_counts_over(address: str, group: str) -> None:
    assert address_group(address) == group
