"""The compiled leaves: bytes in, small values out. This file is the contract; stubtest compares it with the build.

Every class and function is safe to call from any thread and never counts on the GIL as its lock.
Offsets are byte offsets, half open: body[start:end].
"""

from collections.abc import Sequence
from typing import Any, Final, final

__all__ = [
    "BALANCE_LATENCY",
    "BALANCE_LEAST_IN_FLIGHT",
    "BALANCE_WEIGHTED",
    "BREAKER_CLOSED",
    "BREAKER_HALF_OPEN",
    "BREAKER_OPEN",
    "BUILD_PROFILE",
    "CACHE_EVICTIONS",
    "CACHE_HITS",
    "CACHE_MISSES",
    "CACHE_SHARED",
    "CACHE_STORED",
    "CLEAR_ALL",
    "CLEAR_MODEL",
    "CLEAR_TENANT",
    "COLUMNS",
    "DIALECT_CHAT",
    "DIALECT_MESSAGES",
    "DIALECT_OLLAMA",
    "DIALECT_RESPONSES",
    "FLAG_BACKEND",
    "FLAG_CACHED",
    "FLAG_ESTIMATED",
    "MEASURE_IN_FLIGHT",
    "MEASURE_LLM_REQUESTS",
    "MEASURE_NANO_USD",
    "MEASURE_REQUESTS",
    "MEASURE_TOKENS",
    "MEDIA_EVENT_STREAM",
    "MEDIA_JSON",
    "MEDIA_MULTIPART",
    "MEDIA_NDJSON",
    "MEDIA_NONE",
    "MEDIA_OTHER",
    "MESSAGE_BROKEN",
    "MESSAGE_DONE",
    "MESSAGE_DONE_CLOSE",
    "MESSAGE_OPEN",
    "OUTCOME_ANSWERED",
    "OUTCOME_CANCELLED",
    "OUTCOME_FAILED",
    "OUTCOME_LOST",
    "OUTCOME_REFUSED",
    "REPLY_COMPLETE",
    "REPLY_ERROR",
    "TAKE_FULL",
    "TAKE_NONE",
    "TAKE_PROBE",
    "UNLIMITED",
    "WINDOW_BUCKET",
    "WINDOW_DAY",
    "WINDOW_HOUR",
    "WINDOW_MONTH",
    "WINDOW_NONE",
    "Account",
    "Answer",
    "BackendCell",
    "Balancer",
    "CacheClears",
    "CacheEntry",
    "CacheStore",
    "Entry",
    "JsonError",
    "KeyHasher",
    "Limits",
    "LogLines",
    "Peek",
    "ProtocolError",
    "Quote",
    "Refusal",
    "ReplyScanner",
    "Request",
    "RequestHead",
    "RequestParser",
    "RequestRefused",
    "ResponseHead",
    "ResponseParser",
    "Rings",
    "Spool",
    "State",
    "StateFull",
    "TargetCell",
    "Targets",
    "Tariff",
    "Usage",
    "UsageRemover",
    "access_line",
    "cache_key",
    "multipart_field",
    "peek",
    "remote_input",
    "rewrite",
    "scan_answer",
    "share_values",
    "splice",
    "toml_spans",
]

_Headers = Sequence[tuple[bytes, bytes]]
"""Header lines as ASGI gives them: names in lower case, values without outer white space."""

BUILD_PROFILE: Final[str]
""""release" or "debug". The benchmarks refuse a debug build."""

class ProtocolError(ValueError):
    """A backend broke HTTP/1.1 (RFC 9112); the text says how. The connection cannot be used again."""

class RequestRefused(ValueError):
    """A request that cannot be read in one way only; args are (status, text): the HTTP status to answer (400, 431, 501,
    505) and words for the caller. Nothing after it on the connection can be trusted."""

class JsonError(ValueError):
    """A body is not a JSON object (RFC 8259); the text says what was expected, with line and column."""

# --- http1: heads and framing ---------------------------------------------------------------------

MEDIA_NONE: Final = 0
"""No Content-Type."""
MEDIA_OTHER: Final = 1
MEDIA_JSON: Final = 2
"""application/json or any type ending in +json."""
MEDIA_EVENT_STREAM: Final = 3
"""text/event-stream."""
MEDIA_NDJSON: Final = 4
"""application/x-ndjson."""
MEDIA_MULTIPART: Final = 5
"""multipart/form-data."""

