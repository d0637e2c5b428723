"""The cache from outside: what is kept, for whom, in which form it is given again, and what clients may ask of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from governed import ADMIN, ENV, configuration, query, rows
from raw_client import RawClient, chat_body, request, wait_until

from running import UNASKED, Demo, Penstock, config

CHAT = "/v1/chat/completions"
TTL = "[cache]\nttl_s = 60\n"
OTHER_KEY = "other-key-0123456789abcdef"
OTHERS = """
[[keys]]
name = "other"
key = "env:OTHER_KEY"
tenant_id = "away"
user_id = "bob"
tier = "tight"
[[keys]]
name = "second"
key = "env:SECOND_KEY"
tenant_id = "home"
user_id = "cid"
tier = "tight"
"""
SECOND_KEY = "second-key-0123456789abcdef"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """Its own: what it counts is what these tests made it do."""
    with Demo("--rate", "0") as process:
        yield process


@pytest.fixture(scope="module")
def kept(demo: Demo) -> Iterator[Penstock]:
    model = '[models.demo]\ntargets = ["demo"]\n'
    text = config(demo.port, backend=UNASKED, more=TTL + model).replace("discover = true", "discover = false")
    with Penstock(text) as process:
        yield process


@pytest.fixture
def client(kept: Penstock) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=kept.url, timeout=10) as made:
        yield made


def ask(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **fields}


def told(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-cache")


def calls(demo: Demo) -> int:
    return int(demo.stats()["requests_total"])


# --- what is given again -------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", ask("say something about harbours")),
        ("/v1/completions", {"model": "demo", "prompt": "say something about piers"}),
        ("/v1/responses", {"model": "demo", "input": "say something about boats"}),
        ("/v1/messages", ask("say something about ships", max_tokens=50)),
        ("/v1/embeddings", {"model": "demo", "input": "harbours"}),
    ],
    ids=["chat", "completions", "responses", "messages", "embeddings"],
)
def test_the_second_answer_is_the_first_byte_for_byte(
    client: httpx.Client, demo: Demo, path: str, fields: dict[str, Any], stream: bool
) -> None:
    if stream and path == "/v1/embeddings":
        pytest.skip("embeddings are not streamed")
    body = {**fields, "stream": stream, "seed": 1 + stream} if path != "/v1/embeddings" else fields
    before = calls(demo)
    first = client.post(path, json=body)
    second = client.post(path, json=body)
    assert (first.status_code, told(first)) == (200, "MISS"), first.text
    assert (second.status_code, told(second)) == (200, "HIT")
    assert second.content == first.content and calls(demo) == before + 1
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["age"] in ("0", "1")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_what_means_the_same_is_the_same(client: httpx.Client, demo: Demo) -> None:
    before = calls(demo)
    bodies = [
        b'{"model":"demo","temperature":1,"messages":[{"role":"user","content":"h\\u00f6rt ihr"}]}',
        '{"messages":[{"content":"hört ihr","role":"user"}], "temperature":1.0,"model":"demo"}'.encode(),
        '{"model":"demo","temperature":10e-1,"user":"me","messages":[{"role":"user","content":"hört ihr"}]}'.encode(),
    ]
    answers = [client.post(CHAT, content=body, headers={"content-type": "application/json"}) for body in bodies]
    assert [told(answer) for answer in answers] == ["MISS", "HIT", "HIT"] and calls(demo) == before + 1
    other = client.post(CHAT, content=bodies[0].replace(b"1,", b"1.1,"), headers={"content-type": "application/json"})
    assert told(other) == "MISS"


@pytest.mark.parametrize("first", [False, True], ids=["whole first", "stream first"])
def test_one_form_answers_the_other(client: httpx.Client, demo: Demo, first: bool) -> None:
    before = calls(demo)
    fields = ask(f"tell me of the sea {first}", n=2)
    client.post(CHAT, json={**fields, "stream": first})
    answers = {
        stream: client.post(CHAT, json={**fields, "stream": stream, "stream_options": {"include_usage": True}})
        for stream in (False, True)
    }
    assert [told(answer) for answer in answers.values()] == ["HIT", "HIT"] and calls(demo) == before + 1
    whole = answers[False].json()
    events = [json.loads(line[6:]) for line in answers[True].text.splitlines() if line.startswith("data: {")]
    for choice in whole["choices"]:
        mine = [each for event in events for each in event["choices"] if each["index"] == choice["index"]]
        assert "".join(each["delta"].get("content") or "" for each in mine) == choice["message"]["content"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert answers[True].text.endswith("data: [DONE]\n\n")


def test_usage_goes_to_those_who_ask_for_it(client: httpx.Client) -> None:
    fields = ask("usage, please", stream=True)
    asked = {**fields, "stream_options": {"include_usage": True}}
    for body, wanted in ((fields, False), (asked, True), (fields, False)):
        assert ('"usage":{' in client.post(CHAT, json=body).text) is wanted


# --- what a client may ask -----------------------------------------------------------------------------


def test_cache_control(client: httpx.Client, demo: Demo) -> None:
    fields = ask("what a client may ask")

    def asked(value: str) -> str | None:
        return told(client.post(CHAT, json=fields, headers={"cache-control": value}))

    only = client.post(CHAT, json=fields, headers={"cache-control": "only-if-cached"})
    assert only.status_code == 504 and only.json()["error"]["code"] == "not_cached"
    assert only.headers["x-penstock-error"] == "caller"
    assert asked("no-store") == "BYPASS"
    assert asked("max-age=60") == "MISS"  # what went by was not kept
    assert asked("only-if-cached") == "HIT"
    assert asked("no-cache") == "MISS"
    assert asked("no-store") == "BYPASS"
    time.sleep(1.1)
    assert asked("max-age=1") == "MISS"
    assert asked("max-age=1") == "HIT"
    assert asked("min-fresh=59") == "HIT"
    assert asked("min-fresh=61") == "MISS"


def test_a_request_with_faults_is_not_kept(client: httpx.Client, demo: Demo) -> None:
    for fault, stream in (
        ("status=400", False),
        ("gzip", False),
        ("cut;after=2", True),
        ("nodone", True),
        ("inband;after=2", True),
        ("nofinish", False),
        ("shortlength", False),
    ):
        before = calls(demo)
        headers = {"x-demo-fault": fault, "x-demo-tokens": "20"}
        for _ in range(2):
            with client.stream("POST", CHAT, json=ask(f"fault {fault}", stream=stream), headers=headers) as answer:
                try:
                    answer.read()
                except httpx.HTTPError:
                    pass
                assert told(answer) == "MISS", fault
        assert calls(demo) >= before + 2, fault


def test_without_a_ttl_nothing_is_said_of_a_cache(demo: Demo) -> None:
    with Penstock(config(demo.port, backend=UNASKED)) as process:
        answer = httpx.post(process.url + CHAT, json=ask("hello"), headers={"cache-control": "no-cache"})
        assert answer.status_code == 200 and told(answer) is None


def test_a_route_and_a_model_have_times_of_their_own(demo: Demo) -> None:
    more = """
