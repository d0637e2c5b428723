"""What to do when an attempt fails: one table, read by `proxy/upstream/course.py`.

Rows are (phase, source) -> decision, and whether the request must be one that may be worked on twice. Three things
hold over every row: after a byte of the backend's has gone to the client nothing is tried again, a body that was
streamed through cannot be sent a second time, and `retry.attempts` counts all targets together.
"""

from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Literal

from penstock.core.errors import BackendError, BackendStatus, BackendTimeout, Phase

Source = Literal["stale", "lost", "timeout", "busy", "broken"]
"""Why an attempt failed: a pooled connection had died; the connection or the answer broke; it took too long; the
backend said that it cannot now; it said that it failed."""


class Decision(Enum):
    GIVE_UP = "give up"
    NEW_CONNECTION = "same target, new connection"
    OTHER_TARGET = "another target, this one never again"
    ANY_TARGET = "another target, and once all were tried this one again"


GIVE_UP, NEW_CONNECTION = Decision.GIVE_UP, Decision.NEW_CONNECTION
OTHER_TARGET, ANY_TARGET = Decision.OTHER_TARGET, Decision.ANY_TARGET

# A pooled connection that dies before a byte of answer says that the backend had closed it while it was idle: nobody's
# error, and the request was not worked on (RFC 9112 §9.3.1). Without a connection it was not worked on either. In all
# other rows it may have been, so the request must be one that only reads or computes.
# What took one target too long, or broke it, would take or break it again.
TABLE: dict[tuple[Phase, Source], tuple[Decision, bool]] = {
    ("connect", "lost"): (ANY_TARGET, False),
    ("connect", "timeout"): (OTHER_TARGET, False),
    ("send", "stale"): (NEW_CONNECTION, False),
    ("send", "lost"): (ANY_TARGET, True),
    ("send", "timeout"): (OTHER_TARGET, True),
    ("first_byte", "stale"): (NEW_CONNECTION, False),
    ("first_byte", "lost"): (ANY_TARGET, True),
    ("first_byte", "timeout"): (OTHER_TARGET, True),
    ("status", "busy"): (ANY_TARGET, True),
    ("status", "broken"): (OTHER_TARGET, True),
    ("body", "lost"): (ANY_TARGET, True),
    ("body", "timeout"): (OTHER_TARGET, True),
}

# "Not now": too many requests, bad gateway, unavailable, and Anthropic's overloaded.
BUSY = frozenset({429, 502, 503, 529})
# A backend that asks for more patience than this is not waited for; its answer goes to the client.
MOST_PATIENCE_S = 5.0


def is_failure(status: int) -> bool:
    """Whether an answer's status says that the backend failed; a caller's 4xx does not."""
    return status >= 500 or status == 429


def source_of(error: BackendError) -> Source:
    if error.stale:
        return "stale"
    if isinstance(error, BackendStatus):
        return "busy" if error.status in BUSY else "broken"
    return "timeout" if isinstance(error, BackendTimeout) else "lost"


def decide(error: BackendError, *, replayable: bool, repeatable: bool, attempt: int, attempts: int) -> Decision:
    """What follows `error`, before any byte of the backend's has gone to the client.

    replayable: the request's body is still held and can be sent again, or nothing of it has been sent.
    repeatable: it does no harm to have the request worked on twice.
    attempt: how many have been made, stale connections not counted; attempts: the most.
    """
    decision, harmless_only = TABLE.get((error.phase, source_of(error)), (GIVE_UP, True))
    if not replayable or (harmless_only and not repeatable):
        return GIVE_UP
    if attempt >= attempts and decision is not NEW_CONNECTION:
        return GIVE_UP
    return decision


def pause_s(rounds: int, backoff_ms: float, share: float, retry_after_s: float | None) -> float | None:
    """Seconds to wait before all targets are tried anew, for the `rounds`th time; None = too long, give up.

    Full jitter: a share (0 to 1, drawn at random) of a time that doubles with each round, or what the backend asks for.
    """
    if retry_after_s is None:
        return share * backoff_ms / 1000 * 2.0 ** (rounds - 1)
    return retry_after_s if retry_after_s <= MOST_PATIENCE_S else None


def read_retry_after(value: bytes | None, date: bytes | None) -> float | None:
    """Seconds a Retry-After (RFC 9110 §10.2.3) asks for; None if it says nothing that can be read.

    date: the answer's own Date, which a time of day counts from: the clocks of two hosts may differ.
    """
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime((date or b"").decode("latin-1"))
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError):  # TypeError: one of them has no time zone
        return None
