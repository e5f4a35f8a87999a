"""Packed items to rows: see `codec.decoding` for what a row is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.msgpack import Ext

from chalk_online_store.codec.decoding import Damage, DamagedRow, Reading, Row
from chalk_online_store.codec.layout import BASE, LATEST, own
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import DamagedItem
from chalk_online_store.valkey.packing import attribute_of, unpacked

Stored: TypeAlias = "tuple[str, bytes]"
"""The partition key of an item, and the packed item."""

_TYPES: dict[str, Any] = {"S": str, "B": bytes, "BOOL": bool, "int": int, "float": float}
"""Python's type of a row's values, by the kind of the column."""

_ODD = frozenset((UnsetType, Ext))
"""Types of what is no row's value as it stands."""


class RowReader:
    """Makes rows of one shape."""

    def __init__(self, shape: Shape) -> None:
        self._readings = [Reading(column.id, column.codec) for column in shape.columns]
        self._kinds = [_TYPES.get(reading.kind) for reading in self._readings]
        self._parsers = [
            msgspec.json.Decoder(reading.codec.attribute, strict=False)
            for reading in self._readings
        ]
        places = range(len(self._readings))
        self._values = attrgetter("latest", "base", *(f"v{i}" for i in places))
        self._owns = attrgetter("latest", "base", *(f"t{i}" for i in places))
        self._plain = None not in self._kinds
        struct: Any = self._struct()
        self._decode_all = msgspec.msgpack.Decoder(list[struct]).decode

    def _struct(self) -> type[msgspec.Struct]:
        fields: list[tuple[str, Any, Any]] = [("latest", int, 0), ("base", int | None, None)]
        rename = {"latest": LATEST, "base": BASE}
        for i, (reading, kind) in enumerate(zip(self._readings, self._kinds, strict=True)):
            content = Any if kind is None else kind | Ext | None | UnsetType
            fields += [(f"v{i}", content, UNSET), (f"t{i}", int | None, None)]
            rename |= {f"v{i}": reading.id, f"t{i}": own(reading.id)}
        return msgspec.defstruct("Packed", fields, rename=rename, gc=False, frozen=True)

    def rows(self, sk: str, items: Sequence[Stored]) -> list[Row | DamagedItem]:
        """The row of each item, or why there is none."""
        try:
            found = self._decode_all(_array([item for _, item in items]))
        except UNREADABLE:
            return [self._row_or_error(pk, sk, item) for pk, item in items]
        if len(found) != len(items):
            return [self._row_or_error(pk, sk, item) for pk, item in items]
        return [self._row(pk, sk, item) for (pk, _), item in zip(items, found, strict=True)]

    def _row(self, pk: str, sk: str, item: Any) -> Row:
        latest, base, *values = self._values(item)
        times = self._owns(item)[2:]
        if (
            self._plain
            and base is None
            and times.count(None) == len(times)
            and _ODD.isdisjoint(map(type, values))
        ):
            return (pk, sk, latest, None, *values)
        return self._careful(pk, sk, latest, base, values, times)

    def _row_or_error(self, pk: str, sk: str, item: bytes) -> Row | DamagedItem:
        """A row of an item that has not the form of the shape: as much as can be read."""
        try:
            found = unpacked(item)
        except DamagedItem as error:
            return error
        latest, base = found.get(LATEST, 0), found.get(BASE)
        values = [found.get(reading.id, UNSET) for reading in self._readings]
        times = [found.get(own(reading.id)) for reading in self._readings]
        if {*map(type, (latest, base, *times))} - {int, type(None)} or latest is None:
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
        try:
            attribute = self._parsers[place].decode(attribute_of(value))
        except UNREADABLE as error:
            return Damage(f"{type(error).__name__}")
        except DamagedItem as error:
            return Damage(str(error))
        return self._readings[place].content(attribute)


def _times(common: int, values: Iterable[Any], owns: Iterable[int | None]) -> Iterable[int | None]:
    for value, own_time in zip(values, owns, strict=True):
        if value is UNSET:
            yield None
        else:
            yield common if own_time is None else own_time


def _array(items: Sequence[bytes]) -> bytes:
    """A msgpack array of packed items."""
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(items)
