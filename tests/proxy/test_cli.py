"""The command line: what each verb prints, and its exit code."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penstock.proxy.cli import main

DEMO = '[backends.demo]\nkind = "demo"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(verb in out for verb in ("serve", "check", "init", "demo-backend", "version"))


@pytest.mark.parametrize("verb", ["serve", "check", "init", "version"])
def test_help_of_a_verb_has_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"example: penstock {verb}" in out


def test_help_loads_next_to_nothing() -> None:
    """It must come at once, so neither the configuration types nor the event loop are imported for it."""
    script = (
        "import sys\nfrom penstock.proxy.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'msgspec', 'asyncio', 'ssl', 'granian', 'uvloop', 'penstock.ext'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys)
    assert code == 2
    assert "usage: penstock" in err


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_version(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.startswith("penstock 0.")


# --- check


def test_check_ok(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "penstock.toml").write_text(f'{DEMO}[models.a]\ntargets = ["demo"]\n[models.b]\ntargets = ["demo"]\n')
    assert run(capsys, "check") == (
        0,
        "penstock.toml: ok: 1 backend, 2 models, listens on 127.0.0.1:8080\n",
        "",
    )


def test_check_bad(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "p.toml").write_text(f"{DEMO}[server]\nworker = 4\nreceive_s = -1\n")
    assert run(capsys, "check", "--config", "p.toml") == (
        1,
        "",
        'p.toml:4:1: unknown key "worker" in [server]; did you mean "workers"?\n'
        "p.toml:5:13: receive_s must be from 0 to 31536000, not -1\n",
    )


def test_check_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check", "--config", "none.toml") == (
        1,
        "",
        "none.toml: cannot read this file: No such file or directory\n",
    )


def test_check_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check") == (
        0,
        "demo backend: built in, model demo\n"
        "Ollama at http://127.0.0.1:9: nothing answers\n"
        "OpenAI: OPENAI_API_KEY is not set\n"
        "no configuration file: ok: 1 backend, 1 model, listens on 127.0.0.1:8080\n",
        "",
    )


class Backend(BaseHTTPRequestHandler):
    """Knows the two questions of a live check, and one key."""

    def do_GET(self) -> None:
        known = self.path in ("/v1/models", "/api/tags")
        refused = self.headers.get("Authorization") not in (None, "Bearer right")
        self.send_response(401 if refused else 200 if known else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_check_live(
    capsys: pytest.CaptureFixture[str], folder: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIGHT", "right")
    monkeypatch.setenv("WRONG", "wrong")
    good = (
        f'{DEMO}[backends.cloud]\nkind = "openai"\nurl = "{backend}/v1"\napi_key = "env:RIGHT"\n'
        f'[backends.gpu]\nkind = "ollama"\nurl = "{backend}"\n'
    )
    (folder / "penstock.toml").write_text(good)
    code, out, err = run(capsys, "check", "--live")
    assert (code, err) == (0, "")
    assert "demo: ok: built in\n" in out
    assert f"cloud: ok: {backend}/v1/models answered 200 in " in out
    assert f"gpu: ok: {backend}/api/tags answered 200 in " in out

    bad = (
        f'[backends.refuses]\nkind = "openai"\nurl = "{backend}/v1"\napi_key = "env:WRONG"\n'
        f'[backends.lost]\nkind = "openai"\nurl = "{backend}"\n'
        '[backends.away]\nkind = "ollama"\nurl = "http://127.0.0.1:9"\n'
    )
    (folder / "penstock.toml").write_text(good + bad)
    code, out, err = run(capsys, "check", "--live")
    assert code == 1
    assert "cloud: ok" in out
    assert "refuses: failed" in err
    assert "it refuses the API key\n" in err
    assert "is the url right? It often ends in /v1\n" in err
    assert "away: failed: http://127.0.0.1:9/api/tags: Connection refused\n" in err
    assert "wrong" not in err


# --- init


def test_init_writes_a_file_that_is_ok(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys, "init") == (
        0,
        "penstock.toml: written; next: penstock check --config penstock.toml\n",
        "",
    )
    assert run(capsys, "check")[0] == 0


def test_init_writes_over_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "mine.toml").write_text("mine")
    assert run(capsys, "init", "mine.toml") == (
        1,
        "",
        "penstock: mine.toml is there already; --force writes over it\n",
    )
    assert (folder / "mine.toml").read_text() == "mine"
    assert run(capsys, "init", "--force", "mine.toml")[0] == 0
    assert "[server]" in (folder / "mine.toml").read_text()


def test_init_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "init", "no/where.toml") == (
        1,
        "",
        "penstock: cannot write no/where.toml: No such file or directory\n",
    )


# --- serve


def test_serve_refuses_a_bad_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "penstock.toml").write_text("")
    code, _, err = run(capsys, "serve")
    assert code == 1
    assert err.startswith("penstock.toml:1:1: no backend")


def test_serve_refuses_to_open_without_being_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "serve", "--listen", "0.0.0.0:8080")
    assert code == 1
    assert err == (
        '--listen: "0.0.0.0:8080" can be reached from other machines and nobody would be asked for a key; '
        'write mode = "keys", or mode = "none" if everybody who reaches it may use it, under [auth] in penstock.toml\n'
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", ":80"), 'argument --listen: expected host:port: write "127.0.0.1:80"'),
        (("--workers", "-1"), "argument --workers: expected a number from 0 to 1024"),
        (("--worker", "1"), "unrecognized arguments: --worker 1"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)
def test_serve_wrong_use(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run(capsys, "serve", *arguments)
    assert code == 2
    assert words in err
