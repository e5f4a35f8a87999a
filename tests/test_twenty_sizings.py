"""Twenty sizings, computed by hand: units, and dollars per component.

The first ten are examples and rules that AWS published; their sources are in `AWS`. Every
arithmetic stands in the test: nothing is computed by the code under test.

Prices are those of us-east-1 unless a test says so: an RCU-hour $0.00013, a WCU-hour $0.00065, a
million reads $0.125, a million writes $0.625, a GB-month $0.25, recovery $0.20. A month has 730
hours, or 2,628,000 seconds.
"""

from __future__ import annotations

from typing import Any

import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.planning.bill import Bill, Choice, bill
from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.limits import findings
from chalk_online_store.planning.mix import Extras, Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.modes import compare
from chalk_online_store.planning.prices import read_prices
from chalk_online_store.planning.sizing import Sizing, size

AWS = {
    "guide": "Amazon DynamoDB developer guide, read-write-operations",
    "modes": "Amazon DynamoDB developer guide, HowItWorks.ReadWriteCapacityMode",
    "pricing": "aws.amazon.com/dynamodb/pricing/provisioned, key terms",
    "faq": "AWS prescriptive guidance, dynamodb-global-tables, FAQ",
    "billing": "Amazon DynamoDB developer guide, global-tables-billing",
}
KB = 1024
PRICES = read_prices()
USER = Namespace("user", int, [Feature("blob", bytes), Feature("more", bytes, group="more")])


def rows_of(kilobytes: float, more: float = 0.0) -> list[dict[str, Any]]:
    """One row, of which the items have so many KB; the second group has none at 0."""
    names = {"blob": kilobytes} | ({"more": more} if more else {})
    row: dict[str, Any] = {"id": 10_000_001} | dict.fromkeys(names, b"")
    empty = Sample(USER, [row]).sizes()
    wanted = zip(names.items(), empty.values(), strict=True)
    return [row | {name: bytes(round(kb * KB) - size[0]) for (name, kb), size in wanted}]


def sized(
    kilobytes: float,
    more: float = 0.0,
    *,
    entities: int = 0,
    regions: tuple[str, ...] = ("us-east-1",),
    trough: float = 1.0,
    extras: Extras | None = None,
    reads: dict[str, float] | None = None,
    standby: float = 1.0,
    **part: Any,
) -> Sizing:
    mix = Mix(
        (NamespaceMix("user", entities, **part),),
        regions=regions,
        reads=reads or {},
        standby=standby,
        trough=trough,
        extras=extras or Extras(),
    )
    return size(mix, {"user": Sample(USER, rows_of(kilobytes, more))})


def billed(sizing: Sizing, mode: Any = "on-demand", **choice: Any) -> Bill:
    prices = [PRICES.get(region) for region in sizing.mix.regions]
    return bill(sizing, prices, Choice(mode, **choice), PRICES.services)


def dollars(found: Bill) -> dict[str, float]:
    """Dollars by component, of all regions, to the cent."""
    return {name: round(found.total(name), 2) for name in {c.name for c in found.components}}


BLOB = ("blob",)


# --- examples that AWS published -----------------------------------------------------------


@pytest.mark.parametrize(("consistent", "units"), [(True, 2), (False, 1)])
def test_1_reads_of_8_kb(consistent: bool, units: int) -> None:
    """AWS (guide, pricing): a strong read of 8 KB takes two units, an eventual one takes one."""
    found = sized(8, query=(Query(1, features=BLOB, consistent=consistent),))
    assert found.total("RCU") == units
    # By the second around the clock: 2 x 2,628,000 = 5.256 million x $0.125 = $0.657.
    assert dollars(billed(found)) == {"reads": round(units * 2.628 * 0.125, 2)}


@pytest.mark.parametrize(("kilobytes", "rounded"), [(3.5, 4), (10, 12)])
def test_2_reads_are_rounded_up_to_4_kb(kilobytes: float, rounded: int) -> None:
    """AWS (guide): an item of 3.5 KB is read as 4 KB, one of 10 KB as 12 KB."""
    found = sized(kilobytes, query=(Query(100, features=BLOB, consistent=True),))
    assert found.total("RCU") == 100 * rounded / 4


def test_3_a_batch_rounds_each_item_up() -> None:
    """AWS (guide): BatchGetItem of 1.5 KB and 6.5 KB is 12 KB (4 + 8), not 8 KB."""
    found = sized(1.5, 6.5, query=(Query(1, entities=100, consistent=True),))
    assert found.total("RCU") == 100 * 12 / 4


