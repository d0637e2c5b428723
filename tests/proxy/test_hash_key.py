"""The secret of the keys in the state folder: made once, for its owner alone, never made anew over a wrong one."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.core.config_problem import ConfigError
from penstock.proxy.hash_key import hash_key


def ones(count: int) -> bytes:
    return b"\1" * count


def test_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    secret = hash_key(folder, ones)
    assert secret == b"01" * 32
    assert hash_key(folder, os.urandom) == secret
    assert stat.S_IMODE((folder / "hash.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["hash.key"]


def test_one_of_many_at_once_wins(tmp_path: Path) -> None:
    script = "import os, sys, pathlib\nfrom penstock.proxy.hash_key import hash_key\n" + (
        "sys.stdout.buffer.write(hash_key(pathlib.Path(sys.argv[1]), os.urandom))"
    )

    def ask(_: int) -> bytes:
        return subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_a_wrong_one_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "hash.key").write_text("short")
    with pytest.raises(ConfigError, match="too short"):
        hash_key(tmp_path, os.urandom)
    assert (tmp_path / "hash.key").read_text() == "short"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep the secret"):
        hash_key(tmp_path / "file" / "state", os.urandom)
