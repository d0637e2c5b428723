"""Explanations of requests that were sent, and of those that were not."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from governed import ADMIN, AUTH, CHAT, ENV, configuration, rows
from raw_client import JSON_TYPE, RawClient, request

from running import PENSTOCK, Demo, Penstock, free_port

EXPLAIN = {"X-Penstock-Explain": "1"}
MORE = """
[models.demo]
targets = ["demo"]
price = {{ input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }}
[models.unpriced]
targets = ["demo"]
[models.pair]
price = {{ output_usd_per_mtok = 2.0 }}
targets = [{{ backend = "gone", model = "x" }}, {{ backend = "demo", model = "demo" }}]
balance = "weighted"
fallback = ["spare"]
[models.spare]
price = {{ output_usd_per_mtok = 2.0 }}
targets = [{{ backend = "demo", model = "demo-large" }}]
[models.crowd]
price = {{ output_usd_per_mtok = 2.0 }}
targets = [{crowd}]
[models."naïve"]
price = {{ output_usd_per_mtok = 2.0 }}
targets = ["demo"]
[models.other]
targets = ["demo"]
[backends.gone]
kind = "openai"
url = "http://127.0.0.1:{port}/v1"
weight = 1000
health = {{ interval_s = 0 }}
"""
CROWD = ", ".join(f'{{ backend = "demo", model = "crowd-{number}" }}' for number in range(60))
TIER = """
requests_per_hour = 1000
usd_per_month = 1.0
max_output_tokens = 500
models = ["demo", "pair", "naïve", "unpriced", "crowd"]
"""


@pytest.fixture(scope="module")
def process(demo: Demo) -> Iterator[Penstock]:
    with Penstock(configuration(demo, TIER, more=MORE.format(port=free_port(), crowd=CROWD)), env=ENV) as made:
        yield made


def post(process: Penstock, model: str = "demo", *more: dict[str, str], **body: Any) -> httpx.Response:
    headers = {**AUTH, **{name: value for each in more for name, value in each.items()}}
    return httpx.post(f"{process.url}/v1/chat/completions", json={**CHAT, "model": model, **body}, headers=headers)


def told(answer: httpx.Response) -> dict[str, Any]:
    return dict(json.loads(answer.headers["x-penstock-explain"]))


def dry(process: Penstock, wish: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{process.url}/admin/explain", json=wish, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# --- a request that is sent --------------------------------------------------------------------------------


def test_a_whole_answer(process: Penstock) -> None:
    answer = post(process, "demo", ADMIN, EXPLAIN)
    plain = post(process, "demo")
    assert answer.status_code == 200 and len(answer.content) == len(plain.content)
    assert "x-penstock-explain" not in plain.headers
    facts = told(answer)
    assert (facts["endpoint"], facts["model"], facts["key_id"], facts["tier"]) == (
        "/v1/chat/completions",
        "demo",
        "file:test",
        "tight",
    )
    (group,) = facts["groups"]
    (target,) = group["targets"]
    assert group["balance"] == "least_in_flight"
    assert target["target"] == "demo/demo" and target["taken"] and target["why"] == "answered"
    (attempt,) = facts["attempts"]
    assert attempt["target"] == "demo/demo" and attempt["status"] == 200 and attempt["outcome"] == "answered"
    assert 0 <= attempt["began_ms"] < 1000 and 0 < attempt["took_ms"] <= facts["elapsed_ms"] < 5000
    limits = {each["name"]: each for each in facts["limits"]}
    assert limits["requests_per_hour"]["limit"] == 1000 and limits["requests_per_hour"]["used"] >= 1
    assert facts["worst_case"]["tokens"] > 500 and 0 < facts["worst_case"]["usd"] < 0.01
    assert facts["queue"] is None and facts["error"] is None
    usage = answer.json()["usage"]
    assert facts["usage"]["completion_tokens"] == usage["completion_tokens"] and not facts["usage"]["estimated"]
    assert facts["cost_usd"] == pytest.approx((usage["prompt_tokens"] + 2 * usage["completion_tokens"]) / 1e6)


def test_an_attempt_that_failed(process: Penstock) -> None:
    facts = told(post(process, "pair", ADMIN, EXPLAIN))
    own, fallback = facts["groups"]
    assert (own["model"], own["balance"], fallback["model"]) == ("pair", "weighted", "spare")
    gone, demo = own["targets"]
    assert gone["taken"] and "cannot be reached" in gone["why"] and gone["weight"] == 1000
    assert demo["taken"] and demo["why"] == "answered"
    assert [each["target"] for each in facts["attempts"]] == ["gone/x", "demo/demo"]
    assert facts["attempts"][0]["status"] is None


def test_a_fallback_that_was_not_needed(process: Penstock) -> None:
    *_, fallback = told(post(process, "pair", ADMIN, EXPLAIN))["groups"]
    assert all(not each["taken"] and each["why"] == "it was not needed" for each in fallback["targets"])


def test_no_backend_hears_of_it(process: Penstock) -> None:
    for headers in (EXPLAIN, {**EXPLAIN, **ADMIN}):
        answer = httpx.post(f"{process.url}/v1/echo", json={"model": "demo"}, headers={**AUTH, **headers})
        heard = {name.lower() for name, _ in answer.json()["headers"]}
        assert "host" in heard
        assert not heard & {"x-penstock-explain", "x-admin-key"}


@pytest.mark.parametrize(
    "headers",
    [
        EXPLAIN,
        ADMIN,
        {**EXPLAIN, "X-Admin-Key": "wrong"},
        {**EXPLAIN, "X-Admin-Key": ""},
        {**ADMIN, "X-Penstock-Explain": "0"},
    ],
    ids=["no key", "not asked", "wrong key", "empty key", "asked not to"],
)
def test_nobody_else_is_told(process: Penstock, headers: dict[str, str]) -> None:
    answer = post(process, "demo", headers)
    assert answer.status_code == 200 and "x-penstock-explain" not in answer.headers


def test_a_stream_ends_with_the_final_figures(process: Penstock) -> None:
    answer = post(process, "demo", ADMIN, EXPLAIN, stream=True)
    events, comment, end = answer.text.rpartition("\n: penstock-explain ")
    assert comment and events.endswith("data: [DONE]\n\n") and end.endswith("}\n\n")
    first, last = told(answer), json.loads(end)
    assert first["usage"] is None and first["cost_usd"] is None
    assert last["usage"]["completion_tokens"] > 1 and not last["usage"]["estimated"]
    assert last["cost_usd"] > 0 and last["elapsed_ms"] >= first["elapsed_ms"]
    plain = post(process, "demo", stream=True).text
    assert ": penstock-explain" not in plain
    assert len([line for line in events.splitlines() if line]) == len([line for line in plain.splitlines() if line])


def test_a_cut_stream_is_explained_before_its_error(process: Penstock) -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    shown = [f"{name}: {value}" for name, value in (*AUTH.items(), *ADMIN.items(), *EXPLAIN.items())]
    with RawClient(process.port) as client:
        lines = (JSON_TYPE, "X-Demo-Fault: cut;after=3", "X-Demo-Tokens: 20", *shown)
        answer = client.send(request("POST", "/v1/chat/completions", body, *lines)).answer()
    _, comment, rest = answer.body.decode().rpartition("\n: penstock-explain ")
    explained, _, event = rest.partition("\n\n")
    assert comment and json.loads(explained)["error"] == "backend_bad_answer" and not answer.clean
    assert "error" in json.loads(event.strip().removeprefix("data: "))


def test_native_streams_have_the_header_alone(process: Penstock) -> None:
    """A line of JSON cannot hold a comment. Here no backend is an Ollama, so its refusal is what is explained."""
    answer = httpx.post(f"{process.url}/api/chat", json={**CHAT, "stream": True}, headers={**AUTH, **ADMIN, **EXPLAIN})
    assert told(answer)["endpoint"] == "/api/chat" and "penstock-explain" not in answer.text


def test_a_refusal_by_a_limit(demo: Demo) -> None:
    with Penstock(configuration(demo, "requests_per_hour = 1"), env=ENV) as process:
        assert post(process, "demo").status_code == 200
        answer = post(process, "demo", ADMIN, EXPLAIN)
        assert answer.status_code == 429
        facts = told(answer)
        assert facts["error"] == "rate_limit_exceeded" and facts["attempts"] == []
        assert facts["limits"][0]["remaining"] == 0
        assert {each["why"] for each in facts["groups"][0]["targets"]} == {"no target was tried yet"}


def test_the_line_is_ascii(process: Penstock) -> None:
    raw = post(process, "naïve", ADMIN, EXPLAIN).headers.raw
    (line,) = (value for name, value in raw if name.lower() == b"x-penstock-explain")
    assert line.isascii() and json.loads(line)["model"] == "naïve"


def test_a_long_one_is_shortened_in_the_header(process: Penstock) -> None:
    answer = post(process, "crowd", ADMIN, EXPLAIN, stream=True)
    assert len(answer.headers["x-penstock-explain"]) <= 7500
    facts = told(answer)
    assert facts["left_out"] == ["limits", "groups"] and facts["groups"] is facts["limits"] is None
    assert facts["model"] == "crowd" and len(facts["attempts"]) == 1
    last = json.loads(answer.text.rpartition(": penstock-explain ")[2])
    assert len(last["groups"][0]["targets"]) == 60 and last["limits"]
    taken = [each for each in last["groups"][0]["targets"] if each["taken"]]
    assert len(taken) == 1 and last["attempts"][0]["target"] == taken[0]["target"]


def test_a_wait_in_line(demo: Demo) -> None:
    text = configuration(demo, "requests_per_hour = 100").replace(
        "discover = true", "discover = true\nmax_in_flight = 1"
    )
    with Penstock(text, env=ENV) as process, RawClient(process.port) as holder:
        body = json.dumps({**CHAT, "stream": True}).encode()
        (name, key), *_ = AUTH.items()
        holder.send(request("POST", "/v1/chat/completions", body, JSON_TYPE, f"{name}: {key}", "X-Demo-First-Ms: 400"))
        until = time.monotonic() + 5
        while not dry(process, {"body": CHAT})["groups"][0]["targets"][0]["in_flight"]:
            assert time.monotonic() < until
        waiting = dry(process, {"body": CHAT})["groups"][0]["targets"][0]
        assert waiting["chance"] == 0 and waiting["why"] == "its place is taken"
        answer = post(process, "demo", ADMIN, EXPLAIN)
        facts = told(answer)
        assert answer.headers["x-penstock-queue"].startswith("place=1; ")
        assert facts["queue"]["place"] == 1 and facts["queue"]["waited_ms"] > 10
        assert facts["attempts"][0]["began_ms"] >= facts["queue"]["waited_ms"] - 1


def test_a_stream_that_began_with_a_heartbeat(demo: Demo) -> None:
    """Its head goes out before an answer is there, so what came of it stands in the last comment alone."""
    text = configuration(demo, "requests_per_hour = 100").replace(
        "discover = true", "discover = true\nheartbeat_s = 0.1"
    )
    with Penstock(text, env=ENV) as process:
        answer = post(process, "demo", ADMIN, EXPLAIN, {"X-Demo-First-Ms": "400"}, stream=True)
        assert answer.text.startswith(": penstock\n\n") and told(answer)["attempts"] == []
        last = json.loads(answer.text.rpartition(": penstock-explain ")[2])
        assert last["attempts"][0]["status"] == 200 and last["attempts"][0]["took_ms"] > 300


# --- one that is not ---------------------------------------------------------------------------------------


def test_a_dry_run_sends_and_takes_nothing(process: Penstock, demo: Demo) -> None:
    written = len(rows(process, 0, "id"))
    used = httpx.get(f"{process.url}/usage", headers=AUTH).json()["requests_used"]
    facts = dry(process, {"body": {**CHAT, "max_tokens": 100}, "key_id": "file:test"})
    assert facts["refused"] is None and facts["model"] == "demo" and facts["key_id"] == "file:test"
    (target,) = facts["groups"][0]["targets"]
    assert target["chance"] == 1 and target["why"] == "" and target["breaker"] == "closed"
    assert 100 < facts["worst_case"]["tokens"] < 1000 and facts["worst_case"]["usd"] > 0
    limits = {each["name"]: each for each in facts["limits"]}
    assert not limits["requests_per_hour"]["refuses"]
    assert httpx.get(f"{process.url}/usage", headers=AUTH).json()["requests_used"] == used
    assert len(rows(process, 0, "id")) == written


def test_chances(process: Penstock) -> None:
    own, fallback = dry(process, {"body": {"model": "pair"}})["groups"]
    assert [each["chance"] for each in own["targets"]] == [
        pytest.approx(0.999, abs=1e-4),
        pytest.approx(0.001, abs=1e-4),
    ]
    assert fallback["model"] == "spare"


def test_a_drained_backend_is_seen(process: Penstock) -> None:
    httpx.post(f"{process.url}/admin/backends/gone/drain", headers=ADMIN)
    try:
        own, _ = dry(process, {"body": {"model": "pair"}})["groups"]
        assert [(each["chance"], each["why"]) for each in own["targets"]] == [(0, "its backend is drained"), (1, "")]
        facts = told(post(process, "pair", ADMIN, EXPLAIN))
        assert facts["groups"][0]["targets"][0]["why"] == "its backend is drained"
    finally:
        httpx.post(f"{process.url}/admin/backends/gone/enable", headers=ADMIN)


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"body": {"model": "dmo"}}, "model_not_found"),
        ({"body": {"model": 3}}, "invalid_request"),
        ({"body": CHAT, "path": "/nothing"}, "not_found"),
        ({"body": CHAT, "path": "/v1/models"}, "method_not_allowed"),
        ({"path": "/v1/models", "method": "GET"}, "invalid_request"),
        ({"path": "/v1/chat/completions"}, "unsupported_media_type"),
        ({"body": CHAT, "key": "psk_nobody"}, "invalid_api_key"),
        ({"body": CHAT, "key_id": "key_nobody"}, "not_found"),
        ({"body": {"model": "other"}, "key_id": "file:test"}, "model_not_allowed"),
        ({"body": {"model": "unpriced"}, "key_id": "file:test"}, "model_has_no_price"),
        ({"body": {**CHAT, "max_tokens": 501}, "key_id": "file:test"}, "output_limit_exceeded"),
    ],
)
def test_what_would_be_refused(process: Penstock, wish: dict[str, Any], code: str) -> None:
    assert dry(process, wish)["refused"]["code"] == code


def test_a_key_by_itself_and_one_of_the_store(process: Penstock) -> None:
    assert dry(process, {"body": CHAT, "key": AUTH["Authorization"].removeprefix("Bearer ")})["key_id"] == "file:test"
    wish = {"tenant_id": "home", "user_id": "eve", "name": "phone", "tier": "tight"}
    made = httpx.post(f"{process.url}/auth/create-key", json=wish, headers=ADMIN).json()
    facts = dry(process, {"body": CHAT, "key_id": made["id"]})
    assert facts["key_id"] == made["id"] and facts["limits"] and facts["refused"] is None
    httpx.post(f"{process.url}/auth/revoke-key", json={"id": made["id"]}, headers=ADMIN)
    assert dry(process, {"body": CHAT, "key_id": made["id"]})["refused"]["code"] == "api_key_revoked"


def test_without_a_key_no_limits(process: Penstock) -> None:
    facts = dry(process, {"body": CHAT})
    assert facts["limits"] == [] and facts["key_id"] is None and facts["refused"] is None


def test_a_spent_limit_would_refuse(demo: Demo) -> None:
    with Penstock(configuration(demo, "requests_per_hour = 1"), env=ENV) as process:
        assert post(process, "demo").status_code == 200
        facts = dry(process, {"body": CHAT, "key_id": "file:test"})
        assert facts["limits"][0]["refuses"] and facts["refused"]["status"] == 429


@pytest.mark.parametrize("wish", [{"body": []}, {"nonsense": 1}, {"path": "x"}, {"key": "a", "key_id": "b"}])
def test_bad_wishes(process: Penstock, wish: dict[str, Any]) -> None:
    answer = httpx.post(f"{process.url}/admin/explain", json=wish, headers=ADMIN)
    assert answer.status_code == 400, answer.text


def test_only_for_administrators(process: Penstock) -> None:
    assert httpx.post(f"{process.url}/admin/explain", json={"body": CHAT}, headers=AUTH).status_code == 401


# --- the command line --------------------------------------------------------------------------------------


def test_the_command_asks_the_server(process: Penstock) -> None:
    file = Path(process.folder.name) / "penstock.toml"
    argv = ["explain", "demo", "--key-id", "file:test", "--config", str(file), "--listen", f"127.0.0.1:{process.port}"]
    done = subprocess.run([PENSTOCK, *argv], capture_output=True, text=True, env={**ENV, "PATH": ""}, check=True)
    assert done.stderr == ""
    assert "demo by /v1/chat/completions\nkey file:test, tier tight\n" in done.stdout
    assert "demo/demo" in done.stdout and "it would be admitted" in done.stdout


def test_the_command_asks_over_tls(demo: Demo, certificates: Path) -> None:
    tls = f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"\n'
    with Penstock(configuration(demo, more=tls), env=ENV, scheme="https") as process:
        file = Path(process.folder.name) / "penstock.toml"
        argv = ["explain", "demo", "--config", str(file), "--listen", f"127.0.0.1:{process.port}"]
        done = subprocess.run([PENSTOCK, *argv], capture_output=True, text=True, env={**ENV, "PATH": ""}, check=True)
        assert done.stderr == "" and "it would be admitted" in done.stdout
