"""UsageRemover: a stream without the chunk of usage, however its bytes are cut."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import reply as oracle
from penstock.ext import UsageRemover

STREAMS = Path(__file__).parents[1] / "golden" / "streams"
GOLDEN = sorted(STREAMS.glob("*.sse"))
CHUNK = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'

TEXTS = st.sampled_from(
    [
        '{"choices":[],"usage":{}}', '{"choices":[],"usage":{"prompt_tokens":1}}',
        '{"\\u0075sage":{"a":1},"choices":[ ]}',
        '{"choices":[],"usage":null}', '{"choices":[{}],"usage":{}}', '{"choices":null,"usage":{}}', '{"usage":{}}',
        '{"choices":[],"usage":{}', '{"choices":[],', '"usage":{}}', '{"choices":[{}],"choices":[],"usage":{"x":[1]}}',
        "[DONE]", "", "null",
    ]
)  # fmt: skip
LINES = st.one_of(
    TEXTS.map("data: {}".format),
    TEXTS.map("data:{}".format),
    st.sampled_from(
        ["", "", ": comment", "event: x", "id: 1", "data", "\ufeff", '\ufeffdata: {"choices":[],"usage":{}}']
    ),
)
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
EVENTS = st.lists(st.tuples(LINES, ENDS, st.sampled_from([0, 1, 1])), max_size=10).map(
    lambda lines: "".join(line + end * (1 + blank) for line, end, blank in lines).encode()
)


def remove(pieces: list[bytes]) -> bytes:
    remover = UsageRemover()
    passed = [remover.feed(piece) for piece in pieces]
    return b"".join(passed) + remover.finish()


@settings(max_examples=400, deadline=None)
@given(EVENTS, st.lists(st.integers(0, 1000), max_size=4))
def test_made_up_events_agree_with_the_twin(body: bytes, places: list[int]) -> None:
    expected = oracle.without_usage(body)
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    assert remove([body]) == expected
    assert remove([body[at : at + 1] for at in range(len(body))]) == expected
    assert remove([body[start:end] for start, end in itertools.pairwise(bounds)]) == expected


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(0, 1000))
def test_whole_events_go_on_at_once(body: bytes, place: int) -> None:
    head = body[: place % (len(body) + 1)]
    whole, _ = oracle.whole_events(head)
    passed = UsageRemover().feed(head)
    assert passed == oracle.without_usage(b"".join(whole))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_recorded_streams(path: Path, end: bytes) -> None:
    body = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", end)
    added = body.replace(b"data: [DONE]", CHUNK + end + end + b"data: [DONE]")
    expected = oracle.without_usage(body)
    assert (expected == body) == (path.name not in ("chat-usage.sse", "chat-ollama-usage.sse"))
    for at in range(0, len(added) + 1, 5):
        assert remove([added[:at], added[at:]]) == expected


def test_what_goes_on_whole_is_not_copied() -> None:
    remover = UsageRemover()
    for data in (b"data: [DONE]\n\n", b": ping\r\n\r\n", b'data: {"choices":[{}],"usage":{}}\n\n'):
        assert remover.feed(data) is data


def test_the_unfinished_event_is_held_and_given_back() -> None:
    remover = UsageRemover()
    assert remover.feed(b"data: a\n\n" + CHUNK) == b"data: a\n\n"
    assert remover.feed(b"\n") == b""
    assert remover.finish() == CHUNK + b"\n"
    assert remover.finish() == b""


@pytest.mark.parametrize("excess", [0, 1])
def test_memory_is_bounded(excess: int) -> None:
    event = CHUNK + b" " * (2**22 + excess - len(CHUNK) - 2) + b"\n\n"
    step = 2**20 - 1
    expected = event if excess else b""
    assert remove([event]) == expected
    assert remove([event[at : at + step] for at in range(0, len(event), step)]) == expected
