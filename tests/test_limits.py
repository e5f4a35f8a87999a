"""What a mix comes close to of DynamoDB's limits."""

from __future__ import annotations

from typing import Any

import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.capacity.items import Sample
from chalk_online_store.capacity.limits import Finding, findings, partitions
from chalk_online_store.capacity.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.capacity.sizing import Sizing, size
from chalk_online_store.capacity.typical import Lengths, typical_rows

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
    (found,) = told(write=(Write(5000, hottest=0.3),))[1]
    assert (found.severity, "1,500 WCU" in found.what) == ("error", True)


def test_large_items_and_answers_are_named() -> None:
    """400 KB an item, 16 MB an answer, 1 MB of a partition, 40,000 units a table."""
    assert [f.severity for f in told(binary=500_000)[1]] == ["error"]
    assert "20 MB" in told(binary=209_000, query=(Query(1, 100),))[1][0].what
    wide = [f for f in told(query=(Query(3000, 30),))[1] if "40,000" in f.what]
    assert [f.where for f in wide] == ["us-east-1"]


def test_partitions_are_counted_by_size_and_by_units() -> None:
    """10 GB each, or 3,000 RCU and 1,000 WCU together."""
    assert partitions(told()[0]) == 1
    assert partitions(told(query=(Query(3000, 2),), write=(Write(1500),))[0]) == 3
    million = told(binary=99_900 - 130, entities=1_000_000)[0]
    assert partitions(million) == 10
