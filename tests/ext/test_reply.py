"""ReplyScanner and scan_answer: the facts of recorded and made-up answers, however their bytes are cut."""

import itertools
import random
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import reply as oracle
from penstock.ext import (
    DIALECT_CHAT,
    DIALECT_MESSAGES,
    DIALECT_OLLAMA,
    DIALECT_RESPONSES,
    REPLY_COMPLETE,
    REPLY_ERROR,
    ReplyScanner,
    Usage,
    scan_answer,
)

STREAMS = Path(__file__).parents[1] / "golden" / "streams"
DIALECTS = {
    "chat": DIALECT_CHAT,
    "completions": DIALECT_CHAT,
    "responses": DIALECT_RESPONSES,
    "messages": DIALECT_MESSAGES,
    "ollama": DIALECT_OLLAMA,
}
DONE, ERROR, CUT = REPLY_COMPLETE, REPLY_ERROR, 0

GOLDEN = {
    "chat.sse": (DONE, None, "stop"),
    "chat-usage.sse": (DONE, (31, 12, 16, 4, 0.0), "stop"),
    "chat-cut.sse": (CUT, None, None),
    "chat-error.sse": (ERROR, None, None),
    "chat-crlf-vllm.sse": (DONE, (9, 4, 0, 0, 0.0), "length"),
    "chat-tools.sse": (DONE, None, "tool_calls"),
    "chat-ollama-usage.sse": (DONE, (27, 3, 0, 0, 0.0), "length"),
    "completions.sse": (DONE, None, "stop"),
    "responses.sse": (DONE, (37, 11, 5, 2, 0.0), "completed"),
    "responses-incomplete.sse": (DONE, (37, 11, 5, 2, 0.0), "incomplete"),
    "responses-failed.sse": (DONE | ERROR, None, "failed"),
    "responses-error.sse": (ERROR, None, None),
    "responses-cut.sse": (CUT, None, None),
    "messages.sse": (DONE, (132, 15, 100, 0, 0.0), "end_turn"),
    "messages-late-input.sse": (DONE, (130, 15, 100, 0, 0.0), "end_turn"),
    "messages-error.sse": (ERROR, (132, 1, 100, 0, 0.0), None),
    "messages-cut.sse": (CUT, (132, 15, 100, 0, 0.0), "end_turn"),
    "ollama-chat.ndjson": (DONE, (27, 6, 0, 0, 0.0), "length"),
    "ollama-generate.ndjson": (DONE, (27, 6, 0, 0, 0.0), "length"),
    "ollama-tools.ndjson": (DONE, (160, 22, 0, 0, 0.0), "stop"),
    "ollama-load.ndjson": (DONE, None, "load"),
    "ollama-cut.ndjson": (CUT, None, None),
    "ollama-error.ndjson": (ERROR, None, None),
}

Facts = tuple[int, oracle.Counts | None, str | None]


def dialect_of(name: str) -> int:
    return DIALECTS[name.partition(".")[0].partition("-")[0]]


def counts(usage: Usage | None) -> oracle.Counts | None:
    if usage is None:
        return None
    return (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.seconds,
    )


def scan(pieces: list[bytes], dialect: int) -> Facts:
    scanner = ReplyScanner(dialect)
    flags = [scanner.feed(piece) for piece in pieces]
    flags.append(scanner.finish())
    assert all(earlier & later == earlier for earlier, later in itertools.pairwise(flags))
    assert scanner.lines == len(re.findall(rb"\r\n|\r|\n", b"".join(pieces)))
    return (flags[-1], counts(scanner.usage), scanner.finish_reason)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(bounds)]


def slow(body: bytes, dialect: int) -> Facts:
    facts = oracle.scan_stream(body, dialect)
    return (facts.flags, facts.usage, facts.finish_reason)


