"""The query of GET /admin/usage: how to group, and over which time. Every mistake names its parameter."""

from datetime import UTC, datetime
from typing import Literal, get_args
from urllib.parse import parse_qsl

import msgspec

from penstock.core.errors import InvalidRequest
from penstock.core.nearest import suggestion

Grouping = Literal["user", "tenant", "key", "model", "endpoint", "backend", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
PARAMETERS = ("by", "since", "until", "key_id")
DAYS_S = 30 * 86_400
"""How far back a report reaches that does not say."""


class ReportRequest(msgspec.Struct, frozen=True):
    """Rows made in [since, until), epoch seconds. key_id: of this key alone."""

    by: Grouping
    since: float
    until: float
    key_id: str | None = None


def read_report_request(query: bytes, now_s: float) -> ReportRequest:
    """The query string as sent. Raises InvalidRequest."""
    given = _parameters(query)
    by = given.get("by", "day")
    if by not in GROUPINGS:
        raise InvalidRequest(f"by must be one of {', '.join(GROUPINGS)}{suggestion(by, GROUPINGS)}", param="by")
    until = _time("until", given["until"]) if "until" in given else now_s
    since = _time("since", given["since"]) if "since" in given else until - DAYS_S
    if since >= until:
        raise InvalidRequest("since must lie before until", param="since")
    return ReportRequest(by, since, until, given.get("key_id"))


def _parameters(query: bytes) -> dict[str, str]:
    try:
        # "+" is a space in a form, but in an offset such as +02:00 people mean the sign.
        pairs = parse_qsl(
            query.replace(b"+", b"%2B").decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16
        )
    except ValueError:
        raise InvalidRequest("the query is not readable: expected name=value pairs joined by &") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            shown = name[:100]
            raise InvalidRequest(f'unknown parameter "{shown}"{suggestion(name, PARAMETERS)}', param=shown)
        if name in given:
            raise InvalidRequest(f"{name} is there twice", param=name)
        given[name] = value
    return given


def _time(name: str, text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        # A day alone begins in UTC, as all windows here do; a time of day without offset could be any.
        if time.tzinfo is None and len(text) > len("2026-11-01"):
            raise ValueError
        at = time.replace(tzinfo=time.tzinfo or UTC).timestamp()
        if not 0 <= at < 253_370_764_800:  # 9999-01-01
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f'{name} must be a day such as "2026-11-01" or a time with its offset such as "2026-11-01T12:00:00Z"',
            param=name,
        ) from None
    return at
