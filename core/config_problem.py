"""What is wrong with a configuration, as data: a place and words; and the exception that carries it all."""

from collections.abc import Iterable

import msgspec


class Problem(msgspec.Struct, frozen=True, order=True):
    """One mistake. Line and column count characters from 1; line 0 = no place in the file."""

    line: int
    column: int
    message: str

    def within(self, file: str) -> str:
        """As a compiler would say it: `penstock.toml:12:5: …`."""
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        return f"{place}: {self.message}"


class ConfigError(ValueError):
    """A configuration that cannot be used. `str()` lists every problem, a line each, in file order."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(problem.within(file) for problem in self.problems))
