"""Rules of a configuration about answers that are kept."""

from collections.abc import Iterator

from penstock.core.cache_rules import ROUTES
from penstock.core.config_places import Reading
from penstock.core.config_problem import Problem
from penstock.core.config_types import shown
from penstock.core.nearest import suggestion


def _routes_exist(reading: Reading) -> Iterator[Problem]:
    for route in reading.config.cache.routes:
        if route not in ROUTES:
            near = suggestion(route, ROUTES) or f"; there are {', '.join(ROUTES)}"
            words = f"routes: there is no route {shown(route)} whose answers could be kept{near}"
            yield reading.places.at_key(("cache", "routes", route), words)


KEPT_ANSWERS = (_routes_exist,)
