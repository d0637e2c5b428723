"""The log: one JSON line per request, nothing private in it, and a sink that stalls costs lines, not requests."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from raw_client import wait_until
from scripted import Client, exchange, play

from penstock.core.endpoint import match
from penstock.core.errors import BadAnswer, Level, NotFound
from penstock.ext import DIALECT_CHAT, scan_answer
from penstock.proxy.exchange import Exchange
from penstock.proxy.log import MAX_PENDING_BYTES, Log, access_line
from penstock.proxy.wall_clock import WallClock

NOW_NS = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()) * 1_000_000_000 + 678_900_000
STAMP = "2026-01-02T03:04:05.678Z"
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]


@contextlib.contextmanager
def opened(path: Path, level: Level = "info") -> Iterator[Log]:
    log = Log(level, str(path), WallClock(lambda: NOW_NS))
    with log._sink:
        yield log
        log.close()


def logged(file: Path, level: Level, write: Callable[[Log], None]) -> list[dict[str, Any]]:
    """What a log of that level writes."""
    with opened(file, level) as log:
        write(log)
    return lines(file)


def line_of(
    change: Callable[[Exchange], None], *header_lines: tuple[bytes, bytes], ended_s: float = 0.25
) -> dict[str, Any]:
    """The access line of a request after `change` was made to it."""

    async def scene() -> dict[str, Any]:
        made = exchange(Client(), "POST", "/v1/chat/completions", *header_lines, query=b"token=secret")
        change(made)
        line: dict[str, Any] = json.loads(access_line(made, made.started + ended_s, "info", STAMP))
        return line

    return play(scene())


def nothing(made: Exchange) -> None:
    pass


def test_a_request_that_came_to_nothing() -> None:
    line = line_of(nothing)
    assert line == {
        "timestamp": STAMP,
        "level": "info",
        "message": "request",
        "service": "penstock",
        "requestId": "id-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "route": "none",
        "status": 0,
        "duration": 250.0,
        "ip": "127.0.0.9",
        "userAgent": "",
    }


def test_a_request_with_everything() -> None:
    def change(made: Exchange) -> None:
        answer = scan_answer(USAGE, DIALECT_CHAT)
        assert answer is not None
        made.endpoint = match("POST", b"/v1/chat/completions")
        made.status, made.first_byte = 200, made.started + 0.125
        made.model, made.backend, made.attempts = "m", "b", 2
        made.usage = answer.usage

    line = line_of(change, (b"user-agent", b"curl/8 \xe9"))
    assert line["route"] == "/v1/chat/completions"
    assert (line["status"], line["firstByte"], line["duration"]) == (200, 125.0, 250.0)
    assert (line["model"], line["backend"], line["attempts"]) == ("m", "b", 2)
    assert (line["promptTokens"], line["completionTokens"]) == (3, 4)
    assert line["userAgent"] == "curl/8 é"
    assert not {"fault", "error", "detail"} & set(line)


def test_a_failed_request_says_whose_fault_it_was() -> None:
    def change(made: Exchange) -> None:
        made.error = BadAnswer("the backend closed the connection", phase="body")

    line = line_of(change)
    assert (line["fault"], line["error"], line["detail"]) == (
        "backend",
        "backend_bad_answer",
        "the backend closed the connection",
    )


def test_a_client_that_left() -> None:
    def change(made: Exchange) -> None:
        made.client_left = True

    line = line_of(change)
    assert (line["fault"], line["error"]) == ("caller", "client_left")
    assert "detail" not in line


def test_nothing_private_is_in_a_line() -> None:
    def change(made: Exchange) -> None:
        made.body = b'{"model":"m","prompt":"private"}'

    text = json.dumps(line_of(change, (b"authorization", b"Bearer private"), (b"x-api-key", b"private")))
    assert "private" not in text
    assert "secret" not in text  # the query


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(file: Path, level: Level, seen: list[str]) -> None:
    def write(log: Log) -> None:
        for each in ("debug", "info", "warning", "error"):
            log.event(each, "x", field=1)  # type: ignore[arg-type]

    assert [line["level"] for line in logged(file, level, write)] == seen


def test_an_events_fields(file: Path) -> None:
    (line,) = logged(file, "info", lambda log: log.event("info", "hello", backend="b"))
    assert line == {"timestamp": STAMP, "level": "info", "message": "hello", "service": "penstock", "backend": "b"}


@pytest.mark.parametrize(("error", "seen"), [(None, 0), (NotFound("x"), 0), (BadAnswer("x", phase="body"), 1)])
def test_a_requests_level_is_its_errors(file: Path, error: Any, seen: int) -> None:
    async def scene() -> None:
        with opened(file, "warning") as log:
            made = exchange(Client())
            made.error = error
            log.request(made, made.started)

    play(scene())
    assert len(lines(file)) == seen


def test_a_defect_has_its_trace_and_the_request_id(file: Path) -> None:
    async def scene() -> None:
        with opened(file, "error") as log:
            try:
                raise KeyError("gone")
            except KeyError as error:
                log.defect(exchange(Client()), error)

    play(scene())
    (line,) = lines(file)
    assert (line["message"], line["requestId"]) == ("a defect", "id-1")
    assert "KeyError: 'gone'" in line["trace"]
    assert "test_log.py" in line["trace"]


def test_lines_are_one_line_each(file: Path) -> None:
    written = logged(file, "info", lambda log: log.event("info", "a\nb\r\n\u2028c", name="\x1b[31m"))
    assert written[0]["message"] == "a\nb\r\n\u2028c"
    assert file.read_bytes().count(b"\n") == 1
    assert b"\x1b" not in file.read_bytes()


def test_a_file_is_appended_to(file: Path) -> None:
    file.write_text('{"old":1}\n')
    assert logged(file, "info", lambda log: log.event("info", "new"))[0] == {"old": 1}


def test_lines_stay_in_order_over_flushes(file: Path) -> None:
    def write(log: Log) -> None:
        for number in range(1000):
            log.event("info", "x", number=number)
            if number % 7 == 0:
                log.flush()

    assert [line["number"] for line in logged(file, "info", write)] == list(range(1000))


def test_no_thread_stays(file: Path) -> None:
    before = threading.active_count()
    logged(file, "info", lambda log: log.event("info", "x"))
    assert threading.active_count() == before


def test_close_closes_its_file(file: Path) -> None:
    log = Log("info", str(file), WallClock(lambda: NOW_NS))
    log.close()
    try:
        assert log._sink.closed
    finally:
        log._sink.close()


def test_a_sink_that_stalls_costs_lines_and_no_time(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text = "x" * 10_000
    written = 0
    received: list[bytes] = []
    draining = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(reader, 1 << 20), b"")))
    with opened(pipe) as log:
        while written < 3 * MAX_PENDING_BYTES:  # nobody reads the pipe, and this goes on all the same
            log.event("info", text)
            log.flush()
            written += len(text)
        os.set_blocking(reader, True)
        draining.start()
        wait_until(lambda: log._written == log._handed)
        log.event("info", "the sink is back")
    draining.join(5)
    os.close(reader)
    seen = [json.loads(line) for line in b"".join(received).splitlines()]
    kept = sum(line["message"] == text for line in seen)
    notices = [line for line in seen if "dropped" in line]
    assert 0.98 * MAX_PENDING_BYTES <= kept * len(text) < 1.2 * MAX_PENDING_BYTES  # lines are longer than their text
    assert kept + sum(line["dropped"] for line in notices) == written // len(text)
    assert {line["level"] for line in notices} == {"warning"}
    assert "the sink is back" in (line["message"] for line in seen[-2:])


def test_a_sink_that_breaks_costs_no_request() -> None:
    with opened(Path("/dev/full")) as log:
        for _ in range(3):
            log.event("info", "x")
            log.flush()
        wait_until(lambda: log._written == log._handed)
