"""Items to rows: typed, in any attribute order, and never silently wrong."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalk_online_store import DamagedItem, Feature
from chalk_online_store.codec.layout import BASE, LATEST, WIDTH, TableLayout, own
from chalk_online_store.codec.nested import value_encoder
from chalk_online_store.codec.shapes import Cell, Column, Columns, Shape
from tests.helpers import stress
from tests.strategies import VALUES, exactly, vector

KEY = {"pk": {"S": "a:1"}, "sk": {"S": "a"}}
NULL = {"NULL": True}


def shape_of(**annotations: Any) -> Shape:
    """A shape whose features are called as their ids are."""
    columns = (Column(i, Feature(f"f_{i}", t), f"user.f_{i}") for i, t in annotations.items())
    return Shape(TableLayout(), tuple(columns))


def read(shape: Shape, **attributes: Any) -> Any:
    """The row of an item; `time_x` stands for the own observed-at of x."""
    item = {**KEY, **{_attribute(name): value for name, value in attributes.items()}}
    return shape.decode_items([json.dumps(item).encode()])[0]


def _attribute(name: str) -> str:
    known = {"latest": LATEST, "base": BASE, "width": WIDTH}
    return own(name.removeprefix("time_")) if name.startswith("time_") else known.get(name, name)


times = st.integers(0, 9).map(lambda time: {"N": str(time)})


def n(value: object) -> dict[str, str]:
    return {"N": str(value)}


@settings(max_examples=stress(20))
@given(st.data())
def test_attributes_may_come_in_any_order(data: st.DataObject) -> None:
    """An engine may write attributes, bookkeeping included, in whatever order it likes."""
    item = KEY | {"a": n(7), "b": {"S": "x"}, own("b"): n(4), BASE: n(5), LATEST: n(6), WIDTH: n(2)}
    shuffled = dict(data.draw(st.permutations(list(item.items()))))
    shape = shape_of(a=int, b=str)
    (row,) = shape.decode_items([json.dumps(shuffled).encode()])
    assert [shape.cell(row, i) for i in range(2)] == [Cell(7, 5), Cell("x", 4)]
    assert row[:2] == ("a:1", "a")


def test_unknown_attributes_are_ignored() -> None:
    """Features of a newer schema, a TTL and what others keep in the item do no harm."""
    shape = shape_of(a=int)
    extra = {"z": {"M": {"a": n(1)}}, "time_z": n(9), "ttl": n(5), "@@": {"SS": ["x"]}}
    assert shape.cell(read(shape, a=n(7), latest=n(6), **extra), 0) == Cell(7, 6)


@pytest.mark.parametrize("annotation", VALUES, ids=str)
def test_null_is_not_absent(annotation: Any) -> None:
    """A stored null is a cell whose value is None; where nothing is stored there is no cell."""
    shape = shape_of(a=annotation)
    assert shape.cell(read(shape, a=NULL, latest=n(3)), 0) == Cell(None, 3)
    assert shape.cell(read(shape, latest=n(3), time_a=n(2)), 0) is None


@settings(max_examples=stress(60))
@given(st.data())
def test_a_row_of_many_types_comes_back_exactly(data: st.DataObject) -> None:
    """Features of different types beside each other do not disturb one another."""
    annotations = data.draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6))
    shape = shape_of(**{f"x{i}": annotation for i, annotation in enumerate(annotations)})
    values = [data.draw(VALUES[annotation]) for annotation in annotations]
    columns = zip(shape.columns, values, strict=True)
    stored = {c.id: json.loads(_encoded(c, value)) for c, value in columns}
    row = read(shape, latest=n(3), **stored)
    cells = [shape.cell(row, i) for i in range(len(values))]
    found = [cell.value for cell in cells if cell is not None]
    assert [exactly(value) for value in found] == [exactly(value) for value in values]


def _encoded(column: Column, value: Any) -> bytes:
    return value_encoder(column.full_name, column.feature.type, column.feature.nullable)(value)


@given(st.sampled_from(list(VALUES)), st.none() | st.integers(0, 5), st.data())
def test_a_column_says_what_its_cells_say(
    annotation: Any, oldest: int | None, data: st.DataObject
) -> None:
    """A column's values are its cells' values; None where there is none, or one too old."""
    shape = shape_of(a=annotation)
    stored = VALUES[annotation].map(lambda value: json.loads(_encoded(shape.columns[0], value)))
    items = st.fixed_dictionaries(
        {}, optional={"a": stored | st.just(NULL), "latest": times, "base": times, "time_a": times}
    )
    rows = data.draw(st.lists(items.map(lambda item: read(shape, **item)) | st.none(), max_size=5))
    cells = [None if row is None else shape.cell(row, 0) for row in rows]
    fresh = [c and (oldest is None or c.observed_at >= oldest) for c in cells]
    expected = [c.value if c and ok else None for c, ok in zip(cells, fresh, strict=True)]
    found = Columns(shape, rows).values(0, oldest)
    assert [exactly(value) for value in found] == [exactly(value) for value in expected]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"time_a": n(1), "base": n(2), "latest": n(3)}, 1),
        ({"time_a": n(0), "base": n(2), "latest": n(3)}, 0),
        ({"base": n(2), "latest": n(3)}, 2),
        ({"base": n(0), "latest": n(3)}, 0),
        ({"latest": n(3)}, 3),
        ({}, 0),
    ],
)
def test_which_observed_at_holds(times: dict[str, Any], expected: int) -> None:
    """A feature's own observed-at beats the item's base, which beats its latest; 0 is a time."""
    shape = shape_of(a=str)
    assert shape.cell(read(shape, a={"S": "x"}, **times), 0) == Cell("x", expected)


def test_items_of_a_batch_stay_apart() -> None:
    """Rows have the order of their items, and nothing is carried from one to the next."""
    shape = shape_of(a=int)
    items = [KEY | {"a": n(1), LATEST: n(5)}, KEY | {LATEST: n(6)}, KEY | {"a": NULL, LATEST: n(7)}]
    rows = shape.decode_items([json.dumps(item).encode() for item in items])
    assert [shape.cell(row, 0) for row in rows] == [Cell(1, 5), None, Cell(None, 7)]
    assert shape.decode_items([]) == []


def test_what_a_projection_names() -> None:
    """A projection asks for the key, the item's times, and each feature with its own time."""
    names = shape_of(a=int, zz=str).attribute_names
    assert names == ["pk", "sk", LATEST, BASE, "a", "@a", "zz", "@zz"]