def test_4_a_query_adds_items_up_first() -> None:
    """AWS (guide): a Query whose items have 40.8 KB together is rounded to 44 KB."""
    found = sized(20.4, 20.4, query=(Query(1, entities=1, consistent=True),))
    assert found.total("RCU") == 44 / 4
    # Item by item it would be 24 + 24 KB, or 12 units.


@pytest.mark.parametrize(("kilobytes", "units"), [(1, 1), (2, 2), (3, 3)])
def test_5_writes_by_the_kilobyte(kilobytes: int, units: int) -> None:
    """AWS (pricing, modes): a write of 1 KB takes one unit, of 2 KB two, of 3 KB three."""
    found = sized(kilobytes, write=(Write(1, BLOB),))
    assert found.total("WCU") == units


def test_6_what_six_units_serve() -> None:
    """AWS (modes): 6 RCU serve strong reads of 24 KB, or eventual ones of 48 KB; 6 WCU 6 KB."""
    strong = sized(4, query=(Query(6, features=BLOB, consistent=True),), write=(Write(1.5, BLOB),))
    eventual = sized(4, query=(Query(12, features=BLOB),), write=(Write(1.5, BLOB),))
    for found in (strong, eventual):
        assert (found.total("RCU"), found.total("WCU")) == (6, 6)
    # 6 / 0.9 = 6.67, so 7 units: 7 x 730 h x $0.00013 = $0.66 and 7 x 730 x $0.00065 = $3.32.
    assert dollars(billed(strong, "provisioned", target=90.0)) == {"reads": 0.66, "writes": 3.32}


def test_7_a_write_of_5_kb_in_a_global_table() -> None:
    """AWS (faq): an item of 5 KB takes 5 units, replicated ones in every region."""
    found = sized(5, write=(Write(10, BLOB),), regions=("us-east-1", "us-west-2"))
    assert [region.wcu for region in found.regions] == [50, 50]
    # Per region: 50 x 2.628 million x $0.625 = $82.125.
    assert dollars(billed(found)) == {"replicated writes": 164.25, "first copy of a new replica": 0}


def test_8_replicated_units_cost_what_writes_cost() -> None:
    """AWS (billing): one rWRU per replica and KB, at the price of a WRU, plus the transfer."""
    found = sized(1, write=(Write(100, BLOB),), regions=("us-east-1", "us-east-2", "us-west-2"))
    alone = sized(1, write=(Write(100, BLOB),))
    one = billed(alone).total("writes")
    assert one == pytest.approx(100 * 2.628 * 0.625)
    assert billed(found).total("replicated writes") == pytest.approx(3 * one)
    # 100 KB/s to two regions: 102,400 bytes x 2 x 2,628,000 s = 538.2 GB.
    (transfer,) = (x for x in billed(found).not_counted if x.name == "transfer between regions")
    assert "about 538.2 GB per month" in transfer.reason


def test_9_a_new_replica_is_billed_like_a_restore() -> None:
    """AWS (faq): a new region is charged like a restore, by the size of the table, once."""
    found = sized(0.9, entities=100_000_000, regions=("us-east-1", "us-west-2"))
    # An item of 922 bytes and 148: 100 million x 1,070 bytes = 107 GB.
    assert found.gb == pytest.approx(107.0)
    first = billed(found)
    assert first.once == pytest.approx(107.0 * 0.15)
    assert first.monthly == pytest.approx(2 * 107.0 * (0.25 + 0.20))


def test_10_a_missing_item_costs_the_least() -> None:
    """AWS (guide): a read of an item that does not exist takes the least unit of its kind."""
    found = sized(8, query=(Query(100, features=BLOB, absent=0.25, consistent=True),))
    # 75 present x 2 units and 25 absent x 1 unit.
    assert found.total("RCU") == 75 * 2 + 25 * 1


# --- what the findings of an audit come to -------------------------------------------------


