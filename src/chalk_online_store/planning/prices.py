"""What units, storage and nodes cost, from a dated file. Nothing is looked up by itself.

The bundled file has every commercial region and GovCloud, as of its date. A file of the same form
replaces it: `chalk-online-store prices fetch` writes one from AWS's public price list, and
`read_prices("prices.json")` reads it. A region without prices has units and no dollars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeAlias

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


# --- Prices of DynamoDB from AWS's public price list, the "bulk offer file" of a service ---
#
# AWS publishes an offer file per service, without credentials ("Getting price list files manually",
# AWS Billing guide). It has `products` by SKU, each with attributes, and `terms`: the prices of a
# SKU, on demand and reserved. A usage type is the region's billing prefix and a name, such as
# `USW2-WriteRequestUnits`; us-east-1 has no prefix, and `IA-` before the name stands for the table
# class Standard-Infrequent Access. A price can have tiers. The first one can be the free tier.


OFFER_URL = (
    "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonDynamoDB/current/index.json"
)
"""The offer file of DynamoDB with all regions."""

_CLASS_NAMES = {
    "ReadCapacityUnit-Hrs": ("rcu_hour", 1.0),
    "WriteCapacityUnit-Hrs": ("wcu_hour", 1.0),
    "ReadRequestUnits": ("million_rru", 1e6),
    "WriteRequestUnits": ("million_wru", 1e6),
    "TimedStorage-ByteHrs": ("gb_month", 1.0),
}
"""Usage types that each table class has: our name, and units per price."""

_REGION_NAMES = {
    "TimedPITRStorage-ByteHrs": ("recovery_gb_month", 1.0),
    "TimedBackupStorage-ByteHrs": ("backup_gb_month", 1.0),
    "RestoreDataSize-Bytes": ("restore_gb", 1.0),
    "ImportDataSize-Bytes": ("import_gb", 1.0),
    "ExportDataSize-Bytes": ("export_gb", 1.0),
    "Streams-RequestsCount": ("million_stream_reads", 1e6),
}
_RESERVED_NAME = "WriteCapacityUnit-Hrs"
_HOURS_A_YEAR = 8760

_Offer: TypeAlias = Mapping[str, Any]


def parse_offer(body: bytes, bundled: Prices) -> Prices:
    """Return the prices in DynamoDB's offer file.

    The file has no prices of nodes and of other services. They are taken from `bundled`, with
    their own dates. A region is left out if one of its basic prices is missing. Raises
    `InvalidValue` if the file is not DynamoDB's offer file, or has no complete region.
    """
    try:
        offer = msgspec.json.decode(body)
        if offer["offerCode"] != "AmazonDynamoDB":
            raise InvalidValue(
                "expected the offer file of AmazonDynamoDB; got the file of "
                f"{offer['offerCode']!r}. Download {OFFER_URL}."
            )
        published = date.fromisoformat(offer["publicationDate"][:10])
        found = _by_region(offer)
        version = offer.get("version", "")
    except InvalidValue:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValue(
            "The file is not an AWS offer file in JSON, or it is damaged. "
            f"Download {OFFER_URL} again."
        ) from error
    regions = {}
    for region in sorted(found):
        prices = _region_prices(found[region], bundled.get(region))
        if prices is not None:
            regions[region] = prices
    if not regions:
        raise InvalidValue(
            "The offer file has no region with all basic prices of DynamoDB. "
            f"Download {OFFER_URL} again."
        )
    source = f"AWS's price list of AmazonDynamoDB, version {version}, {OFFER_URL}"
    return Prices(published, source, regions, bundled.services)


def _by_region(offer: _Offer) -> dict[str, dict[str, Any]]:
    """Return the prices of each region, by our names; `infrequent` is Standard-IA."""
    found: dict[str, dict[str, Any]] = {}
    on_demand = offer["terms"].get("OnDemand", {})
    reserved = offer["terms"].get("Reserved", {})
    for sku, product in offer["products"].items():
        attributes = product["attributes"]
        region, usage = attributes.get("regionCode", ""), attributes.get("usagetype", "")
        known = _usage_of(usage)
        if not region or known is None:
            continue
        name, is_infrequent = known
        ours = found.setdefault(region, {"standard": {}, "infrequent": {}, "reserved": {}})
        kind = "infrequent" if is_infrequent else "standard"
        price = _first_paid(on_demand.get(sku, {}))
        if price is not None and name in _CLASS_NAMES:
            field, times = _CLASS_NAMES[name]
            ours[kind][field] = _rounded(price * times)
        elif price is not None and not is_infrequent:
            field, times = _REGION_NAMES[name]
            ours[field] = _rounded(price * times)
        if name == _RESERVED_NAME and not is_infrequent:
            ours["reserved"] |= dict(_reserved(reserved.get(sku, {})))
    return found


def _usage_of(usage: str) -> tuple[str, bool] | None:
    """Return the name in a usage type, and True for Standard-IA; None if it is another one."""
    for name in (*_CLASS_NAMES, *_REGION_NAMES):
        prefix = usage.removesuffix(name)
        if prefix != usage and (not prefix or prefix.endswith("-")):
            return name, prefix.endswith("IA-") and prefix[-4:-3] in ("", "-")
    return None


def _first_paid(terms: _Offer) -> float | None:
    """Return the price per unit of the first tier that costs something."""
    dimensions = [d for term in terms.values() for d in term["priceDimensions"].values()]
    dimensions.sort(key=lambda dimension: float(dimension.get("beginRange", 0)))
    prices = [float(dimension["pricePerUnit"].get("USD", 0)) for dimension in dimensions]
    paid = [price for price in prices if price > 0]
    return paid[0] if paid else None


def _reserved(terms: _Offer) -> Iterator[tuple[str, float]]:
    """Yield the hourly cost of a reserved unit, upfront payment included, by years."""
    for term in terms.values():
        years = term["termAttributes"]["LeaseContractLength"].removesuffix("yr")
        hourly = upfront = 0.0
        for dimension in term["priceDimensions"].values():
            price = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension["unit"] == "Quantity":
                upfront = price
            else:
                hourly = price
        yield years, hourly + upfront / (_HOURS_A_YEAR * int(years))


def _region_prices(found: dict[str, Any], bundled: RegionPrices | None) -> RegionPrices | None:
    reserved, standard = found.pop("reserved"), found.pop("standard")
    infrequent = found.pop("infrequent")
    try:
        return msgspec.convert(
            {
                **found,
                "standard": msgspec.to_builtins(ClassPrices(**standard)),
                "infrequent_access": msgspec.to_builtins(ClassPrices(**infrequent)),
                "reserved_saving": {
                    years: round(1 - hourly / standard["wcu_hour"], 3)
                    for years, hourly in reserved.items()
                },
                "valkey": bundled and msgspec.to_builtins(bundled.valkey),
                "transfer_gb": bundled and bundled.transfer_gb,
            },
            RegionPrices,
        )
    except (TypeError, msgspec.ValidationError):  # A basic price is missing.
        return None


def _rounded(price: float) -> float:
    """Remove what the multiplication by a million adds after the last digit of a price."""
    return float(f"{price:.10g}")
