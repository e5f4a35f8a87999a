"""Deletes of entities in virtual time: which region tells the groups, and for how long."""

from __future__ import annotations

import json

import pytest

from chalk_online_store import Feature, Namespace, RegistryUnavailable
from chalk_online_store.codec.registry import Registry, entries_of
from chalk_online_store.effects import Operation
from chalk_online_store.report import Report
from tests.test_regions_simulated import USER, A, B, World

WIDE = Namespace("user", str, [Feature("risk", float), Feature("b", int, group="later")])


def world_with_two_groups(*regions: str) -> World:
    """Regions of which those named have a group that the schema does not declare."""
    world = World(A, B)
    world.fill()
    layout = world.backend.layout
    for entry in Registry().allocate(entries_of(WIDE), layout.reserved):
        for item in entry.items(layout):
            plain = {name: json.loads(value) for name, value in item.items()}
            for region in regions:
                world.tables[region]._put(plain)
    for table in world.tables.values():
        table._put({"pk": {"S": "a:secret-key"}, "sk": {"S": "b"}, "b": {"N": "1"}})
    return world


def delete(world: World, ended: list[float] | None = None) -> Report:
    """Delete the entity; `ended` takes the virtual time at which the call ends."""

    def timed() -> Operation[Report]:
        try:
            return (
                yield from world.core.delete(
                    USER, ["secret-key"], None, observed_at=None, ordering="arrival", timeout=None
                )
            )
        finally:
            if ended is not None:
                ended.append(world.driver.now)

    return world.driver.run(timed())


def test_a_delete_reads_the_registry_in_its_home_region() -> None:
    """Groups that only the home region knows yet are deleted."""
    world = world_with_two_groups(A)
    assert delete(world).items_written == 2
    assert ("a:secret-key", "b") not in world.tables[A].items


@pytest.mark.parametrize("fault", ["silent", "refusing"])
def test_a_delete_goes_on_without_the_home_region(fault: str) -> None:
    """If the home region does not answer, another one tells the groups, within the call's time."""
    world = world_with_two_groups(A, B)
    getattr(world, fault).add(A)
    began, ended = world.driver.now, list[float]()
    assert delete(world, ended).items_written == 2
    assert ended[0] - began < 10
    assert ("a:secret-key", "b") not in world.tables[B].items


def test_a_delete_without_any_registry_fails() -> None:
    """A delete that cannot learn the groups is refused by its deadline, and deletes nothing."""
    world = world_with_two_groups(A, B)
    world.silent |= {A, B}
    began, ended, items = world.driver.now, list[float](), dict(world.tables[A].items)
    with pytest.raises(RegistryUnavailable):
        delete(world, ended)
    assert ended[0] - began <= 10.001
    assert world.tables[A].items == items
