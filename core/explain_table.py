"""An explanation as text for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

HEADINGS = ("target", "chance", "weight", "in flight", "breaker", "latency", "why not")
Facts = Mapping[str, Any]


def explanation_text(facts: Facts) -> str:
    """What POST /admin/explain answers. Facts that are not there are left out: from the file alone few are known."""
    parts = chain(
        _request(facts), _groups(facts.get("groups") or ()), _limits(facts.get("limits") or ()), _verdict(facts)
    )
    # Names come from strangers and from backends: nothing in them may steer a terminal.
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in "\n".join(parts))


def _request(facts: Facts) -> Iterable[str]:
    yield f"{facts.get('model') or '(no model)'} by {facts.get('endpoint') or '(no such path)'}"
    if facts.get("key_id"):
        tier = f", tier {facts['tier']}" if facts.get("tier") else ""
        yield f"key {facts['key_id']}{tier}"


def _groups(groups: Sequence[Facts]) -> Iterable[str]:
    for number, group in enumerate(groups):
        yield ""
        if number:
            yield f"if none of these can: {group['model']} ({group['balance']})"
        else:
            yield f"targets ({group['balance']})"
        yield from columns([HEADINGS, *(_target(each) for each in group["targets"])])


def _target(each: Facts) -> tuple[str, ...]:
    most = each.get("max_in_flight")
    in_flight = "-" if each.get("in_flight") is None else str(each["in_flight"])
    return (
        each["target"],
        "-" if each.get("chance") is None else f"{each['chance']:.0%}",
        str(each["weight"]),
        f"{in_flight} of {most}" if most else in_flight,
        each.get("breaker") or "-",
        "-" if each.get("latency_ms") is None else f"{each['latency_ms']:,.1f} ms",
        each.get("why") or "",
    )


def _limits(limits: Sequence[Facts]) -> Iterable[str]:
    if not limits:
        return
    yield ""
    rows = [("limit", "of", "used", "limit", "until", "")]
    for each in limits:
        used = "-" if each.get("used") is None else f"{each['used']:,}"
        refuses = "too little is left" if each.get("refuses") else ""
        rows.append((each["name"], each["scope"], used, f"{each['limit']:,}", each.get("window_reset") or "-", refuses))
    yield from columns(rows)


def _verdict(facts: Facts) -> Iterable[str]:
    if "refused" in facts:
        yield ""
    if worst := facts.get("worst_case"):
        usd = "without a price" if worst["usd"] is None else f"{worst['usd']:.6f} USD"
        yield f"worst case: {worst['tokens']:,} tokens, {usd}"
    if facts.get("waiting"):
        yield f"in line: {facts['waiting']} requests wait for a place"
    if refused := facts.get("refused"):
        yield f"refused: {refused['status']} {refused['code']}: {refused['message']}"
    elif "refused" in facts:
        yield "it would be admitted"


def columns(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Aligned by two spaces, each line indented by as many."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
