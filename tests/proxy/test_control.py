"""The control socket: one line in, one line out, from clients of every kind."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.proxy.control import Answer, Control, address_of, ask
from penstock.proxy.poller import Poller


def served(folder: Path, act: Callable[[], Any]) -> Any:
    """What `act` gives in a thread, while a control socket answers whoever asks with what it asked."""
    poller = Poller(lambda: 0.0)

    def handle(request: dict[str, Any], answer: Answer) -> None:
        answer({"asked": request})

    control = Control(folder, poller, handle)
    poller.add(control)
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.append(act()))
    thread.start()
    while thread.is_alive():
        poller.later(0.0, lambda: None)
        poller.turn()
        thread.join(0.001)
    control.unlink()
    poller.close()
    return given[0]


def test_a_request_and_its_answer(tmp_path: Path) -> None:
    assert served(tmp_path, lambda: ask(tmp_path, {"do": "x"}, 5)) == {"asked": {"do": "x"}}
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    assert served(folder, lambda: ask(folder, {"do": "x"}, 5)) == {"asked": {"do": "x"}}


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"\xff\n", b"{}{}\n"])
def test_what_is_no_request(tmp_path: Path, line: bytes) -> None:
    def act() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock, address_of(tmp_path / "control.sock") as address:
            sock.connect(address)
            sock.sendall(line)
            return sock.recv(1000)

    assert b"not a line of JSON" in served(tmp_path, act)


def test_a_client_that_says_too_much_or_nothing(tmp_path: Path) -> None:
    def act() -> list[bytes]:
        got = []
        for data in (b"x" * 10_000, b""):
            with socket.socket(socket.AF_UNIX) as sock, address_of(tmp_path / "control.sock") as address:
                sock.settimeout(5)
                sock.connect(address)
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                try:
                    got.append(sock.recv(1000))
                except ConnectionResetError:
                    got.append(b"")
        return got

    assert served(tmp_path, act) == [b"", b""]


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control.sock"))
    with pytest.raises(ConnectionRefusedError):
        ask(tmp_path, {}, 1)
    assert served(tmp_path, lambda: ask(tmp_path, {}, 5)) == {"asked": {}}


def test_who_came_later_keeps_the_place(tmp_path: Path) -> None:
    """The server before it ends, and leaves the socket of its successor alone."""
    poller = Poller(lambda: 0.0)
    before = Control(tmp_path, poller, lambda request, answer: None)
    after = Control(tmp_path, poller, lambda request, answer: None)
    before.unlink()
    assert (tmp_path / "control.sock").exists()
    after.unlink()
    assert list(tmp_path.iterdir()) == []
    for each in (before, after):
        each.close()
    poller.close()
