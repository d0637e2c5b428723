"""docs/cache.md: its example is valid, every setting is in it, and its queries answer."""

import re
import sqlite3
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from stored import NOW

from penstock.core.cache_rules import KEPT, NORMAL_FINISHES
from penstock.core.config import Cache, CacheFacts, Config
from penstock.core.config_read import read_config
from penstock.proxy.store import CacheFact
from penstock.proxy.store.sqlite import SqliteStore
from penstock.proxy.store.windows import text

PAGE = (Path(__file__).parents[2] / "docs" / "cache.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_shows_the_defaults() -> None:
    config = read_config(EXAMPLE, "docs/cache.md").config
    assert msgspec.structs.replace(config.cache, routes={}) == Config().cache
    assert config.models["llama3.2:1b"].cache_ttl_s == 3600


@pytest.mark.parametrize("name", [*Cache.__struct_fields__, *CacheFacts.__struct_fields__])
def test_every_setting_is_in_it(name: str) -> None:
    assert re.search(rf"\b{name}\b", EXAMPLE)


def test_every_scope_route_and_finish_is_explained() -> None:
    words = {word for scope in get_args(Cache.__annotations__["scope"]) for word in [scope]}
    assert all(f"`{word}`" in PAGE for word in words)
    assert all(f"`{reason}`" in PAGE for reasons in NORMAL_FINISHES.values() for reason in reasons)
    assert all(f"`{route}`" in PAGE for route in KEPT if route.startswith("/api"))


def test_the_queries_answer(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "penstock.db")
    store.migrate()
    facts = [("aa", "small", 3, 60), ("bb", "smart", 9, 60), ("cc", "smart", 1, -60)]
    store.keep_cache_facts(
        [
            CacheFact(key=key, entry="1", model=model, created_at=NOW - 60, expires_at=NOW + left_s, hits=hits)
            for key, model, hits, left_s in facts
        ],
        NOW - 86_400,
    )
    store.close()
    connection = sqlite3.connect(store.path)
    most, by_model = (connection.execute(sql.replace("'now'", f"'{text(NOW)}'")).fetchall() for sql in QUERIES)
    connection.close()
    created = text(NOW - 60)
    assert most == [("bb", "smart", 9, created), ("aa", "small", 3, created)]
    assert by_model == [("smart", 2, 10, 5.0), ("small", 1, 3, 3.0)]
