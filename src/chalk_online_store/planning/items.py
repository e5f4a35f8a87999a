"""How large the items of a namespace are, by the codec that will write them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec

from chalk_online_store.codec.changes import Attributes, merge, render_item
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry, entries_of
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.errors import InvalidValue
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import (
    ChoiceType,
    DictType,
    DocumentType,
    FeatureType,
    ListType,
    Scalar,
    SetType,
    StructType,
    TupleType,
    VectorType,
)

_START = 1_800_000_123_456_789
_STEP = 1_000_002
"""UTC microseconds. DynamoDB does not count a number's trailing zeros, and times have none: the
start is odd and the step even, so every observed-at has all of its 16 digits, or 9 bytes."""


def draft_codec(namespace: Namespace, layout: TableLayout | None = None) -> NamespaceCodec:
    """A namespace as an empty table would encode it.

    In a table in which 62 features are registered before it, an id has two characters, not one.
    """
    layout = layout or TableLayout()
    entries = Registry().allocate(entries_of(namespace), layout.reserved)
    return NamespaceCodec(namespace, Registry(tuple(entries)), layout)


class Sample:
    """Rows of a namespace, and what their items come to.

    Raises what `OnlineStore.write` raises for a row that cannot be stored; `InvalidValue` where
    there is none.
    """

    def __init__(
        self,
        namespace: Namespace,
        rows: Sequence[Mapping[str, Any]],
        layout: TableLayout | None = None,
    ) -> None:
        if not rows:
            raise InvalidValue(f"There is no row of {namespace.name!r} to size its items by.")
        self.namespace = namespace
        self.rows = rows
        self._codec = draft_codec(namespace, layout)

    def regrouped(self, groups: Iterable[Collection[str]]) -> Sample:
        """The same rows, the features in other groups."""
        where = {name: f"g{place}" for place, group in enumerate(groups) for name in group}
        features = [replace(f, group=where[f.name]) for f in self.namespace.features]
        namespace = replace(self.namespace, features=features)
        return Sample(namespace, self.rows, self._codec.layout)

    @cached_property
    def groups(self) -> dict[str, frozenset[str]]:
        """The names of each group's features."""
        return {
            name: frozenset(feature.name for feature in features)
            for name, features in self.namespace.groups.items()
        }

    def names(self, features: Iterable[str]) -> frozenset[str]:
        """Features by their short names; raises `UnknownFeature`."""
        return frozenset(self.namespace.feature(name).name for name in features)

    def touched(self, features: Iterable[str]) -> list[str]:
        """The groups in which features are; all of them, unless some are named."""
        names = self.names(features)
        return [name for name, group in self.groups.items() if not names or names & group]

    def sizes(self, writes: Sequence[Collection[str]] = ()) -> dict[str, list[int]]:
        """The bytes of each row's item in each group, after all of these writes, one by one.

        0 where a row has none; groups of which no row has one are left out. A write is of some
        features, none named for all. Features that are written apart have their own observed-at
        in the item.
        """
        orders = sorted({frozenset(write) for write in writes or [()]}, key=self._rank)
        found: dict[str, list[int]] = {name: [] for name in self._codec.groups}
        for row in self.rows:
            items: dict[str, Attributes] = {}
            for place, names in enumerate(orders):
                self._write(items, row, names, _START + place * _STEP)
            for group in self._codec.groups.values():
                found[group.name].append(_size(items[group.sk]) if group.sk in items else 0)
        return {name: sizes for name, sizes in found.items() if any(sizes)}

    def _rank(self, names: frozenset[str]) -> tuple[int, list[str]]:
        """Wider writes first: what they leave is what the narrower ones find."""
        return -(len(names) or len(self.namespace.features)), sorted(names)

    def _write(
        self, items: dict[str, Attributes], row: Mapping[str, Any], names: frozenset[str], at: int
    ) -> None:
        key = self.namespace.key_name
        part = {name: row[name] for name in row if not names or name == key or name in names}
        for change in self._codec.changes(part, at):
            items[change.key.sk] = merge(self._codec.layout, items.get(change.key.sk), change)


def _size(item: Attributes) -> int:
    return item_size(msgspec.json.decode(render_item(item)))


# --- Rows made up from a schema, where there is no sample of real ones ---------------------
#
# A made-up value is as large as its type usually is: a float has all of its 17 digits, an int 7, a
# text as many characters as is said. Real rows size a table better.


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long made-up values are: characters of a str, bytes of bytes, elements of a list."""

    text: int = 16
    binary: int = 64
    elements: int = 8


def typical_rows(
    namespace: Namespace, count: int = 20, lengths: Lengths | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows with a value for every feature; the same seed gives the same rows."""
    maker = _Maker(random.Random(seed), lengths or Lengths())
    return [maker.row(namespace) for _ in range(count)]


class _Maker:
    def __init__(self, rng: random.Random, lengths: Lengths) -> None:
        self._rng = rng
        self._lengths = lengths
        self._scalars: dict[str, Callable[[], Any]] = {
            "bool": lambda: rng.random() < 0.5,
            "str": lambda: self._text(lengths.text),
            "bytes": lambda: rng.randbytes(lengths.binary),
            "int": self._int,
            "float": rng.random,
            "decimal": lambda: Decimal(self._int()) / 100,
            "datetime": lambda: _DAY + timedelta(microseconds=rng.randrange(10**13)),
            "date": lambda: date(2026, 1, 1) + timedelta(days=rng.randrange(365)),
            "time": lambda: time(rng.randrange(24), rng.randrange(60), rng.randrange(60)),
            "timedelta": lambda: timedelta(microseconds=rng.randrange(10**10)),
            "uuid": lambda: UUID(int=rng.getrandbits(128)),
            "none": lambda: None,
        }

    def row(self, namespace: Namespace) -> dict[str, Any]:
        parts = tuple(self._key(part) for part in namespace.key.parts)
        key = parts if namespace.key.composite else parts[0]
        values = {f.name: self._value(f.type) for f in namespace.features}
        return {namespace.key_name: key, **values}

    def _key(self, kind: type) -> Any:
        if kind is int:
            return self._rng.randrange(10**8, 10**9)
        return self._scalars[{str: "str", UUID: "uuid"}[kind]]()

    def _text(self, length: int) -> str:
        return "".join(self._rng.choices(_LETTERS, k=length))

    def _int(self) -> int:
        return self._rng.randrange(10**6, 10**7)

    def _value(self, kind: FeatureType) -> Any:
        match kind:
            case Scalar():
                return self._scalars[kind.name]()
            case VectorType():
                return [self._rng.random() for _ in range(kind.size)]
            case ChoiceType():
                return self._rng.choice(list(kind.choices.values()))
            case TupleType():
                return tuple(self._value(element.type) for element in kind.elements)
            case StructType():
                return kind.make({f.name: self._value(f.element.type) for f in kind.fields})
            case DocumentType():
                return {self._text(8): self._int() for _ in range(self._lengths.elements)}
        return self._collection(kind)

    def _collection(self, kind: ListType | SetType | DictType) -> Any:
        count = range(self._lengths.elements)
        if isinstance(kind, DictType):
            return {self._text(8): self._value(kind.value.type) for _ in count}
        if isinstance(kind, SetType):
            return {self._value(kind.element) for _ in count}
        return kind.make(self._value(kind.element.type) for _ in count)
