"""The known name somebody most likely meant, for error messages that help."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

LONGEST_NAME = 200
"""Characters; a longer name is no typing mistake, and comparing costs the square of the length."""
MOST_NAMES = 1000
"""So many candidates are compared, since a stranger's request may ask for this."""


def near_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names that look like `name`, best first, at most `limit`; case does not count."""
    if len(name) > LONGEST_NAME:
        return []
    spellings = {candidate.lower(): candidate for candidate in islice(known, MOST_NAMES)}
    return [spellings[match] for match in get_close_matches(name.lower(), spellings, n=limit)]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one known name that looks most like `name`, or None if none does."""
    return next(iter(near_names(name, known, limit=1)), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean "workers"?`, or nothing."""
    match = nearest(name, known)
    return f'; did you mean "{match}"?' if match is not None else ""
