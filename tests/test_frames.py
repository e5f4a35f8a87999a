"""Tables and data frames: written and read back the same, column by column."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    Feature,
    InvalidKey,
    InvalidValue,
    Namespace,
    OnlineStore,
    PersistenceWriter,
    ReadFailed,
    Report,
    RequestTimeout,
    UnknownFeature,
    Vector,
    WriteFailed,
    features,
)
from chalk_online_store.codec.columns import ColumnBatch, Stored
from chalk_online_store.integrations.arrow import namespace_of, rows_of
from chalk_online_store.integrations.frames import (
    batches_of,
    read_table,
    read_table_async,
    submit_table,
    submit_table_async,
    write_table,
    write_table_async,
)
from chalk_online_store.operations.arrow_types import holds_document
from tests import strategies
from tests.helpers import stress
from tests.strategies import exactly

vector: Any = Vector

NOON = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)


@features
class User:
    id: int
    score: float
    count: int | None
    name: str | None
    seen: datetime | None
    embedding: vector[2, np.float32]


ROWS: list[dict[str, Any]] = [
    {"id": 1, "score": -0.0, "count": 3, "name": "a", "seen": NOON},
    {"id": 2, "score": float("nan"), "count": None, "name": None, "seen": None},
    {"id": 3, "score": 0.5, "count": -1, "name": "é", "seen": NOON},
]
TABLE = pa.table(
    {
        "id": pa.array([row["id"] for row in ROWS], pa.int64()),
        "score": pa.array([row["score"] for row in ROWS], pa.float64()),
        "count": pa.array([row["count"] for row in ROWS], pa.int64()),
        "name": pa.array([row["name"] for row in ROWS], pa.string()),
        "seen": pa.array([row["seen"] for row in ROWS], pa.timestamp("us", "UTC")),
        "embedding": pa.array([[1, 2], [3, 4], [5, 0.1]], pa.list_(pa.float32(), 2)),
    }
)


@pytest.fixture
def store() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        yield store


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Names, types and values, NaN and the sign of zero included."""
    assert found.schema.names == expected.schema.names
    assert found.schema.types == expected.schema.types
    for name in expected.column_names:
        values = map(exactly, found.column(name).to_pylist())
        assert list(values) == list(map(exactly, expected.column(name).to_pylist())), name


# --- the same table ------------------------------------------------------------------------


def half(bits: int) -> Any:
    return np.uint16(bits).view(np.float16)


INTS = {f"{kind}{bits}": (kind, bits) for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
moments = st.integers(-(2**55), 2**55)
days = st.integers(-700_000, 2_900_000)
ELEMENTS: dict[pa.DataType, SearchStrategy[Any]] = {
    **{
        getattr(pa, name)(): st.integers(*(-(2 ** (b - 1)), 2 ** (b - 1) - 1))
        if kind == "int"
        else st.integers(0, 2**b - 1)
        for name, (kind, b) in INTS.items()
    },
    pa.float16(): st.integers(0, 2**16 - 1).map(half),
    pa.float32(): st.floats(width=32),
    pa.float64(): strategies.floats,
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.large_string(): st.text(),
    pa.binary(): st.binary(),
    pa.large_binary(): st.binary(),
    pa.binary(2): st.binary(min_size=2, max_size=2),
    pa.timestamp("us", "UTC"): moments,
    pa.timestamp("ms", "Europe/Berlin"): st.integers(-(2**40), 2**40),
    pa.timestamp("ns", "UTC"): st.integers(-(2**50), 2**50).map(lambda us: us * 1000),
    pa.date32(): st.dates(),
    pa.date64(): st.dates(),
    pa.time32("s"): st.integers(0, 86_399),
    pa.time64("us"): st.integers(0, 86_399_999_999),
    pa.duration("us"): st.integers(-(2**62), 2**62),
    pa.duration("s"): st.integers(-(2**40), 2**40),
    pa.decimal128(38, 5): st.integers(-(10**30), 10**30).map(lambda n: Decimal(n).scaleb(-5)),
    pa.list_(pa.string()): st.lists(st.none() | st.text(), max_size=3),
    pa.large_list(pa.int64()): st.lists(st.integers(-9, 9), max_size=3),
    pa.list_(pa.float16(), 3): strategies.vectors(3, "f2"),
    pa.list_(pa.float32(), 2): strategies.vectors(2, "f4"),
    pa.list_(pa.float64(), 1): strategies.vectors(1, "f8"),
    pa.map_(pa.string(), pa.int64()): st.dictionaries(
        st.text(min_size=1), st.integers(-9, 9), max_size=3
    ).map(lambda entries: list(entries.items())),
    pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}): st.fixed_dictionaries(
        {"a": st.integers(-9, 9), "b": st.lists(st.text(), max_size=2)}
    ),
}
"""Every Arrow type that is a feature's, and what pyarrow takes for its values."""


def test_every_integer_type_is_among_the_types() -> None:
    """The table of types is whole."""
    assert len(ELEMENTS) == 34