def test_a_table_may_call_its_key_otherwise() -> None:
    """The key is read under the names that the table declares."""
    shape = Shape(TableLayout("entity", "part", "gone"), shape_of(a=int).columns)
    item = {"entity": {"S": "k"}, "part": {"S": "s"}, "a": n(1), "pk": n(2)}
    (row,) = shape.decode_items([json.dumps(item).encode()])
    assert (row[:2], shape.cell(row, 0)) == (("k", "s"), Cell(1, 0))


# --- damage --------------------------------------------------------------------------------

OTHER_TYPE: list[tuple[Any, dict[str, Any]]] = [
    (bool, n(1)),
    (str, n(1)),
    (bytes, {"S": "AAAA"}),
    (int, {"S": "1"}),
    (float, {"S": "1"}),
    (Decimal, {"BOOL": True}),
    (UUID, {"S": "x"}),
    (None, n(1)),
    (int, {"NULL": False}),
    (int, {}),
]
OUT_OF_RANGE: list[tuple[Any, dict[str, Any]]] = [
    (float, {"B": "AAAA"}),
    (Decimal, {"S": "correct horse"}),
    (datetime, n(10**30)),
    (datetime, n(-(10**17))),
    (date, n(10**9)),
    (date, n(10**30)),
    (time, n(-1)),
    (time, n(86_400_000_000)),
    (timedelta, n(10**30)),
    (UUID, {"B": "AAAA"}),
    (Literal["x"], {"S": "correct horse"}),
    (vector[2, "f4"], {"B": "AAAA"}),
    (vector[2, "f4"], {"B": "AAAAAA=="}),
    (vector[1, "f4"], {"B": "AAAAAAAAAAA="}),
]
UNREADABLE: list[tuple[Any, dict[str, Any]]] = [
    (int, n("1.5")),
    (int, n("correct horse")),
    (float, n("correct horse")),
    (bytes, {"B": "no base64"}),
    (bool, {"BOOL": "correct horse"}),
    (str, {"S": 5}),
]


