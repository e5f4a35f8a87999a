"""Exact search: the nearest vectors among all rows of a group, page by page.

Scores are those of DynamoDB: a cosine distance from 0 to 2 and a Euclidean distance, of which less
is nearer, or a dot product, of which more is nearer. The cosine distance of a vector of zeros is 1.
Among equal scores the order is that of the partition keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from chalk_online_store.codec.decoding import FIRST, LATEST_AT, TIMES, Row
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.errors import OnlineStoreError, SearchTooLarge
from chalk_online_store.schema.types import VectorType
from chalk_online_store.schema.vector_index import Distance


class Condition(NamedTuple):
    """A feature that has to be equal to a value: its id, and the value's attribute."""

    id: str
    attribute: bytes


@dataclass(frozen=True, eq=False)
class VectorQuery:
    """A search of one group for the entities whose vectors are nearest to some vectors.

    `shape` has the vector's column, then those of the conditions. `staleness` has the max
    staleness of each of them, in microseconds. `vectors` is a matrix of float64, a row for each
    search; `k` entities are wanted for each. `index` is the name of DynamoDB's index; `prefix`
    begins the partition keys of the namespace. An exact search reads at most `max_scanned` items.
    `projected` are attributes that an index is asked for; without them the items are read after it.
    """

    name: str
    index: str
    prefix: str
    sk: str
    shape: Shape
    staleness: tuple[int | None, ...]
    conditions: tuple[Condition, ...]
    distance: Distance
    vectors: Any
    k: int
    max_scanned: int
    projected: tuple[str, ...] = ()


class Nearest(NamedTuple):
    """What one search found, the nearest first: partition keys and their scores."""

    pks: list[str]
    scores: list[float]


class ExactSearch:
    """The nearest of all rows that were added.

    Safe for one thread at a time; `now` is in UTC microseconds.
    """

    def __init__(self, query: VectorQuery, now: int) -> None:
        vector = query.shape.columns[0].feature.type
        assert isinstance(vector, VectorType)
        self._query = query
        self._dtype = np.dtype(f"<{vector.dtype}")
        self._bytes = vector.size * self._dtype.itemsize
        self._oldest = [None if age is None else now - age for age in query.staleness]
        readings = query.shape.decoder.readings[1:]
        self._wanted = tuple(
            reading.read(condition.attribute)
            for reading, condition in zip(readings, query.conditions, strict=True)
        )
        self._measure = _MEASURES[query.distance]
        self._best = [Nearest([], []) for _ in query.vectors]
        self.scanned = 0
        """How many items were added."""

    def add(self, rows: Sequence[Row | OnlineStoreError | None]) -> None:
        """Add rows of the query's shape; rows that must not be found are left out."""
        self.scanned += len(rows)
        found = [row for row in rows if isinstance(row, tuple) and self._may_be_found(row)]
        if not found:
            return
        joined = b"".join([row[FIRST] for row in found])
        matrix = np.frombuffer(joined, self._dtype).reshape(len(found), -1).astype("f8")
        pks = [row[0] for row in found]
        for place, vector in enumerate(self._query.vectors):
            scores = self._measure(matrix, vector)
            self._best[place] = self._merged(self._best[place], pks, scores)

    def result(self) -> list[Nearest]:
        """The nearest of all rows, for each vector of the query."""
        return self._best

    def _may_be_found(self, row: Row) -> bool:
        """Return False for an absent, null, damaged or stale value, or another than wanted."""
        content = row[FIRST]
        if type(content) is not bytes or len(content) != self._bytes:
            return False
        if row[FIRST + 1 :] != self._wanted:
            return False
        for place, oldest in enumerate(self._oldest):
            if oldest is not None:
                time = row[TIMES][place] if row[TIMES] else row[LATEST_AT]
                if time is None or time < oldest:
                    return False
        return True

    def _merged(self, best: Nearest, pks: Sequence[str], scores: Any) -> Nearest:
        k, sign = self._query.k, -1 if self._query.distance == "dot_product" else 1
        if len(best.pks) == k:  # Most of the later ones are further away than all of these.
            places = np.flatnonzero(sign * scores <= sign * best.scores[-1])
            pks, scores = [pks[place] for place in places.tolist()], scores[places]
        pairs = [*zip(best.scores, best.pks, strict=True), *zip(scores.tolist(), pks, strict=True)]
        # A scan may return an item twice.
        ranked = sorted(dict.fromkeys(pairs), key=lambda pair: (sign * pair[0], pair[1]))
        return Nearest([pk for _, pk in ranked[:k]], [score for score, _ in ranked[:k]])


def search_too_large(query: VectorQuery, engine: str) -> SearchTooLarge:
    """Return the error for a group of more than `max_scanned` items."""
    return SearchTooLarge(
        f"Search of {query.name}: {engine} has no vector index, and an exact search would read "
        f"more than max_scanned={query.max_scanned} items. Raise max_scanned=, or use an engine "
        "with an index."
    )


def _cosine(matrix: Any, vector: Any) -> Any:
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(lengths > 0, 1.0 - (matrix @ vector) / lengths, 1.0)
    return np.clip(distances, 0.0, 2.0)  # Rounding can leave it just outside.


def _euclidean(matrix: Any, vector: Any) -> Any:
    return np.linalg.norm(matrix - vector, axis=1)


def _dot_product(matrix: Any, vector: Any) -> Any:
    return matrix @ vector


_MEASURES: dict[str, Callable[[Any, Any], Any]] = {
    "cosine": _cosine,
    "euclidean": _euclidean,
    "dot_product": _dot_product,
}
