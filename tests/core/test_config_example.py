"""The shipped configuration files say what the types say."""

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from penstock.core import config as config_module
from penstock.core.config import Config, Section
from penstock.core.config_read import read_config
from penstock.core.config_types import is_section, item_type, plain

EXAMPLE = files("penstock.config").joinpath("example.toml").read_text(encoding="utf-8")
WHOLE = re.sub(r"^#(?=[^ ])", "", EXAMPLE, flags=re.MULTILINE)
"""With every line that is switched off taken in use."""
KEY_LINE = re.compile(r"^(\w+) = (.+?)(?:\s+# (.*))?$", re.MULTILINE)
OFTEN_REQUIRED = {"url"}
"""Absent by default, and yet most who read need it."""

Shown = tuple[type[Section], str, Any]


def shown(kind: Any, raw: Any) -> Iterator[Shown]:
    """Every (section type, field, value as written) in a document."""
    kind = plain(kind)
    if is_section(kind) and isinstance(raw, dict):
        for field in msgspec.structs.fields(kind):
            if field.name in raw:
                yield kind, field.name, raw[field.name]
                yield from shown(field.type, raw[field.name])
    elif (item := item_type(kind)) is not None:
        for each in raw.values() if isinstance(raw, dict) else raw:
            yield from shown(item, each)


def all_fields() -> list[tuple[type[Section], msgspec.structs.FieldInfo]]:
    sections = [each for each in vars(config_module).values() if is_section(each) and each not in (Section, Config)]
    return [(section, field) for section in sections for field in own_fields(section)]


def own_fields(section: type[Section]) -> list[msgspec.structs.FieldInfo]:
    """Those it declares itself: what tiers and overrides share is shown once, in either of them."""
    return [field for field in msgspec.structs.fields(section) if field.name in section.__annotations__]


def as_written(default: Any) -> Any:
    if isinstance(default, tuple):
        return [as_written(each) for each in default]
    return default if isinstance(default, int | float | str | bool | dict) else str(default)


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """Tables of plain values are made anew for each, so that nobody changes the others'."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def is_table(kind: Any) -> bool:
    kind = plain(kind)
    return is_section(kind) or is_section(item_type(kind))


@pytest.mark.parametrize("text", [EXAMPLE, WHOLE], ids=["as shipped", "all of it"])
def test_the_example_is_valid(text: str) -> None:
    read_config(text, "example.toml")


def test_as_shipped_the_example_needs_nothing_else() -> None:
    config = read_config(EXAMPLE, "example.toml").config
    assert [backend.kind for backend in config.backends.values()] == ["demo"]


def test_dev_is_valid() -> None:
    text = files("penstock.config").joinpath("dev.toml").read_text(encoding="utf-8")
    assert read_config(text, "dev.toml").config.server.workers == 1


@pytest.mark.parametrize(
    ("section", "field"),
    [pytest.param(*each, id=f"{each[0].__name__}.{each[1].name}") for each in all_fields()],
)
def test_the_example_shows_the_key_and_its_default(section: type[Section], field: msgspec.structs.FieldInfo) -> None:
    values = [
        value
        for kind, name, value in shown(Config, tomllib.loads(WHOLE))
        if issubclass(kind, section) and name == field.name
    ]
    assert values, "not in example.toml"
    if is_table(field.type):
        return
    comments = [comment for name, _, comment in KEY_LINE.findall(WHOLE) if name == field.name]
    if not field.required and field.default is None and field.name not in OFTEN_REQUIRED:
        assert any("absent = " in comment for comment in comments)
    elif field.required or field.default is None:
        assert any("required" in comment for comment in comments) or field.name == "backend"
    else:
        told = [m[1] for comment in comments if (m := re.search(r"default: (\S+)$", comment))]
        assert as_written(default_of(field)) in [*values, *(tomllib.loads(f"x = {each}")["x"] for each in told)]


def test_every_key_of_the_example_has_its_comment() -> None:
    assert [name for name, _, comment in KEY_LINE.findall(WHOLE) if not comment] == []


def test_a_value_that_is_not_the_default_says_so() -> None:
    # Names that stand in several tables with several defaults cannot be judged by name alone.
    several = {"idle_s", "key", "url", "tier", "max_output_tokens", "weight"}
    optional = {field.name: field for _, field in all_fields() if not field.required and field.default is not None}
    names = {name: field for name, field in optional.items() if name not in several}
    silent = [
        name
        for name, value, comment in KEY_LINE.findall(WHOLE)
        if name in names
        and tomllib.loads(f"x = {value}")["x"] != as_written(default_of(names[name]))
        and not re.search(r"required|default: ", comment)
    ]
    assert silent == []
