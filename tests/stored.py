"""Usage rows and keys for tests of the store."""

from typing import Any

from penstock.proxy.store import COLUMNS, KeyRecord, Row
from penstock.proxy.store.windows import instant, text

NOW = instant("2026-11-21 08:05:00.250")


def row(number: int, at: float = NOW, **changes: Any) -> Row:
    """A row of an answered request: 10 + 5 tokens, 0.002 USD, 100 ms."""
    fields: dict[str, Any] = {
        "id": number,
        "request_id": f"ab-{number:x}",
        "api_key_id": "key_1",
        "tenant_id": "home",
        "user_id": "ada",
        "tier": "pro",
        "endpoint": "chat",
        "model_used": "smart",
        "backend": "cloud",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "total_tokens": 15,
        "usage_estimated": 0,
        "cost_usd": 0.002,
        "cost_nano_usd": 2_000_000,
        "llm_request": 1,
        "response_cached": 0,
        "response_time_ms": 100.0,
        "ttft_ms": 20.0,
        "status_code": 200,
        "outcome": "answered",
        "error_message": None,
        "created_at": text(at),
    } | changes
    return tuple(fields[name] for name in COLUMNS)


def key(number: int = 1, **changes: Any) -> KeyRecord:
    """A key without limits of its own."""
    fields: dict[str, Any] = {
        "id": f"key_{number}",
        "tenant_id": "home",
        "user_id": "ada",
        "key_name": "laptop",
        "key_hash": f"{number:064x}",
        "tier": "pro",
        "created_at": NOW,
    }
    return KeyRecord(**fields | changes)