@pytest.mark.parametrize("kind", ELEMENTS, ids=str)
@settings(max_examples=stress(20))
@given(data=st.data())
def test_a_table_comes_back_the_same(kind: pa.DataType, data: st.DataObject) -> None:
    """Of every type: values and nulls, NaN and the sign of zero, to the bit, in the same type."""
    values = data.draw(st.lists(st.none() | ELEMENTS[kind], max_size=5))
    column = array_of(values, kind)
    table = pa.table({"id": pa.array(range(len(values)), pa.int64()), "value": column})
    namespace = namespace_of("made", table.schema, ["id"])
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        write_table(store, namespace, table, chunk=2)
        keys = table.column("id")
        assert_same(read_table(store, namespace, keys, types=table.schema, chunk=3), table)


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        dtype = kind.value_type.to_pandas_dtype()
        flat = [np.zeros(kind.list_size, dtype) if v is None else v for v in values]
        bits = np.concatenate(flat) if flat else np.zeros(0, dtype)
        mask = pa.array([v is None for v in values], pa.bool_())
        raw = pa.array(bits, kind.value_type)
        return pa.FixedSizeListArray.from_arrays(raw, kind.list_size, mask=mask)
    if pa.types.is_temporal(kind) and not pa.types.is_date(kind):
        number = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, number).cast(kind)
    return pa.array(values, kind)


exact_types = strategies.any_types().filter(
    lambda of: not holds_document(Feature("f", of.annotation).type)
)
fitting = st.integers(-(2**63), 2**63 - 1)


