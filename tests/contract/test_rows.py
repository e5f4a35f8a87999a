"""Rows of a read: references, data frames, mappings, pickling."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import ReadFailed, Vector, feature, features
from tests.contract.conftest import Open

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@dataclass
class Address:
    """A struct."""

    street: str
    floors: list[int | None]


@features
class User:
    """Some features of every kind."""

    id: int
    email: str | None
    visits: int | None
    active: bool | None
    seen: datetime
    balance: Decimal
    address: Address
    tags: set[str]
    counts: dict[str, int]
    embedding: Vector[2]
    anything: Any
    risk: float = feature(max_staleness="1h", group="realtime")


ROWS: list[dict[str, Any]] = [
    {
        "id": 2**63,
        "email": "a@b.c",
        "visits": 2**53 + 1,
        "active": True,
        "seen": NOW,
        "balance": Decimal("1.10"),
        "address": Address("Main St", [2**62, None]),
        "tags": {"a", "b"},
        "counts": {"x": 1},
        "embedding": [1, 2],
        "anything": {"k": [1, None]},
        "risk": 0.5,
    },
    {"id": 1, "email": None, "visits": None},
]


def test_rows_survive_pickle(open_store: Open) -> None:
    """Rows with values of every kind have the same values, statuses and frames after pickling."""
    store = open_store([User])
    store.write(User, ROWS, observed_at=NOW)
    rows = store.read(User, [2**63, 1, 7], max_staleness={User.risk: timedelta.max})
    copy = pickle.loads(pickle.dumps(rows))
    assert repr(copy) == repr(rows)
    assert copy.to_arrow(with_key=True).equals(rows.to_arrow(with_key=True))
    assert copy[0]["address"] == ROWS[0]["address"]
    assert copy[0]["balance"].as_tuple() == Decimal("1.10").as_tuple()
    assert copy[0].observed_at(User.risk) == NOW
    assert pickle.loads(pickle.dumps(rows[1])).to_dict() == rows[1].to_dict()


def test_rows_become_frames(open_store: Open) -> None:
    """Frames of pandas and polars have the key, exact ints beside nulls, and the statuses."""
    store = open_store([User])
    store.write(User, ROWS, observed_at=NOW)
    rows = store.read(User, [2**63, 1], [User.visits, User.active, User.embedding, User.counts])
    frame = rows.to_pandas(statuses=True)
    assert [str(kind) for kind in frame.dtypes[["id", "visits", "active"]]] == [
        "UInt64",
        "Int64",
        "boolean",
    ]
    assert (frame["id"][0], frame["visits"][0]) == (2**63, 2**53 + 1)
    assert frame["visits"].isna().tolist() == [False, True]
    assert frame["embedding"][0].dtype == np.float16
    assert frame["counts"].tolist() == [{"x": 1}, None]
    assert frame["visits.status"].tolist() == ["hit", "null"]
    polars = rows.to_polars()
    assert polars["id"].to_list() == [2**63, 1]
    assert polars["visits"].to_list() == [2**53 + 1, None]
    assert rows.to_polars(with_key=False).columns == list(rows.features)


def test_keys_that_are_tuples_have_a_column_for_each_part(open_store: Open) -> None:
    """The parts of a key that is a tuple are columns of their own types."""

    @features
    class Visit:
        id: tuple[int, UUID, str]
        count: int

    store = open_store([Visit])
    key = (2**64, UUID(int=7), "a")
    store.write(Visit, [{"id": key, "count": 3}])
    rows = store.read(Visit, [key])
    assert rows.to_arrow(with_key=True).to_pylist() == [
        {"id.0": 2**64, "id.1": str(UUID(int=7)), "id.2": "a", "count": 3}
    ]
    assert rows.to_pylist(with_key=True) == [{"id": key, "count": 3}]


@features
class Account:
    """Features with defaults, in two groups, and one that nobody has written."""

    id: int
    email: str | None = feature(default="none@example.com")
    visits: int = feature(default=3)
    seen: datetime = feature(default=NOW)
    tags: list[str] = feature(default=["new"])
    home: Address = feature(default=Address("?", [1]), group="other")
    score: float = feature(default=1, max_staleness="1h", group="realtime")
    embedding: Vector[2] = feature(default=[1.0, 2.0], group="unwritten")
    plain: int | None = None


def test_one_entity(open_store: Open) -> None:
    """`get` gives the row of one entity, whether it exists or not."""
    store = open_store([Account])
    store.write(Account, [{"id": 1, "visits": 7}])
    row = store.get(Account, 1, [Account.visits, "email"])
    assert (row.key, dict(row), row.status("email")) == (1, {"visits": 7, "email": None}, "missing")
    assert store.get(Account, 2, consistent=True).status("visits") == "missing"
    assert store.get_prepared(Account, 1, features=["visits"])["visits"] == 7


def test_declared_defaults_are_served_on_request(open_store: Open) -> None:
    """With `defaults`, what is missing or stale has its default; a null stays null."""
    store = open_store([Account])
    store.write(Account, [{"id": 1, "email": None, "visits": 7}])
    store.write(Account, [{"id": 1, "score": 0.5}], observed_at=NOW)
    rows = store.read(Account, [1, 2, 1], defaults=True)
    first, second = rows[0], rows[1]
    assert (first["email"], first["visits"], first["score"]) == (None, 7, 1.0)
    assert [first.status(name) for name in ("email", "score", "tags")] == [
        "null",
        "stale",
        "missing",
    ]
    assert (second["email"], second["visits"], second["plain"]) == ("none@example.com", 3, None)
    assert (second.status("visits"), second.observed_at("visits")) == ("missing", None)
    assert (second["home"], second["seen"], second.get("tags")) == (Address("?", [1]), NOW, ["new"])
    assert second["tags"] is not rows[1]["tags"]
    assert rows.column("visits") == [7, 3, 7]
    assert rows.to_dict()["home"] == [Address("?", [1])] * 3
    assert rows.to_numpy("visits").tolist() == [7, 3, 7]
    assert rows.to_numpy("embedding").tolist() == [[1, 2]] * 3
    assert rows.to_numpy("seen").astype("i8").tolist() == [round(NOW.timestamp() * 1e6)] * 3
    assert rows.to_arrow()["embedding"].to_pylist() == [[1, 2]] * 3
    assert rows.to_arrow()["score"].to_pylist() == [1.0] * 3
    assert pickle.loads(pickle.dumps(rows))[1]["home"] == Address("?", [1])
    assert store.get(Account, 2)["visits"] is None
    assert store.get_prepared(Account, 2, defaults=True)["visits"] == 3
    assert store.get(Account, 2, max_staleness={"visits": "0s"}, defaults=True)["visits"] == 3


def test_a_read_can_raise_its_failures(open_store: Open) -> None:
    """With `raise_failed` a read that could not read a key in time raises, and others do not."""
    store = open_store([Account])
    store.write(Account, [{"id": 1, "visits": 7}])
    assert store.read(Account, [1, 2], raise_failed=True).column("visits") == [7, None]
    with pytest.raises(ReadFailed, match="position 0"):
        store.read(Account, [1, 2], timeout=0, raise_failed=True, defaults=True)
    with pytest.raises(ReadFailed, match="position 0"):
        store.get(Account, 1, timeout=0, raise_failed=True)
