"""The two compiled ends of a request: what they do in one call is what their parts do one by one."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.bill import make_bill
from penstock.core.cost import Price
from penstock.core.endpoint import match
from penstock.core.plan import Plan, Timeouts, make_plan, upstream
from penstock.core.prices import Terms
from penstock.core.route import Route, Target
from penstock.ext import (
    COLUMNS,
    FLAG_BACKEND,
    FLAG_CACHED,
    MEASURE_IN_FLIGHT,
    MEASURE_LLM_REQUESTS,
    MEASURE_NANO_USD,
    MEASURE_REQUESTS,
    MEASURE_TOKENS,
    OUTCOME_ANSWERED,
    WINDOW_DAY,
    WINDOW_HOUR,
    WINDOW_NONE,
    Account,
    Entry,
    LogLines,
    Refusal,
    RequestHead,
    Rings,
    Spool,
    State,
    Usage,
    access_line,
    peek,
)

WALL = 1_795_230_000_123_456_789
NAMES = (b"key_1", b"tenant", b"user", b"free")
REQUESTS = (b"requests_per_hour", 1, MEASURE_REQUESTS, WINDOW_HOUR, 0, 10**9)
TOKENS = (b"tokens_per_day", 2, MEASURE_TOKENS, WINDOW_DAY, 0, 10**12)
MONEY = (b"usd_per_day", 3, MEASURE_NANO_USD, WINDOW_DAY, 0, 10**14)
LLM_REQUESTS = (b"llm_requests_per_day", 4, MEASURE_LLM_REQUESTS, WINDOW_DAY, 0, 10**9)
IN_FLIGHT = (b"in_flight", 5, MEASURE_IN_FLIGHT, WINDOW_NONE, 0, 100)
CHAT = match("POST", b"/v1/chat/completions")
PRICE = Price(input_pico=2_500_000, cached_pico=1_000_000, output_pico=10_000_000, reasoning_pico=10_000_000)
HEAD = RequestHead([(b"host", b"a"), (b"user-agent", b"curl/8")])

members = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(0, 10_000),
        "n": st.integers(1, 5),
        "stream": st.booleans(),
        "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
        "messages": st.text(max_size=300),
    },
)


class Place:
    def __init__(self, folder: Path) -> None:
        self.state = State(str(folder / "state.shm"), b"boot", 1024)
        self.spool = Spool(str(folder / "spool"), self.state, 4096)
        self.rings = Rings(str(folder / "spool"), self.state)

    def account(self, *limits: tuple[bytes, int, int, int, int, int]) -> Account:
        return Account(self.state, list(limits), *NAMES)

    def rows(self) -> list[dict[str, object]]:
        taken = [dict(zip(COLUMNS, row, strict=True)) for row in self.rings.take(1000)]
        self.rings.free()
        return taken


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def plan(longest: int | None = None) -> Plan:
    one = upstream("one", "openai", "http://127.0.0.1:1/v1", b"", Timeouts(2, 30, 120, 60, 600))
    return make_plan(CHAT, "tiny", Route.to(Target("one")), {"one": one}, lambda model, target: Terms(PRICE, longest))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(members, st.none() | st.integers(1, 9000), st.none() | st.integers(1, 9000))
def test_what_a_tariff_holds_is_the_worst_case_of_the_bill(
    place: Place, fields: dict[str, object], longest: int | None, tier: int | None
) -> None:
    body, made = json.dumps(fields).encode(), plan(longest)
    facts, account = peek(body), place.account(TOKENS, MONEY)
    before = [limit[4] for limit in account.standing(1, WALL)]
    assert made.tariff is not None
    entry = place.spool.admit_by(account, made.tariff, b"r", facts, body, tier, 1, WALL)
    assert isinstance(entry, Entry)
    held = tuple(limit[4] - used for limit, used in zip(account.standing(1, WALL), before, strict=True))
    bill = make_bill(CHAT, [(Terms(PRICE, longest), "openai", 600.0)])
    cap = bill.output_cap(facts.max_output_tokens, tier)
    assert held == bill.worst(body, len(body), facts.choices, cap)
    assert entry.output_cap == (cap if facts.max_output_tokens is None else 0)
    assert entry.ask_usage == (facts.stream is True and not facts.include_usage)
    entry.close(OUTCOME_ANSWERED, 200, b"one", None, 0, 0, 1.0, 1.0, b"")
    place.rows()


def test_an_account_without_such_limits_holds_nothing(place: Place) -> None:
    body = b'{"stream":true}'
    tariff = plan().tariff
    assert tariff is not None
    entry = place.spool.admit_by(place.account(REQUESTS), tariff, b"r", peek(body), body, None, 1, WALL)
    assert isinstance(entry, Entry)
    assert (entry.output_cap, entry.ask_usage) == (0, False)


def test_a_refusal_says_what_was_needed(place: Place) -> None:
    tariff = plan().tariff
    assert tariff is not None
    account = place.account((*MONEY[:5], 1))
    refusal = place.spool.admit_by(account, tariff, b"r", peek(b"{}"), b"{}", None, 1, WALL)
    assert isinstance(refusal, Refusal)
    assert refusal.never
    assert (refusal.tokens, refusal.nano_usd) == plan().bill.worst(b"{}", 2, 1, plan().bill.output_cap(None, None))


def test_a_hit_is_a_request_in_flight_and_nothing_else(place: Place) -> None:
    tariff = plan().tariff
    assert tariff is not None
    account = place.account(REQUESTS, (*TOKENS[:5], 0), (*MONEY[:5], 0), (*LLM_REQUESTS[:5], 0), (*IN_FLIGHT[:5], 1))

    def used() -> list[int]:
        return [limit[4] for limit in account.standing(1, WALL)]

    entry = place.spool.admit_hit(account, tariff, b"r1", 1, WALL)
    assert isinstance(entry, Entry)
    assert (used(), entry.output_cap, entry.ask_usage) == ([1, 0, 0, 0, 1], 0, False)
    refusal = place.spool.admit_hit(account, tariff, b"r2", 1, WALL)
    assert isinstance(refusal, Refusal)
    assert (refusal.index, refusal.tokens, refusal.nano_usd) == (4, 0, 0)
    entry.close(OUTCOME_ANSWERED, 200, b"", Usage(12, 9), 0, FLAG_CACHED, 1.0, 1.0, b"")
    assert used() == [1, 0, 0, 0, 0]
    (row,) = place.rows()
    assert (row["response_cached"], row["model_used"], row["prompt_tokens"], row["cost_usd"]) == (1, "tiny", 12, 0)


@pytest.mark.parametrize("writes", [True, False])
def test_settling_is_closing_and_a_line(place: Place, writes: bool) -> None:
    quote, log = plan().targets[0].quote, LogLines()
    assert quote is not None
    usage = Usage(120, 90, 20, 5)
    one, two = (
        place.spool.admit(place.account(TOKENS, MONEY), b"/x", b"tiny", b"r", 500, 9_000_000, 1, WALL) for _ in "ab"
    )
    assert isinstance(one, Entry)
    assert isinstance(two, Entry)
    spent = one.settle(
        quote, usage, "one", 200, 2, 10.0, 10.25, 10.5, log if writes else None, WALL, b"r", HEAD, "POST",
        b"/v1/x", "/v1/*", "tiny", "203.0.113.7",
    )  # fmt: skip
    assert spent == quote.cost(usage)
    two.close(OUTCOME_ANSWERED, 200, b"one", usage, spent, FLAG_BACKEND, 500.0, 250.0, b"")
    first, second = place.rows()
    assert {**first, "id": 0} == {**second, "id": 0}
    assert place.account(TOKENS, MONEY).standing(1, WALL)[0][4] == 2 * (120 + 90)
    line = access_line(
        "2026-11-21T03:00:00.123Z", "info", b"r", "POST", b"/v1/x", "/v1/*", 200, 10.0, 10.5, 10.25, "203.0.113.7",
        b"curl/8", "key_1", "user", "tenant", "tiny", "one", 2, 120, 90, spent, None, None, None,
    )  # fmt: skip
    assert log.take() == ((line, 1) if writes else (b"", 0))


def test_lines_stand_in_order_and_are_taken_once() -> None:
    log = LogLines()
    log.push(b"one\n")
    log.push(b"two\n")
    assert log.take() == (b"one\ntwo\n", 2)
    assert log.take() == (b"", 0)