def has_signaling_nan(value: Any) -> bool:
    """Return True for a NaN without the quiet bit, which a conversion of float32 sets."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        bits = value.view(f"u{value.itemsize}")
        quiet = 1 << (np.finfo(value.dtype).nmant - 1)
        return bool(np.any(np.isnan(value) & ((bits & quiet) == 0)))
    if isinstance(value, dict):
        value = [*value.values()]
    return isinstance(value, list | tuple | set) and any(map(has_signaling_nan, value))


@given(st.data(), exact_types)
def test_values_of_every_type_go_through_a_table(data: st.DataObject, of: strategies.Typed) -> None:
    """What lies in one store is read as a table, written to another, and is the same there."""
    namespace = Namespace("made", int, [Feature("value", of.annotation)])
    values = data.draw(st.lists(of.values, max_size=3))
    assume(not any(map(has_signaling_nan, values)))
    rows = [{"id": i, "value": value} for i, value in enumerate(values)]
    with (
        OnlineStore.open("sqlite://", schema=[namespace]) as store,
        OnlineStore.open("sqlite://", schema=[namespace]) as other,
    ):
        store.write(namespace, rows)
        try:
            table = read_table(store, namespace, range(len(rows)))
        except InvalidValue:  # Integers of more than 64 bits within something: see below.
            reject()
        write_table(other, namespace, table)
        found = other.read(namespace, range(len(rows))).column("value")
        assert list(map(exactly, found)) == list(map(exactly, store_values(store, namespace, rows)))


def test_a_value_that_arrow_cannot_hold_is_refused_by_its_feature() -> None:
    """An integer of more than 64 bits within a list has no Arrow type."""
    namespace = Namespace("made", int, [Feature("value", list[int])])
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        store.write(namespace, [{"id": 1, "value": [2**63]}])
        with pytest.raises(InvalidValue, match=r"made.value has .* read it by column\(\)"):
            store.read(namespace, [1]).to_arrow()


def store_values(store: OnlineStore, namespace: Namespace, rows: list[dict[str, Any]]) -> list[Any]:
    return store.read(namespace, [row["id"] for row in rows]).column("value")


# --- data frames ---------------------------------------------------------------------------


def test_a_table_is_written_as_its_rows_are(store: OnlineStore) -> None:
    """Column by column it is what row by row it would be, in one report."""
    report = write_table(store, User, TABLE, chunk=2)
    assert report.items_written == 3
    rows = store.read(User, [1, 2, 3])
    assert list(map(exactly, rows.column("score"))) == [exactly(r["score"]) for r in ROWS]
    assert rows.column("seen") == [row["seen"] for row in ROWS]
    assert rows.statuses("name") == ["hit", "null", "hit"]
    assert rows[2]["embedding"].tolist() == [5, np.float32(0.1)]


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.to_batches()[0],
        pl.from_arrow(TABLE),
        TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    ],
    ids=["table", "batch", "polars", "pandas"],
)
def test_frames_of_every_library_are_tables(store: OnlineStore, frame: Any) -> None:
    """What speaks Arrow is written as the table that it is."""
    write_table(store, User, frame)
    assert_same(read_table(store, User, [1, 2, 3]), TABLE)


def test_rows_chosen_in_pandas_have_no_index_column(store: OnlineStore) -> None:
    """An unnamed index is no feature; one that is named as the key is the key."""
    frame = pd.DataFrame({"id": [1, 2, 3], "score": [0.1, 0.2, 0.3]})
    write_table(store, User, frame[frame["score"] > 0.15])
    write_table(store, User, frame.set_index("id").loc[[1]])
    assert store.read(User, [1, 2, 3], ["score"]).column("score") == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "keys",
    [[3, 1], pa.array([3, 1]), np.array([3, 1]), pd.Series([3, 1]), pl.Series([3, 1]), (3, 1)],
    ids=["list", "arrow", "numpy", "pandas", "polars", "tuple"],
)
def test_keys_come_as_columns_too(store: OnlineStore, keys: Any) -> None:
    """A column of any library gives the keys, in its order."""
    write_table(store, User, TABLE)
    found = read_table(store, User, keys, ["count"])
    assert found.to_pydict() == {"id": [3, 1], "count": [-1, 3]}


def test_a_frame_of_polars_and_pandas_is_one_step_away(store: OnlineStore) -> None:
    """What is read is a frame of theirs without a loop over rows."""
    write_table(store, User, TABLE)
    table = read_table(store, User, [1, 2, 3])
    frame: Any = pl.from_arrow(table)
    assert frame["count"].to_list() == [3, None, -1]
    assert table.to_pandas()["name"].tolist()[::2] == ["a", "é"]


# --- keys, times, types --------------------------------------------------------------------


def test_keys_of_several_columns() -> None:
    """They are named, for writing and for reading; there is no guess."""
    pair = Namespace("pair", tuple[str, int], [Feature("v", float)])
    table = pa.table({"a": ["x", "y"], "b": [1, 2], "v": [0.5, 1.5]})
    with OnlineStore.open("sqlite://", schema=[pair]) as store:
        write_table(store, pair, table, key=["a", "b"])
        assert_same(read_table(store, pair, [("x", 1), ("y", 2)], key=["a", "b"]), table)
        with pytest.raises(InvalidValue, match="has 2 parts"):
            write_table(store, pair, table)
        with pytest.raises(InvalidValue, match="has 2 parts"):
            read_table(store, pair, [("x", 1)], key="a")


KEYS_OF_TWO_PARTS: dict[str, Any] = {"a": ["x", "y"], "b": [1, 2]}


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (pd.DataFrame(KEYS_OF_TWO_PARTS | {"other": [1j, 2j]}), ["a", "b"]),
        (pd.DataFrame(KEYS_OF_TWO_PARTS | {"other": 0}).set_index(["a", "b"]), ["a", "b"]),
        (pd.MultiIndex.from_arrays([*KEYS_OF_TWO_PARTS.values()], names=["a", "b"]), None),
        (pl.DataFrame(KEYS_OF_TWO_PARTS), ["a", "b"]),
        (pl.LazyFrame(KEYS_OF_TWO_PARTS), ["a", "b"]),
        (pl.DataFrame(KEYS_OF_TWO_PARTS).to_struct("key"), ["a", "b"]),
        (pa.table(KEYS_OF_TWO_PARTS | {"other": ["", ""]}), ["a", "b"]),
        (pa.record_batch(KEYS_OF_TWO_PARTS), ["a", "b"]),
        (pa.array([{"a": "x", "b": 1}, {"a": "y", "b": 2}]), ["a", "b"]),
        ([("x", 1), ("y", 2)], ["a", "b"]),
    ],
    ids=[
        "pandas",
        "index",
        "MultiIndex",
        "polars",
        "lazy",
        "struct",
        "Arrow",
        "batch",
        "structs",
        "list",
    ],
)
def test_keys_of_a_read_come_by_column_name(keys: Any, key: list[str] | None) -> None:
    """A frame with the columns of a key gives the keys of a read, whatever else it has."""
    pair = Namespace("pair", tuple[str, int], [Feature("v", float)])
    table = pa.table(KEYS_OF_TWO_PARTS | {"v": [0.5, 1.5]})
    with OnlineStore.open("sqlite://", schema=[pair]) as store:
        write_table(store, pair, table, key=["a", "b"])
        assert_same(read_table(store, pair, keys, key=key), table)


def test_nan_within_a_document_of_pandas_is_nan() -> None:
    """NaN is a null as the value of a row; within lists of floats and of documents it is NaN."""
    namespace = Namespace("u", int, [Feature("v", dict[str, list[Any]])])
    frame = pd.DataFrame({"id": [1], "v": [{"a": [float("nan"), None, pd.NaT, pd.NA]}]})
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        write_table(store, namespace, frame)
        assert repr(store.read(namespace, [1])[0]["v"]) == "{'a': [nan, None, None, None]}"


def test_a_failed_value_is_null_if_that_is_asked_for(tmp_path: Path) -> None:
    """A value that an older schema cannot decode fails the table, or is null with `skip_failed`."""
    url = f"sqlite:///{tmp_path / 'features.db'}"
    newer = Namespace("user", int, [Feature("plan", Literal["free", "paid"])])
    older = Namespace("user", int, [Feature("plan", Literal["free"])])
    with OnlineStore.open(url, [newer]) as store:
        write_table(store, newer, pa.table({"id": [1, 2], "plan": ["free", "paid"]}))
    with OnlineStore.open(url, [older]) as store:
        with pytest.raises(ReadFailed):
            read_table(store, older, [1, 2])
        found = read_table(store, older, [1, 2], statuses=True, skip_failed=True)
        assert found["plan"].to_pylist() == ["free", None]
        assert found["plan.status"].to_pylist() == ["hit", "failed"]


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([1, 2**64 - 1], pa.uint64()),
        np.array([1, 2**64 - 1], "u8"),
        pd.Series([1, 2**64 - 1], dtype="u8"),
        pl.Series([1, 2**64 - 1], dtype=pl.UInt64),
        pd.DataFrame({"id": np.array([1, 2**64 - 1], "u8")}),
    ],
    ids=["Arrow", "numpy", "pandas", "polars", "frame"],
)
def test_keys_keep_their_integer_type(keys: Any) -> None:
    """Keys of 64 bits without a sign are written and read as they are."""
    wide = Namespace("wide", int, [Feature("v", int)])
    ids = pa.array([1, 2**64 - 1], pa.uint64())
    with OnlineStore.open("sqlite://", schema=[wide]) as store:
        write_table(store, wide, pa.table({"id": ids, "v": ids}))
        found = read_table(store, wide, keys, key=["id"], types=pa.schema({"v": pa.uint64()}))
        assert found.equals(pa.table({"id": ids, "v": ids}))


def test_keys_of_a_read_are_converted_as_those_of_a_write() -> None:
    """Whole floats are int keys, texts and bytes are UUID keys; a missing column is named."""
    users = Namespace("users", int, [Feature("v", int)])
    owners = Namespace("owners", UUID, [Feature("v", int)])
    uid = UUID(int=7)
    with OnlineStore.open("sqlite://", schema=[users, owners]) as store:
        store.write(users, [{"id": 1, "v": 5}])
        store.write(owners, [{"id": uid, "v": 6}])
        assert read_table(store, users, pd.Series([1.0]))["v"].to_pylist() == [5]
        for keys in (pa.array([str(uid)]), pa.array([uid.bytes], pa.binary(16)), [uid]):
            assert read_table(store, owners, keys)["v"].to_pylist() == [6]
        with pytest.raises(InvalidValue, match="keys has no column 'id'; it has uid"):
            read_table(store, users, pd.DataFrame({"uid": [1]}), key=["id"])
        for frame in (pd.DataFrame({"id": [1]}), pl.LazyFrame({"id": [1]}), pa.table({"id": [1]})):
            with pytest.raises(InvalidKey, match="Name the columns of the key"):
                read_table(store, users, frame)
        with pytest.raises(InvalidKey, match="the primary key is int, not float"):
            read_table(store, users, pd.Series([1.5]))


@pytest.mark.parametrize(
    ("annotation", "column", "expected"),
    [
        (vector[2], pa.array([[0.5, 1.0]], pa.list_(pa.float64())), np.array([0.5, 1], "f2")),
        (vector[2], pa.array([[0.5, 1.0]], pa.list_(pa.float64(), 2)), np.array([0.5, 1], "f2")),
        (str, pa.array(["x"], pa.string_view()), "x"),
        (bytes, pa.array([b"x"], pa.binary_view()), b"x"),
        (float, pa.array([3], pa.int8()), 3.0),
        (int, pa.array([Decimal(3)], pa.decimal128(5, 2)), 3),
        (Decimal, pa.array([Decimal("1.10")], pa.decimal128(5, 2)), Decimal("1.10")),
        (dict[str, int], pa.array([{"a": 1}]), {"a": 1}),
        (set[int], pa.array([[1, 2]], pa.large_list(pa.int8())), {1, 2}),
        (strategies.Colour, pa.array(["r"]).dictionary_encode(), strategies.Colour.RED),
        (UUID, pa.array([UUID(int=7).bytes], pa.uuid()), UUID(int=7)),
    ],
)
def test_columns_that_mean_the_same_are_taken(
    annotation: Any, column: pa.Array, expected: Any
) -> None:
    """A feature takes every Arrow type that says its values exactly; a vector is rounded."""
    namespace = Namespace("other", int, [Feature("value", annotation)])
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        write_table(store, namespace, pa.table({"id": [1], "value": column}))
        (found,) = store.read(namespace, [1]).column("value")
        assert exactly(found) == exactly(expected)


def test_a_value_that_is_none_of_the_types_is_refused_by_its_column() -> None:
    """What is no UUID, and what is no choice; the value itself is not told."""
    for annotation in (UUID, strategies.Colour):
        namespace = Namespace("other", int, [Feature("value", annotation)])
        with OnlineStore.open("sqlite://", schema=[namespace]) as store:
            table = pa.table({"id": [1], "value": ["secret"]})
            with pytest.raises(InvalidValue, match=r"Column 'value' .string. has") as caught:
                write_table(store, namespace, table)
            assert "secret" not in str(caught.value)


def test_uuid_keys_are_text_or_bytes() -> None:
    """Both forms of a UUID are the same key."""
    thing = Namespace("thing", UUID, [Feature("v", UUID)])
    ids = [UUID(int=1), UUID(int=2)]
    texts = pa.array([str(i) for i in ids])
    raw = pa.array([i.bytes for i in ids], pa.binary(16))
    with OnlineStore.open("sqlite://", schema=[thing]) as store:
        write_table(store, thing, pa.table({"id": texts, "v": raw}))
        assert store.read(thing, ids).column("v") == ids
        assert read_table(store, thing, ids).column("id").to_pylist() == texts.to_pylist()


def test_a_column_says_when_rows_were_observed(store: OnlineStore) -> None:
    """Each row has its own observed-at, so an older table does not undo a newer one."""
    later = TABLE.append_column("at", pa.array([NOON] * 3, pa.timestamp("us", "UTC")))
    write_table(store, User, later, observed_at="at")
    older = TABLE.set_column(1, "score", pa.array([9.0] * 3))
    write_table(store, User, older, observed_at=NOON - timedelta(days=1))
    assert store.read(User, [3])[0]["score"] == 0.5
    assert store.read(User, [3])[0].observed_at("score") == NOON
    found = read_table(store, User, [3, 9, 3], ["score"], statuses=True, observed_at=True)
    assert found.to_pydict() == {
        "id": [3, 9, 3],
        "score": [0.5, None, 0.5],
        "score.status": ["hit", "missing", "hit"],
        "score.observed_at": [NOON, None, NOON],
    }


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pa.array([NOON, None], pa.timestamp("us", "UTC")), "has a null"),
        (pa.array([-1, 0]).cast(pa.timestamp("us", "UTC")), "before 1970"),
        (pa.array([0, 0]).cast(pa.timestamp("us")), "time_zone="),
        (pa.array([0, 0]), "is int64: moments are"),
    ],
)
def test_times_that_are_none_are_refused(store: OnlineStore, times: pa.Array, message: str) -> None:
    """An observed-at is a moment of 1970 or later, in a time zone, in every row."""
    table = pa.table({"id": [1, 2], "score": [0.1, 0.2], "at": times})
    with pytest.raises(InvalidValue, match=message):
        write_table(store, User, table, observed_at="at")
    assert store.read(User, [1], ["score"]).statuses("score") == ["missing"]


def test_naive_timestamps_are_in_the_zone_that_is_stated(store: OnlineStore) -> None:
    """Without a zone they are refused, and not taken for UTC."""
    naive = pa.table({"id": [1], "seen": pa.array([datetime(2026, 7, 1, 12)])})  # noqa: DTZ001
    with pytest.raises(InvalidValue, match="time_zone="):
        write_table(store, User, naive)
    write_table(store, User, naive, time_zone="Europe/Berlin")
    assert store.read(User, [1])[0]["seen"] == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_columns_come_in_the_types_that_are_asked_for(store: OnlineStore) -> None:
    """Narrower and other types, where the values fit; otherwise the column is named."""
    write_table(store, User, TABLE)
    words = pa.dictionary(pa.int32(), pa.string())
    found = read_table(store, User, [1], types=pa.schema({"count": pa.int8(), "name": words}))
    assert found.schema.field("count").type == pa.int8()
    assert found.schema.field("name").type == words
    with pytest.raises(InvalidValue, match="'count' is int64, and not all of it uint8"):
        read_table(store, User, [3], types=pa.schema({"count": pa.uint8()}))


def test_types_do_not_depend_on_values() -> None:
    """Of a feature that nobody wrote, and of no keys, the columns have their types all the same."""
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        assert read_table(store, User, []).schema.types == TABLE.schema.types
        assert_same(
            read_table(store, User, [1]),
            pa.table([[1], *[[None]] * 5], schema=TABLE.schema),
        )


def test_large_integers_are_decimals_in_all_chunks(store: OnlineStore) -> None:
    """One of more than 64 bits makes a column of decimals, and is written back as it was."""
    store.write(User, [{"id": 1, "count": 5}, {"id": 2, "count": 10**37}])
    found = read_table(store, User, [1, 2], ["count"], chunk=1)
    assert found.column("count").to_pylist() == [5, 10**37]
    write_table(store, User, found.set_column(0, "id", pa.array([3, 4])))
    assert store.read(User, [3, 4]).column("count") == [5, 10**37]


# --- what goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"id": [1], "nope": [1]}, UnknownFeature, "no feature 'nope'"),
        ({"score": [0.1]}, InvalidValue, "no column 'id'"),
        ({"id": [1], "score": ["x"]}, InvalidValue, "user.score is float, not str"),
        ({"id": [1], "score": [None]}, InvalidValue, "user.score is float, not NoneType"),
        (
            {"id": [1], "seen": pa.array([1], pa.timestamp("ns", "UTC"))},
            InvalidValue,
            "'seen' .* is not whole microseconds",
        ),
        (
            {"id": [1], "seen": pa.array([2**61], pa.timestamp("us", "UTC"))},
            InvalidValue,
            "'seen' has a datetime that Python does not have",
        ),
        (
            {"id": [1], "embedding": pa.array([[1.0, None]], pa.list_(pa.float32(), 2))},
            InvalidValue,
            "'embedding' has a vector with a null",
        ),
        ({"id": [None], "score": [0.1]}, InvalidValue, "id"),
    ],
)
def test_a_column_that_does_not_fit_is_named(
    store: OnlineStore, columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Nothing of its chunk is written."""
    with pytest.raises((error, ValueError), match=message):
        write_table(store, User, pa.table(columns))
    assert store.read(User, [1], ["score"]).statuses("score") == ["missing"]


