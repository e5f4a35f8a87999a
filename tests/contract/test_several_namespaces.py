"""Reads of several namespaces in one call."""

from __future__ import annotations

from typing import Any

import pytest

from chalk_online_store import (
    BloomFilter,
    InvalidKey,
    InvalidValue,
    LRUCache,
    OnlineStoreConfig,
    ReadFailed,
    ReadRequest,
    feature,
    features,
)
from tests.contract.conftest import AnyStore, Open


@features
class User:
    id: int
    email: str | None
    risk: float = feature(group="realtime")
    visits: int = feature(default=0)


@features
class Item:
    sku: tuple[str, int] = feature(primary=True)
    price: float
    tags: list[str]


@features(
    online_store_config=OnlineStoreConfig(
        lru_cache=LRUCache(max_size=10, store_cache_misses=True),
        bloom_filter=BloomFilter(expected_entities=100),
    )
)
class Shop:
    id: str
    name: str


def filled(open_store: Open, **options: Any) -> AnyStore:
    """A store with some entities of each namespace."""
    store = open_store([User, Item, Shop], **options)
    users = [{"id": i, "email": None, "visits": i, "risk": i / 2} for i in range(130)]
    store.write(User, users, ordering="arrival")
    store.write(Item, [{"sku": ("a", 1), "price": 0.5, "tags": ["x"]}])
    store.write(Shop, [{"id": "s", "name": "Corner"}])
    return store


def test_several_namespaces_are_read_in_one_call(open_store: Open) -> None:
    """Each request has its own rows, in its own order, with its duplicates; the report is one."""
    store = filled(open_store)
    for _ in range(2):  # The second time from the cache, where there is one.
        users, items, shops, more = store.read_many(
            ReadRequest(User, [7, 999, 7, 8], [User.visits, User.risk]),
            ReadRequest(Item, [("a", 1), ("b", 2)]),
            ReadRequest(Shop, ["s", "t"]),
            ReadRequest(User, [7], ["email"], max_staleness={"email": "1d"}),
            consistent=False,
        )
        assert users.to_dict() == {"visits": [7, None, 7, 8], "risk": [3.5, None, 3.5, 4.0]}
        assert items.to_pylist(with_key=True) == [
            {"sku": ("a", 1), "price": 0.5, "tags": ["x"]},
            {"sku": ("b", 2), "price": None, "tags": None},
        ]
        assert shops.column("name") == ["Corner", None]
        assert more.statuses("email") == ["null"]
        assert users.report is items.report is shops.report is more.report
    (served,) = store.read_many(ReadRequest(User, [999]), consistent=True, defaults=True)
    assert served[0]["visits"] == 0


def test_large_and_small_requests_in_one_call(open_store: Open) -> None:
    """More keys than a request takes, of several namespaces, are all read."""
    store = filled(open_store)
    keys = list(range(129, -1, -1))
    users, items = store.read_many(ReadRequest(User, keys), ReadRequest(Item, [("a", 1)]))
    assert users.column("visits") == keys
    assert users.column("risk") == [key / 2 for key in keys]
    assert items.column("price") == [0.5]


def test_what_has_no_keys_or_no_values(open_store: Open) -> None:
    """A request without keys has no rows, and a namespace that nobody has written is missing."""
    store = open_store([User, Item, Shop])
    assert store.read_many() == ()
    users, items = store.read_many(ReadRequest(User, []), ReadRequest(Item, [("a", 1)]))
    assert (len(users), users.to_dict()) == (0, {"email": [], "risk": [], "visits": []})
    assert items.statuses("price") == ["missing"]


def test_one_deadline_for_all(open_store: Open) -> None:
    """Without time every request fails, as a value or at once."""
    store = filled(open_store)
    requests = ReadRequest(User, [1]), ReadRequest(Item, [("a", 1)])
    for rows in store.read_many(*requests, timeout=0):
        assert {status for name in rows.features for status in rows.statuses(name)} == {"failed"}
    with pytest.raises(ReadFailed, match="position 0"):
        store.read_many(*requests, timeout=0, raise_failed=True)


def test_bad_requests_are_refused_before_anything_is_sent(open_store: Open) -> None:
    """A key of the wrong type, and what is not a request, are refused by name."""
    store = open_store([User, Item, Shop])
    with pytest.raises(InvalidKey, match=r"item\.sku"):
        store.read_many(ReadRequest(User, [1]), ReadRequest(Item, ["a"]))
    wrong: Any = User
    with pytest.raises(InvalidValue, match="ReadRequest"):
        store.read_many(wrong)
