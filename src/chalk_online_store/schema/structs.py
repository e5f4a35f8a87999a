"""Classes with fields, of every kind: what their fields are, and how values are taken apart.

attrs and pydantic are recognised by what their classes carry, so neither is imported.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterable
from functools import partial
from operator import getitem
from typing import Any, cast

import msgspec

from chalk_online_store.errors import InvalidSchema

Make = Callable[[dict[str, Any]], Any]
Get = Callable[[Any, str], Any]
Default = Callable[[], Any] | None


@dataclasses.dataclass(frozen=True, slots=True)
class DeclaredField:
    """A field as its class declares it. A TypedDict may leave out what is not `required`."""

    name: str
    annotation: Any
    default: Default
    required: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """A class with fields: see `types.StructType`."""

    cls: type
    fields: list[DeclaredField]
    make: Make
    get: Get = getattr


def read_class(cls: type) -> Declared | None:
    """The fields of a class; None where it is of no kind that has them."""
    for applies, read in _KINDS:
        if applies(cls):
            return read(cls)
    return None


def _by_keywords(cls: type, fields: dict[str, Any]) -> Any:
    return cls(**fields)


def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a class, deferred ones resolved; raises `InvalidSchema`."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise InvalidSchema(
            f"{cls.__name__}: {error}; annotations are looked up in the module's globals."
        ) from error


def _declared(cls: type, defaults: Iterable[tuple[str, Default]]) -> list[DeclaredField]:
    hints = hints_of(cls)
    fields = [DeclaredField(name, hints.get(name), default) for name, default in defaults]
    for field in fields:
        if field.name not in hints:
            raise InvalidSchema(f"{cls.__name__}.{field.name} has no annotation.")
        if not field.name or set(field.name) & set("./!"):
            raise InvalidSchema(f"{cls.__name__} has an empty key, or one with a dot, / or !.")
    return fields


def _constant(value: Any, absent: Any) -> Default:
    return None if value is absent else lambda: value


def _dataclass(cls: Any) -> Declared:
    fields = dataclasses.fields(cls)
    _check_constructor(cls, [field.name for field in fields])
    defaults = [(field.name, _dataclass_default(field)) for field in fields]
    return Declared(cls, _declared(cls, defaults), partial(_by_keywords, cls))


def _check_constructor(cls: type, keywords: list[str]) -> None:
    try:
        inspect.signature(cls).bind(**dict.fromkeys(keywords))
    except TypeError as error:
        raise InvalidSchema(
            f"{cls.__name__} cannot be made from its fields alone ({error}): "
            "those with init=False, and other arguments, cannot be restored."
        ) from error


def _dataclass_default(field: Any) -> Default:
    if field.default_factory is not dataclasses.MISSING:
        return cast("Default", field.default_factory)
    return _constant(field.default, dataclasses.MISSING)


def _attrs(cls: Any) -> Declared:
    fields = cls.__attrs_attrs__
    aliases = {field.name: field.alias for field in fields}
    _check_constructor(cls, list(aliases.values()))

    def make(values: dict[str, Any]) -> Any:
        return cls(**{aliases[name]: value for name, value in values.items()})

    defaults = [(field.name, _attrs_default(field.default)) for field in fields]
    return Declared(cls, _declared(cls, defaults), make)


def _attrs_default(default: Any) -> Default:
    if isinstance(default, sys.modules["attr"].Factory):
        return None if default.takes_self else default.factory
    return _constant(default, sys.modules["attr"].NOTHING)


def _pydantic(cls: Any) -> Declared:
    fields = cls.model_fields
    if cls.model_config.get("extra") == "allow":
        raise InvalidSchema(f"{cls.__name__} allows extra fields, which no schema tells of.")
    aliases = {name: field.alias or name for name, field in fields.items()}

    def make(values: dict[str, Any]) -> Any:  # As it was: validated when it was first made.
        return cls.model_construct(**{aliases[name]: value for name, value in values.items()})

    defaults = [(name, _pydantic_default(field)) for name, field in fields.items()]
    return Declared(cls, _declared(cls, defaults), make)


def _pydantic_default(field: Any) -> Default:
    of_the_others = getattr(field, "default_factory_takes_validated_data", None)
    return (
        None
        if field.is_required() or of_the_others
        else lambda: field.get_default(call_default_factory=True)
    )


def _named_tuple(cls: Any) -> Declared:
    absent = object()
    defaults = [(n, _constant(cls._field_defaults.get(n, absent), absent)) for n in cls._fields]
    return Declared(cls, _declared(cls, defaults), partial(_by_keywords, cls))


def _typed_dict(cls: Any) -> Declared:
    fields = _declared(cls, [(name, None) for name in typing.get_type_hints(cls)])
    return Declared(dict, [_perhaps(cls, field) for field in fields], dict, getitem)


def _perhaps(cls: Any, field: DeclaredField) -> DeclaredField:
    """Under deferred annotations the class itself does not know what `NotRequired` marks."""
    mark = typing.get_origin(field.annotation)
    required = field.name in cls.__required_keys__ and mark is not typing.NotRequired
    return dataclasses.replace(field, required=required or mark is typing.Required)


def _msgspec(cls: Any) -> Declared:
    defaults = []
    for field in msgspec.structs.fields(cls):
        factory = None if field.default_factory is msgspec.NODEFAULT else field.default_factory
        defaults.append((field.name, factory or _constant(field.default, msgspec.NODEFAULT)))
    return Declared(cls, _declared(cls, defaults), partial(_by_keywords, cls))


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_field_defaults")


_KINDS: list[tuple[Callable[[type], bool], Callable[[Any], Declared]]] = [
    (lambda cls: hasattr(cls, "__attrs_attrs__"), _attrs),
    (lambda cls: hasattr(cls, "model_fields") and hasattr(cls, "model_construct"), _pydantic),
    (dataclasses.is_dataclass, _dataclass),
    (_is_named_tuple, _named_tuple),
    (typing.is_typeddict, _typed_dict),
    (lambda cls: issubclass(cls, msgspec.Struct), _msgspec),
]
