"""penstock explain: the table, from a server that answers and from the file alone."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penstock.core.explain_table import explanation_text
from penstock.proxy.cli import main
from running import free_port

ADMIN_KEY = "admin-key-0123456789abcdef"
FILE = """
[server]
listen = "127.0.0.1:{port}"
[admin]
key = "env:ADMIN_KEY"
[auth]
mode = "keys"
[[keys]]
name = "laptop"
key = "env:LAPTOP_KEY"
tier = "free"
[tiers.free]
requests_per_hour = 100
usd_per_month = 1.5
models = ["smart"]
[backends.cloud]
kind = "openai"
url = "https://api.example.com/v1"
weight = 3
[backends.gpu]
kind = "ollama"
url = "http://127.0.0.1:9"
max_in_flight = 4
[models.small]
targets = [{{ backend = "gpu", model = "llama3.2:1b" }}]
[models.smart]
targets = [{{ backend = "cloud", model = "gpt-4o" }}, {{ backend = "gpu", model = "llama3:70b" }}]
balance = "weighted"
fallback = ["small"]
"""
ANSWER: dict[str, Any] = {
    "endpoint": "/v1/chat/completions",
    "model": "smart",
    "key_id": "file:laptop",
    "tier": "free",
    "groups": [
        {
            "model": "smart",
            "balance": "weighted",
            "targets": [
                {
                    "target": "cloud/gpt-4o",
                    "weight": 3,
                    "in_flight": 2,
                    "max_in_flight": None,
                    "breaker": "closed",
                    "latency_ms": 1234.5,
                    "chance": 0.75,
                    "why": "",
                },
                {
                    "target": "gpu/llama3\x1b[31m",
                    "weight": 1,
                    "in_flight": 4,
                    "max_in_flight": 4,
                    "breaker": "closed",
                    "latency_ms": None,
                    "chance": 0,
                    "why": "all its 4 places are taken",
                },
            ],
        }
    ],
    "waiting": 3,
    "limits": [{"name": "requests_per_hour", "scope": "key", "limit": 100, "used": 100, "refuses": True}],
    "worst_case": {"tokens": 4310, "usd": 0.0125},
    "refused": None,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("LAPTOP_KEY", "laptop-key-0123456789abcdef")
    (tmp_path / "penstock.toml").write_text(FILE.format(port=free_port()))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(("explain", *arguments))
    out, err = capsys.readouterr()
    return code, out, err


class Server(BaseHTTPRequestHandler):
    asked: ClassVar[list[dict[str, Any]]]
    said: ClassVar[tuple[int, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append({"path": self.path, "key": self.headers["X-Admin-Key"], "wish": json.loads(body)})
        status, text = self.said
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(folder: Path) -> Iterator[type[Server]]:
    class Mine(Server):
        asked: ClassVar[list[dict[str, Any]]] = []
        said = (200, json.dumps(ANSWER).encode())

    made = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    (folder / "penstock.toml").write_text(FILE.format(port=made.server_port))
    yield Mine
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_server_is_asked(server: type[Server], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "smart", "--key-id", "file:laptop", "--path", "/v1/chat/completions")
    assert (code, err) == (0, "")
    wish = {"path": "/v1/chat/completions", "body": {"model": "smart"}, "key_id": "file:laptop"}
    assert server.asked == [{"path": "/admin/explain", "key": ADMIN_KEY, "wish": wish}]
    assert out == (
        "smart by /v1/chat/completions\n"
        "key file:laptop, tier free\n"
        "\n"
        "targets (weighted)\n"
        "  target           chance  weight  in flight  breaker  latency     why not\n"
        "  cloud/gpt-4o     75%     3       2          closed   1,234.5 ms\n"
        "  gpu/llama3?[31m  0%      1       4 of 4     closed   -           all its 4 places are taken\n"
        "\n"
        "  limit              of   used  limit  until\n"
        "  requests_per_hour  key  100   100    -      too little is left\n"
        "\n"
        "worst case: 4,310 tokens, 0.012500 USD\n"
        "in line: 3 requests wait for a place\n"
        "it would be admitted\n"
    )


def test_as_json(server: type[Server], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "smart", "--json")
    assert code == 0 and json.loads(out) == ANSWER


def test_refused(server: type[Server], capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"status": 404, "code": "model_not_found", "message": "no"}
    server.said = (200, json.dumps({"endpoint": "/v1/x", "model": "m", "refused": refused}).encode())
    code, out, _ = run(capsys, "m")
    assert code == 1 and out.endswith("refused: 404 model_not_found: no\n")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((401, b'{"error": {"message": "this needs the admin key"}}'), "refused: this needs the admin key"),
        ((200, b"hello"), "is no penstock that explains (it said 200)"),
        ((502, b"[]"), "is no penstock that explains (it said 502)"),
    ],
)
def test_what_is_no_explanation(
    server: type[Server], capsys: pytest.CaptureFixture[str], said: tuple[int, bytes], words: str
) -> None:
    server.said = said
    code, out, err = run(capsys, "smart")
    assert (code, out) == (1, "") and words in err


def test_without_a_server_the_file_explains(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "smart", "--key-id", "file:laptop")
    assert code == 0 and "Connection refused" in err and "explained from the file alone" in err
    assert out == (
        "smart by /v1/chat/completions\n"
        "key file:laptop, tier free\n"
        "\n"
        "targets (weighted)\n"
        "  target          chance  weight  in flight  breaker  latency  why not\n"
        "  cloud/gpt-4o    -       3       -          -        -\n"
        "  gpu/llama3:70b  -       1       - of 4     -        -\n"
        "\n"
        "if none of these can: small (least_in_flight)\n"
        "  target           chance  weight  in flight  breaker  latency  why not\n"
        "  gpu/llama3.2:1b  -       1       - of 4     -        -\n"
        "\n"
        "  limit              of   used  limit  until\n"
        "  requests_per_hour  key  -     100    -\n"
        "  usd_per_month      key  -     1.5    -\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("smrt",), "refused: 404 model_not_found: the model 'smrt' does not exist here; did you mean \"smart\"?"),
        (("small", "--key-id", "file:laptop"), "refused: 403 model_not_allowed"),
        (("smart", "--key-id", "key_1"), "those of the store only a server knows"),
        (("smart", "--path", "/v1/models"), "refused: 405 method_not_allowed"),
        (("smart", "--path", "/nothing"), "refused: 404 not_found"),
    ],
)
def test_what_the_file_refuses(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    code, out, _ = run(capsys, *arguments)
    assert code == 1 and words in out


def test_without_an_admin_key_no_server_is_asked(
    server: type[Server], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "penstock.toml"
    file.write_text(file.read_text().replace('[admin]\nkey = "env:ADMIN_KEY"\n', ""))
    code, _, err = run(capsys, "smart")
    assert code == 0 and "without an admin key" in err and not server.asked


def test_any_free_port_needs_to_be_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "penstock.toml").write_text(FILE.format(port=0))
    assert "--listen says where" in run(capsys, "smart")[2]
    assert "expected" in run(capsys, "smart", "--listen", "nonsense")[2]


def test_few_facts_are_enough() -> None:
    assert explanation_text({"refused": None}) == "(no model) by (no such path)\n\nit would be admitted"
