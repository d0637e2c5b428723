"""What a caller with a key sees of limits and budgets, and what becomes of reservations."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from governed import ADMIN, AUTH, CHAT, ENV, configuration, governed, query, rows

from running import Demo, Penstock

PRICED = """
[models.demo]
targets = ["demo"]
price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 2.0 }
[models.unpriced]
targets = ["demo"]
[models.other]
targets = ["demo"]
"""


def post(penstock: Penstock, body: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
    return httpx.post(f"{penstock.url}/v1/chat/completions", json=body or CHAT, headers=AUTH, **options)


def lines_of(penstock: Penstock, body: dict[str, Any]) -> list[str]:
    """The data of a stream's events."""
    return [line[6:] for line in post(penstock, {**body, "stream": True}).text.splitlines() if line[:6] == "data: "]


# --- keys --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_handed(demo: Demo) -> Iterator[Penstock]:
    with governed(demo, "requests_per_hour = 100000", more=PRICED) as process:
        yield process


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer wrong-key-0123456789abcdef"}, "invalid_api_key"),
        ({"Authorization": "Bearer " + "x" * 5000}, "invalid_api_key"),
        ({"X-API-Key": "ключ".encode()}, "invalid_api_key"),
        ({"Authorization": "Basic YTpi"}, "missing_api_key"),
        ({**AUTH, "X-API-Key": "another-key-0123456789abc"}, None),
    ],
    ids=["none", "unknown", "over-long", "non-ASCII", "another scheme", "two that disagree"],
)
def test_a_request_without_a_good_key_is_401(open_handed: Penstock, headers: dict[Any, Any], code: str | None) -> None:
    answer = httpx.post(f"{open_handed.url}/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["x-penstock-error"] == "caller"
    assert code in (None, answer.json()["error"]["code"])


@pytest.mark.parametrize("name", ["X-API-Key", "api-key"])
def test_other_places_of_a_key(open_handed: Penstock, name: str) -> None:
    key = AUTH["Authorization"].removeprefix("Bearer ")
    answer = httpx.post(f"{open_handed.url}/v1/chat/completions", json=CHAT, headers={name: key})
    assert answer.status_code == 200
    again = httpx.post(f"{open_handed.url}/v1/chat/completions", json=CHAT, headers={name: key, **AUTH})
    assert again.status_code == 200, "the same key twice is no contradiction"


def test_models_need_a_key_and_health_does_not(open_handed: Penstock) -> None:
    assert httpx.get(f"{open_handed.url}/v1/models").status_code == 401
    assert httpx.get(f"{open_handed.url}/v1/models", headers=AUTH).status_code == 200
    assert httpx.get(f"{open_handed.url}/health").status_code == 200


# --- limits ------------------------------------------------------------------------------------------------


def test_a_limited_answer_says_what_is_left(open_handed: Penstock) -> None:
    first, second = post(open_handed), post(open_handed)
    assert first.headers["x-ratelimit-limit"] == "100000"
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in (first, second)]
    assert left[1] == left[0] - 1
    assert 0 < int(first.headers["x-ratelimit-reset"]) - time.time() <= 3600
    assert '"requests_per_hour";q=100000;w=3600' in first.headers["ratelimit-policy"]
    assert f'"requests_per_hour";r={left[0]}' in first.headers["ratelimit"]


def test_what_is_left_is_told_over_tls_too(demo: Demo, certificates: Path) -> None:
    tls = f'[server.tls]\ncert_file = "{certificates}/server.pem"\nkey_file = "{certificates}/server.key"'
    text = configuration(demo, "requests_per_day = 10", more=tls)
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with Penstock(text, env=ENV) as penstock, httpx.Client(base_url=penstock.url, verify=context, http2=True) as client:
        answer = client.post("/v1/chat/completions", json=CHAT, headers=AUTH)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "9")


def test_a_refusal_is_true_and_names_the_next_tier(demo: Demo) -> None:
    tiers = 'requests_per_s = 2\nupgrade_to = "pro"\n[tiers.pro]\nrequests_per_s = 1000'
    with governed(demo, tiers) as penstock, httpx.Client(base_url=penstock.url, headers=AUTH) as client:
        answers = [client.post("/v1/chat/completions", json=CHAT) for _ in range(4)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        error = refused[0].json()["error"]
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert error["upgrade"]["tier"] == "pro"
        assert refused[0].headers["x-penstock-error"] == "policy"
        time.sleep(int(refused[0].headers["retry-after"]))
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_streams_are_in_flight_until_their_end(demo: Demo) -> None:
    with governed(demo, "in_flight = 1") as penstock:
        body = {**CHAT, "stream": True}
        headers = {**AUTH, "X-Demo-Tokens": "1000", "X-Demo-Rate": "20"}
        with (
            httpx.Client(base_url=penstock.url) as client,
            client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as stream,
        ):
            chunks = stream.iter_bytes()
            next(chunks)
            assert post(penstock).status_code == 429
        until = time.monotonic() + 2
        while post(penstock).status_code != 200:
            assert time.monotonic() < until, "the place of a client that left did not come back"


def test_a_dead_workers_streams_are_no_longer_in_flight(demo: Demo) -> None:
    with governed(demo, "in_flight = 1") as penstock:
        headers = {**AUTH, "X-Demo-Tokens": "1000", "X-Demo-Rate": "20"}
        with (
            httpx.Client(base_url=penstock.url) as client,
            client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers) as stream,
        ):
            chunks = stream.iter_bytes()
            next(chunks)
            penstock.workers()[0].kill()
            with pytest.raises(httpx.HTTPError):
                list(chunks)
        until = time.monotonic() + 10
        while True:
            try:
                if post(penstock).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < until
            time.sleep(0.05)
        assert rows(penstock, 2, "outcome")[0] == ("lost",)


