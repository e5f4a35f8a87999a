"""Vector search: the same call, with the same results, on every engine."""

from __future__ import annotations

import pickle
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import (
    Feature,
    InvalidValue,
    LRUCache,
    Namespace,
    SearchTooLarge,
    Status,
    TypeConflict,
    UnknownFeature,
    Vector,
    VectorIndex,
    feature,
    features,
)
from tests.contract.conftest import Open

vector: Any = Vector
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@features(name="user")
class User:
    """A user with an embedding."""

    id: int
    country: str
    plan: str | None
    embedding: vector[3, np.float32] = feature(index=VectorIndex(filters=["country"]))
    other: float = feature(group="other")


def namespace(
    distance: Any = "cosine",
    key: Any = int,
    dtype: str = "f2",
    name: str = "point",
    **options: Any,
) -> Any:
    index = VectorIndex(distance=distance)
    return Namespace(name, key, [Feature("at", vector[2, dtype], index=index, **options)])


ROWS = [
    {"id": 1, "country": "ch", "plan": "free", "embedding": [1, 0, 0], "other": 0.5},
    {"id": 2, "country": "ch", "plan": None, "embedding": [0.9, 0.1, 0]},
    {"id": 3, "country": "de", "plan": "paid", "embedding": [0.8, 0.3, 0]},
    {"id": 4, "country": "ch", "plan": "paid", "embedding": [-1, 0, 0]},
    {"id": 5, "country": "ch", "plan": "free"},
]


def test_the_nearest_come_first_with_their_features(open_store: Open) -> None:
    """Rows are ordered by their scores, and have values and statuses as those of a read."""
    store = open_store([User])
    store.write(User, ROWS)
    found = store.search(User, "embedding", [1, 0, 0], k=3)
    assert [row.key for row in found] == [1, 2, 3]
    expected = [1 - np.dot(v, [1, 0, 0]) / np.linalg.norm(v) for v in EMBEDDINGS[:3]]
    assert found.scores == pytest.approx(expected, abs=1e-6)
    assert found["country"] == ["ch", "ch", "de"]
    assert [row.status("plan") for row in found] == [Status.HIT, Status.NULL, Status.HIT]
    assert found[0]["other"] == 0.5
    assert found[1].status("other") is Status.MISSING
    np.testing.assert_array_equal(found[2]["embedding"], np.array([0.8, 0.3, 0], "f4"))


EMBEDDINGS = [np.array(row["embedding"], "f4") for row in ROWS[:4]]


def test_filters_compare_for_equality(open_store: Open) -> None:
    """Only entities that have every value of `where` are found; features can be chosen."""
    store = open_store([User])
    store.write(User, ROWS)
    found = store.search(User, "embedding", [1, 0, 0], where={"country": "ch"}, features=["plan"])
    assert [row.key for row in found] == [1, 2, 4]
    assert found.features == ("plan",)
    assert list(store.search(User, "embedding", [1, 0, 0], where={"country": "x"})) == []


def test_a_matrix_is_several_searches(open_store: Open) -> None:
    """Each row of a matrix is a search; the rows of one are told by `of`."""
    store = open_store([User])
    store.write(User, ROWS)
    found = store.search(User, "embedding", np.array([[1, 0, 0], [-1, 0, 0]]), k=2)
    assert [row.key for row in found] == [1, 2, 4, 3]
    assert found.queries == [0, 0, 1, 1]
    assert [row.key for row in found.of(1)] == [4, 3]
    assert found.of(1)["country"] == ["ch", "de"]
    assert found.of(1).scores == found.scores[2:]


DISTANCES: dict[str, tuple[list[int], list[float]]] = {
    "cosine": ([1, 3, 2], [0.0, 1 - 2**-0.5, 1.0]),
    "euclidean": ([3, 1, 2], [1.0, 2.0, 5**0.5]),
    "dot_product": ([1, 3, 2], [3.0, 1.0, 0.0]),
}


def test_distances(open_store: Open) -> None:
    """Scores are DynamoDB's: distances, of which less is nearer, or products, of which more is."""
    spaces = {distance: namespace(distance, name=distance) for distance in DISTANCES}
    store = open_store([*spaces.values()])
    vectors = {1: [3, 0], 2: [0, 2], 3: [1, 1]}
    for distance, (keys, scores) in DISTANCES.items():
        points = spaces[distance]
        store.write(points, [{"id": key, "at": at} for key, at in vectors.items()])
        found = store.search(points, "at", [1, 0])
        assert [row.key for row in found] == keys
        assert found.scores == pytest.approx(scores, abs=1e-6)


