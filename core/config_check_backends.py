"""Rules of a configuration about targets, fallback models, and faults made on purpose."""

from collections.abc import Iterator

from penstock.core.chaos import mistakes
from penstock.core.config_places import Path, Reading, label
from penstock.core.config_problem import Problem
from penstock.core.route import MOST_TARGETS

MOST_BACKENDS = 512
"""Shared memory holds so many."""


def _there_is_room(reading: Reading) -> Iterator[Problem]:
    config = reading.config
    if len(config.backends) > MOST_BACKENDS:
        path: Path = ("backends", list(config.backends)[MOST_BACKENDS])
        yield reading.places.at_key(path, f"{label(path)}: there can be {MOST_BACKENDS} backends")
    for name, model in config.models.items():
        if len(model.targets) > MOST_TARGETS:
            path = ("models", name, "targets", MOST_TARGETS)
            yield reading.places.at_value(path, f"targets: a model can have {MOST_TARGETS}, not {len(model.targets)}")


def _places_differ(reading: Reading) -> Iterator[Problem]:
    for name, model in reading.config.models.items():
        seen: set[tuple[str, str]] = set()
        for index, target in enumerate(model.targets):
            place = (target.backend, target.model or name)
            if place in seen:
                path: Path = ("models", name, "targets", index)
                spoken = f"{target.backend}: {target.model}" if target.model else target.backend
                yield reading.places.at_value(path, f'targets[{index}]: "{spoken}" is there already')
            seen.add(place)


def _fallback_is_another(reading: Reading) -> Iterator[Problem]:
    for name, model in reading.config.models.items():
        for index, other in enumerate(model.fallback):
            if other == name:
                path: Path = ("models", name, "fallback", index)
                yield reading.places.at_value(path, f"fallback[{index}]: a model cannot be its own fallback")


def _faults_are_whole(reading: Reading) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, fault in enumerate(reading.config.chaos.faults):
        path: Path = ("chaos", "faults", index)
        if fault.name in seen:
            yield reading.places.at_value((*path, "name"), f'name: there is a fault "{fault.name}" already')
        seen.add(fault.name)
        for field, words in mistakes(fault):
            if (*path, field) not in reading.failed:
                yield reading.places.at_value((*path, field), f"{field}: {words}")


TARGETS_AND_FAULTS = (_there_is_room, _places_differ, _fallback_is_another, _faults_are_whole)
