"""Prices of DynamoDB from AWS's public price list, the "bulk offer file" of a service.

AWS publishes an offer file per service, without credentials ("Getting price list files manually",
AWS Billing guide). It has `products` by SKU, each with attributes, and `terms`: the prices of a
SKU, on demand and reserved. A usage type is the region's billing prefix and a name, such as
`USW2-WriteRequestUnits`; us-east-1 has no prefix, and `IA-` before the name stands for the table
class Standard-Infrequent Access. A price can have tiers. The first one can be the free tier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, TypeAlias

import msgspec

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.prices import ClassPrices, Prices, RegionPrices

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
