"""The retry table: what follows each failure, and the two rules that stand over every row."""

import itertools
from typing import get_args

import pytest

from penstock.core.errors import BackendError, BackendTimeout, BadAnswer, ConnectFailed, Phase
from penstock.core.retry import TABLE, Decision, decide

GIVE_UP, NEW_CONNECTION, NEXT_TARGET = Decision.GIVE_UP, Decision.NEW_CONNECTION, Decision.NEXT_TARGET


@pytest.mark.parametrize(
    ("phase", "stale", "replayable", "targets_left", "decision"),
    [
        ("connect", False, True, 1, NEXT_TARGET),
        ("connect", False, True, 0, GIVE_UP),
        ("connect", False, False, 1, NEXT_TARGET),  # nothing of the body has gone out yet
        ("connect", False, False, 0, GIVE_UP),
        ("send", True, True, 0, NEW_CONNECTION),
        ("send", True, True, 1, NEW_CONNECTION),
        ("send", True, False, 1, GIVE_UP),
        ("send", False, True, 1, GIVE_UP),
        ("first_byte", True, True, 0, NEW_CONNECTION),
        ("first_byte", True, True, 1, NEW_CONNECTION),
        ("first_byte", True, False, 1, GIVE_UP),
        ("first_byte", False, True, 1, GIVE_UP),
        ("body", False, True, 1, GIVE_UP),
        ("body", True, True, 1, GIVE_UP),
    ],
)
def test_table(phase: Phase, stale: bool, replayable: bool, targets_left: int, decision: Decision) -> None:
    error = BadAnswer("x", phase=phase, stale=stale)
    assert decide(error, replayable=replayable, targets_left=targets_left) is decision


@pytest.mark.parametrize("kind", [ConnectFailed, BadAnswer, BackendTimeout])
def test_the_phase_decides_and_not_the_class(kind: type[BackendError]) -> None:
    for (phase, stale), decision in TABLE.items():
        assert decide(kind("x", phase=phase, stale=stale), replayable=True, targets_left=1) is decision


def test_what_the_table_does_not_name_is_given_up() -> None:
    for phase, stale in itertools.product(get_args(Phase), (False, True)):
        if (phase, stale) not in TABLE:
            assert decide(BadAnswer("x", phase=phase, stale=stale), replayable=True, targets_left=9) is GIVE_UP


def test_a_body_that_was_streamed_is_sent_once() -> None:
    for phase, stale in itertools.product(("send", "first_byte", "body"), (False, True)):
        assert decide(BadAnswer("x", phase=phase, stale=stale), replayable=False, targets_left=9) is GIVE_UP


def test_every_phase_has_a_row() -> None:
    assert {phase for phase, _ in TABLE} == set(get_args(Phase))
