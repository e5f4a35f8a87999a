"""Feast's values as features, and back, exactly: docs/feast.md says what becomes of each type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from operator import attrgetter
from typing import Any
from uuid import UUID

import numpy as np
from feast.field import Field
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.message import DecodeError

from chalk_online_store.errors import InvalidSchema, InvalidValue
from chalk_online_store.schema import Vector

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.

Convert = Callable[[Any], Any]
Put = Callable[[Value, Any], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of Feast's: the field of `Value` that has it, and the annotation it is kept under.

    `load` makes a feature's value of that field, `put` puts a feature's value into a `Value`.
    `load` raises `ValueError` for what cannot be kept exactly.
    """

    field: str
    annotation: Any
    load: Convert
    put: Put

    def encode(self, value: Value, name: str) -> Any:
        """A feature's value; None for a null. Raises `InvalidValue`, naming the feature."""
        field = value.WhichOneof("val")
        if field is None or field == "null_val":
            return None
        try:
            if field == self.field:
                return self.load(getattr(value, field))
            return self._converted(getattr(value, field))
        except _INEXACT as error:
            raise InvalidValue(
                f"{name!r} is declared to be in {self.field}, and this {field} is not exactly that."
            ) from error

    def _converted(self, content: Any) -> Any:
        """What is in another field, if this one can hold it: an int32 for an int64, say."""
        plain = content.val if hasattr(content, "DESCRIPTOR") else content
        made = self.dump(plain)
        kept = getattr(made, self.field)
        if (kept.val if hasattr(kept, "DESCRIPTOR") else kept) != plain:
            raise ValueError("not the same value")
        return self.load(kept)

    def dump(self, found: Any) -> Value:
        """A feature's value as Feast has it."""
        value = Value()
        if found is not None:
            self.put(value, found)
        return value

    def dump_all(self, column: Iterable[Any], values: Any) -> None:
        """Add a `Value` for each value of a column to a repeated field: quicker than a list."""
        add, put = values.add, self.put
        for found in column:
            value = add()
            if found is not None:
                put(value, found)


_INEXACT = (TypeError, ValueError, AttributeError, InvalidOperation, DecodeError)


def kind_of(field: Field) -> Kind:
    """What a field's type is kept as; raises `InvalidSchema` for a type that is unknown here."""
    name = field.dtype.to_value_type().name
    size = getattr(field, "vector_length", 0)
    if size and name in _VECTORS:
        return _vector(name, size)
    found = _kinds().get(name)
    if found is None:
        raise InvalidSchema(f"{field.name!r} is {field.dtype}, for which there is no feature type.")
    return found


def _same(value: Any) -> Any:
    return value


def _shortest(value: float) -> float:
    """Of the doubles that are this float32, the one with the fewest digits, and so bytes."""
    short = float(str(np.float32(value)))
    return short if np.float32(short) == value else value


def _exactly(make: Convert) -> Convert:
    def load(text: str) -> Any:
        made = make(text)
        if str(made) != text:
            raise ValueError("not in canonical form")
        return made

    return load


_SCALARS: dict[str, tuple[Any, Convert, Convert]] = {
    "bool": (bool, _same, _same),
    "int32": (int, _same, _same),
    "int64": (int, _same, _same),
    "float": (float, _shortest, _same),
    "double": (float, _same, _same),
    "string": (str, _same, _same),
    "bytes": (bytes, _same, _same),
    "unix_timestamp": (int, _same, _same),
    "json": (str, _same, _same),
    "uuid": (UUID, _exactly(UUID), str),
    "time_uuid": (UUID, _exactly(UUID), str),
    "decimal": (Decimal, _exactly(Decimal), str),
}
"""What a field of `Value` holds is kept as, how it becomes that, and how that becomes it again."""

_MESSAGES = {
    "MAP": "map",
    "MAP_LIST": "map_list",
    "STRUCT": "struct",
    "STRUCT_LIST": "struct_list",
    "VALUE_LIST": "list",
    "VALUE_SET": "set",
    "SCALAR_MAP": "scalar_map",
    "ZONED_TIMESTAMP": "zoned_timestamp",
}
"""What may hold anything: kept as the bytes of its message, which say what is in it."""

_VECTORS = {"FLOAT_LIST": "f4", "DOUBLE_LIST": "f8"}


@cache
def _kinds() -> dict[str, Kind]:
    """Each value type's name to its kind, as far as the installed Feast has it."""
    there = Value.DESCRIPTOR.fields_by_name
    found: dict[str, Kind] = {}
    for name, (annotation, load, dump) in _SCALARS.items():
        made = {
            name: _scalar(f"{name}_val", annotation, load, dump),
            f"{name}_list": _many(f"{name}_list_val", list, annotation, load, dump),
            f"{name}_set": _many(f"{name}_set_val", set, annotation, load, dump),
        }
        found |= {key.upper(): kind for key, kind in made.items() if kind.field in there}
    messages = {key: f"{name}_val" for key, name in _MESSAGES.items()}
    found |= {key: _message(name) for key, name in messages.items() if name in there}
    return found | dict.fromkeys(("PDF_BYTES", "IMAGE_BYTES"), found["BYTES"])


def _scalar(field: str, annotation: Any, load: Convert, dump: Convert) -> Kind:
    if dump is _same:
        return Kind(field, annotation, load, lambda value, found: setattr(value, field, found))
    return Kind(field, annotation, load, lambda value, found: setattr(value, field, dump(found)))


def _many(field: str, make: Any, annotation: Any, load: Convert, dump: Convert) -> Kind:
    """A list or set of scalars."""

    def load_all(message: Any) -> Any:
        return make(message.val) if load is _same else make(map(load, message.val))

    def put(value: Value, found: Any) -> None:
        message = _empty(value, field)
        message.val.extend(found if dump is _same else map(dump, found))

    return Kind(field, make[annotation], load_all, put)


def _empty(value: Value, field: str) -> Any:
    """The message of a field, there already though there is nothing in it: no null."""
    message = getattr(value, field)
    message.SetInParent()
    return message


def _vector(name: str, size: int) -> Kind:
    field = f"{name.lower()}_val"

    def put(value: Value, found: Any) -> None:
        _empty(value, field).val.extend(found.tolist())

    return Kind(field, _VECTOR[size, _VECTORS[name]], attrgetter("val"), put)


def _message(field: str) -> Kind:
    def load(message: Any) -> bytes:
        return bytes(message.SerializeToString(deterministic=True))

    def put(value: Value, found: bytes) -> None:
        _empty(value, field).ParseFromString(found)

    return Kind(field, bytes, load, put)
