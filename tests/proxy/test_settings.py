"""Files and environment become settings: references resolved, paths absolute, backends looked for."""

from pathlib import Path

import pytest
import trustme

from penstock.core.address import Address, Url
from penstock.core.config_problem import ConfigError
from penstock.proxy.settings import Overrides, Settings, load, locate

CLOUD = '[backends.cloud]\nkind = "openai"\nurl = "https://api.example/v1"\n'


def nobody(_: Url) -> bool:
    return False


def everybody(_: Url) -> bool:
    return True


def written(folder: Path, text: str) -> Path:
    path = folder / "penstock.toml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {}, answers=nobody)
    return str(caught.value)


# --- secrets


def test_a_secret_from_the_environment(tmp_path: Path) -> None:
    path = written(tmp_path, CLOUD + 'api_key = "env:CLOUD_KEY"\n')
    settings = load(path, environ={"CLOUD_KEY": "sk-hush\n"})
    assert settings.secrets == {"cloud": b"sk-hush"}
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)


def test_a_secret_from_a_file_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("sk-hush\n")
    path = written(tmp_path, CLOUD + 'api_key = "file:key"\n')
    monkeypatch.chdir("/")
    assert load(path, environ={}).secrets == {"cloud": b"sk-hush"}


def test_no_secret_is_no_entry(tmp_path: Path) -> None:
    assert load(written(tmp_path, CLOUD), environ={}).secrets == {}


@pytest.mark.parametrize(
    ("reference", "environ", "words"),
    [
        ("env:NONE", {}, "the environment variable NONE is not set"),
        ("env:EMPTY", {"EMPTY": " "}, "the environment variable EMPTY is empty"),
        (
            "env:TWO",
            {"TWO": "hush\nhush"},
            "the environment variable TWO holds more than a key: expected visible ASCII characters without spaces",
        ),
        ("file:none", {}, "cannot read {folder}/none: No such file or directory"),
        ("file:.", {}, "cannot read {folder}: Is a directory"),
    ],
)
def test_a_secret_that_is_not_there(tmp_path: Path, reference: str, environ: dict[str, str], words: str) -> None:
    path = written(tmp_path, f'{CLOUD}api_key = "{reference}"\n')
    assert complaint(path, environ) == f"{path}:4:11: api_key: {words.format(folder=tmp_path)}"


def test_all_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    text = f'{CLOUD}api_key = "env:NONE"\nca_file = "no.pem"\n[log]\nfile = "nowhere/x.log"\n'
    assert complaint(written(tmp_path, text)).split("\n") == [
        f"{tmp_path}/penstock.toml:4:11: api_key: the environment variable NONE is not set",
        f"{tmp_path}/penstock.toml:5:11: ca_file: cannot read {tmp_path}/no.pem: No such file or directory",
        f"{tmp_path}/penstock.toml:7:8: file: there is no folder {tmp_path}/nowhere",
    ]


KEYS = """
[auth]
mode = "keys"
hash_key = "env:HASH"
[admin]
key = "env:ADMIN"
[[keys]]
name = "laptop"
key = "env:LAPTOP"
[[keys]]
name = "phone"
key = "file:phone.key"
"""
ENVIRON = {"HASH": "hash-hush-hush-hush", "ADMIN": "admin-hush-hush-hush", "LAPTOP": "laptop-hush-hush-hush"}


def test_keys_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "phone.key").write_text("phone-hush-hush-hush\n")
    settings = load(written(tmp_path, CLOUD + KEYS), environ=ENVIRON)
    assert settings.admin_key == b"admin-hush-hush-hush"
    assert settings.hash_key == b"hash-hush-hush-hush"
    assert settings.file_keys == (("laptop", b"laptop-hush-hush-hush"), ("phone", b"phone-hush-hush-hush"))
    assert "hush" not in repr(settings)


def test_keys_that_can_be_guessed_or_are_there_twice(tmp_path: Path) -> None:
    (tmp_path / "phone.key").write_text(ENVIRON["LAPTOP"])
    path = written(tmp_path, CLOUD + KEYS)
    assert complaint(path, {**ENVIRON, "ADMIN": "x" * 15, "HASH": "y" * 513}).split("\n") == [
        f"{path}:7:12: hash_key: the environment variable HASH holds 513 characters; a key has at most 512",
        f"{path}:9:7: key: the environment variable ADMIN holds a key that can be guessed: "
        "expected at least 16 characters",
        f'{path}:15:7: key: the key "laptop" has the same secret',
    ]


def test_the_admins_key_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "phone.key").write_text(ENVIRON["ADMIN"])
    path = written(tmp_path, CLOUD + KEYS)
    assert complaint(path, ENVIRON) == f"{path}:15:7: key: [admin] has the same secret"


# --- the state folder and prices


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/state/penstock"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "/state"}, "/state/penstock"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/penstock"),
    ],
)
def test_the_users_state_folder(tmp_path: Path, environ: dict[str, str], folder: str) -> None:
    assert load(written(tmp_path, CLOUD), environ=environ).config.server.state_dir == folder
    assert load(None, environ=environ, answers=nobody).config.server.state_dir == folder


def test_a_state_folder_of_ones_own(tmp_path: Path) -> None:
    text = f'{CLOUD}[server]\nstate_dir = "state"\n'
    assert load(written(tmp_path, text), environ={}).config.server.state_dir == str(tmp_path / "state")


