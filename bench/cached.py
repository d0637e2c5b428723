"""Scenario "cache": CPU time per kept answer, beside nginx that has the same answer in its configuration."""

from bench.figures import Figure, Ratios
from bench.plain import in_turn
from bench.stand import CONFIG, Stand, returner, variant

GATE = 6
CACHE = "\n[cache]\nttl_s = 3600\n"


async def measure(stand: Stand, *, rounds: int, round_s: float, warm_s: float) -> Figure:
    """Rounds of penstock, which asks its backend once, and of nginx `return 200` in turn."""
    with variant(stand, "penstock", CONFIG.read_text() + CACHE, {}) as kept, returner() as given:
        cost, speed = await in_turn("cache", (kept, given), rounds, round_s, warm_s)
    return Ratios("cache", "CPU per kept answer", cost, GATE, per_s=speed).figure()
