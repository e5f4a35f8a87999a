"""The registry: which short id stands for which name.

Namespaces, groups and features have an entry each, under their full names `user`,
`user/realtime` and `user.risk`. Ids are counted within a scope: namespaces among themselves,
the groups of one namespace, the features of one namespace. An id is never given twice.

An entry lies in the table as two items of one partition: one under its name, one under its id,
put in one transaction on the condition that neither exists. So two processes can neither give
one id to two names nor one name two ids. `codec.registry_edits` says how entries change later.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import msgspec

from chalk_online_store.codec.changes import Attributes, key_attributes, key_of
from chalk_online_store.codec.ids import free_ids
from chalk_online_store.codec.layout import RESERVED, ItemKey, TableLayout
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import RegistryError, TypeConflict
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import struct_fields

PARTITION = f"{RESERVED}registry"

NAMES_AFTER = "$"
"""Every sort key of a name comes after this one, every sort key of an id before it."""

ACTIVE = "active"
ALIAS = "alias"
"""The state of an old name after a rename: it still stands for the id, which has a new name."""
RETIRED = "retired"
"""The state of what was dropped: the name is free, the id never again."""

RETIRED_MARK = "!"
"""In no name. A retired entry is called `user.risk!c`, so that `user.risk` is free."""

FILTERED = "~bloom:"
"""Begins the sort key of what says that a namespace has a Bloom filter; the name follows."""

_HOME = "~home"
"""The sort key of what says in which region the registry is written."""

_NAME = "[A-Za-z_][A-Za-z0-9_@-]*"
_ID = re.compile(r"[A-Za-z0-9]{1,16}")
_FULL_NAME = re.compile(rf"{_NAME}([./]{_NAME}([./][^./!]+)*)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry knows of one name.

    `type` is a feature's type, a namespace's key type, or "group". `group` is the group of a
    feature, else "". `state` is "active", "alias" or "retired".
    """

    name: str
    id: str
    type: str
    group: str = ""
    state: str = ACTIVE

    @property
    def scope(self) -> str:
        """Within what the id is unique: "", `user/`, `user.` or `user.address.`."""
        return scope_of(self.name)

    def items(self, layout: TableLayout) -> list[Attributes]:
        """What it is stored as. The id of an alias is held by the feature's present name."""
        names = [self.name_item(layout)]
        return names if self.state == ALIAS else [*names, self.id_item(layout)]

    def name_item(self, layout: TableLayout) -> Attributes:
        """The item under its name, which says all of it."""
        texts = {field.name: _text(getattr(self, field.name)) for field in fields(self)}
        return {**key_attributes(layout, ItemKey(PARTITION, self.name)), **texts}

    def id_item(self, layout: TableLayout) -> Attributes:
        """The item under its id, which keeps the id from being given again."""
        key = ItemKey(PARTITION, f"#{self.scope}#{self.id}")
        return {**key_attributes(layout, key), "name": _text(self.name)}


def read_entry(item: Attributes) -> Entry:
    """The entry in a by-name item; raises `RegistryError` for one that is none."""
    entry = Entry(*(_read_text(item, field.name) for field in fields(Entry)))
    if not _ID.fullmatch(entry.id):
        raise RegistryError("An item of the registry has an id that was never allocated.")
    return entry


def _read_text(item: Attributes, name: str) -> str:
    try:
        return msgspec.json.decode(item[name], type=dict[str, str])["S"]
    except (KeyError, *UNREADABLE) as error:
        raise RegistryError(f"An item of the registry cannot be read: {error}.") from error


def filter_mark(namespace: str, layout: TableLayout) -> Attributes:
    """The item that says that a namespace has a Bloom filter, also to who does not declare it."""
    return key_attributes(layout, ItemKey(PARTITION, f"{FILTERED}{namespace}"))


def home_mark(region: str, layout: TableLayout) -> Attributes:
    """The item that says in which region the registry is written."""
    return {**key_attributes(layout, ItemKey(PARTITION, _HOME)), "region": _text(region)}


def read_items(
    items: Iterable[Attributes], layout: TableLayout, dropped: frozenset[str] = frozenset()
) -> Registry:
    """The registry in items whose sort key is after `NAMES_AFTER`; raises `RegistryError`."""
    entries, filtered, home = [], [], ""
    for item in items:
        sk = key_of(layout, item).sk
        if sk.startswith(FILTERED):
            filtered.append(sk.removeprefix(FILTERED))
        elif sk == _HOME:
            home = _read_text(item, "region")
        else:
            entries.append(read_entry(item))
    return Registry(tuple(entries), dropped, frozenset(filtered), home)


def check_name(name: str) -> None:
    """Refuse what cannot be a full name; raises `RegistryError`."""
    if not _FULL_NAME.fullmatch(name):
        raise RegistryError(f"{name!r} is no full name such as user.risk.")


