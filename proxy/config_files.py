"""The configuration file and those it refers to: what they looked like when they were read, so that a change shows."""

from collections.abc import Iterator
from pathlib import Path

from penstock.core.config import Config
from penstock.proxy.secrets import secret_files
from penstock.proxy.settings import Settings

Look = tuple[tuple[int, int, int] | None, ...]
"""Of each file the time it was changed (ns), its size and its inode; None of one that is not there."""


class ConfigFiles:
    """Watched by looking. A file is seldom written at once: a change counts when the next look finds it finished."""

    def __init__(self, settings: Settings) -> None:
        self._files: tuple[Path, ...] = ()
        self._read = self._last = _look(())
        self.watch(settings)

    def watch(self, settings: Settings) -> None:
        """From now on look at these. They count as read when `look` was last called."""
        files = tuple(_files(settings))
        if files != self._files:
            self._files = files
            self._read = self._last = _look(files)

    def look(self) -> None:
        """They are being read, as they are now."""
        self._read = self._last = _look(self._files)

    def changed(self) -> bool:
        """Whether they are others than those that were read, and nobody is writing them. Each change is told once."""
        before, self._last = self._last, _look(self._files)
        if self._last != before or self._last == self._read:
            return False
        self._read = self._last
        return True


def certificates(config: Config) -> bytes:
    """The contents of the files of [server.tls]; b"" without it, or where they cannot be read."""
    tls = config.server.tls
    if tls is None:
        return b""
    try:
        return b"".join(Path(name).read_bytes() for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name)
    except OSError:
        return b""


def _files(settings: Settings) -> Iterator[Path]:
    if settings.source is None:
        return
    config = settings.config
    yield settings.source
    yield from secret_files(config, settings.source.absolute().parent)
    for backend in config.backends.values():
        if backend.ca_file:
            yield Path(backend.ca_file)
    if (tls := config.server.tls) is not None:
        yield from (Path(name) for name in (tls.cert_file, tls.key_file, tls.client_ca_file) if name)


def _look(files: tuple[Path, ...]) -> Look:
    return tuple(_signature(file) for file in files)


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
