"""rewrite: the changes asked for, in a body that otherwise stays as it was; remote_input: what its length bounds."""

import difflib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle import peek as oracle
from oracle import remote_input as remote_oracle
from oracle import rewrite as twin
from oracle.bodies import BODIES, SPACE, VALUES, arrays, escaped
from penstock.ext import RequestHead, peek, remote_input, rewrite

CAPS = ["", "max_tokens", "max_completion_tokens", "max_output_tokens", "options.num_predict"]
USAGE = b'"stream_options":{"include_usage":true}'

CHANGED = st.sampled_from(["model", "stream_options", "options", "max_tokens", "max_output_tokens"])
INNER = st.sampled_from(["include_usage", "num_predict", "x"])


def members(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(SPACE, st.builds(escaped, names, st.sampled_from([0, 0, 2])), SPACE, values, SPACE)
    return st.lists(member, max_size=4).map(
        lambda found: "{" + ",".join(f"{a}{key}:{b}{value}{c}" for a, key, b, value, c in found) + "}"
    )


CONCERNED = members(CHANGED, st.sampled_from(["null", '"m"', "7", "[]"]) | members(INNER, VALUES)).map(str.encode)


@settings(max_examples=250, deadline=None)
@given(CONCERNED | BODIES, st.none() | st.text(max_size=5), st.booleans(), st.sampled_from(CAPS), st.integers(0, 2**63))
def test_the_changes_are_those_a_json_parser_would_make(
    body: bytes, model: str | None, ask_usage: bool, cap_name: str, cap: int
) -> None:
    before = oracle.parse(body)
    assert before is not None
    model_json = None if model is None else json.dumps(model).encode()
    changed = rewrite(body, peek(body), model_json, ask_usage, cap_name.encode(), cap)
    assert oracle.parse(changed) == twin.rewritten(before, model, ask_usage, cap_name, cap)
    assert json.loads(changed) is not None
    head = RequestHead([(b"host", b"a"), (b"accept-encoding", b"gzip")])
    encoded = head.encode_changed(
        b"POST / HTTP/1.1\r\n", body, peek(body), model_json, ask_usage, cap_name.encode(), cap, True
    )
    assert encoded == head.encode(b"POST / HTTP/1.1\r\n", len(changed), changed, True)
    if model is None and not ask_usage and not cap_name:
        assert changed == body


@settings(max_examples=200, deadline=None)
@given(CONCERNED, st.sampled_from(CAPS))
def test_it_is_changed_once_only(body: bytes, cap_name: str) -> None:
    changed = rewrite(body, peek(body), b'"n"', True, cap_name.encode(), 5)
    assert rewrite(changed, peek(changed), b'"n"', True, cap_name.encode(), 5) == changed
    assert peek(changed).include_usage


@settings(max_examples=200, deadline=None)
@given(CONCERNED)
def test_bytes_that_are_not_concerned_stay(body: bytes) -> None:
    changed = rewrite(body, peek(body), None, True, b"max_tokens", 5)
    steps = difflib.SequenceMatcher(None, body, changed, autojunk=False).get_opcodes()
    assert sum(end - start for step, start, end, _, _ in steps if step == "equal") >= len(body) - replaced(body)


def replaced(body: bytes) -> int:
    """At most the length of the last values that give way."""
    found = json.loads(body)
    options = found.get("stream_options")
    inner = options.get("include_usage") if isinstance(options, dict) else options
    given_way = [value for value in (inner, found.get("max_tokens")) if value is not None]
    return len(body) if given_way else 2 * len("null")


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b"{}", b"{" + USAGE + b"}"),
        (b'{"a":1 }\n', b'{"a":1,' + USAGE + b" }\n"),
        (b'{"stream_options":null,"a":1}', b"{" + USAGE + b',"a":1}'),
        (b'{"stream_options":{"include_usage": false}}', b'{"stream_options":{"include_usage": true}}'),
        (b'{"stream_options":{"x":"}"}}', b'{"stream_options":{"x":"}","include_usage":true}}'),
        (b"{" + USAGE + b"}", b"{" + USAGE + b"}"),
    ],
)
def test_usage_is_asked_for(body: bytes, changed: bytes) -> None:
    assert rewrite(body, peek(body), None, True, b"", 0) == changed