def test_models_of_a_tier(demo: Demo) -> None:
    with governed(demo, 'models = ["demo"]', more=PRICED) as penstock:
        assert post(penstock).status_code == 200
        refused = post(penstock, {**CHAT, "model": "other"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


def test_a_restart_keeps_what_is_used_and_new_limits_count_it(demo: Demo, tmp_path: Any) -> None:
    place = f'state_dir = "{tmp_path}"'
    for limit, left, keep in ((10, 7, True), (20, 14, False), (30, 21, True)):
        with Penstock(configuration(demo, f"requests_per_day = {limit}", server=place), env=ENV) as penstock:
            answers = [post(penstock) for _ in range(3)]
            assert int(answers[-1].headers["x-ratelimit-remaining"]) == left
        if not keep:  # the shared memory is gone: the store knows what was used
            (tmp_path / "state.shm").unlink()


# --- money and tokens --------------------------------------------------------------------------------------


def test_usage_of_a_stream_is_asked_for_and_taken_out_again(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 100\ntokens_per_day = 100000", more=PRICED) as penstock:
        plain = lines_of(penstock, CHAT)
        asked = lines_of(penstock, {**CHAT, "stream_options": {"include_usage": True}})
        assert plain[-1] == asked[-1] == "[DONE]"
        assert all(json.loads(line)["choices"] for line in plain[:-1])
        usage = json.loads(asked[-2])
        assert usage["choices"] == []
        told = usage["usage"]
        wanted = (told["prompt_tokens"], told["completion_tokens"], 0)
        assert rows(penstock, 2, "prompt_tokens, completion_tokens, usage_estimated") == [wanted, wanted]
        cost = query(penstock, "SELECT cost_nano_usd, cost_usd FROM ai_usage_logs")
        nano = told["prompt_tokens"] * 1000 + told["completion_tokens"] * 2000
        assert cost == [(nano, nano / 1e9)] * 2


def test_a_stream_without_limits_is_left_alone(open_handed: Penstock) -> None:
    before = len(query(open_handed, "SELECT id FROM ai_usage_logs"))
    assert all(json.loads(line)["choices"] for line in lines_of(open_handed, CHAT)[:-1])
    row = rows(open_handed, before + 1, "prompt_tokens, completion_tokens, usage_estimated")[-1]
    assert row[2] == 1
    assert row[0] > 0
    assert row[1] > 0


def test_a_model_without_a_price_cannot_be_used_on_a_budget(demo: Demo) -> None:
    with governed(demo, "usd_per_month = 5", more=PRICED) as penstock:
        refused = post(penstock, {**CHAT, "model": "unpriced"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_has_no_price")


def test_output_is_capped_where_a_limit_needs_it(demo: Demo) -> None:
    with governed(demo, "tokens_per_day = 5000\nmax_output_tokens = 7", more=PRICED) as penstock:
        answer = httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT, headers={**AUTH, "X-Demo-Tokens": "500"})
        assert answer.json()["usage"]["completion_tokens"] <= 7
        over = post(penstock, {**CHAT, "max_tokens": 8})
        assert (over.status_code, over.json()["error"]["code"]) == (403, "output_limit_exceeded")


def test_what_can_never_pass_is_not_called_a_rate_limit(demo: Demo) -> None:
    with governed(demo, "tokens_per_minute = 50", more=PRICED) as penstock:
        refused = post(penstock, {**CHAT, "max_tokens": 5000})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "request_over_limit")
        assert "retry-after" not in refused.headers


def test_failures_give_the_reservation_back(demo: Demo) -> None:
    with governed(demo, "usd_per_day = 0.5", more=PRICED) as penstock:
        for _ in range(3):
            answer = httpx.post(
                f"{penstock.url}/v1/chat/completions", json=CHAT, headers={**AUTH, "X-Demo-Fault": "status=500"}
            )
            assert answer.status_code == 500
        assert rows(penstock, 3, "cost_nano_usd, outcome") == [(0, "failed")] * 3
        assert httpx.get(f"{penstock.url}/usage", headers=AUTH).json()["cost_usd"] == 0


def test_every_request_has_its_row(demo: Demo) -> None:
    with governed(demo, "requests_per_day = 3", more=PRICED) as penstock:
        post(penstock, {**CHAT, "model": "nobody-knows-it"})
        for _ in range(4):
            post(penstock)
        found = rows(penstock, 5, "status_code, outcome, user_id, tenant_id, model_used, endpoint, error_message")
        assert [row[:2] for row in found] == [
            (404, "refused"),
            (200, "answered"),
            (200, "answered"),
            (200, "answered"),
            (429, "refused"),
        ]
        assert {row[2:4] for row in found} == {("ada", "home")}
        assert found[1][4:6] == ("demo", "/v1/chat/completions")
        assert found[4][6] == "rate_limit_exceeded"


def test_without_an_admin_key_there_are_no_admin_routes(proxy: Penstock) -> None:
    for method, path in (("POST", "/auth/create-key"), ("GET", "/admin/stats"), ("GET", "/admin/usage")):
        answer = httpx.request(method, f"{proxy.url}{path}", headers=ADMIN)
        unknown = httpx.request(method, f"{proxy.url}/nowhere", headers=ADMIN)
        assert (answer.status_code, answer.json()) == (404, unknown.json())
