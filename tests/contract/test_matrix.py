"""Features of many entities as one matrix: the same numbers and statuses on every engine."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import numpy as np
import pytest

from chalk_online_store import InvalidValue, LRUCache, Vector, feature, features
from tests.contract.conftest import Open

NOW = datetime.now(UTC)


@features(max_staleness="30d")
class User:
    id: int
    score: float
    count: int | None
    is_new: bool
    seen: datetime
    born: date
    gap: timedelta
    risk: float = feature(max_staleness="1h", group="realtime")
    embedding: Annotated[np.ndarray, Vector[3, "f4"]]
    half: Annotated[np.ndarray, Vector[2]]
    country: str


NAMES = ["score", "count", "is_new", "seen", "born", "gap", "risk", "embedding", "half"]
SEEN = datetime(2026, 1, 2, 3, 4, 5, 250_000, UTC)
VALUES = {
    "score": 0.1,
    "count": 2**40,
    "is_new": True,
    "seen": SEEN,
    "born": date(2000, 2, 29),
    "gap": timedelta(seconds=-1.5),
    "risk": 0.5,
    "embedding": [1.0, 2.0, 3.0],
    "half": [0.5, -0.25],
    "country": "NL",
}
NUMBERS = [0.1, 2.0**40, 1.0, SEEN.timestamp(), 951_782_400.0, -1.5, 0.5, 1, 2, 3, 0.5, -0.25]


@pytest.mark.parametrize("cache", [None, LRUCache(100)], ids=["plain", "cached"])
def test_a_matrix_has_the_numbers_of_the_values(open_store: Open, cache: LRUCache | None) -> None:
    """Each feature has its columns, in the order asked; missing keys and features have NaN."""
    store = open_store([User], lru_cache=cache)
    store.write(User, [{"id": 1} | VALUES, {"id": 2, "count": None, "risk": 1.5}])
    for _ in range(2):  # The second read of a cached namespace is served from memory.
        matrix = store.matrix_prepared(User, NAMES, [1, 2, 3], dtype="f8")
        assert matrix.features == tuple(NAMES)
        assert matrix.columns["embedding"] == slice(7, 10)
        assert matrix.values.dtype == np.float64
        assert matrix.values[0].tolist() == NUMBERS
        nothing = [math.nan] * 12
        some = [*nothing[:6], 1.5, *nothing[7:]]
        np.testing.assert_array_equal(matrix.values[1:], [some, nothing])
        missing, null, hit = 2, 1, 0
        expected = [[hit] * 9, [missing, null, *[missing] * 4, hit, missing, missing]]
        assert matrix.statuses.tolist() == [*expected, [missing] * 9]
    single = store.read(User, [1]).matrix(NAMES).values
    assert single.dtype == np.float32
    assert single.tolist() == np.array([NUMBERS]).astype("f4").tolist()


def test_stale_values_are_not_in_a_matrix(open_store: Open) -> None:
    """A value that is older than it may be served has the status 3, and no number."""
    store = open_store([User])
    store.write(User, [{"id": 1} | VALUES], observed_at=NOW - timedelta(hours=2))
    matrix = store.matrix_prepared(User, ["risk", "score"], [1], missing=-1)
    assert (matrix.values.tolist(), matrix.statuses.tolist()) == (
        [[-1.0, np.float32(0.1)]],
        [[3, 0]],
    )


def test_a_matrix_has_a_row_for_each_key(open_store: Open) -> None:
    """A key that is asked for twice has two rows, and 250 keys are read by several requests."""
    store = open_store([User])
    store.write(User, [{"id": i, "count": i} for i in range(120)], ordering="arrival")
    matrix = store.matrix_prepared(User, ["count"], [5, 3, 5, 300])
    assert matrix.keys == [5, 3, 5, 300]
    assert matrix.values[:3, 0].tolist() == [5, 3, 5]
    many = store.matrix_prepared(User, ["count"], range(250), missing=-1.0)
    assert many.values[:, 0].tolist() == [*range(120), *[-1] * 130]
    assert store.matrix_prepared(User, ["count"], []).values.shape == (0, 1)


def test_what_no_matrix_holds_is_refused_before_reading(open_store: Open) -> None:
    """A text, another dtype or a placeholder that is no number is an error without a request."""
    store = open_store([User])
    with pytest.raises(InvalidValue, match=r"user\.country: expected a float, int"):
        store.matrix_prepared(User, ["score", "country"], [1])
    with pytest.raises(InvalidValue, match="dtype"):
        store.matrix_prepared(User, ["score"], [1], dtype="i8")
    with pytest.raises(InvalidValue, match="missing"):
        store.matrix_prepared(User, ["score"], [1], missing=None)
