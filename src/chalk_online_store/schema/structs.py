"""Classes with fields, of every kind: what their fields are, and how values are taken apart.

attrs and pydantic are recognised by what their classes carry, so neither is imported.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
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


def is_plain(cls: type) -> bool:
    """Return True for a class that has no constructor for its annotations yet.

    A class that derives from a dataclass, and adds to its fields, is one.
    """
    if "__dataclass_fields__" in vars(cls):
        return False
    return not any(applies(cls) for applies, read in _KINDS if read is not _dataclass)


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


def inherited_defaults(cls: type) -> dict[str, Any]:
    """Return the defaults of the fields that a class has from a dataclass, and does not restate."""
    own = inspect.get_annotations(cls)
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    found = {name: _dataclass_default(f) for name, f in fields.items() if name not in own}
    return {name: default() for name, default in found.items() if default is not None}


def make_dataclass(cls: type, hints: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Make a plain class a dataclass, unless it defines `__init__`.

    Fields that follow one with a default, and have none, become keyword arguments.
    """
    base = getattr(cls, "__dataclass_params__", None)
    constructor = inspect.getattr_static(cls, "__init__")
    if "__init__" in vars(cls) or (base is None and constructor is not object.__init__):
        return
    inherited = getattr(cls, "__dataclass_fields__", {})
    own = inspect.get_annotations(cls)
    # Annotations of a base class that is not a dataclass are declared here.
    stated = {name: hint for name, hint in hints.items() if name in own or name not in inherited}
    follows_default = any(name in defaults for name in inherited)
    for name in stated:
        if name in defaults:
            follows_default = True
            setattr(cls, name, _field_with_default(defaults[name]))
        else:  # In place of feature(...), which could be an attribute of a base class.
            setattr(cls, name, dataclasses.field(kw_only=follows_default))
    cls.__annotations__ = stated
    dataclasses.dataclass(frozen=base is not None and base.frozen)(cls)


def _field_with_default(default: Any) -> Any:
    if type(default).__hash__ is None:  # A list, say: each instance has its own.
        return dataclasses.field(default_factory=partial(copy.deepcopy, default))
    return dataclasses.field(default=default)


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
