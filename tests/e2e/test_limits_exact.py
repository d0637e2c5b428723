"""Limits and budgets are exact: whatever the number of workers, and while workers die."""

import asyncio
import signal
from time import time

import httpx
from governed import AUTH, CHAT, KEY, governed
from hammer import Hammer

from running import Demo, Penstock

LIMIT = 1_000


def within_one_hour(seconds: float) -> None:
    """A test that counts within one calendar hour must not begin at its end."""
    assert time() % 3600 < 3600 - seconds, "the hour ends in the middle of this test: run it again in a minute"


def test_an_hourly_limit_is_exact_over_four_workers() -> None:
    within_one_hour(60)
    with Demo("--rate", "0") as demo, governed(demo, f"requests_per_hour = {LIMIT}", workers=4) as penstock:
        told = asyncio.run(Hammer(penstock.port, KEY).ask(64, 20 * LIMIT))
        assert told.statuses == {200: LIMIT, 429: 19 * LIMIT}
        assert not told.lost
        assert all(0 < wait <= 3600 for wait in told.retry_after)


def test_a_killed_worker_never_makes_room() -> None:
    async def scene(penstock: Penstock) -> Hammer:
        hammer = Hammer(penstock.port, KEY)
        asking = asyncio.ensure_future(hammer.ask(64, 20 * LIMIT))
        for _ in range(6):
            await asyncio.sleep(0.15)
            penstock.workers()[0].send_signal(signal.SIGKILL)
        await asking
        return hammer

    within_one_hour(60)
    with (
        Demo("--rate", "0", "--first-ms", "20") as demo,
        governed(demo, f"requests_per_hour = {LIMIT}", workers=4) as penstock,
    ):
        told = asyncio.run(scene(penstock)).told
        # What was admitted and died with its worker is counted too: nobody can know that it was not answered.
        assert LIMIT - len(told.lost) <= told.statuses[200] <= LIMIT
        assert told.lost, "no request died, so the test has shown nothing"


BUDGET = "usd_per_day = 0.0007\nmax_output_tokens = 100"
PRICE = """
[models.demo]
targets = ["demo"]
price = { input_usd_per_mtok = 0, output_usd_per_mtok = 1.0 }
"""


def test_a_budget_is_never_exceeded_and_can_be_spent_to_the_last_request() -> None:
    """A worst case is 100 tokens at 1 USD per million: the budget holds seven of them at once."""
    with (
        Demo("--rate", "0", "--tokens", "40", "--first-ms", "300") as demo,
        governed(demo, BUDGET, more=PRICE) as penstock,
    ):
        at_once = asyncio.run(Hammer(penstock.port, KEY).ask(200, 200))
        assert at_once.statuses == {200: 7, 429: 193}, "seven worst cases fit at once"
        # Settled: 7 x 40 tokens. What is left, 420 tokens, is spent one by one while a worst case fits.
        spent = 7 * 40
        after = 0
        while spent + 100 <= 700:
            answer = httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT, headers=AUTH)
            assert answer.status_code == 200, answer.text
            spent += answer.json()["usage"]["completion_tokens"]
            after += 1
        assert after >= 7
        refused = httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT, headers=AUTH)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "budget_exceeded"
        # A smaller worst case still fits.
        small = httpx.post(f"{penstock.url}/v1/chat/completions", json=CHAT | {"max_tokens": 700 - spent}, headers=AUTH)
        assert small.status_code == 200
        usage = httpx.get(f"{penstock.url}/usage", headers=AUTH).json()
        assert usage["cost_usd"] <= 0.0007
