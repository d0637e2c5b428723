"""What lands in site-packages is `penstock` and nothing else, every folder of it, and each module only once."""

import importlib.util
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import penstock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setuptools() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["tool"]["setuptools"])


def folders() -> set[str]:
    """Dotted names of the folders that are packages."""
    found = (file.parent for top in ("core", "ext", "proxy", "config") for file in (ROOT / top).rglob("__init__.py"))
    return {"penstock." + ".".join(folder.relative_to(ROOT).parts) for folder in found}


def test_every_folder_is_listed(setuptools: dict[str, Any]) -> None:
    assert set(setuptools["packages"]) == folders()
    assert len(setuptools["packages"]) == len(set(setuptools["packages"]))


def test_every_folder_with_modules_is_a_package() -> None:
    for top in ("core", "ext", "proxy"):
        for module in (ROOT / top).rglob("*.py"):
            if "target" not in module.parts:
                assert (module.parent / "__init__.py").exists(), module


def test_import_paths_are_file_paths(setuptools: dict[str, Any]) -> None:
    wanted = {name: name.removeprefix("penstock.").replace(".", "/") for name in setuptools["packages"]}
    assert setuptools["package-dir"] == wanted


def test_nothing_is_packed_by_accident(setuptools: dict[str, Any]) -> None:
    assert setuptools["include-package-data"] is False


def test_files_that_are_not_python_are_listed(setuptools: dict[str, Any]) -> None:
    data = setuptools["package-data"]
    for name in ("penstock.core", "penstock.ext", "penstock.proxy"):
        assert "py.typed" in data[name]
        assert (ROOT / name.removeprefix("penstock.") / "py.typed").exists()
    assert "*.pyi" in data["penstock.ext"]
    assert "*.toml" in data["penstock.config"]


@pytest.mark.parametrize("name", ["core", "proxy", "ext", "config", "bench"])
def test_modules_have_one_name(name: str) -> None:
    """Under plain `pytest` the root is not on sys.path; with `python -m pytest` every module would load twice.

    The folders of the tests have the same names and are on sys.path, as namespaces without modules to import twice.
    """
    spec = importlib.util.find_spec(name)
    assert spec is None or list(spec.submodule_search_locations or ()) == [str(ROOT / "tests" / name)]


def test_installed_top_level_is_penstock_alone() -> None:
    top = distribution("penstock").read_text("top_level.txt")
    assert top is not None
    assert top.split() == ["penstock"]
    assert not hasattr(penstock, "__file__") or penstock.__file__ is None
