"""What a simulated table did with a demand, step by step, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from chalk_online_store.planning.demand import HOUR, Demand, Units


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A demand and what became of it; arrays have a number for each of its steps.

    All are in units a second: `capacity` is what the table could serve without burst capacity,
    `consumed` what it served, `throttled` what it refused. The last two add up to the demand.
    """

    demand: Demand
    capacity: Units
    consumed: Units
    throttled: Units

    @property
    def consumed_units(self) -> float:
        """All units served."""
        return float(self.consumed.sum()) * self.demand.step

    @property
    def throttled_units(self) -> float:
        """All units refused."""
        return float(self.throttled.sum()) * self.demand.step

    @property
    def throttled_share(self) -> float:
        """The share of the units asked for that was refused, 0 to 1."""
        asked = self.demand.total
        return self.throttled_units / asked if asked else 0.0


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """A change of provisioned capacity, in units a second.

    `alarm` and `effect` are seconds from the demand's start: when the alarm fired, and from
    when on the new capacity was there.
    """

    alarm: float
    effect: float
    before: int
    after: int


@dataclass(frozen=True, slots=True, eq=False)
class ProvisionedRun(Run):
    """What a provisioned table did.

    `burst` are the units of burst capacity left at the end of each step, `changes` those that
    took effect. `refused_decreases` counts the minutes at whose end capacity would have been
    lowered, had AWS's quota of decreases a day allowed it.
    """

    burst: Units
    changes: tuple[CapacityChange, ...]
    refused_decreases: int

    @property
    def unit_hours(self) -> float:
        """Units provisioned times hours: what is paid for."""
        return float(self.capacity.sum()) * self.demand.step / HOUR

    def cost(self, price: float) -> float:
        """What the capacity costs, at a price of a unit for an hour."""
        return self.unit_hours * price

    @property
    def utilisation(self) -> float:
        """Units served for each unit provisioned, all in all."""
        return float(self.consumed.sum() / self.capacity.sum())

    @property
    def headroom(self) -> float:
        """The least that was left unused in a step, as a share of the capacity.

        Below 0 where burst capacity was used.
        """
        return float(1 - (self.consumed / self.capacity).max())

    @property
    def increases(self) -> int:
        """How many changes added capacity."""
        return sum(change.after > change.before for change in self.changes)

    @property
    def decreases(self) -> int:
        """How many changes took capacity away."""
        return len(self.changes) - self.increases


@dataclass(frozen=True, slots=True, eq=False)
class OnDemandRun(Run):
    """What an on-demand table did."""

    def cost(self, price: float) -> float:
        """What was served costs, at a price of a million request units."""
        return self.consumed_units / 1e6 * price