def scope_of(name: str) -> str:
    """`user.` of `user.risk`, `user.a.` of `user.a.b`, `user/` of `user/realtime`, "" of `user`."""
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


@dataclass(frozen=True)
class Registry:
    """One reading of the registry: immutable, so threads share it without a lock.

    `dropped` are names that this process has dropped itself. It neither uses nor registers them
    again, though its schema still has them. `filtered` are namespaces with a Bloom filter.
    `home` is the region that it is written in; "" where there are no regions.
    """

    entries: tuple[Entry, ...] = ()
    dropped: frozenset[str] = frozenset()
    filtered: frozenset[str] = frozenset()
    home: str = ""

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """The entries of every name that stands for something, aliases included."""
        return {
            entry.name: entry
            for entry in self.entries
            if entry.state != RETIRED and not self._is_dropped(entry.name)
        }

    def may_be_written_in(self, region: str) -> bool:
        """Whether that is the home region, or there is none yet."""
        return self.home in ("", region)

    def is_older_than(self, other: Registry) -> bool:
        """Whether it has fewer ids than another reading: no id is ever forgotten."""
        return len(self._identities) < len(other._identities)

    @cached_property
    def _identities(self) -> frozenset[tuple[str, str]]:
        return frozenset((entry.scope, entry.id) for entry in self.entries)

    def ids_of_group(self, namespace: str, group: str, state: str) -> tuple[str, ...]:
        """The ids of the features of a group that are active, or were dropped.

        Of two readings, the one with fewer ids of both kinds has the first ones: whoever
        registers a feature has read all that were registered before it, and no id is ever
        forgotten. So their number tells who knows more.
        """
        scope = f"{namespace}."
        return tuple(
            e.id for e in self.entries if e.group == group and e.state == state and e.scope == scope
        )

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
        wanted: list[Entry] = []
        known: list[Entry] = []
        for entry in entries_of(namespace):
            found = self.by_name.get(entry.name)
            if found is not None:
                _check_same(entry, found)
                known.append(found)
            elif not self._is_dropped(entry.name):
                wanted.append(entry)
        _check_one_name_each(known)
        self._check_one_holder_each(known)
        return wanted

    def _check_one_holder_each(self, known: Iterable[Entry]) -> None:
        """Refuse an id that was given to two names: the values of both are stored in one place."""
        for entry in known:
            holders = self._holders[entry.scope, entry.id]
            if len(holders) > 1:
                names = " and ".join(sorted(holders)[:2])
                raise RegistryError(
                    f"{names} have one id in the registry, which was damaged or edited. Restore "
                    "the registry, or drop one of the names."
                )

    @cached_property
    def _holders(self) -> dict[tuple[str, str], set[str]]:
        """The names in use by scope and id, without aliases."""
        holders: dict[tuple[str, str], set[str]] = defaultdict(set)
        for entry in self.entries:
            if entry.state == ACTIVE:
                holders[entry.scope, entry.id].add(entry.name)
        return holders

    def _is_dropped(self, name: str) -> bool:
        """Whether this process dropped a name, or the struct that the named field is in."""
        return any(name == gone or name.startswith(f"{gone}.") for gone in self.dropped)


def entries_of(namespace: Namespace) -> list[Entry]:
    """What a namespace needs in the registry, its own entry first; the ids are empty."""
    key = ",".join(part.__name__.lower() for part in namespace.key.parts)
    own = Entry(namespace.name, "", f"({key})" if namespace.key.composite else key)
    groups = [Entry(f"{namespace.name}/{group}", "", "group") for group in namespace.groups]
    features = [
        Entry(namespace.full_name(feature), "", feature.type.name, feature.group)
        for feature in namespace.features
    ]
    fields = [
        Entry(path, "", field.element.type.name)
        for feature in namespace.features
        for path, field in struct_fields(feature.type, namespace.full_name(feature))
    ]
    return [own, *groups, *features, *fields]


def _check_same(wanted: Entry, found: Entry) -> None:
    if wanted.type != found.type:
        raise TypeConflict(
            f"{wanted.name} is {wanted.type} in the schema, but {found.type} in the table. "
            "Give the feature another name, keep its type, or drop what is there first."
        )
    if wanted.group != found.group:
        raise RegistryError(
            f"{wanted.name} is in group {wanted.group!r} in the schema, but its values lie in "
            f"group {found.group!r}. Give the feature another name, or keep its group."
        )


def _check_one_name_each(known: Iterable[Entry]) -> None:
    """A schema must not have a feature under its old name and under its new one."""
    names: dict[tuple[str, str], str] = {}
    for entry in known:
        first = names.setdefault((entry.scope, entry.id), entry.name)
        if first != entry.name:
            raise RegistryError(
                f"{first} and {entry.name} are two names of one feature, since a rename. "
                "Declare one of them."
            )


def _text(value: str) -> bytes:
    return b'{"S":%b}' % msgspec.json.encode(value)
