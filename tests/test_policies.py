"""`cache_nulls` and `cache_defaults`: Chalk's table, on a store."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pytest

from chalk_online_store import Feature, InvalidSchema, InvalidValue, Namespace, OnlineStore, Status
from tests.strategies import Colour, exactly, vector


@pytest.fixture
def store() -> Iterator[Stores]:
    with Stores() as stores:
        yield stores


class Stores:
    """Stores on databases in memory, one per schema."""

    def __init__(self) -> None:
        self._opened: list[OnlineStore] = []

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._opened:
            opened.close()

    def after(self, schema: Namespace, *rows: dict[str, Any], **options: Any) -> Any:
        """What is served after these rows were written one after the other."""
        opened = OnlineStore.open("sqlite://", [schema])
        self._opened.append(opened)
        for row in rows:
            opened.write(schema, [{"id": 1, **row}], **options)
        return opened.read(schema, [1])[0]


def served(row: Any) -> dict[str, Any]:
    """Only what is there, nulls included."""
    return {n: row[n] for n in ("a", "b") if row.status(n) in (Status.HIT, Status.NULL)}


def ab(annotation: Any, **options: Any) -> Namespace:
    """A plain feature `a`, and `b` under the policy."""
    return Namespace("user", int, [Feature("a", int), Feature("b", annotation, **options)])


TABLE: list[tuple[Any, dict[str, Any]]] = [
    (True, {"a": 2, "b": None}),
    (False, {"a": 2, "b": 2}),
    ("evict_nulls", {"a": 2}),
]


@pytest.mark.parametrize(("cache_nulls", "expected"), TABLE)
def test_chalks_table_of_nulls(store: Stores, cache_nulls: Any, expected: dict[str, Any]) -> None:
    """A null that is written is stored, leaves what is there, or removes it."""
    schema = ab(int | None, cache_nulls=cache_nulls)
    row = store.after(schema, {"a": 1, "b": 2}, {"a": 2, "b": None})
    assert served(row) == expected
    missing = Status.NULL if cache_nulls is True else Status.MISSING
    assert store.after(schema, {"a": 2, "b": None}).status("b") is missing


DEFAULTS_TABLE = [
    (True, {"a": 2, "b": "default"}),
    (False, {"a": 2, "b": "value"}),
    ("evict_defaults", {"a": 2}),
]


@pytest.mark.parametrize(("cache_defaults", "expected"), DEFAULTS_TABLE)
def test_chalks_table_of_defaults(
    store: Stores, cache_defaults: Any, expected: dict[str, Any]
) -> None:
    """The default, when it is written, is stored, leaves what is there, or removes it."""
    schema = ab(str, default="default", cache_defaults=cache_defaults)
    row = store.after(schema, {"a": 1, "b": "value"}, {"a": 2, "b": "default"})
    assert served(row) == expected
    assert served(store.after(schema, {"a": 1, "b": "default"}, {"a": 2, "b": "value"})) == {
        "a": 2,
        "b": "value",
    }


@pytest.mark.parametrize("policy", [False, "evict_nulls"])
def test_a_bulk_load_replaces_whatever_the_policy(store: Stores, policy: Any) -> None:
    """In arrival order a row is all that its group holds: there is nothing to leave."""
    schema = ab(int | None, cache_nulls=policy)
    row = store.after(schema, {"a": 1, "b": 2}, {"a": 2, "b": None}, ordering="arrival")
    assert served(row) == {"a": 2}


def test_a_bulk_load_stores_nulls(store: Stores) -> None:
    """In arrival order too a null is stored where nothing else is asked for."""
    row = store.after(ab(int | None), {"a": 1, "b": 2}, {"a": 2, "b": None}, ordering="arrival")
    assert served(row) == {"a": 2, "b": None}


def test_a_row_that_leaves_all_alone_writes_nothing(store: Stores) -> None:
    """A row of nothing but what is to be left makes no item."""
    schema = ab(int | None, cache_nulls=False)
    row = store.after(schema, {"b": None})
    assert (row.status("a"), row.status("b")) == (Status.MISSING, Status.MISSING)
    assert served(store.after(schema, {"b": 3}, {"b": None})) == {"b": 3}


def test_an_eviction_is_a_write_in_time() -> None:
    """What a null evicted does not come back with an older value, and a newer one is served."""
    schema = ab(int | None, cache_nulls="evict_nulls")
    steps: list[tuple[int, dict[str, Any]]] = [
        (1, {"a": 1, "b": 1}),
        (3, {"a": 3, "b": None}),
        (2, {"a": 2, "b": 2}),
    ]
    with OnlineStore.open("sqlite://", [schema]) as opened:
        for hour, row in steps:
            moment = datetime(2026, 1, 1, hour, tzinfo=UTC)
            opened.write(schema, [{"id": 1, **row}], observed_at=moment)
        assert served(opened.read(schema, [1])[0]) == {"a": 3}
        opened.write(schema, [{"id": 1, "b": 4}], observed_at=datetime(2026, 1, 1, 4, tzinfo=UTC))
        assert served(opened.read(schema, [1])[0]) == {"a": 3, "b": 4}


def test_what_is_left_keeps_its_time() -> None:
    """A null that leaves a value does not make it look observed again."""
    schema = ab(int | None, cache_nulls=False)
    steps: list[tuple[int, dict[str, Any]]] = [(1, {"a": 1, "b": 1}), (3, {"a": 3, "b": None})]
    with OnlineStore.open("sqlite://", [schema]) as opened:
        for hour, row in steps:
            moment = datetime(2026, 1, 1, hour, tzinfo=UTC)
            opened.write(schema, [{"id": 1, **row}], observed_at=moment)
        row_read = opened.read(schema, [1])[0]
        assert row_read.observed_at("b") == datetime(2026, 1, 1, 1, tzinfo=UTC)
        opened.write(schema, [{"id": 1, "b": 2}], observed_at=datetime(2026, 1, 1, 2, tzinfo=UTC))
        assert opened.read(schema, [1])[0]["b"] == 2


@pytest.mark.parametrize("nulls", [True, False, "evict_nulls"])
@pytest.mark.parametrize("defaults", [True, False, "evict_defaults"])
def test_the_pairs_that_chalk_refuses(store: Stores, nulls: Any, defaults: Any) -> None:
    """A policy that evicts does not go with one that leaves; every other pair holds for each."""
    options: dict[str, Any] = {"cache_nulls": nulls, "cache_defaults": defaults, "default": 0}
    if (nulls, defaults) in {("evict_nulls", False), (False, "evict_defaults")}:
        with pytest.raises(InvalidSchema, match="does not go with"):
            ab(int | None, **options)
        return
    schema = ab(int | None, **options)
    first = {"a": 1, "b": 5}
    of_null: Any = {True: {"b": None}, False: {"b": 5}, "evict_nulls": {}}[nulls]
    of_default: Any = {True: {"b": 0}, False: {"b": 5}, "evict_defaults": {}}[defaults]
    assert served(store.after(schema, first, {"a": 2, "b": None})) == {"a": 2, **of_null}
    assert served(store.after(schema, first, {"a": 2, "b": 0})) == {"a": 2, **of_default}


@pytest.mark.parametrize(
    "options",
    [{"cache_nulls": "evict"}, {"cache_defaults": "evict_nulls"}, {"cache_nulls": None}],
)
def test_no_such_policy(options: dict[str, Any]) -> None:
    """What is no policy is refused when the schema is made."""
    with pytest.raises(InvalidSchema, match="cache_"):
        ab(int | None, **options)


@dataclasses.dataclass
class Spot:
    name: str
    at: vector[2]
    tags: set[str]


class Level(enum.IntEnum):
    LOW = 0


HALF = np.array([0.5, -0.0], "f2")
KINDS: list[tuple[Any, Any, list[Any], list[Any]]] = [
    (bool, False, [False, np.False_], [True]),
    (int, 0, [0, np.int64(0)], [1]),
    (int, 1, [1], [0, 10]),
    (float, 0.0, [0.0, 0, np.float32(0)], [-0.0, 5e-324]),
    (float, float("nan"), [float("nan"), np.float32("nan")], [0.0, float("inf")]),
    (Decimal, Decimal("1.0"), [Decimal("1.0")], [Decimal("1.00"), Decimal(1)]),
    (str, "", ["", np.str_("")], [" "]),
    (bytes, b"ab", [b"ab", bytearray(b"ab")], [b"a"]),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC), [datetime(2026, 1, 1, tzinfo=UTC)], []),
    (Colour, Colour.RED, [Colour.RED], [Colour.GREEN]),
    (Literal[0, 1], 0, [0], [1]),
    (vector[2], HALF, [HALF, [0.5, -0.0], HALF.astype("f8"), HALF.copy()], [[0.5, 0.0]]),
    (vector[2], [0, 0], [np.zeros(2, "f4"), [0.0, 0]], [[0, 1]]),
    (list[float], [], [[]], [[0.0]]),
    (list[vector[2]], [HALF], [[HALF.copy()], [[0.5, -0.0]]], [[], [HALF, HALF]]),
    (set[str], {"a", "b", "c"}, [{"c", "b", "a"}], [{"a"}, set()]),
    (set[float], {0.5, 1e300, 3.0}, [{3.0, 1e300, 0.5}], [{0.5}]),
    (dict[str, Any], {"a": 1, "b": [1]}, [{"b": [1], "a": 1}], [{"a": 1}, {"a": 1, "b": [True]}]),
    (Any, [1], [[1]], [[True], [1.0], 1]),
    (tuple[int, str], (1, "a"), [(1, "a")], [(1, "b")]),
    (
        Spot,
        Spot("", HALF, {"x", "y"}),
        [Spot("", [0.5, -0.0], {"y", "x"})],
        [Spot("", HALF, {"x"}), Spot("z", HALF, {"x", "y"})],
    ),
    (int | None, None, [None], [0]),
]


@pytest.mark.parametrize(
    ("annotation", "default", "same", "others"), KINDS, ids=[str(kind[0]) for kind in KINDS]
)
def test_what_is_the_default(
    store: Stores, annotation: Any, default: Any, same: list[Any], others: list[Any]
) -> None:
    """The default is whatever would be stored as it is, and nothing that merely equals it."""
    schema = ab(annotation, default=default, cache_defaults="evict_defaults")
    for value in same:
        assert store.after(schema, {"a": 1, "b": value}).status("b") is Status.MISSING
    plain = ab(annotation)
    for value in others:
        expected = store.after(plain, {"a": 1, "b": value})["b"]
        assert exactly(store.after(schema, {"a": 1, "b": value})["b"]) == exactly(expected)


def test_a_default_that_the_type_cannot_hold() -> None:
    """A default of another type is refused, at the latest when something is written."""
    with (
        pytest.raises((InvalidSchema, InvalidValue), match=r"\bb\b"),
        OnlineStore.open(
            "sqlite://", [schema := ab(int, default="0", cache_defaults=False)]
        ) as opened,
    ):
        opened.write(schema, [{"id": 1, "b": 0}])


def test_a_refused_value_is_refused_whatever_the_policy(store: Stores) -> None:
    """No policy lets pass what the type cannot hold: True for 1, or a null that is not allowed."""
    for nulls in (False, "evict_nulls"):
        with pytest.raises(InvalidValue, match="None"):
            store.after(ab(int, cache_nulls=nulls), {"b": None})
    schema = ab(int, default=1, cache_defaults=False)
    for value in (True, 1.0):
        with pytest.raises(InvalidValue, match=r"user\.b is int"):
            store.after(schema, {"b": value})