[cache]
ttl_s = 60
routes = { "/v1/embeddings" = 0, "/v1/completions" = 60 }
[models.never]
targets = [{ backend = "demo", model = "demo" }]
cache_ttl_s = 0
[models.short]
targets = [{ backend = "demo", model = "demo" }]
cache_ttl_s = 1
"""
    with (
        Penstock(config(demo.port, backend=UNASKED, more=more)) as process,
        httpx.Client(base_url=process.url) as client,
    ):
        assert [told(client.post("/v1/embeddings", json={"model": "demo", "input": "x"})) for _ in range(2)] == [
            None
        ] * 2
        never, short = (ask("hello", model=name) for name in ("never", "short"))
        assert [told(client.post(CHAT, json=never)) for _ in range(2)] == [None] * 2
        assert [told(client.post(CHAT, json=short)) for _ in range(2)] == ["MISS", "HIT"]
        time.sleep(1.1)
        assert told(client.post(CHAT, json=short)) == "MISS"


# --- who gets it, who pays -----------------------------------------------------------------------------


def governed(demo: Demo, *, tier: str = "", more: str = TTL, workers: int = 1) -> Penstock:
    env = {**ENV, "OTHER_KEY": OTHER_KEY, "SECOND_KEY": SECOND_KEY}
    price = '[models.demo]\ntargets = ["demo"]\nprice = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }\n'
    text = configuration(demo, tier, more=OTHERS + price + more, workers=workers)
    return Penstock(text, env=env)


def auth(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_hit_costs_a_request_and_nothing_else(demo: Demo) -> None:
    tier = "requests_per_hour = 3\nllm_requests_per_day = 1\n"
    with governed(demo, tier=tier) as process, httpx.Client(base_url=process.url) as client:
        key = auth(ENV["TEST_KEY"])
        answers = [client.post(CHAT, json=ask("who pays"), headers=key) for _ in range(4)]
        assert [told(answer) for answer in answers] == ["MISS", "HIT", "HIT", None]
        assert answers[2].headers["x-ratelimit-remaining"] == "0" and answers[3].status_code == 429
        found = rows(process, 4, "response_cached, cost_usd > 0, total_tokens > 0, status_code, backend")
        assert found[0][:4] == (0, 1, 1, 200) and found[0][4] == "demo"
        assert [row[0] for row in found[1:]] == [1, 1, 0]
        assert all(not row[1] and not row[2] for row in found[1:])


def test_the_leader_pays_though_it_left(demo: Demo) -> None:
    with governed(demo) as process:
        lines = ("Content-Type: application/json", "x-demo-tokens: 40", "x-demo-rate: 40")
        body = chat_body(stream=True, user="me", seed=77)
        with RawClient(process.port) as leader, RawClient(process.port) as other:
            for client in (leader, other):
                key = f"Authorization: Bearer {ENV['TEST_KEY']}"
                client.send(request("POST", CHAT, body, *lines, key)).until(b"data: ")
            leader.socket.close()
            assert other.until(b"data: [DONE]\n\n")
        found = rows(process, 2, "response_cached, cost_usd > 0, completion_tokens, outcome, backend")
        assert sorted(found) == [(0, 1, 40, "cancelled", "demo"), (1, 0, 0, "answered", None)]
        time.sleep(0.5)
        assert len(rows(process, 2)) == 2


def test_a_leader_that_leaves_alone_is_cancelled(demo: Demo) -> None:
    with governed(demo) as process:
        lines = ("Content-Type: application/json", "x-demo-tokens: 400", "x-demo-rate: 20")
        with RawClient(process.port) as leader:
            key = f"Authorization: Bearer {ENV['TEST_KEY']}"
            leader.send(request("POST", CHAT, chat_body(stream=True, seed=78), *lines, key)).until(b"data: ")
        ((cached, outcome, backend),) = rows(process, 1, "response_cached, outcome, backend")
        assert (cached, outcome, backend) == (0, "cancelled", "demo")


def test_tenants_are_apart(demo: Demo) -> None:
    with governed(demo) as process, httpx.Client(base_url=process.url) as client:
        keys = [ENV["TEST_KEY"], SECOND_KEY, OTHER_KEY]
        answers = [client.post(CHAT, json=ask("who gets it"), headers=auth(key)) for key in keys]
        assert [told(answer) for answer in answers] == ["MISS", "HIT", "MISS"]


def test_admission_of_a_hit_says_no_where_it_must(demo: Demo) -> None:
    with governed(demo, tier='models = ["other"]\n') as process:
        for _ in range(2):
            answer = httpx.post(process.url + CHAT, json=ask("not for you"), headers=auth(ENV["TEST_KEY"]))
            assert answer.status_code == 403


# --- administrators ------------------------------------------------------------------------------------


def test_figures_and_clears_are_of_all_workers(demo: Demo) -> None:
    with governed(demo, workers=3) as process:
        process.up()

        def asked(text: str, key: str = ENV["TEST_KEY"]) -> str | None:
            return told(httpx.post(process.url + CHAT, json=ask(text), headers=auth(key)))

        def everywhere(text: str, key: str = ENV["TEST_KEY"]) -> None:
            wait_until(lambda: [asked(text, key) for _ in range(12)] == ["HIT"] * 12)

        def cleared(body: dict[str, str] | None) -> None:
            answer = httpx.post(process.url + "/admin/cache/clear", json=body, headers=ADMIN)
            assert answer.status_code == 200, answer.text

        everywhere("a")
        everywhere("a", OTHER_KEY)
        figures = httpx.get(process.url + "/admin/cache", headers=ADMIN).json()
        assert figures["entries"] == 6 and figures["bytes"] > 0 and figures["misses"] == 6
        assert figures["hits"] >= 24 and figures["models"][0]["model"] == "demo"
        assert figures["hit_rate"] == round(figures["hits"] / (figures["hits"] + 6), 4)
        cleared({"tenant": "away"})
        assert asked("a") == "HIT"
        assert "MISS" in [asked("a", OTHER_KEY) for _ in range(3)][:1]
        everywhere("a", OTHER_KEY)
        cleared({"model": "nobody"})
        assert asked("a") == "HIT"
        cleared({"model": "demo"})
        assert asked("a") == "MISS"
        everywhere("a")
        cleared({})
        assert asked("a") == "MISS"
        assert httpx.post(process.url + "/admin/cache/clear", headers=ADMIN).status_code == 200
        both = httpx.post(process.url + "/admin/cache/clear", json={"model": "a", "tenant": "b"}, headers=ADMIN)
        assert both.status_code == 400
        assert httpx.get(process.url + "/admin/cache").status_code == 401


@pytest.mark.parametrize("bodies", [False, True], ids=["facts", "with bodies"])
def test_the_store_is_told(demo: Demo, bodies: bool) -> None:
    more = TTL + f"facts = {{ flush_s = 1, bodies = {str(bodies).lower()} }}\n"
    with governed(demo, more=more) as process:
        for _ in range(3):
            answer = httpx.post(process.url + CHAT, json=ask("for the table"), headers=auth(ENV["TEST_KEY"]))
        columns = "model_used, hit_count, response_data, julianday(expires_at) - julianday(created_at)"
        wait_until(lambda: query(process, f"SELECT {columns} FROM ai_cache"))
        ((model, hits, response, days),) = query(process, f"SELECT {columns} FROM ai_cache")
        assert (model, hits, response) == ("demo", 2, answer.text if bodies else None)
        assert round(days * 86_400) == 60


def test_what_is_kept_outlives_a_reload(demo: Demo) -> None:
    text = config(demo.port, backend=UNASKED, more=TTL)
    with Penstock(text) as process, httpx.Client(base_url=process.url) as client:
        process.up()
        fields = ask("over a reload")
        assert [told(client.post(CHAT, json=fields)) for _ in range(2)] == ["MISS", "HIT"]
        process.rewrite(text + "\n[retry]\nattempts = 2\n")
        process.control("reload")
        assert told(client.post(CHAT, json=fields)) == "HIT"
        process.rewrite(text.replace("ttl_s = 60", "ttl_s = 60\nmax_bytes = 10_000_000"))
        process.control("reload")
        assert [told(client.post(CHAT, json=fields)) for _ in range(2)] == ["MISS", "HIT"]
        process.rewrite(text.replace("ttl_s = 60", "ttl_s = 60\nmax_bytes = 0"))
        process.control("reload")
        assert told(client.post(CHAT, json=fields)) is None
        process.rewrite(text)
        process.control("reload")
        assert told(client.post(CHAT, json=fields)) == "MISS"


# --- other ways in, other paces ------------------------------------------------------------------------


def test_over_tls_and_http2(demo: Demo, certificates: Path) -> None:
    import ssl

    tls = f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"\n'
    trust = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with Penstock(config(demo.port, backend=UNASKED, more=tls + TTL)) as process:
        for http2 in (False, True):
            with httpx.Client(base_url=process.url, verify=trust, http2=http2) as client:
                for stream in (False, True):
                    fields = ask(f"safely {http2} {stream}", stream=stream)
                    first, second = (client.post(CHAT, json=fields) for _ in range(2))
                    assert (told(first), told(second)) == ("MISS", "HIT")
                    assert first.content == second.content and second.headers["age"] in ("0", "1")


def test_a_replay_at_a_pace(demo: Demo) -> None:
    with Penstock(config(demo.port, backend=UNASKED, more=TTL + "replay_chunks_per_s = 100\n")) as process:
        fields = ask("slowly", stream=True)
        first = httpx.post(process.url + CHAT, json=fields, headers={"x-demo-tokens": "50"})
        began = time.monotonic()
        second = httpx.post(process.url + CHAT, json=fields, headers={"x-demo-tokens": "50"})
        took = time.monotonic() - began
        assert told(second) == "HIT" and second.content == first.content
        assert 0.4 < took < 5


def test_a_slow_reader_of_a_large_answer_gets_all_of_it_though_it_is_evicted(demo: Demo) -> None:
    cache = "[cache]\nttl_s = 60\nmax_bytes = 4_000_000\nmax_entry_share = 0.5\n"
    with Penstock(config(demo.port, backend=UNASKED, more=cache)) as process:
        body = chat_body(stream=True)
        lines = ("Content-Type: application/json", "x-demo-tokens: 50", "x-demo-bytes: 10000")
        asked = request("POST", CHAT, body, *lines)
        with RawClient(process.port) as plain:
            first = plain.send(asked).answer()
        assert first.header("x-cache") == "MISS" and len(first.body) > 400_000
        with RawClient(process.port, timeout_s=20) as slow:
            slow.socket.setsockopt(__import__("socket").SOL_SOCKET, __import__("socket").SO_RCVBUF, 32_768)
            slow.send(asked)
            time.sleep(0.2)
            with httpx.Client(base_url=process.url, timeout=20) as client:
                for number in range(20):
                    client.post(CHAT, json=ask(f"{number}"), headers={"x-demo-bytes": "500000", "x-demo-tokens": "2"})
            answer = slow.answer()
        assert answer.header("x-cache") == "HIT" and answer.clean and answer.body == first.body
