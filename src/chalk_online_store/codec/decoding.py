"""Items to rows, in bulk: DynamoDB's JSON to one flat tuple per item.

A row is `(pk, sk, latest, times, value, value, …)`, with a value for each column that was asked
for. `latest` is the newest observed-at of the item (UTC us), 0 where there is none. `times` is
None in the ordinary case, in which every column is there and was observed at `latest`; else it
has the observed-at of each column, None for a column that is absent. Values are None where they
are absent or null, else what `Reading.convert` makes the feature's value of.

The compiled decoder, `_kernels.Decoder`, returns a `Frame` if it was built: the same rows, without
a Python object for each value until one is asked for. It refuses every response that it cannot
read exactly, and the decoder in Python then reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec

from chalk_online_store.codec.changes import Times, key_of, parse_item
from chalk_online_store.codec.compiled import Frame, kernels
from chalk_online_store.codec.layout import BASE, LATEST, TableLayout, own
from chalk_online_store.codec.values import (
    Attribute,
    Binary,
    Boolean,
    Decode,
    Double,
    Integer,
    Text,
    ValueCodec,
)
from chalk_online_store.errors import DamagedItem

Row: TypeAlias = tuple[Any, ...]

SK, LATEST_AT, TIMES, FIRST = 1, 2, 3, 4
"""Where a row has its sort key, its latest observed-at, its times, and its first value."""

Read: TypeAlias = Callable[[bytes], Any]
"""An attribute's JSON to a row's value; a `ValueError` where it is damaged."""

_KINDS: dict[type[Attribute], str] = {
    Text: "S",
    Binary: "B",
    Boolean: "BOOL",
    Integer: "int",
    Double: "float",
}
_NUMBERS = {
    "S": 0,
    "B": 1,
    "BOOL": 2,
    "int": 3,
    "float": 4,
    "other": 5,
}
"""What the compiled decoder knows the kinds by."""


class DamagedRow(tuple[Any, ...]):
    """A row in which some value is a `Damage`. It always has times."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Damage:
    """Stands for a value that is not stored as its type is, and says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column is read: under which attribute name, and by what."""

    id: str
    codec: ValueCodec

    @property
    def kind(self) -> str:
        """What the compiled decoder calls it: "other" for what only we can read."""
        return _KINDS.get(self.codec.attribute, "other") if self.codec.plain else "other"

    @property
    def convert(self) -> Decode | None:
        """A row's value to the feature's; None where it is that already."""
        return self.codec.convert if self.codec.plain else self.codec.decode

    @property
    def read(self) -> Read:
        """Reads the attribute alone."""
        decode = msgspec.json.Decoder(self.codec.attribute, strict=False).decode

        def read(attribute: bytes) -> Any:
            content = self.content(decode(attribute))
            if type(content) is Damage:
                raise ValueError(content.reason)
            return content

        return read

    def content(self, attribute: Any) -> Any:
        """An attribute to a row's value; a `Damage` where it is of another type."""
        codec = self.codec
        if not codec.plain:
            return None if attribute.NULL else attribute
        content = getattr(attribute, codec.plain)
        if content is not None:
            return content
        try:  # A null, or another form of the same type, which then needs no conversion.
            return codec.decode(attribute)
        except (DamagedItem, struct.error) as error:
            return Damage(str(error))


