"""Packed items to rows: see `codec.decoding` for what a row is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET
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
from chalk_online_store.valkey.packing import attribute_of, unpacked

Stored: TypeAlias = "tuple[str, bytes]"
"""The partition key of an item, and the packed item."""

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
        self._parsed = [place for place, kind in enumerate(self._kinds) if kind is None]
        struct: Any = self._struct()
        self._decode = msgspec.msgpack.Decoder(struct).decode
        self._decode_all = msgspec.msgpack.Decoder(list[struct]).decode

    def _struct(self) -> type[msgspec.Struct]:
        """An item in the ordinary case: all is there, plain as in rows, and of one observed-at.

        Its fields lie as in a row.

        Where values have observed-ats of their own, there is a common one beside the latest.
        """
        fields: list[Any] = [("latest", int), ("base", None, None)]
        rename = {"latest": LATEST, "base": BASE}
        for number, (reading, kind) in enumerate(zip(self._readings, self._kinds, strict=True)):
            place = f"v{number}"
            fields.append((place, Any if kind is None else kind | None))
            rename[place] = reading.id
        return msgspec.defstruct(
            "Packed", fields, rename=rename, gc=False, frozen=True, kw_only=True
        )

    def rows(self, sk: str, items: Sequence[Stored]) -> list[Row | DamagedItem]:
        """The row of each item, or why there is none."""
        try:
            found = self._decode_all(_array([item for _, item in items]))
        except UNREADABLE:
            return [self._row(pk, sk, item) for pk, item in items]
        rows: list[Any] = [
            (pk, sk, *astuple(item)) for (pk, _), item in zip(items, found, strict=True)
        ]
        if not self._parsed:
            return rows
        return [self._parse(row, item) for row, (_, item) in zip(rows, items, strict=True)]

    def _row(self, pk: str, sk: str, item: bytes) -> Row | DamagedItem:
        try:
            row = (pk, sk, *astuple(self._decode(item)))
        except UNREADABLE:
            return self._odd_row(pk, sk, item)
        return self._parse(row, item)

    def _parse(self, row: Row, item: bytes) -> Row | DamagedItem:
        """An ordinary row once what only the feature's codec can read is read."""
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
