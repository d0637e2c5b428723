"""A store that fails costs no request: rows wait in the spool, health says why, and nothing is lost when it is back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from governed import AUTH, CHAT, ENV, configuration, rows

from running import Demo, Penstock

SOON_S = 15.0


def post(penstock: Penstock) -> httpx.Response:
    return httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT, headers=AUTH)


def database_check(penstock: Penstock) -> tuple[int, dict[str, str]]:
    answer = httpx.get(f"{penstock.url}/health")
    return answer.status_code, answer.json()["checks"]["database"]


def until(met: Callable[[], object]) -> None:
    end = time.monotonic() + SOON_S
    while not met():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def test_a_locked_database(demo: Demo, tmp_path: Path) -> None:
    text = configuration(demo, "requests_per_hour = 1000", server=f'state_dir = "{tmp_path}"')
    with Penstock(text, env=ENV) as penstock:
        penstock.state_dir = tmp_path
        assert post(penstock).status_code == 200
        rows(penstock, 1)
        assert database_check(penstock) == (200, {"status": "healthy"})
        lock = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        assert [post(penstock).status_code for _ in range(5)] == [200] * 5
        until(lambda: database_check(penstock)[0] == 503)
        assert "error" in database_check(penstock)[1]
        lock.execute("ROLLBACK")
        lock.close()
        assert len(rows(penstock, 6)) == 6
        until(lambda: database_check(penstock)[0] == 200)


def test_a_corrupt_database(demo: Demo, tmp_path: Path) -> None:
    text = configuration(demo, "requests_per_hour = 1000", server=f'state_dir = "{tmp_path}"')
    garbage = b"this is no database at all" * 1000
    (tmp_path / "penstock.db").write_bytes(garbage)
    with Penstock(text, env=ENV) as penstock:
        assert [post(penstock).status_code for _ in range(5)] == [200] * 5, "keys of the file are known without it"
        until(lambda: database_check(penstock)[0] == 503)
        unknown = httpx.get(f"{penstock.url}/v1/models", headers={"X-API-Key": "psk_unknown-0123456789"})
        assert unknown.status_code == 503, "whether the store knows the key cannot be said"
        assert (tmp_path / "penstock.db").read_bytes() == garbage, "what is broken is left for people to look at"
        (tmp_path / "penstock.db").unlink()
        penstock.state_dir = tmp_path
        until(lambda: (tmp_path / "penstock.db").exists() and database_check(penstock)[0] == 200)
        assert len(rows(penstock, 5)) == 5


def test_a_full_spool_refuses_where_it_is_told_to(demo: Demo, tmp_path: Path) -> None:
    store = '[store]\nspool_records = 256\nwhen_full = "refuse"'
    text = configuration(demo, "requests_per_hour = 10000", server=f'state_dir = "{tmp_path}"', more=store)
    with Penstock(text, env=ENV) as penstock, httpx.Client(base_url=penstock.url, headers=AUTH) as client:
        penstock.state_dir = tmp_path
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        rows(penstock, 1)
        lock = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        statuses = [client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(300)]
        full = client.post("/v1/chat/completions", json=CHAT)
        assert (full.status_code, full.json()["error"]["code"]) == (503, "usage_spool_full")
        assert full.headers["retry-after"]
        answered = 1 + statuses.count(200)
        lock.execute("ROLLBACK")
        lock.close()
        found = rows(penstock, answered, "status_code, id")
        assert len(found) == answered
        until(lambda: client.post("/v1/chat/completions", json=CHAT).status_code == 200)


def test_a_full_spool_waits_for_room(demo: Demo, tmp_path: Path) -> None:
    text = configuration(
        demo, "requests_per_hour = 10000", server=f'state_dir = "{tmp_path}"', more="[store]\nspool_records = 256"
    )
    with Penstock(text, env=ENV) as penstock, httpx.Client(base_url=penstock.url, headers=AUTH) as client:
        penstock.state_dir = tmp_path
        client.post("/v1/chat/completions", json=CHAT)
        rows(penstock, 1)
        lock = sqlite3.connect(tmp_path / "penstock.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        for _ in range(256):
            client.post("/v1/chat/completions", json=CHAT)
        before = time.monotonic()
        refused = client.post("/v1/chat/completions", json=CHAT, timeout=20)
        assert refused.status_code == 503
        assert time.monotonic() - before > 4, "it waited for room before it gave up"
        lock.execute("ROLLBACK")
        lock.close()
        assert client.post("/v1/chat/completions", json=CHAT, timeout=20).status_code == 200
