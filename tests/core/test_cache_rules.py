"""What may be kept, for how long and for whom, and what a client's Cache-Control asks."""

from itertools import combinations
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.cache_rules import (
    NOTHING_SAID,
    ROUTES,
    Directives,
    directives,
    has_memory,
    is_normal_finish,
    keep_s,
    scope_of,
)
from penstock.core.config import Backend, Cache, Config, Model, Target
from penstock.core.endpoint import EXACT, Endpoint, match
from penstock.core.principal import ANONYMOUS, Principal
from penstock.ext import DIALECT_CHAT, DIALECT_MESSAGES, DIALECT_OLLAMA, DIALECT_RESPONSES

CHAT = EXACT[b"/v1/chat/completions"]
TAGS = EXACT[b"/api/tags"]
ADA = Principal(key_id="key_1", tenant_id="home", user_id="ada")
BOB = Principal(key_id="key_2", tenant_id="home", user_id="bob")


def config(model_s: float | None = None, **cache: Any) -> Config:
    model = Model(targets=(Target(backend="b"),), cache_ttl_s=model_s)
    return Config(backends={"b": Backend(kind="demo")}, models={"m": model}, cache=Cache(**cache))


@pytest.mark.parametrize(
    ("given", "endpoint", "model", "kept"),
    [
        (config(), CHAT, "m", 0),
        (config(ttl_s=60), CHAT, "m", 60),
        (config(ttl_s=60), CHAT, "found", 60),
        (config(ttl_s=60), CHAT, None, 60),
        (config(5, ttl_s=60), CHAT, "m", 5),
        (config(5, ttl_s=60, routes={CHAT.route: 7}), CHAT, "m", 7),
        (config(routes={CHAT.route: 7}), CHAT, "found", 7),
        (config(0, routes={CHAT.route: 7}), CHAT, "m", 0),
        (config(5, routes={CHAT.route: 0}), CHAT, "m", 0),
        (config(0, ttl_s=60), CHAT, "m", 0),
        (config(5, ttl_s=60, max_bytes=0), CHAT, "m", 0),
        (config(ttl_s=60), EXACT[b"/v1/embeddings"], "m", 60),
        (config(ttl_s=60), TAGS, None, 0),
        (config(routes={"/api/tags": 30}), TAGS, None, 30),
        (config(ttl_s=60), EXACT[b"/api/pull"], "m", 0),
        (config(ttl_s=60), match("POST", b"/v1/audio/speech"), "m", 0),
        (config(ttl_s=60), match("POST", b"/v1/chat/completions/"), "m", 0),
        (config(ttl_s=60), EXACT[b"/usage"], "m", 0),
    ],
)
def test_how_long(given: Config, endpoint: Endpoint, model: str | None, kept: float) -> None:
    assert keep_s(given, endpoint, model) == kept


def test_no_route_that_changes_something_can_be_named() -> None:
    assert not {"/api/pull", "/api/create", "/api/delete", "/api/copy", "/api/push", "/v1/models"} & set(ROUTES)
    assert {"/ai/generate", "simple_chat", "/api/tags"} <= set(ROUTES)


@pytest.mark.parametrize(
    ("scope", "shared"),
    [
        ("tenant", {("ada", "bob")}),
        ("key", set()),
        ("all", set(combinations(("ada", "bob", "eve", "alone", "alone too", "nobody"), 2))),
    ],
)
def test_who_shares(scope: Any, shared: set[tuple[str, str]]) -> None:
    callers = {
        "ada": ADA,
        "bob": BOB,
        "eve": Principal(key_id="key_3", tenant_id="work"),
        "alone": Principal(key_id="key_4"),
        "alone too": Principal(key_id="home"),
        "nobody": ANONYMOUS,
    }
    made = {name: scope_of(config(scope=scope), caller, CHAT) for name, caller in callers.items()}
    assert {pair for pair in combinations(made, 2) if made[pair[0]] == made[pair[1]]} == shared


