"""Health, draining on SIGTERM, workers that die, and the access line of each request."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from raw_client import JSON_TYPE, RawClient, ask, chat, chat_body, request, sse_data, wait_until

from running import Demo, Penstock, config, free_port

CHAT = "/v1/chat/completions"


def get(process: Penstock, path: str) -> tuple[int, dict[str, Any]]:
    answer = ask(process.port, request("GET", path))
    return answer.status, answer.json()


# --- health ------------------------------------------------------------------------------------------------


def test_live_and_ready(strict: Penstock) -> None:
    assert get(strict, "/health/live") == (200, {"status": "alive"})
    assert get(strict, "/health/ready") == (200, {"status": "ready"})


def test_healthy(strict: Penstock) -> None:
    status, body = get(strict, "/health")
    assert (status, body["status"]) == (200, "healthy")
    assert {"status", "timestamp", "version", "uptime", "memory", "environment", "checks"} <= set(body)
    assert body["checks"]["providers"]["status"] == "healthy"


def test_degraded(proxy: Penstock) -> None:
    """One of its models has no backend that answers."""
    status, body = get(proxy, "/health")
    assert (status, body["status"]) == (503, "degraded")
    providers = body["checks"]["providers"]
    assert providers["status"] == "unhealthy" and "lost" in providers["error"] and "rescued" not in providers["error"]


def test_health_costs_no_completion(strict: Penstock, demo: Demo) -> None:
    before = demo.stats()["requests_total"]
    get(strict, "/health/live")
    get(strict, "/health/ready")
    assert demo.stats()["requests_total"] == before


def test_a_backend_that_recovers_makes_it_healthy() -> None:
    port = free_port()
    with Penstock(config(port)) as process:
        assert get(process, "/health")[0] == 503
        with Demo("--listen", f"127.0.0.1:{port}"):
            assert get(process, "/health")[0] == 200


# --- draining ----------------------------------------------------------------------------------------------


@pytest.fixture
def draining(demo: Demo) -> Iterator[Penstock]:
    with Penstock(config(demo.port, server="drain_s = 5")) as process:
        yield process


def test_a_running_stream_finishes_and_new_connections_are_refused(draining: Penstock) -> None:
    with RawClient(draining.port) as client:
        lines = (JSON_TYPE, "X-Demo-Tokens: 60", "X-Demo-Rate: 100")
        client.send(request("POST", CHAT, chat_body(stream=True), *lines))
        client.until(b"data: ")
        draining.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(draining.port), 2)
        assert sse_data(client.rest())[-1] == "[DONE]"
    assert draining.process.wait(3) == 0


def test_an_idle_server_stops_at_once(draining: Penstock) -> None:
    with RawClient(draining.port) as idle:
        idle.send(request("GET", "/health/live")).answer()
        began = time.monotonic()
        assert draining.stop() == 0
        assert time.monotonic() - began < 2


def test_a_stream_that_outlasts_the_drain_is_told(demo: Demo) -> None:
    with Penstock(config(demo.port, server="drain_s = 0.3")) as process, RawClient(process.port) as client:
        client.send(request("POST", CHAT, chat_body(stream=True), JSON_TYPE, "X-Demo-Fault: stall"))
        wait_until(lambda: demo.stats()["requests_active"])
        process.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert json.loads(answer.data[-1])["error"]["code"] == "draining" and not answer.clean
        assert process.process.wait(5) == 0


def test_a_request_that_waits_through_the_drain_is_told(demo: Demo) -> None:
    with Penstock(config(demo.port, server="drain_s = 0.3")) as process, RawClient(process.port) as client:
        client.send(request("POST", CHAT, chat_body(), JSON_TYPE, "X-Demo-Fault: never"))
        wait_until(lambda: demo.stats()["requests_active"])
        process.process.send_signal(signal.SIGTERM)
        answer = client.answer()
        assert (answer.status, answer.json()["error"]["code"]) == (503, "draining")
        assert int(answer.header("retry-after") or 0) > 0 and answer.header("x-penstock-error") == "capacity"


def test_a_second_signal_ends_it(draining: Penstock) -> None:
    with RawClient(draining.port) as client:
        client.send(request("POST", CHAT, chat_body(stream=True), JSON_TYPE, "X-Demo-Fault: stall"))
        client.until(b"data: ")
        draining.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(draining.port), 2)
        draining.process.send_signal(signal.SIGTERM)
        draining.process.wait(3)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_a_dead_worker_is_replaced(demo: Demo) -> None:
    with Penstock(config(demo.port)) as process:
        (worker,) = process.workers()
        assert chat(process.port).status == 200
        os.kill(worker.pid, signal.SIGKILL)
        assert chat(process.port).status == 200, "the listening socket is the parent's, so nobody is refused"
        assert [new.pid for new in process.workers()] != [worker.pid]


# --- the access line ---------------------------------------------------------------------------------------------

SECRETS = ("sk-the-clients", "sk-the-backends-own-key", "query-secret", "prompt-secret", "cookie-secret")


def lines_of(process: Penstock, agent: str) -> list[dict[str, Any]]:
    return [line for line in process.lines() if line.get("userAgent") == agent]


def access_line(process: Penstock, agent: str) -> dict[str, Any]:
    wait_until(lambda: lines_of(process, agent))
    (line,) = lines_of(process, agent)
    return line


def test_one_line_a_request(proxy: Penstock) -> None:
    answer = chat(proxy.port, "User-Agent: agent-1", stream=True)
    line = access_line(proxy, "agent-1")
    expected = {
        "level": "info",
        "message": "request",
        "service": "penstock",
        "method": "POST",
        "url": CHAT,
        "route": CHAT,
        "status": 200,
        "ip": "127.0.0.1",
        "model": "demo",
        "backend": "demo",
        "attempts": 1,
        "requestId": answer.header("x-request-id"),
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["firstByte"] <= line["duration"] and line["timestamp"].endswith("Z")
    assert "fault" not in line and "error" not in line


def test_tokens_in_the_line(proxy: Penstock) -> None:
    answer = chat(proxy.port, "User-Agent: agent-2")
    line, usage = access_line(proxy, "agent-2"), answer.json()["usage"]
    assert (line["promptTokens"], line["completionTokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])


FAILURES = {
    "unknown model": ({"model": "none"}, "", 404, "caller", "model_not_found"),
    "unreachable": ({"model": "lost"}, "", 502, "backend", "backend_unreachable"),
    "cut": ({"stream": True}, "cut", 200, "backend", "backend_bad_answer"),
}


@pytest.mark.parametrize(("fields", "demo_fault", "status", "fault", "error"), FAILURES.values(), ids=FAILURES)
def test_failures_in_the_line(
    proxy: Penstock, fields: dict[str, Any], demo_fault: str, status: int, fault: str, error: str
) -> None:
    agent = f"agent-{error}"
    chat(proxy.port, f"User-Agent: {agent}", f"X-Demo-Fault: {demo_fault}", **fields)
    line = access_line(proxy, agent)
    assert (line["status"], line["fault"], line["error"]) == (status, fault, error)


def test_a_client_that_left_in_the_line(proxy: Penstock, demo: Demo) -> None:
    with RawClient(proxy.port) as client:
        lines = (JSON_TYPE, "X-Demo-Fault: never", "User-Agent: agent-left")
        client.send(request("POST", CHAT, chat_body(), *lines))
        wait_until(lambda: demo.stats()["requests_active"] == 1)
    line = access_line(proxy, "agent-left")
    assert (line["fault"], line["error"]) == ("caller", "client_left")


def test_one_line_each_and_whole(proxy: Penstock) -> None:
    for _ in range(20):
        chat(proxy.port, "User-Agent: agent-many")
    wait_until(lambda: len(lines_of(proxy, "agent-many")) == 20)
    assert len({line["requestId"] for line in lines_of(proxy, "agent-many")}) == 20


def test_lines_hold_no_secret_query_or_prompt(proxy: Penstock) -> None:
    talk = [{"role": "user", "content": "prompt-secret"}]
    body = json.dumps({"model": "demo", "messages": talk, "stream": True}).encode()
    lines = (
        JSON_TYPE,
        "Authorization: Bearer sk-the-clients",
        "X-API-Key: sk-the-clients",
        "Cookie: a=cookie-secret",
        "User-Agent: agent-secret",
    )
    target = f"{CHAT}?token=query-secret"
    ask(proxy.port, request("POST", target, body, *lines))
    ask(proxy.port, request("POST", target, body + b"broken", *lines))
    ask(proxy.port, request("POST", target, body, *lines, "X-Demo-Fault: reset"))
    wait_until(lambda: len(lines_of(proxy, "agent-secret")) == 3)
    assert [secret for secret in SECRETS if secret in proxy.text()] == []


def test_a_user_agent_cannot_forge_a_line(proxy: Penstock) -> None:
    chat(proxy.port, 'User-Agent: x"}\\n{"message":"forged"} é')
    wait_until(lambda: "forged" in proxy.text())
    assert not [line for line in proxy.lines() if line["message"] == "forged"]
