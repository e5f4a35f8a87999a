"""Packed items to rows: see `codec.decoding` for what a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.msgpack import Ext
from msgspec.structs import astuple

from chalk_online_store.codec.decoding import (
    FIRST,
    SK,
    Damage,
    DamagedRow,
    Reading,
    Row,
)
from chalk_online_store.codec.layout import BASE, LATEST, own
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import DamagedItem
from chalk_online_store.valkey.packing import VECTORS, attribute_of, unpacked

Stored: TypeAlias = "tuple[str, bytes]"
"""The partition key of an item, and the packed item."""

Field: TypeAlias = tuple[Any, ...]
"""A name in a packed item, the type of what it stands for and, if it may be absent, a default."""

_TYPES: dict[str, Any] = {"S": str, "B": bytes, "BOOL": bool, "int": int, "float": float}
"""Python's type of a row's values, by the kind of the column."""


class RowReader:
    """Makes rows of one shape."""

    def __init__(self, shape: Shape) -> None:
        self._readings = [Reading(column.id, column.codec) for column in shape.columns]
        self._kinds = [_TYPES.get(reading.kind) for reading in self._readings]
        self._parsers = [
            msgspec.json.Decoder(reading.codec.attribute, strict=False)
            for reading in self._readings
        ]
        self._vectors = [VECTORS.get(reading.kind) for reading in self._readings]
        self._parsed = [place for place, kind in enumerate(self._kinds) if kind is None]
        self._decode_ordinary = self._decoder(self._ordinary())
        self._decode_any = self._decoder(self._any())

    def _ordinary(self) -> list[Field]:
        """An item in the ordinary case: all is there, plain as in rows, and of one observed-at.

        Where values have observed-ats of their own, there is a common one beside the latest.
        """
        values: list[Field] = [
            (reading.id, Any if kind is None else kind | None)
            for reading, kind in zip(self._readings, self._kinds, strict=True)
        ]
        return [(LATEST, int), (BASE, None, None), *values]

    def _any(self) -> list[Field]:
        """Any item whose values are of their types."""
        values: list[Field] = [
            (reading.id, Any if kind is None else kind | UnsetType | None, UNSET)
            for reading, kind in zip(self._readings, self._kinds, strict=True)
        ]
        owns: list[Field] = [(own(reading.id), int | None, None) for reading in self._readings]
        return [(LATEST, int, 0), (BASE, int | None, None), *values, *owns]

    def _decoder(self, fields: Sequence[Field]) -> Callable[[bytes], list[tuple[Any, ...]]]:
        """Makes a tuple of these fields of each item in an array."""
        named: list[Any] = [(f"f{i}", *types) for i, (_, *types) in enumerate(fields)]
        rename = {f"f{i}": name for i, (name, *_) in enumerate(fields)}
        struct: Any = msgspec.defstruct(
            "Packed", named, rename=rename, gc=False, frozen=True, kw_only=True
        )
        decode = msgspec.msgpack.Decoder(list[struct]).decode
        return lambda items: list(map(astuple, decode(items)))

    def rows(self, sk: str, items: Sequence[Stored]) -> list[Row | DamagedItem]:
        """The row of each item, or why there is none."""
        packed = _array([item for _, item in items])
        try:
            contents = self._contents(packed)
        except UNREADABLE:
            return [self._odd_row(pk, sk, item) for pk, item in items]
        rows: list[Any] = [(pk, sk, *row) for (pk, _), row in zip(items, contents, strict=True)]
        if not self._parsed:
            return rows
        return [self._parse(row, item) for row, (_, item) in zip(rows, items, strict=True)]

    def _contents(self, packed: bytes) -> list[Row]:
        try:
            return self._decode_ordinary(packed)
        except UNREADABLE:
            return [self._with_times(*fields) for fields in self._decode_any(packed)]

    def _with_times(self, latest: int, base: int | None, *rest: Any) -> Row:
        """What follows upon the keys in a row."""
        values, owns = rest[: len(self._readings)], rest[len(self._readings) :]
        if base is None and UNSET not in values and owns.count(None) == len(owns):
            return (latest, None, *values)
        common = latest if base is None else base
        times = tuple(_times(common, values, owns))
        return (latest, times, *[None if value is UNSET else value for value in values])

    def _parse(self, row: Row, item: bytes) -> Row | DamagedItem:
        """A row once what only the feature's codec can read is read."""
        contents = list(row)
        for place in self._parsed:
            contents[FIRST + place] = self._content(place, row[FIRST + place])
        if Damage in map(type, contents):
            return self._odd_row(row[0], row[SK], item)
        return tuple(contents)

    def _odd_row(self, pk: str, sk: str, item: bytes) -> Row | DamagedItem:
        try:
            found = unpacked(item)
        except DamagedItem as error:
            return error
        latest, base = found.get(LATEST, 0), found.get(BASE)
        values = [found.get(reading.id, UNSET) for reading in self._readings]
        times = [found.get(own(reading.id)) for reading in self._readings]
        if not {*map(type, (latest, base, *times))} <= {int, type(None)} or latest is None:
            return DamagedItem("An item's key or times cannot be read.")
        return self._careful(pk, sk, latest, base, values, times)

    def _careful(
        self,
        pk: str,
        sk: str,
        latest: int,
        base: int | None,
        values: Sequence[Any],
        owns: Sequence[int | None],
    ) -> Row:
        contents = [self._content(i, value) for i, value in enumerate(values)]
        damaged = Damage in map(type, contents)
        whole = base is None and owns.count(None) == len(owns) and UNSET not in values
        times = None
        if damaged or not whole:
            common = latest if base is None else base
            times = tuple(_times(common, values, owns))
        row = (pk, sk, latest, times, *contents)
        return DamagedRow(row) if damaged else row

    def _content(self, place: int, value: Any) -> Any:
        """A row's value; a `Damage` where it is of another type."""
        kind = self._kinds[place]
        if value is UNSET or value is None:
            return None
        if type(value) is kind:
            return value
        if type(value) is Ext and value.code == self._vectors[place]:
            return bytes(value.data)
        try:
            attribute = self._parsers[place].decode(attribute_of(value))
        except UNREADABLE as error:
            return Damage(f"{type(error).__name__}")
        except DamagedItem as error:
            return Damage(str(error))
        return self._readings[place].content(attribute)


def _times(common: int, values: Iterable[Any], owns: Iterable[int | None]) -> list[int | None]:
    return [
        None if value is UNSET else common if own_time is None else own_time
        for value, own_time in zip(values, owns, strict=True)
    ]


def _array(items: Sequence[bytes]) -> bytes:
    """A msgpack array of packed items."""
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(items)
