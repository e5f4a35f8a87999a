"""Times that are finer than microseconds: refused at any depth, and taken when they are whole."""

from __future__ import annotations

import array
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from chalk_online_store import (
    Document,
    InvalidKey,
    InvalidSchema,
    InvalidValue,
    LRUCache,
    OnlineStore,
    OnlineStoreError,
    PersistenceWriter,
    Vector,
    explain,
    features,
)
from chalk_online_store.integrations.arrow import rows_of
from chalk_online_store.integrations.frames import read_table, submit_table, write_table
from tests.fakes import SimulatedStore

WHOLE = pd.Timestamp("2026-01-02 03:04:05.000006", tz="UTC")
FINE = WHOLE + pd.Timedelta(789, "ns")
SPAN = pd.Timedelta(1500, "us")
FINE_SPAN = pd.Timedelta(1500, "ns")


class DatetimeWithNanoseconds(datetime):
    """Like Google's, which compares equal to the datetime without its nanoseconds."""

    nanosecond = 6_789

    def astimezone(self, tz: Any = None) -> Any:
        raise NotImplementedError


class FineTime(time):
    nanosecond = 5


class Pair(TypedDict):
    at: datetime
    took: timedelta


class Place(NamedTuple):
    at: datetime


@features
class Event:
    id: int
    at: datetime | None
    clock: time | None
    took: timedelta | None
    times: list[datetime] | None
    spans: list[timedelta] | None
    by: dict[str, datetime] | None
    seen: set[datetime] | None
    pair: Pair | None
    place: Place | None
    both: tuple[int, datetime] | None
    nested: list[dict[str, datetime]] | None
    anything: Document
    vector: Annotated[np.ndarray, Vector[2]] | None
    raw: bytes | None
    n: int | None


FINER: list[tuple[str, Any]] = [
    ("at", FINE),
    ("at", FINE.tz_convert("Asia/Tokyo")),
    ("at", DatetimeWithNanoseconds(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ("clock", FineTime(1, 2, 3)),
    ("took", FINE_SPAN),
    ("took", -FINE_SPAN),
    ("times", [WHOLE, FINE]),
    ("spans", [FINE_SPAN]),
    ("by", {"a": FINE}),
    ("seen", {FINE}),
    ("pair", {"at": FINE, "took": SPAN}),
    ("pair", {"at": WHOLE, "took": FINE_SPAN}),
    ("place", Place(FINE)),
    ("both", (1, FINE)),
    ("nested", [{"a": WHOLE}, {"a": FINE}]),
    ("anything", FINE),
    ("anything", {"a": [FINE]}),
]


@pytest.mark.parametrize(("name", "value"), FINER)
def test_a_value_with_nanoseconds_is_refused(name: str, value: Any) -> None:
    """A write of a time that microseconds cannot hold raises `InvalidValue` and sends nothing."""
    store = SimulatedStore([Event])
    with pytest.raises(InvalidValue, match=f"event.{name}") as caught:
        store.write(Event, [{"id": 1}, {"id": 2, name: value}])
    assert store.driver.sent == []
    assert "position 1" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", WHOLE),
        ("took", SPAN),
        ("times", [WHOLE, WHOLE.to_pydatetime()]),
        ("by", {"a": WHOLE}),
        ("both", (1, WHOLE)),
    ],
)
def test_a_value_of_whole_microseconds_is_taken(name: str, value: Any) -> None:
    """A pandas time of whole microseconds is read back as the same moment."""
    store = SimulatedStore([Event])
    store.write(Event, [{"id": 1, name: value}])
    assert store.read(Event, [1], [name])[0][name] == value


@pytest.mark.parametrize("name", ["at", "took"])
def test_nat_in_a_row_is_refused_by_its_name(name: str) -> None:
    """NaT in a row is refused with the advice to write None."""
    with pytest.raises(InvalidValue, match=r"NaT.* None"):
        SimulatedStore([Event]).write(Event, [{"id": 1, name: pd.NaT}])


@pytest.mark.parametrize("value", [pd.NA, np.datetime64("2026-01-01T00:00:00.000000001"), "2026"])
def test_other_times_are_refused_by_their_type(value: Any) -> None:
    """A value that is no datetime is refused with its type in the message."""
    with pytest.raises(InvalidValue, match=f"not {type(value).__name__}"):
        SimulatedStore([Event]).write(Event, [{"id": 1, "at": value}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vector", np.ma.array([1.0, 2.0], mask=[True, False])),
        ("raw", memoryview(array.array("d", [1.5]))),
    ],
)
def test_a_value_that_hides_more_is_refused(name: str, value: Any) -> None:
    """Masked elements, and views of wider elements, are not stored as something else."""
    with pytest.raises(InvalidValue, match=f"event.{name}"):
        SimulatedStore([Event]).write(Event, [{"id": 1, name: value}])


