"""Items to rows: typed decoders, compiled once for a list of features.

msgspec decodes an item straight into a struct whose fields are the attributes that were asked
for: no dictionary of dictionaries is ever built, and numbers are parsed in C.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from chalk_online_store.codec.layout import BASE, LATEST, ItemKey, TableLayout, own
from chalk_online_store.codec.nested import Ids, codec_of, value_encoder
from chalk_online_store.codec.values import UNREADABLE, Encode, Integer, Text, ValueCodec
from chalk_online_store.errors import DamagedItem
from chalk_online_store.schema import Feature


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

    @cached_property
    def codec(self) -> ValueCodec:
        """How the feature's values are stored."""
        return codec_of(self.feature.type, self.full_name, self.ids)

    @cached_property
    def encode(self) -> Encode:
        """A value to its attribute; raises `InvalidValue`."""
        feature = self.feature
        return value_encoder(self.full_name, feature.type, feature.nullable, self.ids)


@dataclass(frozen=True)
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

    @cached_property
    def row_type(self) -> type[msgspec.Struct]:
        """The struct that an item decodes into."""
        fields: list[tuple[str, Any, Any]] = [("latest", Integer | None, None)]
        fields.append(("base", Integer | None, None))
        rename = {"latest": LATEST, "base": BASE, "pk": self.layout.pk, "sk": self.layout.sk}
        for i, column in enumerate(self.columns):
            attribute = column.codec.attribute
            fields += [(f"v{i}", attribute | None, None), (f"t{i}", Integer | None, None)]
            rename |= {f"v{i}": column.id, f"t{i}": own(column.id)}
        keys: list[Any] = [("pk", Text), ("sk", Text)]
        return msgspec.defstruct("Row", keys + fields, rename=rename, gc=False, frozen=True)

    @property
    def attribute_names(self) -> list[str]:
        """Every attribute that the rows are made of: what a projection must name."""
        names = [self.layout.pk, self.layout.sk, LATEST, BASE]
        for column in self.columns:
            names += [column.id, own(column.id)]
        return names

    @cached_property
    def _list_decoder(self) -> msgspec.json.Decoder[list[Any]]:
        return msgspec.json.Decoder(list[self.row_type], strict=False)  # type: ignore[name-defined]

    def decode_items(self, items: Sequence[bytes]) -> list[Any]:
        """Rows from items in DynamoDB's JSON; raises `DamagedItem`."""
        try:
            rows = self._list_decoder.decode(b"[%b]" % b",".join(items))
        except UNREADABLE as error:
            raise DamagedItem(self._damage(error)) from error
        if len(rows) != len(items):
            raise DamagedItem("An item cannot be read: it is not one JSON object.")
        return rows

    def decode_each(self, items: Sequence[bytes]) -> list[Any]:
        """Rows from items, or the `DamagedItem` for each that is no such row."""
        try:
            return self.decode_items(items)
        except DamagedItem:
            return [self._decode_or_error(item) for item in items]

    def _decode_or_error(self, item: bytes) -> Any:
        try:
            return self.decode_items([item])[0]
        except DamagedItem as error:
            return error

    def _damage(self, error: Exception) -> str:
        """What msgspec says, with the feature's name for its path."""
        if not isinstance(error, msgspec.DecodeError):
            return f"An item cannot be read: {type(error).__name__}."
        message = str(error)
        found = re.search(r"`\$\[\d+\]\.(\w+)\.[^`]+`$", message)
        names = {c.id: f"{c.full_name} (id {c.id!r})" for c in self.columns}
        what = names.get(found[1], "An item") if found else "An item"
        return f"{what} cannot be read as the schema says: {message}."

    @cached_property
    def _readers(self) -> list[_Reader]:
        return [_Reader(column, i) for i, column in enumerate(self.columns)]

    @cached_property
    def _nothing(self) -> Any:
        """A row without attributes, to stand for an absent item."""
        return self.row_type(pk=Text(), sk=Text())

    def cell(self, row: Any, position: int) -> Cell | None:
        """The feature at `position` of `columns`; None where the item does not have it.

        Raises `DamagedItem` where it is not stored as its type is.
        """
        reader = self._readers[position]
        attribute = reader.attribute(row)
        if attribute is None:
            return None
        return Cell(reader.decode(attribute), reader.observed_at(row))

    def oldest(self, rows: Sequence[Any]) -> float:
        """A time that no value of these rows is older than (UTC us); -inf where that is open."""
        present = [row for row in rows if row is not None]
        if any(map(_base, present)):  # Own times lie beside a base, and may be older.
            return -math.inf
        return min(((row.latest and row.latest.N) or 0 for row in present), default=0)

    def values(self, rows: Sequence[Any], position: int, oldest: int | None) -> list[Any]:
        """The values of the feature at `position` in rows; a row is None where there is no item.

        None where there is no value, or where it was observed before `oldest` (UTC us).
        Raises `DamagedItem`.
        """
        reader = self._readers[position]
        rows = [self._nothing if row is None else row for row in rows]
        attributes = list(map(reader.attribute, rows))
        if oldest is not None:
            for i, row in enumerate(rows):
                if attributes[i] is not None and reader.observed_at(row) < oldest:
                    attributes[i] = None
        return reader.values(attributes)


_base = attrgetter("base")
_DAMAGE = (DamagedItem, ValueError, ArithmeticError, struct.error)


class _Reader:
    """Reads one column: in C as far as it goes, for there are many values to a read."""

    def __init__(self, column: Column, position: int) -> None:
        self.attribute = attrgetter(f"v{position}")
        self._own = attrgetter(f"t{position}")
        self._column = column

    def observed_at(self, row: Any) -> int:
        """When the value was true, UTC microseconds."""
        time = self._own(row) or row.base or row.latest
        return (time and time.N) or 0

    def decode(self, attribute: Any) -> Any:
        """The value of an attribute."""
        try:
            return self._column.codec.decode(attribute)
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def values(self, attributes: Sequence[Any]) -> list[Any]:
        """The values of attributes; None for None."""
        try:
            return self._column.codec.decode_all(attributes)
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DamagedItem:
        column = self._column
        return DamagedItem(
            f"{column.full_name} (id {column.id!r}) is not stored as "
            f"{column.feature.type.name}: {error}."
        )


def row_key(row: Any) -> ItemKey:
    """The key of the item that a row was decoded from."""
    return ItemKey(row.pk.S, row.sk.S)
