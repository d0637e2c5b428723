"""Bodies of calls about keys: each mistake is told with the field it is in, and no value is repeated."""

from typing import Any

import msgspec
import pytest

from penstock.core.errors import InvalidJson, InvalidRequest, MissingField
from penstock.core.key_requests import (
    CreateKey,
    NamedKey,
    RotateKey,
    UpdateKey,
    VerifyKey,
    check_tier,
    expiry_s,
    read_body,
    read_fields,
)

GOOD: dict[str, Any] = {"tenant_id": "home", "user_id": "ada", "name": "laptop", "tier": "pro"}
NOW_S = 1_800_000_000.0


def test_the_least_and_the_most_of_a_new_key() -> None:
    wish = read_fields(GOOD, CreateKey)
    assert (wish.quota_requests_per_hour, wish.expires_at) == (None, None)
    full = {**GOOD, "quota_requests_per_hour": 10**12, "expires_at": "2030-01-01T02:00:00+02:00"}
    wish = read_body(msgspec.json.encode(full), CreateKey)
    assert wish.quota_requests_per_hour == 10**12
    assert expiry_s(wish.expires_at, NOW_S) == 1_893_456_000.0


@pytest.mark.parametrize("field", ["tenant_id", "user_id", "name", "tier"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(MissingField) as caught:
        read_fields({name: value for name, value in GOOD.items() if name != field}, CreateKey)
    assert (caught.value.status, caught.value.param) == (400, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quota_requests_per_hour", -1),
        ("quota_requests_per_hour", 10**12 + 1),
        ("quota_requests_per_hour", 10**30),
        ("quota_requests_per_hour", 1.5),
        ("quota_requests_per_hour", "5"),
        ("quota_requests_per_hour", True),
        ("name", ""),
        ("name", "x" * 201),
        ("name", "line\nend"),
        ("name", "end\n"),
        ("name", "nul\0"),
        ("name", "turned\u202e"),
        ("name", "\x85"),
        ("name", 5),
        ("name", None),
        ("user_id", "tab\t"),
        ("tenant_id", []),
        ("tier", None),
        ("expires_at", "tomorrow"),
        ("expires_at", "2030-01-01"),
        ("expires_at", "2030-01-01T00:00:00"),
        ("expires_at", 1_900_000_000),
        ("expires_at", "2030-13-01T00:00:00Z"),
    ],
)
def test_a_wrong_value_is_named_and_not_repeated(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_fields({**GOOD, field: value}, CreateKey)
    assert (caught.value.status, caught.value.param) == (400, field)
    assert f'"{field}" must be ' in caught.value.message
    assert "x" * 20 not in caught.value.message


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match='unknown field "user"; did you mean "user_id"') as caught:
        read_fields({**GOOD, "user": "ada"}, CreateKey)
    assert caught.value.param == "user"
    with pytest.raises(InvalidRequest) as caught:
        read_fields({**GOOD, "x" * 100_000: 1}, CreateKey)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b"{", b"{} {}", b'{"id":"\\ud800"}', b"\xff", b"1e999"])
def test_no_json_object(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        read_body(body, NamedKey)


@pytest.mark.parametrize("at", ["2027-01-15T08:00:00Z", "2020-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"])
def test_an_expiry_that_does_not_lie_ahead(at: str) -> None:
    wish = read_fields({**GOOD, "expires_at": at}, CreateKey)
    with pytest.raises(InvalidRequest, match="2027-01-15T08:00:00Z now") as caught:
        expiry_s(wish.expires_at, NOW_S)
    assert caught.value.param == "expires_at"


def test_an_unknown_tier_is_told_with_the_nearest() -> None:
    check_tier("", {"free", "pro"})
    check_tier("pro", {"free", "pro"})
    with pytest.raises(InvalidRequest, match='did you mean "free"') as caught:
        check_tier("fre", {"free", "pro"})
    assert caught.value.param == "tier"


@pytest.mark.parametrize(
    ("value", "good"), [(0, True), (2_592_000, True), (2_592_001, False), (-1, False), ("5", False)]
)
def test_a_grace(value: Any, good: bool) -> None:
    if good:
        assert read_fields({"id": "k", "grace_s": value}, RotateKey).grace_s == value
        return
    with pytest.raises(InvalidRequest) as caught:
        read_fields({"id": "k", "grace_s": value}, RotateKey)
    assert caught.value.param == "grace_s"


def test_what_is_left_out_of_a_change_stays_and_null_takes_away() -> None:
    wish = read_fields({"id": "k", "expires_at": None}, UpdateKey)
    assert wish.expires_at is None
    assert wish.tier is msgspec.UNSET
    with pytest.raises(InvalidRequest):
        read_fields({"id": "k", "tier": None}, UpdateKey)


def test_a_key_to_verify_may_be_anything() -> None:
    assert read_fields({"api_key": "ö" * 10_000}, VerifyKey).api_key
    assert read_fields({"api_key": ""}, VerifyKey).api_key == ""
