"""A key's life, as an administrator and its holder see it: by HTTP and by command, over two workers."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from governed import ADMIN, AUTH, CHAT, ENV, governed, rows

from running import PENSTOCK, Demo, Penstock

WITHIN_S = 1.0


@pytest.fixture(scope="module")
def penstock(demo: Demo) -> Iterator[Penstock]:
    with governed(demo, "requests_per_hour = 100000\n[tiers.small]\nrequests_per_day = 2", workers=2) as process:
        yield process


def admin(penstock: Penstock, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = httpx.post(f"{penstock.url}/auth/{path}", json=body, headers=ADMIN)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def created(penstock: Penstock, **more: Any) -> dict[str, Any]:
    body = {"tenant_id": "t", "user_id": "u", "name": "n", "tier": "tight", **more}
    return admin(penstock, "create-key", body, 201)


def status(penstock: Penstock, key: str) -> int:
    """Of a request on a connection of its own, so that any worker may get it."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT, headers=headers).status_code


def everywhere(penstock: Penstock, key: str, wanted: int) -> None:
    """Within a second every worker answers so: sixteen requests in a row."""
    until = time.monotonic() + WITHIN_S
    while any(status(penstock, key) != wanted for _ in range(16)):
        assert time.monotonic() < until, f"not every worker answers {wanted} after {WITHIN_S} s"


def test_a_new_key_is_good_at_once_and_a_revoked_one_ends_everywhere(penstock: Penstock) -> None:
    made = created(penstock)
    assert made["api_key"].startswith("psk_")
    assert [status(penstock, made["api_key"]) for _ in range(8)] == [200] * 8
    admin(penstock, "revoke-key", {"id": made["id"]})
    everywhere(penstock, made["api_key"], 401)


def test_rotation_keeps_the_old_key_for_its_grace(penstock: Penstock) -> None:
    made = created(penstock)
    rotated = admin(penstock, "rotate-key", {"id": made["id"], "grace_s": 3600})
    assert rotated["id"] == made["id"]
    assert rotated["api_key"] != made["api_key"]
    assert {status(penstock, key) for key in (made["api_key"], rotated["api_key"])} == {200}
    again = admin(penstock, "rotate-key", {"id": made["id"], "grace_s": 0})
    everywhere(penstock, rotated["api_key"], 401)
    everywhere(penstock, again["api_key"], 200)


def test_a_change_of_tier_holds_everywhere_and_keeps_what_is_used(penstock: Penstock) -> None:
    made = created(penstock)
    assert [status(penstock, made["api_key"]) for _ in range(3)] == [200] * 3
    admin(penstock, "update-key", {"id": made["id"], "tier": "small"})
    time.sleep(WITHIN_S)
    # The tier's daily limit is 2; the requests per day were not counted under the first tier, which has none.
    assert [status(penstock, made["api_key"]) for _ in range(3)] == [200, 200, 429]


def test_a_quota_of_its_own(penstock: Penstock) -> None:
    made = created(penstock, quota_requests_per_hour=2)
    assert [status(penstock, made["api_key"]) for _ in range(3)] == [200, 200, 429]
    usage = httpx.get(f"{penstock.url}/usage", headers={"X-API-Key": made["api_key"]}).json()
    assert (usage["requests_used"], usage["requests_limit"], usage["requests_remaining"]) == (2, 2, 0)
    assert usage["window_reset"].endswith("Z")


def test_verify(penstock: Penstock) -> None:
    made = created(penstock)

    def verified(key: str) -> dict[str, Any]:
        answer = httpx.post(f"{penstock.url}/auth/verify-key", json={"api_key": key})
        assert answer.status_code == 200
        return dict(answer.json())

    good = verified(made["api_key"])
    assert good["valid"] is True
    assert good["user_id"] == "u"
    assert verified("psk_" + "x" * 43) == {"valid": False}


def test_the_list_shows_no_key(penstock: Penstock) -> None:
    made = created(penstock)
    status(penstock, made["api_key"])
    rows(penstock, 1)
    until = time.monotonic() + 5
    while True:
        answer = httpx.get(f"{penstock.url}/auth/keys", headers=ADMIN)
        (mine,) = (key for key in answer.json()["keys"] if key["id"] == made["id"])
        if mine["last_used_at"] or time.monotonic() > until:
            break
        time.sleep(0.05)
    assert mine["last_used_at"]
    assert made["api_key"] not in answer.text
    assert "hash" not in answer.text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"quota_requests_per_hour": -1}, "quota_requests_per_hour"),
        ({"quota_requests_per_hour": 10**30}, "quota_requests_per_hour"),
        ({"tier": "tihgt"}, "tier"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x" * 201}, "name"),
        ({"tenant_id": 5}, "tenant_id"),
        ({"nmae": "x"}, "nmae"),
    ],
)
def test_a_bad_call_names_the_field(penstock: Penstock, change: dict[str, Any], param: str) -> None:
    body = {"tenant_id": "t", "user_id": "u", "name": "n", "tier": "tight", **change}
    answer = httpx.post(f"{penstock.url}/auth/create-key", json=body, headers=ADMIN)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Key": "wrong"}, AUTH])
def test_admin_routes_need_the_admin_key(penstock: Penstock, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{penstock.url}/auth/keys", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "admin_key_required")


def test_stats_and_reports(penstock: Penstock) -> None:
    made = created(penstock, user_id="reported")
    status(penstock, made["api_key"])
    until = time.monotonic() + 5
    while time.monotonic() < until:
        report = httpx.get(f"{penstock.url}/admin/usage", params={"by": "user"}, headers=ADMIN).json()
        if any("reported" in json.dumps(line) for line in report.values()):
            break
        time.sleep(0.05)
    assert "reported" in json.dumps(report)
    stats = httpx.get(f"{penstock.url}/admin/stats", headers=ADMIN).json()
    assert stats["total_requests"] >= 1
    assert stats["active_api_keys"] >= 1
    assert {"cache_hit_rate", "avg_response_time_ms", "models_loaded"} <= stats.keys()


def command(penstock: Penstock, *argv: str) -> subprocess.CompletedProcess[str]:
    import os

    config = f"{penstock.folder.name}/penstock.toml"
    return subprocess.run(
        [PENSTOCK, *argv, "--config", config],
        env={**os.environ, **ENV, "XDG_STATE_HOME": penstock.folder.name},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_keys_by_command(penstock: Penstock) -> None:
    done = command(penstock, "keys", "create", "--tenant", "t", "--user", "u", "--name", "cli", "--tier", "tight")
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip()
    everywhere(penstock, key, 200)
    listed = command(penstock, "keys", "list")
    assert "cli" in listed.stdout
    assert key not in listed.stdout
    key_id = next(word for word in listed.stdout.split() if word.startswith("key_") and "cli" in listed.stdout)
    assert key_id
    report = command(penstock, "usage", "--by", "user")
    assert report.returncode == 0, report.stderr
    assert "requests" in report.stdout
