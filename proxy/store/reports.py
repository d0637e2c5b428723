"""Sums over usage rows: for limits that start anew, for people, for figures."""

import sqlite3
from collections import defaultdict

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
# The nearest-rank percentile: the least value that at least so many per cent of the values do not exceed.
_PERCENTILES = """
    SELECT name,
        min(ms) FILTER (WHERE place * 100 >= of_all * 50),
        min(ms) FILTER (WHERE place * 100 >= of_all * 95)
    FROM (
        SELECT name, ms,
            row_number() OVER (PARTITION BY name ORDER BY ms) AS place,
            count(*) OVER (PARTITION BY name) AS of_all
        FROM (SELECT {group} AS name, response_time_ms AS ms FROM ai_usage_logs WHERE {where} AND outcome = 'answered')
    )
    GROUP BY name
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
    """See Store.window_sums. It reads every row of the month: some 0.4 s a million."""
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
    """See Store.report."""
    values = (text(since), text(until), *([key_id] if key_id is not None else ()))
    connection.execute("BEGIN")
    try:
        lines = _lines(connection, _GROUPS[by], key_id is not None, values)
        total = _lines(connection, "''", key_id is not None, values)
    finally:
        connection.execute("COMMIT")
    lines.sort(key=lambda line: line.name if by == "day" else (-line.nano_usd, -line.requests, line.name))
    return Report(lines, total[0] if total else _NOTHING)


def _lines(connection: sqlite3.Connection, group: str, one_key: bool, values: tuple[str, ...]) -> list[ReportLine]:
    where = "created_at >= ? AND created_at < ?" + (" AND api_key_id = ?" if one_key else "")
    percentiles = {
        name: (p50, p95) for name, p50, p95 in connection.execute(_PERCENTILES.format(group=group, where=where), values)
    }
    figures = connection.execute(
        f"SELECT {group} AS name, {_FIGURES} FROM ai_usage_logs WHERE {where} GROUP BY name",
        values,
    )
    return [ReportLine._make((name or "", *rest, *percentiles.get(name, (None, None)))) for name, *rest in figures]


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
