"""Instances of the user's own classes as rows, and rows as instances.

A dataclass, an attrs class, a pydantic model, a NamedTuple, a msgspec Struct, or a class of
chalkpy's. A class under `@features` may be any of them as well.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from chalk_online_store.errors import InvalidSchema, InvalidValue, OnlineStoreError
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
class RowClass:
    """A class: `make` makes an instance of values by field, `get` reads a field of one."""

    cls: type
    fields: tuple[Field, ...]
    make: Callable[[dict[str, Any]], Any]
    get: Callable[[Any, str], Any]


@lru_cache(maxsize=1024)
def form_of(cls: type) -> RowClass:
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
    return RowClass(cls, fields, declared.make, declared.get)


def _of_chalkpy(cls: Any) -> RowClass:
    """Instances of chalkpy's have what was set: what is not there is left unset."""
    fields = [
        Field(attribute, name, Any, nullable=True, has_default=True)
        for name, attribute in chalkpy.attributes_of(cls).items()
    ]
    return RowClass(cls, tuple(fields), lambda found: cls(**found), getattr)


def _nullable(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _nullable(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return types.NoneType in arguments
    return annotation in (None, types.NoneType, Any)


def rows_of(namespace: Namespace, rows: Sequence[Any]) -> tuple[Sequence[Row], dict[int, Any]]:
    """Return rows as mappings by short names, and what some state as their observed-at.

    A row is a mapping or an instance. Names that the namespace does not have are kept, so that
    they are refused as those of any row. The observed-ats are by the positions of their rows.

    Raises `InvalidValue` for anything else, and for a row that names a feature twice.
    """
    kinds = {*map(type, rows)}
    takes = {
        cls: _take(namespace, cls)
        for cls in kinds
        if cls is not dict and not issubclass(cls, Mapping)
    }
    if not takes and all(map(namespace.row_names.issuperset, rows)):
        return rows, {}
    found: list[Row] = []
    times: dict[int, Any] = {}
    time_name = namespace.observed_at_name
    for position, row in enumerate(rows):
        try:
            take = takes.get(type(row))
            named = _by_short_name(namespace, row if take is None else take(row))
        except OnlineStoreError as error:
            error.add_note(f"In the row at position {position}; nothing was written.")
            raise
        if time_name is not None and time_name in named:
            times[position] = named[time_name]
            named = {name: value for name, value in named.items() if name != time_name}
        found.append(named)
    return found, times


def _by_short_name(namespace: Namespace, row: Row) -> Row:
    if namespace.row_names.issuperset(row):
        return row
    found = {namespace.short_name(name): value for name, value in row.items()}
    if len(found) != len(row):
        raise InvalidValue(
            f"A row of {namespace.name!r} names a feature twice, by its short name and in full. "
            "Keep one of them."
        )
    return found


def _take(namespace: Namespace, cls: type) -> Callable[[Any], Row]:
    if getattr(cls, "__chalk_feature_set__", False):
        return chalkpy.row_of
    try:
        form = form_of(cls)
    except InvalidSchema as error:
        raise InvalidValue(
            f"A row of {namespace.name!r} is a mapping, or an instance of a class: {error}"
        ) from None
    return partial(_row_of, form, tuple(field.name for field in form.fields))


def _row_of(form: RowClass, names: tuple[str, ...], instance: Any) -> Row:
    """Return the fields of an instance, and what else was set on it: that is refused later."""
    found = {name: form.get(instance, name) for name in names}
    attributes = getattr(instance, "__dict__", None)
    if attributes and not found.keys() >= attributes.keys():
        found |= {
            name: value
            for name, value in attributes.items()
            if name not in found and not _is_internal(form.cls, name)
        }
    return found


def _is_internal(cls: type, name: str) -> bool:
    """Return True for a private attribute, or one that a descriptor keeps, as cached_property."""
    kept_by = inspect.getattr_static(cls, name, None)
    return name.startswith("_") or hasattr(type(kept_by), "__get__")


def check_types(form: RowClass, kinds: Mapping[str, FeatureType]) -> None:
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
