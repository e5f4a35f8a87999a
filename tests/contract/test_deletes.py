"""Deletes: every group of an entity, whoever declares it, and a report of what stays."""

from __future__ import annotations

from typing import Any

import pytest

from chalk_online_store import Feature, LRUCache, Namespace, Status
from tests.contract.conftest import AnyStore, Open
from tests.contract.test_writes import at, users

OLD = Namespace("user", int, [Feature("a", int)])
NEW = Namespace("user", int, [Feature("a", int), Feature("b", int, group="later")])
AB = users("a", "b")


def statuses(store: AnyStore, schema: Namespace, key: int = 1) -> list[Any]:
    """The status of each feature of one entity, strongly read."""
    row = store.read(schema, [key], consistent=True)[0]
    return [row.status(name).value for name in schema.by_name]


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_a_delete_covers_groups_that_the_schema_does_not_declare(
    open_store: Open, ordering: str
) -> None:
    """A process with an older schema deletes all of an entity, whenever it was started."""
    running, newer = open_store([OLD]), open_store([NEW])
    running.write(OLD, [{"id": 1, "a": 1}], observed_at=at(1))
    newer.write(NEW, [{"id": key, "a": 2, "b": 2} for key in (1, 2, 3)], observed_at=at(2))
    report = running.delete(OLD, [1], observed_at=at(3), ordering=ordering)
    assert (report.items_written, report.superseded) == (2, 0)
    open_store([OLD]).delete(OLD, [2], observed_at=at(3), ordering=ordering)
    found = [statuses(newer, NEW, key) for key in (1, 2, 3)]
    assert found == [["missing", "missing"], ["missing", "missing"], ["hit", "hit"]]


def test_a_delete_holds_in_groups_that_the_schema_does_not_declare(open_store: Open) -> None:
    """An older value that arrives after a delete does not come back in any group."""
    older, newer = open_store([OLD]), open_store([NEW])
    newer.write(NEW, [{"id": 9, "a": 1, "b": 1}])
    older.delete(OLD, [1], observed_at=at(3))
    newer.write(NEW, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    assert statuses(newer, NEW) == ["missing", "missing"]
    newer.write(NEW, [{"id": 1, "b": 4}], observed_at=at(4))
    assert statuses(newer, NEW) == ["missing", "hit"]


def test_a_delete_of_features_leaves_other_groups(open_store: Open) -> None:
    """A delete that names features touches no other ones."""
    older, newer = open_store([OLD]), open_store([NEW])
    newer.write(NEW, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    older.delete(OLD, [1], ["a"], observed_at=at(2))
    assert statuses(newer, NEW) == ["missing", "hit"]


def test_a_delete_covers_groups_of_dropped_features(open_store: Open, url: str) -> None:
    """A group whose features were all dropped is deleted with its entity."""
    older, newer = open_store([OLD]), open_store([NEW])
    newer.write(NEW, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    newer.drop(NEW, ["b"])
    assert older.delete(OLD, [1], ordering="arrival").items_written == 2
    still = open_store([NEW])
    still.write(NEW, [{"id": 2, "b": 1}])
    assert statuses(still, NEW) == ["missing", "missing"]


def test_a_cache_serves_nothing_of_a_deleted_entity(open_store: Open) -> None:
    """A delete by a narrow schema removes the other groups from the cache of this process."""
    cache = LRUCache(max_size=100, store_cache_misses=True)
    store = open_store([], lru_cache=cache)
    for schema in (NEW, OLD):
        store.core.declare(schema)
    store.write(NEW, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    assert store.read(NEW, [1]).column("b") == [1]
    store.delete(OLD, [1], observed_at=at(2))
    assert store.read(NEW, [1]).statuses("b") == [Status.MISSING]


# --- reports -------------------------------------------------------------------------------


def test_a_delete_that_leaves_newer_values_is_superseded(open_store: Open) -> None:
    """The report counts an item in `superseded` if a value in it is newer than the delete."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 5, "b": 5}], observed_at=at(5))
    store.write(AB, [{"id": 2, "a": 1, "b": 1}], observed_at=at(1))
    report = store.delete(AB, [1, 2, 3], observed_at=at(3))
    assert (report.items_written, report.superseded) == (2, 1)
    assert [statuses(store, AB, key) for key in (1, 2)] == [["hit"] * 2, ["missing"] * 2]
    report = store.delete(AB, [1], observed_at=at(5))
    assert (report.items_written, report.superseded) == (1, 0)


def test_a_delete_that_leaves_some_values_is_superseded(open_store: Open) -> None:
    """An item that keeps one newer value counts as superseded, though others are gone."""
    store = open_store([AB])
    for features in (None, ["a", "b"]):
        store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
        store.write(AB, [{"id": 1, "b": 5}], observed_at=at(5))
        report = store.delete(AB, [1], features, observed_at=at(3))
        assert (report.items_written, report.superseded) == (0, 1)
        assert statuses(store, AB) == ["missing", "hit"]
        store.delete(AB, [1], ordering="arrival")


def test_a_delete_beside_newer_values_is_written(open_store: Open) -> None:
    """Newer values of features that a delete does not name do not make it superseded."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.write(AB, [{"id": 1, "b": 5}], observed_at=at(5))
    report = store.delete(AB, [1], ["a"], observed_at=at(3))
    assert (report.items_written, report.superseded) == (1, 0)
    assert statuses(store, AB) == ["missing", "hit"]


@pytest.mark.parametrize("newer", [200, 240])
def test_a_delete_in_several_requests_is_reported_as_one(open_store: Open, newer: int) -> None:
    """Also a delete of more features than one expression holds tells that values stay."""
    names = [f"f{i}" for i in range(250)]
    wide = users(*names)
    store = open_store([wide])
    for features in (None, names):
        store.write(wide, [{"id": 1, **dict.fromkeys(names, 1)}], observed_at=at(1))
        store.write(wide, [{"id": 1, **dict.fromkeys(names[:newer], 5)}], observed_at=at(5))
        report = store.delete(wide, [1], features, observed_at=at(3))
        assert (report.items_written, report.superseded) == (0, 1)
        found = statuses(store, wide)
        assert found == ["hit"] * newer + ["missing"] * (250 - newer)
        store.delete(wide, [1], ordering="arrival")
