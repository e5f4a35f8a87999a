"""What units, storage and nodes cost, from a dated file. Nothing is looked up by itself.

The bundled file has every commercial region and GovCloud, as of its date. A file of the same form
replaces it: `chalk-online-store prices fetch` writes one from AWS's public price list, and
`read_prices("prices.json")` reads it. A region without prices has units and no dollars.
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
    as_of: date | None = None
    source: str = ""

    def hour_of(self, node: str) -> float:
        """Return the dollars per hour of a node. Raises `InvalidValue` if it has no price."""
        for each in self.nodes:
            if each.name == node:
                return each.hour
        raise InvalidValue(f"No price of {node!r} in one of the regions. Add it to the price file.")


class RegionPrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars in one region.

    `reserved_saving` is what reserved capacity saves of provisioned capacity, by the years of
    its term; a term that is absent is not sold there. AWS: for the standard class and for units
    that are not replicated. `two_sources` names the prices that a second source confirms.
    None stands for a price that is not known.
    """

    standard: ClassPrices
    infrequent_access: ClassPrices
    reserved_saving: Mapping[str, Share]
    recovery_gb_month: Dollars
    import_gb: Dollars
    backup_gb_month: Dollars | None = None
    restore_gb: Dollars | None = None
    export_gb: Dollars | None = None
    million_stream_reads: Dollars | None = None
    transfer_gb: Dollars | None = None
    valkey: ValkeyPrices | None = None
    two_sources: tuple[str, ...] = ()


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """A price with its own date and source; `confirmed` if a second source agrees."""

    dollars: Dollars
    source: str
    as_of: date
    confirmed: bool = False


class ServicePrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of services beside the table, of us-east-1. None for one that is not known.

    The two savings plans are shares that Database Savings Plans take off, not dollars.
    """

    kms_key_month: Price | None = None
    kms_10000_requests: Price | None = None
    alarm_month: Price | None = None
    insights_rule_month: Price | None = None
    insights_million_events: Price | None = None
    serverless_gb_hour: Price | None = None
    serverless_million_ecpu: Price | None = None
    savings_plan_on_demand: Price | None = None
    savings_plan_provisioned: Price | None = None


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices as of a day, and where they are from."""

    as_of: date
    source: str
    regions: Mapping[str, RegionPrices]
    services: ServicePrices = ServicePrices()
    second_source: str = ""

    def get(self, region: str) -> RegionPrices | None:
        """Return the prices of a region, or None if the file has none."""
        return self.regions.get(region)

    def of(self, region: str) -> RegionPrices:
        """Return the prices of a region. Raises `InvalidValue` if the file has none."""
        found = self.get(region)
        if found is None:
            raise InvalidValue(
                f"No prices for region {region!r} in the price file of {self.as_of}. Write a file "
                "with `chalk-online-store prices fetch` and pass it with --prices."
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
