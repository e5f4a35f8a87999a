"""The capacity of the table that a sizing asks for: provisioned units, and their bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chalk_online_store.planning.sizing import RegionUnits, Sizing

Mode: TypeAlias = Literal["on-demand", "provisioned", "autoscaled"]

TARGET = 70.0

MAXIMUM_FACTOR = 2
"""The autoscaling maximum, as a multiple of what the peak needs."""


@dataclass(frozen=True, slots=True)
class PlannedUnits:
    """Units per second of one dimension; both bounds equal `units` if it is not autoscaled."""

    units: int
    minimum: int
    maximum: int

    @property
    def is_autoscaled(self) -> bool:
        """True if the bounds differ."""
        return self.minimum < self.maximum


@dataclass(frozen=True, slots=True)
class PlannedRegion:
    """The provisioned capacity of one region."""

    region: str
    read: PlannedUnits
    write: PlannedUnits


def planned_regions(
    sizing: Sizing, mode: Mode, target: float = TARGET
) -> tuple[PlannedRegion, ...]:
    """Return the provisioned capacity and its bounds in each region.

    Capacity is for the peak, and for what the mix wants of it when another region is lost, at
    `target` percent. In several regions, AWS demands autoscaled writes in both modes. Reads of a
    replica that differ from the first region are autoscaled as well, since Terraform cannot fix
    them. Empty on demand.
    """
    if mode == "on-demand":
        return ()
    is_scaled, trough = mode == "autoscaled", sizing.mix.trough
    wcu = max(region.wcu for region in sizing.regions)
    writes = _units(wcu, wcu * trough, target, is_scaled or len(sizing.regions) > 1)
    first = _reads(sizing.regions[0], trough, target, is_scaled)
    regions = [PlannedRegion(sizing.regions[0].region, first, writes)]
    for region in sizing.regions[1:]:
        reads = _reads(region, trough, target, is_scaled)
        if reads != first:
            reads = _reads(region, trough, target, is_scaled=True)
        regions.append(PlannedRegion(region.region, reads, writes))
    return tuple(regions)


def provisioned_units(peak: float, target: float = TARGET) -> int:
    """Return what to provision so that a peak is `target` percent of it; at least 1 (AWS)."""
    return max(1, math.ceil(round(peak * 100 / target, 6)))


def _reads(region: RegionUnits, trough: float, target: float, is_scaled: bool) -> PlannedUnits:
    peak = max(region.rcu, region.rcu_ready)
    least = max(region.rcu * trough, region.rcu_ready)
    wanted = max(peak, region.rcu_after_loss) if is_scaled else peak
    return _units(wanted, least, target, is_scaled)


def _units(peak: float, least: float, target: float, is_scaled: bool) -> PlannedUnits:
    units = provisioned_units(peak, target)
    if not is_scaled:
        return PlannedUnits(units, units, units)
    return PlannedUnits(units, provisioned_units(least, target), MAXIMUM_FACTOR * units)
