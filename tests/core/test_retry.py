"""The retry table: what follows each failure, the rules that stand over every row, and how long to wait."""

import itertools
from typing import get_args

import pytest

from penstock.core.errors import BackendError, BackendStatus, BackendTimeout, BadAnswer, ConnectFailed, Phase
from penstock.core.retry import (
    MOST_PATIENCE_S,
    TABLE,
    Decision,
    Source,
    decide,
    is_failure,
    pause_s,
    read_retry_after,
    source_of,
)

GIVE_UP, NEW_CONNECTION = Decision.GIVE_UP, Decision.NEW_CONNECTION
OTHER_TARGET, ANY_TARGET = Decision.OTHER_TARGET, Decision.ANY_TARGET


def failed(phase: Phase, source: Source) -> BackendError:
    """An error as an attempt raises it."""
    match source:
        case "timeout":
            return BackendTimeout("x", phase=phase)
        case "busy":
            return BackendStatus("x", status=503)
        case "broken":
            return BackendStatus("x", status=500)
        case _:
            kind = ConnectFailed if phase == "connect" else BadAnswer
            return kind("x", phase=phase, stale=source == "stale")


@pytest.mark.parametrize(
    ("phase", "source", "repeatable", "not_repeatable"),
    [
        ("connect", "lost", ANY_TARGET, ANY_TARGET),
        ("connect", "timeout", OTHER_TARGET, OTHER_TARGET),
        ("send", "stale", NEW_CONNECTION, NEW_CONNECTION),
        ("send", "lost", ANY_TARGET, GIVE_UP),
        ("send", "timeout", OTHER_TARGET, GIVE_UP),
        ("first_byte", "stale", NEW_CONNECTION, NEW_CONNECTION),
        ("first_byte", "lost", ANY_TARGET, GIVE_UP),
        ("first_byte", "timeout", OTHER_TARGET, GIVE_UP),
        ("status", "busy", ANY_TARGET, GIVE_UP),
        ("status", "broken", OTHER_TARGET, GIVE_UP),
        ("body", "lost", ANY_TARGET, GIVE_UP),
        ("body", "timeout", OTHER_TARGET, GIVE_UP),
    ],
)
def test_table(phase: Phase, source: Source, repeatable: Decision, not_repeatable: Decision) -> None:
    error = failed(phase, source)
    assert decide(error, replayable=True, repeatable=True, attempt=1, attempts=3) is repeatable
    assert decide(error, replayable=True, repeatable=False, attempt=1, attempts=3) is not_repeatable


def test_what_the_table_does_not_name_is_given_up() -> None:
    for phase in get_args(Phase):
        for stale in (False, True):
            error = BadAnswer("x", phase=phase, stale=stale)
            if (phase, source_of(error)) not in TABLE:
                assert decide(error, replayable=True, repeatable=True, attempt=1, attempts=9) is GIVE_UP


def test_a_body_that_was_streamed_is_sent_once() -> None:
    for phase, source in TABLE:
        for repeatable in (False, True):
            decision = decide(failed(phase, source), replayable=False, repeatable=repeatable, attempt=1, attempts=9)
            assert decision is GIVE_UP


def test_the_number_of_attempts_is_bounded_but_stale_connections_are_none() -> None:
    for (phase, source), attempts in itertools.product(TABLE, (1, 3, 10)):
        for attempt in range(1, attempts + 2):
            decision = decide(
                failed(phase, source), replayable=True, repeatable=True, attempt=attempt, attempts=attempts
            )
            again = TABLE[phase, source][0]
            assert decision is (again if attempt < attempts or source == "stale" else GIVE_UP)


def test_every_phase_has_a_row() -> None:
    assert {phase for phase, _ in TABLE} == set(get_args(Phase))
    assert {source for _, source in TABLE} == set(get_args(Source))


@pytest.mark.parametrize(
    ("status", "source"),
    [(429, "busy"), (502, "busy"), (503, "busy"), (529, "busy"), (500, "broken"), (501, "broken"), (504, "broken")],
)
def test_what_a_status_says(status: int, source: Source) -> None:
    assert is_failure(status)
    assert source_of(BackendStatus("x", status=status)) == source


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 408, 422, 499])
def test_a_callers_error_is_the_callers(status: int) -> None:
    assert not is_failure(status)


# --- waiting -----------------------------------------------------------------------------------------------


def test_the_pause_is_a_share_of_a_time_that_doubles() -> None:
    assert [pause_s(rounds, 100, 1.0, None) for rounds in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert [pause_s(3, 100, share, None) for share in (0.0, 0.5)] == [0.0, 0.2]
    assert pause_s(1, 0, 1.0, None) == 0.0


def test_what_the_backend_asks_for_is_waited_for_if_it_is_little() -> None:
    assert pause_s(1, 100, 0.5, 2.0) == 2.0
    assert pause_s(1, 100, 0.5, 0.0) == 0.0
    assert pause_s(1, 100, 0.5, MOST_PATIENCE_S) == MOST_PATIENCE_S
    assert pause_s(1, 100, 0.5, MOST_PATIENCE_S + 0.1) is None


NOON = b"Sat, 21 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, NOON, None),
        (b"0", None, 0.0),
        (b" 30 ", None, 30.0),
        (b"9" * 5000, None, 999_999_999.0),
        (b"1.5", None, None),
        (b"-1", None, None),
        ("\u0663".encode(), None, None),
        (b"Sat, 21 Nov 2026 12:00:07 GMT", NOON, 7.0),
        (b"Sat, 21 Nov 2026 11:59:59 GMT", NOON, 0.0),
        (b"Sat, 21 Nov 2026 12:00:07 GMT", None, None),
        (b"Sat, 21 Nov 2026 12:00:07", NOON, None),
        (b"Sat, 99 Nov 2026 12:00:07 GMT", NOON, None),
        (b"soon", NOON, None),
        (b"", NOON, None),
    ],
)
def test_retry_after(value: bytes | None, date: bytes | None, seconds: float | None) -> None:
    assert read_retry_after(value, date) == seconds
