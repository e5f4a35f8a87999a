"""Packed items hold every attribute exactly, and small."""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, Vector, VectorIndex
from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    fresh_item,
    merge,
    number,
    render_item,
)
from chalk_online_store.codec.decoding import FIRST, Damage, DamagedRow
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.shapes import Cell, Column, Shape
from chalk_online_store.errors import DamagedItem
from chalk_online_store.valkey.packing import (
    attribute_of,
    attributes_of,
    named_value_of,
    packed_change,
    value_of,
)
from chalk_online_store.valkey.rows import RowReader
from tests.helpers import stress

LAYOUT = TableLayout()
KEY = ItemKey("a:1", "a")
vector: Any = Vector

_json = msgspec.json.encode
texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.one_of(
    st.integers(-(10**38), 10**38).map(str),
    st.integers(-(2**64) - 2, 2**64 + 2).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda f: _json(f).decode()),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: format(d, "f")),
    st.sampled_from(["-0", "00", "007", "-0.0", "1.", "1e5", "1E+2", "0", "1.50"]),
)
attributes = st.one_of(
    numbers.map(lambda text: b'{"N":"%b"}' % text.encode()),
    texts.map(lambda text: b'{"S":%b}' % _json(text)),
    st.binary().map(lambda raw: b'{"B":%b}' % _json(raw)),
    st.binary(min_size=8, max_size=8).map(lambda raw: b'{"B":%b}' % _json(raw)),
    st.sampled_from([b'{"NULL":true}', b'{"BOOL":true}', b'{"BOOL":false}', b'{"NS":["1"]}']),
    st.sampled_from([b'{"L":[{"N":"1"}]}', b'{"M":{"a":{"S":"x"}}}', b'{"SS":["a"]}']),
)


@settings(max_examples=stress(120))
@given(attributes)
def test_every_attribute_comes_back(attribute: bytes) -> None:
    """Packed and unpacked, an attribute is the same to the byte."""
    packed = msgspec.msgpack.encode(value_of(attribute))
    assert attribute_of(msgspec.msgpack.decode(packed)) == attribute


@pytest.mark.parametrize(
    ("attribute", "size"),
    [
        (number(5), 1),
        (number(1_780_000_000_000_000), 9),
        (b'{"N":"0.1234567890123"}', 9),
        (b'{"S":"text"}', 5),
        (b'{"BOOL":true}', 1),
        (b'{"NULL":true}', 1),
        (b'{"B":"%b"}' % base64.b64encode(bytes(64)), 66),
        (b'{"B":"%b"}' % base64.b64encode(struct.pack(">d", -0.0)), 10),
    ],
)
def test_a_packed_value_is_small(attribute: bytes, size: int) -> None:
    """What is most often stored takes the bytes that msgpack needs for it."""
    assert len(msgspec.msgpack.encode(value_of(attribute))) == size


@given(st.dictionaries(st.sampled_from([f"f{i}" for i in range(40)]), attributes), st.booleans())
def test_a_packed_change_is_its_fresh_item(values: dict[str, bytes], expires: bool) -> None:
    """However many features, the item is that of DynamoDB but for its key and its expiry."""
    change = Change.of(KEY, 5, dict(values), True, len(values), 9 if expires else None)
    expected = fresh_item(LAYOUT, change)
    for name in LAYOUT.reserved & expected.keys():
        del expected[name]
    assert attributes_of(packed_change(change)) == expected


KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "i": (int | None, st.none() | st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-9, 9)),
    "f": (float | None, st.none() | st.floats(allow_nan=False) | st.integers(0, 9).map(float)),
    "s": (str | None, st.none() | texts),
    "r": (bytes | None, st.none() | st.binary(max_size=9) | st.binary(min_size=8, max_size=8)),
    "b": (bool | None, st.none() | st.booleans()),
    "t": (datetime | None, st.none() | st.datetimes(timezones=st.just(UTC))),
    "d": (Decimal | None, st.none() | st.decimals(allow_nan=False)),
    "l": (list[float], st.lists(st.floats(allow_nan=False), max_size=3)),
}
COLUMNS = {
    name: Column(name, Feature(name, annotation), f"user.{name}")
    for name, (annotation, _) in KINDS.items()
}
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
for size, dtype in ((1, "f2"), (3, "f4")):
    name = f"x_{dtype}"
    floats = st.floats(width=16, allow_nan=False, allow_infinity=False) if size == 1 else singles
    KINDS[name] = (None, st.lists(floats, min_size=size, max_size=size))
    indexed = Feature(name, vector[size, dtype], index=VectorIndex())
    COLUMNS[name] = Column(name, indexed, f"user.{name}")
