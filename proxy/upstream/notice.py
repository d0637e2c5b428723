"""What a worker says in shared memory of those who wait in it: per backend the lowest tag, and how many.

One for all lines of a worker: after a reload those who wait in the old App's line are still there beside the new one's.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakSet

from penstock.ext import BackendCell

if TYPE_CHECKING:
    from penstock.proxy.upstream.line import Line

Row = tuple[BackendCell, int, int]
"""(backend, the lowest tag that waits for it, how many do)."""


class Notice:
    """One per worker. Rows are by the backend's id. lines: all of this worker's, as long as somebody has them."""

    def __init__(self) -> None:
        self.lines: WeakSet[Line] = WeakSet()
        self._of_lines: dict[object, Mapping[int, Row]] = {}
        self._said: dict[int, Row] = {}

    def say(self, line: object, rows: Mapping[int, Row]) -> None:
        """Who waits in a line now, in place of what it said before."""
        if rows:
            self._of_lines[line] = rows
        else:
            self._of_lines.pop(line, None)
        wanted: dict[int, Row] = {}
        for told in self._of_lines.values():
            for number, row in told.items():
                wanted[number] = joined(wanted[number], row) if number in wanted else row
        for number, row in wanted.items():
            if self._said.get(number, row[:1])[1:] != row[1:]:
                row[0].wait(row[1], row[2])
        for number, (cell, _, _) in self._said.items():
            if number not in wanted:
                cell.wait(0, 0)
        self._said = wanted


def joined(one: Row, other: Row) -> Row:
    """Those of both, at one backend."""
    return one[0], min(one[1], other[1]), one[2] + other[2]
