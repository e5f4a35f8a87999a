"""References to features: `User.risk` of a class under `@features`.

A type checker takes `User.risk` for what the class declares, a float. `Row` and `Rows` therefore
declare that a name of type T gives a value of type T: see decision 31. At run time a reference is
a str, the feature's full name, so that it works wherever a name does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from inspect import getattr_static
from typing import Any


class FeatureReference(str):
    """A feature of a class, `User.risk`: its full name, `user.risk`."""

    __slots__ = ()


class ReferenceAttribute:
    """The class attribute that returns a feature's reference; `declared` is what was declared.

    It works for one class only, not for classes that derive from it. A derived dataclass or
    pydantic model that looks for the default of a field must not find the reference of its base.
    """

    def __init__(self, cls: type, reference: FeatureReference, declared: Any) -> None:
        self._cls = cls
        self.reference = reference
        self.declared = declared

    def __get__(self, instance: Any, owner: type) -> FeatureReference:
        if instance is None and owner is self._cls:
            return self.reference
        name = self.reference.partition(".")[2]
        raise AttributeError(f"{owner.__name__!r} has no attribute {name!r}.")


def set_references(cls: type, namespace: str, declared: Mapping[str, Any]) -> None:
    """Make each feature, and the primary key, of a class a reference.

    A slot is kept, because instances store their values in it; `arguments.plain_name` accepts it as
    a reference. A NamedTuple has no attributes that could be references.
    """
    for name, declaration in declared.items():
        if not hasattr(type(getattr_static(cls, name, None)), "__get__") or isinstance(
            getattr_static(cls, name), ReferenceAttribute
        ):
            reference = FeatureReference(f"{namespace}.{name}")
            setattr(cls, name, ReferenceAttribute(cls, reference, declaration))


def was_redefined(schema: Any) -> bool:
    """Return True if a class was made a dataclass, again, after its references were set.

    Its constructor then has the references for defaults.
    """
    fields: Iterable[Any] = getattr(schema, "__dataclass_fields__", {}).values()
    return any(
        isinstance(field, dataclasses.Field) and isinstance(field.default, FeatureReference)
        for field in fields
    )