def test_11_a_steady_load_in_each_mode() -> None:
    """On demand pays for each request, provisioned capacity for the hour at 70 % of it."""
    found = sized(1, entities=10_000_000, query=(Query(1000, 20, BLOB),), write=(Write(500, BLOB),))
    assert (found.total("RCU"), found.total("WCU")) == (10_000, 500)
    assert found.gb == pytest.approx(11.24)  # 10 million x (1,024 + 100) bytes
    stored = {"storage": 2.81, "point-in-time recovery": 2.25}
    # 10,000 x 2.628 x $0.125 = $3,285; 500 x 2.628 x $0.625 = $821.25.
    assert dollars(billed(found)) == {"reads": 3285.0, "writes": 821.25, **stored}
    # 14,286 RCU x 730 x $0.00013 = $1,355.74; 715 WCU x 730 x $0.00065 = $339.27.
    provisioned = {"reads": 1355.74, "writes": 339.27, **stored}
    assert dollars(billed(found, "provisioned")) == provisioned
    # A steady load is never scaled; eight alarms x $0.10 come on top.
    assert dollars(billed(found, "autoscaled")) == {**provisioned, "alarms": 0.8}


def test_12_refused_writes_are_their_own_component() -> None:
    """Late whole writes are refused and written again, in the write region alone."""
    pair = Namespace("user", int, [Feature("a", int), Feature("b", int)])
    part = NamespaceMix("user", 0, write=(Write(1000, late=1.0),))
    mix = Mix((part,), regions=("us-east-1", "us-west-2"))
    found = size(mix, {"user": Sample(pair, [{"id": 1, "a": 1, "b": 2}])})  # 1 WCU
    # The write covers its group, so each late one is refused and written again: 1,000 + 1,000.
    assert [region.wcu for region in found.regions] == [2000, 1000]
    one = 1000 * 2.628 * 0.625  # $1,642.50
    assert dollars(billed(found)) == {
        "replicated writes": round(2 * one, 2),
        "refused writes": round(one, 2),
        "first copy of a new replica": 0,
    }


def test_13_ttl_deletions_are_replicated() -> None:
    """A TTL deletion is free where it happens and a replicated write in the other regions."""
    regions = ("us-east-1", "eu-west-1", "sa-east-1")
    found = sized(2, expiring=100, regions=regions)
    assert [region.wcu for region in found.regions] == [0, 200, 200]
    bill_ = billed(found)
    # 200 x 2.628 million x $0.705 in Ireland and x $0.9375 in São Paulo.
    assert bill_.total("replicated TTL deletions", "us-east-1") == 0
    assert bill_.total("replicated TTL deletions", "eu-west-1") == pytest.approx(525.6 * 0.705)
    assert bill_.total("replicated TTL deletions", "sa-east-1") == pytest.approx(525.6 * 0.9375)


@pytest.mark.parametrize(("years", "saving"), [("1", 0.54), ("3", 0.77)])
def test_14_reserved_capacity_in_blocks_of_100(years: str, saving: float) -> None:
    """Whole blocks of what is always provisioned are covered, reads and writes alike."""
    found = sized(1, query=(Query(1000, 2, BLOB),), write=(Write(500, BLOB),))
    reserved = billed(found, "provisioned", commitment=f"reserved-{years}")
    # 1,000 RCU / 0.7 = 1,429, of which 1,400 are covered; 500 / 0.7 = 715, of which 700 are.
    name = f"reserved capacity, {years} year{'s' if years == '3' else ''}"
    assert reserved.total(f"{name}, of reads") == pytest.approx(-1400 * 0.00013 * 730 * saving)
    assert reserved.total(f"{name}, of writes") == pytest.approx(-700 * 0.00065 * 730 * saving)
    # 1,429 x 0.0949 + 715 x 0.4745 = $474.88, less (132.86 + 332.15) x the saving.
    assert reserved.monthly == pytest.approx(474.88 - 465.01 * saving, abs=0.01)
    assert billed(found, commitment=f"reserved-{years}").monthly == billed(found).monthly


def test_15_reserved_capacity_of_a_global_table_covers_reads() -> None:
    """Replicated writes are not covered, regional reads are; some regions sell one year alone."""
    regions = ("us-east-1", "us-east-2")
    found = sized(
        1,
        query=(Query(1000, 2, BLOB),),
        write=(Write(500, BLOB),),
        regions=regions,
        reads=dict.fromkeys(regions, 0.5),
        standby=0.0,
    )
    # 500 RCU per region / 0.7 = 715, of which 700 are covered.
    one = billed(found, "provisioned", commitment="reserved-1")
    assert one.total("reserved capacity, 1 year, of reads") == pytest.approx(
        2 * -700 * 0.00013 * 730 * 0.54
    )
    assert one.total("reserved capacity, 1 year, of writes") == 0
    three = billed(found, "provisioned", commitment="reserved-3")
    assert three.total("reserved capacity, 3 years, of reads", "us-east-2") == 0
    left_out = {each.name for each in three.not_counted}
    assert "reserved capacity, 3 years, of writes" in left_out
    assert "reserved capacity, 3 years, in us-east-2" in left_out