@pytest.mark.parametrize(("annotation", "attribute"), OTHER_TYPE + OUT_OF_RANGE + UNREADABLE)
def test_damage_is_named(annotation: Any, attribute: dict[str, Any]) -> None:
    """What is not stored as its type is raises `DamagedItem` with feature and id, not the value."""
    shape = shape_of(a=int, bb=annotation)
    with pytest.raises(DamagedItem, match=r"user\.f_bb \(id 'bb'\)") as caught:
        shape.cell(read(shape, a=n(1), bb=attribute, latest=n(3)), 1)
    assert "horse" not in str(caught.value)
    with pytest.raises(DamagedItem, match=r"user\.f_bb \(id 'bb'\)"):
        Columns(shape, [read(shape, a=n(1), bb=attribute, latest=n(3))]).values(1, None)


@pytest.mark.parametrize(("annotation", "attribute"), OTHER_TYPE + OUT_OF_RANGE)
def test_damage_stays_with_its_feature(annotation: Any, attribute: dict[str, Any]) -> None:
    """The other features of a damaged item are read as ever."""
    shape = shape_of(a=int, bb=annotation)
    assert shape.cell(read(shape, a=n(1), bb=attribute, latest=n(3)), 0) == Cell(1, 3)


NOT_PLAIN: list[tuple[Any, dict[str, Any]]] = [
    (str, {"S": 'é"\n\\'}),
    (int, n(-(10**37))),
    (int, n(2**63)),
    (float, n("1e-7")),
    (float, n("-0")),
    (float, {"B": "f/gAAAAAAAA="}),
    (bool, NULL),
    (bytes, {"B": "AAAA", "more": [1]}),
    (Decimal, {"S": "1.10"}),
    (list[str], {"L": [{"S": "\n"}]}),
]


@pytest.mark.parametrize(
    ("annotation", "attribute"), NOT_PLAIN + OTHER_TYPE + OUT_OF_RANGE + UNREADABLE
)
def test_the_compiled_decoder_agrees(annotation: Any, attribute: dict[str, Any]) -> None:
    """Where the decoder in C reads what is not plain, it is as the one in Python reads it."""
    shape = shape_of(a=int, bb=annotation)
    item = json.dumps(KEY | {"a": n(1), "bb": attribute, LATEST: n(3)}, separators=(",", ":"))
    compiled = shape.decoder.compiled
    if compiled is None:
        pytest.skip("the C extension is not built")
    try:
        rows, *_ = compiled(b'{"Item":%b}' % item.encode())
    except ValueError:
        assert (annotation, attribute) not in NOT_PLAIN
    else:
        assert repr(list(rows)) == repr(shape.decode_items([item.encode()]))


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = (
    (end - EPOCH) // timedelta(microseconds=1)
    for end in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
)


@given(st.lists(st.integers(FIRST, LAST) | st.integers(-(10**12), 10**12) | st.none()))
@example([FIRST, LAST, 0, -1, None, 1])
def test_many_moments(values: list[int | None]) -> None:
    """Microseconds become the same aware datetimes as by Python's own arithmetic."""
    found = shape_of(a=datetime).converters[0].all(values)
    assert found == [None if v is None else EPOCH + timedelta(microseconds=v) for v in values]
    assert all(moment is None or moment.tzinfo is UTC for moment in found)


@pytest.mark.parametrize("value", [FIRST - 1, LAST + 1, -(2**63), 2**63 - 1, 2**80])
def test_no_moment_among_many(value: int) -> None:
    """What is outside of the calendar is damage, and not in the error."""
    with pytest.raises(DamagedItem) as raised:
        shape_of(a=datetime).converters[0].all([*range(9), value])
    assert str(value) not in str(raised.value)


@pytest.mark.parametrize(
    "item", [b"{", b"[]", b"{}", b'{"pk":{"S":"a"}}', b'{"pk":5,"sk":5}', b"\xff"]
)
def test_an_item_that_is_none_is_refused(item: bytes) -> None:
    """Broken JSON, and an item without its key, raise `DamagedItem`."""
    with pytest.raises(DamagedItem):
        shape_of(a=int).decode_items([item])


def test_a_null_observed_at_is_unknown() -> None:
    """An observed-at of another attribute type counts as never, so that nothing looks fresh."""
    shape = shape_of(a=int)
    row = read(shape, a=n(1), latest=n(9), time_a=NULL)
    assert shape.cell(row, 0) == Cell(1, 0)


def test_one_shape_reads_a_moment() -> None:
    """Observed-at and values of a datetime are kept apart."""
    shape = shape_of(a=datetime)
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    assert shape.cell(read(shape, a=n(1795478400000000), latest=n(4)), 0) == Cell(moment, 4)
