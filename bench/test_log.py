"""What the log's line of a request costs: reported, not judged. `pytest bench --benchmark-only`."""

from typing import Any

import pytest

from penstock.ext import BUILD_PROFILE, access_line

if BUILD_PROFILE != "release":
    pytest.skip("a debug build says nothing", allow_module_level=True)

LINE = (
    "2026-11-21T08:50:00.123Z", "info", b"0f7a3c1e5b8d42f6a9c07d1e2b3f4a5c", "POST", b"/v1/chat/completions",
    "/v1/chat/completions", 200, 1234.5678, 1234.9876, 1234.6789, "203.0.113.7", b"OpenAI/Python 1.60.0",
    "key_0123456789abcdef", "user", "tenant", "tiny", "one", 1, 12, 9, 10_210, None, None, None,
)  # fmt: skip


def test_access_line(benchmark: Any) -> None:
    benchmark(access_line, *LINE)
