"""The table that a sizing asks for."""

from __future__ import annotations

from collections.abc import Iterator

from chalk_online_store.capacity.modes import TARGET, Mode, provisioned_units
from chalk_online_store.capacity.sizing import RegionUnits, Sizing
from chalk_online_store.provision.spec import (
    Autoscaling,
    Capacity,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)

_ROOM = 2
"""Autoscaling may go to so many times what the peak needs."""


def spec_for(name: str, sizing: Sizing, mode: Mode, target: float = TARGET) -> TableSpec:
    """A table for a sized mix, in a capacity mode.

    Provisioned capacity is for the peak, and for what the mix wants of it when another region is
    lost, at `target` percent. Provisioned in several regions, writes are autoscaled whatever the
    mode, as AWS demands.
    """
    return TableSpec(name, sizing.mix.regions, _capacity(sizing, mode, target))


def _capacity(sizing: Sizing, mode: Mode, target: float) -> Capacity:
    if mode == "on-demand":
        return OnDemand()
    scaled, trough = mode == "autoscaled", sizing.mix.trough
    first, *others = (_reads(region, trough, target, scaled) for region in sizing.regions)
    wcu = max(region.wcu for region in sizing.regions)
    writes = _units(wcu, wcu * trough, target, scaled or bool(others))
    return Provisioned(first, writes, dict(_differing(sizing, first, target)))


def _differing(sizing: Sizing, first: Units, target: float) -> Iterator[tuple[str, Units]]:
    """The reads of replicas that differ: autoscaled, since Terraform cannot fix them."""
    trough, scaled = sizing.mix.trough, first.autoscaling is not None
    for region in sizing.regions[1:]:
        if _reads(region, trough, target, scaled) != first:
            yield region.region, _reads(region, trough, target, scaled=True)


def _reads(region: RegionUnits, trough: float, target: float, scaled: bool) -> Units:
    peak = max(region.rcu, region.rcu_ready)
    least = max(region.rcu * trough, region.rcu_ready)
    return _units(max(peak, region.rcu_after_loss) if scaled else peak, least, target, scaled)


def _units(peak: float, least: float, target: float, scaled: bool) -> Units:
    units = provisioned_units(peak, target)
    if not scaled:
        return Units(units)
    return Units(units, Autoscaling(provisioned_units(least, target), _ROOM * units, target))
