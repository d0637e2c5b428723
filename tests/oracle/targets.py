"""The slow, obvious twin of ext's targets, breakers and balancers: lists and fractions instead of bits and races."""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from penstock.ext import (
    BALANCE_LEAST_IN_FLIGHT,
    BALANCE_WEIGHTED,
    BREAKER_CLOSED,
    BREAKER_HALF_OPEN,
    BREAKER_OPEN,
    TAKE_FULL,
    TAKE_NONE,
    TAKE_PROBE,
)

SECOND = 10**9
KEYS = 65_536


@dataclass
class Rule:
    failures: int
    ratio: float
    window_ns: int
    min_requests: int
    recovery_ns: int


@dataclass
class Backend:
    """in_flight and waiting (lowest tag, count) by slot."""

    in_flight: Counter[int] = field(default_factory=Counter)
    lines: dict[int, tuple[int, int]] = field(default_factory=dict)
    drained: bool = False
    down: bool = False

    def wait(self, slot: int, lowest_tag: int, count: int) -> None:
        self.lines.pop(slot, None)
        if count:
            self.lines[slot] = (lowest_tag, count)

    @property
    def waiting(self) -> int:
        return sum(count for _, count in self.lines.values())

    def has_others_before(self, tag: int, slot: int) -> bool:
        if tag == 0:
            return any(lowest for lowest, _ in self.lines.values())
        return any(0 < lowest < tag for other, (lowest, _) in self.lines.items() if other != slot)


