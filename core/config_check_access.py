"""Rules of a configuration about keys, the admin and the store they need."""

from collections.abc import Iterator

from penstock.core.config_places import Path, Reading
from penstock.core.config_problem import Problem


def _keys_are_asked_for(reading: Reading) -> Iterator[Problem]:
    auth: Path = ("auth", "mode")
    if reading.config.keys and reading.config.auth.mode == "none" and auth not in reading.failed:
        yield reading.places.at_key(
            ("keys", 0), '[[keys]]: nobody is asked for a key in mode "none"; write mode = "keys" under [auth]'
        )


def _key_names_differ(reading: Reading) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, key in enumerate(reading.config.keys):
        if key.name in seen:
            yield reading.places.at_value(("keys", index, "name"), f'name: there is a key "{key.name}" already')
        seen.add(key.name)


def _keys_are_there(reading: Reading) -> Iterator[Problem]:
    for index, key in enumerate(reading.config.keys):
        path: Path = ("keys", index, "key")
        if not key.key and path not in reading.failed:
            yield reading.places.at_value(path, 'key must not be empty: write "env:NAME" or "file:PATH"')


def _store_is_there(reading: Reading) -> Iterator[Problem]:
    """Without a store there are only the file's keys, and nothing to administrate."""
    config = reading.config
    if config.store.url != "none":
        return
    if config.admin.key:
        yield reading.places.at_key(
            ("admin", "key"), 'key: the admin routes need a store, and [store] says url = "none"'
        )
    tried = config.keys or any(path[:1] == ("keys",) for path in reading.failed)
    if config.auth.mode == "keys" and not tried:
        yield reading.places.at_value(
            ("auth", "mode"), 'mode = "keys", but there can be none: no [[keys]] here, and [store] says url = "none"'
        )


WHO_MAY_CALL = (_keys_are_asked_for, _key_names_differ, _keys_are_there, _store_is_there)
