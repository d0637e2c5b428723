"""toml_spans: every key and element at its line and column."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ext import toml_spans

TEXT = """\
# a comment
listen = "127.0.0.1:8080"
cache.memory.bytes = 5
'quoted "key"' = 1

[server]
"größe" = { max = 3, "b c" = [1, { d = 2 }] }  # ä
names = [
  "one",
  "zwei",
]

[[backends]]
name = "first"
[backends.timeouts]
connect_s = 1.5

  [[backends]]
  name = "second"
"""

EXPECTED: dict[tuple[str | int, ...], tuple[int, int, int, int]] = {
    ("listen",): (2, 1, 2, 10),
    ("cache",): (3, 1, 3, 1),
    ("cache", "memory"): (3, 7, 3, 7),
    ("cache", "memory", "bytes"): (3, 14, 3, 22),
    ('quoted "key"',): (4, 1, 4, 18),
    ("server",): (6, 2, 6, 1),
    ("server", "größe"): (7, 1, 7, 11),
    ("server", "größe", "max"): (7, 13, 7, 19),
    ("server", "größe", "b c"): (7, 22, 7, 30),
    ("server", "größe", "b c", 0): (7, 31, 7, 31),
    ("server", "größe", "b c", 1): (7, 34, 7, 34),
    ("server", "größe", "b c", 1, "d"): (7, 36, 7, 40),
    ("server", "names"): (8, 1, 8, 9),
    ("server", "names", 0): (9, 3, 9, 3),
    ("server", "names", 1): (10, 3, 10, 3),
    ("backends",): (13, 3, 13, 1),
    ("backends", 0): (13, 1, 13, 1),
    ("backends", 0, "name"): (14, 1, 14, 8),
    ("backends", 0, "timeouts"): (15, 11, 15, 1),
    ("backends", 0, "timeouts", "connect_s"): (16, 1, 16, 13),
    ("backends", 1): (18, 3, 18, 3),
    ("backends", 1, "name"): (19, 3, 19, 10),
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every key and element a real TOML parser finds."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    return found.union(*(paths(inner, (*path, step)) for step, inner in steps))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_places(line_end: str) -> None:
    text = TEXT.replace("\n", line_end)
    assert {path: tuple(place) for path, *place in toml_spans(text)} == EXPECTED
    assert paths(tomllib.loads(text)) == set(EXPECTED)


def test_an_empty_text_has_no_keys() -> None:
    assert toml_spans("") == []
    assert toml_spans("# nothing\n") == []


@pytest.mark.parametrize(
    ("text", "place"), [("a = 1\nb = = 2\n", "line 2 column 5"), ('a = 1\n"é" = "ü" x', "line 2 column 11")]
)
def test_errors_tell_the_place(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        toml_spans(text)


KEYS = st.sampled_from(["a", "b", '"c d"', "'é'", "a.b", 'b . "x"'])
VALUES = st.recursive(
    st.sampled_from(["1", '"x\\n"', "'''\nx'''", "true", "1979-05-27", "1.5e3"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: "[" + ",\n ".join(found) + "]")
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda found: "{" + ", ".join(f"{key} = {value}" for key, value in found) + "}"
        )
    ),
    max_leaves=5,
)
LINES = st.one_of(
    st.tuples(KEYS, VALUES).map(" = ".join),
    KEYS.map("[{}]".format),
    KEYS.map("[[{}]]".format),
    st.just("# ö"),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=7).map("\n".join))
def test_the_paths_are_those_of_a_real_parser(text: str) -> None:
    try:
        expected = paths(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return  # TOML 1.1, which the spans are read by, allows more than 1.0
    found = toml_spans(text)
    assert {path for path, *_ in found} == expected
    assert len(found) == len(expected)
    lines = text.split("\n")
    for path, key_line, key_column, value_line, value_column in found:
        assert 1 <= key_line <= value_line <= len(lines)
        rest = lines[key_line - 1][key_column - 1 :]
        name = path[-1]
        assert isinstance(name, int) or rest.startswith((name, f'"{name}"', f"'{name}'"))
        assert lines[value_line - 1][value_column - 1 :]
