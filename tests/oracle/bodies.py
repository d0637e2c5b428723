"""Random JSON bodies: duplicate and escaped keys, odd numbers, lone surrogates, any white space."""

import json

from hypothesis import strategies as st

KEYS = [
    "model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens", "user", "stream_options",
    "include_usage", "messages", "n", "best_of", "options", "num_predict", "é", "",
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-0.0", "1", "-1", "10", "10.0", "1e1", "1E+1", "100e-1", "1.5", "1.5e1", "15e-1", "0e-999999",
    "9223372036854775807", "9223372036854775808", "1e18", "1e19", "1e400", "1e-400",
    "123456789012345678901e-3",
]  # fmt: skip
SPACE = st.sampled_from(["", "", "", " ", "\n", "\r\n\t "])


def escaped(text: str, every: int) -> str:
    """A JSON string with some of its characters as \\u escapes."""
    units = [json.dumps(text)[1:-1]] if not every else []
    for place, character in enumerate(text if every else ""):
        if place % every:
            units.append(json.dumps(character, ensure_ascii=False)[1:-1])
        else:
            wide = character.encode("utf-16-be", "surrogatepass").hex()
            units.extend(f"\\u{wide[at : at + 4]}" for at in range(0, len(wide), 4))
    return '"' + "".join(units) + '"'


STRINGS = st.builds(escaped, st.text(max_size=12) | st.sampled_from(KEYS), st.integers(0, 3))
LONE = st.sampled_from([r'"\ud800"', r'"\udfffx"', r'"\ud83d\ud83d\ude00"', r'"\uD83D\uDE00"'])
SCALARS = STRINGS | LONE | st.sampled_from([*NUMBERS, "true", "false", "null"])
KEY_TEXTS = st.builds(escaped, st.sampled_from(KEYS), st.sampled_from([0, 0, 0, 2])) | STRINGS


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(SPACE, KEY_TEXTS, SPACE, SPACE, values, SPACE), max_size=6)
    return members.map(
        lambda found: "{" + ",".join(f"{a}{key}{b}:{c}{value}{d}" for a, key, b, c, value, d in found) + "}"
    )


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=4).map(lambda found: "[" + ", ".join(found) + "]")


VALUES = st.recursive(SCALARS, lambda inner: objects(inner) | arrays(inner), max_leaves=12)
BODIES = st.builds(lambda a, body, b: f"{a}{body}{b}".encode("utf-8", "replace"), SPACE, objects(VALUES), SPACE)
