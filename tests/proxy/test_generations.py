"""What a reload leaves behind in a worker: nothing but the App of now, however many there were."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from penstock.proxy.backend_parts import BackendParts
from penstock.proxy.generations import Generations
from penstock.proxy.lifespan import Generation, WorkerParts, build
from penstock.proxy.prepare import prepare
from penstock.proxy.settings import Settings, load

RELOADS = 1_000
TEXT = """
[server]
state_dir = "{folder}/state"
[backends.same]
kind = "demo"
[backends.other]
kind = "openai"
url = "http://127.0.0.1:9/v1"
api_key = "env:KEY"
discover = true
[backends.other.timeout]
connect_s = {number}
[models.m{number}]
targets = ["same", "other"]
[tiers.free]
requests_per_hour = {number}
[log]
level = "error"
"""


def settings(folder: Path, number: int = 1, more: str = "", key: str = "sk-1") -> Settings:
    file = folder / "penstock.toml"
    file.write_text(TEXT.format(folder=folder, number=number) + more)
    return load(file, environ={"KEY": key, "HOME": str(folder)})


async def first(folder: Path, more: str = "") -> tuple[WorkerParts, Generations]:
    made = settings(folder, more=more)
    prepare(made, 1)
    parts = WorkerParts(made, asyncio.get_running_loop())
    return parts, Generations(await build(made, parts))


async def end(generations: Generations) -> None:
    """Close them, and let the loop see to the sockets that closes."""
    await generations.close()
    await turns()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Asked:
    """As much of a request as keeps an App alive."""


def under_way(generation: Generation) -> Any:
    request: Any = Asked()
    generation.app.active.add(request)
    return request


def test_a_thousand_reloads_leave_nothing(tmp_path: Path) -> None:
    texts = [settings(tmp_path, number) for number in (1, 2, 3)]

    async def reload_all() -> None:
        parts, generations = await first(tmp_path)
        apps: weakref.WeakSet[Any] = weakref.WeakSet()
        before: tuple[int, int] | None = None
        for number in range(RELOADS):
            generations.swap(await build(texts[number % 3], parts, generations.current))
            generations.retire()
            apps.add(generations.current.app)
            if number % 10 == 0:
                await asyncio.sleep(0)
            if number == 20:
                before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        await asyncio.sleep(0)
        assert generations.old == []
        gc.collect()
        assert len(apps) <= 2  # this loop's last ones
        assert before is not None
        assert len(os.listdir("/proc/self/fd")) <= before[0] + 2
        assert len(asyncio.all_tasks()) <= before[1] + 2
        await end(generations)

    uvloop.run(reload_all())


def test_what_is_defined_as_before_is_kept(tmp_path: Path) -> None:
    async def reload() -> None:
        parts, generations = await first(tmp_path)
        old = generations.current
        same = await build(settings(tmp_path, 1), parts, old)
        assert same.backends == old.backends and same.app is not old.app
        other = await build(settings(tmp_path, 2), parts, old)
        assert other.backends["same"] is old.backends["same"]
        assert other.backends["other"] is not old.backends["other"]
        rotated = await build(settings(tmp_path, 1, key="sk-2"), parts, old)
        assert rotated.backends["other"] is not old.backends["other"]
        assert rotated.app.uptime_s == old.app.uptime_s or rotated.app.started == old.app.started
        for unused in (same, other, rotated):
            generations.drop(unused)
        assert not closed(old.backends["same"])
        await end(generations)

    asyncio.run(reload())


def closed(parts: BackendParts) -> bool:
    assert parts.server is not None
    return not parts.server._server.is_serving()


def test_a_changed_authority_file_makes_new_connections(tmp_path: Path) -> None:
    """Its name is the same, so its contents decide."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    more = f'[backends.safe]\nkind = "openai"\nurl = "https://127.0.0.1:9/v1"\nca_file = "{file}"\n'

    async def reload() -> None:
        parts, generations = await first(tmp_path, more)
        old = generations.current
        same = await build(settings(tmp_path, 1, more), parts, old)
        assert same.backends["safe"] is old.backends["safe"]
        trustme.CA().cert_pem.write_to_path(file)
        new = await build(settings(tmp_path, 1, more), parts, old)
        assert new.backends["safe"] is not old.backends["safe"]
        await end(generations)

    asyncio.run(reload())


def test_an_old_app_stays_until_its_last_request_has_ended(tmp_path: Path) -> None:
    async def reload() -> None:
        parts, generations = await first(tmp_path)
        old = generations.current
        request = under_way(old)
        without = TEXT.replace('[backends.same]\nkind = "demo"\n', "").replace('"same", ', "")
        file = tmp_path / "penstock.toml"
        file.write_text(without.format(folder=tmp_path, number=1))
        generations.swap(await build(load(file, environ={"KEY": "sk-1", "HOME": "/"}), parts, old))
        generations.retire()
        assert generations.old == [old] and not closed(old.backends["same"])
        assert list(generations.exchanges) == [request]
        old.app.active.remove(request)
        generations.retire()
        assert generations.old == [] and closed(old.backends["same"])
        await end(generations)

    asyncio.run(reload())


def test_what_fails_while_it_is_built_leaves_nothing(tmp_path: Path) -> None:
    """The second backend's file is gone by then: the demo server of the first one is closed again."""
    ca = tmp_path / "ca.pem"

    async def reload() -> None:
        parts, generations = await first(tmp_path)
        trustme.CA().cert_pem.write_to_path(ca)
        more = '[backends.new]\nkind = "demo"\n'
        more += f'[backends.safe]\nkind = "openai"\nurl = "https://127.0.0.1:9/v1"\nca_file = "{ca}"\n'
        bad = settings(tmp_path, 1, more)
        ca.unlink()
        await generations.current.app.discovery.refresh()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(FileNotFoundError):
                await build(bad, parts, generations.current)
        await turns()
        assert len(os.listdir("/proc/self/fd")) < before + 10
        await end(generations)

    asyncio.run(reload())


def test_discovery_remembers_the_backends_that_stay(tmp_path: Path) -> None:
    async def reload() -> None:
        parts, generations = await first(tmp_path)
        await generations.current.app.discovery.refresh()
        known = generations.current.app.discovery.by_name
        assert "demo" in known
        new = await build(settings(tmp_path, 2), parts, generations.current)
        assert new.app.discovery.by_name == known
        generations.drop(new)
        await end(generations)

    asyncio.run(reload())
