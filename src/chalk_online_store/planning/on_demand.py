"""What an on-demand table serves of a demand: twice the previous peak at once. A simulation.

One dimension, read or write, of one table. The rules, each by its source in the developer guide:

- "Warm throughput": a new table serves 12,000 read and 4,000 write units a second at once; more
  where warm throughput was set ahead. It does not fall again.
- "On-demand capacity mode", "Initial throughput and scaling properties": what is asked for is
  served up to double the previous peak. Beyond that the table grows by itself, but throttling can
  occur if the previous peak is more than doubled within 30 minutes.
- "Maximum throughput for on-demand tables": what exceeds the table's own maximum is throttled;
  without one, the quota of 40,000 units a second holds ("Quotas").
- Only what is served is paid for, by the request unit.

AWS says that throttling *can* occur. Assumed here, to be on the safe side, that it does: a minute
counts as a peak once it is 30 minutes past, and then is the previous one. Burst capacity is not
counted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chalk_online_store.planning.demand import MINUTE, Demand
from chalk_online_store.planning.runs import OnDemandRun
from chalk_online_store.planning.traffic import refuse

READ_WARM = 12_000.0
WRITE_WARM = 4_000.0
"""Units a second that a new table serves at once."""

TABLE_QUOTA = 40_000.0
"""Units a second of one table, read or write, unless AWS raised it."""

SETTLING = 1_800.0
"""Seconds within which AWS wants no more than a doubling."""


@dataclass(frozen=True, slots=True)
class OnDemand:
    """An on-demand table's dimension, all in units a second.

    `warm` is its warm throughput: `READ_WARM` or `WRITE_WARM` for a new table, or what was set
    ahead. `maximum` is the table's own, or the account's quota for a table; infinite for none.
    `settling` is assumed: the seconds after which what was reached counts as the previous peak.
    """

    warm: float = READ_WARM
    maximum: float = TABLE_QUOTA
    settling: float = SETTLING

    def __post_init__(self) -> None:
        refuse(
            [
                ("warm", self.warm, 0 < self.warm < math.inf, "above 0 units a second"),
                ("maximum", self.maximum, self.maximum > 0, "above 0 units a second"),
                ("settling", self.settling, 0 <= self.settling < math.inf, "0 seconds or more"),
            ]
        )


def simulate(demand: Demand, table: OnDemand) -> OnDemandRun:
    """What an on-demand table does with a demand, in steps of a minute or shorter.

    A peak is what was served on average over a minute. Raises `InvalidValue` for longer steps.
    """
    minutes = demand.by_minute()
    late = max(1, math.ceil(table.settling / MINUTE))
    served = np.empty_like(minutes)
    capacity = np.empty(len(minutes))
    means: list[float] = []
    peak = table.warm / 2
    for minute, wanted in enumerate(minutes):
        if minute >= late:
            peak = max(peak, means[minute - late])
        capacity[minute] = min(2 * peak, table.maximum)
        np.minimum(wanted, capacity[minute], out=served[minute])
        means.append(float(served[minute].mean()))
    return OnDemandRun(
        demand=demand,
        capacity=np.repeat(capacity, minutes.shape[1]),
        consumed=served.ravel(),
        throttled=(minutes - served).ravel(),
    )
