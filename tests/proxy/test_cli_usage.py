"""`penstock usage`: the table, JSON, times as people write them, and the archive by hand."""

import argparse
import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from stored import NOW, row

from penstock.proxy.cli_usage import FAILED, WRONG_USE, Progress, add_arguments, in_folder, moment
from penstock.proxy.store.archive import DAY_S
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import instant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "penstock.db")
    store.migrate()
    store.insert_rows(
        [
            *(row(each, NOW - 60, response_time_ms=float(each)) for each in range(1, 1201)),
            row(2001, NOW - 60, user_id="bob", cost_nano_usd=99_999, response_time_ms=2.25),
            row(2002, NOW - 60, user_id="bob", outcome="failed", cost_nano_usd=0),
            row(2003, NOW - 60, user_id=None, outcome="refused", total_tokens=0, cost_nano_usd=0),
            row(2004, NOW - 2 * DAY_S, model_used="evil\x1b[2J\n", response_cached=1),
            row(2005, NOW - 40 * DAY_S),
            row(2006, NOW - 80 * DAY_S),
        ]
    )
    store.close()
    return tmp_path


def usage(folder: Path, *argv: str, keep_days: int = 400) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    return in_folder(folder, parser.parse_args(argv), NOW, keep_days)


def test_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--since", "24h") == 0
    assert capsys.readouterr().out == (
        "usage by user from 2026-11-20 08:05 to 2026-11-21 08:05 UTC\n"
        "\n"
        "user    requests  failed  refused  cancelled  tokens  cost USD  cache hits  p50 ms  p95 ms\n"
        "ada        1,200       0        0          0  18,000    2.4000           0     600   1,140\n"
        "bob            2       1        0          0      30   <0.0001           0     2.2     2.2\n"
        "(none)         1       0        1          0       0    0.0000           0       -       -\n"
        "total      1,203       1        1          0  18,030    2.4001           0     600   1,140\n"
    )


def test_names_cannot_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--since", "7d", "--by", "model") == 0
    text = capsys.readouterr().out
    assert "evil?[2J?" in text
    assert "\x1b" not in text


def test_by_day_is_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--by", "day") == 0
    days = [line.split()[0] for line in capsys.readouterr().out.splitlines()[3:]]
    assert days == ["2026-11-19", "2026-11-21", "total"]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--json", "--since", "2026-11-19", "--until", "2026-11-20") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["by"], told["since"], told["until"]) == ("user", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")
    assert len(told["lines"]) == 1
    assert told["lines"][0] | {"name": ""} == told["total"]
    assert (told["total"]["requests"], told["total"]["cost_usd"], told["total"]["cached"]) == (1, 0.002, 1)


def test_no_usage_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--since", "2020-01-01", "--until", "2020-02-01") == 0
    assert capsys.readouterr().out == "no usage from 2020-01-01 00:00 to 2020-02-01 00:00 UTC\n"
    assert usage(tmp_path / "new") == 0
    assert "nothing has been served" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("90m", NOW - 5400),
        ("24h", NOW - 86_400),
        ("7d", NOW - 7 * 86_400),
        ("2w", NOW - 14 * 86_400),
        ("2026-11-01", instant("2026-11-01")),
        ("2026-11-01T08:30", instant("2026-11-01 08:30")),
        ("2026-11-01T08:30:00Z", instant("2026-11-01 08:30")),
        ("2026-11-01T08:30+02:00", instant("2026-11-01 06:30")),
    ],
)
def test_times(words: str, wanted: float) -> None:
    assert moment(words)(NOW) == wanted


@pytest.mark.parametrize("words", ["", "yesterday", "7", "7y", "-7d", "2026-13-01", "9999999d"])
def test_times_that_are_none(words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected something like 24h"):
        moment(words)


def test_since_after_until(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--since", "1h", "--until", "2h") == WRONG_USE
    assert "--since must be before --until" in capsys.readouterr().err


def test_a_long_time_ago_is_the_beginning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "--since", "999999w") == 0
    assert "from 1970-01-01" in capsys.readouterr().out


def test_a_damaged_store_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "penstock.db").write_bytes(b"no database" * 1000)
    assert usage(tmp_path) == FAILED
    assert "is damaged" in capsys.readouterr().err


def test_archive(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "archive", "--older-than", "30") == 0
    assert capsys.readouterr().out == f"1 row of 2026-09 moved to {folder / 'archive'}\n"
    with gzip.open(folder / "archive" / "usage-2026-09.jsonl.gz") as file:
        assert [json.loads(line)["id"] for line in file] == [2006]
    assert usage(folder, "archive", "--older-than", "30") == 0
    assert capsys.readouterr().out == "nothing to archive: no whole month is older than 30 days\n"
    assert usage(folder, "archive", keep_days=20) == 0
    assert "2026-10" in capsys.readouterr().out


def test_archive_needs_an_age(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(folder, "archive", keep_days=0) == WRONG_USE
    assert "--older-than DAYS" in capsys.readouterr().err


def test_an_archive_that_fails_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "archive").write_text("")
    assert usage(folder, "archive", "--older-than", "30") == FAILED
    assert "archive" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-1", "x", "99999"])
def test_days_that_are_none(folder: Path, days: str) -> None:
    with pytest.raises(SystemExit):
        usage(folder, "archive", "--older-than", days)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals() -> None:
    elsewhere, terminal = StringIO(), Terminal()
    for out in (elsewhere, terminal):
        progress = Progress(out)
        progress.show("2026-09", 12_000, "written")
        progress.show("2026-09", 1000, "deleted")
        progress.end()
    assert elsewhere.getvalue() == ""
    assert terminal.getvalue() == "\r2026-09: 12,000 rows written\r2026-09: 1,000 rows deleted \n"