def test_every_golden_stream_is_listed() -> None:
    assert sorted(GOLDEN) == sorted(path.name for path in STREAMS.iterdir())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_streams_give_the_same_facts_however_they_are_cut(name: str) -> None:
    body, dialect = (STREAMS / name).read_bytes(), dialect_of(name)
    assert scan([body], dialect) == GOLDEN[name]
    assert slow(body, dialect) == GOLDEN[name]
    assert scan([body[at : at + 1] for at in range(len(body))], dialect) == GOLDEN[name]
    for at in range(len(body) + 1):
        assert scan([body[:at], body[at:]], dialect) == GOLDEN[name], at


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.endswith(".sse")])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_line_ends_make_no_difference(name: str, line_end: bytes) -> None:
    body = b"\xef\xbb\xbf" + (STREAMS / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", line_end)
    for at in range(0, len(body) + 1, 3):
        assert scan([body[:at], body[at:]], dialect_of(name)) == GOLDEN[name], at


@pytest.mark.parametrize("name", [name for name, facts in GOLDEN.items() if facts[0] & DONE])
def test_a_stream_cut_anywhere_is_not_complete(name: str) -> None:
    body = (STREAMS / name).read_bytes().rstrip()
    for at in range(0, len(body), 7):
        assert not scan([body[:at]], dialect_of(name))[0] & DONE, at
    assert not scan([body[:-1]], dialect_of(name))[0] & DONE


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(GOLDEN)), st.lists(st.integers(0, 5000), max_size=12))
def test_golden_streams_in_many_pieces(name: str, places: list[int]) -> None:
    assert scan(cut((STREAMS / name).read_bytes(), places), dialect_of(name)) == GOLDEN[name]


USAGES = st.sampled_from(
    [
        "null", "{}", "7", '{"prompt_tokens":1}', '{"prompt_tokens":3.0,"completion_tokens":2e1}',
        '{"input_tokens":5,"output_tokens":6,"cache_read_input_tokens":2,"cache_creation_input_tokens":null}',
        '{"input_tokens":5,"input_tokens_details":{"cached_tokens":4},"output_tokens":-1}',
        '{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}',
        '{"prompt_tokens":9,"prompt_tokens":"x","completion_tokens":1}',
        '{"output_tokens":8,"usage":{"prompt_tokens":1}}', '{"type":"duration","seconds":3}',
        '{"seconds":1.5e0,"prompt_tokens":2}', '{"seconds":-1}', '{"seconds":1e999}', '{"seconds":"4"}',
    ]
)  # fmt: skip
MEMBERS = st.one_of(
    USAGES.map('"usage":{}'.format),
    USAGES.map('"u\\u0073age" : {}'.format),
    USAGES.map('"response":{{"status":"completed","usage":{}}}'.format),
    USAGES.map('"message":{{"usage":{},"stop_reason":null}}'.format),
    st.sampled_from(
        [
            '"duration":2.5', '"duration":"x"',
            '"error":null', '"error" : {"message":"x"}', '"error":"e"', '"done":true', '"done": false',
            '"done":"done"',
            '"type":"error"', '"type":"message_start"', '"type":"message_delta"', '"type":"message_stop"',
            '"type":"response.completed"', '"type":"response.failed"', '"type":"response.output_text.delta"',
            '"type":"message\\u005fstop"', '"choices":[{"finish_reason":"stop"}]',
            '"choices":[{"finish_reason":null}]',
            '"choices":[{"finish_reason":"a"},{"finish_reason": null},{"x":1}]', '"choices":[]',
            '"choices":null',
            '"choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":1}"}}]',
            '"choices":[1,"usage"]',
            '"done_reason":"stop"', '"prompt_eval_count":4', '"eval_count":5',
            '"delta":{"stop_reason":"end_turn"}',
            '"delta":{"usage":{"input_tokens":3},"text":"error"}', '"x":"[DONE]"', '"status":"queued"',
            '"status":null',
            '"stop_reason":"max_tokens"', '"finish_reason":"lost"', '"finish_reason":"\\ud800"',
        ]
    ),
)  # fmt: skip
OBJECTS = st.lists(MEMBERS, max_size=4).map(lambda members: "{" + ",".join(members) + "}")
TEXTS = OBJECTS | st.sampled_from(["[DONE]", "[DONE] ", "", "{", '{"usage"', "null", "[]", '"error"', "error"])
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\r"])
LINES = st.one_of(
    TEXTS.map("data: {}".format),
    TEXTS.map("data:{}".format),
    st.sampled_from(
        [
            "", "", "", ": comment", "event: error", "event:error", "event: message_stop",
            "event: response.completed",
            "event: message_start", "event:  error", "event", "event: x", "id: 1", "retry: 5", "data",
            " data: [DONE]",
            'data: {"usage"', "data: :", 'data: {"prompt_tokens":1}}', "\ufeffdata: [DONE]",
        ]
    ),
)  # fmt: skip
EVENTS = st.lists(st.tuples(LINES, ENDS, st.sampled_from([0, 1, 1, 1])), max_size=10).map(
    lambda lines: "".join(line + end * (1 + blank) for line, end, blank in lines).encode()
)
NDJSON = st.lists(st.tuples(TEXTS, ENDS), max_size=6).map(
    lambda lines: "".join(line + end for line, end in lines).encode()
)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.sampled_from([DIALECT_CHAT, DIALECT_RESPONSES, DIALECT_MESSAGES]), st.data())
def test_made_up_events_agree_with_the_slow_reader(body: bytes, dialect: int, data: st.DataObject) -> None:
    body = body[: len(body) - data.draw(st.sampled_from([0, 0, 0, 1, 2, 5]))]
    expected = slow(body, dialect)
    assert scan([body], dialect) == expected
    assert scan([body[at : at + 1] for at in range(len(body))], dialect) == expected
    places = data.draw(st.lists(st.integers(0, 1000), max_size=4))
    assert scan(cut(body, places), dialect) == expected


