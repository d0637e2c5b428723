"""access_line: a JSON reader finds in it what it finds in the twin's line."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import access_line as oracle
from penstock.ext import access_line

PLAIN: tuple[Any, ...] = (
    "2026-11-21T08:50:00.123Z", "info", b"0f7a", "POST", b"/v1/chat/completions", "/v1/chat/completions", 200,
    10.0, 10.5, 10.25, "203.0.113.7", b"OpenAI/Python", "key", "user", "tenant", "tiny", "one", 1, 12, 9, 10_210,
    None, None, None,
)  # fmt: skip

texts = st.sampled_from(["", "tiny", 'say "a"\\\n', "\x00\x1f\x7f", "ä日本😀", "x" * 40]) | st.text()
octets = st.sampled_from([b"", b"0f7a", b'"\\\r\t', b"\xe4\xff", b"x" * 40]) | st.binary()
maybe = st.none() | texts
seconds = st.sampled_from([0.0, 0.0000005, 0.0000015, 0.0625, 1e-9, 1e15]) | st.floats(0, 1e7)
counts = st.integers(0, 2**63 - 1)
arguments = st.tuples(
    texts, texts, octets, texts, octets, texts, st.integers(0, 999), seconds, seconds, seconds, texts,
    st.none() | octets, maybe, maybe, maybe, maybe, maybe, counts, st.none() | counts, st.none() | counts,
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**12), maybe, maybe, maybe,
)  # fmt: skip


def read(line: bytes) -> list[tuple[str, object]]:
    """Members in order; floats and integers are told apart."""
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    pairs: list[tuple[str, object]] = json.loads(line, object_pairs_hook=list)
    return [(name, (type(value), value)) for name, value in pairs]


@settings(max_examples=500, deadline=None)
@given(arguments)
def test_a_reader_finds_what_it_finds_in_the_twin(arguments: tuple[Any, ...]) -> None:
    assert read(access_line(*arguments)) == read(oracle.access_line(*arguments))


@settings(max_examples=500, deadline=None)
@given(seconds, seconds)
def test_durations_are_rounded_as_python_rounds(started: float, ended: float) -> None:
    line = (*PLAIN[:7], started, ended, *PLAIN[9:])
    assert json.loads(access_line(*line))["duration"] == round((ended - started) * 1000, 3)


def test_a_usual_line() -> None:
    assert access_line(*PLAIN) == (
        b'{"timestamp":"2026-11-21T08:50:00.123Z","level":"info","message":"request","service":"penstock",'
        b'"requestId":"0f7a","method":"POST","url":"/v1/chat/completions","route":"/v1/chat/completions","status":200,'
        b'"duration":500.0,"ip":"203.0.113.7","userAgent":"OpenAI/Python","firstByte":250.0,"keyId":"key",'
        b'"userId":"user","tenantId":"tenant","model":"tiny","backend":"one","attempts":1,"promptTokens":12,'
        b'"completionTokens":9,"costUsd":0.00001021}\n'
    )


@pytest.mark.parametrize("ended", [math.nan, math.inf, -math.inf])
def test_times_that_are_none(ended: float) -> None:
    assert json.loads(access_line(*PLAIN[:8], ended, *PLAIN[9:]))["duration"] is None


def test_half_a_surrogate_pair_does_not_cost_the_line() -> None:
    assert json.loads(access_line(*PLAIN[:15], "a\ud83d", *PLAIN[16:]))["model"] == "\ufffd"


@pytest.mark.parametrize("place", [0, 2, 6, 7, 12, 18])
def test_wrong_types(place: int) -> None:
    with pytest.raises(TypeError):
        access_line(*PLAIN[:place], object(), *PLAIN[place + 1 :])
