"""A penstock with one key, of user ada in tenant home, whose tier's limits a test writes."""

import sqlite3
import time
from typing import Any

from running import Demo, Penstock, config

KEY = "test-key-0123456789abcdef"
AUTH = {"Authorization": f"Bearer {KEY}"}
ADMIN_KEY = "admin-key-0123456789abcdef"
ADMIN = {"X-Admin-Key": ADMIN_KEY}
CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
ENV = {"TEST_KEY": KEY, "ADMIN_KEY": ADMIN_KEY}

KEYS = """
[admin]
key = "env:ADMIN_KEY"
[auth]
mode = "keys"
[[keys]]
name = "test"
key = "env:TEST_KEY"
tenant_id = "home"
user_id = "ada"
tier = "tight"
[tiers.tight]
"""


def configuration(demo: Demo, tier: str = "", *, more: str = "", server: str = "", workers: int = 1) -> str:
    """`tier`: lines of [tiers.tight]. `more`: further tables."""
    text = config(demo.port, server=server, more=f"{KEYS}{tier}\n{more}")
    return text.replace("workers = 1", f"workers = {workers}")


def governed(demo: Demo, tier: str = "", *, more: str = "", server: str = "", workers: int = 1) -> Penstock:
    return Penstock(configuration(demo, tier, more=more, server=server, workers=workers), env=ENV)


def query(penstock: Penstock, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What the database of a running penstock says."""
    database = sqlite3.connect(f"file:{penstock.state_dir / 'penstock.db'}?mode=ro", uri=True)
    try:
        return database.execute(sql, values).fetchall()
    finally:
        database.close()


def rows(penstock: Penstock, wanted: int, columns: str = "*") -> list[tuple[Any, ...]]:
    """The usage rows in their order, once `wanted` are there, or whatever is there after 10 s."""
    until = time.monotonic() + 10
    while True:
        found = query(penstock, f"SELECT {columns} FROM ai_usage_logs ORDER BY id")
        if len(found) >= wanted or time.monotonic() > until:
            return found
        time.sleep(0.02)
