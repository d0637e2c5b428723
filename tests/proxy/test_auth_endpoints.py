"""/auth and /admin: what an administrator and a stranger are told, and every way to ask wrongly."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from keyed import ADMIN, JSON, Keyed, bearer, together, wish
from scripted import Client, exchange, play

from penstock.core.config import Key
from penstock.core.endpoint import EXACT
from penstock.core.errors import BodyTooLarge, KeyRevoked, WrongContentType
from penstock.core.secret import Secret
from penstock.ext import KeyHasher
from penstock.proxy.endpoints import OWN
from penstock.proxy.endpoints.small_body import MOST_BYTES
from penstock.proxy.held import held_of_file
from penstock.proxy.store import COLUMNS

LAPTOP = {"tenant_id": "home", "user_id": "ada", "name": "laptop", "tier": "free"}
CHANGES = ("create_key", "revoke_key", "rotate_key", "update_key")


@pytest.fixture
def keyed(tmp_path: Path) -> Keyed:
    return Keyed(tmp_path)


def test_a_key_from_its_making_to_its_end(keyed: Keyed) -> None:
    async def scene() -> None:
        await keyed.ring.refresh()
        status, made = await keyed.call("create_key", {**LAPTOP, "expires_at": "2030-01-01T00:00:00Z"})
        key = made.pop("api_key")
        assert status == 201
        assert made == {
            **LAPTOP,
            "id": made["id"],
            "quota_requests_per_hour": None,
            "expires_at": "2030-01-01T00:00:00Z",
            "created_at": "2027-01-15T08:00:00Z",
        }
        assert key.startswith("psk_")
        assert len(key) == 4 + 43
        assert (await keyed.caller(bearer(key))).principal.key_id == made["id"]

        status, listed = await keyed.call("list_keys")
        assert status == 200
        assert listed["keys"] == [
            {**made, "status": "active", "last_used_at": None, "revoked_at": None, "previous_valid_until": None}
        ]

        status, changed = await keyed.call("update_key", {"id": made["id"], "tier": "pro", "expires_at": None})
        assert (status, changed["tier"], changed["expires_at"], changed["name"]) == (200, "pro", None, "laptop")

        status, rotated = await keyed.call("rotate_key", {"id": made["id"], "grace_s": 60})
        assert (status, rotated["id"], rotated["previous_valid_until"]) == (200, made["id"], "2027-01-15T08:01:00Z")
        assert rotated["api_key"] != key

        status, revoked = await keyed.call("revoke_key", {"id": made["id"]})
        assert (status, revoked["status"], revoked["revoked_at"]) == (200, "revoked", "2027-01-15T08:00:00Z")
        await keyed.ring.refresh()
        for each in (key, rotated["api_key"]):
            with pytest.raises(KeyRevoked):
                await keyed.caller(bearer(each))
        assert [message for message, _ in keyed.events] == ["key created", "key changed", "key rotated", "key revoked"]
        assert key not in str(keyed.events)

    play(scene())


def test_hashes_are_never_told(keyed: Keyed) -> None:
    async def scene() -> None:
        _, made = await keyed.call("create_key", LAPTOP)
        await keyed.call("rotate_key", {"id": made["id"]})
        _, listed = await keyed.call("list_keys")
        assert keyed.store is not None
        record = keyed.store.all_keys()[0]
        assert record.key_hash not in str(listed)
        assert str(record.previous_key_hash) not in str(listed)
        assert not {name for name in listed["keys"][0] if "hash" in name}

    play(scene())


def test_answers_with_a_key_are_kept_by_nobody(keyed: Keyed) -> None:
    async def scene() -> None:
        body = msgspec.json.encode(LAPTOP)
        client = Client([body])
        lines = (JSON, (b"content-length", str(len(body)).encode()), (b"x-admin-key", ADMIN))
        made = exchange(client, "POST", "/auth/create-key", *lines)
        await OWN["create_key"](keyed.app, made)
        assert (b"cache-control", b"no-store") in client.sent[0]["headers"]
        made.close()

    play(scene())


# --- who may ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", sorted(endpoint.own for endpoint in EXACT.values() if endpoint.access == "admin"))
def test_only_with_the_admin_key(keyed: Keyed, tmp_path: Path, own: str) -> None:
    async def scene() -> None:
        for wrong in (None, b"wrong"):
            status, answer = await keyed.call(own, admin=wrong)
            assert (status, answer["code"]) == (401, "admin_key_required")
        key, _ = keyed.register.create(wish("user"))
        assert (await keyed.call(own, None, bearer(key), admin=None))[0] == 401
        assert (await keyed.call(own, None, bearer(ADMIN), admin=None))[0] == 401
        without = Keyed(tmp_path, admin=None)
        assert (await without.call(own, admin=ADMIN))[0] == 404

    play(scene())


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "body", "param"),
    [
        ("create_key", {**LAPTOP, "quota_requests_per_hour": -1}, "quota_requests_per_hour"),
        ("create_key", {**LAPTOP, "quota_requests_per_hour": 10**18}, "quota_requests_per_hour"),
        ("create_key", {**LAPTOP, "tier": "fre"}, "tier"),
        ("create_key", {**LAPTOP, "expires_at": "2027-01-15T07:59:59Z"}, "expires_at"),
        ("create_key", {**LAPTOP, "expires_at": "soon"}, "expires_at"),
        ("create_key", {**LAPTOP, "name": "a\nb"}, "name"),
        ("create_key", {**LAPTOP, "nmae": "x"}, "nmae"),
        ("create_key", {}, "tenant_id"),
        ("rotate_key", {"id": "key_1", "grace_s": -1}, "grace_s"),
        ("rotate_key", {"id": "key_1", "grace_s": 1e300}, "grace_s"),
        ("revoke_key", {"id": 5}, "id"),
        ("revoke_key", {"id": "file:laptop"}, "id"),
        ("rotate_key", {"id": "file:laptop"}, "id"),
        ("update_key", {"id": "file:laptop", "tier": "pro"}, "id"),
        ("update_key", {"id": "key_1", "tier": "fre"}, "tier"),
        ("verify_key", {}, "api_key"),
        ("verify_key", {"api_key": 5}, "api_key"),
        ("create_key", b"{", None),
        ("create_key", b"[]", None),
    ],
)
def test_a_mistake_is_400_and_named(keyed: Keyed, own: str, body: Any, param: str | None) -> None:
    status, answer = play(keyed.call(own, body))
    assert (status, answer["param"]) == (400, param)


@pytest.mark.parametrize("own", ["revoke_key", "rotate_key", "update_key"])
def test_a_key_that_is_not_there(keyed: Keyed, own: str) -> None:
    status, answer = play(keyed.call(own, {"id": "key_nobody"}))
    assert (status, answer["param"]) == (404, "id")


def test_what_has_ended_is_not_rotated(keyed: Keyed) -> None:
    async def scene() -> None:
        _, revoked = await keyed.call("create_key", LAPTOP)
        await keyed.call("revoke_key", {"id": revoked["id"]})
        status, answer = await keyed.call("rotate_key", {"id": revoked["id"]})
        assert (status, "revoked" in answer["error"]) == (400, True)
        _, expired = await keyed.call("create_key", {**LAPTOP, "expires_at": "2027-01-15T09:00:00Z"})
        keyed.clock.now_s += 3600
        status, answer = await keyed.call("rotate_key", {"id": expired["id"]})
        assert (status, "expired" in answer["error"]) == (400, True)
        assert (await keyed.call("list_keys"))[1]["keys"][1]["status"] == "expired"

    play(scene())


def test_bodies_are_small_and_json(keyed: Keyed) -> None:
    async def scene() -> None:
        assert (await keyed.call("create_key", b'{"name":"' + b"x" * MOST_BYTES))[0] == 413
        client = Client([b"x" * 40_000, b"x" * 40_000])
        made = exchange(client, "POST", "/x", JSON, (b"transfer-encoding", b"chunked"), (b"x-admin-key", ADMIN))
        with pytest.raises(BodyTooLarge):
            await OWN["create_key"](keyed.app, made)
        made.close()
        made = exchange(Client([b"{}"]), "POST", "/x", (b"content-type", b"text/plain"), (b"x-admin-key", ADMIN))
        with pytest.raises(WrongContentType):
            await OWN["create_key"](keyed.app, made)
        made.close()

    play(scene())


def test_a_store_in_trouble_is_503(keyed: Keyed, tmp_path: Path) -> None:
    async def scene() -> None:
        _, made = await keyed.call("create_key", LAPTOP)
        (tmp_path / "penstock.db").rename(tmp_path / "away")
        for own, body in (
            ("create_key", LAPTOP),
            ("revoke_key", {"id": made["id"]}),
            ("list_keys", None),
            ("admin_stats", None),
            ("admin_usage", None),
        ):
            status, answer = await keyed.call(own, body)
            assert (status, answer["code"]) == (503, "store_unavailable"), own
            (tmp_path / "penstock.db").unlink(missing_ok=True)

    play(scene())


def test_without_a_store_there_is_nothing_to_change(tmp_path: Path) -> None:
    async def scene() -> None:
        keyed = Keyed(tmp_path, stored=False)
        for own in CHANGES:
            body = LAPTOP if own == "create_key" else {"id": "key_1"}
            assert (await keyed.call(own, body))[0] == 404
        assert (await keyed.call("admin_stats"))[0] == 404
        assert await keyed.call("list_keys") == (200, {"keys": []})

    play(scene())


# --- what anybody may ask ------------------------------------------------------------------------------------------


def test_verify(tmp_path: Path) -> None:
    async def scene() -> None:
        key = Key(name="own", key=Secret("env", "K"), tenant_id="home", user_id="ada", tier="pro")
        keyed = Keyed(
            tmp_path, of_file=held_of_file([key], [("own", b"a-key-of-my-own-1")], KeyHasher(bytes(range(32))))
        )
        _, made = await keyed.call("create_key", {**LAPTOP, "expires_at": "2027-01-15T09:00:00Z"})
        await keyed.ring.refresh()
        facts = {name: made[name] for name in (*LAPTOP, "id", "quota_requests_per_hour", "expires_at")}

        async def verified(api_key: str) -> tuple[int, dict[str, Any]]:
            return await keyed.call("verify_key", {"api_key": api_key}, admin=None)

        assert await verified(made["api_key"]) == (200, {"valid": True, **facts})
        status, own = await verified("a-key-of-my-own-1")
        assert (status, own["valid"], own["id"], own["expires_at"]) == (200, True, "file:own", None)
        _, rotated = await keyed.call("rotate_key", {"id": made["id"], "grace_s": 60})
        await keyed.ring.refresh()
        assert (await verified(made["api_key"]))[1]["expires_at"] == "2027-01-15T08:01:00Z"
        assert (await verified(rotated["api_key"]))[1]["expires_at"] == "2027-01-15T09:00:00Z"
        keyed.clock.now_s += 3600
        for wrong in (made["api_key"], rotated["api_key"], "psk_unknown", "", "ö" * 1000, "x" * 10_000):
            assert await verified(wrong) == (200, {"valid": False})
        _, other = await keyed.call("create_key", LAPTOP)
        assert (await verified(other["api_key"]))[1]["valid"] is True  # before any worker has read it
        await keyed.call("revoke_key", {"id": other["id"]})
        await keyed.ring.refresh()
        assert await verified(other["api_key"]) == (200, {"valid": False})

    play(scene())


def test_keys_of_the_file_are_listed_too(tmp_path: Path) -> None:
    key = Key(name="own", key=Secret("env", "K"), tenant_id="home", user_id="ada", tier="pro")
    keyed = Keyed(tmp_path, of_file=held_of_file([key], [("own", b"a-key-of-my-own-1")], KeyHasher(b"x" * 32)))
    _, listed = play(keyed.call("list_keys"))
    assert [(each["id"], each["status"]) for each in listed["keys"]] == [("file:own", "active")]
    assert "a-key-of-my-own-1" not in str(listed)


def test_many_changes_at_once(keyed: Keyed) -> None:
    async def scene() -> None:
        made = await together(*(keyed.call("create_key", {**LAPTOP, "name": f"k{n}"}) for n in range(20)))
        assert {status for status, _ in made} == {201}
        assert len({answer["api_key"] for _, answer in made}) == 20
        await keyed.ring.refresh()
        for _, answer in made:
            assert (await keyed.caller(bearer(answer["api_key"]))).principal.key_id == answer["id"]

    play(scene())


# --- figures --------------------------------------------------------------------------------------------------------


def test_stats_of_a_store_without_requests(keyed: Keyed) -> None:
    async def scene() -> None:
        await keyed.call("create_key", LAPTOP)
        status, stats = await keyed.call("admin_stats")
        assert status == 200
        assert stats == {
            "total_requests": 0,
            "cache_hit_rate": 0.0,
            "active_api_keys": 1,
            "avg_response_time_ms": 0.0,
            "models_loaded": 1,
            "total_tokens": 0,
            "total_cost_usd": 0.0,
        }

    play(scene())


def row(number: int, user: str, model: str, nano_usd: int) -> tuple[Any, ...]:
    values = {
        "id": number,
        "request_id": f"r{number}",
        "api_key_id": "key_1",
        "tenant_id": "home",
        "user_id": user,
        "tier": "free",
        "endpoint": "/v1/chat/completions",
        "model_used": model,
        "backend": "b",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "cost_usd": nano_usd / 1e9,
        "cost_nano_usd": nano_usd,
        "llm_request": 1,
        "response_time_ms": 20.0,
        "status_code": 200,
        "outcome": "answered",
        "created_at": "2027-01-15 07:30:00.000",
    }
    return tuple(values.get(name) for name in COLUMNS)


def test_a_report_by_user(keyed: Keyed) -> None:
    async def scene() -> None:
        assert keyed.store is not None
        keyed.store.insert_rows(
            [row(1, "ada", "m", 1_500_000), row(2, "ada", "m", 500_000), row(3, "bob", "n", 250_000)]
        )
        status, report = await keyed.call("admin_usage", query=b"by=user&since=2027-01-15")
        assert status == 200
        assert (report["by"], report["since"], report["until"]) == (
            "user",
            "2027-01-15T00:00:00Z",
            "2027-01-15T08:00:00Z",
        )
        assert [(line["user"], line["requests"], line["cost_usd"]) for line in report["lines"]] == [
            ("ada", 2, 0.002),
            ("bob", 1, 0.00025),
        ]
        assert (report["total"]["requests"], report["total"]["total_tokens"]) == (3, 45)
        for by in ("tenant", "key", "model", "endpoint", "backend", "day"):
            _, report = await keyed.call("admin_usage", query=f"by={by}".encode())
            assert sum(line["requests"] for line in report["lines"]) == 3
        assert (await keyed.call("admin_usage", query=b"by=nobody"))[0] == 400
        assert (await keyed.call("admin_stats"))[1]["total_requests"] == 3

    play(scene())
