"""Several groups of one read: item by item, or by Query where that takes fewer units."""

from __future__ import annotations

from typing import Any

from chalk_online_store import Status, feature, features
from tests.fakes import SimulatedStore, refusal


@features
class User:
    id: int
    a: int = feature(group="g1")
    b: str = feature(group="g2")
    c: float | None = feature(group="g3")
    large: bytes = feature(group="g4")
    last: int = feature(group="g5")


SMALL = ["a", "b", "c"]
ROW = {"a": 1, "b": "x", "c": None, "last": 9}


def store_of(count: int, **more: Any) -> SimulatedStore:
    store = SimulatedStore([User])
    store.write(User, [{"id": i, **ROW, **more} for i in range(count)])
    return store


def test_groups_are_queried_where_that_costs_fewer_units() -> None:
    """Once it is known how small the items are, an entity's groups come by one Query."""
    store = store_of(3)
    first, second = (store.read(User, [0, 1, 2], SMALL) for _ in range(2))
    assert (first.report.queries, first.report.rcu) == (0, 4.5)
    assert (second.report.queries, second.report.requests, second.report.rcu) == (3, 3, 1.5)
    assert second.to_pylist() == first.to_pylist() == [{"a": 1, "b": "x", "c": None}] * 3
    assert second.statuses("c") == [Status.NULL] * 3


def test_a_query_tells_what_is_missing() -> None:
    """Groups and entities that are not there are missing, and nothing is taken for another."""
    store = store_of(1)
    store.write(User, [{"id": 7, "b": "only"}])
    for _ in range(2):
        rows = store.read(User, [7, 8, 0], SMALL)
        assert rows.statuses("a") == [Status.MISSING, Status.MISSING, Status.HIT]
        assert rows.column("b") == ["only", None, "x"]
    assert rows.report.queries == 3


def test_many_entities_are_read_item_by_item() -> None:
    """A Query takes one entity, so many would be as many requests."""
    store = store_of(50)
    for _ in range(3):
        rows = store.read(User, range(50), SMALL)
        assert (rows.report.queries, rows.report.requests) == (0, 3)


def test_one_group_is_never_queried() -> None:
    """There is nothing to save on a single item."""
    store = store_of(2)
    for _ in range(3):
        assert store.read(User, [0, 1], ["a"]).report.queries == 0


def test_what_lies_between_counts() -> None:
    """Where a large group that nobody asked for makes a Query dear, it is tried once, and left."""
    store = store_of(1, large=b"x" * 60_000)
    wanted = [*SMALL, "last"]
    reports = [store.read(User, [0], wanted).report for _ in range(4)]
    assert [report.queries for report in reports] == [0, 1, 0, 0]
    assert reports[1].rcu > reports[0].rcu == reports[3].rcu == 2.0


def test_an_engine_without_units_is_never_queried() -> None:
    """Without units there is nothing to choose by."""
    store = store_of(1)
    store.table.counts_units = False
    for _ in range(3):
        assert store.read(User, [0], SMALL).report.queries == 0


def test_strong_reads_stay_strong() -> None:
    """A consistent read asks for a consistent Query, and reckons with twice the units."""
    store = store_of(1)
    for _ in range(2):
        rows = store.read(User, [0], SMALL, consistent=True)
    assert rows.report.queries == 1
    assert [body.get("ConsistentRead") for _, body in store.sent("Query")[-1:]] == [True]


def test_a_query_goes_on_page_by_page() -> None:
    """What does not fit on one page comes with the next."""
    store = store_of(1)
    store.read(User, [0], SMALL)
    store.table.page = 1
    rows = store.read(User, [0], SMALL)
    assert (rows.report.queries, rows.to_pylist()) == (3, [{"a": 1, "b": "x", "c": None}])


def test_a_damaged_item_fails_alone() -> None:
    """Of a queried entity only the group whose item is damaged is failed."""
    store = store_of(1)
    store.read(User, [0], SMALL)
    next(i for k, i in store.table.items.items() if k[1] == "b" and k[0] == "a:0")["b"] = {"S": 5}
    rows = store.read(User, [0], SMALL)
    assert rows.report.queries == 1
    assert [rows[0].status(name) for name in SMALL] == [Status.HIT, Status.FAILED, Status.NULL]


def test_a_query_that_fails_is_never_missing() -> None:
    """An entity that could not be queried in time is failed in every group, the others are not."""
    store = store_of(2)
    store.read(User, [0, 1], SMALL)

    def throttle_one(operation: str, body: dict[str, Any], now: float) -> Any:
        first = "a:0" in str(body.get("ExpressionAttributeValues"))
        return refusal("ThrottlingException") if operation == "Query" and first else None

    store.table.fault = throttle_one
    rows = store.read(User, [0, 1], SMALL, timeout=1)
    for name in SMALL:
        assert rows.statuses(name)[0] is Status.FAILED
    assert rows[1].to_dict() == {"a": 1, "b": "x", "c": None}
