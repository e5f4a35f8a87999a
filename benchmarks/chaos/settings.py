"""What a run lasts, what load it has, and how its stores are routed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from chalk_online_store import Routing
from chalk_online_store.routing.settings import WriteMode

PREFERRED, STANDBY = "us-east-1", "us-west-2"
MODES = ("sync", "async")

TIMEOUT = 1.0
"""Seconds that each call has."""

A_SECOND = 80
"""Calls of each store: half of them read a batch, a quarter one entity, a quarter write."""

BATCH = 20
ENTITIES = 500
WRITES_OF_AN_ENTITY = 4
"""An entity is written so many times in a row, so that the order of writes counts too."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: of warming up, which are not counted, before the fault, with it, and after it."""

    warming: float = 2.0
    before: float = 6.0
    fault: float = 8.0
    after: float = 14.0

    @property
    def healed(self) -> float:
        """When the fault ends, counted from the end of the warming."""
        return self.before + self.fault

    @property
    def end(self) -> float:
        """When the load ends."""
        return self.healed + self.after


QUICK = Pace(1.0, 3.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """`Routing`, as one process tells it to another. In seconds, where it is a time."""

    return_after: float = 2.0
    return_over: float = 2.0
    probe_every: float = 2.0
    writes: WriteMode = "one-region"
    max_lag: float | None = None

    def as_routing(self) -> Routing:
        return Routing(**asdict(self))
