"""Columns as numpy and Arrow arrays: the values of the columns, gaps and types included."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from chalk_online_store import DamagedItem, InvalidValue, OnlineStore, Rows, Vector, features
from tests.fakes import SimulatedStore

vector: Any = Vector


@features
class Thing:
    id: int
    ratio: float
    count: int
    flag: bool
    name: str | None
    raw: bytes
    seen: datetime
    day: date
    at: time
    span: timedelta
    price: Decimal
    size: Literal["s", "m"]
    tags: list[str]
    small: vector[3]
    wide: vector[2, np.float64]


MOMENT = datetime(2026, 11, 24, 12, 0, 0, 123456, UTC)
VALUES: dict[str, list[Any]] = {
    "ratio": [0.1, float("nan"), -0.0],
    "count": [1, -(2**53) - 1, 2**62],
    "flag": [True, False, True],
    "name": ["a", None, "\u00e9"],
    "raw": [b"", b"\x00\xff", b"x"],
    "seen": [MOMENT, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    "day": [date(2026, 11, 24), date(1970, 1, 1), date(1, 1, 1)],
    "at": [time(1, 2, 3, 4), time(0), time(23, 59, 59, 999999)],
    "span": [timedelta(0, 1, 2), timedelta(-1), timedelta(0)],
    "price": [Decimal("1.1"), Decimal("2.0"), Decimal(-3)],
    "size": ["s", "m", "s"],
    "tags": [["a"], [], ["b", "c"]],
    "small": [np.array([i, 0.5, -1], "f2") for i in range(3)],
    "wide": [np.array([i, 1e300], "f8") for i in range(3)],
}
PRESENT = [0, 1, 2]
WITH_GAPS = [2, 9, 0, 2]
"""The last key again, one that is not there, and the first."""


@pytest.fixture(scope="module")
def store() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=[Thing]) as store:
        rows = [{"id": i} | {name: values[i] for name, values in VALUES.items()} for i in PRESENT]
        store.write(Thing, rows)
        yield store


def comparable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Decimal):  # In Arrow it is text, with every digit.
        return str(value)
    return repr(value) if isinstance(value, float) else value


@pytest.mark.parametrize("keys", [PRESENT, WITH_GAPS, [9], []], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_an_arrow_column_has_the_values_of_the_column(
    store: OnlineStore, name: str, keys: list[int]
) -> None:
    """Nulls are nulls, every value is the very one, in the order of the keys, duplicates too."""
    rows = store.read(Thing, keys, [name])
    found = rows.to_arrow().column(name).to_pylist()
    assert list(map(comparable, found)) == list(map(comparable, rows.column(name)))


def test_arrow_types(store: OnlineStore) -> None:
    """Types are those of the features, whatever values there are."""
    schema = store.read(Thing, [9]).to_arrow().schema
    assert schema.field("ratio").type == pa.float64()
    assert schema.field("seen").type == pa.timestamp("us", "UTC")
    assert schema.field("day").type == pa.date32()
    assert schema.field("small").type == pa.list_(pa.float16(), 3)
    assert schema.field("wide").type == pa.list_(pa.float64(), 2)


NUMPY = ["ratio", "count", "flag", "seen", "day", "span", "small", "wide"]


@pytest.mark.parametrize("name", VALUES)
def test_a_numpy_column_has_the_values_of_the_column(store: OnlineStore, name: str) -> None:
    """A column without gaps comes as one array, native where numpy has the type."""
    rows = store.read(Thing, PRESENT, [name])
    array = rows.to_numpy(name)
    assert array.dtype.hasobject is (name not in NUMPY)
    expected = [native(value, array.dtype) for value in rows.column(name)]
    assert list(map(comparable, array)) == list(map(comparable, expected))


def native(value: Any, dtype: Any) -> Any:
    """What an array of this type has for a value."""
    if isinstance(value, datetime):
        value = value.replace(tzinfo=None)
    return value if dtype.hasobject or isinstance(value, np.ndarray) else dtype.type(value)


@pytest.mark.parametrize("name", ["ratio", "seen", "day", "span", "small", "wide"])
def test_a_gap_is_not_a_number(store: OnlineStore, name: str) -> None:
    """Where there is no value, floats and vectors are NaN, moments NaT; the others are there."""
    array = store.read(Thing, WITH_GAPS, [name]).to_numpy(name)
    whole = store.read(Thing, PRESENT, [name]).to_numpy(name)
    assert np.all(np.isnan(array[1]) if array.dtype.kind == "f" else np.isnat(array[1]))
    for place, source in ((0, 2), (2, 0), (3, 2)):
        assert array[place].tobytes() == whole[source].tobytes()


def test_what_stands_in_a_gap_can_be_stated(store: OnlineStore) -> None:
    """An int or a bool has nothing to say "missing" with, and so it has to be stated."""
    rows = store.read(Thing, [0, 9])
    for name in ("count", "flag"):
        with pytest.raises(InvalidValue, match=rf"thing\.{name} has no value for 1 of the keys"):
            rows.to_numpy(name)
    assert rows.to_numpy("count", missing=-1).tolist() == [1, -1]
    assert rows.to_numpy("ratio", missing=0).tolist() == [0.1, 0.0]
    assert rows.to_numpy("small", missing=0).tolist() == [[0, 0.5, -1], [0, 0, 0]]
    assert rows.to_numpy("name", missing="?").tolist() == ["a", "?"]


def test_a_feature_that_was_never_written() -> None:
    """A feature without an id yet gives nulls, and nothing but what stands for gaps."""
    with OnlineStore.open("sqlite://", schema=[Thing]) as store:
        rows = store.read(Thing, [1, 2], ["ratio"])
        assert rows.to_arrow().column("ratio").to_pylist() == [None, None]
        assert rows.to_numpy("ratio", missing=7).tolist() == [7, 7]


def test_an_int_of_more_than_64_bits() -> None:
    """Arrow has it as a decimal; numpy refuses it by name."""
    with OnlineStore.open("sqlite://", schema=[Thing]) as store:
        store.write(Thing, [{"id": 1, "count": 10**37}, {"id": 2, "count": 1}])
        rows = store.read(Thing, [1, 2], ["count"])
        assert rows.to_arrow().column("count").to_pylist() == [10**37, 1]
        with pytest.raises(InvalidValue, match=r"thing\.count has an integer of more than 64"):
            rows.to_numpy("count")


def damaged(name: str, attribute: dict[str, Any]) -> Rows:
    store = SimulatedStore([Thing])
    store.write(Thing, [{"id": 1, name: VALUES[name][0]}])
    for key, item in store.table.items.items():
        if key[0].endswith(":1"):
            item |= {id_: attribute for id_ in item if id_ not in ("pk", "sk", "@", "%", "~")}
    return store.read(Thing, [1], [name])


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("small", {"B": "AAAA"}),
        ("seen", {"N": "1" + "0" * 30}),
        ("seen", {"S": "x"}),
        ("ratio", {"B": "AAAA"}),
        ("flag", {"N": "1"}),
    ],
)
def test_damage_is_damage_in_arrays_too(name: str, attribute: dict[str, Any]) -> None:
    """What is not stored as its type is raises as it does in columns."""
    rows = damaged(name, attribute)
    for read in (rows.column, rows.to_numpy, lambda _: rows.to_arrow()):
        with pytest.raises(DamagedItem, match=rf"thing\.{name}"):
            read(name)


def test_rows_as_dictionaries(store: OnlineStore) -> None:
    """`to_pylist` has a dictionary for each key, of just what `Row.to_dict` gives."""
    rows = store.read(Thing, WITH_GAPS)
    one_by_one = [row.to_dict() for row in rows]
    for found, expected in zip(rows.to_pylist(), one_by_one, strict=True):
        assert list(found) == list(expected)
        assert list(map(comparable, found.values())) == list(map(comparable, expected.values()))
