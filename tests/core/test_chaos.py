"""Faults made on purpose: when and where one holds, and what an administrator hears of a body that is wrong."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from penstock.core.chaos import FIELDS, OF_KINDS, ChaosFault, mistakes, read_fault
from penstock.core.errors import InvalidJson, InvalidRequest, MissingField

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BACKENDS = ("cloud", "local")


def fault(**more: Any) -> ChaosFault:
    return ChaosFault(**{"name": "f", "kind": "connection_reset", **more})


def read(**fields: Any) -> ChaosFault:
    return read_fault(json.dumps(fields).encode(), BACKENDS)


@pytest.mark.parametrize(
    ("times", "active"),
    [
        ({}, True),
        ({"start": NOON}, True),
        ({"start": NOON + HOUR}, False),
        ({"end": NOON}, False),
        ({"end": NOON + HOUR}, True),
        ({"start": NOON - HOUR, "end": NOON + HOUR}, True),
        ({"start": datetime(2026, 11, 21, 14, tzinfo=timezone(2 * HOUR))}, True),
    ],
)
def test_it_holds_from_its_start_to_its_end(times: dict[str, datetime], active: bool) -> None:
    assert fault(**times).is_active(NOON) == active


@pytest.mark.parametrize(
    ("where", "backend", "model", "meets"),
    [
        ({}, "cloud", "m", True),
        ({}, "cloud", None, True),
        ({"backend": "cloud"}, "cloud", None, True),
        ({"backend": "cloud"}, "local", "m", False),
        ({"model": "m"}, "cloud", "m", True),
        ({"model": "m"}, "cloud", None, False),
        ({"backend": "cloud", "model": "m"}, "cloud", "n", False),
    ],
)
def test_where_it_holds(where: dict[str, str], backend: str, model: str | None, meets: bool) -> None:
    assert fault(**where).meets(backend, model) == meets


def test_the_least_and_the_most_of_a_body() -> None:
    assert read(name="f", kind="connection_reset") == fault()
    whole = read(
        name="f",
        kind="latency",
        backend="cloud",
        model="m",
        share=0.25,
        start="2026-11-21T13:00:00+01:00",
        end="2026-11-21T13:00:00Z",
        latency_ms=15,
    )
    assert whole == fault(
        kind="latency", backend="cloud", model="m", share=0.25, start=NOON, end=NOON + HOUR, latency_ms=15
    )


def test_absent_and_null_times_are_the_same() -> None:
    assert read(name="f", kind="bad_body", start=None, end=None) == read(name="f", kind="bad_body")


@pytest.mark.parametrize(
    "kind", ["latency", "error_status", "connection_reset", "cut_stream", "slow_tokens", "bad_body"]
)
def test_what_is_written_can_be_read_again(kind: str) -> None:
    needed = {"latency": {"latency_ms": 5}, "slow_tokens": {"gap_ms": 5}}.get(kind, {})
    made = read(name="f", kind=kind, start="2026-11-21T12:00:00Z", **needed)
    assert read_fault(msgspec.json.encode(made), BACKENDS) == made
    assert list(mistakes(made)) == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"3", b"null"])
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        read_fault(body, BACKENDS)


@pytest.mark.parametrize("field", ["name", "kind"])
def test_what_is_missing_is_named(field: str) -> None:
    fields = {"name": "f", "kind": "bad_body"}
    del fields[field]
    with pytest.raises(MissingField, match=f'"{field}" is missing') as caught:
        read(**fields)
    assert (caught.value.status, caught.value.param) == (400, field)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", '"name" must be 1 to 64 letters, digits, dots, hyphens and underscores'),
        ("name", "a\r\nx: y", '"name" must be 1 to 64 letters, digits, dots, hyphens and underscores'),
        ("name", "a\n", '"name" must be 1 to 64 letters, digits, dots, hyphens and underscores'),
        ("name", 3, '"name" must be 1 to 64 letters, digits, dots, hyphens and underscores'),
        ("kind", "latenci", 'did you mean "latency"?'),
        ("kind", None, '"kind" must be one of "latency", "error_status"'),
        ("share", 1.5, '"share" must be from 0 to 1, not 1.5'),
        ("share", "all", '"share" must be a number, not a string'),
        ("share", True, '"share" must be a number, not a boolean'),
        ("backend", "clod", 'no backend of that name is in the configuration; did you mean "cloud"?'),
        ("model", ["m"], '"model" must be a string, not an array'),
        ("start", "2026-11-21T12:00:00", '"start" must be a time with its offset, such as 2026-11-21T12:00:00Z'),
        ("end", "tomorrow", '"end" must be a time with its offset, such as 2026-11-21T12:00:00Z'),
        ("after_bytes", -1, '"after_bytes" must be from 0 to 1099511627776, not -1'),
        ("after_byte", 1, 'unknown field "after_byte"; did you mean "after_bytes"?'),
        ("latency_ms", 5, "latency_ms: only faults of kind latency have it, and this one is cut_stream"),
        ("gap_ms", 5, "gap_ms: only faults of kind slow_tokens have it, and this one is cut_stream"),
        ("status", 500, "status: only faults of kind error_status have it, and this one is cut_stream"),
        ("status", 200, '"status" must be from 400 to 599, not 200'),
    ],
)
def test_what_is_wrong_is_said_of_its_field(field: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**{"name": "f", "kind": "cut_stream", field: value})
    assert words in caught.value.message
    assert caught.value.param == field


@pytest.mark.parametrize(("kind", "field"), [("latency", "latency_ms"), ("slow_tokens", "gap_ms")])
def test_a_fault_that_would_do_nothing_is_refused(kind: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}: a fault of kind {kind} needs it") as caught:
        read(name="f", kind=kind)
    assert caught.value.param == field


def test_an_end_before_the_start() -> None:
    with pytest.raises(InvalidRequest, match="end: must be later than start"):
        read(name="f", kind="bad_body", start="2026-11-21T12:00:00Z", end="2026-11-21T12:00:00Z")


def test_a_strangers_name_for_a_field_is_shown_cut() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(name="f", kind="bad_body", **{"x" * 10_000: 1})
    assert len(caught.value.message) < 400


def test_every_field_belongs_to_all_kinds_or_to_some() -> None:
    assert set(OF_KINDS) < set(FIELDS)
    assert all(FIELDS[name].default == getattr(fault(), name) for name in OF_KINDS)
