"""What the same load costs in each capacity mode, and which one to choose.

A day of the load is a sine between its trough and its peak. For autoscaling that day is
simulated, lags and burst capacity included; on demand pays for what is consumed, provisioned
for what is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chalk_online_store.capacity.autoscaling import TargetTracking, simulate
from chalk_online_store.capacity.demand import diurnal
from chalk_online_store.capacity.prices import HOURS_A_MONTH, ClassPrices, RegionPrices
from chalk_online_store.capacity.runs import ProvisionedRun
from chalk_online_store.capacity.sizing import RegionUnits, Sizing
from chalk_online_store.errors import InvalidValue

Mode: TypeAlias = Literal["on-demand", "provisioned", "autoscaled"]

TARGET = 70.0
_DAYS = 3
"""Simulated, the first of them only to settle."""

_MINUTES_A_DAY = 1440
_WORTH_IT = 0.15
"""The share that another mode has to save before it is worth tuning, and a risk of throttles."""

_MOST_THROTTLED = 0.0001
"""The share of the load that autoscaling may throttle in the simulation, to be recommended."""


@dataclass(frozen=True, slots=True)
class ModeCost:
    """What a mode costs in a region, in dollars a month; `throttled` is a share of the load.

    `read_units` and `write_units` are the mean units provisioned, on demand those consumed.
    `utilisation` is what is consumed of what is provisioned, by dollars; 1 on demand.
    """

    mode: Mode
    read_units: float
    write_units: float
    reads: float
    writes: float
    utilisation: float
    throttled: float

    @property
    def dollars(self) -> float:
        """Reads and writes together."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True)
class RegionCost:
    """All modes in one region, dollars a month, and what does not depend on the mode."""

    region: str
    modes: tuple[ModeCost, ...]
    storage: float
    recovery: float

    def of(self, mode: Mode) -> ModeCost:
        """One of the modes."""
        return next(each for each in self.modes if each.mode == mode)


@dataclass(frozen=True, slots=True)
class ModeAdvice:
    """What each mode costs in all regions, and which to choose, with the reason."""

    regions: tuple[RegionCost, ...]
    mode: Mode
    reason: str
    notes: tuple[str, ...]

    def dollars(self, mode: Mode) -> float:
        """A month of a mode, storage and recovery included."""
        return sum(r.of(mode).dollars + r.storage + r.recovery for r in self.regions)


def compare(
    sizing: Sizing,
    prices: Sequence[RegionPrices],
    target: float = TARGET,
    *,
    recovery: bool = True,
    infrequent_access: bool = False,
) -> ModeAdvice:
    """Compare modes for a sized mix; `prices` are those of its regions, in order.

    `target` is the utilisation, in percent, that provisioned capacity is to have at the peak.
    `recovery` adds point-in-time recovery.
    """
    if not 20 <= target <= 90:
        raise InvalidValue(f"target={target:g}: AWS takes 20 to 90 %.")
    regions = tuple(
        _region_cost(sizing, units, each, target, recovery, infrequent_access)
        for units, each in zip(sizing.regions, prices, strict=True)
    )
    mode, reason = _choose(regions)
    return ModeAdvice(regions, mode, reason, tuple(_notes(sizing, prices, regions)))


def _region_cost(
    sizing: Sizing,
    units: RegionUnits,
    prices: RegionPrices,
    target: float,
    recovery: bool,
    infrequent: bool,
) -> RegionCost:
    chosen = prices.infrequent_access if infrequent else prices.standard
    trough = sizing.mix.trough
    scaled = (
        autoscaled(units.rcu, trough, target, units.rcu_ready),
        autoscaled(units.wcu, trough, target),
    )
    return RegionCost(
        units.region,
        (
            _on_demand(units, sizing.mix.mean, chosen),
            _provisioned(units, sizing.mix.mean, chosen, target),
            _autoscaled(scaled[0], scaled[1], chosen),
        ),
        sizing.gb * chosen.gb_month,
        sizing.gb * prices.recovery_gb_month if recovery else 0.0,
    )


def _on_demand(units: RegionUnits, mean: float, prices: ClassPrices) -> ModeCost:
    millions = 3600 * HOURS_A_MONTH / 1e6
    read, write = units.rcu * mean, units.wcu * mean
    return ModeCost(
        "on-demand",
        read,
        write,
        read * millions * prices.million_rru,
        write * millions * prices.million_wru,
        1.0,
        0.0,
    )


def _provisioned(units: RegionUnits, mean: float, prices: ClassPrices, target: float) -> ModeCost:
    peaks = (max(units.rcu, units.rcu_ready), units.wcu)
    read, write = (provisioned_units(peak, target) for peak in peaks)
    return _paid(
        "provisioned", read, write, units.rcu * mean, units.wcu * mean, prices, throttled=0.0
    )


def provisioned_units(peak: float, target: float = TARGET) -> int:
    """What to provision for a peak, so that it is `target` percent of that; 1 at least (AWS)."""
    return max(1, math.ceil(round(peak * 100 / target, 6)))