@settings(max_examples=200, deadline=None)
@given(NDJSON, st.lists(st.integers(0, 1000), max_size=4))
def test_made_up_lines_agree_with_the_slow_reader(body: bytes, places: list[int]) -> None:
    expected = slow(body, DIALECT_OLLAMA)
    assert scan([body], DIALECT_OLLAMA) == expected
    assert scan(cut(body, places), DIALECT_OLLAMA) == expected


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(sorted(set(DIALECTS.values()))))
def test_whole_answers_agree_with_the_slow_reader(text: str, dialect: int) -> None:
    answer = scan_answer(text.encode(), dialect)
    found = answer and (answer.complete, counts(answer.usage), answer.finish_reason)
    assert found == oracle.scan_answer(text.encode(), dialect)


@pytest.mark.parametrize(
    ("body", "dialect", "expected"),
    [
        (
            '{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-05]}],'
            '"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}',
            DIALECT_CHAT,
            (True, (8, 0, 0, 0, 0.0), None),
        ),
        ('{"model":"e","embeddings":[[0.1]],"prompt_eval_count":3}', DIALECT_OLLAMA, (True, (3, 0, 0, 0, 0.0),
        None)),
        ('{"choices":[{"finish_reason":null}],"usage":{"prompt_tokens":0}}',
        DIALECT_CHAT, (False, (0, 0, 0, 0, 0.0), None)),
        ('{"text":"a","usage":{"type":"duration","seconds":7}}', DIALECT_CHAT, (True, (0, 0, 0, 0, 7.0), None)),
        ('{"text":"a","duration":7.25,"usage":null}', DIALECT_CHAT, (True, (0, 0, 0, 0, 7.25), None)),
        ('{"choices":[],"duration":7.25}', DIALECT_CHAT, (True, None, None)),
        ('{"message":{"content":"cut"},"done":false}', DIALECT_OLLAMA, (False, None, None)),
        ('{"status":"incomplete","usage":{"input_tokens":4,"output_tokens":2}}', DIALECT_RESPONSES,
         (True, (4, 2, 0, 0, 0.0), "incomplete")),
        ('{"type":"message","stop_reason":"tool_use","usage":{"input_tokens":4,"output_tokens":2,'
         '"cache_read_input_tokens":10}}', DIALECT_MESSAGES, (True, (14, 2, 10, 0, 0.0), "tool_use")),
    ],
)  # fmt: skip
def test_whole_answers(body: str, dialect: int, expected: tuple[bool, object, str | None]) -> None:
    answer = scan_answer(body.encode(), dialect)
    assert answer is not None
    assert (answer.complete, counts(answer.usage), answer.finish_reason) == expected


