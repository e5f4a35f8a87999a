"""The registry: which short id stands for which name.

Namespaces, groups and features have an entry each, under their full names `user`,
`user/realtime` and `user.risk`. Ids are counted within a scope: namespaces among themselves,
the groups of one namespace, the features of one namespace. An id is never given twice.

An entry lies in the table as two items of one partition: one under its name, one under its id,
put in one transaction on the condition that neither exists. So two processes can neither give
one id to two names nor one name two ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import msgspec

from chalk_online_store.codec.changes import Attributes, key_attributes
from chalk_online_store.codec.ids import free_ids
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.errors import RegistryError, TypeConflict
from chalk_online_store.schema import Namespace

PARTITION = "!registry"
"""No namespace's partition: "!" is in no id."""

NAMES_AFTER = "$"
"""Every sort key of a name comes after this one, every sort key of an id before it."""

_ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry knows of one name.

    `type` is a feature's type, a namespace's key type, or "group". `group` is the group of a
    feature, else "". `state` is "active".
    """

    name: str
    id: str
    type: str
    group: str = ""
    state: str = _ACTIVE

    @property
    def scope(self) -> str:
        """Within what the id is unique: "", `user/` or `user.`."""
        return scope_of(self.name)

    def items(self, layout: TableLayout) -> list[Attributes]:
        """The two items that it is stored as."""
        texts = {field.name: _text(getattr(self, field.name)) for field in fields(self)}
        by_name = key_attributes(layout, ItemKey(PARTITION, self.name))
        by_id = key_attributes(layout, ItemKey(PARTITION, f"#{self.scope}#{self.id}"))
        return [{**by_name, **texts}, {**by_id, "name": texts["name"]}]


def read_entry(item: Attributes) -> Entry:
    """The entry in a by-name item; raises `RegistryError` for one that is none."""
    try:
        texts = [msgspec.json.decode(item[f.name], type=dict[str, str])["S"] for f in fields(Entry)]
    except (KeyError, msgspec.DecodeError) as error:
        raise RegistryError(f"An item of the registry cannot be read: {error}.") from error
    return Entry(*texts)


def scope_of(name: str) -> str:
    """`user.` of `user.risk`, `user/` of `user/realtime`, "" of `user`."""
    for mark in (".", "/"):
        namespace, found, _ = name.partition(mark)
        if found:
            return namespace + mark
    return ""


@dataclass(frozen=True)
class Registry:
    """One reading of the registry: immutable, so threads share it without a lock."""

    entries: tuple[Entry, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """The entries by their full name."""
        return {entry.name: entry for entry in self.entries}

    def group_width(self, namespace: str, group: str) -> int:
        """How many features of a group are registered.

        Of two readings, the one with fewer has the first ones: whoever registers a feature has
        read all that were registered before it. So the number tells who knows more.
        """
        scope = f"{namespace}."
        return sum(1 for e in self.entries if e.group == group and e.scope == scope)

    def allocate(self, wanted: Iterable[Entry], reserved: frozenset[str]) -> list[Entry]:
        """The wanted entries, each with the shortest id that is free in its scope."""
        sources: dict[str, Iterator[str]] = {}
        allocated = []
        for entry in wanted:
            scope = entry.scope
            if scope not in sources:
                taken = {e.id for e in self.entries if e.scope == scope}
                sources[scope] = free_ids(taken | reserved)
            new = Entry(entry.name, next(sources[scope]), entry.type, entry.group, entry.state)
            allocated.append(new)
        return allocated

    def missing(self, namespace: Namespace) -> list[Entry]:
        """The entries, still without ids, that a namespace needs and the registry lacks.

        Raises `TypeConflict` or `RegistryError` where it has them otherwise.
        """
        wanted = [e for e in entries_of(namespace) if e.name not in self.by_name]
        for entry in entries_of(namespace):
            if entry.name in self.by_name:
                _check_same(entry, self.by_name[entry.name])
        return wanted


def entries_of(namespace: Namespace) -> list[Entry]:
    """What a namespace needs in the registry, its own entry first; the ids are empty."""
    key = ",".join(part.__name__.lower() for part in namespace.key.parts)
    own = Entry(namespace.name, "", f"({key})" if namespace.key.composite else key)
    groups = [Entry(f"{namespace.name}/{group}", "", "group") for group in namespace.groups]
    features = [
        Entry(namespace.full_name(feature), "", feature.type.name, feature.group)
        for feature in namespace.features
    ]
    return [own, *groups, *features]


def _check_same(wanted: Entry, found: Entry) -> None:
    if wanted.type != found.type:
        raise TypeConflict(
            f"{wanted.name} is {wanted.type} in the schema, but {found.type} in the table. "
            "Give the feature another name, or keep its type."
        )
    if wanted.group != found.group:
        raise RegistryError(
            f"{wanted.name} is in group {wanted.group!r} in the schema, but its values lie in "
            f"group {found.group!r}. Give the feature another name, or keep its group."
        )


def _text(value: str) -> bytes:
    return b'{"S":%b}' % msgspec.json.encode(value)