def autoscaled(
    peak: float, trough: float, target: float = TARGET, ready: float = 0.0
) -> ProvisionedRun:
    """Days of a load under autoscaling, from its trough to its peak; `trough` is a share of it.

    Capacity may fall to what the trough needs, or `ready` units a second where these are more,
    and rise to twice what the peak needs.
    """
    most = provisioned_units(max(peak, ready), target)
    least = provisioned_units(max(peak * trough, ready), target)
    scaling = TargetTracking(
        least, 2 * most, target, scale_in_cooldown=60.0, scale_out_cooldown=60.0
    )
    return simulate(diurnal(peak * trough, peak, _DAYS), scaling, initial=most)


def _autoscaled(reads: ProvisionedRun, writes: ProvisionedRun, prices: ClassPrices) -> ModeCost:
    (read, read_used), (write, write_used) = _settled(reads), _settled(writes)
    throttled = max(reads.throttled_share, writes.throttled_share)
    return _paid("autoscaled", read, write, read_used, write_used, prices, throttled)


def _settled(run: ProvisionedRun) -> tuple[float, float]:
    """The mean of what was provisioned and consumed after the first day."""
    rest = slice(_MINUTES_A_DAY, None)
    return float(run.capacity[rest].mean()), float(run.consumed[rest].mean())


def _paid(
    mode: Mode,
    read: float,
    write: float,
    read_used: float,
    write_used: float,
    prices: ClassPrices,
    throttled: float,
) -> ModeCost:
    reads, writes = read * prices.rcu_hour * HOURS_A_MONTH, write * prices.wcu_hour * HOURS_A_MONTH
    used = (read_used * prices.rcu_hour + write_used * prices.wcu_hour) * HOURS_A_MONTH
    return ModeCost(mode, read, write, reads, writes, used / (reads + writes), throttled)


# --- which one -----------------------------------------------------------------------------


def _choose(regions: Sequence[RegionCost]) -> tuple[Mode, str]:
    """On demand, unless another mode saves enough to be worth its care.

    AWS recommends on-demand for most workloads; Chalk provisioned with autoscaling for most in
    production. What decides is what it saves here.
    """
    total: dict[Mode, float] = {
        mode.mode: sum(region.of(mode.mode).dollars for region in regions)
        for mode in regions[0].modes
    }
    free, fixed, scaled = total["on-demand"], total["provisioned"], total["autoscaled"]
    if max(region.of("autoscaled").throttled for region in regions) > _MOST_THROTTLED:
        scaled = math.inf  # Cheap, since it does not serve.
    best = min(fixed, scaled)
    if best > free * (1 - _WORTH_IT):
        saved = 1 - best / free if free else 0.0
        found = f"saves {saved:.0%}" if saved > 0 else f"costs {-saved:.0%} more"
        return "on-demand", f"the best provisioned capacity {found}: not worth its care"
    if fixed > scaled * (1 + _WORTH_IT / 3):
        return "autoscaled", (
            f"it costs {scaled / free:.0%} of on-demand, and {scaled / fixed:.0%} of capacity that "
            "is fixed for the peak"
        )
    return "provisioned", (
        f"it costs {fixed / free:.0%} of on-demand; the load varies so little that autoscaling "
        f"would cost {scaled / fixed:.0%} of that, and can throttle"
    )


def _notes(
    sizing: Sizing, prices: Sequence[RegionPrices], regions: Sequence[RegionCost]
) -> list[str]:
    first, standard = prices[0], prices[0].standard
    even = standard.break_even_reads, standard.break_even_writes
    found = [
        f"Break-even with on-demand: {even[0]:.1%} utilisation for reads, {even[1]:.1%} for writes."
    ]
    base = min(region.of("provisioned").dollars for region in regions) * sizing.mix.trough
    if len(regions) > 1:
        found.append("Reserved capacity does not cover a Global Table's writes (AWS).")
    else:
        found += [
            f"Reserved for {term} years, the capacity that the trough needs would cost "
            f"${base * (1 - saving):,.0f} instead of ${base:,.0f} a month."
            for term, saving in sorted(first.reserved_saving.items())
        ]
    found.append(_note_on_class(sizing, first))
    return found


def _note_on_class(sizing: Sizing, prices: RegionPrices) -> str:
    """AWS: Standard-Infrequent Access stores for less, and takes more for requests."""
    saved = sizing.gb * (prices.standard.gb_month - prices.infrequent_access.gb_month)
    ours = [_on_demand(sizing.regions[0], sizing.mix.mean, each).dollars for each in _both(prices)]
    more = ours[1] - ours[0]
    verdict = "cheaper" if saved > more else "dearer"
    return (
        f"Standard-Infrequent Access would be {verdict}: it saves ${saved:,.0f} of storage a "
        f"month, and takes ${more:,.0f} more for requests (on demand, "
        f"{sizing.regions[0].region})."
    )


def _both(prices: RegionPrices) -> tuple[ClassPrices, ClassPrices]:
    return prices.standard, prices.infrequent_access
