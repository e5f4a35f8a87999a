"""Advice on groups: what to separate, what to join, and what that saves."""

from __future__ import annotations

import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.planning.grouping import GroupAdvice, _groupings, advise
from chalk_online_store.planning.items import Lengths, Sample, typical_rows
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.prices import read_prices

PRICES = read_prices().of("us-east-1").standard


def namespace(*features: str, groups: bool = False) -> Namespace:
    return Namespace(
        "user",
        int,
        [Feature(f, bytes, group=f if groups else "default") for f in features],
    )


def advice(
    schema: Namespace, part: NamespaceMix, binary: int, regions: tuple[str, ...] = ("a",)
) -> GroupAdvice:
    sample = Sample(schema, typical_rows(schema, 3, Lengths(binary=binary)))
    return advise(Mix((part,), regions=regions), part, sample, PRICES)


def test_what_changes_often_is_separated_from_what_is_large() -> None:
    """A write of one feature of 900 bytes beside five others costs 6 WCU, apart 1."""
    schema = namespace("hot", *"abcde")
    part = NamespaceMix("user", 1000, write=(Write(100, ("hot",)), Write(1)))
    found = advice(schema, part, 900)
    assert set(found.best.groups) == {frozenset({"hot"}), frozenset("abcde")}
    assert (found.now.wcu, found.best.wcu) == (101 * 6, 100 + (1 + 5))
    assert found.changes
    assert found.saved == pytest.approx(1 - found.best.dollars / found.now.dollars)


def test_what_is_read_together_is_joined() -> None:
    """Small features in three items cost three reads for each entity, in one item one."""
    schema = namespace("a", "b", "c", groups=True)
    part = NamespaceMix("user", 1000, query=(Query(1000, 50),), write=(Write(10),))
    found = advice(schema, part, 50)
    assert found.best.groups == (frozenset("abc"),)
    assert (found.now.rcu, found.best.rcu) == (75_000, 25_000)
    assert (found.now.wcu, found.best.wcu) == (30, 10)


def test_writes_weigh_more_the_more_regions_there_are() -> None:
    """What is read more than written in one region may not be so in four, which all write."""
    schema = namespace("hot", "cold", groups=True)
    part = NamespaceMix(
        "user", 1000, query=(Query(100, 80),), write=(Write(600, ("hot",)), Write(1, ("cold",)))
    )
    one = advice(schema, part, 1500)
    four = advice(schema, part, 1500, ("a", "b", "c", "d"))
    assert one.best.groups == (frozenset({"hot", "cold"}),)
    assert set(four.best.groups) == {frozenset({"hot"}), frozenset({"cold"})}


def test_a_good_grouping_is_left_alone() -> None:
    """No advice where nothing is cheaper."""
    schema = namespace("a", "b")
    part = NamespaceMix("user", 1000, query=(Query(10),), write=(Write(10),))
    assert not advice(schema, part, 50).changes


def test_many_sets_are_joined_two_at_a_time() -> None:
    """Nine features that are written apart, but read together, end in one item."""
    names = [f"f{place}" for place in range(9)]
    schema = namespace(*names, groups=True)
    writes = tuple(Write(0.1, (name,)) for name in names)
    part = NamespaceMix("user", 1000, query=(Query(1000, 20),), write=writes)
    assert advice(schema, part, 20).best.groups == (frozenset(names),)


def test_all_partitions_are_tried() -> None:
    """Bell's numbers: 1, 2, 5, 15, 52 partitions of 1 to 5 sets, none of them twice."""
    for count, bell in enumerate([1, 2, 5, 15, 52], start=1):
        atoms = [frozenset({str(place)}) for place in range(count)]
        assert len({frozenset(g) for g in _groupings(atoms)}) == bell