def test_what_else_tells_requests_apart() -> None:
    beta, version = (b"anthropic-beta", b"a"), (b"anthropic-version", b"b")
    different: list[dict[str, Any]] = [
        {},
        {"query": b"beta=true"},
        {"cap": 100},
        {"headers": [beta]},
        {"headers": [version]},
        {"headers": [beta, version]},
        {"headers": [(b"openai-project", b"p")]},
    ]
    made = [scope_of(config(), ADA, CHAT, **each) for each in different]
    assert len({*made, scope_of(config(), ADA, EXACT[b"/v1/completions"])}) == len(different) + 1
    for headers in ([version, beta], [(b"user-agent", b"x"), beta, version, (b"authorization", b"y")]):
        assert scope_of(config(), ADA, CHAT, headers=headers) == made[5]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (b"/v1/responses", b'{"input":"Hi"}', False),
        (b"/v1/responses", b'{"input":"Hi","conversation":"conv_1"}', True),
        (b"/v1/responses", b'{"input":"Hi","c\\u006fnversation":{"id":"conv_1"}}', True),
        (b"/v1/responses", b'{"input":"Hi","background":true}', True),
        (b"/v1/responses", b'{"input":"Hi","background":false,"conversation":null}', False),
        (b"/v1/responses", b'{"input":"a conversation in the background"}', False),
        (b"/v1/responses", b'{"input":"\\ud800 conversation"', True),
        (b"/v1/chat/completions", b'{"conversation":"x"}', False),
    ],
)
def test_what_is_for_a_backend_each_time(path: bytes, body: bytes, expected: bool) -> None:
    assert has_memory(EXACT[path], body) is expected


@pytest.mark.parametrize(
    ("dialect", "reasons", "expected"),
    [
        (DIALECT_CHAT, ["stop", "length", "tool_calls", "function_call"], True),
        (DIALECT_CHAT, ["stop", "content_filter"], False),
        (DIALECT_CHAT, ["stop", None], False),
        (DIALECT_CHAT, ["end_turn"], False),
        (DIALECT_CHAT, [], True),
        (DIALECT_RESPONSES, ["completed"], True),
        (DIALECT_RESPONSES, ["incomplete"], False),
        (DIALECT_RESPONSES, ["failed"], False),
        (DIALECT_MESSAGES, ["end_turn"], True),
        (DIALECT_MESSAGES, ["refusal"], False),
        (DIALECT_MESSAGES, ["pause_turn"], False),
        (DIALECT_OLLAMA, ["stop"], True),
        (DIALECT_OLLAMA, ["load"], False),
        (None, [], True),
    ],
)
def test_normal_finishes(dialect: int | None, reasons: list[str | None], expected: bool) -> None:
    assert is_normal_finish(dialect, reasons) is expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", NOTHING_SAID),
        (b"no-store", Directives(no_store=True)),
        (b"No-Cache", Directives(no_cache=True)),
        (b"max-age=0, no-cache", Directives(no_cache=True, max_age_s=0)),
        (b" only-if-cached ,max-age=60", Directives(only_if_cached=True, max_age_s=60)),
        (b'max-age="60"', Directives(max_age_s=60)),
        (b"max-age=60,max-age=5", Directives(max_age_s=60)),
        (b"max-age=-1", Directives(max_age_s=0)),
        (b"max-age=1.5", Directives(max_age_s=0)),
        (b"max-age", Directives(max_age_s=0)),
        (b"min-fresh=10", Directives(min_fresh_s=10)),
        (b"min-fresh=soon", Directives(min_fresh_s=inf)),
        (b"max-stale, max-stale=5, no-transform, x=y, ,=", NOTHING_SAID),
        (b"no-storeage", NOTHING_SAID),
    ],
)
def test_cache_control(value: bytes, said: Directives) -> None:
    assert directives(value) == said


@given(st.binary(max_size=60))
def test_any_cache_control_says_something(value: bytes) -> None:
    assert directives(value).max_age_s >= 0


@pytest.mark.parametrize(
    ("value", "age_s", "left_s", "expected"),
    [
        (b"", 1e9, 0, True),
        (b"no-store", 0, 60, False),
        (b"no-cache", 0, 60, False),
        (b"max-age=10", 10, 60, True),
        (b"max-age=10", 10.1, 60, False),
        (b"max-age=0", 0.001, 60, False),
        (b"min-fresh=10", 1, 9, False),
        (b"min-fresh=10", 1, 10, True),
        (b"only-if-cached", 1, 10, True),
    ],
)
def test_which_kept_answers_it_accepts(value: bytes, age_s: float, left_s: float, expected: bool) -> None:
    assert directives(value).accepts(age_s, left_s) is expected
