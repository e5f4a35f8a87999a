"""The LRU cache in front of every engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chalk_online_store import (
    Feature,
    LRUCache,
    Namespace,
    OnlineStoreConfig,
    Status,
    features,
)
from tests.contract.conftest import Open


@features(max_staleness="1h")
class User:
    id: int
    a: int
    b: int


@features(online_store_config=OnlineStoreConfig(lru_cache=LRUCache(max_size=10)))
class Shop:
    id: int
    a: int


CACHE = LRUCache(max_size=100, store_cache_misses=True)


def test_a_second_read_sends_nothing(open_store: Open) -> None:
    """What a read found, and what it found missing, is served from memory the next time."""
    store = open_store([User], lru_cache=CACHE)
    open_store([User]).write(User, [{"id": 1, "a": 1, "b": 2}])
    first = store.read(User, [1, 2, 1])
    again = store.read(User, [2, 1], ["b"])
    assert (first.report.cache_hits, again.report.cache_hits) == (0, 2)
    assert again.report.requests == 0
    assert again.statuses("b") == [Status.MISSING, Status.HIT]


def test_misses_are_not_kept_unless_asked(open_store: Open) -> None:
    """Without `store_cache_misses` an absent entity is looked for again."""
    store = open_store([Shop])
    open_store([Shop]).write(Shop, [{"id": 1, "a": 1}])
    store.read(Shop, [1, 2])
    again = store.read(Shop, [1, 2])
    looked = again.report.requests + again.report.shared_hits
    assert (again.report.cache_hits, looked) == (1, 1)


def test_a_whole_write_goes_through_the_cache(open_store: Open) -> None:
    """After a whole write of its own a store serves the new values without reading them."""
    store = open_store([User], lru_cache=CACHE)
    store.write(User, [{"id": 1, "a": 1, "b": 2}])
    rows = store.read(User, [1])
    assert rows[0].to_dict() == {"a": 1, "b": 2}
    assert rows.report.requests == 0


def test_own_writes_are_never_hidden_by_the_cache(open_store: Open) -> None:
    """After a partial write, a superseded one or a delete, the store serves what is there."""
    store = open_store([User], lru_cache=CACHE)
    now = datetime.now(UTC)
    store.write(User, [{"id": 1, "a": 1, "b": 1}], observed_at=now - timedelta(minutes=2))
    store.read(User, [1])
    store.write(User, [{"id": 1, "a": 2}], observed_at=now - timedelta(minutes=1))
    assert store.read(User, [1])[0].to_dict() == {"a": 2, "b": 1}
    store.write(User, [{"id": 1, "a": 0, "b": 0}], observed_at=now - timedelta(minutes=3))
    assert store.read(User, [1])[0].to_dict() == {"a": 2, "b": 1}
    store.delete(User, [1])
    assert store.read(User, [1]).statuses("a") == [Status.MISSING]


def test_a_strong_read_goes_past_the_cache(open_store: Open) -> None:
    """`consistent=True` sees what another process wrote, and renews what the cache has."""
    store, other = open_store([User], lru_cache=CACHE), open_store([User])
    store.write(User, [{"id": 1, "a": 1, "b": 1}])
    other.write(User, [{"id": 1, "a": 2, "b": 2}])
    assert store.read(User, [1], ["a"])[0]["a"] == 1
    assert store.read(User, [1], ["a"], consistent=True)[0]["a"] == 2
    assert store.read(User, [1], ["a"])[0]["a"] == 2


def test_a_cached_value_still_goes_stale(open_store: Open) -> None:
    """Staleness is reckoned at the read, not when the value was cached."""
    store = open_store([User], lru_cache=CACHE)
    old = datetime.now(UTC) - timedelta(minutes=30)
    store.write(User, [{"id": 1, "a": 1, "b": 1}], observed_at=old)
    assert store.read(User, [1]).statuses("a") == [Status.HIT]
    assert store.read(User, [1], max_staleness={"a": "10m"}).statuses("a") == [Status.STALE]


def test_a_cached_item_is_not_read_as_another_schema_has_it(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When features come or go in the registry, items that were cached before are read anew."""
    ac, abc = (Namespace("thing", int, [Feature(n, int) for n in names]) for names in ("ac", "abc"))
    open_store([ac]).write(ac, [{"id": 1, "a": 1, "c": 3}])
    store = open_store([abc], lru_cache=CACHE)
    assert store.read(abc, [1])[0].to_dict() == {"a": 1, "b": None, "c": 3}
    open_store([abc]).write(abc, [{"id": 1, "b": 2}])
    monkeypatch.setattr("chalk_online_store.operations.registry.REFRESH_SECONDS", -1)
    assert store.read(abc, [1])[0].to_dict() == {"a": 1, "b": 2, "c": 3}
    store.drop(abc, ["b"])
    assert store.read(abc, [1])[0].to_dict() == {"a": 1, "b": None, "c": 3}
