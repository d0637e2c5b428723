"""The targets of a configuration as all workers see them: their cells in shared memory, and what chooses among them."""

from collections.abc import Iterator

import msgspec

from penstock.core.balance import BALANCES, backend_id, breaker_rules, target_id
from penstock.core.config import Balance, Config
from penstock.core.errors import Level, StateFullError
from penstock.core.route import Target
from penstock.ext import BackendCell, Balancer, StateFull, TargetCell, Targets
from penstock.proxy.log import Log


class Member(msgspec.Struct, frozen=True):
    """One target of a balancer. model: its name there, "" = whatever name the client used. max_in_flight: 0 = none."""

    backend: str
    model: str
    cell: BackendCell
    target: TargetCell
    weight: int
    max_in_flight: int


class TargetCells:
    """One per App. targets: by backend and the model's name there, "" = whatever name the client used."""

    def __init__(self, config: Config, shared: Targets) -> None:
        """Raises StateFull, where the shared memory has no room for so many backends."""
        self._config = config
        self._rules = breaker_rules(config.breaker)
        self.shared = shared
        self._urls = {name: str(backend.url or "") for name, backend in config.backends.items()}
        self.backends: dict[str, BackendCell] = {
            name: shared.backend(backend_id(name, url)) for name, url in self._urls.items()
        }
        self.targets: dict[tuple[str, str], TargetCell] = {}
        self._balancers: dict[tuple[tuple[Target, ...], Balance], Balancer] = {}
        self._members: dict[Balancer, tuple[Member, ...]] = {}

    def balancer_of(self, targets: tuple[Target, ...], balance: Balance) -> Balancer:
        """What chooses among these, the same for the same. Raises StateFullError."""
        found = self._balancers.get((targets, balance))
        if found is None:
            found = self._balancers[targets, balance] = self._make(targets, balance)
        return found

    def members(self, balancer: Balancer) -> tuple[Member, ...]:
        """What a balancer chooses among, by index."""
        return self._members[balancer]

    def change(self, log: Log, backend: str, model: str, state: str, why: str) -> None:
        """Tell of a target that has changed: open, half_open or closed; of a backend: drained, enabled, down, up.

        model: "" of a backend as a whole.
        """
        target = {"target": model} if model else {}
        level: Level = "warning" if state in ("open", "down") else "info"
        log.event(level, f"a target is {state}", backend=backend, **target, breaker=state, why=why)

    def _make(self, targets: tuple[Target, ...], balance: Balance) -> Balancer:
        try:
            members = tuple(self._bind(targets))
        except StateFull as error:
            raise StateFullError(str(error), retry_after_s=1) from None
        rows = [(each.cell, each.target, each.weight, each.max_in_flight) for each in members]
        made = Balancer(self.shared, rows, BALANCES[balance], self._rules)
        self._members[made] = members
        return made

    def _bind(self, targets: tuple[Target, ...]) -> Iterator[Member]:
        for each in targets:
            name, model = each.backend, each.model or ""
            cell = self.targets.get((name, model))
            if cell is None:
                cell = self.targets[name, model] = self.shared.target(target_id(name, self._urls[name], model))
            most = self._config.backends[name].max_in_flight
            yield Member(name, model, self.backends[name], cell, each.weight, most)
