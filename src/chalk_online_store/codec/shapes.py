"""What a read knows of the rows of one group: cells and columns, with their times."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from chalk_online_store.codec.compiled import Frame, compiled
from chalk_online_store.codec.decoding import (
    FIRST,
    LATEST_AT,
    TIMES,
    Damage,
    DamagedRow,
    Reading,
    Row,
    RowDecoder,
)
from chalk_online_store.codec.layout import BASE, LATEST, TableLayout, own
from chalk_online_store.codec.nested import Ids, codec_of, value_encoder
from chalk_online_store.codec.values import UNREADABLE, Attribute, Encode, ValueCodec, moment
from chalk_online_store.errors import DamagedItem
from chalk_online_store.schema import Feature
from chalk_online_store.schema.types import VectorType

MOST_PROJECTED = 400
"""Features whose attributes fit into a projection. AWS: an expression has 4 KB at most."""


class Cell(NamedTuple):
    """A feature in an item: its value (None for null) and when it was observed (UTC us)."""

    value: Any
    observed_at: int


@dataclass(frozen=True)
class Column:
    """A feature that has an id in the table. `ids` are those of its struct fields, by path."""

    id: str
    feature: Feature
    full_name: str
    ids: Ids = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self.id, self.feature, self.full_name, dict(self.ids))

    @cached_property
    def codec(self) -> ValueCodec:
        """How the feature's values are stored."""
        return codec_of(self.feature.type, self.full_name, self.ids)

    @cached_property
    def converter(self) -> Converter:
        """The converter of stored contents to values."""
        return Converter(self)

    @cached_property
    def default(self) -> Any:
        """The stored content of the feature's default. Raises `InvalidValue`."""
        return self.read(self.encode(self.feature.default))

    def read(self, attribute: bytes) -> Any:
        """The stored content in an attribute, as a row has it."""
        return Reading(self.id, self.codec).read(attribute)

    @cached_property
    def encode(self) -> Encode:
        """A value to its attribute; raises `InvalidValue`."""
        feature = self.feature
        return value_encoder(self.full_name, feature.type, feature.nullable, self.ids)


@dataclass(frozen=True, eq=False)
class Shape:
    """How to read some features of one group.

    `projected` says that a read should ask for these attributes alone: that saves bytes and
    decoding, never capacity.
    """

    layout: TableLayout
    columns: tuple[Column, ...]
    projected: bool = False
    positions: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        names = {column.feature.name: i for i, column in enumerate(self.columns)}
        object.__setattr__(self, "positions", names)

    @property
    def attribute_names(self) -> list[str]:
        """Every attribute that the rows are made of: what a projection must name."""
        names = [self.layout.pk, self.layout.sk, LATEST, BASE]
        for column in self.columns:
            names += [column.id, own(column.id)]
        return names

    # --- items to rows ---------------------------------------------------------------------

    @cached_property
    def decoder(self) -> RowDecoder:
        """Makes the rows."""
        return RowDecoder([Reading(c.id, c.codec) for c in self.columns], self.layout)

    @cached_property
    def _list_decoder(self) -> msgspec.json.Decoder[list[Any]]:
        return msgspec.json.Decoder(list[self.decoder.struct], strict=False)  # type: ignore[name-defined]

    def decode_items(self, items: Sequence[bytes]) -> list[Row]:
        """Rows from items in DynamoDB's JSON; raises `DamagedItem`."""
        try:
            found = self._list_decoder.decode(b"[%b]" % b",".join(items))
        except UNREADABLE as error:
            raise DamagedItem(self._damage(error)) from error
        if len(found) != len(items):
            raise DamagedItem("An item cannot be read: it is not one JSON object.")
        return self.decoder.rows(found)

    def decode_stored(self, items: Sequence[bytes]) -> Sequence[Row | DamagedItem]:
        """As `decode_each`, by the compiled decoder: for very many items."""
        compiled = self.decoder.compiled
        if compiled is not None and items:
            try:
                rows, _, _ = compiled(b'{"Items":[%b]}' % b",".join(items))
            except ValueError:  # Something out of the ordinary, perhaps damage.
                return self.decode_each(items)
            return rows
        return self.decode_each(items)

    def decode_each(self, items: Sequence[bytes]) -> list[Row | DamagedItem]:
        """Rows from items; those with damaged values are `DamagedRow`s.

        A `DamagedItem` stands for an item whose key or times cannot be read.
        """
        try:
            return list(self.decode_items(items))
        except DamagedItem:
            return [self._decode_or_error(item) for item in items]

    def _decode_or_error(self, item: bytes) -> Row | DamagedItem:
        try:
            return self.decode_items([item])[0]
        except DamagedItem as error:
            return self.decoder.salvaged(item) or error

    def _damage(self, error: Exception) -> str:
        """What msgspec says, with the feature's name for its path."""
        if not isinstance(error, msgspec.DecodeError):
            return f"An item cannot be read: {type(error).__name__}."
        message = str(error)
        found = re.search(r"`\$\[\d+\]\.(\w+)\.[^`]+`$", message)
        names = {c.id: f"{c.full_name} (id {c.id!r})" for c in self.columns}
        what = names.get(found[1], "An item") if found else "An item"
        return f"{what} cannot be read as the schema says: {message}."

    # --- rows of another process -----------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        return Shape, (self.layout, self.columns, self.projected)

    def portable(self, row: Row) -> Row:
        """Return a row that can be pickled: attributes of classes made here become JSON."""
        values = [
            msgspec.json.encode(value) if isinstance(value, Attribute) else value
            for value in row[FIRST:]
        ]
        return type(row)((*row[:FIRST], *values))

    def restored(self, row: Row) -> Row:
        """Return the row that `portable` was given."""
        values = [
            value if reading.codec.plain or type(value) is not bytes else reading.read(value)
            for reading, value in zip(self.decoder.readings, row[FIRST:], strict=True)
        ]
        return type(row)((*row[:FIRST], *values))

    # --- rows to cells and columns ---------------------------------------------------------

    @cached_property
    def nothing(self) -> Row:
        """A row without values, to stand for an absent item."""
        absent = (None,) * len(self.columns)
        return ("", "", _NEVER, absent, *absent)

    @cached_property
    def converters(self) -> list[Converter]:
        """What makes values of what lies in rows, for each column."""
        return [column.converter for column in self.columns]

    def cell(self, row: Row, position: int) -> Cell | None:
        """The feature at `position` of `columns`; None where the item does not have it.

        Raises `DamagedItem` where it is not stored as its type is.
        """
        time = self.observed_at(row, position)
        if time is None:
            return None
        return Cell(self.converters[position].one(row[FIRST + position]), time)

    @staticmethod
    def observed_at(row: Row, position: int) -> int | None:
        """When the feature at `position` was observed (UTC us); None if the item lacks it."""
        times = row[TIMES]
        time: int | None = row[LATEST_AT] if times is None else times[position]
        return time


