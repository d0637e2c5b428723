"""Sends one script over one connection: paced or as fast as the client reads, broken where it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain

from penstock.proxy.demo.answer import BLOCK_BYTES
from penstock.proxy.demo.http import LAST_CHUNK, chunk, has_body
from penstock.proxy.demo.script import Ending, Framing, Script
from penstock.proxy.demo.wire import Wire

_LONGEST_S = 86_400.0  # event loops refuse much longer timers


async def send(wire: Wire, script: Script, *, first_s: float, rate: float) -> None:
    if first_s:
        await asyncio.sleep(min(first_s, _LONGEST_S))
    if not script.silent:
        head = await _head(wire, script)
        wire.phase = "streaming" if script.streamed else "body"
        if script.bodyless or not has_body(script.status):
            wire.write(head)
        else:
            await _body(wire, script, head, rate)
    await _end(wire, script)


async def _head(wire: Wire, script: Script) -> bytes:
    """The bytes of the head still to send: all of them, unless it is a slow one."""
    head = script.head()
    if not script.head_pause_s:
        return head
    wire.phase = "head"
    for i in range(len(head)):
        wire.write(head[i : i + 1])
        await asyncio.sleep(script.head_pause_s)
    return b""


async def _body(wire: Wire, script: Script, head: bytes, rate: float) -> None:
    frame: Callable[[bytes], bytes] = chunk if script.framing is Framing.CHUNKED else bytes
    last = LAST_CHUNK if frame is chunk and script.ending is Ending.DONE else b""
    tail = (last + script.trailer,)
    if not (rate and script.streamed):
        await _fast(wire, chain((head,), map(frame, filter(None, script.pieces())), tail))
        return
    await _fast(wire, chain((head,), map(frame, script.opening)))
    await _paced(wire, map(frame, script.tokens), rate)
    ending = [*script.closing, script.end_mark]
    await _fast(wire, chain(map(frame, filter(None, ending)), tail))


async def _fast(wire: Wire, pieces: Iterable[bytes]) -> None:
    """As few writes as blocks of 64 KB allow."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES:
            wire.write(b"".join(batch))
            batch, size = [], 0
            await wire.drain()
    if size:
        wire.write(b"".join(batch))


async def _paced(wire: Wire, pieces: Iterable[bytes], rate: float) -> None:
    """One write a piece, each at its own time from the start, so that delays do not add up."""
    now = asyncio.get_running_loop().time
    due = now()
    for piece in pieces:
        # a sleep of 0 still lets the loop turn, else the loop would join two late writes into one
        await asyncio.sleep(min(max(0.0, due - now()), _LONGEST_S))
        wire.write(piece)
        await wire.drain()
        due += 1 / rate
    await asyncio.sleep(0)


async def _end(wire: Wire, script: Script) -> None:
    if script.ending is Ending.STALL:
        await asyncio.get_running_loop().create_future()
    elif script.ending is Ending.RESET:
        await wire.drain_all()
        wire.reset()
    else:
        wire.finish(keep_alive=script.keep_alive and script.ending is Ending.DONE)
