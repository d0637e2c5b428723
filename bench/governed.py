"""Scenario "governed": what keys, limits, budgets, usage rows and the log add to a plain request, each and all."""

import contextlib
import tomllib
from statistics import median

from bench.figures import Figure, say
from bench.load import Load
from bench.plain import CONNECTIONS, round_of
from bench.processes import ROOT
from bench.stand import CONFIG, Stand, Way, variant
from bench.wire import KEY

PARTS = {name: part["text"] for name, part in tomllib.loads((ROOT / "bench" / "governed.toml").read_text()).items()}
# What a variant is made of; "log" is a line per request instead of none. Rows go to SQLite unless there are none.
VARIANTS: dict[str, tuple[str, ...]] = {
    "key": ("key", "unlimited", "no_rows"),
    "key, limits": ("key", "limits", "no_rows"),
    "key, limits, budget": ("key", "limits", "budget", "no_rows"),
    "rows": (),
    "log": ("no_rows", "log"),
    "all": ("key", "limits", "budget", "log"),
}
GATE_NGINX = 4.5
GATE_BARE = 1.35


async def measure(stand: Stand, *, rounds: int, round_s: float, warm_s: float) -> list[Figure]:
    """Everything on, beside nginx and beside penstock bare, in turn."""
    return _gated(await _compared(stand, ("all",), rounds, round_s, warm_s))


async def parts(stand: Stand, *, rounds: int, round_s: float, warm_s: float) -> list[Figure]:
    """What each part adds, for information: eight servers share the machine, so all of them cost more than alone."""
    cost = await _compared(stand, tuple(VARIANTS), rounds, round_s, warm_s)
    return [_added(name, cost) for name in VARIANTS]


async def _compared(
    stand: Stand, names: tuple[str, ...], rounds: int, round_s: float, warm_s: float
) -> dict[str, list[float]]:
    """CPU seconds per request, round by round: of nginx, of penstock bare and of each variant, in turn."""
    async with contextlib.AsyncExitStack() as stack:
        ways = {"nginx": stand.nginx, "bare": stand.penstock}
        for name in names:
            text = configuration(VARIANTS[name])
            ways[name] = stack.enter_context(variant(stand, name, text, {"BENCH_KEY": KEY}))
        loads = {name: await stack.enter_async_context(Load(way.plain, CONNECTIONS)) for name, way in ways.items()}
        for name, way in ways.items():
            await round_of(way, loads[name], warm_s)
        return await _rounds(ways, loads, rounds, round_s)


async def _rounds(ways: dict[str, Way], loads: dict[str, Load], rounds: int, round_s: float) -> dict[str, list[float]]:
    cost: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            cost[name].append((await round_of(way, loads[name], round_s))[0])
        say(f"governed {number + 1}/{rounds}: " + ", ".join(f"{name} {c[-1] * 1e6:.1f}" for name, c in cost.items()))
    return cost


def configuration(parts: tuple[str, ...]) -> str:
    """bench.toml with the parts of a variant in place of its own store and log."""
    text = CONFIG.read_text().replace(PARTS["no_rows"].strip(), "")
    if "log" in parts:
        text = text.replace('level = "warning"', 'level = "info"')
    return text + "".join(PARTS[part] for part in parts if part != "log")


def _added(name: str, cost: dict[str, list[float]]) -> Figure:
    """What a variant costs more than the bare way, in µs, round by round."""
    added = [(a - b) * 1e6 for a, b in zip(cost[name], cost["bare"], strict=True)]
    ours, theirs = median(cost[name]) * 1e6, median(cost["nginx"]) * 1e6
    return Figure(
        "parts", f"{name}: added to bare", "µs", ours, theirs, median(added), "µs", min(added), max(added), None
    )


def _gated(cost: dict[str, list[float]]) -> list[Figure]:
    ours, theirs = median(cost["all"]) * 1e6, median(cost["nginx"]) * 1e6
    rounds = {"rounds_us": {name: [round(c * 1e6, 2) for c in costs] for name, costs in cost.items()}}
    figures = []
    for other, unit, gate in (("nginx", "× nginx", GATE_NGINX), ("bare", "× bare", GATE_BARE)):
        ratios = [a / b for a, b in zip(cost["all"], cost[other], strict=True)]
        figures.append(
            Figure(
                "governed",
                "CPU per request, everything on",
                "µs",
                ours,
                theirs,
                median(ratios),
                unit,
                min(ratios),
                max(ratios),
                gate,
                rounds,
            )
        )
    return figures