def test_what_is_no_table_is_refused(store: OnlineStore) -> None:
    """By its class, and nothing is guessed."""
    with pytest.raises(InvalidValue, match="int is no table"):
        write_table(store, User, 7)
    with pytest.raises(InvalidValue, match="chunk must be 1 or more"):
        write_table(store, User, TABLE, chunk=0)
    twice = pa.Table.from_arrays([pa.array([1])] * 2, names=["id", "id"])
    with pytest.raises(InvalidValue, match="two columns of one name"):
        write_table(store, User, twice)


def test_an_error_tells_where_it_is(store: OnlineStore) -> None:
    """The row within its chunk, the chunk within the table, and what is written by then."""
    scores = pa.array([0.1, 0.2, None], pa.float64())
    with pytest.raises(InvalidValue) as caught:
        write_table(store, User, pa.table({"id": [1, 2, 3], "score": scores}), chunk=2)
    notes = " ".join(caught.value.__notes__)
    assert "position 0" in notes
    assert "begins at row 2" in notes
    assert store.read(User, [1, 2, 3], ["score"]).column("score") == [0.1, 0.2, None]


def test_rows_that_are_not_written_are_counted_by_the_table(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where time runs out, the rows of the chunk and all after it are in `.failed`."""
    write = store.write
    late = RequestTimeout("late")

    def write_in_time(schema: Any, rows: Any, **options: Any) -> Report:
        if rows[0]["id"] != 2:
            return write(schema, rows, **options)
        raise WriteFailed("1 row", {0: late}, Report(throttles=2))

    monkeypatch.setattr(store, "write", write_in_time)
    with pytest.raises(WriteFailed, match=r"1 rows of the table .* 1 after them") as caught:
        write_table(store, User, TABLE, chunk=1)
    assert caught.value.failed == {1: late, 2: late}
    report = caught.value.report
    assert report.throttles == 2
    assert report.items_written > 0
    assert read_table(store, User, [1, 2, 3], ["count"]).column("count").to_pylist()[0] == 3


# --- the other doors -----------------------------------------------------------------------


def test_an_async_store_writes_and_reads_tables() -> None:
    """The same functions for asyncio."""

    async def use() -> pa.Table:
        async with AsyncOnlineStore.open("sqlite://", schema=[User]) as store:
            await write_table_async(store, User, TABLE, chunk=2)
            return await read_table_async(store, User, [1, 2, 3], chunk=2)

    assert_same(asyncio.run(use()), TABLE)


def test_a_persistence_writer_takes_tables(store: OnlineStore) -> None:
    """A ticket a chunk, each with its rows' observed-at."""
    table = TABLE.append_column("at", pa.array([NOON] * 3, pa.timestamp("us", "UTC")))
    with PersistenceWriter(store) as writer:
        tickets = submit_table(writer, User, table, observed_at="at", chunk=2)
        for ticket in tickets:
            ticket.wait(timeout=60)
    assert [ticket.rows for ticket in tickets] == [2, 1]
    assert_same(read_table(store, User, [1, 2, 3]), TABLE)
    assert store.read(User, [1])[0].observed_at("name") == NOON


def test_an_async_persistence_writer_takes_tables() -> None:
    """The same for asyncio."""

    async def use() -> pa.Table:
        async with AsyncOnlineStore.open("sqlite://", schema=[User]) as store:
            async with AsyncPersistenceWriter(store) as writer:
                for ticket in await submit_table_async(writer, User, TABLE):
                    await ticket.wait(timeout=60)
            return await read_table_async(store, User, [1, 2, 3])

    assert_same(asyncio.run(use()), TABLE)


def test_columns_write_what_rows_would(store: OnlineStore) -> None:
    """A batch of columns is a sequence of rows: both say the same to the table."""
    batch = ColumnBatch(
        {"id": [1, 2], "seen": Stored([0, None], lambda us: NOON), "name": ["a", "b"]}
    )
    assert list(batch) == [
        {"id": 1, "seen": NOON, "name": "a"},
        {"id": 2, "seen": None, "name": "b"},
    ]
    assert len(batch) == 2
    (table_batch,) = TABLE.to_batches()
    assert [r["name"] for r in rows_of(table_batch, ["id"], "id")] == ["a", None, "é"]


def test_batches_are_rows_for_any_write(store: OnlineStore) -> None:
    """They are written as they are, and are rows for whoever looks at them."""
    batches = list(batches_of(User, TABLE, chunk=2))
    assert [[row["id"] for row in batch] for batch in batches] == [[1, 2], [3]]
    for batch in batches:
        store.write(User, batch, ordering="arrival")
    assert_same(read_table(store, User, [1, 2, 3]), TABLE)


def test_policies_hold_for_columns() -> None:
    """A null of a feature that evicts nulls is no value, in a table as in a row."""
    kept = Feature("kept", int | None, cache_nulls="evict_nulls")
    plain = Feature("on", date)
    namespace = Namespace("policy", int, [kept, plain])
    first = {"id": [1, 2], "kept": pa.array([1, 2]), "on": pa.array([date(2026, 1, 2)] * 2)}
    second = {"id": [1, 2], "kept": pa.array([None, 3]), "on": first["on"]}
    with OnlineStore.open("sqlite://", schema=[namespace]) as store:
        write_table(store, namespace, pa.table(first))
        write_table(store, namespace, pa.table(second))
        rows = store.read(namespace, [1, 2])
        assert rows.statuses("kept") == ["missing", "hit"]
        assert rows.column("on") == [date(2026, 1, 2)] * 2


# --- data frames of pandas and polars, column by column --------------------------------------


@dataclass
class Place:
    street: str
    number: int | None = None


@features
class Wide:
    id: int
    whole: int | None
    number: float | None
    text: str | None
    flag: bool | None
    seen: datetime | None
    times: list[datetime] | None
    whole_list: list[int] | None
    words: list[str | None] | None
    counts: dict[str, int] | None
    place: Place | None
    owner: UUID | None
    colour: strategies.Colour | None
    price: Decimal | None
    embedding: vector[2] | None
    doc: Any


@pytest.fixture
def wide() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=[Wide]) as store:
        yield store


