"""Plans: paths and header lines for each kind of backend, and what a rename writes."""

from math import inf
from typing import Any

import msgspec
import pytest

from penstock.core.cost import Price
from penstock.core.endpoint import match
from penstock.core.plan import Timeouts, make_plan, no_terms, upstream
from penstock.core.prices import Terms
from penstock.core.route import Route, RouteGroup, Target

TIMEOUTS = Timeouts(connect_s=inf, send_s=inf, first_byte_s=inf, idle_s=inf, total_s=inf)
CHAT = match("POST", b"/v1/chat/completions")


@pytest.mark.parametrize(
    ("kind", "url", "path", "sent"),
    [
        ("openai", "http://h:8000/v1", b"/v1/chat/completions", b"/v1/chat/completions"),
        ("openai", "http://h", b"/v1/chat/completions", b"/chat/completions"),
        ("openai", "http://h/openai/v1", b"/v1/models", b"/openai/v1/models"),
        ("openai", "http://h/v1/", b"/v1/models", b"/v1/models"),
        ("openai", "http://h/v1", b"/v1/files/a%2Fb", b"/v1/files/a%2Fb"),
        ("demo", "http://h/v1", b"/v1/models", b"/v1/models"),
        ("ollama", "http://h:11434", b"/v1/chat/completions", b"/v1/chat/completions"),
        ("ollama", "http://h:11434", b"/api/chat", b"/api/chat"),
        ("ollama", "http://h/gpu", b"/api/chat", b"/gpu/api/chat"),
        ("ollama", "http://h/gpu", b"/v1/models", b"/gpu/v1/models"),
        ("anthropic", "https://h", b"/v1/messages", b"/v1/messages"),
    ],
)
def test_paths(kind: str, url: str, path: bytes, sent: bytes) -> None:
    assert upstream("b", kind, url, b"", TIMEOUTS).path(path) == sent


@pytest.mark.parametrize(
    ("kind", "url", "secret", "lines"),
    [
        ("openai", "http://h:8000/v1", b"", b"host: h:8000\r\n"),
        ("openai", "https://h/v1", b"sk-1", b"host: h\r\nauthorization: Bearer sk-1\r\n"),
        ("ollama", "http://[::1]:11434", b"sk-1", b"host: [::1]:11434\r\nauthorization: Bearer sk-1\r\n"),
        ("anthropic", "https://h", b"sk-1", b"host: h\r\nx-api-key: sk-1\r\n"),
    ],
)
def test_header_lines(kind: str, url: str, secret: bytes, lines: bytes) -> None:
    assert upstream("b", kind, url, secret, TIMEOUTS).lines == lines


def test_answers_are_kept_only_where_the_plan_says_so() -> None:
    upstreams = {"b": upstream("b", "openai", "http://h/v1", b"", TIMEOUTS)}
    assert make_plan(CHAT, "m", Route.to(Target("b")), upstreams).keep_s == 0
    assert make_plan(CHAT, "m", Route.to(Target("b")), upstreams, keep_s=60).keep_s == 60


@pytest.mark.parametrize(
    ("model", "name", "rename"),
    [("m", None, None), ("m", "m", None), (None, None, None), (None, "x", None), ("m", 'a "näme"\n', 'a "näme"\n')],
)
def test_rename_only_where_the_name_differs(model: str | None, name: str | None, rename: str | None) -> None:
    made = make_plan(
        CHAT, model, Route.to(Target("b", name)), {"b": upstream("b", "openai", "http://h/v1", b"", TIMEOUTS)}
    )
    (target,) = made.targets
    assert target.rename == rename
    assert (None if target.rename_json is None else msgspec.json.decode(target.rename_json)) == rename


def test_targets_keep_their_order() -> None:
    upstreams = {name: upstream(name, "openai", f"http://{name}/v1", b"", TIMEOUTS) for name in "abc"}
    made = make_plan(CHAT, "m", Route.to(*(Target(name) for name in "cab")), upstreams)
    assert [target.upstream.name for target in made.targets] == ["c", "a", "b"]
    assert (made.endpoint, made.model) == (CHAT, "m")


