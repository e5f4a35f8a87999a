"""What a mix comes close to of DynamoDB's limits."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from chalk_online_store import Feature, Namespace
from chalk_online_store.planning.items import Lengths, Sample, typical_rows
from chalk_online_store.planning.limits import Finding, findings, partitions
from chalk_online_store.planning.mix import Extras, Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.sizing import Mode, Sizing, size

USER = Namespace("user", int, [Feature("blob", bytes)])


def told(binary: int = 100, **part: Any) -> tuple[Sizing, list[Finding]]:
    mix = Mix((NamespaceMix("user", **{"entities": 1000, **part}),))
    samples = {"user": Sample(USER, typical_rows(USER, 2, Lengths(binary=binary)))}
    sizing = size(mix, samples)
    return sizing, findings(sizing, samples)


def test_a_modest_mix_has_nothing_to_look_at() -> None:
    """No finding where there is none."""
    assert told(query=(Query(100, 10),), write=(Write(100),))[1] == []


@pytest.mark.parametrize(("share", "severity"), [(0.4, None), (0.6, "warning"), (1.2, "error")])
def test_the_hottest_entity_fits_a_partition(share: float, severity: str | None) -> None:
    """A warning from half of 3,000 RCU on, an error beyond; a cache takes it away."""
    query = Query(10_000, 1, hottest=share * 3000 / 0.5 / 10_000)
    found = told(query=(query,))[1]
    assert [f.severity for f in found] == ([severity] if severity else [])
    cached = Query(10_000, 1, hottest=query.hottest, hit_rate=0.9)
    assert told(query=(cached,))[1] == []


def test_the_hottest_write_fits_a_partition() -> None:
    """1,000 WCU, and no cache helps."""
    (found, _) = told(write=(Write(5000, hottest=0.3),))[1]  # 5,000 are more than a new table has.
    assert (found.severity, "1,500 WCU" in found.what) == ("error", True)


def test_large_items_and_answers_are_named() -> None:
    """400 KB an item, 16 MB an answer, 1 MB of a partition, 40,000 units a table."""
    assert [f.severity for f in told(binary=500_000)[1]] == ["error"]
    assert "20 MB" in told(binary=209_000, query=(Query(1, 100),))[1][0].what
    wide = [f for f in told(query=(Query(3000, 30),))[1] if "40,000" in f.what]
    assert [f.where for f in wide] == ["us-east-1"]


REGIONS = ("us-east-1", "us-west-2")
LOADS = [
    # mode, queries and writes per second, WCU or RCU in what is found
    ("on-demand", 2_400, 3_900, []),
    ("on-demand", 2_500, 0, ["12,500 RCU are more than the 12,000 that the new on-demand table"]),
    ("on-demand", 0, 4_001, ["4,001 WCU are more than the 4,000 that the new on-demand table"]),
    ("provisioned", 5_000, 0, []),  # 25,000 / 0.7 = 35,715
    ("provisioned", 6_000, 0, ["42,858 provisioned RCU: more than the default quota of a table"]),
    (
        "provisioned",
        12_000,  # 60,000 / 0.7 = 85,715
        0,
        [
            "85,715 provisioned RCU: more than the default quota of a table, 40,000",
            "85,715 provisioned RCU: more than the default quota of an account, 80,000",
        ],
    ),
    ("autoscaled", 2_700, 0, []),  # 2 x 13,500 / 0.7 = 38,572
    ("autoscaled", 2_900, 0, ["An autoscaling maximum of 41,430 RCU: more than the default quota"]),
    ("autoscaled", 0, 14_500, ["An autoscaling maximum of 41,430 WCU: more than the default quo"]),
]


@pytest.mark.parametrize(("mode", "queries", "writes", "wanted"), LOADS)
def test_limits_are_those_of_the_table_that_is_created(
    mode: Mode, queries: float, writes: float, wanted: list[str]
) -> None:
    """Quotas hold for provisioned units and maxima, initial throughput for a table on demand."""
    mix = Mix((NamespaceMix("user", 1000, query=(Query(queries, 10),), write=(Write(writes),)),))
    samples = {"user": Sample(USER, typical_rows(USER, 2))}
    found = findings(size(mix, samples), samples, mode)
    assert len(found) == len(wanted)
    for finding, text in zip(found, wanted, strict=True):
        assert (finding.severity, finding.where) == ("warning", "us-east-1")
        assert text in finding.what


def test_warm_throughput_set_ahead_is_checked_instead() -> None:
    """A table that is created warm enough serves the load at once; the quota still holds for it."""
    part = NamespaceMix("user", 1000, query=(Query(5_000, 10),))
    samples = {"user": Sample(USER, typical_rows(USER, 2))}
    for warm, texts in ((25_000, []), (24_999, ["24,999 that the new"]), (41_000, ["A warm thr"])):
        sizing = size(Mix((part,), extras=Extras(warm_reads=warm)), samples)
        found = findings(sizing, samples)
        assert [text in f.what for f, text in zip(found, texts, strict=True)] == [True] * len(texts)


def test_a_replica_is_checked_for_the_load_of_a_lost_region() -> None:
    """The quota counts for what a region has to serve when the other one is lost."""
    part = NamespaceMix("user", 1000, query=(Query(6_000, 10),))
    samples = {"user": Sample(USER, typical_rows(USER, 2))}
    shared = Mix((part,), regions=REGIONS, reads=dict.fromkeys(REGIONS, 0.5))
    found = findings(size(shared, samples), samples, "provisioned")
    assert [f.where for f in found if "42,858 provisioned RCU" in f.what] == list(REGIONS)
    assert findings(size(replace(shared, standby=0.5), samples), samples, "provisioned") == []


def test_partitions_follow_the_units_of_the_mode() -> None:
    """A new on-demand table has four; a provisioned one has what its units need."""
    sizing = told(query=(Query(3000, 2),), write=(Write(1500),))[0]  # 3,000 RCU and 1,500 WCU
    assert partitions(sizing, "on-demand") == 4
    # 4,286 / 3,000 + 2,143 / 1,000 = 3.57
    assert partitions(sizing, "provisioned") == 4
    assert partitions(sizing, "provisioned", 50.0) == 5  # 6,000 / 3,000 + 3,000 / 1,000


def test_partitions_are_counted_by_size_and_by_units() -> None:
    """10 GB each, or 3,000 RCU and 1,000 WCU together."""
    assert partitions(told()[0]) == 1
    assert partitions(told(query=(Query(3000, 2),), write=(Write(1500),))[0]) == 3
    million = told(binary=99_900 - 130, entities=1_000_000)[0]
    assert partitions(million) == 10
