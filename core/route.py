"""From a model's public name to the groups of targets that serve it."""

from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

from penstock.core.config import Balance, Config, Model
from penstock.core.errors import MissingField, ModelNotFound, NoHealthyTarget
from penstock.core.nearest import suggestion

MOST_TARGETS = 64
"""A request chooses among so many: they are bits of a word."""


class Target(msgspec.Struct, frozen=True):
    """A backend, and the name the model has there (None = whatever name the client used, or none)."""

    backend: str
    model: str | None = None
    weight: int = 1


class RouteGroup(msgspec.Struct, frozen=True):
    """Targets that share the requests for one model. model: its public name, None = the one the client used."""

    targets: tuple[Target, ...]
    balance: Balance = "least_in_flight"
    model: str | None = None


class Route(msgspec.Struct, frozen=True):
    """Where a request can go: the model's own targets first, then one group for each of its fallback models."""

    groups: tuple[RouteGroup, ...]

    @classmethod
    def to(cls, *targets: Target) -> Self:
        """To targets that are all alike."""
        return cls((RouteGroup(targets),))


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests can go, as far as the configuration says.

    models: by public name. weights: of backends; 1 where none is said.
    ollama: backends of kind ollama in the file's order; native /api requests without a known model go to the first.
    default_backend: "" = none.
    send_unknown: a model nobody knows goes to the default backend instead of being 404.
    """

    models: Mapping[str, Route]
    weights: Mapping[str, int] = {}
    ollama: tuple[str, ...] = ()
    default_backend: str = ""
    send_unknown: bool = False

    @classmethod
    def of(cls, config: Config) -> Self:
        return cls(
            models={name: _route(config, name, model) for name, model in config.models.items()},
            weights={name: backend.weight for name, backend in config.backends.items()},
            ollama=tuple(name for name, backend in config.backends.items() if backend.kind == "ollama"),
            default_backend=config.server.default_backend,
            send_unknown=config.server.unknown_models == "default_backend",
        )

    def of_model(self, model: str, discovered: Mapping[str, tuple[str, ...]]) -> Route | None:
        """The route of a model; `discovered`: the backends that report each name. None = unknown."""
        if route := self.models.get(model):
            return route
        if backends := discovered.get(model):
            return Route.to(*(self._target(backend, model) for backend in backends[:MOST_TARGETS]))
        if self.send_unknown and self.default_backend:
            return Route.to(self._target(self.default_backend))
        return None

    def of_no_model(self, *, native: bool, required: bool) -> Route:
        """The route of a request that names no model. Raises MissingField or NoHealthyTarget."""
        if native:
            if self.ollama:
                return Route.to(self._target(self.ollama[0]))
            raise NoHealthyTarget("no backend of kind ollama is configured", retry_after_s=60)
        if self.default_backend:
            return Route.to(self._target(self.default_backend))
        if required:
            raise MissingField('the request names no "model" and there is no default backend', param="model")
        raise MissingField("this path goes to the default backend, and server.default_backend is not set")

    def _target(self, backend: str, model: str | None = None) -> Target:
        return Target(backend, model, self.weights.get(backend, 1))


def _route(config: Config, name: str, model: Model) -> Route:
    """Group by group; a place that an earlier group has is not tried again under another name for it."""
    groups = [_group(config, name, model)]
    seen = {(target.backend, target.model) for target in groups[0].targets}
    for other in model.fallback:
        group = _group(config, other, config.models[other])
        fresh = tuple(target for target in group.targets if (target.backend, target.model) not in seen)
        seen |= {(target.backend, target.model) for target in fresh}
        if fresh:
            groups.append(RouteGroup(fresh, group.balance, other))
    return Route(tuple(groups))


def _group(config: Config, name: str, model: Model) -> RouteGroup:
    targets = (
        Target(each.backend, each.model or name, each.weight or config.backends[each.backend].weight)
        for each in model.targets
    )
    return RouteGroup(tuple(targets), model.balance, name)


def unknown_model(model: str, names: Iterable[str]) -> ModelNotFound:
    """The 404 for a model nobody serves, with the names that are near it."""
    hint = suggestion(model, names) or "; GET /v1/models lists what there is"
    return ModelNotFound(f"the model {model[:200]!r} does not exist here{hint}", param="model")
