"""Three backends, one of which fails every second, under 64 clients: none is told of it whose stream had not begun.

The full size is its own command: PENSTOCK_SOAK=1 pytest tests/e2e/test_three_backends.py -rP
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from failing import Crowd, Fleet, Tally, every_second, under_load
from raw_client import JSON_TYPE, ask, request

from running import Penstock

SECONDS = 60 if os.environ.get("PENSTOCK_SOAK") else 8
RECOVERY_S = 0.5
ADMIN_KEY = "the-admin-key-of-these-tests"

SERVER = '[server]\nlisten = "127.0.0.1:0"\nworkers = 2\n'
# A backend is back within the second, so it is tried again within the second.
SETTINGS = f"""{SERVER}
[admin]
key = "env:ADMIN_KEY"
[breaker]
recovery_s = {RECOVERY_S}
[chaos]
enabled = true
"""
BACKEND = (
    "health = { interval_s = 0 }\ntimeout = { connect_s = 2, send_s = 5, first_byte_s = 5, idle_s = 5, total_s = 30 }"
)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet() as backends:
        yield backends


@pytest.fixture
def penstock(fleet: Fleet) -> Iterator[Penstock]:
    with Penstock(SETTINGS + fleet.sections(BACKEND), env={"ADMIN_KEY": ADMIN_KEY}) as process:
        yield process


def judged(tally: Tally, *, cuts: bool) -> None:
    """Check that all went as it must, and that it was not for want of trouble."""
    print(tally)
    assert tally.failed[:3] == []
    assert tally.wrong[:3] == []
    assert tally.whole["plain"] > 20 * SECONDS and tally.whole["stream"] > 10 * SECONDS
    assert tally.cut > SECONDS if cuts else tally.cut == 0


def killed(fleet: Fleet, penstock: Penstock) -> Tally:
    async def kill(number: int) -> None:
        fleet.kill(number % 3)
        await asyncio.to_thread(fleet.restart, number % 3)

    tally = uvloop.run(under_load(Crowd(penstock.port), every_second(SECONDS, kill)))
    assert [line for line in penstock.lines() if line["message"] == "a defect"] == []
    return tally


def test_one_is_killed_every_second(fleet: Fleet, penstock: Penstock) -> None:
    """Nobody asks whether it is back: the breaker's probe finds out."""
    judged(killed(fleet, penstock), cuts=True)


def test_one_is_killed_every_second_with_usual_settings(fleet: Fleet) -> None:
    """A breaker stays open for a minute, but for health checks, which tell that the backend is back."""
    with Penstock(SERVER + fleet.sections()) as process:
        judged(killed(fleet, process), cuts=True)


def test_one_that_always_fails_is_only_probed(fleet: Fleet, penstock: Penstock) -> None:
    """And once it works again it has its share after one probe."""
    fleet.restart(0, "--fault", "status=500")
    asked: list[int] = []
    back_s = 0.0

    async def watch() -> None:
        nonlocal back_s
        for pause_s in (1, 10 * RECOVERY_S):
            await asyncio.sleep(pause_s)
            asked.append(await asyncio.to_thread(fleet.asked, 0))
        await asyncio.to_thread(fleet.restart, 0)
        began = asyncio.get_running_loop().time()
        while await asyncio.to_thread(fleet.asked, 0) < 20:
            await asyncio.sleep(0.01)
        back_s = asyncio.get_running_loop().time() - began

    tally = uvloop.run(under_load(Crowd(penstock.port), watch()))
    print(tally, f"{asked=} {back_s=:.2f}")
    assert tally.failed[:3] == [] and tally.wrong[:3] == []
    assert 5 <= asked[1] - asked[0] <= 11
    assert back_s < RECOVERY_S + 1


FAULTS: dict[str, dict[str, Any]] = {
    "connection_reset": {},
    "error_status": {"status": 503},
    "too many requests": {"kind": "error_status", "status": 429},
    "latency": {"latency_ms": 300},
    "slow_tokens": {"gap_ms": 30},
    "cut before it began": {"kind": "cut_stream", "after_bytes": 0},
}
# Behind the first event of a stream, and within a whole answer.
IN_MID_ANSWER = {"cut_stream": {"after_bytes": 300}, "bad_body": {"after_bytes": 300}}


def test_one_has_a_fault_every_second(penstock: Penstock) -> None:
    """Faults that leave streams whole: nobody is told of any of them."""
    tally = faulty(penstock, FAULTS)
    judged(tally, cuts=False)
    assert tally.met["turn"] > SECONDS


def test_one_breaks_its_answers_every_second(penstock: Penstock) -> None:
    """Streams are cut, and whole answers come from another."""
    judged(faulty(penstock, IN_MID_ANSWER), cuts=True)


def faulty(penstock: Penstock, faults: dict[str, dict[str, Any]]) -> Tally:
    """Each second another backend has the next fault, and only that."""
    kinds = list(faults)

    async def turn(number: int) -> None:
        kind = kinds[number % len(kinds)]
        fault = {"name": "turn", "kind": kind, "backend": f"b{number % 3}", **faults[kind]}
        assert await asyncio.to_thread(chaos, penstock, fault) == 200

    return uvloop.run(under_load(Crowd(penstock.port), every_second(SECONDS, turn)))


def chaos(penstock: Penstock, fault: dict[str, Any]) -> int:
    body = json.dumps(fault).encode()
    return ask(penstock.port, request("POST", "/admin/chaos", body, JSON_TYPE, f"X-Admin-Key: {ADMIN_KEY}")).status
