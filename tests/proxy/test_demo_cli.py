"""The demo backend as a command."""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from penstock.proxy.demo import add_arguments, run

MAIN = """
import argparse, sys
from penstock.proxy import demo
parser = argparse.ArgumentParser()
demo.add_arguments(parser)
sys.exit(demo.run(parser.parse_args()))
"""


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_told_to_stop(number: signal.Signals) -> None:
    command = [sys.executable, "-c", MAIN, "--listen", "127.0.0.1:0", "--print-port", "--tokens", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/v1/completions"
        answer = httpx.post(url, json={"prompt": "x"}).json()
        assert answer["usage"]["completion_tokens"] == 3
        process.send_signal(number)
        assert process.wait(5) == 0 and process.stdout.read() == process.stderr.read() == ""


@pytest.mark.parametrize("options", [["--listen", "nowhere"], ["--listen", "127.0.0.1:0", "--fault", "x"]])
def test_options_that_make_no_sense(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed(*options)) == 2
    assert capsys.readouterr().err.startswith(options[-2])


def test_a_taken_address(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(parsed("--listen", f"127.0.0.1:{taken.getsockname()[1]}")) == 1
    assert "cannot listen" in capsys.readouterr().err
