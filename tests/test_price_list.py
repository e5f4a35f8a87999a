"""Prices: the bundled file, and AWS's public price list as a price file."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store.cli import main, price_files
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.prices import OFFER_URL, ClassPrices, parse_offer, read_prices

US = {
    "ReadCapacityUnit-Hrs": 0.00013,
    "WriteCapacityUnit-Hrs": 0.00065,
    "ReadRequestUnits": 0.000000125,
    "WriteRequestUnits": 0.000000625,
    "TimedStorage-ByteHrs": 0.25,
    "IA-ReadCapacityUnit-Hrs": 0.00016,
    "IA-WriteCapacityUnit-Hrs": 0.00081,
    "IA-ReadRequestUnits": 0.000000155,
    "IA-WriteRequestUnits": 0.00000078,
    "IA-TimedStorage-ByteHrs": 0.1,
    "TimedPITRStorage-ByteHrs": 0.2,
    "TimedBackupStorage-ByteHrs": 0.1,
    "RestoreDataSize-Bytes": 0.15,
    "ImportDataSize-Bytes": 0.15,
    "ExportDataSize-Bytes": 0.1,
    "Streams-RequestsCount": 0.0000002,
    # Of what follows nothing may be taken for a price of the table.
    "IncrementalExportDataSize-Bytes": 9.0,
    "ReplWriteCapacityUnit-Hrs": 9.0,
    "ReplWriteRequestUnits": 9.0,
    "IA-ReplWriteRequestUnits": 9.0,
    "VectorSearch": 0.002,
}
FREE_TIERS = {"TimedStorage-ByteHrs": "25", "ReadCapacityUnit-Hrs": "18600"}


def offer_of(regions: dict[str, str], usages: dict[str, float], **members: Any) -> bytes:
    """An offer file with these regions, by billing prefix, and prices by usage type."""
    products, on_demand, reserved = {}, {}, {}
    for region, prefix in regions.items():
        for place, (usage, price) in enumerate(usages.items()):
            sku = f"SKU{region}{place}"
            attributes = {"servicecode": "AmazonDynamoDB", "regionCode": region}
            attributes["usagetype"] = prefix + usage
            products[sku] = {"sku": sku, "attributes": attributes}
            dimensions = {f"{sku}.T.R": dimension(price, FREE_TIERS.get(usage, "0"))}
            if usage in FREE_TIERS:
                dimensions[f"{sku}.T.F"] = dimension(0.0, "0")
            on_demand[sku] = {f"{sku}.T": {"sku": sku, "priceDimensions": dimensions}}
            if usage == "WriteCapacityUnit-Hrs":
                # 54 % less for a year: $1.50 upfront and $0.000128 per hour, by unit.
                reserved[sku] = {
                    f"{sku}.Y": {
                        "termAttributes": {"LeaseContractLength": "1yr"},
                        "priceDimensions": {
                            f"{sku}.Y.H": dimension(0.000128, "0") | {"unit": "WCU-Hrs"},
                            f"{sku}.Y.U": dimension(1.5, "0") | {"unit": "Quantity"},
                        },
                    }
                }
    offer = {
        "formatVersion": "v1.0",
        "offerCode": "AmazonDynamoDB",
        "version": "20261120000000",
        "publicationDate": "2026-11-20T00:00:00Z",
        "products": products,
        "terms": {"OnDemand": on_demand, "Reserved": reserved},
    }
    return json.dumps(offer | members).encode()


def dimension(price: float, begin: str) -> dict[str, Any]:
    return {
        "unit": "unit",
        "beginRange": begin,
        "endRange": "Inf",
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }


def test_an_offer_file_is_read_as_prices() -> None:
    """Units, requests by the million, storage and terms are the figures that AWS publishes."""
    found = parse_offer(offer_of({"us-east-1": "", "eu-west-1": "EU-"}, US), read_prices())
    assert found.as_of == date(2026, 11, 20)
    assert OFFER_URL in found.source
    assert sorted(found.regions) == ["eu-west-1", "us-east-1"]
    for prices in found.regions.values():
        assert prices.standard == ClassPrices(0.00013, 0.00065, 0.125, 0.625, 0.25)
        assert prices.infrequent_access == ClassPrices(0.00016, 0.00081, 0.155, 0.78, 0.1)
        assert prices.reserved_saving == {"1": 0.54}  # 1 - (0.000128 + 1.5 / 8760) / 0.00065
        assert (prices.recovery_gb_month, prices.backup_gb_month) == (0.2, 0.1)
        assert (prices.restore_gb, prices.import_gb, prices.export_gb) == (0.15, 0.15, 0.1)
        assert prices.million_stream_reads == 0.2
    bundled = read_prices()
    assert found.regions["us-east-1"].valkey == bundled.regions["us-east-1"].valkey
    assert found.services == bundled.services


def test_a_region_that_lacks_a_basic_price_is_left_out() -> None:
    """A region of which AWS lists no storage has no prices at all."""
    partial = {name: price for name, price in US.items() if name != "TimedStorage-ByteHrs"}
    whole = json.loads(offer_of({"us-east-1": ""}, US))
    other = json.loads(offer_of({"eu-west-1": "EU-"}, partial))
    whole["products"] |= other["products"]
    whole["terms"]["OnDemand"] |= other["terms"]["OnDemand"]
    found = parse_offer(json.dumps(whole).encode(), read_prices())
    assert list(found.regions) == ["us-east-1"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "not an AWS offer file"),
        (b"[]", "not an AWS offer file"),
        (b'{"offerCode": "AmazonDynamoDB"}', "not an AWS offer file"),
        (offer_of({"us-east-1": ""}, US, offerCode="AmazonEC2"), "got the file of 'AmazonEC2'"),
        (offer_of({}, US), "no region with all basic prices"),
    ],
    ids=["html", "list", "no date", "other service", "no region"],
)
def test_another_file_is_refused(body: bytes, message: str) -> None:
    """A file that is not DynamoDB's offer file is refused, with the address of the right one."""
    with pytest.raises(InvalidValue, match=message) as refused:
        parse_offer(body, read_prices())
    assert OFFER_URL in str(refused.value)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_fetch_writes_a_price_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prices fetch` writes what `--prices` reads, and names the date."""
    offer, output = tmp_path / "index.json", tmp_path / "prices.json"
    offer.write_bytes(offer_of({"us-east-1": "", "eu-west-1": "EU-"}, US))
    assert run("prices", "fetch", output, "--offer", offer) == 0
    assert "2 regions, published 2026-11-20" in capsys.readouterr().out
    assert read_prices(output) == parse_offer(offer.read_bytes(), read_prices())
    assert run("prices", "fetch", output, "--offer", offer, "--json") == 0
    assert json.loads(capsys.readouterr().out)["regions"] == ["eu-west-1", "us-east-1"]


def test_fetch_reads_the_public_price_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `--offer` the command opens AWS's address, and names it if that fails."""
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no route")

    monkeypatch.setattr(price_files, "urlopen", refuse)
    assert run("prices", "fetch", tmp_path / "prices.json") == 1
    assert asked == [OFFER_URL]
    assert OFFER_URL.startswith("https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/")
    assert "pass it by --offer" in " ".join(capsys.readouterr().err.split())


def test_bundled_prices_are_of_every_region_with_date_and_source() -> None:
    """36 regions, each basic price known; break-even is within 2 % of 28.9 % everywhere."""
    prices = read_prices()
    assert len(prices.regions) == 36
    assert "28 August 2025" in prices.source
    assert prices.as_of == date(2025, 8, 28)
    for name, each in prices.regions.items():
        assert each.standard.break_even_reads == pytest.approx(0.289, rel=0.02), name
        assert each.standard.break_even_writes == pytest.approx(0.289, rel=0.02), name
        assert each.recovery_gb_month > (each.backup_gb_month or 0) > 0
        assert not set(each.two_sources) - {*ClassPrices.__struct_fields__, *each.__struct_fields__}
    confirmed = [name for name, each in prices.regions.items() if "wcu_hour" in each.two_sources]
    assert len(confirmed) == 25
    for field in prices.services.__struct_fields__:
        price = getattr(prices.services, field)
        assert price.source
        assert price.as_of >= date(2019, 1, 1)
