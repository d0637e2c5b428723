"""Identical streams under way: one call of a backend for a thousand clients, whoever leaves; each gets every byte."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from crowd import Member, crowd
from raw_client import RawClient, chat_body, request, wait_until

from running import UNASKED, Demo, Penstock
from running import config as usual

CROWD = 1_000
TTL = "[cache]\nttl_s = 60\n"


def config(demo_port: int, **sections: str) -> str:
    """The backend is asked for nothing but answers: what it counts is what clients made it do."""
    more = sections.pop("more", "") + '[models.demo]\ntargets = ["demo"]\n'
    return usual(demo_port, backend=UNASKED, more=more, **sections).replace("discover = true", "discover = false")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo() as process:
        yield process


def asked(name: str, tokens: int, rate: float) -> bytes:
    """A stream of so many tokens, so many a second."""
    lines = ("Content-Type: application/json", f"x-demo-tokens: {tokens}", f"x-demo-rate: {rate}")
    return request("POST", "/v1/chat/completions", chat_body(stream=True, user=name, seed=len(name)), *lines)


def calls(demo: Demo) -> int:
    return int(demo.stats()["requests_total"])


@pytest.mark.parametrize("workers", [1, 4])
def test_a_thousand_share_one_call_of_each_worker(demo: Demo, workers: int) -> None:
    text = config(demo.port, more=TTL).replace("workers = 1", f"workers = {workers}")
    with Penstock(text) as process:
        process.up()
        before = calls(demo)
        wire = asked(f"a crowd before {workers}", 100, 25)
        members = asyncio.run(crowd([Member(process.port, wire) for _ in range(CROWD)], 0.2))
        made = calls(demo) - before
        assert 1 <= made <= workers
        bodies = {member.body for member in members}
        assert all(member.is_whole for member in members) and len(bodies) <= workers
        assert all(body.endswith(b"data: [DONE]\n\n") and body.count(b'"content"') >= 100 for body in bodies)
        told = [member.line(b"x-cache") for member in members]
        assert told.count(b"MISS") == made and set(told) <= {b"MISS", b"SHARED", b"HIT"}


def test_the_leader_and_half_of_all_leave_half_way(demo: Demo) -> None:
    with Penstock(config(demo.port, more=TTL)) as process:
        process.up()
        before = calls(demo)
        wire = asked("half of a crowd", 100, 25)
        chance = random.Random(5)
        leaving = [True] + [chance.random() < 0.5 for _ in range(CROWD - 1)]
        members = [Member(process.port, wire, chance.randrange(5_000, 12_000) if goes else None) for goes in leaving]
        members = asyncio.run(crowd(members, 0.2))
        assert members[0].left and members[0].line(b"x-cache") == b"MISS"
        assert calls(demo) == before + 1
        stayed = [member for member, goes in zip(members, leaving, strict=True) if not goes]
        assert all(member.is_whole for member in stayed) and len({member.body for member in stayed}) == 1
        assert all(member.left for member, goes in zip(members, leaving, strict=True) if goes)
        assert not demo.stats()["aborted"]
        with RawClient(process.port) as late:
            answer = late.send(wire).answer()
        assert answer.header("x-cache") == "HIT" and answer.body == stayed[0].body


def test_when_all_leave_the_backend_is_freed(demo: Demo) -> None:
    with Penstock(config(demo.port, more=TTL)) as process:
        known = len(demo.stats()["aborted"])
        wire = asked("a crowd that leaves", 500, 25)
        clients = [RawClient(process.port) for _ in range(20)]
        for client in clients:
            client.send(wire).until(b"data: ")
        left = 0
        for client in clients:
            left = time.monotonic_ns()
            client.socket.close()
        wait_until(lambda: len(demo.stats()["aborted"]) > known)
        assert (demo.stats()["aborted"][known]["monotonic_ns"] - left) / 1e6 < 100
        wait_until(lambda: demo.stats()["requests_active"] == 0)
        with RawClient(process.port) as again:
            assert again.send(wire).until(b"\r\n\r\n").count(b"x-cache: MISS") == 1


def test_a_drain_ends_flights_and_tells_everybody(demo: Demo) -> None:
    with Penstock(config(demo.port, server="drain_s = 0.3", more=TTL)) as process:
        wire = asked("a crowd at the end", 500, 25)
        clients = [RawClient(process.port) for _ in range(5)]
        for client in clients:
            client.send(wire).until(b"data: ")
        process.process.terminate()
        for client in clients:
            rest = client.rest()
            assert b"shutting down" in rest and not rest.endswith(b"0\r\n\r\n")
            client.socket.close()
        assert process.process.wait(10) == 0
        wait_until(lambda: demo.stats()["requests_active"] == 0)


def test_flights_of_before_a_reload_go_on(demo: Demo) -> None:
    text = config(demo.port, more=TTL)
    with Penstock(text) as process:
        process.up()
        before = calls(demo)
        wire = asked("a crowd over a reload", 60, 30)
        with RawClient(process.port) as one, RawClient(process.port) as two, RawClient(process.port) as new:
            for client in (one, two):
                client.send(wire).until(b"\r\n\r\n")
            process.rewrite(text + "\n[retry]\nattempts = 2\n")
            process.control("reload")
            new.send(wire)
            for client in (one, two):
                assert client.until(b"data: [DONE]\n\n")
            answer = new.answer()
            assert answer.header("x-cache") == "MISS" and answer.clean
        assert calls(demo) == before + 2
