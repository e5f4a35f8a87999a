"""The price of a run of checks, computed before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chalk_online_store.cli.verify.checks import Check
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.prices import read_prices

_EXAMPLE_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Price:
    """Capacity units in all regions, and dollars on demand by the bundled prices of `region`."""

    rcu: float
    wcu: float
    dollars: float
    region: str
    as_of: str

    @property
    def text(self) -> str:
        """A sentence for people."""
        return (
            f"The checks take about {self.rcu:,.0f} RCU and {self.wcu:,.0f} WCU: "
            f"${self.dollars:,.2f} on demand ({self.region}, {self.as_of})."
        )


def price_of(checks: Sequence[Check], regions: Sequence[str]) -> Price:
    """Return the price of checks.

    A write is replicated, and billed, in every region. Each region is read after the removal.
    """
    prices = read_prices()
    try:
        region, found = regions[0], prices.of(regions[0])
    except InvalidValue:
        region, found = _EXAMPLE_REGION, prices.of(_EXAMPLE_REGION)
    rcu = sum(check.units.rcu for check in checks) * len(regions)
    wcu = sum(check.units.wcu for check in checks) * len(regions)
    dollars = (rcu * found.standard.million_rru + wcu * found.standard.million_wru) / 1e6
    return Price(rcu, wcu, dollars, region, f"{prices.as_of:%B %Y}")
