"""Scenario "plain": CPU time per request, a 1 KB chat and its 1 KB answer, 64 connections."""

import time

from bench.figures import Figure, Ratios, say
from bench.load import Load
from bench.stand import Stand, Way

CONNECTIONS = 64
SETTLE_S = 0.1
GATE = 3.5


async def measure(stand: Stand, *, rounds: int, round_s: float, warm_s: float) -> Figure:
    """Rounds of penstock and nginx in turn, and of the upstream itself for its speed."""
    cost, speed = await in_turn("plain", (stand.penstock, stand.nginx), rounds, round_s, warm_s)
    async with Load(stand.direct.plain, CONNECTIONS) as load:
        speed[stand.direct.name] = [(await round_of(stand.direct, load, round_s))[1]]
    return Ratios("plain", "CPU per request", cost, GATE, per_s=speed).figure()


async def in_turn(
    scenario: str, ways: tuple[Way, Way], rounds: int, round_s: float, warm_s: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Rounds of two ways by turns: CPU seconds per request, and requests per second, by the way's name."""
    cost: dict[str, list[float]] = {way.name: [] for way in ways}
    speed: dict[str, list[float]] = {way.name: [] for way in ways}
    async with Load(ways[0].plain, CONNECTIONS) as a, Load(ways[1].plain, CONNECTIONS) as b:
        loads = {ways[0].name: a, ways[1].name: b}
        for way in ways:
            await round_of(way, loads[way.name], warm_s)
        for number in range(rounds):
            for way in ways:
                cpu_s, per_s = await round_of(way, loads[way.name], round_s)
                cost[way.name].append(cpu_s)
                speed[way.name].append(per_s)
            ours, theirs = (cost[way.name][-1] * 1e6 for way in ways)
            say(f"{scenario} {number + 1}/{rounds}: {ours:.1f} : {theirs:.1f} µs")
    return cost, speed


async def round_of(way: Way, load: Load, seconds: float) -> tuple[float, float]:
    """CPU seconds per request (0 for the direct way) and requests per second."""
    load.start()
    await load.run(SETTLE_S)
    answers, start, cpu_s = load.answers, time.perf_counter(), _cpu_s(way)
    await load.run(seconds)
    used_s, took_s, count = _cpu_s(way) - cpu_s, time.perf_counter() - start, load.answers - answers
    await load.stop()
    return used_s / count, count / took_s


def _cpu_s(way: Way) -> float:
    return way.child.cpu_s() if way.child is not None else 0.0
