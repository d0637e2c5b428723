"""From a model's public name to the targets that serve it."""

from collections.abc import Iterable, Mapping

import msgspec

from penstock.core.errors import MissingField, ModelNotFound, NoHealthyTarget
from penstock.core.nearest import suggestion


class Target(msgspec.Struct, frozen=True):
    """A backend, and the name the model has there (None = the name the client used)."""

    backend: str
    model: str | None = None


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests can go, as far as the configuration says.

    models: public name -> targets in order of preference.
    ollama: backends of kind ollama in the file's order; native /api requests without a known model go to the first.
    default_backend: "" = none.
    send_unknown: a model nobody knows goes to the default backend instead of being 404.
    """

    models: Mapping[str, tuple[Target, ...]]
    ollama: tuple[str, ...] = ()
    default_backend: str = ""
    send_unknown: bool = False

    def of_model(self, model: str, discovered: Mapping[str, str]) -> tuple[Target, ...] | None:
        """Targets of a model; `discovered` maps names that backends report to the backend. None = unknown."""
        if targets := self.models.get(model):
            return targets
        if backend := discovered.get(model):
            return (Target(backend),)
        if self.send_unknown and self.default_backend:
            return (Target(self.default_backend),)
        return None

    def of_no_model(self, *, native: bool, required: bool) -> tuple[Target, ...]:
        """Targets of a request that names no model. Raises MissingField or NoHealthyTarget."""
        if native:
            if self.ollama:
                return (Target(self.ollama[0]),)
            raise NoHealthyTarget("no backend of kind ollama is configured", retry_after_s=60)
        if self.default_backend:
            return (Target(self.default_backend),)
        if required:
            raise MissingField('the request names no "model" and there is no default backend', param="model")
        raise MissingField("this path goes to the default backend, and server.default_backend is not set")


def unknown_model(model: str, names: Iterable[str]) -> ModelNotFound:
    """The 404 for a model nobody serves, with the names that are near it."""
    hint = suggestion(model, names) or "; GET /v1/models lists what there is"
    return ModelNotFound(f"the model {model[:200]!r} does not exist here{hint}", param="model")
