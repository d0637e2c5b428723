"""What limits count and over which time: the names the configuration uses, and what they mean in shared memory."""

from typing import Final

import msgspec

from penstock.ext import MEASURE_IN_FLIGHT as MEASURE_IN_FLIGHT
from penstock.ext import MEASURE_LLM_REQUESTS as MEASURE_LLM_REQUESTS
from penstock.ext import MEASURE_NANO_USD as MEASURE_NANO_USD
from penstock.ext import MEASURE_REQUESTS as MEASURE_REQUESTS
from penstock.ext import MEASURE_TOKENS as MEASURE_TOKENS
from penstock.ext import UNLIMITED as UNLIMITED
from penstock.ext import WINDOW_BUCKET as WINDOW_BUCKET
from penstock.ext import WINDOW_DAY as WINDOW_DAY
from penstock.ext import WINDOW_HOUR as WINDOW_HOUR
from penstock.ext import WINDOW_MONTH as WINDOW_MONTH
from penstock.ext import WINDOW_NONE as WINDOW_NONE

MOST_LIMITS: Final = 16
"""Limits and meters of one request: as many as a usage record has room for."""
NANO: Final = 1_000_000_000


class Measured(msgspec.Struct, frozen=True):
    """What a limit's name means.

    what, per: the two parts of the name, "requests" and "hour"; per is "" for what is in flight.
    period_ns: of a bucket, the time in which it refills; else 0.
    """

    name: str
    what: str
    per: str
    measure: int
    window: int
    period_ns: int = 0


_WHAT = (("requests", MEASURE_REQUESTS), ("llm_requests", MEASURE_LLM_REQUESTS), ("tokens", MEASURE_TOKENS))
_PER = (
    ("s", WINDOW_BUCKET, NANO),
    ("minute", WINDOW_BUCKET, 60 * NANO),
    ("hour", WINDOW_HOUR, 0),
    ("day", WINDOW_DAY, 0),
    ("month", WINDOW_MONTH, 0),
)
IN_FLIGHT = Measured("in_flight", "in_flight", "", MEASURE_IN_FLIGHT, WINDOW_NONE)

MEASURED: Final = {
    measured.name: measured
    for measured in (
        *(
            Measured(f"{what}_per_{per}", what, per, measure, window, period_ns)
            for what, measure in _WHAT
            for per, window, period_ns in _PER
        ),
        *(Measured(f"usd_per_{per}", "usd", per, MEASURE_NANO_USD, window, ns) for per, window, ns in _PER[2:]),
        IN_FLIGHT,
    )
}
"""Limit name -> its meaning, in the order a request is measured."""

METERS: Final = tuple(
    MEASURED[name] for name in ("requests_per_hour", "tokens_per_day", "usd_per_day", "usd_per_month")
)
"""Counted for every key, limited or not, so that it can be told what it used."""
