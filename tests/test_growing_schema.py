"""Schemas that grow while a store is open: `Core.declare`, which integrations build on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import Feature, InvalidSchema, LRUCache, Namespace, OnlineStore
from chalk_online_store.codec.results import RESULTS
from chalk_online_store.errors import TypeConflict, UnknownFeature

NOW = datetime.now(UTC)

NARROW = Namespace("user", int, [Feature("a", int | None)])
WIDE = Namespace("user", int, [Feature("a", int | None), Feature("b", str, group="other")])


@pytest.fixture(params=[None, LRUCache(100)], ids=["plain", "cached"])
def store(request: pytest.FixtureRequest) -> Iterator[OnlineStore]:
    """A store without a schema."""
    with OnlineStore.open("sqlite://", [], lru_cache=request.param) as store:
        yield store


def test_a_namespace_is_declared_while_the_store_is_open(store: OnlineStore) -> None:
    """What was unknown is read and written once it is declared."""
    with pytest.raises(UnknownFeature):
        store.write(NARROW, [{"id": 1, "a": 5}])
    store.core.declare(NARROW)
    store.write(NARROW, [{"id": 1, "a": 5}])
    assert store.read(NARROW, [1]).to_pylist() == [{"a": 5}]


def test_a_namespace_grows(store: OnlineStore) -> None:
    """A wider namespace takes the place of a narrow one, which goes on to serve who has it."""
    store.core.declare(NARROW)
    prepared = store.prepare(NARROW)
    store.write(NARROW, [{"id": 1, "a": 5}])
    store.core.declare(WIDE)
    store.write(WIDE, [{"id": 1, "b": "x"}])
    store.write(NARROW, [{"id": 2, "a": 6}])
    assert store.read(WIDE, [1, 2]).to_pylist() == [{"a": 5, "b": "x"}, {"a": 6, "b": None}]
    assert prepared.read([1, 2]).column("a") == [5, 6]


def test_what_was_dropped_may_be_declared_again(store: OnlineStore) -> None:
    """It gets a new id, and so has no values, and it may have another type."""
    store.core.declare(WIDE)
    store.write(WIDE, [{"id": 1, "a": 5, "b": "x"}])
    store.drop(WIDE, ["b"])
    with pytest.raises(UnknownFeature):
        store.write(WIDE, [{"id": 1, "b": "y"}])
    other = Namespace("user", int, [Feature("a", int | None), Feature("b", int, group="other")])
    store.core.declare(other)
    assert store.read(other, [1])[0].status("b") == "missing"
    store.write(other, [{"id": 1, "b": 7}])
    assert store.read(other, [1]).to_pylist() == [{"a": 5, "b": 7}]


def test_a_declaration_is_held_to_the_registry(store: OnlineStore) -> None:
    """Another type under a registered name is refused, as at opening."""
    store.core.declare(NARROW)
    store.write(NARROW, [{"id": 1, "a": 5}])
    other = Namespace("user", int, [Feature("a", str)])
    store.core.declare(other)
    with pytest.raises(TypeConflict):
        store.read(other, [1])
    with pytest.raises(InvalidSchema):
        store.core.declare(RESULTS)


def test_times_are_told_by_column(store: OnlineStore) -> None:
    """Each key's observed-at, None where nothing is there, duplicates included."""
    store.core.declare(WIDE)
    store.write(WIDE, [{"id": 1, "a": 5}, {"id": 2, "a": None}], observed_at=NOW)
    microseconds = round(NOW.timestamp() * 1e6)
    rows = store.read(WIDE, [2, 3, 1, 2])
    assert rows.times("a") == [microseconds, None, microseconds, microseconds]
    assert rows.times("b") == [None] * 4
    assert list(store.read(WIDE, [1, 2]).times("a")) == [microseconds] * 2


@pytest.mark.parametrize(("staleness", "seconds"), [("infinity", 60), ("1h", 60), ("5s", 5)])
def test_a_write_expires_at_the_latest_when_it_is_said_to(
    tmp_path: Path, staleness: str, seconds: int
) -> None:
    """`expires_at` bounds what the max staleness says; the table has the earlier of the two."""
    namespace = Namespace("user", int, [Feature("a", int, max_staleness=staleness)])
    now = datetime.fromtimestamp(NOW.timestamp() // 1, UTC)
    path = tmp_path / "features.db"
    with OnlineStore.open(f"sqlite:///{path}", [namespace]) as store:
        options: dict[str, Any] = {"ordering": "event", "timeout": 5.0, "observed_at": now}
        expires_at = int((now + timedelta(minutes=1)).timestamp())
        store.driver.run(
            store.core.write(namespace, [{"id": 1, "a": 5}], expires_at=expires_at, **options)
        )
    with closing(sqlite3.connect(path)) as connection:
        ((item,),) = connection.execute("SELECT item FROM items WHERE pk = 'a:1'")
    assert f'"ttl":{{"N":"{int(now.timestamp()) + seconds}"}}' in item.decode()
