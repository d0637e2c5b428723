"""The shipped price table, and which line of it a name means."""

import tomllib
from importlib.resources import files

import pytest

from penstock.core.address import Url
from penstock.core.config import Backend, Model, ModelPrice, Target
from penstock.core.cost import model_price
from penstock.core.prices import PriceTable, Terms, is_listed, terms

TABLE = PriceTable.of(tomllib.loads(files("penstock.config").joinpath("prices.toml").read_text(encoding="utf-8")))
CLOUD = Backend(kind="openai", url=Url.parse("https://api.openai.com/v1"))


def test_every_line_is_a_price() -> None:
    lines = [(name, line) for provider in TABLE.providers.values() for name, line in provider.models.items()]
    assert len(lines) > 100
    assert [name for name, line in lines if model_price(line) is None] == []
    # A slip of the unit would stand out.
    assert [name for name, line in lines if (line.input_usd_per_mtok or 0) > 200] == []
    assert [name for name, line in lines if (line.output_usd_per_mtok or 0) > 1000] == []
    dear = [
        name
        for name, line in lines
        if (line.cached_input_usd_per_mtok or 0) > (line.input_usd_per_mtok or 0)
        or (line.output_usd_per_mtok is not None and line.output_usd_per_mtok < (line.input_usd_per_mtok or 0))
    ]
    assert dear == []


def test_sources_are_told() -> None:
    assert all(provider.source.startswith("https://") for provider in TABLE.providers.values())
    assert TABLE.as_of.year >= 2026


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4o-mega", None),
        ("gpt-4o-2024-08-06-x", None),
        ("gpt-5-pro-max", None),
        ("claude-opus-4-5-20251101", None),
        ("", None),
    ],
)
def test_names_and_their_versions(model: str, line: str | None) -> None:
    models = TABLE.providers["openai"].models
    assert TABLE.find("api.openai.com", model) == (models[line] if line else None)


def test_elsewhere_any_provider_may_know_the_name() -> None:
    claude = TABLE.providers["anthropic"].models["claude-opus-4-5"]
    assert TABLE.find("openrouter.ai", "anthropic/claude-opus-4-5-20251101") == claude
    groq = TABLE.providers["groq"].models["openai/gpt-oss-120b"]
    assert TABLE.find("gateway.example", "openai/gpt-oss-120b") == groq
    assert TABLE.find("api.mistral.ai", "gpt-4o") is None


@pytest.mark.parametrize(
    ("kind", "url", "listed"),
    [
        ("openai", "https://api.openai.com/v1", True),
        ("anthropic", "https://api.anthropic.com", True),
        ("openai", "http://127.0.0.1:8000/v1", False),
        ("openai", "http://10.0.0.7/v1", False),
        ("openai", "http://gpu1.lan/v1", False),
        ("openai", "http://localhost/v1", False),
        ("ollama", "https://ollama.example", False),
    ],
)
def test_ones_own_machines_are_not_in_the_table(kind: str, url: str, listed: bool) -> None:
    assert is_listed(Backend(kind=kind, url=Url.parse(url))) is listed  # type: ignore[arg-type]


def test_the_configuration_goes_first_then_time_then_the_table() -> None:
    written = Model(targets=(Target(backend="c"),), price=ModelPrice(input_usd_per_mtok=1.0), context_tokens=5)
    timed = Backend(kind="openai", url=CLOUD.url, usd_per_gpu_hour=1.0)
    assert terms(written, timed, "gpt-4o", TABLE).price == model_price(ModelPrice(input_usd_per_mtok=1.0))
    assert terms(written, timed, "gpt-4o", TABLE).context_tokens == 5
    by_time = terms(None, timed, "gpt-4o", TABLE)
    assert by_time.price is not None
    assert (by_time.price.timed_pico, by_time.max_output_tokens) == (10**12, 16_384)
    assert terms(None, CLOUD, "gpt-4o", TABLE).price == model_price(TABLE.providers["openai"].models["gpt-4o"])
    assert terms(None, CLOUD, "nobody-knows", TABLE) == Terms()
    assert terms(None, Backend(kind="demo"), "gpt-4o", TABLE) == Terms()
