"""Many rows at once are encoded exactly as one value after the other."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, InvalidValue, Namespace, OnlineStoreError, UnknownFeature
from chalk_online_store.codec.bulk import encoder_of_all
from chalk_online_store.codec.changes import Change, fresh_item, render_fresh, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.nested import codec_of, value_encoder
from chalk_online_store.codec.registry import Registry
from chalk_online_store.operations.write import changes_of_rows
from chalk_online_store.schema.annotations import read_annotation
from tests.helpers import stress
from tests.strategies import VALUES, Schema, any_types, namespaces

LAYOUT = TableLayout()
thorough = settings(max_examples=stress(25))
quick = settings(max_examples=stress(25))


class Shout(str):
    """A str whose text is not what it prints."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Counted(str):
    """Counts how often it is asked for an int, which it refuses to be."""

    __slots__ = ()
    asked = 0

    def __index__(self) -> int:
        Counted.asked += 1
        raise TypeError


class Size(enum.IntEnum):
    """An int that prints as a name."""

    BIG = 3


SPECIAL: list[Any] = [True, 1, 2**53 + 1, 2**64, 10**37, 10**38, -(10**38), 10**5000, Size.BIG]
SPECIAL += [1e-5, 1e-7, 1e16, 1e99, 1e100, -0.0, -0.05, 0.0, float("nan"), float("-inf"), 1e126]
SPECIAL += [np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True), np.longdouble("0.1")]
SPECIAL += [
    "",
    ",",
    '","',
    '",',
    ',"',
    "\\",
    'a"',
    "\n",
    "a\nb",
    "\x7f",
    "\ud800",
    "é,",
    Shout("a"),
]
SPECIAL += [b"", b"\n", bytearray(b"a"), memoryview(b"a"), np.str_("a"), np.zeros(3), [0, 1, 2]]
SPECIAL += [np.zeros(3, "f2"), np.zeros(2, ">f4"), np.zeros((1, 2), "f4"), np.array([1e9], "f8")]
SPECIAL += [datetime.fromordinal(1), datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))]
SPECIAL += [datetime.now(UTC), date(2026, 1, 1), Decimal("1.10"), None, object(), {}, ()]

wild = st.sampled_from(SPECIAL) | st.one_of(*VALUES.values())


def outcome(encode: Any, values: Any) -> Any:
    """What an encoder gives, or the class of what it raises."""
    try:
        return encode(values)
    except OnlineStoreError as error:
        return type(error), str(error), tuple(getattr(error, "__notes__", ()))


def one_by_one(annotation: Any, values: Sequence[Any]) -> list[bytes] | None:
    """The attributes by the careful encoder; None where a value is refused."""
    element = read_annotation(annotation)
    encode = value_encoder("user.risk", element.type, element.nullable)
    try:
        return [encode(value) for value in values]
    except InvalidValue:
        return None


def all_at_once(annotation: Any, values: Sequence[Any]) -> list[bytes] | None:
    """The attributes in bulk; None where anything is raised."""
    element = read_annotation(annotation)
    encode = codec_of(element.type, "user.risk").encode
    try:
        return encoder_of_all(element.type, encode, element.nullable)(values)
    except Exception:  # noqa: BLE001 - what it raises is its own affair
        return None


@pytest.mark.parametrize("annotation", VALUES, ids=str)
@thorough
@given(data=st.data())
def test_a_column_is_encoded_as_its_values_are(annotation: Any, data: st.DataObject) -> None:
    """For every type, with nulls among the values, bulk gives the bytes of one by one."""
    nullable = annotation is not None and data.draw(st.booleans())
    values = VALUES[annotation] | st.none() if nullable else VALUES[annotation]
    column = data.draw(st.lists(values, max_size=6))
    kind = annotation | None if nullable else annotation
    assert all_at_once(kind, column) == one_by_one(kind, column) is not None


@pytest.mark.parametrize("annotation", VALUES, ids=str)
@thorough
@given(data=st.data())
def test_odd_values_are_odd_in_bulk(annotation: Any, data: st.DataObject) -> None:
    """Values of other types, and such as need care, are taken, or refused, by both alike."""
    column = data.draw(st.lists(VALUES[annotation] | wild, min_size=1, max_size=4))
    assert all_at_once(annotation, column) == one_by_one(annotation, column)


@pytest.mark.parametrize("annotation", VALUES, ids=str)
def test_every_special_value(annotation: Any) -> None:
    """Each special value, alone and between two others, is what it is one by one."""
    for value in SPECIAL:
        for column in ([value], [*SPECIAL[:1], value], [value, value]):
            assert all_at_once(annotation, column) == one_by_one(annotation, column)


