"""Reads of several namespaces share BatchGetItems, in virtual time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import LRUCache, ReadRequest, feature, features
from tests.fakes import SimulatedStore, refusal
from tests.helpers import stress


@features
class User:
    id: int
    a: int
    b: int = feature(group="other")


@features
class Item:
    id: str
    a: float
    text: str


def store_of(users: int, items: int, lru_cache: LRUCache | None = None) -> SimulatedStore:
    """A store with that many entities of each namespace."""
    store = SimulatedStore([User, Item], lru_cache)
    store.write(User, [{"id": i, "a": i * 10, "b": -i} for i in range(users)])
    store.write(Item, [{"id": str(i), "a": i / 2, "text": "x"} for i in range(items)])
    store.driver.sent.clear()
    return store


def requested(store: SimulatedStore) -> list[int]:
    """The number of keys of each BatchGetItem."""
    return [
        len(table["Keys"])
        for _, body in store.sent("BatchGetItem")
        for table in body["RequestItems"].values()
    ]


def test_few_keys_of_several_namespaces_take_one_request() -> None:
    """Items of two namespaces and three groups come with one BatchGetItem."""
    store = store_of(5, 5)
    users, items = store.read_many(ReadRequest(User, [1, 2]), ReadRequest(Item, ["3"]))
    assert users.to_dict() == {"a": [10, 20], "b": [-1, -2]}
    assert items.to_dict() == {"a": [1.5], "text": ["x"]}
    assert (requested(store), users.report.requests, len(store.driver.sent)) == ([5], 1, 1)


def test_what_is_left_over_of_large_reads_is_shared() -> None:
    """Full requests hold one group; the rest of all groups is packed into as few as possible."""
    store = store_of(130, 130)
    users, items = store.read_many(
        ReadRequest(User, range(130), ["a"]), ReadRequest(Item, [str(i) for i in range(130)])
    )
    assert users.column("a") == [i * 10 for i in range(130)]
    assert items.column("a") == [i / 2 for i in range(130)]
    assert sorted(requested(store)) == [60, 100, 100]


def test_two_requests_for_one_entity_share_its_item() -> None:
    """No key is asked for twice in a BatchGetItem, since DynamoDB refuses that."""
    store = store_of(2, 1)
    first, second, items = store.read_many(
        ReadRequest(User, [1], ["a"]), ReadRequest(User, [1, 0, 1], ["a"]), ReadRequest(Item, ["0"])
    )
    assert (first.column("a"), second.column("a"), items.column("a")) == ([10], [10, 0, 10], [0.0])
    assert requested(store) == [3]


@settings(max_examples=stress(30))
@given(at_most=st.integers(1, 100), users=st.integers(0, 130), items=st.integers(0, 130))
def test_unprocessed_keys_are_asked_again(at_most: int, users: int, items: int) -> None:
    """However little of a batch is processed at a time, every key of each request is answered."""
    store = store_of(users, items)
    store.table.read_at_most = at_most
    found, others = store.read_many(
        ReadRequest(User, range(users + 1)),
        ReadRequest(Item, [str(i) for i in range(items)]),
        timeout=1000,
    )
    assert found.column("b") == [*[-i for i in range(users)], None]
    assert others.column("a") == [i / 2 for i in range(items)]
    assert found.report.failed == 0


def test_keys_that_are_left_at_the_deadline_are_failed() -> None:
    """What was processed is served; what a throttled table left is failed, not missing."""
    store = store_of(3, 3)
    store.table.read_at_most = 4
    store.table.fault = lambda operation, body, now: (
        None if operation != "BatchGetItem" or now < 1 else refusal("ThrottlingException")
    )
    store.driver.now = 0.995
    users, items = store.read_many(
        ReadRequest(User, [0, 1, 2], ["a"]), ReadRequest(Item, ["0", "1"]), timeout=2
    )
    assert users.statuses("a") == ["hit"] * 3
    assert items.statuses("a") == ["hit", "failed"]
    assert (users.report.failed, users.report.unprocessed) == (1, 1)


def test_a_damaged_item_harms_no_other_one() -> None:
    """A value that is not of its type fails alone in a request that namespaces share."""
    store = store_of(2, 2)
    place = next(key for key, item in store.table.items.items() if {"S": "x"} in item.values())
    item = store.table.items[place]
    name = next(name for name, value in item.items() if value == {"S": "x"})
    store.table.items[place] = {**item, name: {"N": "1"}}
    users, items = store.read_many(ReadRequest(User, [0, 1]), ReadRequest(Item, ["0", "1"]))
    assert items.statuses("text") == ["failed", "hit"]
    assert (items.column("a"), users.column("a")) == ([0.0, 0.5], [0, 10])


def test_cached_namespaces_are_read_through_their_caches() -> None:
    """A namespace with a cache is read through it, and needs no request for what it has."""
    store = store_of(2, 2, LRUCache(max_size=100))
    for _ in range(2):
        users, items = store.read_many(ReadRequest(User, [0, 1]), ReadRequest(Item, ["0"]))
        assert (users.column("a"), items.column("a")) == ([0, 10], [0.0])
    assert (users.report.cache_hits, users.report.requests) == (5, 0)