some_names = st.lists(st.sampled_from([*KINDS]), unique=True)


@st.composite
def rows_of_features(draw: st.DrawFn) -> Change:
    """A whole or partial change of some features, each of which has a value."""
    names = draw(st.lists(st.sampled_from([*KINDS]), unique=True, min_size=1))
    values = {name: COLUMNS[name].encode(draw(KINDS[name][1])) for name in names}
    return Change.of(KEY, draw(st.integers(1, 9)), dict(values), draw(st.booleans()), 8, None)


def packed(item: Attributes) -> bytes:
    """Any item, as the server may come to hold it."""
    names = item.keys() - LAYOUT.reserved
    return msgspec.msgpack.encode({name: named_value_of(name, item[name]) for name in names})


@settings(max_examples=stress(60))
@given(
    st.lists(st.lists(rows_of_features(), min_size=1, max_size=3), min_size=1, max_size=3),
    some_names,
)
def test_rows_are_those_of_dynamodbs_json(histories: list[list[Change]], names: list[str]) -> None:
    """Whatever lies in the items, and whatever is asked for, both forms give the same rows."""
    shape = Shape(LAYOUT, tuple(COLUMNS[name] for name in names))
    items: list[Attributes] = []
    for history in histories:
        item: Attributes | None = None
        for change in history:
            item = merge(LAYOUT, item, change)
        assert item is not None
        items.append(item)
    found: list[Any] = RowReader(shape).rows(KEY.sk, [(KEY.pk, packed(item)) for item in items])
    expected = shape.decode_items([render_item(item) for item in items])
    assert [row[:FIRST] for row in found] == [row[:FIRST] for row in expected]
    for place in range(len(names)):
        assert [comparable(shape.cell(row, place)) for row in found] == [
            comparable(shape.cell(row, place)) for row in expected
        ]


def comparable(cell: Cell | None) -> Any:
    """A cell that Python compares: arrays as their bytes."""
    is_vector = cell is not None and isinstance(cell.value, np.ndarray)
    return (cell.value.tobytes(), cell.observed_at) if cell and is_vector else cell


def read(item: bytes) -> Any:
    """The row of one item, between two that are in order."""
    good = packed_change(Change.of(KEY, 5, {"i": number(1), "s": b'{"S":"x"}'}, True, 2, None))
    reader = RowReader(Shape(LAYOUT, (COLUMNS["i"], COLUMNS["s"])))
    first, found, last = reader.rows("a", [("a:0", good), ("a:1", item), ("a:2", good)])
    assert (first, last) == (("a:0", "a", 5, None, 1, "x"), ("a:2", "a", 5, None, 1, "x"))
    return found


@pytest.mark.parametrize("value", ["text", 1.5, b"raw", True, [1], msgspec.msgpack.Ext(77, b"")])
def test_a_value_of_another_type_spoils_its_feature_alone(value: Any) -> None:
    """The damage is in the row, in place of the value, and says nothing of it."""
    row = read(msgspec.msgpack.encode({"@": 5, "i": value, "s": "y"}))
    assert isinstance(row, DamagedRow)
    assert isinstance(row[4], Damage)
    assert row[5] == "y"
    assert "text" not in row[4].reason


@pytest.mark.parametrize("item", [b"", b"\xc1", b"\x93", msgspec.msgpack.encode({"@": "x"})])
def test_an_item_that_cannot_be_read_fails_alone(item: bytes) -> None:
    """It is an error of its own, between rows that are served."""
    assert isinstance(read(item), DamagedItem)


def test_an_indexed_vector_takes_the_bytes_of_its_floats() -> None:
    """An indexed vector is packed without JSON; the same list of another feature is not."""
    attribute = COLUMNS["x_f4"].encode([0.123456, -2.5, 0.0])
    packed_vector = msgspec.msgpack.encode(named_value_of("x_f4", attribute))
    assert len(packed_vector) == 3 + 12
    assert attribute_of(msgspec.msgpack.decode(packed_vector)) == attribute
    assert named_value_of("a", attribute) == value_of(attribute)
    rounded = b'{"L":[{"N":"0.10"}]}'
    assert attribute_of(named_value_of("x_f4", rounded)) == rounded