# --- observed-at and durations -------------------------------------------------------------


@pytest.mark.parametrize(
    "observed_at",
    [FINE, [FINE], pd.Series([FINE]), pd.NaT, np.datetime64("2026-01-01"), "2026-01-01", {FINE}],
    ids=["scalar", "list", "series", "NaT", "numpy", "text", "set"],
)
def test_an_observed_at_that_is_not_exact_is_refused(observed_at: Any) -> None:
    """Each way to state an observed-at refuses what is no datetime of whole microseconds."""
    store = SimulatedStore([Event])
    with pytest.raises(InvalidValue, match=r"observed_at.*(datetime|order)"):
        store.write(Event, [{"id": 1, "n": 1}], observed_at=observed_at)
    assert store.driver.sent == []
    with OnlineStore.open("sqlite://", [Event]) as real:
        for call in (
            lambda: real.delete(Event, [1], observed_at=observed_at),
            lambda: real.write_result("q", {}, {}, observed_at=observed_at),
            lambda: explain(Event, {"id": 1}, observed_at),
        ):
            with pytest.raises(InvalidValue, match="observed_at"):
                call()
        with PersistenceWriter(real) as writer, pytest.raises(InvalidValue, match="observed_at"):
            writer.submit(Event, [{"id": 1, "n": 1}], observed_at)


def test_the_row_of_an_observed_at_is_named() -> None:
    """The message says which of several times is at fault."""
    with pytest.raises(InvalidValue, match=r"observed_at \(row 1\)"):
        SimulatedStore([Event]).write(Event, [{"id": 1}, {"id": 2}], observed_at=[WHOLE, FINE])


@pytest.mark.parametrize("span", [FINE_SPAN, np.timedelta64(5, "s"), True, "9" * 5000 + "d", 1e300])
def test_a_duration_that_is_not_exact_is_refused(span: Any) -> None:
    """Durations refuse nanoseconds, bare numbers with a unit, bools and endless digits."""
    store = SimulatedStore([Event])
    with pytest.raises(InvalidSchema, match="max_staleness of n"):
        store.read(Event, [1], ["n"], max_staleness={"n": span})
    with pytest.raises(InvalidSchema):
        LRUCache(1, ttl=span)


@pytest.mark.parametrize("timeout", [FINE_SPAN, timedelta(seconds=1), np.timedelta64(1, "s")])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    """A timeout is stated in seconds, whatever else says a time."""
    with pytest.raises(InvalidValue, match="timeout must be a number"):
        SimulatedStore([Event]).read(Event, [1], timeout=timeout)


@pytest.mark.parametrize(
    "value",
    [
        FINE,
        FINE_SPAN,
        [FINE],
        np.datetime64(5, "ns"),
        np.timedelta64(5, "ns"),
        np.datetime64("NaT"),
        np.ma.array([1, 2], mask=[True, False]),
        np.zeros(1, [("a", "i4")]),
    ],
)
def test_an_input_of_a_query_is_exact(value: Any) -> None:
    """Two inputs that differ by what is not stored never share a result."""
    with (
        OnlineStore.open("sqlite://", [Event]) as store,
        pytest.raises(InvalidValue, match="input 'when'"),
    ):
        store.read_result("q", {"when": value})


# --- tables --------------------------------------------------------------------------------

NS = pa.timestamp("ns", "UTC")
STORAGE = pa.list_(NS)


class Wrapped(pa.ExtensionType):  # type: ignore[misc] # pyarrow has no types
    def __init__(self) -> None:
        super().__init__(STORAGE, "test.wrapped")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Wrapped:
        return cls()


def entries(value: Any) -> list[tuple[str, Any]]:
    return [("a", value)]


