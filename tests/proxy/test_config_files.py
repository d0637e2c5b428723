"""Which files of a configuration are watched, and when a change of one counts."""

import os
from pathlib import Path

import trustme

from penstock.proxy.config_files import ConfigFiles, certificates
from penstock.proxy.settings import load


def watched(folder: Path) -> tuple[ConfigFiles, Path, Path]:
    """The files of a configuration with a secret in a file and authorities of a backend's own."""
    secret, file = folder / "key", folder / "penstock.toml"
    secret.write_text("sk-1")
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    file.write_text(
        f'[server]\nstate_dir = "{folder}/state"\n[backends.a]\nkind = "openai"\nurl = "https://127.0.0.1:9/v1"\n'
        f'api_key = "file:key"\nca_file = "ca.pem"\n'
    )
    return ConfigFiles(load(file, environ={})), file, secret


def test_nothing_changed(tmp_path: Path) -> None:
    files, _, _ = watched(tmp_path)
    assert not files.changed() and not files.changed()


def test_a_change_counts_once_it_is_finished(tmp_path: Path) -> None:
    files, file, _ = watched(tmp_path)
    for part in ("# one\n", "# two\n"):
        with file.open("a") as more:
            more.write(part)
        assert not files.changed(), "somebody is writing"
    assert files.changed()
    assert not files.changed(), "each change is told once"


def test_secrets_and_authorities_are_watched_too(tmp_path: Path) -> None:
    files, _, secret = watched(tmp_path)
    for changed in (secret, tmp_path / "ca.pem"):
        changed.write_text("another")
        assert not files.changed()
        assert files.changed()


def test_a_file_in_the_place_of_another(tmp_path: Path) -> None:
    """Of the same size and time, as a link that was turned to another folder has."""
    files, file, _ = watched(tmp_path)
    before = file.stat()
    draft = tmp_path / "draft"
    draft.write_bytes(file.read_bytes())
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.replace(file)
    assert not files.changed()
    assert files.changed()


def test_a_file_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    files, file, _ = watched(tmp_path)
    text = file.read_bytes()
    file.unlink()
    assert not files.changed()
    assert files.changed()
    file.write_bytes(text)
    assert not files.changed()
    assert files.changed()


def test_what_was_read_on_demand_is_no_change(tmp_path: Path) -> None:
    files, file, _ = watched(tmp_path)
    file.write_text(file.read_text() + "# more\n")
    files.look()
    assert not files.changed() and not files.changed()


def test_without_a_file_there_is_nothing_to_watch() -> None:
    settings = load(None, environ={"HOME": "/"}, answers=lambda url: False)
    assert not ConfigFiles(settings).changed()
    assert certificates(settings.config) == b""
