"""How a store on several regions is routed: what its user decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from chalk_online_store.arguments import (
    check_choice,
    check_flag,
    check_instance,
    finite_number,
    whole_number,
)
from chalk_online_store.errors import InvalidValue
from chalk_online_store.schema import Duration, microseconds

ReadPolicy: TypeAlias = Literal["ordered", "nearest", "local"]
WriteMode: TypeAlias = Literal["one-region", "any-region", "home"]
BeyondMaxLag: TypeAlias = Literal["avoid", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """When a read that takes long is asked a second time, elsewhere.

    A request that takes longer than `percentile` of those of its kind is sent to the next healthy
    region too, or, where there is none, over another connection. The first good answer wins and
    the other request is given up. At most `budget` of the requests are hedged, over time, and
    `burst` at once: so hedges cannot double the load of an engine that has become slow.
    """

    percentile: float = 0.95
    budget: float = 0.05
    burst: int = 10

    def __post_init__(self) -> None:
        for name in ("percentile", "budget"):
            share = finite_number(getattr(self, name), f"Hedging({name}=...)", most=1)
            if share in (0, 1):
                raise InvalidValue(f"Hedging({name}=...) lies between 0 and 1.")
        whole_number(self.burst, "Hedging(burst=...)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How a store chooses among the regions of its URL, whose order is that of preference.

    `reads`: "ordered" prefers the first healthy region, "nearest" the one that answers soonest,
    "local" asks the first alone. `writes`: "one-region" writes to the first healthy region and
    moves on when it is down, "any-region" to whichever region is read, "home" to the home region
    alone. `hedging` None asks no region twice.

    With `max_lag`, a replica whose replication is further behind than that is asked last, or,
    with `beyond_max_lag="refuse"`, not at all.

    Every region is probed about `probe_every`, by a read of the table. A region that was down or
    slow has to be well for `return_after` before it is asked again, and then gets its traffic
    back over `return_over`: both at random a little longer in each process. Processes that write
    also write a heartbeat to each region, unless `heartbeats` is False.

    Raises `InvalidValue`, `InvalidSchema`.
    """

    reads: ReadPolicy = "ordered"
    writes: WriteMode = "one-region"
    hedging: Hedging | None = Hedging()
    max_lag: Duration | None = None
    beyond_max_lag: BeyondMaxLag = "avoid"
    probe_every: Duration = "5s"
    return_after: Duration = "15s"
    return_over: Duration = "15s"
    heartbeats: bool = True

    def __post_init__(self) -> None:
        for name, kind in (
            ("reads", ReadPolicy),
            ("writes", WriteMode),
            ("beyond_max_lag", BeyondMaxLag),
        ):
            check_choice(getattr(self, name), get_args(kind), f"Routing({name}=...)")
        check_instance(self.hedging, Hedging, "Routing(hedging=...)", InvalidValue)
        check_flag(self.heartbeats, "Routing(heartbeats=...)")
        for name in ("probe_every", "return_after", "return_over"):
            if not microseconds(getattr(self, name), f"Routing({name}=...)"):
                raise InvalidValue(f'Routing({name}=...) is a time such as "5s".')
        if self.max_lag is not None and not microseconds(self.max_lag, "Routing(max_lag=...)"):
            raise InvalidValue('Routing(max_lag=...) is a time such as "10s", or None.')


# --- How many reads may be asked twice -----------------------------------------------------


class HedgeBudget:
    """A token bucket: each request brings `share` of a hedge, of which `burst` are kept."""

    def __init__(self, share: float, burst: int) -> None:
        self._share = share
        self._burst = float(burst)
        self._left = float(burst)

    def earn(self) -> None:
        """A request was made."""
        self._left = min(self._burst, self._left + self._share)

    def take(self) -> bool:
        """Spend a hedge, if there is one."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