ARROW: list[tuple[str, pa.DataType, Callable[[int], Any]]] = [
    ("at", NS, lambda ns: ns),
    ("took", pa.duration("ns"), lambda ns: ns),
    ("clock", pa.time64("ns"), lambda ns: ns),
    ("times", pa.list_(NS), lambda ns: [ns]),
    ("times", pa.large_list(NS), lambda ns: [ns]),
    ("times", pa.list_(NS, 1), lambda ns: [ns]),
    ("times", pa.list_view(NS), lambda ns: [ns]),
    ("spans", pa.list_(pa.duration("ns")), lambda ns: [0, ns]),
    ("by", pa.map_(pa.string(), NS), entries),
    ("by", pa.struct({"a": NS}), lambda ns: {"a": ns}),
    ("pair", pa.struct({"at": NS, "took": pa.duration("ns")}), lambda ns: {"at": 0, "took": ns}),
    ("nested", pa.list_(pa.map_(pa.string(), NS)), lambda ns: [entries(0), entries(ns)]),
    ("nested", pa.large_list(pa.struct({"a": NS})), lambda ns: [{"a": ns}]),
    ("both", pa.struct({"0": pa.int64(), "1": NS}), lambda ns: {"0": 1, "1": ns}),
]


def column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    return pa.array(values, kind)


@pytest.fixture
def store() -> Any:
    with OnlineStore.open("sqlite://", [Event]) as store:
        yield store


@pytest.mark.parametrize(
    ("name", "kind", "value"), ARROW, ids=lambda each: None if callable(each) else str(each)[:60]
)
def test_arrow_columns_of_any_shape_are_exact(
    store: OnlineStore, name: str, kind: pa.DataType, value: Callable[[int], Any]
) -> None:
    """Nanoseconds are refused with column and row; whole microseconds are taken, and nulls."""
    whole = column(kind, [None, value(3000), value(1000), value(7000)]).slice(1, 2)
    microseconds = {
        "clock": time(0, 0, 0, 3),
        "took": timedelta(microseconds=3),
        "spans": [timedelta(0), timedelta(microseconds=3)],
    }
    write_table(store, Event, pa.table({"id": [1, 2], name: whole}))
    found = store.read(Event, [1], [name])[0][name]
    assert found == microseconds.get(name, found)
    assert "1970, 1, 1, 0, 0, 0, 3" in repr(found) or name in {*microseconds, "pair"}
    fine = column(kind, [None, value(1000), value(1_234_567_891)])
    ids = [1, 2, 3]
    with pytest.raises(InvalidValue, match=rf"Column '{name}' .*\(row 2\)"):
        write_table(store, Event, pa.table({"id": ids, name: fine}))
    with pytest.raises(InvalidValue, match=rf"Column '{name}' .*\(row 2\)"):
        write_table(store, Event, pa.table({"id": ids, name: fine}), chunk=2)
    with PersistenceWriter(store) as writer, pytest.raises(InvalidValue, match=name):
        submit_table(writer, Event, pa.table({"id": ids, name: fine}))
    with pytest.raises(InvalidValue, match=name):
        rows_of(pa.record_batch({"id": pa.array(ids), name: fine}), ["id"], "id")


def test_encoded_and_extended_columns_are_exact(store: OnlineStore) -> None:
    """Dictionaries, run-end encoding and extension types hide no nanoseconds."""
    times, lists = pa.array([1_001], NS), pa.array([[1_001]], STORAGE)
    hidden = {
        "at": times.dictionary_encode(),
        "times": pa.ExtensionArray.from_storage(Wrapped(), lists),
        "place": pa.StructArray.from_arrays([times.dictionary_encode()], ["at"]),
    }
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), times)
    for name, values in [*hidden.items(), ("at", runs)]:
        with pytest.raises(InvalidValue, match=f"Column '{name}'"):
            write_table(store, Event, pa.table({"id": pa.array([1]), name: values}))


def test_observed_at_columns_are_exact(store: OnlineStore) -> None:
    """A column of observed-at is refused for nanoseconds, too."""
    table = pa.table({"id": [1, 2], "n": [1, 2], "when": pa.array([1000, 1001], NS)})
    with pytest.raises(InvalidValue, match=r"Column 'when' .*\(row 1\)"):
        write_table(store, Event, table, observed_at="when")
    with pytest.raises(InvalidValue, match="observed_at"):
        write_table(store, Event, table.drop_columns("when"), observed_at=FINE)


PANDAS: list[tuple[str, Callable[[pd.Timestamp], Any]]] = [
    ("at", lambda at: pd.Series([at])),
    ("at", lambda at: pd.Series([at], dtype=object)),
    ("at", lambda at: pd.Series([at]).astype("category")),
    ("at", lambda at: pd.Series([at], dtype=pd.ArrowDtype(NS))),
    ("times", lambda at: pd.Series([[at]])),
    ("times", lambda at: pd.Series([np.array([at], dtype=object)])),
    ("times", lambda at: pd.Series([(at,)])),
    ("by", lambda at: pd.Series([{"a": at}])),
    ("took", lambda at: pd.Series([at - WHOLE.floor("s")])),
    ("took", lambda at: pd.Series([at - WHOLE.floor("s")], dtype=object)),
    ("spans", lambda at: pd.Series([[at - WHOLE.floor("s")]])),
]


