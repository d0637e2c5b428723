"""Rules of a configuration about tiers, overrides, budgets and prices."""

from collections import Counter
from collections.abc import Iterator

import msgspec

from penstock.core.config import Amounts, Config, Tier
from penstock.core.config_places import Path, Reading, label
from penstock.core.config_problem import Problem
from penstock.core.measures import MOST_LIMITS

SUBJECTS = ("key", "user_id", "tenant_id", "tier")
"""What an override can name."""


def _overrides_name_one(reading: Reading) -> Iterator[Problem]:
    for index, override in enumerate(reading.config.limits.override):
        path: Path = ("limits", "override", index)
        if any(failed[:3] == path for failed in reading.failed):
            continue
        if len([subject for subject in SUBJECTS if getattr(override, subject)]) != 1:
            yield reading.places.at_key(path, "[[limits.override]] names exactly one key, user_id, tenant_id or tier")
        if not override.amounts():
            yield reading.places.at_key(path, "[[limits.override]] sets no limit, such as requests_per_hour = 5000")


def _overrides_agree(reading: Reading) -> Iterator[Problem]:
    seen: set[tuple[str, str, str]] = set()
    for index, override in enumerate(reading.config.limits.override):
        for subject in SUBJECTS:
            for name in override.amounts() if (of := getattr(override, subject)) else ():
                if (subject, of, name) in seen:
                    path: Path = ("limits", "override", index, name)
                    yield reading.places.at_key(path, f'{name} of {subject} "{of}" is set already')
                seen.add((subject, of, name))


def _upgrades_end(reading: Reading) -> Iterator[Problem]:
    tiers = reading.config.tiers
    for name in tiers:
        passed = [name]
        while (tier := tiers.get(passed[-1])) and tier.upgrade_to and tier.upgrade_to not in passed:
            passed.append(tier.upgrade_to)
        # Each circle is told once, at its first tier.
        if tier and tier.upgrade_to == name and name == min(passed, key=list(tiers).index):
            circle = " -> ".join([*passed, name])
            yield reading.places.at_value(("tiers", name, "upgrade_to"), f"upgrade_to goes in a circle: {circle}")


def _limits_have_room(reading: Reading) -> Iterator[Problem]:
    """Shared memory and usage records hold so many limits of one request; all of them must count."""
    config = reading.config
    for name, tier in config.tiers.items():
        if (most := _most_at_once(config, name, tier)) > MOST_LIMITS:
            path: Path = ("tiers", name)
            yield reading.places.at_key(
                path, f"{label(path)} and the overrides that may meet it are {most} limits; {MOST_LIMITS} can be held"
            )
    if (most := _most_at_once(config, "", Tier())) > MOST_LIMITS:
        yield reading.places.at_key(
            ("limits", "override"),
            "the overrides that may meet at a key without tier, and its quota, "
            f"are {most} limits; {MOST_LIMITS} can be held",
        )


def _most_at_once(config: Config, name: str, tier: Tier) -> int:
    """Of a key of the tier: its own limits, those beside them, and the most overrides one caller can meet."""
    by_subject: dict[str, Counter[str]] = {subject: Counter() for subject in SUBJECTS}
    for override in config.limits.override:
        for subject, counter in by_subject.items():
            if of := getattr(override, subject):
                counter[of] += len(override.amounts())
    beside = by_subject.pop("tier")[name]
    quota = tier.requests_per_hour is None  # a key's own quota, where it does not replace the tier's
    return len(tier.amounts()) + beside + quota + sum(max(met.values(), default=0) for met in by_subject.values())


def _budgets_need_an_end(reading: Reading) -> Iterator[Problem]:
    """A price by time has no worst case where a request may run for ever."""
    if not _has_budget(reading.config):
        return
    for name, backend in reading.config.backends.items():
        timed = backend.usd_per_gpu_hour is not None or backend.usd_per_kwh is not None
        if timed and backend.timeout.total_s == 0:
            yield reading.places.at_value(
                ("backends", name, "timeout", "total_s"),
                f"total_s: {label(('backends', name))} is paid by time and there are limits in USD, "
                "so its requests must end: not 0",
            )


def _has_budget(config: Config) -> bool:
    sections: tuple[Amounts, ...] = (*config.tiers.values(), *config.limits.override)
    return any(name.startswith("usd_") for section in sections for name in section.amounts())


def _prices_are_whole(reading: Reading) -> Iterator[Problem]:
    for name, model in reading.config.models.items():
        path: Path = ("models", name, "price")
        failed = any(each[:3] == path for each in reading.failed)
        if model.price is not None and not failed and not any(_written(model.price)):
            yield reading.places.at_value(path, "price is empty: write for example { input_usd_per_mtok = 2.5 }")
    for name, backend in reading.config.backends.items():
        if (backend.power_watts is None) != (backend.usd_per_kwh is None):
            one, other = ("power_watts", "usd_per_kwh")
            if backend.power_watts is None:
                one, other = other, one
            at: Path = ("backends", name, one)
            if ("backends", name, other) not in reading.failed:
                yield reading.places.at_key(at, f"{one} needs {other} beside it")


def _written(price: msgspec.Struct) -> Iterator[bool]:
    return (value is not None for value in msgspec.structs.astuple(price))


MONEY_AND_LIMITS = (
    _overrides_name_one,
    _overrides_agree,
    _upgrades_end,
    _limits_have_room,
    _budgets_need_an_end,
    _prices_are_whole,
)