def test_16_a_savings_plan_is_for_the_trough() -> None:
    """A plan takes 18 % off what is consumed at any hour, on demand, replicated writes included."""
    found = sized(1, write=(Write(1000, BLOB),), trough=0.2, regions=("us-east-1", "us-west-2"))
    plan = billed(found, commitment="savings-plan")
    # At the trough 200 WCU per region: 200 x 2.628 x $0.625 = $328.50 x 0.18 = $59.13, twice.
    assert plan.total("Database Savings Plan") == pytest.approx(-2 * 59.13)
    # On average 600 WCU per region: 600 x 2.628 x $0.625 = $985.50.
    assert plan.monthly == pytest.approx(2 * (985.50 - 59.13))


def test_17_standard_ia_is_cheaper_if_storage_dominates() -> None:
    """A tenth of a dollar per GB instead of a quarter, and a quarter more for requests."""
    found = sized(1, entities=10**9, query=(Query(100, 10, BLOB),), write=(Write(10, BLOB),))
    # 10^9 x 1,124 bytes = 1,124 GB. Reads 500 x 2.628 = 1,314 million, writes 26.28 million.
    assert dollars(billed(found)) == {
        "reads": 164.25,  # x $0.125
        "writes": 16.43,  # x $0.625, $16.425
        "storage": 281.0,
        "point-in-time recovery": 224.8,
    }
    assert dollars(billed(found, table_class="infrequent-access")) == {
        "reads": 203.67,  # x $0.155
        "writes": 20.5,  # x $0.78
        "storage": 112.4,
        "point-in-time recovery": 224.8,
    }
    advice = compare(found, [PRICES.of("us-east-1")])
    assert "would be cheaper" in advice.notes[-1]
    assert f"({advice.mode}, all regions)" in advice.notes[-1]


def test_18_what_is_beside_the_table() -> None:
    """Backups, streams, a key, Contributor Insights and alarms, each by its price."""
    extras = Extras(
        recovery=False,
        backups=3,
        stream_reads_per_second=4,
        customer_key=True,
        insights="accessed",
        alarms=5,
    )
    found = sized(
        0.9,
        entities=1_000_000,
        query=(Query(10, 10, BLOB),),
        write=(Write(20, BLOB),),
        extras=extras,
    )
    gb = 1_000_000 * (922 + 100) / 1e9  # 1.022 GB
    bill_ = billed(found)
    assert bill_.total("backups") == pytest.approx(3 * gb * 0.10)
    # 4 x 2,628,000 - 2,500,000 = 8.012 million GetRecords x $0.20.
    assert bill_.total("streams") == pytest.approx(8.012 * 0.20)
    # A key, and a request per 5 minutes: 8,760 x $0.03 / 10,000.
    assert bill_.total("KMS") == pytest.approx(1.0 + 0.02628)
    # Four rules x $0.50, and (100 + 20) x 2.628 = 315.36 million events x $0.03.
    assert bill_.total("Contributor Insights") == pytest.approx(2.0 + 9.4608)
    assert bill_.total("alarms") == pytest.approx(0.5)
    assert "point-in-time recovery" in {each.name for each in bill_.not_counted}


def test_19_the_free_tier() -> None:
    """25 GB, and provisioned 25 RCU and 25 WCU; no units on demand, no writes if replicated."""
    part: dict[str, Any] = {"query": (Query(70, 1, BLOB),), "write": (Write(35, BLOB),)}
    found = sized(1, entities=50_000_000, extras=Extras(free_tier=True), **part)
    # 50 million x 1,124 bytes = 56.2 GB. 35 RCU / 0.7 = 50 and 35 WCU / 0.7 = 50 units.
    assert billed(found).total("free tier") == pytest.approx(-25 * 0.25)
    free = 25 * 0.25 + 25 * 0.00013 * 730 + 25 * 0.00065 * 730
    assert billed(found, "provisioned").total("free tier") == pytest.approx(-free)


