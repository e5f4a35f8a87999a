"""Rows made up from a schema, where there is no sample of real ones.

A made-up value is as large as its type usually is: a float has all of its 17 digits, an int 7, a
text as many characters as is said. Real rows size a table better.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

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