SUMMER = datetime(2026, 7, 1, 10, tzinfo=UTC)
NAIVE = SUMMER.replace(hour=12, tzinfo=None)
BERLIN = "Europe/Berlin"


def pandas_of(name: str, values: Any, dtype: Any = None) -> Any:
    return pd.DataFrame({"id": range(len(values)), name: pd.Series(values, dtype=dtype)})


@pytest.mark.parametrize(
    ("name", "values", "dtype", "expected"),
    [
        ("whole", [7.0, None], "float64", [7, None]),
        ("whole", [7, pd.NA], "Int64", [7, None]),
        ("whole", [7.0, pd.NA], "Float64", [7, None]),
        ("whole", [np.int8(7), np.uint64(2**64 - 1), None], object, [7, 2**64 - 1, None]),
        ("whole", [7, None], "category", [7, None]),
        ("whole", [7, None], pd.ArrowDtype(pa.uint64()), [7, None]),
        ("whole_list", [np.array([1.0, 2.0]), None], object, [[1, 2], None]),
        ("number", [0.5, float("nan")], object, [0.5, None]),
        ("text", ["x", pd.NA], "string", ["x", None]),
        ("text", ["x", None], "category", ["x", None]),
        ("flag", [np.True_, None], object, [True, None]),
        ("flag", [True, pd.NA], "boolean", [True, None]),
        ("seen", [pd.Timestamp(SUMMER), pd.NaT], object, [SUMMER, None]),
        ("seen", [pd.Timestamp(NAIVE), pd.NaT], None, [SUMMER, None]),
        ("times", [[pd.Timestamp(NAIVE)], None], object, [[SUMMER], None]),
        ("times", [np.array([NAIVE], "M8[ns]"), None], object, [[SUMMER], None]),
        ("words", [["a", None], []], object, [["a", None], []]),
        ("counts", [{"a": 1}, {"b": np.int64(2)}, {}], object, [{"a": 1}, {"b": 2}, {}]),
        ("place", [{"street": "x"}, Place("y", 2)], object, [Place("x"), Place("y", 2)]),
        ("owner", [UUID(int=1), str(UUID(int=2))], object, [UUID(int=1), UUID(int=2)]),
        ("colour", ["r", strategies.Colour.RED], object, [strategies.Colour.RED] * 2),
        ("price", [Decimal("1.10"), None], object, [Decimal("1.10"), None]),
        ("doc", [{"a": 1}, {"a": 1.5, "b": []}], object, [{"a": 1}, {"a": 1.5, "b": []}]),
        ("doc", [{"a": np.array([1, 2])}, np.float32(0.5)], object, [{"a": [1, 2]}, 0.5]),
    ],
)
def test_columns_of_pandas_are_values(
    wide: OnlineStore, name: str, values: list[Any], dtype: Any, expected: list[Any]
) -> None:
    """Of every dtype, what is missing is a null, and each row keeps its own keys and types."""
    write_table(wide, Wide, pandas_of(name, values, dtype), time_zone=BERLIN)
    found = wide.read(Wide, range(len(values)), [name]).column(name)
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("name", "values", "dtype"),
    [
        ("whole", [7.5], "float64"),
        ("whole", [float("inf")], "float64"),
        ("whole", ["7"], object),
        ("whole", pd.period_range("2026-01", periods=1, freq="M"), None),
        ("doc", pd.interval_range(0, 1), None),
        ("doc", [1j], None),
        ("place", [{"street": "x", "other": 1}], object),
        ("place", [{"number": 1}], object),
        ("colour", ["secret"], object),
        ("seen", [pd.Timestamp(NAIVE)], None),
        ("times", [[pd.Timestamp(NAIVE)]], object),
    ],
)
def test_columns_of_pandas_that_are_no_values_are_named(
    wide: OnlineStore, name: str, values: Any, dtype: Any
) -> None:
    """What a feature cannot hold exactly is refused, with the name and without the value."""
    with pytest.raises(InvalidValue, match=name) as caught:
        write_table(wide, Wide, pandas_of(name, values, dtype))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("zone", ["+02:00", BERLIN])
