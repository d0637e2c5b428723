"""peek: the same verdict and the same facts as a real JSON parser."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import peek as oracle
from oracle.bodies import BODIES, NUMBERS
from penstock.ext import JsonError, peek

FACTS = ("model", "model_mistyped", "stream", "max_output_tokens", "user", "include_usage", "choices")

SNIPPETS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"0", b"01", b"-", b".", b"e",
    b"NaN",
    b"Infinity", b"-Infinity", b"null", b"tru", b"\x00", b"\n", b"\x1f", b"\x7f", b"\xff", b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"//", b"'", b"\x0b", b"\xc2\xa0",
]  # fmt: skip


def agree(body: bytes) -> None:
    expected = oracle.peek(body)
    if expected is None:
        with pytest.raises(JsonError, match=r"^expected .*, found .* at line \d+ column \d+$"):
            peek(body)
        return
    found = peek(body)
    assert [getattr(found, fact) for fact in FACTS] == [getattr(expected, fact) for fact in FACTS]
    values = [oracle.parse(b'{"model":' + body[start:end] + b"}") for start, end in found.model_spans]
    assert [value.last("model") for value in values if value] == expected.models


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_valid_bodies_give_the_facts_a_json_parser_finds(body: bytes) -> None:
    assert oracle.parse(body) is not None
    agree(body)


@settings(max_examples=100, deadline=None)
@given(BODIES, st.randoms(use_true_random=False))
def test_mutated_bodies_get_the_verdict_of_a_json_parser(body: bytes, chance: random.Random) -> None:
    for _ in range(20):
        mutant = bytearray(body)
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            at, end = sorted((chance.randint(0, len(mutant)), chance.randint(0, len(mutant))))
            match chance.randrange(4):
                case 0:
                    mutant[at:at] = chance.choice(SNIPPETS)
                case 1:
                    del mutant[at : at + 1]
                case 2:
                    mutant[at:at] = mutant[at:end][:30]
                case _:
                    mutant[at : at + 1] = bytes([chance.randrange(256)])
        agree(bytes(mutant))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=3), max_size=8).map(b"".join))
def test_noise_gets_the_verdict_of_a_json_parser(noise: bytes) -> None:
    agree(noise)
    agree(b'{"model":' + noise + b"}")
    agree(b'{"model":"' + noise + b'"}')


@pytest.mark.parametrize("number", NUMBERS)
def test_caps(number: str) -> None:
    agree(b'{"max_tokens":%s}' % number.encode())


@pytest.mark.parametrize("length", range(70))
def test_special_bytes_are_seen_at_every_place_in_a_string(length: int) -> None:
    for special in ["\\n", "\\\\", '\\"', "é", "\x7f", "\n", "\x00", "\x1f", '"']:
        agree(f'{{"model":"{"a" * length}{special}{"b" * 40}"}}'.encode())


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_read_to_1000_levels_and_no_deeper(opening: str, closing: str) -> None:
    def body(levels: int) -> bytes:
        return ('{"model":"m","x":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}").encode()

    assert peek(body(1000)).model == "m"
    with pytest.raises(JsonError, match="expected at most 1,000 levels of nesting"):
        peek(body(1001))
    with pytest.raises(JsonError):
        peek(opening.encode() * 1_000_000)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "expected a JSON object, found the end of the body at line 1 column 1"),
        (b" \n [1]", "expected a JSON object, found '[' at line 2 column 2"),
        (b"\xef\xbb\xbf{}", r"expected a JSON object, found '\u{feff}' at line 1 column 1"),
        ('{"é":é}'.encode(), "expected a value, found 'é' at line 1 column 6"),
        (
            b'{"a":\r\n"secret\n"}',
            "expected control characters in strings to be escaped, found byte 0x0a at line 2 column 8",
        ),
        (b'{"a":01}', "expected ',' or '}', found '1' at line 1 column 7"),
        (b'{"a":NaN}', "expected a value, found 'N' at line 1 column 6"),
        (b'{"a":1,}', "expected a key in quotes, found '}' at line 1 column 8"),
        (b'{"a":"b\xff"}', "expected UTF-8, found byte 0xff at line 1 column 8"),
        (b'{"a" "b\xff"}', "expected ':', found '\"' at line 1 column 6"),
        (b'{"a":"b', "expected a closing quote, found the end of the body at line 1 column 8"),
        (b"{} {", "expected the end of the body, found '{' at line 1 column 4"),
    ],
)  # fmt: skip
def test_errors_tell_the_place_and_not_the_text(body: bytes, error: str) -> None:
    with pytest.raises(JsonError) as raised:
        peek(body)
    assert str(raised.value) == error
    assert isinstance(raised.value, ValueError)


def test_the_last_of_duplicate_keys_counts_and_all_models_are_listed() -> None:
    body = rb'{"model":"a","stream":true,"\u006dodel" : "b\n","stream":1,"user":"u","user":null}'
    found = peek(body)
    assert (found.model, found.stream, found.user) == ("b\n", None, None)
    assert [body[start:end] for start, end in found.model_spans] == [b'"a"', rb'"b\n"']


def test_only_top_level_fields_count() -> None:
    body = b'{"messages":[{"model":"x","stream":true}],"x":{"max_tokens":1,"user":"u"},"include_usage":true}'
    found = peek(body)
    assert [getattr(found, fact) for fact in FACTS] == [None, False, None, None, None, False, 1]


def test_a_model_that_is_no_text_is_mistyped() -> None:
    for value in [b"null", b"7", b"{}", b'["m"]', rb'"\ud800"']:
        found = peek(b'{"model":' + value + b"}")
        assert (found.model, found.model_mistyped) == (None, True)
    assert not peek(b'{"model":7,"model":"m"}').model_mistyped


@pytest.mark.parametrize(
    ("body", "choices", "cap"),
    [
        (b'{"n":3,"best_of":5}', 5, None),
        (b'{"n":0,"best_of":null}', 1, None),
        (b'{"n":2.0,"n":"4"}', 1, None),
        (b'{"options":{"num_predict":-1}}', 1, None),
        (b'{"options":{"num_predict":0}}', 1, None),
        (b'{"options":{"num_predict":7,"n":9},"max_tokens":8}', 1, 7),
        (b'{"options":{"num_predict":7},"options":[7]}', 1, None),
    ],
)
def test_answers_and_the_cap_of_ollama(body: bytes, choices: int, cap: int | None) -> None:
    found = peek(body)
    assert (found.choices, found.max_output_tokens) == (choices, cap)
    agree(body)
