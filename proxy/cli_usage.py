"""`penstock usage`: what was used and what it cost, as a table; `penstock usage archive`: old months into files."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from penstock.proxy.store import NANO, Grouping, Report, ReportLine, Store, StoreError

if TYPE_CHECKING:
    from penstock.proxy.store.archive import Archived

FAILED = 1
WRONG_USE = 2
DEFAULT_SINCE = "30d"
SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
HEADINGS = ("requests", "failed", "refused", "cancelled", "tokens", "cost USD", "cache hits", "p50 ms", "p95 ms")
LONGEST_NAME = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _config_argument(parser, None)
    parser.add_argument("--by", choices=get_args(Grouping), default="user", help="what is summed up; default: user")
    since_help = f"24h, 7d, 2w, or a time in UTC such as 2026-11-01 or 2026-11-01T08:30; default: {DEFAULT_SINCE}"
    parser.add_argument("--since", metavar="TIME", type=moment, default=moment(DEFAULT_SINCE), help=since_help)
    parser.add_argument("--until", metavar="TIME", type=moment, default=moment("0m"), help="likewise; default: now")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    actions = parser.add_subparsers(dest="action", metavar="archive", title="instead of a report")
    summary = "move whole months of old usage to files, as a running server does every day"
    old = actions.add_parser("archive", help=summary, description=f"{summary}.", allow_abbrev=False)
    _config_argument(old, argparse.SUPPRESS)
    old.add_argument("--older-than", metavar="DAYS", type=_days, help="default: store.keep_days of the configuration")


def run(arguments: argparse.Namespace) -> int:
    """The exit code: 0 done, 1 failed, 2 wrong use."""
    from penstock.core.config_problem import ConfigError
    from penstock.proxy.settings import load, locate

    try:
        settings = load(locate(arguments.config))
    except ConfigError as error:
        return _complain(str(error))
    if settings.config.store.url == "none":
        return _complain('penstock: no usage is kept: store.url is "none"')
    now = datetime.now(UTC).timestamp()
    return in_folder(Path(settings.config.server.state_dir), arguments, now, settings.config.store.keep_days)


def in_folder(state_dir: Path, arguments: argparse.Namespace, now: float, keep_days: int) -> int:
    """Do what was asked with the store of a state folder."""
    from penstock.proxy.store.archive import ArchiveError
    from penstock.proxy.store.sqlite import SqliteStore

    path = state_dir / "penstock.db"
    if not path.exists():
        print(f"no usage: nothing has been served with the state folder {state_dir} yet", file=sys.stderr)
        return 0
    store = SqliteStore(path)
    try:
        store.migrate()
        if arguments.action == "archive":
            return _archive(store, state_dir / "archive", arguments, now, keep_days)
        return _report(store, arguments, now)
    except (StoreError, ArchiveError) as error:
        return _complain(f"penstock: {error}")
    finally:
        store.close()


# --- report --------------------------------------------------------------------------------------------


def moment(words: str) -> Callable[[float], float]:
    """A time as people say it -> what gives its epoch s when told the time now."""
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", words):
        seconds = int(ago[1]) * SECONDS[ago[2]]
        return lambda now: now - seconds
    try:
        at = datetime.fromisoformat(words)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected something like 24h, 7d, 2026-11-01 or 2026-11-01T08:30, not {words!r}"
        ) from None
    epoch_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return lambda now: epoch_s


def _report(store: Store, arguments: argparse.Namespace, now: float) -> int:
    since, until = max(arguments.since(now), 0.0), arguments.until(now)
    if since >= until:
        print("penstock: --since must be before --until", file=sys.stderr)
        return WRONG_USE
    found = store.report(arguments.by, since, until)
    if arguments.json:
        import msgspec

        print(msgspec.json.encode(as_json(found, arguments.by, since, until)).decode())
    elif found.lines:
        print(f"usage by {arguments.by} from {_minute(since)} to {_minute(until)} UTC\n")
        print(table(found, arguments.by))
    else:
        print(f"no usage from {_minute(since)} to {_minute(until)} UTC")
    return 0


def table(found: Report, by: str) -> str:
    """Aligned columns, names to the left and figures to the right, the total last."""
    lines = [(by, *HEADINGS), *(_cells(line, _shown(line.name)) for line in found.lines), _cells(found.total, "total")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(row)).rstrip()
        for row in (list(zip(line, widths, strict=True)) for line in lines)
    )


def as_json(found: Report, by: str, since: float, until: float) -> dict[str, Any]:
    """The report with money in USD and times in ISO 8601."""
    return {
        "by": by,
        "since": _iso(since),
        "until": _iso(until),
        "lines": [_fields(line) for line in found.lines],
        "total": _fields(found.total),
    }


def _fields(line: ReportLine) -> dict[str, Any]:
    fields = line._asdict()
    fields["cost_usd"] = fields.pop("nano_usd") / NANO
    return fields


def _cells(line: ReportLine, name: str) -> Sequence[str]:
    counts = (line.requests, line.failed, line.refused, line.cancelled, line.total_tokens)
    return (
        name,
        *(f"{count:,}" for count in counts),
        _usd(line.nano_usd),
        f"{line.cached:,}",
        _ms(line.p50_ms),
        _ms(line.p95_ms),
    )


def _usd(nano_usd: int) -> str:
    return "<0.0001" if 0 < nano_usd < 100_000 else f"{nano_usd / NANO:,.4f}"


def _ms(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:,.0f}" if ms >= 10 else f"{ms:.1f}"


def _shown(name: str) -> str:
    """Names of models come from strangers: nothing in them may steer a terminal."""
    plain = "".join(character if character.isprintable() else "?" for character in name) or "(none)"
    return plain if len(plain) <= LONGEST_NAME else f"{plain[:LONGEST_NAME]}…"


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- archive -------------------------------------------------------------------------------------------


def _archive(store: Store, folder: Path, arguments: argparse.Namespace, now: float, keep_days: int) -> int:
    from penstock.proxy.store.archive import DAY_S, archive

    days = keep_days if arguments.older_than is None else arguments.older_than
    if not days and arguments.older_than is None:
        print("penstock: store.keep_days is 0 (all stays); --older-than DAYS says what to move", file=sys.stderr)
        return WRONG_USE
    progress = Progress(sys.stderr)
    done = archive(store, folder, now - days * DAY_S, progress.show)
    progress.end()
    print(_moved(done, folder, days))
    return 0


def _moved(done: "Archived", folder: Path, days: int) -> str:
    if not done.rows:
        return f"nothing to archive: no whole month is older than {days} days"
    rows = "1 row" if done.rows == 1 else f"{done.rows:,} rows"
    return f"{rows} of {', '.join(done.months)} moved to {folder}"


class Progress:
    """A line on a terminal that is written over; nothing elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shows = out.isatty()
        self._width = 0

    def show(self, month: str, rows: int, doing: str) -> None:
        if self._shows:
            line = f"{month}: {rows:,} rows {doing}"
            self._out.write(f"\r{line.ljust(self._width)}")
            self._out.flush()
            self._width = len(line)

    def end(self) -> None:
        if self._width:
            self._out.write("\n")


# --- both ----------------------------------------------------------------------------------------------


def _config_argument(parser: argparse.ArgumentParser, default: Any) -> None:
    words = "default: penstock.toml in this folder, if it is there"
    parser.add_argument("--config", metavar="FILE", default=default, help=words)


def _days(text: str) -> int:
    if not text.isdecimal() or int(text) > 36_500:
        raise argparse.ArgumentTypeError("expected a number of days from 0 to 36500")
    return int(text)


def _complain(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED
