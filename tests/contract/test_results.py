"""Online query results on every engine."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidSchema,
    InvalidValue,
    ItemTooLarge,
    LRUCache,
    Namespace,
    OnlineStore,
    Status,
    UnknownFeature,
    Vector,
    features,
)
from chalk_online_store.codec.results import RESULTS
from chalk_online_store.operations.write import changes_of_rows
from tests.contract.conftest import Open

NOW = datetime.now(UTC)
INPUTS = {"user.id": 1, "merchant": "m1"}


@dataclasses.dataclass
class Address:
    street: str
    number: int


@features
class User:
    id: int
    risk: float
    price: Decimal
    born: date
    token: UUID
    tags: set[str]
    note: str | None
    address: Address
    embedding: Annotated[np.ndarray, Vector[4, "f4"]]


def test_a_result_is_found_by_its_inputs(open_store: Open) -> None:
    """Another process finds what was written, whatever the order of the inputs."""
    report = open_store([User]).write_result("score", INPUTS, {"score": 0.5, "why": ["a", "b"]})
    assert report.items_written == 1
    found = open_store([User]).read_result("score", dict(reversed(INPUTS.items())))
    assert found.status is Status.HIT
    assert found.features == {"score": 0.5, "why": ["a", "b"]}
    assert found["score"] == 0.5
    assert found.observed_at is not None
    assert abs(found.observed_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert found.report.requests >= 1


def test_what_was_never_asked_is_missing(open_store: Open) -> None:
    """Another query, version or input has no result."""
    store = open_store([User])
    store.write_result("score", INPUTS, {"score": 1}, version="1")
    for query, inputs, version in (
        ("other", INPUTS, "1"),
        ("score", INPUTS, "2"),
        ("score", {**INPUTS, "user.id": 2}, "1"),
    ):
        found = store.read_result(query, inputs, version=version)
        assert (found.status, found.features) == (Status.MISSING, None)
        with pytest.raises(UnknownFeature):
            found["score"]


def test_declared_features_come_back_exactly(open_store: Open) -> None:
    """Features of the schema are stored as their types say; others as a document."""
    vector = np.array([0.1, 1, 2, 3], "f4")
    values: dict[str, Any] = {
        "user.risk": -0.0,
        "user.price": Decimal("1.10"),
        "user.born": date(2000, 1, 2),
        "user.token": UUID(int=7),
        "user.tags": set(),
        "user.note": None,
        "user.address": Address("s", 3),
        "elsewhere.count": 3,
        "plain": {"a": [1.5, None]},
    }
    open_store([User]).write_result("all", {}, {**values, "user.embedding": vector})
    found = open_store([User]).read_result("all", {})
    assert found.features is not None
    embedding = found.features.pop("user.embedding")
    assert embedding.dtype == np.dtype("f4")
    assert embedding.tolist() == vector.tolist()
    assert found.features == values
    assert str(found["user.risk"]) == "-0.0"


def test_the_newest_result_wins(open_store: Open) -> None:
    """A result of an earlier moment that comes late changes nothing."""
    store = open_store([User])
    store.write_result("q", INPUTS, {"a": 2}, observed_at=NOW)
    report = store.write_result("q", INPUTS, {"a": 1}, observed_at=NOW - timedelta(seconds=1))
    assert report.superseded == 1
    assert store.read_result("q", INPUTS)["a"] == 2


def test_a_result_goes_stale(open_store: Open) -> None:
    """It is served neither beyond what was written with it nor beyond what a read allows."""
    store = open_store([User])
    ago = datetime.now(UTC) - timedelta(minutes=10)
    store.write_result("q", INPUTS, {"a": 1}, observed_at=ago, max_staleness="20m")
    assert store.read_result("q", INPUTS).status is Status.HIT
    assert store.read_result("q", INPUTS, max_staleness="5m").status is Status.STALE
    store.write_result("r", INPUTS, {"a": 1}, observed_at=ago, max_staleness="5m")
    found = store.read_result("r", INPUTS, max_staleness="20m")
    assert (found.status, found.features, found.observed_at) == (Status.STALE, None, ago)


def test_a_result_expires_when_it_can_no_longer_be_served(open_store: Open) -> None:
    """DynamoDB is told when to reap it; one without a limit stays."""
    store = open_store([User])
    store.write_result("q", INPUTS, {"a": 1}, observed_at=NOW, max_staleness="1h")
    store.write_result("r", INPUTS, {"a": 1}, observed_at=NOW)
    codec = store.core.registry.known(RESULTS)
    assert codec is not None
    rows = [
        store.core.results.row("q", INPUTS, {"a": 1}, "", limit) for limit in ("1h", "infinity")
    ]
    moment = int(NOW.timestamp()) * 1_000_000
    planned = changes_of_rows(codec, rows, [moment, moment])
    assert [change.expires_at for _, change in planned] == [int(NOW.timestamp()) + 3600, None]


def test_results_are_cached_as_features_are(open_store: Open) -> None:
    """With an LRU cache, a second read of a result sends nothing."""
    store = open_store([User], lru_cache=LRUCache(max_size=10))
    store.write_result("q", INPUTS, {"a": 1})
    store.read_result("q", INPUTS)
    again = store.read_result("q", INPUTS)
    assert (again["a"], again.report.requests) == (1, 0)


def test_what_cannot_be_kept_is_named(open_store: Open) -> None:
    """Values of the wrong type, and results that are too large, are refused before any request."""
    store = open_store([User])
    with pytest.raises(InvalidValue, match=r"user\.risk"):
        store.write_result("q", INPUTS, {"user.risk": "high"})
    with pytest.raises(InvalidValue):
        store.write_result("q", INPUTS, {"thing": object()})
    with pytest.raises(ItemTooLarge):
        store.write_result("q", INPUTS, {"text": "x" * 500_000})
    assert store.read_result("q", INPUTS).status is Status.MISSING


def test_a_schema_that_lost_a_feature_fails_the_result(open_store: Open) -> None:
    """What a result holds but nobody can read any more is failed, not left out."""
    open_store([User]).write_result("q", INPUTS, {"user.risk": 0.5, "a": 1})
    other = Namespace("order", int, [])
    assert open_store([other]).read_result("q", INPUTS).status is Status.FAILED


@pytest.mark.parametrize("kind", [OnlineStore, AsyncOnlineStore])
def test_the_namespace_of_results_is_nobody_elses(
    kind: type[OnlineStore | AsyncOnlineStore], tmp_path: Path
) -> None:
    """A schema cannot declare it, which is found before anything is opened."""
    with pytest.raises(InvalidSchema, match="__query__"):
        kind.open(f"sqlite:///{tmp_path}/features.db", [Namespace("__query__", int, [])])
    assert list(tmp_path.iterdir()) == []
