"""When a backend is asked, where, and what it takes to be down and up."""

import msgspec
import pytest

from penstock.core.address import Url
from penstock.core.config import Backend, Health
from penstock.core.health import Check, alive, check_path, following, is_down, pause_s


def backend(kind: str, url: str | None, path: str = "") -> Backend:
    return Backend(kind=kind, url=None if url is None else Url.parse(url), health=Health(path=path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "url", "path", "asked"),
    [
        ("openai", "https://api.openai.com/v1", "", "/v1/models"),
        ("openai", "http://gpu:8000/proxied/v1/", "", "/proxied/v1/models"),
        ("openai", "http://gpu:8000/v1", "/health", "/health"),
        ("ollama", "http://gpu:11434", "", "/api/tags"),
        ("anthropic", "https://api.anthropic.com", "", "/v1/models"),
        ("demo", None, "", "/v1/models"),
    ],
)
def test_the_path(kind: str, url: str | None, path: str, asked: str) -> None:
    assert check_path(backend(kind, url, path)) == asked


@pytest.mark.parametrize(
    ("status", "works"), [(200, True), (401, True), (404, True), (429, True), (500, False), (503, False)]
)
def test_alive(status: int, works: bool) -> None:
    assert alive(status) is works


def test_two_failures_in_a_row_are_down_and_one_success_is_up() -> None:
    last: Check | None = None
    down = False
    seen = []
    for ok in (True, False, True, False, False, False, True, False):
        last = following(last, Check(at=0.0, ok=ok, latency_ms=1.0, words=""))
        down = is_down(down, last)
        seen.append((last.failed_in_row, down))
    assert seen == [(0, False), (1, False), (0, False), (1, False), (2, True), (3, True), (0, False), (1, False)]


def test_down_stays_down_when_the_row_was_forgotten() -> None:
    """A new leader may know of no check before its own; the flag in shared memory stands."""
    check = following(None, Check(at=0.0, ok=False, latency_ms=1.0, words=""))
    assert is_down(True, check) and not is_down(False, check)


def test_the_pause() -> None:
    assert pause_s(10, False, 0.5) == 10
    assert pause_s(10, True, 0.5) == 1
    assert pause_s(0.2, True, 0.5) == 0.2
    assert pause_s(10, False, 0.0) == 9 and pause_s(10, False, 1.0) == pytest.approx(11)


def test_a_check_is_kept_as_json() -> None:
    check = Check(at=1.5, ok=False, latency_ms=2.0, words="no answer", failed_in_row=2)
    assert msgspec.json.decode(msgspec.json.encode(check), type=Check) == check
