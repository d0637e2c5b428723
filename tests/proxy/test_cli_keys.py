"""`penstock keys`: what each action prints and where, and its exit code."""

import argparse
import json
from pathlib import Path

import pytest

from penstock.proxy.cli_keys import add_arguments, run

CONFIG = """
[server]
state_dir = "state"
[auth]
mode = "keys"
[tiers.free]
requests_per_hour = 100
[backends.demo]
kind = "demo"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.toml").write_text(CONFIG)
    return tmp_path


def keys(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    try:
        code = run(parser.parse_args(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_key_from_its_making_to_its_end(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, key, words = keys(capsys, "create", "--name", "laptop", "--tier", "free", "--quota", "5")
    assert code == 0
    assert len(key.split()) == 1  # the key alone, so that it can go into a file
    assert key.startswith("psk_")
    assert key.strip() not in words
    assert "not shown again" in words

    code, out, _ = keys(capsys, "list", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert [(each["name"], each["tenant_id"], each["user_id"], each["tier"]) for each in listed] == [
        ("laptop", "default", "laptop", "free")
    ]
    assert (listed[0]["quota_requests_per_hour"], listed[0]["status"]) == (5, "active")
    key_id = listed[0]["id"]

    code, other, _ = keys(capsys, "rotate", key_id, "--grace", "0")
    assert (code, other == key, len(other.split())) == (0, False, 1)
    code, out, words = keys(capsys, "revoke", key_id)
    assert (code, out) == (0, "")
    assert "revoked" in words
    code, out, _ = keys(capsys, "list")
    head, line = out.splitlines()
    assert head.split() == ["id", "name", "tenant", "user", "tier", "status", "expires", "last", "used"]
    assert line.split() == [key_id, "laptop", "default", "laptop", "free", "revoked", "-", "-"]
    assert key.strip() not in out
    assert (folder / "state" / "hash.key").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "--name", "x", "--tier", "fre"), 'did you mean "free"'),
        (("create", "--name", "x\ny", "--user", "u"), '"name" must be'),
        (("create", "--name", "x", "--quota", "-1"), '"quota_requests_per_hour" must be'),
        (("create", "--name", "x", "--expires", "soon"), '"expires_at" must be'),
        (("create", "--name", "x", "--expires", "2020-01-01T00:00:00Z"), "must lie ahead"),
        (("revoke", "key_nobody"), "no key with the id"),
        (("rotate", "key_nobody"), "no key with the id"),
        (("rotate", "file:laptop"), "configuration file"),
        (("rotate", "key_nobody", "--grace", "1e12"), '"grace_s" must be'),
        (("list", "--config", "nowhere.toml"), "cannot read"),
    ],
)
def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    code, out, err = keys(capsys, *arguments)
    assert (code, out) == (1, "")
    assert words in err


@pytest.mark.parametrize("arguments", [(), ("create",), ("revoke",), ("explode",)])
def test_wrong_use(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert keys(capsys, *arguments)[0] == 2


def test_a_database_that_is_none(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "penstock.db").write_text("this is no database, but long enough to be read as one" * 100)
    code, _, err = keys(capsys, "list")
    assert code == 1
    assert "penstock.db" in err


def test_without_a_store(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "penstock.toml").write_text(CONFIG.replace('"keys"', '"none"') + '[store]\nurl = "none"\n')
    code, out, err = keys(capsys, "list")
    assert (code, len(out.splitlines()), err) == (0, 1, "")
    code, _, err = keys(capsys, "create", "--name", "x")
    assert code == 1
    assert "not stored here" in err
