"""The processes that the end-to-end tests share: a demo backend, and penstock in front of it in three tempers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from running import Demo, Penstock, config, free_port

BACKEND_KEY = "sk-the-backends-own-key"

MODELS = """
[models.renamed]
targets = [{ backend = "demo", model = "demo-large" }]
[models."na\\u00efve \\"quoted\\""]
targets = [{ backend = "demo", model = "demo" }]
[models.far]
targets = [{ backend = "demo", model = "a-näme \\"of\\" \\\\ its own" }]
[models.lost]
targets = ["gone"]
[models.rescued]
targets = ["gone", "demo"]
"""


@pytest.fixture(scope="session")
def backend_key() -> str:
    """The credential penstock has for the backend of `proxy`."""
    return BACKEND_KEY


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    with Demo("--rate", "0") as process:
        yield process


@pytest.fixture(scope="session")
def proxy(demo: Demo) -> Iterator[Penstock]:
    """The usual settings, a key for the backend, renamed models and one backend that is not there."""
    gone = f'[backends.gone]\nkind = "openai"\nurl = "http://127.0.0.1:{free_port()}/v1"\n'
    text = config(demo.port, backend='api_key = "env:DEMO_KEY"', more=gone + MODELS)
    with Penstock(text, env={"DEMO_KEY": BACKEND_KEY}) as process:
        yield process


@pytest.fixture(scope="session")
def hasty(demo: Demo) -> Iterator[Penstock]:
    """Silence is soon too long here, on both sides. Its own process, so that a busy machine fails no other test."""
    text = config(
        demo.port, server="receive_s = 0.5", more="[backends.demo.timeout]\nfirst_byte_s = 0.4\nidle_s = 0.4\n"
    )
    with Penstock(text) as process:
        yield process


@pytest.fixture(scope="session")
def strict(demo: Demo) -> Iterator[Penstock]:
    """No default backend, and little patience with slow clients."""
    text = config(demo.port, server="receive_s = 0.5").replace('default_backend = "demo"', "")
    with Penstock(text) as process:
        yield process
