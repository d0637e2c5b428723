"""What every table of a configuration file is, and the kinds of values that several of them hold."""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

YEAR_S = 31_536_000
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
"""A duration; the bound keeps infinity and slips of the unit out. 0 has a meaning of its own everywhere."""
Milliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]
Tokens = Annotated[int, Meta(ge=1, le=1 << 40)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""

    shorthand: ClassVar[str] = ""
    """Where a string may stand for the whole table: the field it fills."""
