"""A schema from a table's registry, for looking into it without the code that wrote it.

The registry has names, types and groups, but neither how long values may be served nor which of
them may be null: by such a schema nothing is ever stale, and nothing should be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import GenericAlias
from typing import Any, TypedDict
from uuid import UUID

from chalk_online_store.codec.registry import ACTIVE, Entry, Registry
from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema import Feature, Namespace
from chalk_online_store.schema.annotations import Document
from chalk_online_store.schema.types import SCALARS, Vector

_SCALARS: dict[str, Any] = {scalar.name: kind for kind, scalar in SCALARS.items()}
_KEYS: dict[str, type] = {"int": int, "str": str, "uuid": UUID}
_VECTOR = re.compile(r"vector\[(\d+),(f\d)\]")
_GENERIC = re.compile(r"(list|tuple|set|dict)\[(.*)\]")


def registered_namespace(registry: Registry, name: str) -> Namespace:
    """A namespace as a registry has it; raises `InvalidSchema` where it has none of this name.

    Raises `RegistryError` where its part of the registry is damaged.
    """
    registry.check(name)
    active = [entry for entry in registry.entries if entry.state == ACTIVE]
    own = next((e for e in active if e.name == name and not e.scope), None)
    if own is None:
        known = ", ".join(sorted(e.name for e in active if not e.scope and "/" not in e.name))
        raise InvalidSchema(f"The table has no namespace {name!r}; it has: {known or 'none'}.")
    types = _Types(active)
    features = [
        Feature(e.name.partition(".")[2], types.of(e), group=e.group)
        for e in active
        if e.scope == f"{name}."
    ]
    return Namespace(name, _key(own.type), features, key_name=_free_name(features))


def _free_name(features: list[Feature]) -> str:
    """What rows call the primary key: the registry does not know."""
    names = {feature.name for feature in features}
    return "id" if "id" not in names else "primary_key"


def _key(name: str) -> Any:
    parts = tuple(_KEYS[part] for part in name.strip("()").split(","))
    return tuple[parts] if name.startswith("(") else parts[0]  # type: ignore[valid-type]


class _Types:
    """What the names of types in a registry stand for."""

    def __init__(self, active: list[Entry]) -> None:
        self._active = active

    def of(self, entry: Entry) -> Any:
        """A feature's annotation; all may be null."""
        return _nullable(self._read(entry.type, entry.name))

    def _read(self, name: str, path: str) -> Any:
        if name in _SCALARS:
            return _SCALARS[name]
        if name == "document":
            return Document
        if name == "struct":
            return self._struct(path)
        if found := _VECTOR.fullmatch(name):
            return Vector.__class_getitem__((int(found[1]), found[2]))
        if found := _GENERIC.fullmatch(name):
            return self._generic(found[1], [*_split(found[2])], path)
        raise InvalidSchema(f"The registry has a type {name!r}, which this version does not know.")

    def _struct(self, path: str) -> Any:
        """A TypedDict of the fields that are registered under a path."""
        fields = {e.name.removeprefix(f"{path}."): e for e in self._active if e.scope == f"{path}."}
        annotations = {name: self.of(entry) for name, entry in fields.items()}
        return TypedDict(path.replace(".", "_"), annotations, total=False)  # type: ignore[operator]

    def _generic(self, kind: str, parts: list[str], path: str) -> Any:
        if kind == "tuple":  # Its places are part of a path.
            places = [self._read(part, f"{path}.{place}") for place, part in enumerate(parts)]
            return GenericAlias(tuple, tuple(map(_nullable, places)))
        element = self._read(parts[0], path)
        match kind:
            case "set":
                return GenericAlias(set, element)
            case "list":
                return GenericAlias(list, _nullable(element))
        return GenericAlias(dict, (str, _nullable(element)))


def _nullable(annotation: Any) -> Any:
    return annotation if annotation in (None, type(None), Any, Document) else annotation | None


def _split(text: str) -> Iterator[str]:
    """Parts between commas that lie in no brackets."""
    depth, part = 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and not depth:
            yield part
            part = ""
        else:
            part += character
    yield part