def test_a_time_zone_is_a_name_or_an_offset(wide: OnlineStore, zone: str) -> None:
    """Both hold for columns of Arrow and for objects; an unknown one is refused in any case."""
    for values in (pd.Series([NAIVE]), pd.Series([pd.Timestamp(NAIVE)], dtype=object)):
        write_table(wide, Wide, pd.DataFrame({"id": [1], "seen": values}), time_zone=zone)
        assert wide.read(Wide, [1])[0]["seen"] == SUMMER
    with pytest.raises(InvalidValue, match="No time zone"):
        write_table(wide, Wide, pd.DataFrame({"id": [1]}), time_zone="Nowhere/City")


def test_an_index_of_several_levels_is_the_key() -> None:
    """The names of its levels need not be stated, and it gives the keys of a read."""
    pair = Namespace("pair", tuple[str, int], [Feature("v", float)])
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["tenant", "user"])
    with OnlineStore.open("sqlite://", schema=[pair]) as store:
        write_table(store, pair, pd.DataFrame({"v": [0.5, 1.5]}, index=index))
        found = read_table(store, pair, index, key=["tenant", "user"])
        assert found.to_pydict() == {"tenant": ["a", "b"], "user": [1, 2], "v": [0.5, 1.5]}
    wrong = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("id", "x"), ("v", "y")]))
    with pytest.raises(InvalidValue, match="several levels"):
        write_table(store, pair, wrong, key=["a", "b"])