@pytest.mark.parametrize(("name", "series"), PANDAS)
def test_pandas_columns_of_any_dtype_are_exact(
    store: OnlineStore, name: str, series: Callable[[pd.Timestamp], Any]
) -> None:
    """Nanoseconds of pandas are refused with the column, also in columns of Python objects."""
    write_table(store, Event, pd.DataFrame({"id": [1], name: series(WHOLE)}))
    assert "6" in repr(store.read(Event, [1], [name])[0][name])
    with pytest.raises(InvalidValue, match=rf"Column '{name}' .*\(row 0\)"):
        write_table(store, Event, pd.DataFrame({"id": [1], name: series(FINE)}))


def test_an_index_of_objects_is_exact(store: OnlineStore) -> None:
    """The index of a data frame is a column like the others."""
    index = pd.Index([FINE], dtype=object, name="at")
    with pytest.raises(InvalidValue, match="'at'"):
        write_table(store, Event, pd.DataFrame({"id": [1]}, index=index))


def test_nat_in_a_data_frame_is_a_null(store: OnlineStore) -> None:
    """What is missing in pandas is a null, in columns of times and of objects."""
    for dtype in ("datetime64[ns, UTC]", object):
        times = pd.Series([WHOLE, pd.NaT], dtype=dtype)
        write_table(store, Event, pd.DataFrame({"id": [1, 2], "at": times}))
        assert store.read(Event, [1, 2], ["at"]).statuses("at") == ["hit", "null"]


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    [
        ("at", pl.Datetime("ns", "UTC"), 1_001),
        ("took", pl.Duration("ns"), 1_001),
        ("clock", pl.Time, 1_001),
        ("times", pl.List(pl.Datetime("ns", "UTC")), [1_001]),
        ("times", pl.Array(pl.Datetime("ns", "UTC"), 1), [1_001]),
        ("by", pl.Struct({"a": pl.Datetime("ns", "UTC")}), {"a": 1_001}),
    ],
)
def test_polars_columns_are_exact(store: OnlineStore, name: str, dtype: Any, value: Any) -> None:
    """Nanoseconds of polars are refused with the column."""
    ints: Any = pl.Series(name, [value])
    values = ints.cast(dtype) if name != "clock" else ints.cast(pl.Int64).cast(pl.Time)
    with pytest.raises(InvalidValue, match=f"Column '{name}'"):
        write_table(store, Event, pl.DataFrame([pl.Series("id", [1]), values]))


def test_a_map_with_a_key_twice_is_refused(store: OnlineStore) -> None:
    """Arrow's maps may have a key twice, of which a dict would keep the last."""
    twice = pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.timestamp("us", "UTC")))
    with pytest.raises(InvalidValue, match="'by'"):
        write_table(store, Event, pa.table({"id": [1], "by": twice}))
    with pytest.raises(InvalidValue, match="'by'"):
        rows_of(pa.record_batch({"id": pa.array([1]), "by": twice}), ["id"], "id")


def test_a_struct_with_an_unknown_field_is_refused(store: OnlineStore) -> None:
    """A field of a struct that the class lacks is not dropped."""
    pairs = pa.array([{"at": 0, "took": 0, "more": 1}])
    kind = pa.struct({"at": NS, "took": pa.duration("us"), "more": pa.int64()})
    with pytest.raises(InvalidValue, match="'pair'"):
        write_table(store, Event, pa.table({"id": [1], "pair": pairs.cast(kind)}))


def test_values_of_a_bad_frame_stay_out_of_the_message(store: OnlineStore) -> None:
    """A data frame that Arrow refuses is described by its column, never by its values."""
    for value in ([10**40], ["bob", 7], [object()]):
        values = pd.Series([*value, 1], dtype=object)
        frame = pd.DataFrame({"id": range(len(values)), "n": values})
        with pytest.raises(OnlineStoreError, match=r"'n'|event\.n") as caught:
            write_table(store, Event, frame)
        assert "bob" not in str(caught.value)


def test_a_key_is_no_time(store: OnlineStore) -> None:
    """Times are not taken for int keys."""
    for key in (FINE, FINE_SPAN, np.timedelta64(5, "ns"), np.datetime64(5, "ns")):
        with pytest.raises(InvalidKey):
            store.read(Event, [key])
        with pytest.raises(InvalidKey):
            read_table(store, Event, [key])
