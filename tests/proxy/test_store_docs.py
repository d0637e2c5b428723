"""docs/usage.md: every query in it runs on a store and answers its question; the alert is what is sent."""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored import NOW, key, row

from penstock.proxy.alerts import payload
from penstock.proxy.store import NANO, Alert
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import start, text

TEXT = (Path(__file__).parents[2] / "docs" / "usage.md").read_text(encoding="utf-8")
QUERIES = dict(re.findall(r"\n\n([^\n]+):\n\n```sql\n(.*?)```", TEXT, re.DOTALL))
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

# The question -> what the rows below answer.
ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "Cost by user in the last hour": [("ada", 3, 2.0), ("bob", 3, 0.5)],
    "Cache hit rate in per cent, of the last 24 hours": [(20.0,)],
    "The dearest models in 24 hours": [("smart", 4, 60, 2.5), ("small", 4, 60, 0.75)],
    "Cost of each tenant by day, this month": [
        ("home", "2026-11-15", 8.0),
        ("home", "2026-11-20", 0.25),
        ("home", "2026-11-21", 2.5),
        ("work", "2026-11-21", 0.5),
    ],
    "What each key cost in the last 7 days, with its name": [("key_1", "laptop", 10.75), ("file:ci", None, 0.5)],
    "Failures by backend in the last hour, in per cent": [("gpu1", 2, 50.0), ("cloud", 2, 0.0)],
    "Who met limits today": [("bob", 1)],
    "Median and 95th percentile of the answering time by model, in 24 hours": [
        ("small", 100.0, 200.0),
        ("smart", 100.0, 300.0),
    ],
    "Time to the first token and tokens per second after it, by backend and model": [
        ("cloud", "smart", 20.0, 27.8),
        ("gpu1", "small", 20.0, 38.5),
    ],
    "Requests in each hour of the last day": [
        ("2026-11-20 21:00", 1, 15),
        ("2026-11-21 06:00", 1, 15),
        ("2026-11-21 08:00", 6, 90),
    ],
    "Keys that nobody has used for 30 days": [("key_2", "old", "bob", None)],
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    store = SqliteStore(tmp_path_factory.mktemp("docs") / "penstock.db")
    store.migrate()
    small = {"model_used": "small", "backend": "gpu1"}
    ci = {"api_key_id": "file:ci", "user_id": "bob", "tenant_id": "work"}
    store.insert_rows(
        [
            row(1, NOW - MINUTE, cost_usd=1.0),
            row(2, NOW - MINUTE, cost_usd=1.0, response_time_ms=300.0),
            row(3, NOW - MINUTE, cost_usd=0.0, response_cached=1, backend=None),
            row(4, NOW - MINUTE, cost_usd=0.5, response_time_ms=200.0, **small, **ci),
            row(5, NOW - MINUTE, cost_usd=0.0, outcome="failed", status_code=502, **small, **ci),
            row(6, NOW - MINUTE, cost_usd=0.0, outcome="refused", status_code=429, **small | ci | {"backend": None}),
            row(7, NOW - 2 * HOUR, cost_usd=0.5, outcome="cancelled"),
            row(8, NOW - 11 * HOUR, cost_usd=0.25, **small),
            row(9, NOW - 6 * DAY, cost_usd=8.0),
            row(10, NOW - 60 * DAY, cost_usd=99.0),
        ]
    )
    store.create_key(key(1))
    store.create_key(key(2, key_name="old", user_id="bob", created_at=NOW - 40 * DAY))
    store.create_key(key(3, created_at=NOW - 40 * DAY))
    store.revoke_key("key_3", NOW)
    store.touch_keys({"key_1": text(NOW)})
    store.close()
    opened = sqlite3.connect(store.path)
    yield opened
    opened.close()


def test_every_query_has_an_answer_here() -> None:
    assert set(QUERIES) == set(ANSWERS)
    assert TEXT.count("```sql") == len(QUERIES)


@pytest.mark.parametrize("question", list(QUERIES))
def test_query(connection: sqlite3.Connection, question: str) -> None:
    at_now = QUERIES[question].replace("'now'", f"'{text(NOW)}'")
    assert connection.execute(at_now).fetchall() == ANSWERS[question]


@pytest.mark.parametrize("question", [each for each in QUERIES if "llm_usage" in QUERIES[each]])
def test_queries_use_the_index(connection: sqlite3.Connection, question: str) -> None:
    plan = str(connection.execute(f"EXPLAIN QUERY PLAN {QUERIES[question]}").fetchall())
    assert "ai_usage_logs_created_at" in plan


def test_the_view_has_the_columns_of_the_document(connection: sqlite3.Connection) -> None:
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(llm_usage)")]
    table = TEXT.partition("| column | |")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition(" | ")[0])]
    assert sorted(named) == sorted(columns)


def test_the_alert_is_what_is_sent() -> None:
    shown = json.loads(TEXT.partition("<!-- alert -->\n```json\n")[2].partition("```")[0])
    alert = Alert(
        scope="user",
        id="ada",
        window="day",
        window_start=start("day", NOW),
        percent=80,
        limit_nano_usd=10 * NANO,
        spent_nano_usd=8 * NANO,
    )
    assert payload(alert) == shown
