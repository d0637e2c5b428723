"""Who may call: names in Host, origins of web pages."""

import pytest

from penstock.core.origin import OriginRules, host_name, is_loopback_name

ORIGIN = "https://app.example.org"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost:8080", "localhost"),
        (b"example.org.", "example.org"),
        (b"example.org.:80", "example.org"),
        (b"127.0.0.1:8080", "127.0.0.1"),
        (b"[::1]:8080", "::1"),
        (b"[::1]", "::1"),
        (b"", ""),
    ],
)
def test_host_name(host: bytes, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_names(name: str) -> None:
    assert is_loopback_name(name)


@pytest.mark.parametrize(
    "name", ["", "localhost.example.org", "xlocalhost", "127.0.0.1.example.org", "128.0.0.1", "0.0.0.0", "2130706433"]
)
def test_names_that_only_look_like_loopback(name: str) -> None:
    assert not is_loopback_name(name)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"localhost:8080", True),
        (b"[::1]:8080", True),
        (b"llm.example.org", True),
        (b"LLM.example.org:443", True),
        (b"evil.example.org", False),
        (b"llm.example.org.evil.net", False),
        (b"", False),
    ],
)
def test_hosts(host: bytes, allowed: bool) -> None:
    assert OriginRules(hosts=frozenset({"llm.example.org"})).host_allowed(host) is allowed


def test_no_list_of_hosts_allows_any() -> None:
    assert OriginRules(hosts=None).host_allowed(b"evil.example.org")


@pytest.mark.parametrize(
    ("origins", "origin", "host", "allowed"),
    [
        ((), b"http://localhost:8080", b"localhost:8080", True),
        ((), b"http://LOCALHOST:8080", b"localhost:8080", True),
        ((), b"http://localhost:9090", b"localhost:8080", False),
        ((), b"http://localhost", b"localhost:8080", False),
        ((), b"https://evil.example.org", b"localhost:8080", False),
        ((), b"null", b"localhost:8080", False),
        ((), b"", b"localhost", False),
        ((), b"null", b"", False),
        ((ORIGIN,), b"https://app.example.org", b"localhost", True),
        ((ORIGIN,), b"HTTPS://App.example.org", b"localhost", True),
        ((ORIGIN,), b"http://app.example.org", b"localhost", False),
        ((ORIGIN,), b"https://app.example.org:444", b"localhost", False),
        ((ORIGIN,), b"https://app.example.org.evil.net", b"localhost", False),
        (("*",), b"https://evil.example.org", b"localhost", True),
        (("*",), b"null", b"localhost", True),
    ],
)
def test_origins(origins: tuple[str, ...], origin: bytes, host: bytes, allowed: bool) -> None:
    rules = OriginRules(hosts=None, origins=frozenset(origins))
    assert rules.origin_allowed(origin, host) is allowed


@pytest.mark.parametrize(
    "origin", [b"http://[", b"http://[::1", b"\xff\xfe", b"http://a]b", b"::", b"http://\xe2\x84\x80/"]
)
def test_a_malformed_origin_is_refused_and_breaks_nothing(origin: bytes) -> None:
    assert not OriginRules(hosts=None).origin_allowed(origin, b"localhost")
    assert not OriginRules(hosts=frozenset()).host_allowed(origin)


def test_own_pages_need_no_cors_lines() -> None:
    rules = OriginRules(hosts=None)
    assert rules.origin_allowed(b"http://localhost", b"localhost")
    assert not rules.cors_allowed(b"http://localhost")
