"""Feature classes of chalkpy as namespaces: `pip install 'chalk-online-store[chalkpy]'`.

`OnlineStore.open(url, schema=[User])` takes a class under chalkpy's `@features` as it is, and so
do `read` and `write`. `namespace_of` is for a class of which something cannot be stored, or is
not to be: the namespace it makes is then the schema, in place of the class.
"""

from __future__ import annotations

from collections.abc import Sequence

from chalk_online_store.arguments import name_list, text_list
from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.chalkpy import of_class, read_class


def namespace_of(cls: type, *, leave_out: Sequence[str] = ()) -> Namespace:
    """The namespace of a class under chalkpy's `@features`.

    `leave_out` are features by name or by reference: rows that have them are refused.

    Features keep their names (`name=`, `risk@2` of versions, `count__86400__` of windows), types,
    max staleness, defaults, `cache_nulls` and `cache_defaults`, and the class its LRU cache.
    Without `leave_out`, it is the one that a store uses for the class itself.

    Raises `InvalidSchema` naming a feature that has no type here, or a has-many that Chalk would
    cache; leave it out by its name.
    """
    leave_out = text_list(name_list(leave_out, "leave_out"), "leave_out", "feature names")
    if not getattr(cls, "__chalk_feature_set__", False):
        raise InvalidSchema(f"{cls!r} is no feature class of chalkpy's: put its @features on it.")
    prefix = f"{getattr(cls, 'namespace', '')}."
    names = [name.removeprefix(prefix) for name in leave_out]
    return read_class(cls, names) if names else of_class(cls)


def namespaces_of(*classes: type) -> list[Namespace]:
    """The namespaces of these classes; raises as `namespace_of` does."""
    return [namespace_of(cls) for cls in classes]
