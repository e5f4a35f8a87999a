"""Arrow tables as namespaces and rows: every type, exactly."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chalk_online_store import InvalidSchema, InvalidValue, OnlineStore
from chalk_online_store.integrations.arrow import namespace_of, rows_of

NOON = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)

COLUMNS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "small": (pa.int8(), [-5, None]),
    "large": (pa.uint64(), [2**64 - 1, 0]),
    "half": (pa.float16(), [np.float16(0.5), np.float16(2)]),
    "single": (pa.float32(), [0.10000000149011612, None]),
    "double": (pa.float64(), [0.1, float("nan")]),
    "flag": (pa.bool_(), [True, None]),
    "text": (pa.string(), ["a", ""]),
    "long_text": (pa.large_string(), ["é", None]),
    "word": (pa.dictionary(pa.int8(), pa.string()), ["x", "x"]),
    "raw": (pa.binary(), [b"\x00", b""]),
    "fixed": (pa.binary(2), [b"ab", b"cd"]),
    "at": (pa.timestamp("us", "UTC"), [NOON, None]),
    "at_ns": (pa.timestamp("ns", "Europe/Berlin"), [NOON, NOON]),
    "on": (pa.date32(), [date(1969, 1, 2), None]),
    "when": (pa.time64("us"), [time(1, 2, 3, 4), None]),
    "took": (pa.duration("ms"), [timedelta(milliseconds=5), None]),
    "price": (pa.decimal128(10, 2), [Decimal("1.10"), None]),
    "tags": (pa.list_(pa.string()), [["a", "b"], []]),
    "vector": (pa.list_(pa.float32(), 3), [[1.0, 2.0, 3.0], None]),
    "counts": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], []]),
    "nested": (
        pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}),
        [{"a": 1, "b": ["c"]}] * 2,
    ),
}


def table() -> pa.Table:
    arrays: dict[str, pa.Array] = {"id": pa.array([1, 2])}
    for name, (kind, values) in COLUMNS.items():
        if pa.types.is_dictionary(kind):
            arrays[name] = pa.array(values).dictionary_encode()
        else:
            arrays[name] = pa.array(values, kind)
    return pa.table(arrays)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_every_type_is_written_and_read_exactly() -> None:
    """What the file says is what the store gives back, of every type of column."""
    found = table()
    namespace = namespace_of("user", found.schema, ["id"])
    rows = [row for batch in found.to_batches() for row in rows_of(batch, ["id"], "id")]
    with OnlineStore.open("sqlite://", [namespace]) as store:
        store.write(namespace, rows)
        read = store.read(namespace, [1, 2])
        for number, row in enumerate(rows):
            for name in COLUMNS:
                expected, value = plain(row[name]), plain(read[number][name])
                same = value == expected if isinstance(value, datetime) else False
                assert same or repr(value) == repr(expected), name
    assert rows[0]["vector"].dtype == np.dtype("f4")
    assert rows[1]["vector"] is None
    assert rows[0]["at"] == NOON


def test_a_key_of_several_columns_is_a_tuple() -> None:
    """They are no features then."""
    found = pa.table({"a": [1, 2], "b": ["x", "y"], "v": [0.5, 1.5]})
    namespace = namespace_of("pair", found.schema, ["b", "a"])
    assert namespace.primary_key == tuple[str, int]
    (batch,) = found.to_batches()
    assert rows_of(batch, ["b", "a"], "id") == [
        {"id": ("x", 1), "v": 0.5},
        {"id": ("y", 2), "v": 1.5},
    ]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (pa.timestamp("us"), "'c' is timestamp\\[us\\]: moments are"),
        (pa.null(), "'c' is null"),
        (pa.map_(pa.int64(), pa.int64()), "'c' is map"),
    ],
)
def test_a_column_without_a_type_is_named(kind: pa.DataType, message: str) -> None:
    """What cannot be a feature is refused by its column, before anything is read."""
    schema = pa.schema({"id": pa.int64(), "c": kind})
    with pytest.raises(InvalidSchema, match=message):
        namespace_of("user", schema, ["id"])


@pytest.mark.parametrize(
    ("key", "message"),
    [(["none"], "no column 'none'"), (["x"], "'x' is double"), ([], "no column")],
)
def test_a_key_that_cannot_be_one_is_refused(key: list[str], message: str) -> None:
    """It has to be there, and an int or a str."""
    schema = pa.schema({"id": pa.int64(), "x": pa.float64()})
    with pytest.raises(InvalidSchema, match=message):
        namespace_of("user", schema, key)


def test_parts_of_microseconds_are_refused() -> None:
    """A moment that would lose its nanoseconds is not rounded in silence."""
    batch = pa.record_batch({"id": [1], "at": pa.array([1], pa.timestamp("ns", "UTC"))})
    with pytest.raises(InvalidValue, match="'at'"):
        rows_of(batch, ["id"], "id")