@pytest.mark.parametrize("dialect", [DIALECT_CHAT, DIALECT_OLLAMA])
@pytest.mark.parametrize("excess", [0, 1])
def test_a_line_over_1_mib_is_passed_over(dialect: int, excess: int) -> None:
    prefix, tail = (b"data: ", b"\n\n") if dialect == DIALECT_CHAT else (b"", b"\n")
    fact = b'{"error":"e","x":""}'
    line = prefix + fact[:-2] + b"x" * (2**22 + excess - len(prefix) - len(fact)) + fact[-2:]
    end = b"data: [DONE]\n\n" if dialect == DIALECT_CHAT else b'{"done":true}\n'
    for pieces in ([line + tail + end], cut(line + tail + end, [7, 5000, 2**22 - 1, 2**22 + 1, 2**22 + 9])):
        assert scan(pieces, dialect)[0] == (DONE if excess else DONE | ERROR)


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_an_end_mark_too_long_to_read_counts_when_its_event_is_whole(end: bytes) -> None:
    head = b'event: response.completed\ndata: {"type":"response.completed","response":{"output":"'
    body = head + b"x" * 2**22 + b'"}}' + end
    expected = (DONE if end == b"\n\n" else CUT, None, None)
    assert slow(body, DIALECT_RESPONSES) == expected
    for pieces in ([body], cut(body, [30, 2**19, 2**22 + 50, len(body) - 1])):
        assert scan(pieces, DIALECT_RESPONSES) == expected


def test_nothing_after_the_end_mark_counts() -> None:
    after = b'data: {"error":{},"usage":{"prompt_tokens":1}}\n\n'
    assert scan([b"data: [DONE]\n\n" + after, after], DIALECT_CHAT) == (DONE, None, None)


def test_the_mark_needs_no_line_end_at_the_end_of_the_body() -> None:
    assert scan([b"data: [DONE]"], DIALECT_CHAT)[0] == DONE
    assert scan([b'{"done":true}'], DIALECT_OLLAMA)[0] == DONE


def test_data_lines_of_an_event_are_joined() -> None:
    body = b'data: {"usage"\ndata: :\ndata: {"prompt_tokens":\ndata: 4}}\n\n'
    assert all(scan([body[:at], body[at:]], DIALECT_CHAT)[1] == (4, 0, 0, 0, 0.0) for at in range(len(body)))


def test_unknown_dialects_are_refused() -> None:
    for dialect in (-1, 4):
        with pytest.raises(ValueError, match="DIALECT_"):
            ReplyScanner(dialect)
        with pytest.raises(ValueError, match="DIALECT_"):
            scan_answer(b"{}", dialect)


def test_one_scanner_may_be_fed_from_many_threads() -> None:
    scanner = ReplyScanner(DIALECT_CHAT)
    line = b'data: {"usage":{"prompt_tokens":2},"x":"%s"}\n\n' % (b"y" * 500)

    def feed() -> None:
        for _ in range(300):
            scanner.feed(line)

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(scanner.usage) == (2, 0, 0, 0, 0.0)


def test_random_bytes_do_no_harm() -> None:
    chance = random.Random(7)
    pieces = [chance.randbytes(chance.randrange(200)) for _ in range(300)]
    for dialect in set(DIALECTS.values()):
        assert scan(pieces, dialect) == slow(b"".join(pieces), dialect)