@final
class RequestHead:
    """A client's request head, read once: strictness checks, the facts routing needs, and the head for a backend.

    The checks are those a server must make to agree with the backend on where a request ends
    (RFC 9112 §3.2, §6): exactly one valid Host, one Content-Length of digits only, never Content-Length
    together with Transfer-Encoding, and chunked as the only transfer coding.
    """

    def __new__(cls, headers: _Headers) -> RequestHead: ...
    @property
    def problem(self) -> str | None:
        """The first broken rule in words for the caller, or None."""
    @property
    def host(self) -> bytes:
        """The Host value as sent, b"" if there is none."""
    @property
    def origin(self) -> bytes | None: ...
    @property
    def media(self) -> int:
        """One of the MEDIA_ constants, from Content-Type."""
    @property
    def content_type(self) -> bytes | None: ...
    @property
    def content_length(self) -> int | None:
        """The declared length; None without one, also for a chunked body."""
    @property
    def has_body(self) -> bool:
        """A Content-Length above 0 or a Transfer-Encoding."""
    @property
    def request_id(self) -> bytes | None:
        """X-Request-ID as sent."""
    @property
    def api_key(self) -> bytes | None:
        """The first key of Authorization (Bearer, in any case; other schemes bring none), X-API-Key and api-key,
        without outer white space. An empty one is no key."""
    @property
    def api_keys_disagree(self) -> bool:
        """Two of those lines, of one name or of several, give different keys."""
    @property
    def admin_key(self) -> bytes | None:
        """The first X-Admin-Key as sent."""
    @property
    def forwarded_for(self) -> bytes | None:
        """All X-Forwarded-For lines as one list, joined by ", "."""
    @property
    def user_agent(self) -> bytes | None:
        """The first User-Agent as sent."""
    def encode(self, start: bytes, body_length: int, body: bytes = b"", identity: bool = False) -> bytes:
        """The request for a backend: `start`, the client's header lines, the framing line, a blank line, `body`.

        start: request line and our own header lines, each ended by CRLF.
        body_length: at least 0 = Content-Length of that value; -1 = no framing line; -2 = chunked.
        identity: `accept-encoding: identity` stands for the client's Accept-Encoding lines.
        Left out of the client's lines: hop-by-hop ones (RFC 9110 §7.6.1: Connection and every name it lists,
        Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE, Trailer, Transfer-Encoding,
        Upgrade), Host, Content-Length, Expect, X-Penstock-Explain, and credentials (Authorization, X-API-Key, api-key,
        X-Admin-Key).
        All else goes as sent, in order, repeated lines too.
        """

    def encode_changed(
        self,
        start: bytes,
        body: bytes,
        facts: Peek,
        model: bytes | None,
        ask_usage: bool,
        cap_name: bytes,
        cap: int,
        identity: bool,
    ) -> bytes:
        """`encode` of what `rewrite` makes of the body, in one piece. Raises ValueError as `rewrite`."""

@final
class ResponseHead:
    """A backend's final response head."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Lower-case names, in order, without hop-by-hop lines and Transfer-Encoding; Content-Length stays. One list,
        made when it is first asked for."""
    def answer(
        self,
        reason: bytes,
        request_id: bytes,
        standing: Entry | None,
        date: bytes,
        end: bytes,
        body: bytes,
        /,
    ) -> bytes:
        """The whole answer with this body: status line, `headers` without Content-Length, what a client of ours gets
        besides, `body`.

        request_id: the value for an answer that brings none; date: the same, as a line. standing: its header lines.
        end: what follows Content-Length, the empty line included.
        """
    @property
    def has_date(self) -> bool: ...
    @property
    def has_request_id(self) -> bool: ...
    @property
    def has_cors(self) -> bool:
        """Any Access-Control-*."""
    @property
    def has_rate_limits(self) -> bool:
        """X-RateLimit-Limit, -Remaining or -Reset, RateLimit or RateLimit-Policy."""
    @property
    def media(self) -> int: ...
    @property
    def content_length(self) -> int | None: ...
    @property
    def encoded(self) -> bool:
        """A Content-Encoding other than identity: the bytes cannot be scanned."""
    @property
    def retry_after(self) -> bytes | None: ...

MESSAGE_OPEN: Final = 0
"""More bytes belong to this response."""
MESSAGE_DONE: Final = 1
"""The response is whole and the connection may carry another request."""
MESSAGE_DONE_CLOSE: Final = 2
"""The response is whole and the connection must be closed (Connection: close, HTTP/1.0, bytes after the end)."""

MESSAGE_BROKEN: Final = 3
"""The bytes returned with this are good, those behind them break HTTP; `feed_eof` raises how."""

@final
class ResponseParser:
    """The client side of HTTP/1.1 for one connection, a response at a time. Any split of the bytes gives the same.

    Framing by RFC 9112 §6.3: no body for HEAD, 204 and 304; chunked (extensions and trailers dropped);
    Content-Length (repeated equal values count as one, differing ones are an error, as is one beside
    Transfer-Encoding); else until close. Interim 1xx responses are skipped, 101 is an error.
    """

    def __new__(cls, max_head_bytes: int = 65536) -> ResponseParser: ...
    def expect(self, head_request: bool = False) -> None:
        """Begin a new response; head_request: it answers a HEAD and has no body."""
    def feed(self, data: bytes) -> tuple[ResponseHead | None, bytes, int]:
        """Take what the socket gave: (head if it became complete now, body bytes without framing, MESSAGE_).

        Where `data` is nothing but body bytes it is returned itself, not copied. Raises ProtocolError.
        """
    def feed_eof(self) -> int:
        """The backend closed: MESSAGE_DONE_CLOSE if the body was delimited by that. Raises ProtocolError otherwise."""

