"""The slow, obvious twin of the http1 leaf: whole inputs, regular expressions, a rule a line."""

import ipaddress
import re
from dataclasses import dataclass

Lines = list[tuple[bytes, bytes]]

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
HEAD = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: " + TEXT + rb")?\r?\n((?:" + TOKEN + rb":" + TEXT + rb"\r?\n)*)\r?\n")
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;" + TEXT + rb")?\r\n")
TRAILERS = re.compile(rb"((?:[^\r\n]+\r\n)*)\r\n")
HOST = re.compile(r"(?:\[([^\]]*)\]|((?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+))(?::([0-9]*))?")

# RFC 9110 §7.6.1
HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
# What the proxy writes itself, or answers itself.
OURS = {
    *(b"host", b"content-length", b"expect", b"authorization", b"x-api-key", b"api-key", b"x-admin-key"),
    b"x-penstock-explain",
}


def elements(values: list[bytes]) -> list[bytes]:
    return [element.strip(b" \t").lower() for value in values for element in value.split(b",")]


def named(lines: Lines, name: bytes) -> list[bytes]:
    return [value for other, value in lines if other.lower() == name]


def first(values: list[bytes]) -> bytes | None:
    return values[0] if values else None


def media(content_type: bytes | None) -> int:
    if content_type is None:
        return 0
    essence = content_type.split(b";")[0].strip(b" \t").lower()
    if essence == b"application/json" or (essence.endswith(b"+json") and b"/" in essence):
        return 2
    return {b"text/event-stream": 3, b"application/x-ndjson": 4, b"multipart/form-data": 5}.get(essence, 1)


# --- requests ---


@dataclass
class Request:
    problem: str | None
    host: bytes
    origin: bytes | None
    media: int
    content_type: bytes | None
    content_length: int | None
    has_body: bool
    request_id: bytes | None
    api_key: bytes | None
    api_keys_disagree: bool
    admin_key: bytes | None
    forwarded_for: bytes | None
    user_agent: bytes | None


def api_keys(lines: Lines) -> list[bytes]:
    """All of them, in order."""
    keys = []
    for name, value in lines:
        if name.lower() == b"authorization":
            bearer = re.fullmatch(rb"bearer[ \t](.*)", value.strip(b" \t"), re.IGNORECASE | re.DOTALL)
            keys.append(bearer[1] if bearer else b"")
        elif name.lower() in (b"x-api-key", b"api-key"):
            keys.append(value)
    return [key.strip(b" \t") for key in keys if key.strip(b" \t")]


def is_valid_host(value: bytes) -> bool:
    match = HOST.fullmatch(value.decode("latin-1"))
    if not match:
        return False
    address, _, port = match.groups()
    if address is not None:
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            return False
        if "%" in address:
            return False
    return not port or int(port) <= 65535


def problem_of_line(lines: Lines, index: int) -> str | None:
    name, value = lines[index]
    name = name.lower()
    again = name in [earlier.lower() for earlier, _ in lines[:index]]
    if re.search(rb"[\r\n\0]", value):
        return "a header value has a CR, LF or NUL byte in it"
    if not re.fullmatch(TOKEN, name):
        return "a header name has a byte in it that names cannot have"
    if name == b"host" and again:
        return "more than one Host header"
    if name == b"host" and not is_valid_host(value):
        return "Host is not a valid host[:port]"
    if name == b"origin" and again:
        return "more than one Origin header"
    if name == b"content-length" and again:
        return "more than one Content-Length"
    if name == b"content-length" and not re.fullmatch(rb"[0-9]+", value):
        return "Content-Length is not a number"
    if name == b"content-length" and int(value) >= 2**64:
        return "Content-Length is too large"
    if name == b"transfer-encoding" and (again or value.lower() != b"chunked"):
        return "unsupported Transfer-Encoding"
    return None


def problem(lines: Lines) -> str | None:
    for index in range(len(lines)):
        if told := problem_of_line(lines, index):
            return told
    if not named(lines, b"host"):
        return "missing Host header"
    if named(lines, b"content-length") and named(lines, b"transfer-encoding"):
        return "both Content-Length and Transfer-Encoding"
    return None


def request(lines: Lines) -> Request:
    """The facts, which are right only where there is no problem."""
    told = problem(lines)
    length = first(named(lines, b"content-length"))
    content_type = first(named(lines, b"content-type"))
    keys = api_keys(lines)
    forwarded = named(lines, b"x-forwarded-for")
    return Request(
        problem=told,
        host=first(named(lines, b"host")) or b"",
        origin=first(named(lines, b"origin")),
        media=media(content_type),
        content_type=content_type,
        content_length=None if length is None or told else int(length),
        has_body=bool(named(lines, b"transfer-encoding")) or (not told and int(length or 0) > 0),
        request_id=first(named(lines, b"x-request-id")),
        api_key=first(keys),
        api_keys_disagree=len(set(keys)) > 1,
        admin_key=first(named(lines, b"x-admin-key")),
        forwarded_for=b", ".join(forwarded) if forwarded else None,
        user_agent=first(named(lines, b"user-agent")),
    )


