"""multipart_field: form fields as clients write them, and only whole ones."""

import email.parser
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ext import multipart_field

FORM = b"multipart/form-data; boundary=XX"


def part(disposition: bytes, value: bytes, boundary: bytes = b"XX", more: bytes = b"") -> bytes:
    return b"--%s\r\nContent-Disposition: %s\r\n%s\r\n%s\r\n" % (boundary, disposition, more, value)


def find(body: bytes, name: bytes = b"model", content_type: bytes = FORM) -> bytes | None:
    span = multipart_field(body, content_type, name)
    return None if span is None else body[span[0] : span[1]]


SPEECH = b'form-data; name="file"; filename="speech.mp3"'
FILE = part(SPEECH, b"\x00\xff\r\n\r\nID3", more=b"Content-Type: audio/mpeg\r\n")
MODEL = part(b'form-data; name="model"', b"whisper-1")
END = b"--XX--\r\n"


def test_fields_before_and_after_a_file() -> None:
    assert find(MODEL + FILE + END) == b"whisper-1"
    assert find(FILE + MODEL + END) == b"whisper-1"
    assert find(FILE + END) is None
    assert find(FILE + MODEL + END, b"file") is None


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/form-data; boundary="XX"',
        b"multipart/form-data;boundary=XX",
        b"Multipart/Form-Data; charset=utf-8 ; BOUNDARY=XX ; x=y",
        b'multipart/form-data; a="; boundary=YY"; boundary=XX',
        b'multipart/form-data; boundary="X\\X"',
    ],
)
def test_boundary_spellings(content_type: bytes) -> None:
    expected = None if b"\\" in content_type else b"whisper-1"
    assert find(MODEL + END, content_type=content_type) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        b"", b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary",
        b"multipart/mixed; boundary=XX", b"application/json; boundary=XX",
        b"multipart/form-data; boundary=" + b"X" * 71,
    ],
)  # fmt: skip
def test_no_boundary(content_type: bytes) -> None:
    assert find(MODEL + END, content_type=content_type) is None


@pytest.mark.parametrize(
    "disposition",
    [
        b"form-data; name=model", b'form-data;name="model"', b'FORM-DATA ; NAME = "model"',
        b'form-data; x="name=\\"no\\""; name="model"', b'form-data;\r\n name="model"',
        b'form-data; name="mod\\"el"',
    ],
)  # fmt: skip
def test_name_spellings(disposition: bytes) -> None:
    name = b'mod"el' if b"mod\\" in disposition else b"model"
    assert find(part(disposition, b"m") + END, name) == b"m"


@pytest.mark.parametrize(
    "disposition",
    [
        b'form-data; name="model"; filename="x"', b"form-data; name=model; filename=",
        b'form-data; filename="name=model"',
        b"form-data; name=model; filename*=utf-8''x", b'form-data; name="Model"', b"form-data",
        b'form-data; names="model"',
    ],
)  # fmt: skip
def test_what_is_not_the_field(disposition: bytes) -> None:
    assert find(part(disposition, b"m") + END) is None


def test_preamble_padding_empty_values_and_first_match() -> None:
    assert find(b"preamble\r\n--XXX\r\n" + MODEL + END) == b"whisper-1"
    assert find(MODEL.replace(b"--XX\r\n", b"--XX \t\r\n") + END) == b"whisper-1"
    assert find(part(b"form-data; name=model", b"") + END) == b""
    assert find(MODEL + part(b"form-data; name=model", b"second") + END) == b"whisper-1"
    assert find(part(b"form-data; name=model", b"a\r\n--XXY\r\nb") + END) == b"a\r\n--XXY\r\nb"
    assert find(b"--XX--\r\n" + MODEL + END) is None


def test_a_part_without_an_empty_line_has_no_value() -> None:
    broken = b"--XX\r\nContent-Disposition: form-data; name=model\r\n"
    assert find(broken + FILE + END) is None
    assert find(broken + MODEL + END) == b"whisper-1"
    assert find(b"--XX\r\n" + MODEL + END) == b"whisper-1"


def test_a_value_counts_when_its_end_is_seen() -> None:
    body = FILE + MODEL + END
    whole = len(FILE + MODEL) + len(b"--XX--")
    assert find(body[:whole]) == b"whisper-1"
    assert all(find(body[:length]) is None for length in range(whole))


NAMES = st.text("abc m=;:-", min_size=1, max_size=8)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(NAMES, st.text("ab-X\r\n:", max_size=10), st.booleans()), min_size=1, max_size=4))
def test_agrees_with_the_mime_parser_of_python(parts: list[tuple[str, str, bool]]) -> None:
    body = b""
    for name, value, is_file in parts:
        disposition = f'form-data; name="{name}"' + '; filename="f"' * is_file
        body += part(disposition.encode(), b"|%s|" % value.encode(), b"frontier")
    body += b"--frontier--\r\n"
    content_type = b"multipart/form-data; boundary=frontier"
    message = email.parser.BytesParser(policy=email.policy.compat32).parsebytes(
        b"Content-Type: " + content_type + b"\r\n\r\n" + body
    )
    for name, _, _ in parts:
        expected = [
            found.get_payload(decode=True)
            for found in message.get_payload()
            if found.get_param("name", header="content-disposition") == name and found.get_filename() is None
        ]
        assert find(body, name.encode(), content_type) == (expected[0] if expected else None)


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_noise_does_no_harm(noise: bytes, content_type: bytes) -> None:
    assert find(b"--XX\r\n" + noise) is None or b"--XX" in noise
    multipart_field(noise, content_type, b"model")