def test_what_must_not_be_served_is_not_found(open_store: Open) -> None:
    """Stale vectors, deleted ones and those of deleted or overwritten entities are not found."""
    points = namespace(max_staleness="30d")
    store = open_store([points])
    now = datetime.now(UTC)
    old = now - timedelta(days=31)
    store.write(points, [{"id": 1, "at": [1, 0]}], observed_at=old)
    store.write(points, [{"id": key, "at": [1, key / 10]} for key in range(2, 7)], observed_at=now)
    store.delete(points, [2])
    store.delete(points, [3], ["at"])
    store.write(points, [{"id": 4, "at": [-1, 0]}], observed_at=now + timedelta(seconds=1))
    store.write(points, [{"id": 5, "at": [-1, 0]}], observed_at=old)
    found = store.search(points, "at", [1, 0], k=3)
    assert [row.key for row in found] == [5, 6, 4]
    assert list(store.search(points, "at", [1, 0], max_staleness={"at": "0s"})) == []


def test_partial_writes_are_found(open_store: Open) -> None:
    """A vector or a filter that is written apart from its group is searched all the same."""
    store = open_store([User])
    store.write(User, ROWS, observed_at=NOW)
    store.write(User, [{"id": 5, "embedding": [1, 0, 0]}], observed_at=NOW + timedelta(hours=1))
    store.write(User, [{"id": 1, "country": "de"}], observed_at=NOW + timedelta(hours=1))
    found = store.search(User, "embedding", [1, 0, 0], k=2, where={"country": "ch"})
    assert [row.key for row in found] == [5, 2]
    assert found[0].observed_at("embedding") == NOW + timedelta(hours=1)
    assert found[0].observed_at("country") == NOW


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "text": (str, ["a:b", "é"]),
    "uuid": (UUID, [UUID(int=7), UUID(int=8)]),
    "pair": (tuple[int, str], [(1, "a:b\\c"), (-2, "")]),
}


def test_keys_of_every_type_are_found(open_store: Open) -> None:
    """The primary key of what was found is the one that it was written with."""
    spaces = {name: namespace(key=key, name=name) for name, (key, _) in KEYS.items()}
    store = open_store([*spaces.values()])
    for name, (_, keys) in KEYS.items():
        store.write(spaces[name], [{"id": key, "at": [1, i]} for i, key in enumerate(keys)])
        assert [row.key for row in store.search(spaces[name], "at", [1, 0])] == keys


