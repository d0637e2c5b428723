"""Usage rows survive kill -9: every request that got an answer has its row, none twice."""

import asyncio
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import psutil
from hammer import Hammer

from running import Demo, Penstock, config

TEN = 10


def rows(penstock: Penstock) -> list[tuple[str, str, int]]:
    """(request id, outcome, status) of every row stored so far."""
    with sqlite3.connect(f"file:{penstock.state_dir / 'penstock.db'}?mode=ro", uri=True) as database:
        return database.execute("SELECT request_id, outcome, status_code FROM ai_usage_logs").fetchall()


def settled(penstock: Penstock, wanted: set[str]) -> list[tuple[str, str, int]]:
    """The rows once those of all `wanted` requests are there, or whatever is there after 10 s."""
    until = time.monotonic() + 10
    while True:
        found = rows(penstock)
        if wanted <= {name for name, _, _ in found} or time.monotonic() > until:
            return found
        time.sleep(0.05)


def check(found: list[tuple[str, str, int]], answered: set[str]) -> None:
    times = Counter(name for name, _, _ in found)
    assert max(times.values()) == 1, "a row was booked twice"
    assert answered <= times.keys(), f"{len(answered - times.keys())} answered requests have no row"
    outcomes = {name: outcome for name, outcome, _ in found}
    assert {outcomes[name] for name in answered} <= {"answered", "lost"}


def test_a_killed_worker_loses_no_row() -> None:
    async def scene(penstock: Penstock) -> Hammer:
        hammer = Hammer(penstock.port)
        asking = asyncio.ensure_future(hammer.ask(32, 1_000_000))
        for _ in range(TEN):
            await asyncio.sleep(0.3)
            penstock.workers()[0].send_signal(signal.SIGKILL)
        await asyncio.sleep(0.3)
        hammer.over = True
        await asking
        return hammer

    with Demo("--rate", "0", "--first-ms", "5") as demo:
        text = config(demo.port).replace("workers = 1", "workers = 2")
        with Penstock(text) as penstock:
            told = asyncio.run(scene(penstock)).told
            assert len(told.answered) > 100
            found = settled(penstock, told.answered)
            check(found, told.answered)
            lost = [name for name, outcome, _ in found if outcome == "lost"]
            assert lost, "no request died under way, so the test has shown nothing"


def test_killing_everything_loses_no_row(tmp_path: Path) -> None:
    answered: set[str] = set()
    with Demo("--rate", "0", "--first-ms", "5") as demo:
        text = config(demo.port, server=f'state_dir = "{tmp_path}"').replace("workers = 1", "workers = 2")
        for number in range(TEN):
            answered |= _run_and_kill(text, f"round{number}", tmp_path)
        with Penstock(text) as penstock:
            penstock.state_dir = tmp_path
            found = settled(penstock, answered)
            check(found, answered)
    assert len(answered) > 100


def _run_and_kill(text: str, prefix: str, state_dir: Path) -> set[str]:
    """Load for a moment, then every process is killed at once; the ids of the requests that were answered."""

    async def scene(penstock: Penstock) -> set[str]:
        hammer = Hammer(penstock.port, prefix=prefix)
        asking = asyncio.ensure_future(hammer.ask(32, 1_000_000))
        await asyncio.sleep(0.3)
        everything = [penstock.process, *psutil.Process(penstock.process.pid).children(recursive=True)]
        for process in everything:
            process.send_signal(signal.SIGSTOP)  # so that nobody sees another's death
        for process in everything:
            process.send_signal(signal.SIGKILL)
        hammer.over = True
        await asking
        return hammer.told.answered

    with Penstock(text) as penstock:
        penstock.state_dir = state_dir
        return asyncio.run(scene(penstock))
