"""The client's address of a request: the peer, or what trusted proxies say."""

import pytest
from scripted import Client, exchange, play

from penstock.core.network import Network
from penstock.proxy.client_address import REMEMBERED, ClientAddresses

FORWARDED = (b"x-forwarded-for", b"198.51.100.7, 192.0.2.1")
NEAR = Network.parse("127.0.0.0/8")


def address(trusted: tuple[Network, ...], *lines: tuple[bytes, bytes], peer: object = ("127.0.0.9", "4711")) -> str:
    async def scene() -> str:
        made = exchange(Client(), "GET", "/v1/models", *lines)
        made.scope["client"] = peer
        made.close()
        return ClientAddresses(trusted).of(made)

    return play(scene())


@pytest.mark.parametrize(
    ("trusted", "lines", "client"),
    [
        ((), (FORWARDED,), "127.0.0.9"),
        ((Network.parse("10.0.0.0/8"),), (FORWARDED,), "127.0.0.9"),
        ((NEAR,), (FORWARDED,), "192.0.2.1"),
        ((NEAR, Network.parse("192.0.2.1")), (FORWARDED,), "198.51.100.7"),
        ((NEAR,), (FORWARDED, (b"x-forwarded-for", b"203.0.113.1")), "203.0.113.1"),
        ((NEAR,), (), "127.0.0.9"),
        ((NEAR,), ((b"x-forwarded-for", b"\xff, nonsense"),), "127.0.0.9"),
        ((NEAR,), ((b"forwarded", b"for=192.0.2.1"), (b"x-real-ip", b"192.0.2.1")), "127.0.0.9"),
    ],
)
def test_whose_word_counts(trusted: tuple[Network, ...], lines: tuple[tuple[bytes, bytes], ...], client: str) -> None:
    assert address(trusted, *lines) == client


def test_a_listener_without_addresses() -> None:
    assert address((NEAR,), FORWARDED, peer=None) == ""


def test_what_limits_count_over() -> None:
    addresses = ClientAddresses(())
    assert addresses.group("192.0.2.1") == "192.0.2.1"
    assert addresses.group("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert addresses.group("::ffff:192.0.2.1") == "192.0.2.1"


def test_what_is_remembered_is_bounded() -> None:
    addresses = ClientAddresses(())
    for number in range(REMEMBERED + 100):
        addresses.group(f"10.0.{number // 250}.{number % 250}")
    assert addresses.group.cache_info().currsize == REMEMBERED
