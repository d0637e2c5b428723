"""How many processes make sense here."""

import os
import sys


def cores() -> int:
    """Processors this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
