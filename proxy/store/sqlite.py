"""The store in a SQLite file: usage rows, keys, alerts, facts of cached answers.

Nothing to install, and one writer at a time is enough.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import asdict

from penstock.ext import share_values
from penstock.proxy.store import (
    COLUMNS,
    Alert,
    CacheFact,
    Grouping,
    KeyChange,
    KeyExists,
    KeyRecord,
    Report,
    Row,
    Starts,
    Stats,
    WindowSums,
    cache_facts,
    reports,
)
from penstock.proxy.store.connection import Connections
from penstock.proxy.store.migrations import migrate
from penstock.proxy.store.windows import end, instant, month_bounds, month_name, start, text

# Only the same id is passed over in silence; OR IGNORE would also drop rows that break another rule.
_NOT_TWICE = "ON CONFLICT (id) DO NOTHING"
_INSERT = f"INSERT INTO ai_usage_logs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) {_NOT_TWICE}"
# Half the values of a row are those of many others, and a statement for each row costs as much as its values. So what
# rows share goes to a table of this connection's own first, and CHUNK rows are inserted by one statement, joined to it.
CHUNK = 50
_SHARED = (
    "api_key_id",
    "tenant_id",
    "user_id",
    "tier",
    "endpoint",
    "model_used",
    "backend",
    "usage_estimated",
    "llm_request",
    "response_cached",
    "status_code",
    "outcome",
    "error_message",
)
_SHARED_PLACES = [COLUMNS.index(name) for name in _SHARED]
_OWN = [name for name in COLUMNS if name not in _SHARED]
_SHARES = f"CREATE TEMP TABLE IF NOT EXISTS usage_shares (number INTEGER PRIMARY KEY, {', '.join(_SHARED)})"
_INSERT_SHARE = f"INSERT INTO usage_shares VALUES ({', '.join('?' * (1 + len(_SHARED)))})"
_ROW = f"({', '.join('?' * (len(_OWN) + 1))})"
_INSERT_CHUNK = (
    f"INSERT INTO ai_usage_logs ({', '.join([*_OWN, *_SHARED])})"
    f" SELECT {', '.join(f'column{place}' for place in range(1, len(_OWN) + 1))}, {', '.join(_SHARED)}"
    f" FROM (VALUES {', '.join([_ROW] * CHUNK)}) CROSS JOIN usage_shares ON number = column{len(_OWN) + 1}"
    f" WHERE true {_NOT_TWICE}"
)
_KEY_COLUMNS = KeyRecord.__struct_fields__
_KEY = ", ".join(_KEY_COLUMNS)
_KEY_TIMES = ("created_at", "expires_at", "last_used_at", "previous_valid_until", "revoked_at")
_NEXT_REVISION = "(SELECT coalesce(max(revision), 0) + 1 FROM ai_api_keys)"
_ALERT = 'scope, scope_id, "window", window_start, percent, limit_nano_usd, spent_nano_usd'


class SqliteStore:
    """See Store. busy_s: how long a call waits while another process writes."""

    def __init__(self, path: Path, busy_s: float = 5.0) -> None:
        self._connections = Connections(path, busy_s)
        self.path = path

    def migrate(self) -> int:
        with self._connections.use() as connection:
            return migrate(connection, self.path)

    def close(self) -> None:
        self._connections.close()

    # --- usage rows

    def insert_rows(self, rows: Collection[Row]) -> int:
        rows = list(rows)
        shares, chunks = share_values(rows, _SHARED_PLACES, CHUNK)
        with self._connections.write() as connection:
            if len(shares) > len(rows) // 4:
                return connection.executemany(_INSERT, rows).rowcount
            connection.execute(_SHARES)
            connection.execute("DELETE FROM usage_shares")
            connection.executemany(_INSERT_SHARE, shares)
            new = connection.executemany(_INSERT_CHUNK, chunks).rowcount if chunks else 0
            rest = rows[len(chunks) * CHUNK :]
            return new + (connection.executemany(_INSERT, rest).rowcount if rest else 0)

    def window_sums(self, starts: Starts, key_id: str | None = None) -> WindowSums:
        with self._connections.use() as connection:
            return reports.window_sums(connection, starts, key_id)

    def report(self, by: Grouping, since: float, until: float, key_id: str | None = None) -> Report:
        with self._connections.use() as connection:
            return reports.report(connection, by, since, until, key_id)

    def stats(self, now: float, since: float = 0.0) -> Stats:
        with self._connections.use() as connection:
            return reports.stats(connection, now, since)

    # --- keys

    def all_keys(self) -> list[KeyRecord]:
        return self._keys("1 ORDER BY created_at, id")

    def keys_since(self, revision: int) -> list[KeyRecord]:
        return self._keys("revision > ? ORDER BY revision", revision)

    def key(self, key_id: str) -> KeyRecord | None:
        return next(iter(self._keys("id = ?", key_id)), None)

    def key_by_hash(self, key_hash: str) -> KeyRecord | None:
        return next(iter(self._keys("key_hash = ? OR previous_key_hash = ?", key_hash, key_hash)), None)

    def create_key(self, key: KeyRecord) -> KeyRecord:
        values = [_key_value(name, value) for name, value in asdict(key).items() if name != "revision"]
        marks = ", ".join("?" * len(values))
        sql = f"INSERT INTO ai_api_keys ({_KEY}) VALUES ({marks}, {_NEXT_REVISION}) RETURNING {_KEY}"
        return self._change_key(sql, values)[0]

    def revoke_key(self, key_id: str, now: float) -> KeyRecord | None:
        return self._update_key(key_id, "is_active = 0, revoked_at = coalesce(revoked_at, ?)", [text(now)])

    def rotate_key(self, key_id: str, key_hash: str, previous_valid_until: float) -> KeyRecord | None:
        changes = "previous_key_hash = key_hash, previous_valid_until = ?, key_hash = ?"
        return self._update_key(key_id, changes, [text(previous_valid_until), key_hash])

    def change_key(self, key_id: str, change: KeyChange) -> KeyRecord | None:
        changes = {name: _key_value(name, value) for name, value in asdict(change).items() if value is not UNSET}
        if not changes:
            return self.key(key_id)
        return self._update_key(key_id, ", ".join(f"{name} = ?" for name in changes), list(changes.values()))

    def touch_keys(self, used_at: Mapping[str, str]) -> None:
        with self._connections.write() as connection:
            connection.executemany(
                "UPDATE ai_api_keys SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, '') < ?2",
                list(used_at.items()),
            )

    def _keys(self, where: str, *values: object) -> list[KeyRecord]:
        with self._connections.use() as connection:
            return [_record(row) for row in connection.execute(f"SELECT {_KEY} FROM ai_api_keys WHERE {where}", values)]

    def _update_key(self, key_id: str, changes: str, values: list[object]) -> KeyRecord | None:
        sql = f"UPDATE ai_api_keys SET {changes}, revision = {_NEXT_REVISION} WHERE id = ? RETURNING {_KEY}"
        return next(iter(self._change_key(sql, [*values, key_id])), None)

    def _change_key(self, sql: str, values: list[object]) -> list[KeyRecord]:
        with self._connections.write() as connection:
            try:
                return [_record(row) for row in connection.execute(sql, values).fetchall()]
            except sqlite3.IntegrityError as error:
                raise KeyExists("a key with this id or hash is there already") from error

    # --- alerts

    def open_alerts(self, alerts: Iterable[Alert]) -> list[Alert]:
        sql = (
            f"INSERT INTO budget_alerts ({_ALERT}, measure) VALUES (?, ?, ?, ?, ?, ?, ?, 'usd') ON CONFLICT DO NOTHING"
        )
        with self._connections.write() as connection:
            return [alert for alert in alerts if connection.execute(sql, _alert_values(alert)).rowcount]

    def unsent_alerts(self) -> list[Alert]:
        with self._connections.use() as connection:
            found = connection.execute(f"SELECT {_ALERT} FROM budget_alerts WHERE sent_at IS NULL ORDER BY rowid")
            return [
                Alert(
                    scope=scope,
                    id=scope_id,
                    window=window,
                    window_start=instant(began),
                    percent=percent,
                    limit_nano_usd=limit,
                    spent_nano_usd=spent,
                )
                for scope, scope_id, window, began, percent, limit, spent in found
            ]

    def close_alert(self, alert: Alert, now: float) -> None:
        values = _alert_values(alert)[:5]
        where = 'scope = ? AND scope_id = ? AND "window" = ? AND window_start = ? AND percent = ?'
        with self._connections.write() as connection:
            connection.execute(f"UPDATE budget_alerts SET sent_at = ? WHERE {where}", [text(now), *values])

    # --- kept answers

    def keep_cache_facts(self, facts: Iterable[CacheFact], expired_before: float) -> None:
        with self._connections.write() as connection:
            cache_facts.keep(connection, facts, expired_before)

    # --- archive

    def months(self, before: float) -> list[str]:
        found: list[str] = []
        after = ""
        with self._connections.use() as connection:
            # One look into the index for each month, however many rows it has.
            while True:
                first = connection.execute(
                    "SELECT min(created_at) FROM ai_usage_logs WHERE created_at >= ?", (after,)
                ).fetchone()[0]
                if first is None or end("month", instant(first)) > before:
                    return found
                found.append(month_name(instant(first)))
                after = text(end("month", start("month", instant(first))))

    def rows_of_month(self, month: str) -> Iterator[Row]:
        began, ended = month_bounds(month)
        # Through the table in the order of ids: by the index all of a month would have to be sorted.
        sql = (
            f"SELECT {', '.join(COLUMNS)} FROM ai_usage_logs NOT INDEXED"
            " WHERE created_at >= ? AND created_at < ? ORDER BY id"
        )
        with self._connections.use() as connection:
            yield from connection.execute(sql, (text(began), text(ended)))

    def delete_rows(self, ids: Collection[int]) -> int:
        with self._connections.write() as connection:
            return connection.executemany("DELETE FROM ai_usage_logs WHERE id = ?", [(each,) for each in ids]).rowcount


def _key_value(name: str, value: object) -> object:
    if name in _KEY_TIMES and isinstance(value, int | float):
        return text(value)
    return value


def _record(row: Row) -> KeyRecord:
    fields = dict(zip(_KEY_COLUMNS, row, strict=True))
    fields["is_active"] = bool(fields["is_active"])
    for name in _KEY_TIMES:
        if fields[name] is not None:
            fields[name] = instant(fields[name])
    return KeyRecord(**fields)


def _alert_values(alert: Alert) -> list[object]:
    return [
        alert.scope,
        alert.id,
        alert.window,
        text(alert.window_start),
        alert.percent,
        alert.limit_nano_usd,
        alert.spent_nano_usd,
    ]
