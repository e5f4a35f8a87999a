"""What becomes of the registry: entries are added, renamed, dropped, or taken over.

Each function answers the transactions that are left to do by one reading of the registry, and
none where all is done. So whoever performs them may be interrupted, or be overtaken by other
processes, and goes on from a new reading.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from chalk_online_store.codec.ids import place
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.registry import (
    ACTIVE,
    ALIAS,
    RETIRED,
    RETIRED_MARK,
    Entry,
    Registry,
    check_name,
    scope_of,
)
from chalk_online_store.codec.swaps import MAX_TRANSACT_ITEMS, ConditionalWrite
from chalk_online_store.errors import RegistryError, UnknownFeature

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