def test_the_price_table_is_read_where_it_can_be_of_use(tmp_path: Path) -> None:
    assert load(written(tmp_path, CLOUD), environ={}).prices
    assert not load(written(tmp_path, '[backends.demo]\nkind = "demo"\n'), environ={}).prices


# --- files


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    assert complaint(path) == f"{path}: cannot read this file: No such file or directory"


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes("[server]\n# ü ".encode() + b"\xff\n")
    assert complaint(path) == f"{path}:2:5: expected text in UTF-8"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes(b"\xef\xbb\xbf" + CLOUD.encode())
    assert "cloud" in load(path, environ={}).config.backends


def certificates(folder: Path) -> None:
    ca = trustme.CA()
    pair = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    pair.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    pair.private_key_pem.write_to_path(folder / "key.pem")


def test_tls_files(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = '[server.tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\nclient_ca_file = "ca.pem"\n'
    settings = load(written(tmp_path, CLOUD + 'ca_file = "ca.pem"\n' + tls), environ={})
    assert settings.config.server.tls is not None
    assert settings.config.server.tls.cert_file == str(tmp_path / "cert.pem")
    assert settings.config.server.tls.client_ca_file == str(tmp_path / "ca.pem")
    assert settings.config.backends["cloud"].ca_file == str(tmp_path / "ca.pem")


def test_tls_files_that_do_not_fit(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = '[server.tls]\ncert_file = "ca.pem"\nkey_file = "key.pem"\nclient_ca_file = "key.pem"\n'
    assert complaint(written(tmp_path, CLOUD + tls)).split("\n") == [
        f"{tmp_path}/penstock.toml:5:13: cert_file: with key_file this is not a PEM certificate and its key "
        "without passphrase",
        f"{tmp_path}/penstock.toml:7:18: client_ca_file: {tmp_path}/key.pem holds no certificates in PEM form",
    ]


def test_the_usual_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate(None) is None
    written(tmp_path, CLOUD)
    assert locate(None) == Path("penstock.toml")
    assert locate("other.toml") == Path("other.toml")


# --- command line


def test_the_command_line_is_louder(tmp_path: Path) -> None:
    path = written(tmp_path, CLOUD)
    server = load(path, Overrides(Address("127.0.0.1", 9), 3), environ={}).config.server
    assert (str(server.listen), server.workers) == ("127.0.0.1:9", 3)


def test_the_command_line_cannot_open_the_listener(tmp_path: Path) -> None:
    wide = Overrides(Address("0.0.0.0", 80))
    with pytest.raises(ConfigError, match=r'^--listen: "0.0.0.0:80" can be reached from other machines'):
        load(written(tmp_path, CLOUD), wide, environ={})
    path = written(tmp_path, CLOUD + '[auth]\nmode = "none"\n')
    assert load(path, wide, environ={}).config.server.listen.host == "0.0.0.0"


def test_reload_reads_the_file_again_and_keeps_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, CLOUD)
    settings = load(path, Overrides(workers=3), environ={})
    written(tmp_path, CLOUD + '[log]\nlevel = "debug"\n')
    again = settings.reload()
    assert (again.config.log.level, again.config.server.workers) == ("debug", 3)


# --- without a file


def default(environ: dict[str, str] | None = None, ollama: bool = False) -> Settings:
    return load(None, environ=environ or {}, answers=everybody if ollama else nobody)


def test_nothing_found() -> None:
    settings = default()
    assert list(settings.config.backends) == ["demo"]
    assert settings.config.server.default_backend == "demo"
    assert str(settings.config.server.listen) == "127.0.0.1:8080"
    assert settings.config.models["demo"].targets[0].backend == "demo"
    assert settings.source is None
    assert settings.found == (
        "demo backend: built in, model demo",
        "Ollama at http://127.0.0.1:11434: nothing answers",
        "OpenAI: OPENAI_API_KEY is not set",
    )


def test_everything_found() -> None:
    environ = {"OPENAI_API_KEY": "sk-hush", "OLLAMA_HOST": "gpu"}
    settings = default(environ, ollama=True)
    config = settings.config
    assert str(config.backends["ollama"].url) == "http://gpu:11434"
    assert str(config.backends["openai"].url) == "https://api.openai.com/v1"
    assert str(config.backends["openai"].api_key) == "env:OPENAI_API_KEY"
    assert config.backends["ollama"].discover
    assert config.backends["openai"].discover
    assert config.server.default_backend == "openai"
    assert settings.secrets == {"openai": b"sk-hush"}
    assert settings.found[1:] == (
        "Ollama at http://gpu:11434: found",
        "OpenAI at https://api.openai.com/v1: OPENAI_API_KEY is set",
    )


def test_ollama_is_the_default_backend_without_openai() -> None:
    assert default(ollama=True).config.server.default_backend == "ollama"


def test_openai_elsewhere() -> None:
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}
    assert str(default(environ).config.backends["openai"].url) == "http://127.0.0.1:9/v1"


def test_openai_nowhere() -> None:
    words = complaint(None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "nowhere"})
    assert words.startswith("environment: OPENAI_BASE_URL: expected an address such as")


def test_ollama_nowhere() -> None:
    words = default({"OLLAMA_HOST": "ftp://x"}, ollama=True).found[1]
    assert words.startswith("Ollama: not looked for, OLLAMA_HOST is not an address: expected")
