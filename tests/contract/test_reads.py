"""Reads: order, statuses, staleness, limits of the engines' batches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np
import pytest

from chalk_online_store import ReadFailed, Status, Vector, feature, features
from tests.contract.conftest import Open

NOW = datetime.now(UTC)


@features(max_staleness="30d")
class User:
    id: int
    email: str | None
    txn_count_30d: int
    risk: float = feature(max_staleness="1h", group="realtime")
    embedding: Annotated[np.ndarray, Vector[4]]


@features
class Blob:
    id: str
    body: bytes


def test_rows_have_the_order_and_the_duplicates_of_the_keys(open_store: Open) -> None:
    """A row answers each asked key at its own place, however often it is asked."""
    store = open_store([User])
    store.write(User, [{"id": i, "txn_count_30d": i * 10} for i in range(5)])
    rows = store.read(User, [3, 0, 3, 4, 99], ["txn_count_30d"])
    assert [row.key for row in rows] == [3, 0, 3, 4, 99]
    assert rows.column("txn_count_30d") == [30, 0, 30, 40, None]


def test_absent_null_and_value_are_three_things(open_store: Open) -> None:
    """A null that was written, a feature that was not, and an entity without item differ."""
    store = open_store([User])
    store.write(User, [{"id": 1, "email": None, "risk": 0.5}])
    rows = store.read(User, [1, 2], ["email", "risk", "txn_count_30d"])
    assert [rows[0].status(f) for f in rows.features] == ["null", "hit", "missing"]
    assert [rows[1].status(f) for f in rows.features] == ["missing"] * 3


def test_a_read_of_a_table_without_any_writes_answers_missing(open_store: Open) -> None:
    """A reader does not register features: to it they are simply missing."""
    rows = open_store([User]).read(User, [1, 2])
    assert {status for name in rows.features for status in rows.statuses(name)} == {"missing"}


def test_a_reader_notices_what_another_process_registers(open_store: Open) -> None:
    """A reader that was there first serves features that were registered after it looked."""
    reader, writer = open_store([User]), open_store([User])
    writer.write(User, [{"id": 1, "txn_count_30d": 7}])
    assert reader.read(User, [1])[0]["txn_count_30d"] == 7


def test_staleness_is_each_features_own(open_store: Open) -> None:
    """A value older than its feature may be served is stale; its neighbour is a hit."""
    store = open_store([User])
    store.write(User, [{"id": 1, "email": "e", "risk": 0.5}], observed_at=NOW - timedelta(hours=2))
    row = store.read(User, [1])[0]
    assert (row.status("email"), row.status("risk")) == (Status.HIT, Status.STALE)
    assert row["risk"] is None
    assert row.observed_at("risk") == NOW - timedelta(hours=2)


def test_max_staleness_can_be_overridden_for_a_read(open_store: Open) -> None:
    """An override serves what the schema calls stale, refuses what it does not, or skips."""
    store = open_store([User])
    store.write(User, [{"id": 1, "email": "e", "risk": 0.5}], observed_at=NOW - timedelta(hours=2))
    longer = store.read(User, [1], max_staleness={"risk": "3h", "email": "1h 10m"})[0]
    assert (longer["risk"], longer.status("email")) == (0.5, Status.STALE)
    none = store.read(User, [1], ["risk", "email"], max_staleness={"risk": "0s", "email": 0})
    assert none.report.requests == 0
    assert none[0].status("risk") is Status.STALE


def test_observed_at_is_what_was_written(open_store: Open) -> None:
    """A value's observed-at comes back to the microsecond, in UTC."""
    store = open_store([User])
    times = [NOW - timedelta(seconds=i, microseconds=i) for i in range(3)]
    store.write(User, [{"id": i, "email": "e"} for i in range(3)], observed_at=times)
    rows = store.read(User, [0, 1, 2], ["email"])
    assert [row.observed_at("email") for row in rows] == times


@pytest.mark.parametrize("count", [1, 2, 100, 101, 450])
def test_any_number_of_keys_is_read(open_store: Open, count: int) -> None:
    """Reads of one key, one full batch, and more than fits a batch answer every key."""
    store = open_store([User])
    store.write(User, [{"id": i, "txn_count_30d": i} for i in range(count)], ordering="arrival")
    keys = list(reversed(range(count)))
    assert store.read(User, keys, ["txn_count_30d"]).column("txn_count_30d") == keys


