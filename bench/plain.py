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
    ways = (stand.penstock, stand.nginx)
    cost: dict[str, list[float]] = {way.name: [] for way in ways}
    speed: dict[str, list[float]] = {way.name: [] for way in (*ways, stand.direct)}
    async with Load(stand.penstock.plain, CONNECTIONS) as a, Load(stand.nginx.plain, CONNECTIONS) as b:
        loads = {stand.penstock.name: a, stand.nginx.name: b}
        for way in ways:
            await round_of(way, loads[way.name], warm_s)
        for number in range(rounds):
            for way in ways:
                cpu_s, per_s = await round_of(way, loads[way.name], round_s)
                cost[way.name].append(cpu_s)
                speed[way.name].append(per_s)
            say(f"plain {number + 1}/{rounds}: {cost['penstock'][-1] * 1e6:.1f} : {cost['nginx'][-1] * 1e6:.1f} µs")
    async with Load(stand.direct.plain, CONNECTIONS) as load:
        speed["direct"].append((await round_of(stand.direct, load, round_s))[1])
    return Ratios("plain", "CPU per request", cost, GATE, per_s=speed).figure()


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
