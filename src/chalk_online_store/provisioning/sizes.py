"""The table that a sizing asks for."""

from __future__ import annotations

from chalk_online_store.planning.modes import TARGET, Mode
from chalk_online_store.planning.planned import PlannedUnits, planned_regions
from chalk_online_store.planning.sizing import Sizing
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    Capacity,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)


def spec_for(name: str, sizing: Sizing, mode: Mode, target: float = TARGET) -> TableSpec:
    """Return a table for a sized mix, in a capacity mode: see `planned_regions`."""
    return TableSpec(name, sizing.mix.regions, _capacity(sizing, mode, target))


def _capacity(sizing: Sizing, mode: Mode, target: float) -> Capacity:
    if mode == "on-demand":
        return OnDemand()
    first, *others = planned_regions(sizing, mode, target)
    differing = {
        other.region: _units(other.read, target) for other in others if other.read != first.read
    }
    return Provisioned(_units(first.read, target), _units(first.write, target), differing)


def _units(planned: PlannedUnits, target: float) -> Units:
    if not planned.is_autoscaled:
        return Units(planned.units)
    return Units(planned.units, Autoscaling(planned.minimum, planned.maximum, target))
