"""Limits per address: whoever calls, and seen through the proxies that are trusted, and through no other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
from governed import AUTH, CHAT, governed

from running import Demo, Penstock

STRANGER = {"Authorization": "Bearer nobody-knows-this-key"}
TRUSTED = 'trusted_proxies = ["127.0.0.0/8"]'


def statuses(penstock: Penstock, count: int, **headers: str) -> Counter[int]:
    with httpx.Client(base_url=penstock.url, headers=AUTH | headers) as client:
        return Counter(client.post("/v1/chat/completions", json=CHAT).status_code for _ in range(count))


def test_a_burst_from_one_address(demo: Demo) -> None:
    with governed(demo, more="[limits.ip]\nall_per_5min = 10") as penstock:
        assert statuses(penstock, 15) == {200: 10, 429: 5}
        refused = httpx.get(f"{penstock.url}/v1/models", headers=AUTH)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 300
        assert httpx.get(f"{penstock.url}/health/live").status_code == 200, "whoever looks after it may look often"


def test_kinds_of_routes_are_limited_apart(demo: Demo) -> None:
    with governed(demo, more="[limits.ip]\nchat_per_s = 3\nsearch_per_s = 1000") as penstock:
        assert statuses(penstock, 9)[429] > 0
        body: dict[str, Any] = {"model": "demo", "input": "x"}
        assert httpx.post(f"{penstock.url}/v1/embeddings", json=body, headers=AUTH).status_code == 200


def test_guessing_keys_ends(demo: Demo) -> None:
    with governed(demo, more="[limits.ip]\nunauthenticated_per_15min = 5") as penstock:
        assert statuses(penstock, 8, **STRANGER) == {401: 5, 429: 3}
        verified = httpx.post(f"{penstock.url}/auth/verify-key", json={"api_key": "x"})
        assert verified.status_code == 429, "asking whether a key is good is guessing too"
        assert statuses(penstock, 3) == {200: 3}, "whoever has a key is not concerned"


def test_forwarded_addresses_count_from_trusted_proxies_only(demo: Demo) -> None:
    limit = "[limits.ip]\nall_per_5min = 2"
    with governed(demo, more=limit, server=TRUSTED) as penstock:
        for address in ("198.51.100.1", "198.51.100.2", "2001:db8::1"):
            assert statuses(penstock, 3, **{"X-Forwarded-For": address}) == {200: 2, 429: 1}
        assert statuses(penstock, 1, **{"X-Forwarded-For": "2001:db8::ffff"}) == {429: 1}, "the same /64"
        forged = {"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}
        assert statuses(penstock, 1, **forged) == {429: 1}, "what the client wrote itself does not count"
    with governed(demo, more=limit) as penstock:
        assert statuses(penstock, 2, **{"X-Forwarded-For": "198.51.100.1"}) == {200: 2}
        assert statuses(penstock, 1, **{"X-Forwarded-For": "198.51.100.2"}) == {429: 1}