@dataclass
class Target:
    """The breaker and the latency. prober: the slot whose probe is out since turned_ns, None = none is.

    ended: when, and how many requests and failures more.
    """

    state: int = BREAKER_CLOSED
    turned_ns: int = 0
    until_ns: int = 0
    prober: int | None = None
    by_connect: bool = False
    row: int = 0
    ended: list[tuple[int, int, int]] = field(default_factory=list)
    latency_ns: int = 0
    measured_ns: int = 0
    closed_ns: int = 0

    def may(self, now: int, rule: Rule) -> str:
        """free, probe, wait or probed."""
        if self.state == BREAKER_CLOSED:
            return "free"
        if self.state == BREAKER_OPEN:
            return "wait" if now < self.until_ns else "probe"
        lost = self.prober is not None and now >= self.turned_ns + 2 * rule.recovery_ns
        return "probe" if self.prober is None or lost else "probed"

    def shown(self, now: int) -> int:
        return BREAKER_HALF_OPEN if self.state == BREAKER_OPEN and now >= self.until_ns else self.state

    def retry_in(self, now: int) -> int:
        return max(0, self.until_ns - now) if self.state == BREAKER_OPEN else 0

    def probe(self, slot: int, now: int) -> None:
        self.state, self.prober, self.turned_ns = BREAKER_HALF_OPEN, slot, now

    def give_back(self, slot: int) -> None:
        if self.state == BREAKER_HALF_OPEN and self.prober == slot:
            self.prober = None

    def window(self, now: int, window_ns: int) -> tuple[int, int]:
        part = window_ns // 10
        recent = [counts for at, *counts in self.ended if now // part - at // part < 10]
        return sum(requests for requests, _ in recent), sum(failures for _, failures in recent)

    def answered(self, probe: bool, now: int, latency_ns: int) -> bool:
        latency_ns = min(latency_ns, 60 * SECOND)
        old = self.latency_ns
        self.latency_ns = max(1, old - old // 4 + latency_ns // 4 if old else latency_ns)
        self.measured_ns = now
        if self.state == BREAKER_CLOSED:
            self.row = 0
            self.ended.append((now, 1, 0))
        if not probe or self.state != BREAKER_HALF_OPEN:
            return False
        self.state, self.row, self.ended = BREAKER_CLOSED, 0, []
        self.closed_ns = -(-now // 1000) * 1000
        return True

    def failed(self, probe: bool, now: int, connect: bool, late: bool, rule: Rule, taken: int) -> bool:
        if self.state == BREAKER_CLOSED and taken < self.closed_ns:
            return False
        self.latency_ns = min(max(2 * self.latency_ns, SECOND // 1000), 60 * SECOND) if self.latency_ns else SECOND
        self.measured_ns = now
        self.row += 1
        if self.state == BREAKER_CLOSED:
            self.ended.append((now, 0 if late else 1, 1))
        if not self._opens(probe, now, rule):
            return False
        self.state, self.until_ns, self.by_connect = BREAKER_OPEN, now + rule.recovery_ns, connect
        return True

    def _opens(self, probe: bool, now: int, rule: Rule) -> bool:
        if self.state != BREAKER_CLOSED:
            return probe and self.state == BREAKER_HALF_OPEN
        if rule.failures and self.row >= rule.failures:
            return True
        requests, failures = self.window(now, rule.window_ns)
        return rule.ratio > 0 and requests >= rule.min_requests and failures >= rule.ratio * requests

    def probe_early(self) -> bool:
        if self.state != BREAKER_OPEN or not self.by_connect:
            return False
        self.state, self.prober = BREAKER_HALF_OPEN, None
        return True

    def reset(self) -> None:
        self.state, self.row, self.ended, self.latency_ns, self.closed_ns = BREAKER_CLOSED, 0, [], 0, 0


@dataclass
class Line:
    """Start-time fair queueing."""

    served_tag: int = 0
    highest: int = 0
    next_tags: dict[int, int] = field(default_factory=dict)
    waiting: Counter[int] = field(default_factory=Counter)

    def join(self, slot: int, key: int) -> int:
        tag = max(self.served_tag, self.next_tags.get(key % KEYS, 0), 1)
        self.next_tags[key % KEYS] = tag + 1
        self.highest = max(self.highest, tag)
        self.waiting[slot] += 1
        return tag

    def leave(self, slot: int) -> None:
        self.waiting[slot] = max(0, self.waiting[slot] - 1)

    def served(self, tag: int) -> None:
        self.served_tag = max(self.served_tag, tag)


@dataclass
class Member:
    backend: Backend
    target: Target
    weight: int
    max_in_flight: int

    @property
    def in_flight(self) -> int:
        return self.backend.in_flight.total()

    @property
    def load(self) -> Fraction:
        return Fraction(self.in_flight + 1, self.weight)

    @property
    def full(self) -> bool:
        return self.max_in_flight > 0 and (self.in_flight >= self.max_in_flight or self.backend.waiting > 0)


@dataclass
class Balancer:
    slot: int
    members: list[Member]
    balance: int
    rule: Rule

    def take(self, now: int, random: int, avoid: int = 0, tag: int = 0) -> int:
        usable = self._usable(now, avoid)
        candidates = [index for index in usable if not self.members[index].backend.down] or usable
        full = bool(candidates)
        while candidates:
            index = self._pick(candidates, now, random)
            member = self.members[index]
            waits = member.max_in_flight and member.backend.has_others_before(tag, self.slot)
            if not waits and not 0 < member.max_in_flight <= member.in_flight:
                return self._taken(index, now)
            candidates.remove(index)
        return TAKE_FULL if full else TAKE_NONE

    def _usable(self, now: int, avoid: int) -> list[int]:
        return [
            index
            for index, member in enumerate(self.members)
            if not avoid >> index & 1
            and not member.backend.drained
            and member.target.may(now, self.rule) in ("free", "probe")
        ]

    def _taken(self, index: int, now: int) -> int:
        member = self.members[index]
        member.backend.in_flight[self.slot] += 1
        if member.target.may(now, self.rule) == "free":
            return index
        member.target.probe(self.slot, now)
        return index + TAKE_PROBE

    def _pick(self, candidates: list[int], now: int, random: int) -> int:
        if len(candidates) == 1:
            return candidates[0]
        if self.balance == BALANCE_LEAST_IN_FLIGHT:
            least = min(self.members[index].load for index in candidates)
            ties = [index for index in candidates if self.members[index].load == least]
            return ties[random % len(ties)]
        if self.balance == BALANCE_WEIGHTED:
            return self._by_weight(candidates, random)
        first = random % len(candidates)
        second = (first + 1 + (random >> 32) % (len(candidates) - 1)) % len(candidates)
        return self._faster(candidates[first], candidates[second], now)

    def _by_weight(self, candidates: list[int], random: int) -> int:
        tickets = [index for index in candidates for _ in range(self.members[index].weight)]
        return tickets[random % len(tickets)]

    def _faster(self, one: int, two: int, now: int) -> int:
        latencies = {index: self._latency(index, now) for index in (one, two)}
        idle_and_new = [index for index in (one, two) if not latencies[index] and not self.members[index].in_flight]
        if idle_and_new:
            return idle_and_new[0]
        measured = all(latencies.values())
        scores = {index: self.members[index].load * (latencies[index] if measured else 1) for index in (one, two)}
        return two if scores[two] < scores[one] else one

    def _latency(self, index: int, now: int) -> int:
        target = self.members[index].target
        if target.may(now, self.rule) != "free" or not target.latency_ns:
            return 0
        return max(1, target.latency_ns // 2 ** ((now - target.measured_ns) // (60 * SECOND)))

    def take_idle(self, now: int, random: int, avoid: int) -> int:
        idle = [
            index
            for index in self._usable(now, avoid)
            if not (member := self.members[index]).backend.down
            and member.target.state == BREAKER_CLOSED
            and member.in_flight == 0
            and not member.backend.has_others_before(0, self.slot)
        ]
        if not idle:
            return TAKE_NONE
        return self._taken(idle[0] if len(idle) == 1 else self._by_weight(idle, random), now)

    def release(self, taken: int) -> None:
        member = self.members[taken % TAKE_PROBE]
        member.backend.in_flight[self.slot] -= 1
        if taken >= TAKE_PROBE:
            member.target.give_back(self.slot)

    def answered(self, taken: int, now: int, latency_ns: int) -> bool:
        return self.members[taken % TAKE_PROBE].target.answered(taken >= TAKE_PROBE, now, latency_ns)

    def failed(self, taken: int, now: int, connect: bool, late: bool, since: int) -> bool:
        target = self.members[taken % TAKE_PROBE].target
        return target.failed(taken >= TAKE_PROBE, now, connect, late, self.rule, since)

    def retry_in_ns(self, now: int) -> int:
        waits = {"free": 0, "probe": 0, "probed": SECOND}
        targets = [member.target for member in self.members if not member.backend.drained]
        return min((waits.get(target.may(now, self.rule), target.retry_in(now)) for target in targets), default=0)

    def full(self, now: int, avoid: int) -> int:
        usable = self._usable(now, avoid)
        usable = [index for index in usable if not self.members[index].backend.down] or usable
        return sum(1 << index for index in usable if self.members[index].full)

    def view(self, now: int) -> list[tuple[bool, str, int, int, int, int, int, int]]:
        return [self._view(member, now) for member in self.members]

    def _view(self, member: Member, now: int) -> tuple[bool, str, int, int, int, int, int, int]:
        target, why = member.target, self._why(member, now)
        facts = (target.shown(now), target.row, target.retry_in(now), target.latency_ns)
        return (why == "", why, member.in_flight, member.backend.waiting, *facts)

    def _why(self, member: Member, now: int) -> str:
        may = member.target.may(now, self.rule)
        reasons = {
            "drained": member.backend.drained,
            "open": may == "wait",
            "half_open": may == "probed",
            "full": member.full,
            "down": member.backend.down,
        }
        return next((why for why, holds in reasons.items() if holds), "")
