"""The retry budget: what a worker may try again, as a share of what it was asked, so that retries never multiply an
outage. Failovers, retries and hedged attempts cost 1 each; each request earns EARNED."""

FIRST = 10.0
EARNED = 0.2
MOST = 100.0


class RetryBudget:
    """One per worker. `requests` is counted up by `Attempts.run`: what it earned is worked out when it is spent."""

    __slots__ = ("_saved", "_seen", "requests")

    def __init__(self) -> None:
        self._saved = FIRST
        self._seen = 0
        self.requests = 0

    @property
    def saved(self) -> float:
        """Attempts that may be made beyond the first of each request."""
        return min(self._saved + (self.requests - self._seen) * EARNED, MOST)

    def spend(self) -> bool:
        """Take one; False if there is none."""
        self._saved = self.saved
        self._seen = self.requests
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