@pytest.mark.parametrize(
    ("name", "series", "expected"),
    [
        ("text", pl.Series(["x", None], dtype=pl.Categorical), ["x", None]),
        ("text", pl.Series(["x", None], dtype=pl.Enum(["x"])), ["x", None]),
        ("words", pl.Series([["x", None]], dtype=pl.List(pl.Categorical)), [["x", None]]),
        ("colour", pl.Series(["r"], dtype=pl.Categorical), [strategies.Colour.RED]),
        ("whole", pl.Series([2**100, None], dtype=pl.Int128), [2**100, None]),
        ("price", pl.Series([Decimal("1.10")], dtype=pl.Decimal(10, 2)), [Decimal("1.10")]),
        ("times", pl.Series([[NAIVE]]), [[SUMMER]]),
        ("place", pl.Series([{"street": "x", "number": None}]), [Place("x")]),
    ],
)
def test_columns_of_polars_are_values(
    wide: OnlineStore, name: str, series: pl.Series, expected: list[Any]
) -> None:
    """Of every dtype that has values, of data frames and of lazy frames."""
    frame = pl.DataFrame({"id": range(len(series)), name: series})
    for each in (frame, frame.lazy()):
        write_table(wide, Wide, each, time_zone=BERLIN)
        assert wide.read(Wide, range(len(series)), [name]).column(name) == expected


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [
        ("doc", pl.Object, b"hello"),
        ("whole_list", pl.List(pl.Int128), [1]),
        ("doc", pl.Struct({"a": pl.Int128}), {"a": 1}),
    ],
)
def test_columns_of_polars_that_arrow_cannot_hold_are_named(
    wide: OnlineStore, name: str, dtype: Any, value: Any
) -> None:
    """Memory addresses are never values."""
    frame = pl.DataFrame({"id": [1], name: pl.Series([value], dtype=dtype)})
    with pytest.raises(InvalidValue, match=f"'{name}'"):
        write_table(wide, Wide, frame)


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("text", pa.RunEndEncodedArray.from_arrays([2], pa.array(["a"], pa.string_view())), "a"),
        ("whole", pa.RunEndEncodedArray.from_arrays([2], pa.array([2**64 - 1], pa.uint64())), None),
        ("whole_list", pa.array([[1]] * 2, pa.list_view(pa.int64())), [1]),
        ("times", pa.array([[NAIVE]] * 2, pa.large_list_view(pa.timestamp("us"))), [SUMMER]),
        ("times", pa.array([[NAIVE]] * 2, pa.list_(pa.timestamp("ns"), 1)), [SUMMER]),
        ("flag", pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 1], pa.int8())), True),
        ("whole", pa.nulls(2), None),
    ],
)
def test_layouts_of_arrow_do_not_change_values(
    wide: OnlineStore, name: str, column: pa.Array, expected: Any
) -> None:
    """Views, runs, nested timestamps and extension types are what they encode."""
    write_table(wide, Wide, pa.table({"id": [1, 2], name: column}), time_zone=BERLIN)
    (found,) = wide.read(Wide, [1], [name]).column(name)
    assert found == (2**64 - 1 if name == "whole" and column.null_count == 0 else expected)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("text", pa.ExtensionArray.from_storage(
            pa.opaque(pa.string(), "x", "y"), pa.array(["x"])), "no feature has"),
        ("place", pa.array([{"street": "x", "other": 1}]), "no struct"),
        ("doc", pa.StructArray.from_arrays([pa.array([1])] * 2, ["a", "a"]), "two fields"),
        ("doc", pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "doc"),
        ("seen", pa.array([datetime(2026, 3, 29, 2, 30)]), r"not in the time zone .*row 0"),  # noqa: DTZ001
        ("times", pa.array([[datetime(2026, 3, 29, 2, 30)]]), r"not in the time zone .*row 0"),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_arrow_columns_without_exact_values_are_named(
    wide: OnlineStore, name: str, column: pa.Array, message: str
) -> None:
    """What cannot be represented is refused by its column."""
    with pytest.raises(InvalidValue, match=message) as caught:
        write_table(wide, Wide, pa.table({"id": [1], name: column}), time_zone=BERLIN)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("whole_list", np.array([1, 2], "i2"), [1, 2]),
        ("words", np.array(["a", None], object), ["a", None]),
        ("whole", np.uint64(2**64 - 1), 2**64 - 1),
        ("number", np.float16(0.5), 0.5),
        ("flag", np.True_, True),
    ],
)
def test_rows_may_hold_numpy(wide: OnlineStore, name: str, value: Any, expected: Any) -> None:
    """Scalars and arrays of numpy are the numbers, texts and lists that they hold."""
    wide.write(Wide, [{"id": 1, name: value}])
    found = wide.read(Wide, [1])[0][name]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("times", np.array(["2026-01-01"], "M8[ns]")),
        ("doc", np.array(["2026-01-01"], "M8[ns]")),
        ("doc", {"a": np.int8(3)}),
        ("whole_list", np.array(5)),
    ],
)
def test_numpy_that_is_not_exact_is_refused(wide: OnlineStore, name: str, value: Any) -> None:
    """Times of numpy have no zone, and a document would not keep the type."""
    with pytest.raises(InvalidValue, match=name):
        wide.write(Wide, [{"id": 1, name: value}])