class Columns:
    """Rows of one shape, column by column; a row is None where there is no item."""

    def __init__(self, shape: Shape, rows: Sequence[Row | None]) -> None:
        self._converters = shape.converters
        if None in rows:
            rows = [row or shape.nothing for row in rows]
        self._rows = cast("Sequence[Row]", rows)
        places: list[Any] = list(zip(*self._rows, strict=True))  # All columns at once, in C.
        self._places = places or [()] * len(shape.nothing)
        self._odd = any(self._places[TIMES])
        self._damaged = self._odd and any(type(row) is DamagedRow for row in self._rows)
        self._oldest = min(self._places[LATEST_AT], default=_NEVER)
        if self._odd:
            times = (t for row in self._rows if row[TIMES] for t in row[TIMES] if t is not None)
            self._oldest = min(self._oldest, min(times, default=_NEVER))

    def are_plain(self, oldest: int | None) -> bool:
        """Whether nothing is damaged, and nothing was observed before `oldest` (UTC us)."""
        return not self._damaged and (oldest is None or self._oldest >= oldest)

    def are_whole(self, oldest: int | None) -> bool:
        """Whether moreover everything is there."""
        return not self._odd and self.are_plain(oldest)

    def times(self, position: int) -> Sequence[int | None]:
        """When the feature at `position` was observed (UTC us), stale or not; None: not known."""
        if self._odd:
            return [Shape.observed_at(row, position) for row in self._rows]
        times: Sequence[int] = self._places[LATEST_AT]
        return times

    def plain(self, position: int) -> list[Any]:
        """The values of the feature at `position`, stale ones too. Raises `DamagedItem`."""
        return self._converters[position].all(self._stored(position))

    def _stored(self, position: int) -> Sequence[Any]:
        stored: Sequence[Any] = self._places[FIRST + position]
        return stored

    def values(self, position: int, oldest: int | None, default: Any = None) -> list[Any]:
        """The values of the feature at `position` of the shape's columns.

        A value that is absent, or was observed before `oldest` (UTC us), is replaced by the value
        of the content `default`. A null is None. Raises `DamagedItem`.
        """
        if self._is_fresh(oldest, default) and not self._damaged:
            return self.plain(position)
        converter = self._converters[position]
        found = self._fresh(position, oldest, default)
        return [*map(converter.one, found)] if self._damaged else converter.all(found)

    def contents(self, position: int, oldest: int | None, default: Any = None) -> list[Any]:
        """As `values`, but what lies in the rows: as yet unconverted."""
        found = self._fresh(position, oldest, default)
        if self._damaged:
            converter = self._converters[position]
            return [*map(converter.checked, found)]
        return list(found)

    def readable(
        self, position: int, oldest: int | None, default: Any = None, *, stored: bool
    ) -> list[Any]:
        """As `values` or, if `stored`, as `contents`; None in place of what is damaged."""
        one = self._converters[position].one
        found: list[Any] = []
        for content in self._fresh(position, oldest, default):
            try:
                value = one(content)
            except DamagedItem:
                found.append(None)
            else:
                found.append(content if stored else value)
        return found

    def _fresh(self, position: int, oldest: int | None, default: Any) -> Sequence[Any]:
        found = self._stored(position)
        if self._is_fresh(oldest, default):
            return found
        times, oldest = self.times(position), -_NEVER if oldest is None else oldest
        return [
            default if time is None or time < oldest else value
            for value, time in zip(found, times, strict=True)
        ]

    def _is_fresh(self, oldest: int | None, default: Any) -> bool:
        """Return True if no value is to be replaced."""
        is_fresh = oldest is None or self._oldest >= oldest
        return is_fresh and (default is None or not self._odd)


