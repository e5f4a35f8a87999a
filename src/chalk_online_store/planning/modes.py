"""Comparison of capacity modes for one load, and the recommended mode.

A day of the load is a sine between its trough and its peak. For autoscaling that day is
simulated, lags and burst capacity included. On-demand capacity is paid by consumed units,
provisioned capacity by provisioned units. Every figure comes from a bill (`planning.bill`), and
every note is computed for the recommended mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from chalk_online_store.planning.bill import Bill, Choice, ModeCost, TableClass, autoscaled, bill
from chalk_online_store.planning.prices import RegionPrices, ServicePrices, ValkeyPrices
from chalk_online_store.planning.sizing import TARGET, Mode, Sizing, provisioned_units

__all__ = [
    "MODES",
    "TARGET",
    "Alternative",
    "Mode",
    "ModeAdvice",
    "ModeCost",
    "RegionCost",
    "autoscaled",
    "compare",
    "provisioned_units",
]

MODES: tuple[Mode, ...] = ("on-demand", "provisioned", "autoscaled")

_WORTH_IT = 0.15
"""The share that another mode has to save before it is worth tuning, and a risk of throttles."""

_MOST_THROTTLED = 0.0001
"""The share of the load that autoscaling may throttle in the simulation, to be recommended."""


@dataclass(frozen=True, slots=True)
class RegionCost:
    """All modes in one region, dollars per month, and what does not depend on the mode.

    A region without prices has units and no dollars, and `is_priced` is False.
    """

    region: str
    modes: tuple[ModeCost, ...]
    storage: float
    recovery: float
    is_priced: bool = True

    def of(self, mode: Mode) -> ModeCost:
        """One of the modes."""
        return next(each for each in self.modes if each.mode == mode)


@dataclass(frozen=True, slots=True)
class Alternative:
    """The recommended mode with another commitment, table class or store, per month.

    `saved` is the difference from the recommended bill, below 0 if it costs more.
    """

    name: str
    bill: Bill
    saved: float


@dataclass(frozen=True, slots=True)
class ModeAdvice:
    """The cost of each mode in all regions, and the recommended mode with the reason.

    `alternatives` change the recommended mode's bill. The largest saving comes first.
    """

    regions: tuple[RegionCost, ...]
    mode: Mode
    reason: str
    notes: tuple[str, ...]
    bills: Mapping[Mode, Bill] = field(default_factory=dict)
    alternatives: tuple[Alternative, ...] = ()

    def dollars(self, mode: Mode) -> float:
        """Return the bill of a mode, in dollars per month."""
        return self.bills[mode].monthly

    @property
    def bill(self) -> Bill:
        """The bill of the recommended mode."""
        return self.bills[self.mode]

    @property
    def is_priced(self) -> bool:
        """True if at least one region has prices."""
        return any(region.is_priced for region in self.regions)


def compare(
    sizing: Sizing,
    prices: Sequence[RegionPrices | None],
    target: float = TARGET,
    *,
    recovery: bool = True,
    infrequent_access: bool = False,
    services: ServicePrices | None = None,
    fallback_nodes: ValkeyPrices | None = None,
) -> ModeAdvice:
    """Compare modes for a sized mix; `prices` has one entry per region, in order.

    None stands for a region without prices: its units count, its dollars do not. `target` is
    the utilisation, in percent, that provisioned capacity is to have at the peak. `recovery`
    adds point-in-time recovery. `services` are the prices of other AWS services: without them no
    alarm, key, or plan is counted. Raises `InvalidValue` for a target that AWS refuses.
    """
    if not recovery:
        extras = msgspec.structs.replace(sizing.mix.extras, recovery=False)
        sizing = replace(sizing, mix=msgspec.structs.replace(sizing.mix, extras=extras))
    table_class: TableClass = "infrequent-access" if infrequent_access else "standard"

    def bill_of(choice: Choice) -> Bill:
        return bill(sizing, prices, choice, services, fallback_nodes)

    bills = {mode: bill_of(Choice(mode, table_class, target=target)) for mode in MODES}
    regions = tuple(_region_costs(sizing, prices, bills))
    mode, reason = _choose(regions)
    chosen = bills[mode]
    alternatives = tuple(_alternatives(chosen, bill_of))
    notes = tuple(_notes(sizing, prices, chosen, alternatives))
    return ModeAdvice(regions, mode, reason, notes, bills, alternatives)


def _region_costs(
    sizing: Sizing, prices: Sequence[RegionPrices | None], bills: Mapping[Mode, Bill]
) -> Iterator[RegionCost]:
    any_bill = bills["on-demand"]
    for place, units in enumerate(sizing.regions):
        yield RegionCost(
            units.region,
            tuple(bills[mode].capacity[place] for mode in MODES),
            any_bill.total("storage", units.region),
            any_bill.total("point-in-time recovery", units.region),
            prices[place] is not None,
        )


# --- which one -----------------------------------------------------------------------------


def _choose(regions: Sequence[RegionCost]) -> tuple[Mode, str]:
    """On demand, unless another mode saves enough to be worth its care.

    AWS recommends on-demand for most workloads; Chalk provisioned with autoscaling for most in
    production. What decides is what it saves here.
    """
    if not any(region.is_priced for region in regions):
        return "on-demand", "no region has prices, and on-demand has nothing to tune"
    total: dict[Mode, float] = {
        mode: sum(region.of(mode).dollars for region in regions) for mode in MODES
    }
    free, fixed, scaled = total["on-demand"], total["provisioned"], total["autoscaled"]
    # A mode that throttles is cheap, since it does not serve. Writes of a Global Table are
    # autoscaled in both modes.
    if max(region.of("autoscaled").throttled for region in regions) > _MOST_THROTTLED:
        scaled = math.inf
    if max(region.of("provisioned").throttled for region in regions) > _MOST_THROTTLED:
        fixed = math.inf
    best = min(fixed, scaled)
    if math.isinf(best):
        return "on-demand", "autoscaling follows this load too late, and would throttle"
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


def _other_choices(choice: Choice) -> Iterator[tuple[str, Choice]]:
    """Yield the choices that change one thing of the recommended one, each with its name."""
    yield "reserved capacity, 1 year", replace(choice, commitment="reserved-1")
    yield "reserved capacity, 3 years", replace(choice, commitment="reserved-3")
    yield "Database Savings Plan, 1 year", replace(choice, commitment="savings-plan")
    yield "Standard-Infrequent Access", replace(choice, table_class="infrequent-access")
    yield "Valkey on nodes", replace(choice, store="valkey-nodes")
    yield "ElastiCache Serverless for Valkey", replace(choice, store="valkey-serverless")


def _alternatives(chosen: Bill, bill_of: Callable[[Choice], Bill]) -> list[Alternative]:
    """Return what changes the recommended bill, the largest saving first."""
    found = []
    for name, choice in _other_choices(chosen.choice):
        other = bill_of(choice)
        is_table = other.choice.store == "dynamodb"
        if (is_table and other.components != chosen.components) or (
            not is_table and other.components
        ):
            found.append(Alternative(name, other, chosen.monthly - other.monthly))
    return sorted(found, key=lambda each: -each.saved)


def _notes(
    sizing: Sizing,
    prices: Sequence[RegionPrices | None],
    chosen: Bill,
    alternatives: Sequence[Alternative],
) -> Iterator[str]:
    for region in chosen.unpriced:
        yield f"No prices for {region}: its capacity units count, its dollars do not."
    first = next((each for each in prices if each is not None), None)
    if first is None:
        return
    even = first.standard.break_even_reads, first.standard.break_even_writes
    yield (
        f"Break-even with on-demand: {even[0]:.1%} utilisation for reads, {even[1]:.1%} for writes."
    )
    mode = chosen.choice.mode
    yield from _notes_on_reserved(sizing, mode, alternatives)
    rare = next((each for each in alternatives if "Infrequent" in each.name), None)
    if rare is not None:
        yield _note_on_class(mode, chosen, rare.bill)


def _notes_on_reserved(
    sizing: Sizing, mode: Mode, alternatives: Sequence[Alternative]
) -> Iterator[str]:
    if mode == "on-demand":
        yield "Reserved capacity does not cover on-demand capacity, the recommended mode (AWS)."
        return
    if len(sizing.regions) > 1:
        yield "Reserved capacity does not cover a Global Table's writes (AWS), only its reads."
    for each in sorted(alternatives, key=lambda each: each.name):
        if each.bill.choice.commitment.startswith("reserved"):
            saved = sum(c.dollars for c in each.bill.components if c.name.startswith("reserved"))
            yield (
                f"{each.name[0].upper()}{each.name[1:]}: saves ${-saved:,.0f} per month on the "
                f"units that are always provisioned ({mode})."
            )


def _note_on_class(mode: Mode, chosen: Bill, rare: Bill) -> str:
    """AWS: Standard-Infrequent Access stores for less, and takes more for requests."""
    saved = chosen.total("storage") - rare.total("storage")
    more = sum(each.dollars for each in rare.capacity) - sum(
        each.dollars for each in chosen.capacity
    )
    verdict = "cheaper" if saved > more else "dearer"
    return (
        f"Standard-Infrequent Access would be {verdict}: it saves ${saved:,.0f} of storage a "
        f"month, and takes ${more:,.0f} more for requests ({mode}, all regions)."
    )