def test_plans_share_what_a_backends_requests_share() -> None:
    shared = {"b": upstream("b", "openai", "http://h/v1", b"sk-1", TIMEOUTS)}
    first, second = (make_plan(CHAT, model, Route.to(Target("b")), shared) for model in ("m", "n"))
    assert first.targets[0].upstream is second.targets[0].upstream


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("POST /v1/chat/completions", b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n"),
        ("POST /api/chat", b"POST /api/chat HTTP/1.1\r\nhost: h\r\n"),
        ("GET /api/tags", b""),  # GET or HEAD
        ("POST /v1/audio/speech", b""),  # many paths
        ("POST /api/blobs/sha256:0", b""),
    ],
)
def test_the_first_line_is_ready_where_there_is_only_one(line: str, start: bytes) -> None:
    method, path = line.split(" ")
    shared = {"b": upstream("b", "ollama", "http://h", b"", TIMEOUTS)}
    made = make_plan(match(method, path.encode()), "m", Route.to(Target("b")), shared)
    assert made.targets[0].start == start


UPSTREAMS = {
    name: upstream(name, kind, f"http://{name}", b"", msgspec.structs.replace(TIMEOUTS, total_s=total_s), heartbeat_s)
    for name, kind, total_s, heartbeat_s in (
        ("a", "openai", 10.0, 0),
        ("b", "ollama", 20.0, 9),
        ("c", "ollama", 30.0, 5),
    )
}
WITH_FALLBACK = Route(
    (
        RouteGroup((Target("a", "m"), Target("b", "x")), "weighted", "m"),
        RouteGroup((Target("c", "n"),), "latency", "n"),
    )
)


def test_a_fallbacks_targets_get_its_name_and_have_its_price() -> None:
    asked: list[tuple[str | None, Target]] = []

    def terms_of(model: str | None, target: Target) -> Terms:
        asked.append((model, target))
        return Terms()

    made = make_plan(CHAT, "m", WITH_FALLBACK, UPSTREAMS, terms_of)
    assert [(model, target.backend) for model, target in asked] == [("m", "a"), ("m", "b"), ("n", "c")]
    assert [target.rename for target in made.targets] == [None, "x", "n"]
    assert [target.model for target in made.targets] == ["m", "x", "n"]
    assert made.model == "m"


def test_the_worst_case_is_that_of_every_target_fallbacks_too() -> None:
    terms = {
        "a": Terms(Price(output_pico=5), 100),
        "b": Terms(Price(output_pico=7), 50),
        "c": Terms(Price(input_pico=3), 900),
    }
    made = make_plan(CHAT, "m", WITH_FALLBACK, UPSTREAMS, lambda model, target: terms[target.backend])
    assert made.bill.dearest is not None
    assert (made.bill.dearest.input_pico, made.bill.dearest.output_pico) == (3, 7)
    assert (made.bill.longest, made.bill.total_s) == (900, 30.0)
    without = make_plan(CHAT, "m", WITH_FALLBACK, UPSTREAMS, lambda model, target: Terms())
    assert without.bill.dearest is None  # a fallback without a price is one too


def test_each_group_has_a_balancer_for_its_targets() -> None:
    asked: list[tuple[tuple[Target, ...], str]] = []

    def balancer_of(targets: tuple[Target, ...], balance: str) -> Any:
        asked.append((targets, balance))
        return len(asked)

    made = make_plan(CHAT, "m", WITH_FALLBACK, UPSTREAMS, no_terms, balancer_of)
    assert asked == [(group.targets, group.balance) for group in WITH_FALLBACK.groups]
    assert [group.balancer for group in made.groups] == [1, 2]
    assert [[target.upstream.name for target in group.targets] for group in made.groups] == [["a", "b"], ["c"]]
    assert made.targets == tuple(target for group in made.groups for target in group.targets)


def test_heartbeats_are_the_shortest_of_the_backends_that_have_them() -> None:
    assert make_plan(CHAT, "m", WITH_FALLBACK, UPSTREAMS).heartbeat_s == 5
    assert make_plan(CHAT, "m", Route.to(Target("a")), UPSTREAMS).heartbeat_s == 0
    assert make_plan(match("POST", b"/api/chat"), "m", WITH_FALLBACK, UPSTREAMS).heartbeat_s == 0


def test_a_native_request_goes_where_the_native_api_is() -> None:
    native = match("POST", b"/api/chat")
    made = make_plan(native, "m", WITH_FALLBACK, UPSTREAMS)
    assert [[target.upstream.name for target in group.targets] for group in made.groups] == [["b"], ["c"]]
    nowhere = make_plan(native, "m", Route.to(Target("a")), UPSTREAMS)
    assert [target.upstream.name for target in nowhere.targets] == ["a"]
