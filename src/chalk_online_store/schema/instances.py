"""Instances of the user's own classes as rows, and rows as instances.

A dataclass, an attrs class, a pydantic model, a NamedTuple, a msgspec Struct, or a class of
chalkpy's. A class under `@features` may be any of them as well.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from chalk_online_store.errors import InvalidSchema, InvalidValue
from chalk_online_store.schema import chalkpy, structs
from chalk_online_store.schema.annotations import read_annotation
from chalk_online_store.schema.namespaces import Namespace
from chalk_online_store.schema.types import ChoiceType, DocumentType, FeatureType, StructType

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name in the class, and that of its feature (or the primary key) in rows.

    `nullable` is whether it may be None, `has_default` whether an instance can be made without.
    """

    name: str
    feature: str
    annotation: Any
    nullable: bool
    has_default: bool


@dataclass(frozen=True, slots=True)
class Form:
    """A class: `make` makes an instance of values by field, `get` reads a field of one."""

    cls: type
    fields: tuple[Field, ...]
    make: Callable[[dict[str, Any]], Any]
    get: Callable[[Any, str], Any]


@lru_cache(maxsize=1024)
def form_of(cls: type) -> Form:
    """How a class has rows; raises `InvalidSchema` where it is of no kind that has."""
    if getattr(cls, "__chalk_feature_set__", False):
        return _of_chalkpy(cls)
    declared = structs.read_class(cls)
    if declared is None:
        raise InvalidSchema(
            f"{cls.__name__} has no fields: it is no dataclass, attrs class, pydantic model, "
            "NamedTuple or msgspec Struct."
        )
    fields = tuple(
        Field(f.name, f.name, f.annotation, _nullable(f.annotation), f.default is not None)
        for f in declared.fields
    )
    return Form(cls, fields, declared.make, declared.get)


def _of_chalkpy(cls: Any) -> Form:
    """Instances of chalkpy's have what was set: what is not there is left unset."""
    fields = [
        Field(attribute, name, Any, nullable=True, has_default=True)
        for name, attribute in chalkpy.attributes_of(cls).items()
    ]
    return Form(cls, tuple(fields), lambda found: cls(**found), getattr)


def _nullable(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _nullable(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return types.NoneType in arguments
    return annotation in (None, types.NoneType, Any)


def rows_of(namespace: Namespace, rows: Sequence[Any]) -> Sequence[Row]:
    """Rows that may be instances, as mappings; raises `InvalidValue` for what is neither."""
    kinds = {*map(type, rows)}
    odd = [cls for cls in kinds if cls is not dict and not issubclass(cls, Mapping)]
    if not odd:
        return rows
    takes = {cls: _take(namespace, cls) for cls in odd}
    return [takes[type(row)](row) if type(row) in takes else row for row in rows]


def _take(namespace: Namespace, cls: type) -> Callable[[Any], Row]:
    if getattr(cls, "__chalk_feature_set__", False):
        return partial(chalkpy.row_of, namespace)
    try:
        form = form_of(cls)
    except InvalidSchema as error:
        raise InvalidValue(
            f"A row of {namespace.name!r} is a mapping, or an instance of a class: {error}"
        ) from None
    names, get = [field.name for field in form.fields], form.get
    return lambda row: {name: get(row, name) for name in names}


def check_types(form: Form, kinds: Mapping[str, FeatureType]) -> None:
    """Raise `InvalidSchema` for a field that is of another type than the feature it is made of."""
    for field in form.fields:
        kind = kinds.get(field.feature)
        if kind is not None and not _alike(read_annotation(field.annotation).type, kind):
            raise InvalidSchema(
                f"{form.cls.__name__}.{field.name} is {field.annotation!r}, and the feature that "
                f"was read is of another type ({kind.name})."
            )


def _alike(wanted: FeatureType, kind: FeatureType) -> bool:
    if isinstance(wanted, DocumentType):
        return True
    if isinstance(wanted, ChoiceType) and isinstance(kind, ChoiceType):
        return wanted.choices == kind.choices
    if isinstance(wanted, StructType) and isinstance(kind, StructType):
        return wanted.cls is kind.cls
    return type(wanted) is type(kind) and wanted.name == kind.name
