"""docs/backends.md: its example is valid and says what it says, and every setting it is about is in it."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from penstock.core.config import Backend, Balance, Breaker, Config, Health, Hedge, Model, Queue, Retry
from penstock.core.config_read import read_config
from penstock.core.route import Routes

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TEXT = PAGE.replace(EXAMPLE, "")


def example() -> Config:
    return read_config(EXAMPLE, "docs/backends.md").config


@pytest.mark.parametrize("name", ["breaker", "retry", "queue", "hedge"])
def test_what_it_calls_the_default_is_the_default(name: str) -> None:
    assert f"[{name}]" in EXAMPLE
    assert getattr(example(), name) == getattr(Config(), name)


def test_where_requests_for_its_models_go() -> None:
    groups = Routes.of(example()).models["large"].groups
    assert [[(target.backend, target.weight) for target in group.targets] for group in groups] == [
        [("gpu1", 1), ("gpu2", 2), ("vllm", 4)],
        [("cloud", 1)],
    ]


@pytest.mark.parametrize("section", [Health, Breaker, Retry, Queue, Hedge], ids=lambda section: section.__name__)
def test_every_setting_is_explained(section: type[msgspec.Struct]) -> None:
    missing = [name for name in section.__struct_fields__ if not re.search(rf"`[^`]*\b{name}\b[^`]*`", TEXT)]
    assert missing == []


def test_the_settings_of_backends_and_models_are_explained() -> None:
    new = {"weight", "max_in_flight", "heartbeat_s", "discover", "balance", "fallback"}
    assert new <= {*Backend.__struct_fields__, *Model.__struct_fields__}
    assert [name for name in sorted(new) if f"`{name}`" not in TEXT] == []


def test_every_balance_is_explained() -> None:
    assert [word for word in get_args(Balance) if f"| `{word}`" not in TEXT] == []
