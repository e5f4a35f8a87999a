"""Feature types as Arrow types, and their values as pyarrow takes them.

One Arrow type for each feature type, whatever values there are, so that parts of a table fit
together. Where Arrow has no type that holds every value exactly, there is text: of a Decimal,
which may have any number of digits, and of a UUID, as in Chalk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chalk_online_store.schema.types import (
    ChoiceType,
    DictType,
    DocumentType,
    Element,
    FeatureType,
    ListType,
    SetType,
    StructField,
    StructType,
    TupleType,
    VectorType,
)

if TYPE_CHECKING:
    import pyarrow as pa

Plain = Callable[[Any], Any]
"""A value to what pyarrow takes for it."""


def arrow_type(pa: Any, kind: FeatureType) -> pa.DataType | None:
    """The Arrow type of a feature type; None where a document is in it, which may be anything."""
    if holds_document(kind):
        return None
    if isinstance(kind, VectorType):
        element = {"f2": pa.float16(), "f4": pa.float32(), "f8": pa.float64()}[kind.dtype]
        return pa.list_(element, kind.size)
    if isinstance(kind, ListType):
        return pa.list_(arrow_type(pa, kind.element.type))
    if isinstance(kind, SetType):
        return pa.list_(arrow_type(pa, kind.element))
    if isinstance(kind, DictType):
        return pa.map_(pa.string(), arrow_type(pa, kind.value.type))
    if isinstance(kind, StructType | TupleType):
        return pa.struct([(name, arrow_type(pa, e.type)) for name, e in parts_of(kind)])
    return _scalar(pa, kind.name)


def _scalar(pa: Any, name: str) -> pa.DataType:
    made: dict[str, Callable[[], Any]] = {
        "none": pa.null,
        "bool": pa.bool_,
        "int": pa.int64,
        "float": pa.float64,
        "bytes": pa.binary,
        "datetime": lambda: pa.timestamp("us", "UTC"),
        "date": pa.date32,
        "time": lambda: pa.time64("us"),
        "timedelta": lambda: pa.duration("us"),
    }
    return made.get(name, pa.string)()


def parts_of(kind: StructType | TupleType) -> list[tuple[str, Element]]:
    """The fields of a struct by name; the places of a tuple are numbered."""
    if isinstance(kind, TupleType):
        return [(str(place), element) for place, element in enumerate(kind.elements)]
    return [(field.name, field.element) for field in kind.fields]


def elements_of(kind: FeatureType) -> list[Element]:
    """What a type holds."""
    if isinstance(kind, ListType):
        return [kind.element]
    if isinstance(kind, SetType):
        return [Element(kind.element, nullable=False)]
    if isinstance(kind, DictType):
        return [kind.value]
    if isinstance(kind, StructType | TupleType):
        return [element for _, element in parts_of(kind)]
    return []


def holds_document(kind: FeatureType) -> bool:
    """Whether a type is a document, or holds one."""
    if isinstance(kind, DocumentType):
        return True
    return any(holds_document(element.type) for element in elements_of(kind))


def to_plain(kind: FeatureType) -> Plain | None:
    """What pyarrow takes for each value that is not None; None where that is the value."""
    if isinstance(kind, VectorType):
        return lambda vector: vector.tolist()
    if isinstance(kind, ChoiceType):
        return {shown: stored for stored, shown in kind.choices.items()}.__getitem__
    if isinstance(kind, ListType):
        return _list(_optional(kind.element))
    if isinstance(kind, SetType):
        return _list(_optional(Element(kind.element, nullable=False)))
    if isinstance(kind, DictType):
        value_of = _optional(kind.value)
        return lambda entries: [(name, value_of(value)) for name, value in entries.items()]
    if isinstance(kind, TupleType):
        return _tuple([_optional(element) for element in kind.elements])
    if isinstance(kind, StructType):
        return _struct(kind)
    return str if kind.name in ("decimal", "uuid") else None


def _optional(element: Element) -> Plain:
    plain = to_plain(element.type)
    if plain is None:
        return lambda value: value
    return lambda value: None if value is None else plain(value)


def _list(part: Plain) -> Plain:
    return lambda values: list(map(part, values))


def _tuple(parts: list[Plain]) -> Plain:
    return lambda values: {str(i): parts[i](value) for i, value in enumerate(values)}


def _struct(kind: StructType) -> Plain:
    fields = [(field, _optional(field.element)) for field in kind.fields]

    def plain(value: Any) -> Any:
        found = {}
        for field, part in fields:
            if _has(kind, value, field):
                found[field.name] = part(kind.get(value, field.name))
        return found

    return plain


def _has(kind: StructType, value: Any, field: StructField) -> bool:
    """A TypedDict may lack what is not required."""
    return kind.cls is not dict or field.required or field.name in value
