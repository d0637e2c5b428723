"""Sums over usage rows: for limits that start anew, for people, for figures."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from penstock.proxy.store import SCOPES, Grouping, Report, ReportLine, Scope, Starts, Stats, Sums, WindowSums
from penstock.proxy.store.windows import text

_GROUPS: dict[Grouping, str] = {
    "user": "user_id",
    "tenant": "tenant_id",
    "key": "api_key_id",
    "model": "model_used",
    "endpoint": "endpoint",
    "backend": "backend",
    "day": "substr(created_at, 1, 10)",
}
_FIGURES = """
    count(*),
    count(*) FILTER (WHERE outcome IN ('failed', 'lost')),
    count(*) FILTER (WHERE outcome = 'refused'),
    count(*) FILTER (WHERE outcome = 'cancelled'),
    coalesce(sum(prompt_tokens), 0),
    coalesce(sum(completion_tokens), 0),
    coalesce(sum(total_tokens), 0),
    coalesce(sum(cost_nano_usd), 0),
    count(*) FILTER (WHERE response_cached),
    avg(response_time_ms) FILTER (WHERE outcome = 'answered')
"""
_WHERE = "created_at >= ?1 AND created_at < ?2 AND (?3 IS NULL OR api_key_id = ?3)"
_REPORT = f"SELECT {{group}} AS name, {_FIGURES} FROM ai_usage_logs WHERE {_WHERE} GROUP BY name"
_TIMES = f"""
    SELECT {{group}}, response_time_ms FROM ai_usage_logs
    WHERE {_WHERE} AND outcome = 'answered' AND response_time_ms IS NOT NULL
"""
_SUMS = """
    SELECT api_key_id, user_id, tenant_id, tier,
        count(*) FILTER (WHERE outcome IS NOT 'refused'),
        coalesce(sum(llm_request), 0),
        coalesce(sum(total_tokens), 0),
        coalesce(sum(cost_nano_usd), 0)
    FROM ai_usage_logs WHERE created_at >= ?1 AND (?2 IS NULL OR api_key_id = ?2)
    GROUP BY 1, 2, 3, 4
"""
_NOTHING = ReportLine("", 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None, None)


def window_sums(connection: sqlite3.Connection, starts: Starts, key_id: str | None) -> WindowSums:
    """See Store.window_sums. It reads every row of the month: some 1 s a million."""
    connection.execute("BEGIN")  # the three windows are of one state of the table
    try:
        windows = [_sums_since(connection, began, key_id) for began in starts]
    finally:
        connection.execute("COMMIT")
    hour, day, month = windows
    none = Sums()
    return {name: (hour.get(name, none), day.get(name, none), sums) for name, sums in month.items()}


def _sums_since(connection: sqlite3.Connection, began: float, key_id: str | None) -> dict[tuple[Scope, str], Sums]:
    found: dict[tuple[Scope, str], Sums] = defaultdict(Sums)
    for *ids, requests, llm_requests, tokens, nano_usd in connection.execute(_SUMS, (text(began), key_id)):
        for scope, name in zip(SCOPES, ids, strict=True):
            if name is not None:
                old = found[scope, name]
                found[scope, name] = Sums(
                    old.requests + requests,
                    old.llm_requests + llm_requests,
                    old.tokens + tokens,
                    old.nano_usd + nano_usd,
                )
    return found


def report(connection: sqlite3.Connection, by: Grouping, since: float, until: float, key_id: str | None) -> Report:
    """See Store.report: some 2 s a million rows."""
    values = (text(since), text(until), key_id)
    connection.execute("BEGIN")
    try:
        figures = connection.execute(_REPORT.format(group=_GROUPS[by]), values).fetchall()
        total = connection.execute(_REPORT.format(group="''"), values).fetchall()
        times = _times(connection, _GROUPS[by], values)
    finally:
        connection.execute("COMMIT")
    lines = [_line(name, rest, times[name]) for name, *rest in figures]
    lines.sort(key=lambda line: line.name if by == "day" else (-line.nano_usd, -line.requests, line.name))
    of_all = sum(times.values(), Counter[float]())
    return Report(lines, _line("", total[0][1:], of_all) if total else _NOTHING)


def _times(
    connection: sqlite3.Connection, group: str, values: tuple[str, str, str | None]
) -> defaultdict[str | None, Counter[float]]:
    """How often each time was taken. In 0.1 ms, which bounds it; SQLite would sort all rows at three times the cost."""
    found: defaultdict[str | None, Counter[float]] = defaultdict(Counter)
    for name, ms in connection.execute(_TIMES.format(group=group), values):
        found[name][round(ms, 1)] += 1
    return found


def _line(name: str | None, figures: Sequence[Any], times: Counter[float]) -> ReportLine:
    return ReportLine._make((name or "", *figures, percentile(times, 50), percentile(times, 95)))


def percentile(counts: Counter[float], percent: int) -> float | None:
    """The nearest rank: the least value which at least so many per cent do not exceed; None without values."""
    missing = counts.total() * percent
    for value in sorted(counts):
        missing -= counts[value] * 100
        if missing <= 0:
            return value
    return None


def stats(connection: sqlite3.Connection, now: float, since: float) -> Stats:
    """See Store.stats."""
    total, hits, answered, average, tokens, nano_usd = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE response_cached), count(*) FILTER (WHERE outcome = 'answered'),"
        " coalesce(avg(response_time_ms) FILTER (WHERE outcome = 'answered'), 0.0),"
        " coalesce(sum(total_tokens), 0), coalesce(sum(cost_nano_usd), 0) FROM ai_usage_logs WHERE created_at >= ?",
        (text(since),),
    ).fetchone()
    active = connection.execute(
        "SELECT count(*) FROM ai_api_keys WHERE is_active AND (expires_at IS NULL OR expires_at > ?)", (text(now),)
    ).fetchone()[0]
    return Stats(total, hits / answered if answered else 0.0, active, average, tokens, nano_usd)
