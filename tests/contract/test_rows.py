"""Rows of a read: references, data frames, mappings, pickling."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from chalk_online_store import Vector, feature, features
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
