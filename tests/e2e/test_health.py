"""Backends that go and come back, and an administrator who takes them out of service: as health checks tell of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from governed import ADMIN, ADMIN_KEY, CHAT

from running import Demo, Penstock, free_port

# Two checks a second apart, and as much again for a busy machine.
SOON_S = 6.0

FILE = """
[server]
listen = "127.0.0.1:0"
workers = {workers}
[admin]
key = "env:ADMIN_KEY"
[backends.one]
kind = "openai"
url = "http://127.0.0.1:{one}/v1"
health = {{ interval_s = 0.5, timeout_s = 1 }}
[backends.two]
kind = "openai"
url = "http://127.0.0.1:{two}/v1"
health = {{ interval_s = 0.5, timeout_s = 1 }}
[models.both]
targets = [{{ backend = "one", model = "demo" }}, {{ backend = "two", model = "demo" }}]
[models.lone]
targets = [{{ backend = "one", model = "demo" }}]
[models.rescued]
targets = [{{ backend = "one", model = "demo" }}]
fallback = ["spare"]
[models.spare]
targets = [{{ backend = "two", model = "demo-large" }}]
[breaker]
failures = 3
recovery_s = {recovery_s}
"""


def serve(one: int, two: int, *, workers: int = 1, recovery_s: float = 60) -> Penstock:
    text = FILE.format(one=one, two=two, workers=workers, recovery_s=recovery_s)
    return Penstock(text, env={"ADMIN_KEY": ADMIN_KEY})


def backends(process: Penstock) -> dict[str, Any]:
    return dict(httpx.get(f"{process.url}/api/llm/health").json()["backends"])


def chat(process: Penstock, model: str) -> int:
    return httpx.post(f"{process.url}/v1/chat/completions", json={**CHAT, "model": model}).status_code


def soon(met: Callable[[], Any]) -> None:
    until = time.monotonic() + SOON_S
    while not met():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def completions(demo: Demo, process: Penstock, model: str, count: int) -> int:
    """How many of so many requests a backend got; health checks are a few beside them."""
    before = demo.stats()["bytes_sent"]
    assert all(chat(process, model) == 200 for _ in range(count))
    return int(demo.stats()["bytes_sent"] - before)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Demo, Demo]]:
    with Demo("--rate", "0") as one, Demo("--rate", "0") as two:
        yield one, two


@pytest.fixture(scope="module")
def process(pair: tuple[Demo, Demo]) -> Iterator[Penstock]:
    with serve(pair[0].port, pair[1].port, workers=2) as made:
        yield made


def test_each_backend_is_told(process: Penstock) -> None:
    assert chat(process, "both") == 200
    soon(lambda: all(backends(process)["one"]["last_check"] for _ in range(10)))  # in either worker
    answer = httpx.get(f"{process.url}/api/llm/health")
    assert answer.status_code == 200 and answer.json()["status"] == "healthy"
    one = answer.json()["backends"]["one"]
    assert one["kind"] == "openai" and one["models"] == ["both", "lone", "rescued"]
    assert (one["drained"], one["down"], one["breaker"], one["in_flight"]) == (False, False, "closed", 0)
    check = one["last_check"]
    assert check["ok"] and check["path"] == "/v1/models" and check["latency_ms"] > 0
    assert [each["model"] for each in one["targets"]] == ["demo"]
    assert set(answer.json()["backends"]) == {"one", "two"}


def test_a_backend_goes_down_and_comes_back() -> None:
    port = free_port()
    with Demo("--rate", "0") as two, serve(port, two.port) as process:
        soon(lambda: backends(process)["one"]["down"])
        told = backends(process)["one"]
        assert told["status"] == "unhealthy" and told["last_check"]["failed_in_row"] >= 2
        assert "Connection refused" in told["last_check"]["error"]
        health = httpx.get(f"{process.url}/health")
        error = health.json()["checks"]["providers"]["error"]
        assert health.status_code == 503 and error == "no healthy backend for lone"
        assert [chat(process, "both") for _ in range(5)] == [200] * 5
        with Demo("--rate", "0", "--listen", f"127.0.0.1:{port}"):
            soon(lambda: not backends(process)["one"]["down"])
            assert httpx.get(f"{process.url}/health").status_code == 200
            assert chat(process, "lone") == 200

        def changes() -> list[dict[str, Any]]:
            return [line for line in process.lines() if line["message"].startswith("a backend is")]

        soon(lambda: len(changes()) >= 2)
        down, up = changes()[:2]
        assert (down["message"], up["message"]) == ("a backend is down", "a backend is up again")
        assert "2 health checks in a row failed" in down["why"] and down["backend"] == "one"


def test_a_check_lets_a_breaker_try_again_at_once() -> None:
    """Without it the breaker would be open for a minute."""
    port = free_port()
    with Demo("--rate", "0") as two, serve(port, two.port) as process:
        soon(lambda: chat(process, "lone") == 503)
        assert backends(process)["one"]["breaker"] == "open"
        with Demo("--rate", "0", "--listen", f"127.0.0.1:{port}"):
            soon(lambda: chat(process, "lone") == 200)
            assert backends(process)["one"]["breaker"] == "closed"


def test_an_open_breaker_degrades_and_recovers() -> None:
    """The backend answers health checks, and nothing else."""
    with Demo("--rate", "0") as one, Demo("--rate", "0") as two, serve(one.port, two.port, recovery_s=1) as process:
        failing = {"X-Demo-Fault": "status=500"}
        for _ in range(3):
            httpx.post(f"{process.url}/v1/chat/completions", json={**CHAT, "model": "lone"}, headers=failing)
        health = httpx.get(f"{process.url}/health")
        assert health.status_code == 503, health.text
        assert health.json()["checks"]["providers"]["error"] == "no healthy backend for lone"
        soon(lambda: httpx.get(f"{process.url}/health").status_code == 200)
        soon(lambda: chat(process, "lone") == 200)


def test_health_checks_cost_no_completion(pair: tuple[Demo, Demo]) -> None:
    with serve(pair[0].port, pair[1].port) as process:
        soon(lambda: backends(process)["one"]["last_check"])
        assert backends(process)["one"]["targets"][0]["requests"] == 0


def test_another_worker_leads_when_the_leader_dies(pair: tuple[Demo, Demo]) -> None:
    with serve(pair[0].port, pair[1].port, workers=2) as process:
        soon(lambda: backends(process)["one"]["last_check"])
        for worker in process.workers():
            worker.kill()
        killed_at = time.time()
        time.sleep(1)  # both are replaced

        def checked_since() -> bool:
            try:
                told = backends(process)["one"]["last_check"]
            except httpx.TransportError:
                return False
            return bool(told) and told["at"] > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(killed_at + 1))

        soon(checked_since)


def test_a_reload_changes_who_is_asked(pair: tuple[Demo, Demo]) -> None:
    with serve(pair[0].port, free_port(), workers=2) as process:
        soon(lambda: backends(process)["two"]["down"])
        do(process, "one", "drain")
        process.up()
        more = process.config.replace(
            "[backends.two]", f'[backends.three]\nkind = "openai"\nurl = "{pair[1].url}/v1"\n[backends.two]'
        )
        process.rewrite(more.replace("interval_s = 0.5, timeout_s = 1", "interval_s = 0"))
        process.control("reload")
        soon(lambda: backends(process)["three"]["last_check"])
        soon(lambda: not backends(process)["two"]["down"])  # nobody asks any more, so nobody knows
        assert backends(process)["one"]["drained"]


# --- drain and enable --------------------------------------------------------------------------------------


def do(process: Penstock, name: str, action: str, headers: dict[str, str] = ADMIN) -> httpx.Response:
    return httpx.post(f"{process.url}/admin/backends/{name}/{action}", headers=headers)


def test_drained_in_every_worker_before_the_answer(process: Penstock, pair: tuple[Demo, Demo]) -> None:
    try:
        drained = do(process, "one", "drain")
        assert drained.status_code == 200 and drained.json()["name"] == "one"
        assert drained.json()["drained"] and drained.json()["status"] == "drained"
        # Each request comes over a connection of its own, so to either worker.
        sent = completions(pair[0], process, "both", 20)
        assert sent < 20 * 100, "only health checks were answered"
        assert chat(process, "lone") == 503 and chat(process, "rescued") == 200
        health = httpx.get(f"{process.url}/health")
        assert health.status_code == 503 and "lone" in health.text
        everything = httpx.get(f"{process.url}/admin/backends", headers=ADMIN).json()["backends"]
        assert everything["one"]["drained"] and not everything["two"]["drained"]
    finally:
        enabled = do(process, "one", "enable")
    assert enabled.status_code == 200 and enabled.json()["status"] == "healthy"
    assert all(chat(process, "lone") == 200 for _ in range(10))
    assert httpx.get(f"{process.url}/health").status_code == 200
    for done in ("drained", "enabled"):
        soon(lambda done=done: any(line["message"] == f"a backend was {done}" for line in process.lines()))  # type: ignore[misc]


def test_enable_closes_breakers() -> None:
    port = free_port()
    with Demo("--rate", "0") as two, serve(port, two.port) as process:
        soon(lambda: chat(process, "lone") == 503)
        told = do(process, "one", "enable").json()
        assert told["breaker"] == "closed" and told["targets"][0]["failures_in_row"] == 0


@pytest.mark.parametrize(
    ("name", "action", "status", "words"),
    [
        ("oen", "drain", 404, 'did you mean \\"one\\"?'),
        ("", "drain", 404, "no backend is called"),
        ("one", "reboot", 404, "can be drained or enabled"),
        ("%6Fne", "enable", 200, '"name":"one"'),
    ],
)
def test_names(process: Penstock, name: str, action: str, status: int, words: str) -> None:
    answer = do(process, name, action)
    assert answer.status_code == status and words in answer.text


def test_only_with_the_admin_key(process: Penstock) -> None:
    assert do(process, "one", "drain", {}).status_code == 401
    assert do(process, "one", "drain", {"X-Admin-Key": "wrong"}).status_code == 401
    assert httpx.get(f"{process.url}/admin/backends").status_code == 401
    assert not backends(process)["one"]["drained"]
