"""Lines for people on standard error, from the parent: it must neither die nor wait because nobody reads them."""

import os
import select

STDERR = 2


def say(words: str) -> None:
    """Write a line, at most PIPE_BUF bytes of it; into a pipe that is full, none."""
    line = f"penstock: {words}".encode(errors="backslashreplace")[: select.PIPE_BUF - 1] + b"\n"
    try:
        if select.select([], [STDERR], [], 0)[1]:  # a pipe that is ready takes PIPE_BUF bytes at once (pipe(7))
            os.write(STDERR, line)
    except (OSError, ValueError):
        pass