def test_20_the_same_entities_in_memory() -> None:
    """Nodes by memory, ElastiCache Serverless by GB-hour and ECPU; MemoryDB and DAX are named."""
    found = sized(1, entities=10_000_000, query=(Query(1000, 1, BLOB),), write=(Write(100, BLOB),))
    # 10 million x (1,024 + 100) bytes = 11.24 GB, or 10.47 GiB. A large node of 13.07 GiB has
    # 9.80 for data, an xlarge one of 26.32 has 19.74: one xlarge and its replica.
    nodes = billed(found, store="valkey-nodes")
    assert dollars(nodes) == {"nodes": round(2 * 0.3496 * 730, 2)}
    # 11.24 x 730 x $0.084 = $689.24; (1,000 + 100) x 1 KB x 2.628 = 2,890.8 million x $0.0023.
    serverless = billed(found, store="valkey-serverless")
    assert dollars(serverless) == {"data stored": 689.24, "ECPU": 6.65}
    assert {"MemoryDB"} <= {each.name for each in nodes.not_counted}
    table = {each.name: each.reason for each in billed(found).not_counted}
    assert "Prefer it if" in table["ElastiCache's cache of DynamoDB"]
    assert {"DAX", "MemoryDB", "warm throughput", "free tier"} <= table.keys()


# --- each remaining finding ----------------------------------------------------------------


def test_a_region_without_prices_yields_units() -> None:
    """Units count, dollars do not, and the bill says so; nothing fails."""
    part: dict[str, Any] = {"query": (Query(100, 2, BLOB),), "write": (Write(10, BLOB),)}
    found = sized(1, regions=("mars-east-1",), **part)
    advice = compare(found, [None], services=PRICES.services)
    (region,) = advice.regions
    assert (region.of("on-demand").read_units, region.of("on-demand").write_units) == (100, 10)
    assert region.of("provisioned").read_units == 143  # 100 / 0.7
    assert (advice.is_priced, advice.bill.unpriced) == (False, ("mars-east-1",))
    assert advice.bill.monthly == 0
    assert "everything in mars-east-1" in {each.name for each in advice.bill.not_counted}
    both = sized(1, regions=("us-east-1", "mars-east-1"), **part)
    partly = compare(both, [PRICES.of("us-east-1"), None])
    assert partly.is_priced
    # 100 RCU and 10 WCU in us-east-1 alone.
    assert partly.bills["on-demand"].monthly == pytest.approx(2.628 * (12.5 + 6.25))


def test_every_alternative_is_for_the_recommended_mode() -> None:
    """Each alternative keeps the mode, and its saving is the difference of two bills."""
    found = sized(1, query=(Query(1000, 20, BLOB),), write=(Write(1000, BLOB),), trough=0.2)
    advice = compare(found, [PRICES.of("us-east-1")], services=PRICES.services)
    assert advice.mode == "autoscaled"
    assert {each.name for each in advice.alternatives} == {
        "reserved capacity, 1 year",
        "reserved capacity, 3 years",
        "Database Savings Plan, 1 year",
        "Standard-Infrequent Access",
        "Valkey on nodes",
        "ElastiCache Serverless for Valkey",
    }
    for each in advice.alternatives:
        assert each.bill.choice.mode == "autoscaled"
        assert each.saved == pytest.approx(advice.bill.monthly - each.bill.monthly)
    savings = [each.saved for each in advice.alternatives]
    assert savings == sorted(savings, reverse=True)


def test_every_component_of_a_bill_is_counted_or_named() -> None:
    """What a bill can have is a component, or is on the list of what is not counted."""
    can_be_billed = {
        "first copy of a new replica",
        "transfer between regions",
        "point-in-time recovery",
        "backups",
        "streams",
        "KMS",
        "Contributor Insights",
        "alarms",
        "warm throughput",
        "free tier",
        "DAX",
        "MemoryDB",
        "ElastiCache's cache of DynamoDB",
        "restores and exports",
    }
    described = sized(1, entities=1000, write=(Write(1, BLOB),), regions=("us-east-1", "us-west-2"))
    for mode in ("on-demand", "provisioned", "autoscaled"):
        found = billed(described, mode)
        counted = {each.name for each in found.components}
        named = {each.name for each in found.not_counted}
        assert can_be_billed <= counted | named
        assert not counted & named


def test_a_sizing_within_all_limits_has_no_finding() -> None:
    """The steady load of the eleventh sizing fits a new table and every quota."""
    mix = Mix((NamespaceMix("user", 1000, query=(Query(1000, 20, BLOB),)),))
    samples = {"user": Sample(USER, rows_of(1))}
    assert findings(size(mix, samples), samples) == []
