"""The registry: which short id stands for which name.

Namespaces, groups and features have an entry each, under their full names `user`,
`user/realtime` and `user.risk`. Ids are counted within a scope: namespaces among themselves,
the groups of one namespace, the features of one namespace. An id is never given twice.

An entry lies in the table as two items of one partition: one under its name, one under its id,
put in one transaction on the condition that neither exists. So two processes can neither give
one id to two names nor one name two ids. `codec.registry` says how entries change later.

What is wrong concerns as little as possible. A schema that contradicts an entry loses that feature
(`Conflict`). An item that is not a valid entry, or two entries with one id, make the namespace that
they belong to unusable (`Registry.damage`): an id that is not known for sure could serve one
feature's values as another's, or be given twice. Other namespaces are not affected.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

import msgspec

from chalk_online_store.codec.changes import (
    MAX_TRANSACT_ITEMS,
    Attributes,
    ConditionalWrite,
    key_attributes,
    key_of,
)
from chalk_online_store.codec.layout import (
    ALPHABET,
    INDEXED,
    RESERVED,
    ItemKey,
    TableLayout,
    free_ids,
    indexed_id,
    place,
)
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import DamagedItem, RegistryError, TypeConflict, UnknownFeature
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

FILTER_MARK_PREFIX = "~bloom:"
"""Begins the sort key of what says that a namespace has a Bloom filter; the name follows."""

_HOME_REGION_KEY = "~home"
"""The sort key of what says in which region the registry is written."""

_MARKS = "~"
"""Begins the sort keys of what is not an entry; those of later versions are left alone."""

UNREADABLE_HOME = "?"
"""Stands for the home region if its item cannot be read: no region is called so."""

_NAME = "[A-Za-z_][A-Za-z0-9_@-]*"
_FULL_NAME = re.compile(rf"{_NAME}([./]{_NAME}([./][^./!]+)*)?")
_ID = re.compile(rf"({INDEXED})?[{ALPHABET}]{{1,16}}")
_MOST_SHOWN = 100
_REMEDY = (
    "Correct that item of the partition '!registry', or remove it and run `chalk-online-store "
    "registry import` with a lock file."
)


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
    return Entry(*(_read_text(item, field.name) for field in fields(Entry)))


def _read_text(item: Attributes, name: str) -> str:
    try:
        return msgspec.json.decode(item[name], type=dict[str, str])["S"]
    except (KeyError, *UNREADABLE) as error:
        raise RegistryError(f"An item of the registry cannot be read: {error}.") from error


def filter_mark(namespace: str, layout: TableLayout) -> Attributes:
    """The item that says that a namespace has a Bloom filter, also to who does not declare it."""
    return key_attributes(layout, ItemKey(PARTITION, f"{FILTER_MARK_PREFIX}{namespace}"))


def home_mark(region: str, layout: TableLayout) -> Attributes:
    """The item that says in which region the registry is written."""
    return {**key_attributes(layout, ItemKey(PARTITION, _HOME_REGION_KEY)), "region": _text(region)}


def read_items(
    items: Iterable[Attributes], layout: TableLayout, dropped: frozenset[str] = frozenset()
) -> Registry:
    """The registry in items whose sort key is after `NAMES_AFTER`.

    Items that are not valid entries are kept as `unreadable`. Raises `RegistryError` for one
    without a key.
    """
    entries, filtered, home = [], [], ""
    unreadable: list[tuple[str, str]] = []
    for item in items:
        sk = _sort_key(item, layout)
        if sk.startswith(FILTER_MARK_PREFIX):
            filtered.append(sk.removeprefix(FILTER_MARK_PREFIX))
        elif sk == _HOME_REGION_KEY:
            home = _read_home(item)
        elif not sk.startswith(_MARKS):
            try:
                entry = read_entry(item)
                _check_entry(entry, sk, layout)
            except RegistryError as error:
                unreadable.append((sk[:_MOST_SHOWN], str(error)))
            else:
                entries.append(entry)
    return Registry(tuple(entries), dropped, frozenset(filtered), home, tuple(unreadable))


def _sort_key(item: Attributes, layout: TableLayout) -> str:
    try:
        return key_of(layout, item).sk
    except DamagedItem as error:
        raise RegistryError("An item of the registry has no key.") from error


def _read_home(item: Attributes) -> str:
    try:
        return _read_text(item, "region")
    except RegistryError:
        return UNREADABLE_HOME


def _check_entry(entry: Entry, sk: str, layout: TableLayout) -> None:
    """Raise `RegistryError` for what no version of this library has written under a sort key."""
    name = entry.name
    if entry.state == RETIRED:
        name = name.removesuffix(f"{RETIRED_MARK}{entry.id}")
    if entry.name != sk or not _FULL_NAME.fullmatch(name):
        raise RegistryError("It has the name of another item.")
    if not _ID.fullmatch(entry.id) or entry.id in layout.reserved:
        raise RegistryError("Its id is not one that can be stored.")
    if entry.state not in (ACTIVE, ALIAS, RETIRED):
        raise RegistryError("Its state is unknown to this version.")


def check_name(name: str) -> None:
    """Refuse what cannot be a full name; raises `RegistryError`."""
    if not _FULL_NAME.fullmatch(name):
        raise RegistryError(f"{name!r} is no full name such as user.risk.")


def namespace_part(name: str) -> str:
    """`user` of `user`, `user.risk` and `user/realtime`."""
    return re.split("[./]", name, maxsplit=1)[0]


def _feature_part(name: str) -> str:
    """`risk` of `user.risk` and `user.risk.x`; "" of namespaces and groups."""
    return f"{name}..".split(".")[1]


def scope_of(name: str) -> str:
    """`user.` of `user.risk`, `user.a.` of `user.a.b`, `user/` of `user/realtime`, "" of `user`."""
    return name[: max(name.rfind("."), name.rfind("/")) + 1]


class Conflict(NamedTuple):
    """An error that is raised by each call that uses what a schema declares otherwise."""

    kind: type[RegistryError]
    message: str

    def error(self) -> RegistryError:
        """A new error."""
        return self.kind(self.message)


class Comparison(NamedTuple):
    """What the registry says of a schema's namespace.

    `missing` are the entries, still without ids, that it lacks, apart from those of conflicting
    features. `conflicts` are by the name of the feature. `damage` is why the namespace cannot be
    used at all; None if it can.
    """

    missing: list[Entry]
    conflicts: dict[str, Conflict]
    damage: Conflict | None


@dataclass(frozen=True)
class Registry:
    """One reading of the registry: immutable, so threads share it without a lock.

    `dropped` are names that this process has dropped itself. It neither uses nor registers them
    again, though its schema still has them. `filtered` are namespaces with a Bloom filter.
    `home` is the region that it is written in; "" where there are no regions. `unreadable` are
    the sort keys of items that are not valid entries, with the reasons.
    """

    entries: tuple[Entry, ...] = ()
    dropped: frozenset[str] = frozenset()
    filtered: frozenset[str] = frozenset()
    home: str = ""
    unreadable: tuple[tuple[str, str], ...] = ()

    @cached_property
    def damage(self) -> dict[str, str]:
        """By the name of a namespace, why its part of the registry cannot be relied on."""
        found = {
            namespace_part(sk): (
                f"The registry's item {sk!r} is not a valid entry. {reason} {_REMEDY}"
            )
            for sk, reason in self.unreadable
        }
        owners: dict[tuple[str, str], str] = {}
        for entry in self.entries:
            if entry.state == ALIAS:
                continue
            first = owners.setdefault((entry.scope, entry.id), entry.name)
            if first != entry.name:
                message = f"{first} and {entry.name} have one id in the registry. {_REMEDY}"
                for name in (first, entry.name):
                    found.setdefault(namespace_part(name), message)
        return found

    def check(self, *names: str) -> None:
        """Raise `RegistryError` if the namespace of one of these names, or any, is damaged."""
        wanted = {namespace_part(name) for name in names}
        for namespace, message in self.damage.items():
            if namespace in wanted or not names:
                raise RegistryError(message)

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

    def check_parents(self, wanted: Iterable[Entry]) -> None:
        """Raise `RegistryError` if what the wanted entries are to contain is registered already.

        Then the registry has lost them, and their values are stored under ids that nobody knows.
        """
        within = {entry.scope[:-1] for entry in self.entries if entry.state != RETIRED}
        within |= {f"{e.scope[:-1]}/{e.group}" for e in self.entries if e.group}
        for entry in wanted:
            if entry.name in within:
                raise RegistryError(
                    f"The registry lacks {entry.name}, though it has entries that belong to it. "
                    "Restore it from a lock file with `chalk-online-store registry import`."
                )

    def groups_of(self, namespace: str) -> Iterator[tuple[str, int]]:
        """The id and the width of every group of a namespace, whichever schema declares it.

        The width is the number of features that the group ever had, dropped ones included.
        """
        scope = f"{namespace}."
        features = Counter(e.group for e in self.entries if e.scope == scope and e.state != ALIAS)
        for entry in self.entries:
            if entry.scope == f"{namespace}/":
                yield entry.id, features[entry.name.removeprefix(entry.scope)]

    def allocate(self, wanted: Iterable[Entry], reserved: frozenset[str]) -> list[Entry]:
        """The wanted entries, each with the shortest id that is free in its scope.

        Entries that are wanted with the id `INDEXED` get one that is unique in the table.
        """
        sources: dict[str, Iterator[str]] = {}
        table = {e.id for e in self.entries if e.id.startswith(INDEXED)} | reserved
        allocated = []
        for entry in wanted:
            scope = entry.scope
            if scope not in sources:
                taken = {e.id for e in self.entries if e.scope == scope}
                sources[scope] = free_ids(taken | reserved)
            if entry.id == INDEXED:
                id_ = indexed_id(entry.name, table)
                table.add(id_)
            else:
                id_ = next(sources[scope])
            new = Entry(entry.name, id_, entry.type, entry.group, entry.state)
            allocated.append(new)
        return allocated

    def missing(self, namespace: Namespace) -> list[Entry]:
        """The entries, still without ids, that a namespace needs and the registry lacks.

        Raises `TypeConflict` or `RegistryError` if it has any of them otherwise.
        """
        found = self.compare(namespace)
        for conflict in (found.damage, *found.conflicts.values()):
            if conflict is not None:
                raise conflict.error()
        return found.missing

    def compare(self, namespace: Namespace) -> Comparison:
        """Hold a namespace against the registry."""
        damage = None
        if namespace.name in self.damage:
            damage = Conflict(RegistryError, self.damage[namespace.name])
        wanted: list[Entry] = []
        known: list[Entry] = []
        conflicts: dict[str, Conflict] = {}
        for entry in entries_of(namespace):
            found = self.by_name.get(entry.name)
            if found is None:
                if not self._is_dropped(entry.name):
                    wanted.append(entry)
                continue
            known.append(found)
            conflict = _conflict(entry, found)
            if conflict is not None and (feature := _feature_part(entry.name)):
                conflicts.setdefault(feature, conflict)
            else:
                damage = damage or conflict
        _find_double_names(known, conflicts)
        return Comparison(_without(wanted, namespace, conflicts), conflicts, damage)

    def _is_dropped(self, name: str) -> bool:
        """Whether this process dropped a name, or the struct that the named field is in."""
        return any(name == gone or name.startswith(f"{gone}.") for gone in self.dropped)


def entries_of(namespace: Namespace) -> list[Entry]:
    """What a namespace needs in the registry, its own entry first.

    The ids are empty, or `INDEXED` for features that vector indexes cover.
    """
    key = ",".join(part.__name__.lower() for part in namespace.key.parts)
    own = Entry(namespace.name, "", f"({key})" if namespace.key.composite else key)
    groups = [Entry(f"{namespace.name}/{group}", "", "group") for group in namespace.groups]
    features = [
        Entry(
            namespace.full_name(feature),
            INDEXED if feature.name in namespace.indexed else "",
            feature.type.name,
            feature.group,
        )
        for feature in namespace.features
    ]
    fields = [
        Entry(path, "", field.element.type.name)
        for feature in namespace.features
        for path, field in struct_fields(feature.type, namespace.full_name(feature))
    ]
    return [own, *groups, *features, *fields]


def _conflict(wanted: Entry, found: Entry) -> Conflict | None:
    if wanted.type != found.type:
        return Conflict(
            TypeConflict,
            f"{wanted.name} is {wanted.type} in the schema, but {found.type} in the table. "
            "Give the feature another name, keep its type, or drop what is there first. "
            "Calls that do not use it are not affected.",
        )
    if wanted.group != found.group:
        return Conflict(
            RegistryError,
            f"{wanted.name} is in group {wanted.group!r} in the schema, but its values lie in "
            f"group {found.group!r}. Give the feature another name, or keep its group. "
            "Calls that do not use it are not affected.",
        )
    return None


def _find_double_names(known: Iterable[Entry], conflicts: dict[str, Conflict]) -> None:
    """Note features that a schema declares under an old name and under the new one."""
    names: dict[tuple[str, str], str] = {}
    for entry in known:
        first = names.setdefault((entry.scope, entry.id), entry.name)
        if first != entry.name:
            conflict = Conflict(
                RegistryError,
                f"{first} and {entry.name} are two names of one feature, since a rename. "
                "Declare one of them.",
            )
            for name in (first, entry.name):
                conflicts.setdefault(_feature_part(name), conflict)


def _without(
    wanted: Iterable[Entry], namespace: Namespace, conflicts: Container[str]
) -> list[Entry]:
    """The wanted entries that are not for conflicting features alone."""
    groups = {f.group for f in namespace.features if f.name not in conflicts}
    return [
        entry
        for entry in wanted
        if _feature_part(entry.name) not in conflicts
        and (entry.type != "group" or entry.name.removeprefix(entry.scope) in groups)
    ]


def _text(value: str) -> bytes:
    return b'{"S":%b}' % msgspec.json.encode(value)


# --- What becomes of the registry: entries are added, renamed, dropped, or taken over ------
#
# Each function answers the transactions that are left to do by one reading of the registry, and
# none where all is done. So whoever performs them may be interrupted, or be overtaken by other
# processes, and goes on from a new reading.


Transactions: TypeAlias = list[list[ConditionalWrite]]

Identity: TypeAlias = tuple[str, str]
"""Scope and id."""


def identity(entry: Entry) -> Identity:
    """What an entry stands for, whatever it is called."""
    return entry.scope, entry.id


def entered(
    entries: Iterable[Entry],
    layout: TableLayout,
    with_them: Mapping[str, list[ConditionalWrite]] | None = None,
) -> Transactions:
    """Put entries whose names and ids are both free; and with some, by name, what else there is."""
    more = with_them or {}
    return _packed(
        [*(ConditionalWrite(None, item) for item in entry.items(layout)), *more.get(entry.name, ())]
        for entry in entries
    )


def renamed(registry: Registry, old: str, new: str, layout: TableLayout) -> Transactions:
    """Give a feature, or a struct's field, a new name; the old one stays as an alias.

    Raises `UnknownFeature` and, where the new name is not free, `RegistryError`.
    """
    found = registry.by_name.get(old)
    if found is None:
        raise UnknownFeature(f"{old} is not in the registry.")
    target = registry.by_name.get(new)
    _check_renaming(registry, found, target, new)
    if target is not None and target.state == ACTIVE:
        return []
    names = [e for e in registry.by_name.values() if identity(e) == identity(found)]
    active = _active(names)
    after = replace(active, name=new)
    return [
        [
            ConditionalWrite(target.name_item(layout) if target else None, after.name_item(layout)),
            ConditionalWrite(
                active.name_item(layout), replace(active, state=ALIAS).name_item(layout)
            ),
            ConditionalWrite(active.id_item(layout), after.id_item(layout)),
        ]
    ]


def _check_renaming(registry: Registry, found: Entry, target: Entry | None, new: str) -> None:
    check_name(new)
    if "." not in found.scope or scope_of(new) != found.scope:
        raise RegistryError(
            f"{found.name} cannot become {new}: features and fields of structs can be renamed, "
            "each within what it belongs to."
        )
    if any(name.startswith(f"{found.name}.") for name in registry.by_name):
        raise RegistryError(f"{found.name} cannot be renamed: it is a struct with fields.")
    if target is not None and identity(target) != identity(found):
        raise RegistryError(f"{found.name} cannot become {new}: that is another feature.")


def family(registry: Registry, name: str) -> frozenset[Identity]:
    """What goes when a name is dropped: a feature, or a field, and the fields within it.

    Empty where the registry does not have the name. Raises `RegistryError` for namespaces and
    groups, which cannot be dropped.
    """
    found = registry.by_name.get(name)
    if found is None:
        return frozenset()
    if "." not in found.scope:
        raise RegistryError(f"{name} cannot be dropped: only features and fields of structs can.")
    within = [e for e in registry.by_name.values() if e.name.startswith(f"{name}.")]
    return frozenset(map(identity, (found, *within)))


def dropped(registry: Registry, doomed: Collection[Identity], layout: TableLayout) -> Transactions:
    """Retire ids: their names become free, and a retired entry stays of each."""
    names: dict[Identity, list[Entry]] = {}
    for entry in registry.entries:
        if entry.state != RETIRED and identity(entry) in doomed:
            names.setdefault(identity(entry), []).append(entry)
    # Fields before what they are in: a drop that was cut off finds them by its name again.
    deepest_first = sorted(names.values(), key=lambda entries: -entries[0].name.count("."))
    return _packed(_retired(entries, layout) for entries in deepest_first)


def _active(names: Sequence[Entry]) -> Entry:
    """The one that is not an alias; raises `RegistryError` if the registry has lost it."""
    for entry in names:
        if entry.state == ACTIVE:
            return entry
    raise RegistryError(
        f"{names[0].name} is an alias of a feature that the registry lacks. Restore that from a "
        "lock file with `chalk-online-store registry import`."
    )


def _retired(names: Sequence[Entry], layout: TableLayout) -> list[ConditionalWrite]:
    active = _active(names)
    kept = replace(active, name=f"{active.name}{RETIRED_MARK}{active.id}", state=RETIRED)
    freed = [ConditionalWrite(entry.name_item(layout), None) for entry in names]
    return [*freed, ConditionalWrite(None, kept.name_item(layout))]


def adopted(registry: Registry, entries: Iterable[Entry], layout: TableLayout) -> Transactions:
    """Put entries of another registry under exactly their ids, as far as they are not there.

    Raises `RegistryError` where a name or an id is taken otherwise.
    """
    present = {entry.name: entry for entry in registry.entries}
    owners = {identity(e): e.name for e in registry.entries if e.state != ALIAS}
    wanted = [entry for entry in entries if present.get(entry.name) != entry]
    for entry in wanted:
        if entry.id in layout.reserved:
            raise RegistryError(f"The id {entry.id!r} of {entry.name} names a key of this table.")
        owner = None if entry.state == ALIAS else owners.get(identity(entry))
        if entry.name in present or owner is not None:
            other = present.get(entry.name) or present[owner or ""]
            raise RegistryError(f"{describe(entry)} is in the way of {describe(other)}.")
    # In the order of registration, so that whoever registers meanwhile collides with us.
    wanted.sort(key=lambda entry: (entry.state == ALIAS, place(entry.id)))
    return entered(wanted, layout)


def describe(entry: Entry) -> str:
    """`user.risk (float, id c, group default, active)`."""
    group = f"group {entry.group}" if entry.group else ""
    facts = (entry.type, f"id {entry.id}", group, entry.state)
    return f"{entry.name} ({', '.join(filter(None, facts))})"


def _packed(parts: Iterable[list[ConditionalWrite]]) -> Transactions:
    """As few transactions as hold the parts, none of which is torn."""
    transactions: Transactions = [[]]
    for part in parts:
        if len(transactions[-1]) + len(part) > MAX_TRANSACT_ITEMS:
            transactions.append([])
        transactions[-1] += part
    return [transaction for transaction in transactions if transaction]
