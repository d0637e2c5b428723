"""The query of a usage report: its defaults, and every mistake with its parameter."""

import pytest

from penstock.core.errors import InvalidRequest
from penstock.core.report_request import DAYS_S, ReportRequest, read_report_request

NOW_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (b"", ReportRequest("day", NOW_S - DAYS_S, NOW_S)),
        (b"by=user", ReportRequest("user", NOW_S - DAYS_S, NOW_S)),
        (b"by=model&since=2027-01-15", ReportRequest("model", NOW_S - 8 * 3600, NOW_S)),
        (b"since=2027-01-15T09:00:00+02:00", ReportRequest("day", NOW_S - 3600, NOW_S)),
        (b"since=2027-01-15T09%3A00%3A00%2B02%3A00", ReportRequest("day", NOW_S - 3600, NOW_S)),
        (
            b"until=2027-01-01T00:00:00Z&key_id=key_1",
            ReportRequest("day", 1798761600.0 - DAYS_S, 1798761600.0, "key_1"),
        ),
    ],
)
def test_what_is_asked(query: bytes, asked: ReportRequest) -> None:
    assert read_report_request(query, NOW_S) == asked


@pytest.mark.parametrize(
    ("query", "param", "words"),
    [
        (b"by=users", "by", 'did you mean "user"'),
        (b"by=", "by", "must be one of"),
        (b"group=user", "group", "unknown parameter"),
        (b"sinse=2027-01-01", "sinse", 'did you mean "since"'),
        (b"by=user&by=day", "by", "twice"),
        (b"since=yesterday", "since", "must be a day"),
        (b"since=2027-01-15T09:00:00", "since", "offset"),
        (b"until=0001-01-01T00:00:00%2B14:00", "until", "must be a day"),
        (b"until=9999-12-31", "until", "must be a day"),
        (b"since=2027-02-01", "since", "before until"),
        (b"since=2027-01-02&until=2027-01-02", "since", "before until"),
        (b"&".join(b"a=%d" % n for n in range(100)), None, "not readable"),
        (b"by=%ff", None, "not readable"),
        (b"by=\xff", None, "not readable"),
    ],
)
def test_a_mistake_is_named(query: bytes, param: str | None, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_report_request(query, NOW_S)
    assert caught.value.param == param