@thorough
@given(st.lists(st.text('",\\\n{}:aé', max_size=4), max_size=6))
@example(["", ""])
@example([",", ",", ""])
@example(['",', "a"])
def test_strings_are_cut_where_they_end(column: list[str]) -> None:
    """No text, whatever punctuation of JSON's it holds, is taken for the end of one."""
    assert all_at_once(str, column) == one_by_one(str, column)


@thorough
@given(any_types(), st.data())
def test_types_with_parts_in_bulk(typed: Any, data: st.DataObject) -> None:
    """Lists, structs and documents in bulk are what they are one by one."""
    column = data.draw(st.lists(typed.values, min_size=1, max_size=3))
    assert all_at_once(typed.annotation, column) == one_by_one(typed.annotation, column)


def test_a_bad_value_deep_down_is_looked_for_once() -> None:
    """Lists in lists do not try each level anew: the work does not double with every level."""
    annotation: Any = int
    value: Any = Counted("x")
    for _ in range(8):
        annotation, value = list[annotation], [value]
    element = read_annotation(annotation)
    with pytest.raises(InvalidValue, match=r"^user\.risk is int, not Counted"):
        value_encoder("user.risk", element.type, nullable=False)(value)
    assert Counted.asked <= 4


# --- rows ----------------------------------------------------------------------------------


def codec_for(namespace: Namespace) -> NamespaceCodec:
    empty = Registry()
    entries = empty.allocate(empty.missing(namespace), LAYOUT.reserved)
    return NamespaceCodec(namespace, Registry(tuple(entries)), LAYOUT)


def row_by_row(codec: NamespaceCodec, rows: Sequence[Any]) -> list[tuple[int, Change]]:
    """The changes that each row makes by itself."""
    planned = []
    for position, row in enumerate(rows):
        try:
            changes = codec.changes(row, position)
        except OnlineStoreError as error:
            error.add_note(f"In the row at position {position}; nothing was written.")
            raise
        planned += [(position, change) for change in changes]
    return planned


@quick
@given(namespaces(), st.data())
def test_rows_in_bulk_are_rows_one_by_one(schema: Schema, data: st.DataObject) -> None:
    """Whole and partial rows of any schema make the same changes, in the order of the rows."""
    codec = codec_for(schema.namespace)
    rows = [{"id": i % 2} | row for i, row in enumerate(data.draw(st.lists(schema.rows)))]
    assert codec.changes_of_rows(rows, range(len(rows))) == row_by_row(codec, rows)


POLICIES = Namespace(
    "user",
    int,
    [
        Feature("a", int),
        Feature("b", int | None, cache_nulls=False, max_staleness="1h"),
        Feature("c", float, default=0.5, cache_defaults="evict_defaults", group="other"),
        Feature("d", str | None, cache_nulls="evict_nulls"),
        Feature("e", float | None, group="other"),
    ],
)
POLICY_ROWS = st.fixed_dictionaries(
    {"id": st.integers(0, 3)},
    optional={
        "a": st.integers() | wild,
        "b": st.integers(0, 3) | st.none(),
        "c": st.sampled_from([0.5, 1.0, 2, "x"]),
        "d": st.none() | st.text(max_size=2),
        "e": st.none() | st.floats(),
        "typo": st.none(),
    },
)


@thorough
@given(st.lists(POLICY_ROWS, max_size=5))
@example([{"id": 1, "a": 1}, {"id": 2, "a": "x"}, {"id": 3, "typo": 1}])
@example([{"id": 1, "a": 1}, {"a": 2}])
@example([{"id": 1, "a": 1}, {"id": "x", "a": 2}])
@example([{"a": 1, "id": 1}, {"id": 1, "a": 2}, {"d": "x", "id": 1}])
def test_the_first_bad_row_is_the_one_that_is_named(rows: list[Any]) -> None:
    """Policies, groups, missing keys and unknown names: the same changes, or the same error."""
    codec, times = codec_for(POLICIES), range(len(rows))
    found = outcome(lambda given: changes_of_rows(codec, given, times), rows)
    assert found == outcome(lambda given: row_by_row(codec, given), rows)


def test_a_row_that_is_plain_but_unknown() -> None:
    """A name that no feature has is refused in bulk as well."""
    with pytest.raises(UnknownFeature):
        codec_for(POLICIES).changes_of_rows([{"id": 1, "typo": 1}], [0])


@pytest.mark.parametrize("layout", [LAYOUT, TableLayout("100%d", '%b"', "t%")], ids=repr)
@quick
@given(schema=namespaces(), data=st.data(), time=st.integers(0, 2**50))
def test_a_fresh_item_by_template(
    layout: TableLayout, schema: Schema, data: st.DataObject, time: int
) -> None:
    """The template of a form gives the bytes of the item put together attribute by attribute."""
    codec = codec_for(schema.namespace)
    for change in codec.changes({"id": 1} | data.draw(schema.rows), time):
        assert render_fresh(layout, change) == render_item(fresh_item(layout, change))
