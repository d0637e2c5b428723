"""The report: a Markdown table for the README, and everything as JSON."""

import json
from pathlib import Path
from typing import Any

from bench.figures import Figure

METHOD = {
    "cpu": "user + system time of the whole process tree, by the kernel's CPU clocks",
    "ratio": "median over rounds of (penstock's round / the nginx round after it), least and greatest in brackets",
    "rounds": "penstock, nginx, penstock, nginx … against the same upstream in one run, after a warm-up",
    "penstock": "config/bench.toml: 1 worker, no governance, no line per request",
    "nginx": "proxy_pass, 1 worker, upstream keep-alive, HTTP/1.1, no access log; proxy_buffering off for streams",
    "answers": "every answer and stream is checked: status 200, whole, in order",
}
HEADER = "| scenario | penstock | nginx | judged | gate | |\n|---|---|---|---|---|---|"


def markdown(machine: dict[str, Any], versions: dict[str, str], figures: list[Figure]) -> str:
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    place = "{cpu}, {cores} cores, {system}, kernel {kernel}".format(**machine)
    return "\n".join([HEADER, *(_row(figure) for figure in figures), "", f"{place}; {told}."])


def _row(figure: Figure) -> str:
    gate = "" if figure.gate is None else f"≤ {figure.gate:g} {figure.value_unit}"
    nginx = "–" if figure.nginx is None else _number(figure.nginx, figure.unit)
    speed = figure.more.get("per_s") or {}
    rates = "; {penstock:,} : {nginx:,} requests/s".format(**speed) if speed else ""
    judged = f"{_number(figure.value, figure.value_unit)} ({_bare(figure.low)}–{_bare(figure.high)})"
    what = f"{figure.scenario}: {figure.what}{rates}"
    return f"| {what} | {_number(figure.penstock, figure.unit)} | {nginx} | {judged} | {gate} | {figure.verdict} |"


def _number(value: float, unit: str) -> str:
    return f"{_bare(value)} {unit}"


def _bare(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write_json(
    file: Path, machine: dict[str, Any], versions: dict[str, str], figures: list[Figure], *, short: bool
) -> None:
    document = {
        "machine": machine,
        "versions": versions,
        "method": METHOD,
        "short": short,
        "figures": [figure.as_json() for figure in figures],
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
