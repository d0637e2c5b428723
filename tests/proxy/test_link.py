"""Messages between processes: whole whatever their size and however they come, and an end that is noticed."""

import random
import socket

from penstock.proxy.link import Link, Message


def ends() -> tuple[Link, Link, list[Message], list[str]]:
    ours, theirs = Link.pair()
    heard: list[Message] = []
    over: list[str] = []
    theirs.on_message = heard.append
    theirs.on_end = lambda: over.append("over")
    return ours, theirs, heard, over


def test_messages_come_whole_and_in_order() -> None:
    ours, theirs, heard, over = ends()
    sizes = random.Random(7).choices([0, 1, 100, 70_000, 3_000_000], k=30)
    sent = [Message(f"word{number}", bytes([number]) * size) for number, size in enumerate(sizes)]
    for message in sent:
        ours.send(message.word, message.payload)
    while len(heard) < len(sent):
        ours.writable()
        theirs.readable()
    assert heard == sent and not ours.wants_write and not over
    ours.close()
    theirs.readable()
    assert over == ["over"]
    theirs.close()


def test_a_message_in_single_bytes() -> None:
    one, other = socket.socketpair()
    link, heard = Link(other), list[Message]()
    link.on_message = heard.append
    sender = Link(one)
    sender.send("built", "é")
    wire = other.recv(100)
    for byte in wire:
        one.send(bytes([byte]))
        link.readable()
    assert heard == [Message("built", "é".encode())] and heard[0].text == "é"
    sender.close()
    link.close()


def test_what_was_said_before_the_end_is_read_after_it() -> None:
    ours, theirs, heard, over = ends()
    theirs.on_end = theirs.close
    ours.send("failed", "no such folder")
    ours.finish()
    ours.close()
    theirs.read_all()
    assert [message.text for message in heard] == ["no such folder"] and not over


def test_speaking_to_nobody_is_no_error() -> None:
    ours, theirs, _, _ = ends()
    theirs.close()
    ours.send("swap", b"x" * 1_000_000)
    ours.send("swap")
    assert not ours.wants_write
    ours.close()
    ours.send("swap")
    assert not theirs.readable()