class FrameColumns(Columns):
    """The columns of a frame, each made when it is asked for."""

    def __init__(self, shape: Shape, frame: Frame) -> None:
        self._converters = shape.converters
        self._frame = frame
        self._odd = frame.has_times
        self._damaged = False
        oldest = frame.oldest
        self._oldest = _NEVER if oldest is None else oldest

    def times(self, position: int) -> Sequence[int | None]:
        """See `Columns.times`."""
        return self._frame.times(position)

    def plain(self, position: int) -> list[Any]:
        """See `Columns.plain`."""
        return self._converters[position].of_frame(self._frame, position)

    def _stored(self, position: int) -> Sequence[Any]:
        return self._frame.contents(position)


def columns_of(shape: Shape, rows: Sequence[Row | None]) -> Columns:
    """Return the columns of rows of one shape."""
    return FrameColumns(shape, rows) if isinstance(rows, Frame) else Columns(shape, rows)


_NEVER = 2**63
"""Later than any observed-at."""

_FEW = 4
"""Values for which an array would not pay."""

_EPOCH = moment(0)
_DAMAGE = (DamagedItem, ValueError, ArithmeticError, struct.error)
_OTHER_DAMAGE = (TypeError, AttributeError, LookupError, RecursionError)
"""What a decoder raises for contents that it does not expect; the texts could hold values."""


class Converter:
    """Makes a feature's values of what lies in rows: many at once where there is a way."""

    all: Callable[[Sequence[Any]], list[Any]]
    """As `one`, for each of many."""
    of_frame: Callable[[Frame, int], list[Any]]
    """The same of the column at a position of a frame."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._convert = Reading(column.id, column.codec).convert
        self.all = self._each if self._convert else list
        self.of_frame = self._of_contents
        if isinstance(column.feature.type, VectorType):
            self.all, self.of_frame = self._vectors(column.feature.type)
        elif self._convert is moment:
            self.all, self.of_frame = self._moments, self._frame_moments
        elif self._convert is None:
            self.of_frame = Frame.contents if compiled else self._of_contents

    def one(self, value: Any) -> Any:
        """One value; None for None."""
        if self._convert is None or value is None or type(value) is Damage:
            return self.checked(value)
        try:
            return self._convert(value)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        except _OTHER_DAMAGE as error:
            raise self._damaged(type(error).__name__) from error

    def checked(self, value: Any) -> Any:
        """What lies in a row, if it is no `Damage`."""
        if type(value) is Damage:
            raise self._damaged(value.reason)
        return value

    def _each(self, values: Iterable[Any]) -> list[Any]:
        return [None if value is None else self.one(value) for value in values]

    def _of_contents(self, frame: Frame, position: int) -> list[Any]:
        return self.all(frame.contents(position))

    def _frame_moments(self, frame: Frame, position: int) -> list[Any]:
        found = frame.moments(position)
        return self._of_contents(frame, position) if found is None else found

    def _moments(self, values: Sequence[Any]) -> list[Any]:
        """Microseconds through numpy's timedeltas: four times quicker than one by one."""
        present = [value for value in values if value is not None]
        if len(present) < _FEW:
            return self._each(values)
        try:
            since = np.array(present, "i8").view("m8[us]").tolist()
            found = [_EPOCH + delta for delta in since]
        except (*_DAMAGE, TypeError):  # Which of them, and why?
            return self._each(values)
        if len(found) == len(values):
            return found
        rest = iter(found)
        return [None if value is None else next(rest) for value in values]

    def _vectors(
        self, vector: VectorType
    ) -> tuple[Callable[[Sequence[Any]], list[Any]], Callable[[Frame, int], list[Any]]]:
        """Vectors as views of one matrix: three times quicker than an array each."""
        stored, size = np.dtype(f"<{vector.dtype}"), vector.size
        whole = {size * stored.itemsize}

        def vectors(values: Sequence[Any]) -> list[Any]:
            if None in values or {*map(len, values)} != whole:
                return self._each(values)
            if len(values) < _FEW:
                return [np.frombuffer(value, stored) for value in values]
            return list(np.frombuffer(b"".join(values), stored).reshape(-1, size))

        def frame_vectors(frame: Frame, position: int) -> list[Any]:
            block = frame.block(position, size * stored.itemsize) if len(frame) >= _FEW else None
            if block is None:
                return vectors(frame.contents(position))
            return list(np.frombuffer(block, stored).reshape(-1, size))

        return vectors, frame_vectors

    def _damaged(self, error: object) -> DamagedItem:
        column = self._column
        return DamagedItem(
            f"{column.full_name} (id {column.id!r}) is not stored as "
            f"{column.feature.type.name}: {error}."
        )
