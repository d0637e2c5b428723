"""splice: the named bytes are replaced, every other byte stays."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import peek as oracle
from oracle.bodies import BODIES
from penstock.ext import peek, splice

EDITS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.binary(max_size=5)), max_size=5)


@settings(deadline=None)
@given(st.binary(max_size=40), EDITS)
def test_edits_in_order_replace_their_bytes(body: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    places = sorted(place for start, end, _ in edits for place in (start, end))
    ordered = [(places[2 * at], places[2 * at + 1], text) for at, (_, _, text) in enumerate(edits)]
    if ordered and ordered[-1][1] > len(body):
        with pytest.raises(ValueError, match="rising order"):
            splice(body, ordered)
        return
    expected = body
    for start, end, text in reversed(ordered):
        expected = expected[:start] + text + expected[end:]
    assert splice(body, ordered) == expected


@settings(deadline=None, max_examples=80)
@given(BODIES, st.text(max_size=10))
def test_a_new_model_changes_nothing_else(body: bytes, name: str) -> None:
    new = json.dumps(name).encode()
    spans = peek(body).model_spans
    changed = splice(body, [(start, end, new) for start, end in spans])
    before, after = oracle.parse(body), oracle.parse(changed)
    assert before is not None
    assert after is not None
    expected = [(key, json.loads(new) if key == "model" else value) for key, value in before.members]
    assert after.members == expected
    assert between(changed, peek(changed).model_spans) == between(body, spans)


def between(body: bytes, spans: list[tuple[int, int]]) -> list[bytes]:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    return [body[start:end] for start, end in zip([0, *ends], [*starts, len(body)], strict=True)]


@pytest.mark.parametrize(
    "edits",
    [
        [(2, 1, b"")],
        [(0, 2, b""), (1, 3, b"")],
        [(2, 3, b""), (0, 1, b"")],
        [(0, 6, b"")],
        [(6, 6, b"")],
        [(-1, 2, b"")],
        [(0, 2**70, b"")],
    ],
)
def test_edits_out_of_order_or_place_are_refused(edits: list[tuple[int, int, bytes]]) -> None:
    with pytest.raises(ValueError, match="rising order"):
        splice(b"abcde", edits)


def test_any_sequence_of_edits_will_do() -> None:
    assert splice(b"abc", ((0, 1, b"xy"), (1, 1, b"-"))) == b"xy-bc"
    assert splice(b"abc", []) == b"abc"
