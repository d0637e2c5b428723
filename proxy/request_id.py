"""Names for requests: unique over workers and restarts, cheap to make, in logs and in X-Request-ID."""

from itertools import count


class RequestIds:
    """prefix: random, one per worker process; ids count up behind it."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._numbers = count(1)

    def next(self) -> bytes:
        return b"%b-%x" % (self._prefix, next(self._numbers))