def encode(lines: Lines, start: bytes, body_length: int, body: bytes, identity: bool) -> bytes:
    left_out = HOP_BY_HOP | OURS | set(elements(named(lines, b"connection")))
    if identity:
        left_out.add(b"accept-encoding")
    kept = [name + b": " + value + b"\r\n" for name, value in lines if name.lower() not in left_out]
    if identity:
        kept.append(b"accept-encoding: identity\r\n")
    if body_length == -2:
        kept.append(b"transfer-encoding: chunked\r\n")
    elif body_length >= 0:
        kept.append(b"content-length: %d\r\n" % body_length)
    return start + b"".join(kept) + b"\r\n" + body


# --- responses ---


class Refused(Exception):
    """The response breaks the rules, or is cut off."""


@dataclass
class Response:
    status: int
    headers: Lines
    media: int
    content_length: int | None
    encoded: bool
    retry_after: bytes | None
    answer: bytes
    marks: tuple[bool, bool, bool, bool]
    body: bytes
    may_reuse: bool


def response(data: bytes, head_request: bool = False, max_head_bytes: int = 65536) -> Response:
    """What a connection that brought `data` and then closed has answered."""
    version, status, lines, rest = final_head(data, max_head_bytes)
    length = declared_length(named(lines, b"content-length"))
    codings = named(lines, b"transfer-encoding")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise Refused("a coding that is not chunked")
    if codings and length is not None:
        raise Refused("two framings")

    until_close = False
    if head_request or status in (204, 304):
        body = b""
    elif codings:
        body, rest = chunked(rest)
    elif length is not None:
        body, rest = rest[:length], rest[length:]
        if len(body) < length:
            raise Refused("cut off")
    else:
        body, rest, until_close = rest, b"", True

    options = elements(named(lines, b"connection"))
    left_out = HOP_BY_HOP | set(options) - {b"content-length"}
    content_codings = elements(named(lines, b"content-encoding"))
    headers = [(name, value) for name, value in lines if name not in left_out]
    return Response(
        status=status,
        headers=headers,
        media=media(first(named(lines, b"content-type"))),
        content_length=length,
        encoded=any(coding not in (b"", b"identity") for coding in content_codings),
        retry_after=first(named(lines, b"retry-after")),
        answer=answer(status, headers),
        marks=marks({name for name, _ in headers}),
        body=body,
        may_reuse=not (rest or until_close or b"close" in options or version == b"0"),
    )


def answer(status: int, headers: Lines) -> bytes:
    """As a client gets it with the reason "Fine", the request id "r7", a date of ours, the end "\\r\\n" and a body."""
    lines = [(name, value) for name, value in headers if name != b"content-length"]
    names = {name for name, _ in lines}
    ours = {b"x-request-id": b"r7", b"date": b"now"}
    lines += [(name, value) for name, value in ours.items() if name not in names]
    text = b"".join(b"%s: %s\r\n" % line for line in lines)
    return b"HTTP/1.1 %d Fine\r\n%bcontent-length: 4\r\n\r\nbody" % (status, text)


def marks(names: set[bytes]) -> tuple[bool, bool, bool, bool]:
    """Whether there is a date, a request id, a line of CORS, one of rate limits."""
    limits = {b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset", b"ratelimit", b"ratelimit-policy"}
    cors = any(name.startswith(b"access-control-") for name in names)
    return b"date" in names, b"x-request-id" in names, cors, bool(names & limits)


def final_head(data: bytes, max_head_bytes: int) -> tuple[bytes, int, Lines, bytes]:
    while True:
        match = HEAD.match(data)
        if not match or match.end() > max_head_bytes:
            raise Refused("not a head, or too long")
        version, status, text = match[1], int(match[2]), match[3]
        data = data[match.end() :]
        lines = [line.rstrip(b"\r").split(b":", 1) for line in text.split(b"\n")[:-1]]
        if status < 100 or status == 101 or len(lines) > 256:
            raise Refused("a status that cannot be, or too many lines")
        if status >= 200:
            return version, status, [(name.lower(), value.strip(b" \t")) for name, value in lines], data


def declared_length(values: list[bytes]) -> int | None:
    if not values:
        return None
    texts = elements(values)
    if not all(re.fullmatch(rb"[0-9]+", text) and int(text) < 2**64 for text in texts):
        raise Refused("not a length")
    if len({int(text) for text in texts}) > 1:
        raise Refused("differing lengths")
    return int(texts[0])


def chunked(data: bytes) -> tuple[bytes, bytes]:
    """The payload, and what comes after the message."""
    payload = b""
    while True:
        line = SIZE_LINE.match(data)
        if not line or len(line[0]) - 1 > 1024 or int(line[1], 16) >= 2**64:
            raise Refused("not a size line, or too long, or too large")
        size, data = int(line[1], 16), data[line.end() :]
        if size == 0:
            break
        if data[size : size + 2] != b"\r\n":
            raise Refused("no line end after a chunk, or cut off")
        payload, data = payload + data[:size], data[size + 2 :]
    trailers = TRAILERS.match(data)
    if not trailers or len(trailers[1]) > 16384:
        raise Refused("not trailers, or too long, or cut off")
    return payload, data[trailers.end() :]