def test_no_key_without_items(open_store: Open) -> None:
    """An empty read and an empty write are fine, and send nothing once the schema is known."""
    store = open_store([User])
    store.write(User, [{"id": 1, "email": "e", "risk": 0.1}])
    assert len(store.read(User, [])) == 0
    assert store.write(User, []).requests == 0


def test_a_hundred_large_items_lose_none(open_store: Open, url: str) -> None:
    """100 items of 200 KB pass BatchGetItem's 16 MB; what it leaves unprocessed is asked again."""
    store = open_store([Blob], timeout=60)
    rows = [{"id": str(i), "body": i.to_bytes(1, "big") * 200_000} for i in range(100)]
    store.write(Blob, rows, ordering="arrival")
    found = store.read(Blob, [row["id"] for row in rows])
    assert found.statuses("body") == [Status.HIT] * 100
    assert found.column("body") == [row["body"] for row in rows]
    if url.startswith("dynamodb"):
        assert found.report.unprocessed > 0


def test_a_read_without_time_fails_and_says_so(open_store: Open) -> None:
    """At the deadline a key is failed: neither missing nor an exception until its value is used."""
    store = open_store([User])
    store.write(User, [{"id": 1, "email": "e", "risk": 0.1}])
    rows = store.read(User, [1, 2], ["email"], timeout=0)
    assert rows.statuses("email") == [Status.FAILED] * 2
    assert rows[0].get("email", "default") == "default"
    assert rows.report.failed == 2
    with pytest.raises(ReadFailed, match="email"):
        rows[0]["email"]


def test_a_strong_read_is_asked_for(open_store: Open, url: str) -> None:
    """`consistent=True` reads strongly, at twice the units where the engine counts them."""
    store = open_store([User])
    store.write(User, [{"id": i, "txn_count_30d": i} for i in range(2)])
    eventual = store.read(User, [0, 1], ["txn_count_30d"])
    strong = store.read(User, [0, 1], ["txn_count_30d"], consistent=True)
    assert strong.column("txn_count_30d") == [0, 1]
    if "contract" in url and eventual.report.rcu == 1.0:
        assert strong.report.rcu == 2.0


def test_a_prepared_read_is_a_read(open_store: Open) -> None:
    """What is resolved once answers as a read does, before the first write and after it."""
    store = open_store([User])
    assert store.read_prepared(User, ["txn_count_30d"], [1]).statuses("txn_count_30d") == [
        Status.MISSING
    ]
    store.write(User, [{"id": 1, "txn_count_30d": 7, "email": None}])
    rows = store.read_prepared(User, ["txn_count_30d", "email"], [1, 2, 1])
    assert rows.column("txn_count_30d") == [7, None, 7]
    assert rows.statuses("email") == [Status.NULL, Status.MISSING, Status.NULL]


def test_groups_of_few_entities_read_alike_however_they_are_read(open_store: Open) -> None:
    """The first read goes item by item, later ones as costs less: their answers are the same."""
    store = open_store([User])
    store.write(User, [{"id": i, "txn_count_30d": i, "email": "x", "risk": 0.5} for i in (1, 2)])
    store.write(User, [{"id": 3, "risk": 0.25}])
    keys = [3, 1, 9, 2]
    reads = [store.read(User, keys) for _ in range(3)]
    for rows in reads:
        assert rows.column("txn_count_30d") == [None, 1, None, 2]
        assert rows.column("risk") == [0.25, 0.5, None, 0.5]
    assert reads[2].report.rcu <= reads[0].report.rcu


def test_a_warm_store_needs_no_registry(open_store: Open) -> None:
    """After warming, the first read sends its own request and nothing else."""
    open_store([User]).write(User, [{"id": 1, "txn_count_30d": 7}])
    store = open_store([User])
    assert store.warm(2) >= 1
    rows = store.read(User, [1], ["txn_count_30d"])
    assert (rows.column("txn_count_30d"), rows.report.requests) == ([7], 1)
