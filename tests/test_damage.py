"""Damaged and foreign items: a value or our error, and never for more than the item at fault."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import DamagedItem, OnlineStore, ReadFailed, RegistryError, Status, features
from tests.fakes import SimulatedStore


@features
class User:
    id: int
    a: int
    b: str


@features
class Shop:
    id: int
    a: int


def store_with(damage: dict[str, Any]) -> SimulatedStore:
    """Three users, of which the second's `a` lies otherwise in the table."""
    store = SimulatedStore([User])
    store.write(User, [{"id": i, "a": i, "b": "b"} for i in range(3)])
    item = next(i for k, i in store.table.items.items() if k[0].endswith(":1"))
    item["a"] = damage
    return store


@pytest.mark.parametrize("damage", [{"N": "1.5"}, {"N": "secret"}, {"N": []}])
@pytest.mark.parametrize("keys", [[0, 1, 2], [1]], ids=["batch", "single"])
def test_an_unreadable_value_fails_alone(damage: dict[str, Any], keys: list[int]) -> None:
    """A value that cannot be decoded is failed with its cause; all others are served."""
    rows = store_with(damage).read(User, keys)
    for row in rows:
        assert row.status("a") is (Status.FAILED if row.key == 1 else Status.HIT)
        assert row["b"] == "b"
    with pytest.raises(ReadFailed) as failed:
        rows[keys.index(1)]["a"]
    assert isinstance(failed.value.__cause__, DamagedItem)
    assert "user.a" in str(failed.value)
    assert rows.report.failed == 1


@pytest.mark.parametrize("keys", [[0, 1, 2], [1]], ids=["batch", "single"])
@pytest.mark.parametrize("name", ["@", "~"])
def test_an_item_without_its_times_fails_alone(name: str, keys: list[int]) -> None:
    """Where an item's times cannot be read, all of its features are failed, and no other item."""
    store = store_with({"N": "1"})
    item = next(i for k, i in store.table.items.items() if k[0].endswith(":1"))
    item[name] = {"N": "secret"}
    rows = store.read(User, keys)
    for row in rows:
        assert row.status("b") is (Status.FAILED if row.key == 1 else Status.HIT)
    with pytest.raises(DamagedItem, match=r"'b' of the key at position") as failed:
        rows[keys.index(1)]["b"]
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("keys", [[0, 1, 2], [1]], ids=["batch", "single"])
def test_damage_costs_no_second_read(keys: list[int]) -> None:
    """Which item of an answer is damaged is told from that answer."""
    assert store_with({"N": "1.5"}).read(User, keys).report.requests == 1


def test_a_feature_of_another_type_fails_when_it_is_looked_at() -> None:
    """An attribute of another kind spoils its feature alone, not its item."""
    rows = store_with({"S": "secret"}).read(User, [0, 1, 2])
    assert rows.column("b") == ["b"] * 3
    with pytest.raises(DamagedItem, match=r"user\.a \(id 'a'\)") as raised:
        rows[1]["a"]
    assert "secret" not in str(raised.value)


def test_a_foreign_item_in_the_registry_is_refused() -> None:
    """An item that is not an entry raises `RegistryError` for the namespace of its name alone."""
    store = SimulatedStore([User, Shop])
    foreign = '{"pk":{"S":"!registry"},"sk":{"S":"user.x"}}'
    store.table.items["!registry", "user.x"] = json.loads(foreign)
    with pytest.raises(RegistryError, match=r"'user\.x' is not a valid entry"):
        store.read(User, [1])
    assert store.read(Shop, [1]).statuses("a") == [Status.MISSING]


def test_a_truncated_item_in_the_registry_is_an_error_of_ours(tmp_path: Path) -> None:
    """Bytes in the registry that are not an item raise `RegistryError` with the remedy."""
    path = tmp_path / "features.db"
    with OnlineStore.open(f"sqlite:///{path}", [User]) as store:
        store.write(User, [{"id": 1, "a": 1, "b": "b"}])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE items SET item = substr(item, 1, 20) WHERE pk = '!registry'")
    with OnlineStore.open(f"sqlite:///{path}", [User]) as store:
        for call in (lambda: store.read(User, [1]), lambda: store.delete(User, [1])):
            with pytest.raises(RegistryError, match="restore the table"):
                call()