@pytest.mark.parametrize(
    ("cap_name", "body", "changed"),
    [
        (b"max_tokens", b'{"m":"\xc3\xa9"}', b'{"m":"\xc3\xa9","max_tokens":64}'),
        (b"max_completion_tokens", b'{"max_completion_tokens": null,"a":1}', b'{"max_completion_tokens": 64,"a":1}'),
        (b"max_output_tokens", b'{"max_output_tokens":-1}', b'{"max_output_tokens":64}'),
        (b"options.num_predict", b'{"a":1}', b'{"a":1,"options":{"num_predict":64}}'),
        (b"options.num_predict", b'{"options":{"num_ctx":1}}', b'{"options":{"num_ctx":1,"num_predict":64}}'),
        (b"options.num_predict", b'{"options":{"num_predict":-1}}', b'{"options":{"num_predict":64}}'),
        (b"max_tokens", b'{"max_tokens":1,"max_tokens":null}', b'{"max_tokens":1,"max_tokens":64}'),
    ],
)
def test_a_cap_is_written(cap_name: bytes, body: bytes, changed: bytes) -> None:
    assert rewrite(body, peek(body), None, False, cap_name, 64) == changed


def test_facts_of_another_body_and_unknown_caps_are_refused() -> None:
    facts = peek(b'{"model":"a long name","max_tokens":null}')
    with pytest.raises(ValueError, match="facts are not those of this body"):
        rewrite(b'{"model":"m"}', facts, b'"n"', False, b"", 0)
    with pytest.raises(ValueError, match="facts are not those of this body"):
        rewrite(b"[]", facts, None, True, b"", 0)
    with pytest.raises(ValueError, match="cap_name"):
        rewrite(b"{}", peek(b"{}"), None, False, b"max", 0)


REFERRING = st.sampled_from(
    [
        "image_url", "url", "file_url", "file_id", "previous_response_id", "conversation", "prompt", "id", "audio",
        "input", "type", "role", "x",
    ]
)  # fmt: skip
REFERENCES = st.recursive(
    st.sampled_from(['"data:image/png;base64,AA"', '"https://a"', '"item_reference"', '"message"', "null", "7", '"a"']),
    lambda inner: members(REFERRING, inner) | arrays(inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(members(REFERRING, REFERENCES).map(str.encode) | BODIES)
def test_references_are_found_where_a_json_parser_finds_them(body: bytes) -> None:
    found, expected = remote_input(body), remote_oracle.remote_input(body)
    # A data: spelt with escapes may count as another URL.
    assert found == expected or (found and b"\\u" in body)


@pytest.mark.parametrize(
    ("body", "remote"),
    [
        (b'{"messages":[{"content":[{"image_url":{"url":"https://a"}}]}]}', True),
        (b'{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA"}}]}]}', False),
        (b'{"input":[{"content":[{"type":"input_image","image_url":"http://a"}]}]}', True),
        (b'{"input":[{"content":[{"type":"input_file","file_id":"f"}]}]}', True),
        (b'{"previous_response_id":"r"}', True),
        (b'{"previous_response_id":null,"conversation":null}', False),
        (b'{"conversation":{"id":"c"}}', True),
        (b'{"prompt":{"id":"p"}}', True),
        (b'{"prompt":"file_id url"}', False),
        (b'{"messages":[{"content":"look at https://a, \\"url\\":\\"https://b\\""}]}', False),
        (b'{"tools":[{"parameters":{"properties":{"url":{"type":"string"}}}}]}', False),
        (b'{"messages":[{"role":"assistant","audio":{"id":"a"}}]}', True),
        (b'{"input":[{"id":"m"}]}', True),
        (b'{"input":[{"id":"m","type":"message"}]}', False),
        (b"[]", True),
        (b"\xff", True),
    ],
)
def test_remote_input(body: bytes, remote: bool) -> None:
    assert remote_input(body) is remote
    assert remote_oracle.remote_input(body) is remote


def test_nesting_does_not_use_up_the_stack() -> None:
    assert remote_input(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}") is False
    assert remote_input(b'{"a":' + b"[" * 1_000_000) is True