@final
class Request:
    """A client's request line and head, read strictly."""

    @property
    def method(self) -> str:
        """As sent."""
    @property
    def path(self) -> bytes:
        """What stands before "?", escapes as sent; of an absolute-form target its path, "/" if it has none."""
    @property
    def query(self) -> bytes:
        """What stands after "?", b"" if nothing."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """All lines: lower-case names, in order, values without outer white space (what ASGI's scope wants)."""
    @property
    def head(self) -> RequestHead:
        """What RequestHead(headers) gives, read in the same pass; its `problem` is always None."""
    @property
    def http10(self) -> bool: ...
    @property
    def keep_alive(self) -> bool:
        """HTTP/1.1 without Connection: close, or HTTP/1.0 with Connection: keep-alive (close wins over both)."""
    @property
    def expects_continue(self) -> bool:
        """Expect: 100-continue on HTTP/1.1."""

@final
class RequestParser:
    """The server side of HTTP/1.1 for one connection, a request at a time. Any split of the bytes gives the same.

    Refused with 400: whatever RequestHead calls a problem, Transfer-Encoding in HTTP/1.0, lines that end in LF alone,
    folded lines, white space before a colon, control bytes, a target with "#" or bytes outside 0x21 to 0x7E, one that
    is neither a path nor an http(s) URL of the host in Host (nor * for OPTIONS), and a broken chunked body. With 431:
    a head over max_head_bytes (empty lines before it not counted) or of more than max_headers lines (256 at most).
    With 501: CONNECT. With 505: versions other than 1.1 and 1.0.
    """

    def __new__(cls, max_head_bytes: int = 65536, max_headers: int = 128) -> RequestParser: ...
    def feed(self, data: bytes) -> tuple[Request | None, bytes, int]:
        """(request if its head became whole now, body bytes without framing, MESSAGE_OPEN or MESSAGE_DONE).

        Where `data` is nothing but body bytes it is returned itself, not copied. After MESSAGE_DONE further bytes are
        kept until `next`; feeding more when over 64 KiB are kept is refused. Raises RequestRefused.
        """
    def next(self) -> tuple[Request | None, bytes, int]:
        """The request before is answered: go on with what was kept, like `feed` of those bytes.

        Before MESSAGE_DONE of a body it raises RequestRefused: there is no next request.
        """
    @property
    def pending(self) -> bool:
        """Bytes of a head that is not whole yet, or kept bytes, are here: the client has begun a request. Empty lines
        are not one."""

# --- hash: how a key is stored ------------------------------------------------------------------------

@final
class KeyHasher:
    """HMAC-SHA-256 (RFC 2104) under one secret. Keys are 256 random bits, so nothing slower is called for."""

    def __new__(cls, secret: bytes) -> KeyHasher:
        """Raises ValueError for an empty secret."""
    def digest(self, key: bytes) -> bytes:
        """32 bytes. The work depends on the length of the key only."""
    def digest_of(self, head: RequestHead, longest: int) -> bytes | None:
        """The digest of the credential of a request; None if it has none, two that differ, or one of more bytes."""

# --- json: what routing and limits read, and what they change -----------------------------------------

@final
class Peek:
    """The top-level fields of a request body that routing and limits need. Of duplicate keys the last counts."""

    @property
    def model(self) -> str | None:
        """None if absent or not a string."""
    @property
    def model_mistyped(self) -> bool:
        """There is a "model" and it is not a string."""
    @property
    def model_spans(self) -> list[tuple[int, int]]:
        """Where the values of every top-level "model" stand, quotes included."""
    @property
    def stream(self) -> bool | None:
        """None if absent or not a boolean."""
    @property
    def max_output_tokens(self) -> int | None:
        """The least of max_tokens, max_completion_tokens and max_output_tokens that are non-negative integers, and of
        options.num_predict if positive (Ollama takes 0 for no cap). Of each answer: there may be several `choices`."""
    @property
    def choices(self) -> int:
        """How many answers are asked for: the greater of n and best_of, at least 1."""
    @property
    def user(self) -> str | None: ...
    @property
    def include_usage(self) -> bool:
        """stream_options.include_usage is true."""

def peek(body: bytes) -> Peek:
    """Read a JSON object's facts, checking the whole of it (syntax, UTF-8, numbers; any depth up to 1,000).

    Raises JsonError for anything that is not one JSON object.
    """

def splice(body: bytes, edits: Sequence[tuple[int, int, bytes]]) -> bytes:
    """`body` with each [start, end) replaced; edits in rising order, not overlapping. Raises ValueError otherwise."""

def rewrite(body: bytes, facts: Peek, model: bytes | None, ask_usage: bool, cap_name: bytes, cap: int) -> bytes:
    """`body` with changes, every other byte as it was. Of duplicate keys the last is changed, of "model" each.

    facts: what `peek` said of this very body.
    model: JSON text that takes the place of the model; None leaves it.
    ask_usage: make stream_options.include_usage true; "stream_options" that is no object becomes one.
    cap_name: b"max_tokens", b"max_completion_tokens", b"max_output_tokens" or b"options.num_predict", which is made
    `cap` whatever it was; b"" changes none. Members that are not there are added at the end.
    Raises ValueError for other names, and for facts that cannot be those of the body.
    """

def remote_input(body: bytes) -> bool:
    """Whether the input refers to something elsewhere, so that the length of the body does not bound it: a URL other
    than data:, a stored file, prompt, item or audio, an earlier response or conversation.

    It may err to True, never to False. One pass over the body; what is not a JSON object is True.
    """

def multipart_field(prefix: bytes, content_type: bytes, name: bytes) -> tuple[int, int] | None:
    """Where the value of form field `name` stands in the first bytes of a multipart/form-data body (RFC 7578).

    None when the field is not there or does not end within `prefix`, or the boundary is missing.
    """

# --- reply: reading along a model's answer -----------------------------------------------------------

DIALECT_CHAT: Final = 0
"""OpenAI chat and completions: ends with data: [DONE]; usage at top level."""
DIALECT_RESPONSES: Final = 1
"""OpenAI responses: ends with response.completed, .failed or .incomplete; usage in "response"."""
DIALECT_MESSAGES: Final = 2
"""Anthropic messages: ends with message_stop; usage in message_start and message_delta."""
DIALECT_OLLAMA: Final = 3
"""Ollama's NDJSON: ends with a line "done": true, which carries the counts."""

@final
class Usage:
    """Tokens as the backend counted them. prompt_tokens includes the cached ones, completion_tokens the reasoning."""

    def __new__(
        cls,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        seconds: float = 0.0,
    ) -> Usage: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def seconds(self) -> float:
        """Of audio: usage.seconds, or "duration" of a whole answer without "choices" (DIALECT_CHAT); 0.0 if not told.
        A usage may tell seconds and no tokens."""

@final
class Quote:
    """What the tokens of a request cost: at most, and in fact, in nano-USD, rounded up. Prices are in pico-USD a token.

    margin: tokens a server adds to a prompt. context: the longest prompt, None = not known; it bounds a request's input
    unless that is a batch. image: tokens of an image a body brings along. remote: tokens of input that is not in the
    body (remote_input) where the context is not known. longest: the longest answer of the model, None = not known;
    unknown_longest: what counts as that, 0 = answers have no tokens that are paid for. most_tokens, most_nano_usd: no
    result is above these.
    """

    def __new__(
        cls,
        *,
        input_pico: int,
        cached_pico: int,
        output_pico: int,
        reasoning_pico: int,
        margin: int,
        context: int | None,
        batch: bool,
        image: int,
        remote: int,
        longest: int | None,
        unknown_longest: int,
        most_tokens: int,
        most_nano_usd: int,
    ) -> Quote: ...
    def worst(self, body: bytes, choices: int, cap: int) -> tuple[int, int]:
        """(tokens, nano-USD) a request with this body can need at most. cap: the most tokens of one answer."""
    def cost(self, usage: Usage) -> int:
        """What was used."""

@final
class Tariff:
    """What the requests of one plan are booked under, and by which quote they are reckoned.

    tells_usage: a stream tells its usage only where stream_options.include_usage asks for it.
    """

    def __new__(cls, route: bytes, model: bytes, quote: Quote, tells_usage: bool) -> Tariff: ...

REPLY_COMPLETE: Final = 1
"""Flag: the end mark of the dialect was seen."""
REPLY_ERROR: Final = 2
"""Flag: the backend reported an error inside the stream."""

@final
class ReplyScanner:
    """Reads along a streamed reply without changing it. Any split of the bytes gives the same facts.

    Lines over 4 MiB are passed over, so memory is bounded. (Ollama's last generate line carries the context: some
    6 bytes a token.)
    """

    def __new__(cls, dialect: int) -> ReplyScanner: ...
    def feed(self, data: bytes) -> int:
        """Take the next bytes of the body; the REPLY_ flags so far."""
    def finish(self) -> int:
        """The body has ended: a last line without line end counts as one; the REPLY_ flags."""
    @property
    def flags(self) -> int:
        """The REPLY_ flags so far."""
    @property
    def lines(self) -> int:
        """How many lines have ended so far (in LF, CRLF or CR), empty ones and those after the end mark too."""
    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish_reason(self) -> str | None: ...

@final
class UsageRemover:
    """A chat or completions stream without the chunk that stream_options.include_usage adds. Any split of the bytes
    gives the same.

    Removed are events whose data is a JSON object with an empty array "choices" and an object "usage"; all else goes
    on byte for byte. Events over 4 MiB go on unread, so memory is bounded.
    """

    def __new__(cls) -> UsageRemover: ...
    def feed(self, data: bytes) -> bytes:
        """What goes on now: whole events, and nothing of an event whose end (an empty line) has not come.

        Where that is `data` and nothing else, `data` itself is returned, not copied.
        """
    def finish(self) -> bytes:
        """The body has ended: the event that has not."""

@final
class Answer:
    """What a whole (not streamed) JSON answer says of itself."""

    @property
    def complete(self) -> bool:
        """Chat and completions: every choice has a finish_reason; responses: status is completed, failed or
        incomplete (or there is none); messages: stop_reason is set; Ollama: "done" is not false."""
    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish_reason(self) -> str | None: ...

def scan_answer(body: bytes, dialect: int) -> Answer | None:
    """Read a whole answer; None if it is not a JSON object."""

# --- shared: limits, budgets and usage rows that all processes share -----------------------------------
# now_ns is the monotonic clock of the boot, wall_ns the time since 1970 in UTC; both are read by the caller.

MEASURE_REQUESTS: Final = 0
MEASURE_LLM_REQUESTS: Final = 1
"""Those that reached a backend."""
MEASURE_TOKENS: Final = 2
MEASURE_NANO_USD: Final = 3
"""Money in 10**-9 USD."""
MEASURE_IN_FLIGHT: Final = 4

WINDOW_BUCKET: Final = 0
"""A token bucket (GCRA) over period_ns on the monotonic clock; its burst is the amount."""
WINDOW_HOUR: Final = 1
WINDOW_DAY: Final = 2
WINDOW_MONTH: Final = 3
"""Calendar windows in UTC. Their index never goes back: an older clock counts on in the window that was reached."""
WINDOW_NONE: Final = 4
"""In flight: what is taken is given back."""

UNLIMITED: Final = -1
"""The amount of a meter: counted, never refused. Not for buckets."""

OUTCOME_ANSWERED: Final = 0
OUTCOME_REFUSED: Final = 1
OUTCOME_FAILED: Final = 2
OUTCOME_CANCELLED: Final = 3
OUTCOME_LOST: Final = 4
"""The process died before the request ended."""

FLAG_CACHED: Final = 1
"""The answer came from the cache."""
FLAG_ESTIMATED: Final = 2
"""The usage is an estimate."""
FLAG_BACKEND: Final = 4
"""A backend was reached: the LLM request counts."""

COLUMNS: Final[tuple[str, ...]]
"""The names of what a row of Rings.take holds, in order."""

_Limits = Sequence[tuple[bytes, int, int, int, int, int]]
"""(name, cell, MEASURE_, WINDOW_, period_ns, amount or UNLIMITED). cell: 64 bits that say what is counted; limits with
the same cell share it. period_ns counts for buckets only. Raises ValueError for what makes no sense."""

class StateFull(Exception):
    """The table of limits has no room for another cell."""

@final
class State:
    """What all processes of one state_dir share: the cells of all limits, and a few facts, in one mapped file."""

    def __new__(cls, path: str, boot_id: bytes, cells: int = 262144) -> State:
        """Opens the file, or makes it for `cells` cells (32 bytes each, rounded up to a power of two).

        One that is not ours, not whole, or of another boot is made anew. Raises OSError.
        """
    @property
    def fresh(self) -> bool:
        """Made now: everything counts from 0."""
    def seed(self, cell: int, window: int, wall_ns: int, amount: int) -> None:
        """Sets a calendar cell to an amount used in the window of wall_ns. Raises StateFull."""
    def used(self, cell: int, window: int, wall_ns: int) -> int:
        """What a calendar or in-flight cell counts. Raises ValueError for a bucket: see Account.standing."""
    @property
    def keys_generation(self) -> int: ...
    def bump_keys(self) -> int:
        """Raises keys_generation by one; the new one."""
    @property
    def note(self) -> bytes:
        """What the keeper last said, at most 512 bytes (ValueError); b"" at first. Always one whole note."""
    @note.setter
    def note(self, note: bytes) -> None: ...
    def beat(self, now_ns: int) -> None:
        """The keeper lives."""
    @property
    def beaten_ns(self) -> int:
        """When it last said so; 0 = never."""
    def sweep(self, now_ns: int, wall_ns: int) -> int:
        """Frees the cells that equal new ones, calendar ones two hours after their window; how many. Raises OSError."""
    @property
    def cells_used(self) -> int: ...
    def reconcile(self, folder: str) -> int:
        """Lowers in-flight cells to what the open records of all rings in the folder hold; how many were lowered.

        A process that is killed within the nanoseconds of changing a cell leaves it one too high. Raises OSError.
        """

@final
class Limits:
    """A few limits that are taken all or nothing, without a record: not for in flight."""

    def __new__(cls, state: State, limits: _Limits) -> Limits: ...
    def take(self, now_ns: int, wall_ns: int) -> int:
        """Takes 1 of each and returns 0, or takes nothing and returns the ns until it can. Raises StateFull."""

@final
class Account:
    """A principal: at most 16 limits and meters, and the names its rows carry."""

    def __new__(
        cls, state: State, limits: _Limits, key_id: bytes, tenant_id: bytes, user_id: bytes, tier: bytes
    ) -> Account: ...
    @property
    def has_tokens(self) -> bool:
        """A limit, not only a meter, counts tokens."""
    @property
    def has_money(self) -> bool:
        """A limit, not only a meter, counts money."""
    def standing(self, now_ns: int, wall_ns: int) -> list[tuple[bytes, int, int, int, int, int]]:
        """(name, MEASURE_, WINDOW_, amount, used, ns until its window ends or the bucket is full) of all, in order.

        Takes nothing. In flight, which has no window, the last is 0. used can be above the amount: a request that
        used more than its worst case.
        """

@final
class Refusal:
    """Why a request was not admitted. Nothing was taken."""

    @property
    def index(self) -> int:
        """Which limit of the account refuses for longest; one that always will before all others."""
    @property
    def wait_ns(self) -> int:
        """Until it would admit; 1 s where it is in flight that refuses; 0 where nothing helps."""
    @property
    def never(self) -> bool:
        """The worst case is above the amount itself."""
    @property
    def tokens(self) -> int:
        """What the request would have needed."""
    @property
    def nano_usd(self) -> int:
        """What the request would have needed."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """As Entry.headers, of the limit that refused."""
    @property
    def header_lines(self) -> bytes:
        """The same as lines, like Entry.header_lines."""

@final
class Spool:
    """A worker's ring of usage records, in a file that survives the worker. Owned by flock for the life of this."""

    def __new__(cls, folder: str, state: State, records: int = 65536) -> Spool:
        """Claims a ring that nobody owns and settles what a dead owner left, or makes one (1 KiB a record).

        Make it in the process that uses it: a fork shares the ownership, and must not write. Raises OSError.
        """
    @property
    def number(self) -> int: ...
    @property
    def recovered(self) -> int:
        """Records of a dead owner that were settled at the claim."""
    @property
    def free(self) -> int:
        """Free records. Looks at all."""
    def admit(
        self,
        account: Account,
        route: bytes,
        model: bytes,
        request_id: bytes,
        tokens: int,
        nano_usd: int,
        now_ns: int,
        wall_ns: int,
    ) -> Entry | Refusal | None:
        """Takes from all the account's limits or none: 1 request, 1 LLM request, 1 in flight, `tokens`, `nano_usd`.

        None: the ring is full, nobody drains it. Texts that are too long for the record are cut at a character
        (model: 160 bytes, request id: 128). Raises StateFull, OSError.
        """
    def admit_by(
        self,
        account: Account,
        tariff: Tariff,
        request_id: bytes,
        facts: Peek,
        body: bytes,
        tier: int | None,
        now_ns: int,
        wall_ns: int,
    ) -> Entry | Refusal | None:
        """As `admit`, with what the tariff says that the request needs at most; an account that limits neither tokens
        nor money needs none of them.

        facts: what `peek` said of this body. tier: the longest answer the key may ask for, None = any.
        """
    def admit_hit(
        self, account: Account, tariff: Tariff, request_id: bytes, now_ns: int, wall_ns: int
    ) -> Entry | Refusal | None:
        """As `admit_by`, for an answer that needs no backend: only 1 request and 1 in flight."""
    def book(self, account: Account, route: bytes, model: bytes, request_id: bytes, wall_ns: int) -> Entry | None:
        """A record that holds nothing, for a request that was not admitted. None: the ring is full."""

@final
class Entry:
    """An open record. One that is dropped without `close` stays open, and is booked as lost once its process ends."""

    @property
    def output_cap(self) -> int:
        """The cap to be written into the request for its worst case to hold; 0 = none."""
    @property
    def ask_usage(self) -> bool:
        """The request has to ask for its usage."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """x-ratelimit-limit, -remaining, -reset (epoch s) and ratelimit of the tightest limit, ratelimit-policy of all
        (draft-ietf-httpapi-ratelimit-headers-10), as they stood at admission; [] without limits."""
    @property
    def header_lines(self) -> bytes:
        """The same, ready to be written: each "name: value" CRLF; b"" without limits."""
    def settle(
        self,
        quote: Quote,
        usage: Usage,
        backend: str,
        status: int,
        attempts: int,
        started: float,
        first_byte: float,
        ended: float,
        log: LogLines | None,
        wall_ns: int,
        request_id: bytes,
        head: RequestHead,
        method: str,
        path: bytes,
        route: str,
        model: str | None,
        ip: str,
        /,
    ) -> int:
        """`close` of a request that was simply answered, and its access line (see `access_line`) to `log`: both ends of
        nearly every request in one call. Returns its cost in nano-USD by `quote`. Times in s of one clock."""
    def close(
        self,
        outcome: int,
        status: int,
        backend: bytes,
        usage: Usage | None,
        nano_usd: int,
        flags: int,
        ms: float,
        ttft_ms: float,
        error: bytes,
    ) -> None:
        """Settles what is held by what was used (tokens: prompt + completion; None = nothing), and closes the record.

        The LLM request is given back without FLAG_BACKEND. What was held in a window that has passed stays there.
        outcome: OUTCOME_; flags: of FLAG_; ms and ttft_ms: negative or nan = not known. backend is cut at 64 bytes,
        error at 255. A second call does nothing.
        """

@final
class Rings:
    """The drainer's view of a spool's folder: one process at a time may have one."""

    def __new__(cls, folder: str, state: State) -> Rings: ...
    def take(self, limit: int) -> list[tuple[int | float | str | None, ...]]:
        """At most `limit` closed records, about as many of each ring, as rows in the order of COLUMNS.

        Empty texts and times not known are None; created_at is text in UTC, outcome a word. The same ones come again
        until `free`; ids never repeat, so a row that is stored twice can be told. Rings without a living owner are
        settled first. Raises OSError.
        """
    def free(self) -> None:
        """The rows of the last `take` are stored: their records are free again."""
    @property
    def waiting(self) -> int:
        """Records closed and not freed."""
    @property
    def open(self) -> int: ...
    @property
    def capacity(self) -> int:
        """Records of all rings."""
    @property
    def owned(self) -> int:
        """Rings with a living owner."""

def share_values(
    rows: Sequence[tuple[Any, ...]], shared: Sequence[int], chunk: int
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What rows share told apart from their own, so that a database is given what they share once.

    shared: the places of values that many have in common, at most 16. The first result has each combination of these
    once, its number before it; values are the same if they are one object, so equal ones may come twice. The second
    has all other values of `chunk` rows, row behind row, each with its number at its end; rows that fill no chunk are
    left out. Raises ValueError for rows of different lengths.
    """

# --- targets: what all processes know of the backends ------------------------------------------------
# now_ns is the monotonic clock of the boot. Nothing here waits for anybody; random is 64 bits of chance.

BALANCE_LEAST_IN_FLIGHT: Final = 0
"""Least (in flight + 1) / weight, over all processes; by chance among equals."""
BALANCE_WEIGHTED: Final = 1
"""By chance, as often as the weights say."""
BALANCE_LATENCY: Final = 2
"""Of two by chance the lower latency * (in flight + 1) / weight. One that is idle and not measured, or may only be
probed, goes first; with another that is not measured only the rest is compared. A latency counts half after each
minute without another, so none is avoided for ever."""

TAKE_FULL: Final = -1
"""Where it may go all places are taken, or others wait for them: wait in line."""
TAKE_NONE: Final = -2
"""There is nowhere it may go: all are avoided, drained, or open."""
TAKE_PROBE: Final = 64
"""Added to the index of a member that is taken as the probe of its breaker: index % TAKE_PROBE is the member."""

BREAKER_CLOSED: Final = 0
BREAKER_OPEN: Final = 1
BREAKER_HALF_OPEN: Final = 2
"""A probe may go, or is out."""

@final
class Targets:
    """Who is busy, who waits and what is broken, of all backends and targets, for all processes of one state_dir.

    Each process opens it after its fork, and has a slot of its own: what it held is taken away when it is no more.
    """

    def __new__(cls, path: str, boot_id: bytes, backends: int = 512, targets: int = 4096) -> Targets:
        """Opens the file, or makes it with room for so many; "" = memory of its own, which no other process has.

        One that is not ours, not whole, or of another boot is made anew. Its locks are files in a folder beside it,
        `.slots` instead of `.shm`. Raises OSError, also when 256 processes have a slot.
        """
    @property
    def slot(self) -> int: ...
    def backend(self, id: int) -> BackendCell:
        """The cell of a backend by its 64-bit id, made if there is none. Raises StateFull, OSError.

        When all are in use or were, one that no process has any more, and that is not drained, is made new.
        """
    def target(self, id: int) -> TargetCell:
        """The cell of a target by its 64-bit id, likewise."""
    def sweep(self) -> int:
        """Takes away what processes held that are no more: places, who waits, probes. Of how many. Raises OSError."""
    def lead(self) -> bool:
        """Tries to be, or to stay, the one process that leads (it checks health). Raises OSError."""
    @property
    def generation(self) -> int: ...
    def bump(self) -> int:
        """Raises generation by one, which says to all that something in the folder changed; the new one."""
    @property
    def waiting(self) -> int:
        """Requests in line, of all processes."""
    def join_line(self, key: int) -> int:
        """A tag, at least 1, for a request of this key (64 bits of its id), which waits from now on. Lower goes first.

        To keep the line within a bound: join, look at waiting, leave if it is too many.
        """
    def leave_line(self, tag: int) -> None:
        """It was served or is gone: it waits no more."""
    def served(self, tag: int) -> None:
        """One with this tag got its place: who comes from now on has no lower one."""
    def ahead(self, tag: int) -> int:
        """About how many wait with lower tags in other processes; the own ones are not counted."""

@final
class BackendCell:
    """A backend, as all processes see it."""

    @property
    def id(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def drained(self) -> bool:
        """It gets no new requests."""
    @drained.setter
    def drained(self, drained: bool) -> None: ...
    @property
    def down(self) -> bool:
        """Its health check failed: it is taken only where no other may be."""
    @down.setter
    def down(self, down: bool) -> None: ...
    def wait(self, lowest_tag: int, count: int) -> None:
        """Says to all how many of this process wait here, and their lowest tag; (0, 0) = nobody.

        Others with higher tags, and newcomers, find no place here meanwhile: say it only where one could be taken.
        """

@final
class TargetCell:
    """A backend and the name a model has there, as all processes see it."""

    @property
    def id(self) -> int: ...
    @property
    def latency_ns(self) -> int:
        """The mean time to an answer's head, the last counting most (a quarter); 0 = not measured.

        A failure doubles it, to at least 1 ms (1 s if it is the first that is known) and at most 60 s.
        """
    @property
    def failures_in_row(self) -> int: ...
    def breaker(self, now_ns: int) -> int:
        """One of the BREAKER_ constants."""
    def window(self, now_ns: int) -> tuple[int, int]:
        """(requests, failures) of the window that ends now, within a tenth of it; while it is closed."""
    def retry_in_ns(self, now_ns: int) -> int:
        """While it is open: until a probe may go; else 0."""
    def probe_early(self) -> bool:
        """A check could connect: if it is open because nobody could, a probe may go at once. True if this did it."""
    def reset(self) -> None:
        """Closed, and nothing known, as at first."""

@final
class Balancer:
    """The targets one request may go to, and which of them it takes."""

    def __new__(
        cls,
        targets: Targets,
        members: Sequence[tuple[BackendCell, TargetCell, int, int]],
        balance: int,
        breaker: tuple[int, float, int, int, int],
    ) -> Balancer:
        """members: at most 64 (backend, target, weight, max_in_flight); weight from 1 to 10**6, max_in_flight 0 = none.
        breaker: (failures in a row, failure ratio, window_ns, min_requests in it, recovery_ns); 0 failures or ratio:
        it does not open by that. Raises ValueError.
        """
    def take(self, now_ns: int, random: int, avoid: int = 0, tag: int = 0) -> int:
        """The index of the member whose place is taken now, + TAKE_PROBE if as its probe, or TAKE_FULL or TAKE_NONE.

        Give it as it is to answered, failed and release. avoid: a mask of members. tag: of one in line; 0 = none,
        who finds no place where others wait. One that is down is taken only if no other may be.
        """
    def take_idle(self, now_ns: int, random: int, avoid: int) -> int:
        """Likewise, but only one that is closed and not down and has nobody in flight or in line; else TAKE_NONE."""
    def release(self, index: int) -> None:
        """The place is free again. A probe that told nothing is given back: another may go."""
    def answered(self, index: int, now_ns: int, latency_ns: int) -> bool:
        """It answered, so long after it was sent. True: this closed its breaker.

        While the breaker is not closed only its probe tells.
        """
    def failed(
        self, index: int, now_ns: int, connect: bool = False, late: bool = False, taken_ns: int | None = None
    ) -> bool:
        """It failed. True: this opened its breaker (a probe: again).

        connect: no connection could be made, or it was broken off. late: it was told as answered, and did not end what
        it began; it is no further request of the window. taken_ns: when it took its place, None = now; one from before
        the breaker closed tells of the time before, and counts for nothing.
        """
    def retry_in_ns(self, now_ns: int) -> int:
        """Until the first breaker of those not drained lets one through; 0 = one does. A probe that is out: 1 s."""
    def full(self, now_ns: int, avoid: int = 0) -> int:
        """A mask of the members whose place one may wait for: where to say so by BackendCell.wait."""
    def view(self, now_ns: int) -> list[tuple[bool, str, int, int, int, int, int, int]]:
        """Of each member: (usable, why not, in flight, waiting, BREAKER_, failures in row, retry_in_ns, latency_ns).

        why: "" | "drained" | "open" | "half_open" (its probe is out) | "full" | "down".
        """

# --- the cache: answers kept for requests that mean the same ---------------------------------------
# now_ns is one monotonic clock of the worker; 0 is before all that is stored.

CACHE_HITS: Final = 0
CACHE_MISSES: Final = 1
CACHE_EVICTIONS: Final = 2
CACHE_SHARED: Final = 3
CACHE_STORED: Final = 4

CLEAR_ALL: Final = 0
CLEAR_MODEL: Final = 1
CLEAR_TENANT: Final = 2

def cache_key(body: bytes, scope: bytes, model: bytes) -> bytes:
    """32 bytes (BLAKE3), the same for bodies that mean the same, within one scope and for one model.

    Members are taken sorted by key, of equal keys the last one, strings without their escapes (half of a surrogate pair
    stays one), numbers by exact decimal value (1 = 1.0 = 10e-1, -0 = 0; one whose exponent has more than 18 digits only
    equals itself as it is spelt), without white space. The outermost stream, stream_options, user, metadata and model
    do not count. The body must be a JSON object, as for `peek`. Raises JsonError.
    """

@final
class CacheClears:
    """What all workers of one state_dir know of the cache: clears, figures, how full it is.

    Each worker opens it after its fork, and has a slot of its own.
    """

    def __new__(cls, path: str, boot_id: bytes) -> CacheClears:
        """path "" = memory of its own, which no other process sees. The folder must be there. Raises OSError."""
    def clear(self, kind: int, name: bytes = b"") -> int:
        """Every store of every worker forgets all (name does not count), a model's or a tenant's entries before it is
        used again. The new generation. kind: CLEAR_. Raises OSError."""
    @property
    def generation(self) -> int:
        """How many clears there were."""
    def count(self, model: bytes, what: int, n: int = 1) -> None:
        """what: CACHE_. A store counts its hits, misses (if told the model), evictions and what it stored itself."""
    def figures(self) -> list[tuple[bytes, int, int, int, int, int]]:
        """(model, hits, misses, evictions, shared, stored) over all workers, also those that are no more.

        Of the first 256 models (names cut at 160 bytes); all others together under b"".
        """
    @property
    def entries(self) -> int:
        """Over all workers; a dead one's count until `sweep`."""
    @property
    def bytes(self) -> int: ...
    def sweep(self) -> int:
        """Takes away the entries and bytes of processes that are no more; of how many. Raises OSError."""

@final
class CacheStore:
    """A worker's part of the cache: S3-FIFO by bytes. Makes no copy of what it gives, only of what is read."""

    def __new__(cls, max_bytes: int, clears: CacheClears, max_entry_bytes: int) -> CacheStore:
        """max_bytes: all memory it ever takes, its index and ghosts too (about 2.7 %); it is taken as it is used.

        max_entry_bytes: a head and chunks of more are not stored.
        """
    @property
    def max_bytes(self) -> int: ...
    def get(
        self,
        key: bytes,
        now_ns: int,
        model: bytes | None = None,
        stored_from_ns: int = 0,
        fresh_until_ns: int = 0,
    ) -> CacheEntry | None:
        """The entry of a key (32 bytes of a hash) that has not expired, was stored at stored_from_ns or later, and is
        fresh until fresh_until_ns at least.

        Counts a hit for its model; if there is none, a miss for `model`, None = nothing. Raises ValueError.
        """
    def put(
        self,
        key: bytes,
        model: bytes,
        tenant: bytes,
        head: bytes,
        chunks: Sequence[bytes],
        kind: int,
        now_ns: int,
        ttl_ns: int,
        since: int | None = None,
    ) -> bool:
        """Stores an answer, in place of an older one of that key. kind: any number below 2**32, given back as it is.

        since: `generation` of the clears when the answer was asked for: one that a later clear meant is not stored.
        False: not stored, as it is too big, ttl_ns is 0, or those being read leave no room. Raises ValueError.
        """
    def facts(self, limit: int) -> list[tuple[bytes, bytes, int, int, int]]:
        """(key, model, stored_ns, expires_ns, hits) of at most `limit` entries that were stored or found since they
        were last told here, the one that changed first first."""
    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int:
        """In blocks of 512 bytes; also what is evicted and still read. Never above max_bytes."""

@final
class CacheEntry:
    """A stored answer. Its bytes stay as long as this lives, evicted or not: let it go when it is read."""

    @property
    def head(self) -> bytes: ...
    @property
    def kind(self) -> int: ...
    @property
    def stored_ns(self) -> int: ...
    @property
    def expires_ns(self) -> int: ...
    def age_ns(self, now_ns: int) -> int: ...
    @property
    def hits(self) -> int:
        """How often it was found until now."""
    @property
    def chunks(self) -> int: ...
    def chunk(self, index: int) -> bytes:
        """One of them. Cheap for the next one, dear for one before it. Raises IndexError."""
    def body(self) -> bytes:
        """All of them, joined."""

# --- log: the line of a request ------------------------------------------------------------------------

@final
class LogLines:
    """Log lines on their way to the writer."""

    def __new__(cls) -> LogLines: ...
    def push(self, line: bytes) -> None:
        """Append a line, LF at its end."""
    def take(self) -> tuple[bytes, int]:
        """All that is there, which then is gone from here, and how many lines it is."""

def access_line(
    timestamp: str,
    level: str,
    request_id: bytes,
    method: str,
    path: bytes,
    route: str,
    status: int,
    started: float,
    ended: float,
    first_byte: float,
    ip: str,
    user_agent: bytes | None,
    key_id: str | None,
    user_id: str | None,
    tenant_id: str | None,
    model: str | None,
    backend: str | None,
    attempts: int,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    cost_nano: int,
    fault: str | None,
    error: str | None,
    detail: str | None,
    /,
) -> bytes:
    """A JSON object and LF: timestamp, level, message, service, requestId, method, url, route, status, duration, ip,
    userAgent, firstByte, keyId, userId, tenantId, model, backend, attempts, promptTokens, completionTokens, costUsd,
    fault, error, detail. What is None is left out, but for userAgent, which is "".

    Bytes are Latin-1; a str with half a surrogate pair becomes U+FFFD. started, ended, first_byte: s of one clock; the
    line has ms from `started`, to 3 digits as round() makes them. Left out too: firstByte for 0.0, costUsd for 0, of
    the ids and the backend "", attempts without backend.
    """

# --- toml: where things stand in a configuration file ------------------------------------------------

def toml_spans(text: str) -> list[tuple[tuple[str | int, ...], int, int, int, int]]:
    """Of every key in a valid TOML text: (path, key line, key column, value line, value column), counted from 1.

    Path elements are key names, and indexes in arrays (of tables too). Raises ValueError if it does not parse.
    """
