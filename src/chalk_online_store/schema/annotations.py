"""Python annotations to feature types."""

from __future__ import annotations

import enum
import types
import typing
from typing import Annotated, Any, Literal, NotRequired, Required, TypeAlias, Union

from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema import structs
from chalk_online_store.schema.types import (
    SCALARS,
    ChoiceType,
    DictType,
    DocumentType,
    Element,
    FeatureType,
    ListType,
    Scalar,
    SetType,
    StructField,
    StructType,
    TupleType,
    Vector,
    VectorType,
)

Document: TypeAlias = Annotated[Any, "document"]
"""Anything that msgpack holds: None, bool, int of 64 bits, float, str, bytes, datetime, and lists
and dictionaries of those."""

MAX_DEPTH = 31
"""AWS: attributes nest up to 32 levels; the item is the first."""


def read_annotation(annotation: Any, depth: int = 0) -> Element:
    """The type that an annotation names, and whether it may be null (`T | None`).

    Raises `InvalidSchema` for an annotation that no row of `docs/types.md` covers.
    """
    if depth > MAX_DEPTH:
        raise InvalidSchema("A type nests deeper than DynamoDB's 32 levels, or holds itself.")
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        vectors = [a for a in arguments[1:] if isinstance(a, type) and issubclass(a, Vector)]
        nullable = types.NoneType in typing.get_args(arguments[0])
        found = read_annotation((vectors or arguments)[0], depth)
        return Element(found.type, nullable or found.nullable)
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not types.NoneType]
        if len(rest) != 1:
            raise _unsupported(annotation)
        return Element(read_annotation(rest[0], depth).type, nullable=True)
    return Element(_read_plain(annotation, depth), annotation in (None, types.NoneType, Any))


def _read_plain(annotation: Any, depth: int) -> FeatureType:
    if annotation is None:
        return SCALARS[types.NoneType]
    if annotation is Any:
        return DocumentType()
    if typing.get_origin(annotation) is not None:
        return _read_generic(annotation, depth)
    if isinstance(annotation, type):
        return _read_class(annotation, depth)
    raise _unsupported(annotation)


def _read_class(cls: type, depth: int) -> FeatureType:
    if cls in SCALARS:
        return SCALARS[cls]
    if issubclass(cls, enum.Enum):
        return _choices(cls, [(member.value, member) for member in cls])
    if issubclass(cls, Vector) and cls.size:
        return VectorType(cls.size, cls.dtype)
    declared = structs.read_class(cls)
    if declared is None:
        raise _unsupported(cls)
    fields = tuple(_read_field(field, depth) for field in declared.fields)
    return StructType(declared.cls, fields, declared.make, declared.get)


def _read_field(field: structs.DeclaredField, depth: int) -> StructField:
    annotation, required = field.annotation, field.required
    while typing.get_origin(annotation) in (NotRequired, Required):
        annotation = typing.get_args(annotation)[0]
    element = read_annotation(annotation, depth + 1)
    return StructField(field.name, element, field.default, required)


def _read_generic(annotation: Any, depth: int) -> FeatureType:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return _choices(annotation, [(value, value) for value in arguments])
    if origin is list:
        return ListType(read_annotation(arguments[0], depth + 1), list)
    if origin in (set, frozenset):
        return _read_set(annotation, depth)
    if origin is tuple:
        return _read_tuple(annotation, depth)
    if origin is dict and arguments[0] is str:
        return DictType(read_annotation(arguments[1], depth + 1))
    raise _unsupported(annotation)


def _read_set(annotation: Any, depth: int) -> SetType:
    element = read_annotation(typing.get_args(annotation)[0], depth + 1)
    if element.nullable or not isinstance(element.type, Scalar | ChoiceType):
        raise InvalidSchema(f"{annotation!r}: a set holds scalars that are not null.")
    return SetType(element.type, typing.get_origin(annotation) or set)


def _read_tuple(annotation: Any, depth: int) -> FeatureType:
    arguments = typing.get_args(annotation)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return ListType(read_annotation(arguments[0], depth + 1), tuple)
    return TupleType(tuple(read_annotation(argument, depth + 1) for argument in arguments))


def _choices(annotation: Any, choices: list[tuple[Any, Any]]) -> ChoiceType:
    kinds = {type(value) for value, _ in choices}
    if len(kinds) != 1 or not kinds <= {str, int, bytes, bool}:
        raise InvalidSchema(
            f"{annotation!r}: the values of an Enum or Literal must all be str, all int, "
            "all bool or all bytes."
        )
    return ChoiceType(SCALARS[kinds.pop()], dict(choices))


def _unsupported(annotation: Any) -> InvalidSchema:
    return InvalidSchema(f"{annotation!r} is not a feature type; docs/types.md lists them.")
