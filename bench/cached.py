"""Scenario "cache": CPU time per kept answer, beside nginx that has the same answer in its configuration."""

from bench.figures import Figure, Ratios, say
from bench.load import Load
from bench.plain import CONNECTIONS, round_of
from bench.stand import CONFIG, Stand, returner, variant

GATE = 6
CACHE = "\n[cache]\nttl_s = 3600\n"


async def measure(stand: Stand, *, rounds: int, round_s: float, warm_s: float) -> Figure:
    """Rounds of penstock, which asks its backend once, and of nginx `return 200` in turn."""
    with variant(stand, "penstock", CONFIG.read_text() + CACHE, {}) as kept, returner() as given:
        ways = (kept, given)
        cost: dict[str, list[float]] = {way.name: [] for way in ways}
        speed: dict[str, list[float]] = {way.name: [] for way in ways}
        async with Load(kept.plain, CONNECTIONS) as a, Load(given.plain, CONNECTIONS) as b:
            loads = {kept.name: a, given.name: b}
            for way in ways:
                await round_of(way, loads[way.name], warm_s)
            for number in range(rounds):
                for way in ways:
                    cpu_s, per_s = await round_of(way, loads[way.name], round_s)
                    cost[way.name].append(cpu_s)
                    speed[way.name].append(per_s)
                say(f"cache {number + 1}/{rounds}: {cost['penstock'][-1] * 1e6:.1f} : {cost['nginx'][-1] * 1e6:.1f} µs")
    return Ratios("cache", "CPU per kept answer", cost, GATE, per_s=speed).figure()
