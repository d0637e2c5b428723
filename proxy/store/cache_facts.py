"""The table ai_cache: what workers tell of the answers they keep, summed over all of them."""

import sqlite3
from collections.abc import Iterable

from penstock.proxy.store import CacheFact
from penstock.proxy.store.windows import text

# What the entry has more hits than was told of it before is added; of several entries the newest says the rest.
_TELL = """
INSERT INTO ai_cache (cache_key, response_data, model_used, created_at, expires_at, hit_count)
VALUES (
    ?1, ?2, ?3, ?4, ?5,
    max(0, ?6 - coalesce((SELECT hit_count FROM ai_cache_told WHERE cache_key = ?1 AND entry = ?7), 0))
)
ON CONFLICT (cache_key) DO UPDATE SET
    response_data = iif(
        excluded.created_at >= created_at, coalesce(excluded.response_data, response_data), response_data
    ),
    model_used = iif(excluded.created_at >= created_at, excluded.model_used, model_used),
    created_at = max(created_at, excluded.created_at),
    expires_at = max(expires_at, excluded.expires_at),
    hit_count = hit_count + excluded.hit_count
"""
_TOLD = """
INSERT INTO ai_cache_told (cache_key, entry, hit_count, expires_at) VALUES (?1, ?7, ?6, ?5)
ON CONFLICT (cache_key, entry) DO UPDATE SET hit_count = max(hit_count, excluded.hit_count)
"""


def keep(connection: sqlite3.Connection, facts: Iterable[CacheFact], expired_before: float) -> None:
    """See Store.keep_cache_facts. In a transaction of the caller's."""
    for fact in facts:
        values = (
            fact.key,
            fact.response,
            fact.model,
            text(fact.created_at),
            text(fact.expires_at),
            fact.hits,
            fact.entry,
        )
        connection.execute(_TELL, values)
        connection.execute(_TOLD, values)
    for table in ("ai_cache", "ai_cache_told"):
        connection.execute(f"DELETE FROM {table} WHERE expires_at < ?", (text(expired_before),))
