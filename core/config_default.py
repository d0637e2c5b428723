"""The configuration when there is no file: a demo that always answers, and what was found beside it."""

from penstock.core.address import Url
from penstock.core.config import Backend, Config, Model, Server, Target
from penstock.core.secret import Secret

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = Secret("env", "OPENAI_API_KEY")


def default_config(ollama: Url | None, openai: Url | None) -> Config:
    """On loopback, with the backends that exist; no model means OpenAI, else Ollama, else demo."""
    backends = {"demo": Backend(kind="demo")}
    if ollama is not None:
        backends["ollama"] = Backend(kind="ollama", url=ollama, discover=True)
    if openai is not None:
        backends["openai"] = Backend(kind="openai", url=openai, api_key=OPENAI_KEY, discover=True)
    return Config(
        server=Server(default_backend=list(backends)[-1]),
        backends=backends,
        models={"demo": Model(targets=(Target(backend="demo"),))},
    )
