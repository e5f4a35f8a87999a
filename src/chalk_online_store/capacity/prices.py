"""What units, storage and nodes cost, from a dated file: nothing is looked up, ever.

The file that comes along has the regions whose prices we know, as of its date. Bring your own, in
the same form, for others, or for what you have agreed on: `read_prices("prices.json")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from chalk_online_store.errors import InvalidValue

HOURS_A_MONTH = 730.0
"""As in AWS's own examples: a year's hours by twelve."""

SECONDS_A_MONTH = HOURS_A_MONTH * 3600

Dollars = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ClassPrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars of one table class: capacity by unit and hour, requests by the million, storage.

    A unit that is replicated to another region costs as much there as one that is written there.
    """

    rcu_hour: Dollars
    wcu_hour: Dollars
    million_rru: Dollars
    million_wru: Dollars
    gb_month: Dollars

    @property
    def break_even_reads(self) -> float:
        """The utilisation at which a provisioned RCU costs what the requests would on demand."""
        return self.rcu_hour / (self.million_rru * 3600 / 1e6)

    @property
    def break_even_writes(self) -> float:
        """As `break_even_reads`, for a WCU."""
        return self.wcu_hour / (self.million_wru * 3600 / 1e6)


class Node(Struct, frozen=True, forbid_unknown_fields=True):
    """A cache node: its memory, and dollars an hour."""

    name: str
    gib: Annotated[float, Meta(gt=0)]
    hour: Dollars


class ValkeyPrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of ElastiCache for Valkey, and the share of their memory that is not for data."""

    nodes: Annotated[tuple[Node, ...], Meta(min_length=1)]
    reserved_memory: Share


class RegionPrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars in one region.

    `reserved_saving` is what reserved capacity saves of provisioned capacity, by the years of
    its term. AWS: for the standard class and for what is not replicated only.
    """

    standard: ClassPrices
    infrequent_access: ClassPrices
    reserved_saving: Mapping[str, Share]
    recovery_gb_month: Dollars
    import_gb: Dollars
    valkey: ValkeyPrices


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices as of a day, and where they are from."""

    as_of: date
    source: str
    regions: Mapping[str, RegionPrices]
    same_as: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        for region, other in self.same_as.items():
            if other not in self.regions:
                raise InvalidValue(f"same_as: {region!r} is as {other!r}, which has no prices.")

    def of(self, region: str) -> RegionPrices:
        """The prices of a region; raises `InvalidValue` where it has none."""
        found = self.regions.get(self.same_as.get(region, region))
        if found is None:
            known = ", ".join(sorted({*self.regions, *self.same_as}))
            raise InvalidValue(
                f"There are no prices of {region!r}, only of {known}: bring a file that has them."
            )
        return found


def read_prices(path: str | Path | None = None) -> Prices:
    """The prices in a JSON file, or those that come along; raises `InvalidValue`."""
    try:
        text = _bundled() if path is None else Path(path).read_bytes()
        return msgspec.json.decode(text, type=Prices)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: {error}") from None


def _bundled() -> bytes:
    return files(__package__).joinpath("prices.json").read_bytes()