class RowDecoder:
    """Makes rows of items of one table, for some columns."""

    def __init__(self, readings: Sequence[Reading], layout: TableLayout) -> None:
        self.readings = readings
        self._layout = layout
        places = range(len(readings))
        self._attributes = _getter([f"v{i}" for i in places])
        self._owns = _getter([f"t{i}" for i in places])
        self._no_owns = (None,) * len(readings)
        plains = [f"v{i}.{r.codec.plain}".rstrip(".") for i, r in enumerate(readings)]
        self._ordinary = attrgetter("pk.S", "sk.S", "latest.N", "base", *plains)

    @cached_property
    def compiled(self) -> Callable[[bytes], tuple[Frame, int, int]] | None:
        """The compiled decoder's `decode`; None if it was not built, or is disabled."""
        compiled = kernels()
        if compiled is None:
            return None
        columns = [(r.id, r.kind, r.read) for r in self.readings]
        decode: Callable[[bytes], tuple[Frame, int, int]]
        decode = compiled.Decoder(described(columns, self._layout), len(columns)).decode
        return decode

    @cached_property
    def struct(self) -> type[msgspec.Struct]:
        """What msgspec decodes an item into."""
        fields: list[tuple[str, Any, Any]] = [("latest", Integer | None, None)]
        fields.append(("base", Integer | None, None))
        rename = {"latest": LATEST, "base": BASE, "pk": self._layout.pk, "sk": self._layout.sk}
        for i, reading in enumerate(self.readings):
            attribute = reading.codec.attribute
            fields += [(f"v{i}", attribute | None, None), (f"t{i}", Integer | None, None)]
            rename |= {f"v{i}": reading.id, f"t{i}": own(reading.id)}
        keys: list[Any] = [("pk", Text), ("sk", Text)]
        return msgspec.defstruct("Item", keys + fields, rename=rename, gc=False, frozen=True)

    def rows(self, items: Iterable[Any]) -> list[Row]:
        """Rows of decoded items."""
        return [self._row(item) for item in items]

    def salvaged(self, item: bytes) -> Row | None:
        """The row of an item of which some values cannot be decoded: these are `Damage`s.

        None if the item is not JSON, or its key or its times cannot be read.
        """
        try:
            attributes = parse_item(item)
            key, times = key_of(self._layout, attributes), Times(attributes)
        except DamagedItem:
            return None
        found = [_salvage(reading, attributes, times) for reading in self.readings]
        values, observed = zip(*found, strict=True) if found else ((), ())
        return DamagedRow((*key, times.latest, observed, *values))

    def _row(self, item: Any) -> Row:
        try:
            row: Row = self._ordinary(item)
        except AttributeError:  # Something is absent.
            return self._careful(item)
        # `base` is absent, and nothing else.
        if row[TIMES] is None and row.count(None) == 1 and self._owns(item) == self._no_owns:
            return row
        return self._careful(item)

    def _careful(self, item: Any) -> Row:
        attributes = self._attributes(item)
        values = [
            None if attribute is None else reading.content(attribute)
            for reading, attribute in zip(self.readings, attributes, strict=True)
        ]
        owns = self._owns(item)
        damaged = any(type(value) is Damage for value in values)
        ordinary = item.base is None and owns == self._no_owns and None not in attributes
        times = tuple(map(_time(item), attributes, owns)) if damaged or not ordinary else None
        row = (item.pk.S, item.sk.S, _number(item.latest), times, *values)
        return DamagedRow(row) if damaged else row


def described(
    columns: Sequence[tuple[str, str, Read]], layout: TableLayout
) -> dict[str, tuple[int, int, Read | None]]:
    """The attributes of an item for the compiled decoder, by name: place, kind and reader.

    A column is id, kind and reader. After the places of a row come those of own observed-ats.
    """
    found: dict[str, tuple[int, int, Read | None]] = {
        layout.pk: (0, _NUMBERS["S"], None),
        layout.sk: (SK, _NUMBERS["S"], None),
        LATEST: (LATEST_AT, _NUMBERS["int"], None),
        BASE: (TIMES, _NUMBERS["int"], None),
    }
    for place, (id_, kind, read) in enumerate(columns, FIRST):
        found[id_] = (place, _NUMBERS[kind], read)
        found[own(id_)] = (place + len(columns), _NUMBERS["int"], None)
    return found


def _time(item: Any) -> Callable[[Any, Any], int | None]:
    """When a value was true, by its attribute and its own time."""
    common = _number(item.base or item.latest)

    def time(attribute: Any, own_time: Any) -> int | None:
        if attribute is None:
            return None
        return common if own_time is None else _number(own_time)

    return time


def _salvage(reading: Reading, item: Mapping[str, bytes], times: Times) -> tuple[Any, int | None]:
    """A row's value of one column, and when it was true."""
    attribute = item.get(reading.id)
    if attribute is None:
        return None, None
    try:
        observed_at = times.of(reading.id)
    except DamagedItem:
        return Damage("its observed-at cannot be read"), times.base
    try:
        return reading.read(attribute), observed_at
    except msgspec.DecodeError as error:
        return Damage(str(error)), observed_at
    except (ValueError, RecursionError) as error:
        return Damage(type(error).__name__), observed_at


def _number(attribute: Any) -> int:
    return (attribute and attribute.N) or 0


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """`attrgetter`, which gives a tuple for two names or more only."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda item: tuple(getattr(item, name) for name in names)
