"""By which names we are called, and from which web pages: DNS rebinding, cross-site requests, and CORS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raw_client import JSON_TYPE, Answer, RawClient, ask, chat_body, request

from running import Demo, Penstock, config

CHAT = "/v1/chat/completions"
PAGE = "https://app.example.org"


@pytest.fixture(scope="module")
def named(demo: Demo) -> Iterator[Penstock]:
    """With a name of its own, and one web page that may call."""
    server = 'hosts = ["llm.example.org", "10.0.0.5"]'
    with Penstock(
        config(demo.port, server=server, more=f'[cors]\norigins = ["{PAGE}", "http://x.test:81"]')
    ) as process:
        yield process


@pytest.fixture(scope="module")
def public(demo: Demo) -> Iterator[Penstock]:
    """Listens on all addresses, every page may call."""
    text = config(demo.port, more='[auth]\nmode = "none"\n[cors]\norigins = ["*"]')
    with Penstock(text.replace('listen = "127.0.0.1:0"', 'listen = "0.0.0.0:0"')) as process:
        yield process


def live(process: Penstock, host: str, *lines: str) -> Answer:
    return ask(process.port, request("GET", "/health/live", b"", *lines, host=host))


@pytest.mark.parametrize(
    "host", ["llm.example.org", "LLM.example.org:443", "llm.example.org.", "10.0.0.5", "localhost:1"]
)
def test_names_that_are_ours(named: Penstock, host: str) -> None:
    assert live(named, host).status == 200


@pytest.mark.parametrize("host", ["example.org", "x.llm.example.org", "llm.example.org.evil.test", "10.0.0.50"])
def test_names_that_are_not(named: Penstock, host: str) -> None:
    answer = live(named, host)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "Host")
    assert host in answer.json()["error"]["message"]


def test_beyond_loopback_any_name_will_do(public: Penstock) -> None:
    assert live(public, "whatever.example.net").status == 200


def test_an_absolute_target_names_the_host(named: Penstock) -> None:
    """RFC 9112 §3.2.2: its authority counts, whatever Host says; both must be ours."""
    data = request("GET", "http://evil.example/health/live", host="evil.example")
    assert ask(named.port, data).status == 400


# --- origins ---------------------------------------------------------------------------------------------------


def post(process: Penstock, *lines: str, stream: bool = False, host: str = "localhost") -> Answer:
    return ask(process.port, request("POST", CHAT, chat_body(stream=stream), JSON_TYPE, *lines, host=host))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("origin", [PAGE, "http://x.test:81"])
def test_an_allowed_page_may_read(named: Penstock, origin: str, stream: bool) -> None:
    answer = post(named, f"Origin: {origin}", stream=stream)
    assert answer.status == 200 and answer.header("access-control-allow-origin") == origin
    assert "x-request-id" in (answer.header("access-control-expose-headers") or "")
    assert "origin" in (answer.header("vary") or "").lower()


def test_an_allowed_page_may_read_errors(named: Penstock) -> None:
    answer = ask(named.port, request("GET", "/nothing", b"", f"Origin: {PAGE}"))
    assert answer.status == 404 and answer.header("access-control-allow-origin") == PAGE


FOREIGN = [
    "https://evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.evil.example",
    "http://localhost:9",
    "null",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS"])
def test_a_foreign_page_may_not_call(named: Penstock, method: str, origin: str) -> None:
    lines = (f"Origin: {origin}", "Access-Control-Request-Method: POST")
    answer = ask(named.port, request(method, CHAT, b"", *lines))
    assert (answer.status, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert answer.header("x-penstock-error") == "policy" and answer.header("access-control-allow-origin") is None


def test_two_origins_are_one_too_many(named: Penstock) -> None:
    """The second must not slip in behind the first."""
    assert post(named, f"Origin: {PAGE}", "Origin: https://evil.example").status in (400, 403)


def test_a_foreign_page_reaches_no_backend(named: Penstock, demo: Demo) -> None:
    before = demo.stats()["requests_total"]
    post(named, "Origin: https://evil.example")
    assert demo.stats()["requests_total"] == before


def test_a_page_of_our_own_may_call(named: Penstock) -> None:
    host = f"llm.example.org:{named.port}"
    assert post(named, f"Origin: https://{host}", host=host).status == 200


def test_a_client_that_is_no_page_needs_no_origin(named: Penstock) -> None:
    answer = post(named)
    assert answer.status == 200 and answer.header("access-control-allow-origin") is None


def test_every_page_where_cors_says_so(public: Penstock) -> None:
    answer = post(public, "Origin: https://anything.example")
    assert answer.status == 200 and answer.header("access-control-allow-origin") == "https://anything.example"
    assert answer.header("access-control-allow-credentials") is None


# --- preflights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/files/x", "/nothing"])
def test_a_preflight(named: Penstock, path: str) -> None:
    lines = (
        f"Origin: {PAGE}",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, content-type, x-stainless-lang",
    )
    with RawClient(named.port) as client:
        answer = client.send(request("OPTIONS", path, b"", *lines)).answer()
        assert answer.status == 204 and answer.header("access-control-allow-origin") == PAGE
        assert "POST" in (answer.header("access-control-allow-methods") or "")
        assert "x-stainless-lang" in (answer.header("access-control-allow-headers") or "")
        assert int(answer.header("access-control-max-age") or 0) > 0
        assert client.send(request("GET", "/health/live")).answer().status == 200, "still in step"


def test_the_backends_own_cors_lines_do_not_double_ours(named: Penstock) -> None:
    answer = post(named, f"Origin: {PAGE}")
    assert [name.lower() for name, _ in answer.headers].count("access-control-allow-origin") == 1