def test_vectors_come_back_as_they_were_written(open_store: Open) -> None:
    """A vector that is stored as a list of numbers is read bit for bit, but for negative zeros."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=(20, 64)) * 10.0 ** rng.integers(-6, 4, size=(20, 1))
    spaces = {
        dtype: Namespace(dtype, int, [Feature("at", vector[64, dtype], index=VectorIndex())])
        for dtype in ("f2", "f4", "f8")
    }
    store = open_store([*spaces.values()])
    for dtype, points in spaces.items():
        vectors = values.astype(dtype)
        vectors[0, :3] = [0, 1, -1]
        store.write(points, [{"id": key, "at": at} for key, at in enumerate(vectors)])
        found = store.read(points, range(20))["at"]
        expected = vectors + 0.0  # DynamoDB has no negative zero.
        assert [each.tobytes() for each in found] == [each.tobytes() for each in expected]
        assert store.search(points, "at", vectors[7], k=1)[0].key == 7


def test_namespaces_are_apart(open_store: Open) -> None:
    """A search finds entities of its namespace alone, and others may have any type of feature."""
    points = namespace()
    others = Namespace("other", int, [Feature("a", list[int]), Feature("b", vector[3])])
    store = open_store([points, others, User])
    store.write(others, [{"id": 1, "a": [1], "b": [1, 2, 3]}])
    store.write(points, [{"id": 1, "at": [1, 0]}])
    store.write(User, ROWS)
    assert [row.key for row in store.search(points, "at", [1, 0])] == [1]
    assert len(store.search(User, "embedding", [1, 0, 0])) == 4


def test_renamed_and_dropped_features(open_store: Open) -> None:
    """A renamed vector is searched under its new name; one that was dropped starts empty."""
    points = namespace()
    store = open_store([points])
    store.write(points, [{"id": 1, "at": [1, 0]}])
    store.rename(points, "at", "place")
    renamed = Namespace("point", int, [Feature("place", vector[2], index=VectorIndex())])
    again = open_store([renamed])
    assert [row.key for row in again.search(renamed, "place", [1, 0])] == [1]
    again.drop(renamed, ["place"])
    last = open_store([renamed])
    assert list(last.search(renamed, "place", [1, 0])) == []


def test_nothing_is_found_before_anything_is_written(open_store: Open) -> None:
    """A search in an empty table has no rows, and the features that were asked for."""
    found = open_store([User]).search(User, "embedding", [1, 0, 0], features=["plan"])
    assert (len(found), found.features, found.scores) == (0, ("plan",), [])


BAD: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("embedding", [1, 0]), {}, "must have 3 numbers"),
    (("embedding", [[1, 0, 0], [1, 0]]), {}, "must have 3 numbers"),
    (("embedding", "abc"), {}, "must have 3 numbers"),
    (("embedding", [1, 0, float("nan")]), {}, "NaN"),
    (("embedding", [1e39, 0, 0]), {}, "3.4E38"),
    (("embedding", [0, 0, 0]), {}, "zeros"),
    (("embedding", [1, 0, 0]), {"k": 0}, "k must be from 1 to 100"),
    (("embedding", [1, 0, 0]), {"k": 101}, "k must be from 1 to 100"),
    (("embedding", [1, 0, 0]), {"k": 1.5}, "k must be an int"),
    (("embedding", [1, 0, 0]), {"where": {"plan": "free"}}, "not a filter"),
    (("embedding", [1, 0, 0]), {"where": {"country": None}}, "finds nothing"),
    (("embedding", [1, 0, 0]), {"where": {"country": 7}}, "user.country"),
    (("embedding", [1, 0, 0]), {"where": ["country"]}, "where"),
    (("embedding", [1, 0, 0]), {"max_scanned": 0}, "max_scanned"),
    (("plan", [1, 0, 0]), {}, "no vector index"),
]


def test_bad_arguments_are_refused(open_store: Open) -> None:
    """What no search can be made of is refused, and the message says why."""
    store = open_store([User])
    for arguments, options, says in BAD:
        with pytest.raises(InvalidValue, match=re.escape(says)):
            store.search(User, *arguments, **options)
    with pytest.raises(UnknownFeature):
        store.search(User, "nothing", [1, 0, 0])


def test_results_are_rows(open_store: Open) -> None:
    """Results become arrays, tables and pickles, as the rows of a read do."""
    store = open_store([User])
    store.write(User, ROWS)
    found = store.search(User, "embedding", np.eye(3)[:2], k=2, features=["embedding", "country"])
    again = pickle.loads(pickle.dumps(found))
    assert (again.scores, again.queries, again.exact) == (found.scores, found.queries, found.exact)
    assert again["country"] == found["country"]
    assert again.of(1)[0].key == found.of(1)[0].key
    assert found.to_numpy("embedding").shape == (4, 3)
    assert found.to_arrow(with_key=True).column("id").to_pylist() == [row.key for row in found]
    assert pickle.loads(pickle.dumps(found[1])).to_dict().keys() == {"embedding", "country"}


def test_a_cache_does_not_hide_what_has_changed(open_store: Open) -> None:
    """A search through a cache finds what this store has written since, and not what it deleted."""
    store = open_store([User], lru_cache=LRUCache(100))
    store.write(User, ROWS)
    assert [row.key for row in store.search(User, "embedding", [1, 0, 0], k=2)] == [1, 2]
    store.write(User, [{"id": 2, "embedding": [0, 1, 0]}])
    store.delete(User, [1])
    found = store.search(User, "embedding", [1, 0, 0], k=2)
    assert [row.key for row in found] == [3, 2]
    np.testing.assert_array_equal(found[1]["embedding"], np.array([0, 1, 0], "f4"))


def test_a_stored_binary_vector_cannot_be_indexed(open_store: Open) -> None:
    """The type of a vector with an index is another one: a schema that adds it is refused."""
    binary = Namespace("point", int, [Feature("at", vector[2]), Feature("name", str)])
    first = open_store([binary, namespace(key=str, name="other")])
    first.write(binary, [{"id": 1, "at": [1, 0], "name": "a"}])
    index = VectorIndex()
    indexed = Namespace("point", int, [Feature("at", vector[2], index=index), Feature("name", str)])
    second = open_store([indexed])
    with pytest.raises(TypeConflict, match="at is vector"):
        second.search(indexed, "at", [1, 0])
    with pytest.raises(TypeConflict):
        second.write(indexed, [{"id": 1, "at": [1, 0]}])
    assert second.read(indexed, [1], ["name"])["name"] == ["a"]


def test_an_exact_search_is_bounded(open_store: Open, url: str) -> None:
    """Engines without an index refuse to read more items than `max_scanned`."""
    store = open_store([User])
    store.write(User, ROWS)
    found = store.search(User, "embedding", [1, 0, 0], max_scanned=5)
    assert len(found) == 4
    if not url.startswith("dynamodb:"):
        assert found.exact
        with pytest.raises(SearchTooLarge, match="max_scanned=4"):
            store.search(User, "embedding", [1, 0, 0], max_scanned=4)


def test_values_that_an_index_cannot_hold_are_refused(open_store: Open) -> None:
    """NaN and infinities cannot be written to an indexed vector, whatever its type holds."""
    store = open_store([User])
    for bad in ([float("nan"), 0, 0], [float("inf"), 0, 0]):
        with pytest.raises(InvalidValue, match="cannot be indexed"):
            store.write(User, [{"id": 1, "embedding": bad}])
