"""The registry as a map: which ids are given to whom, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import Feature, Namespace, RegistryError, TypeConflict, UnknownFeature
from chalk_online_store.codec import registry as edits
from chalk_online_store.codec.changes import Attributes, key_of, parse_item, render_item
from chalk_online_store.codec.layout import ItemKey, TableLayout, all_ids
from chalk_online_store.codec.registry import (
    ACTIVE,
    ALIAS,
    NAMES_AFTER,
    PARTITION,
    RETIRED,
    Entry,
    Registry,
    entries_of,
    home_mark,
    read_entry,
    read_items,
    scope_of,
)
from tests.strategies import vector

LAYOUT = TableLayout()
NOTHING: frozenset[str] = frozenset()


def namespace(name: str = "user", key: Any = int, **annotations: Any) -> Namespace:
    return Namespace(name, key, tuple(Feature(n, t) for n, t in annotations.items()))


def registered(*namespaces: Namespace, reserved: frozenset[str] = NOTHING) -> Registry:
    """A registry to which namespaces were added one after the other."""
    registry = Registry()
    for added in namespaces:
        new = registry.allocate(registry.missing(added), reserved)
        registry = Registry((*registry.entries, *new))
    return registry


def ids(registry: Registry) -> dict[str, str]:
    return {name: entry.id for name, entry in registry.by_name.items()}


def test_what_a_namespace_needs() -> None:
    """A namespace has an entry of its own, one per group and one per feature, with their types."""
    grouped = Feature("risk", float, group="realtime")
    wanted = entries_of(Namespace("user", int, (Feature("email", str), grouped)))
    assert wanted == [
        Entry("user", "", "int"),
        Entry("user/default", "", "group"),
        Entry("user/realtime", "", "group"),
        Entry("user.email", "", "str", "default"),
        Entry("user.risk", "", "float", "realtime"),
    ]


@pytest.mark.parametrize(
    ("key", "kind"),
    [(int, "int"), (UUID, "uuid"), (tuple[int, str], "(int,str)"), (tuple[int], "(int)")],
)
def test_the_type_of_a_key_is_registered(key: Any, kind: str) -> None:
    """A key and a tuple of one such key are different types, since they are stored differently."""
    assert entries_of(namespace(key=key))[0].type == kind


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str | None, "str"),
        (Literal[1, 2], "int"),
        (vector[3], "vector[3,f2]"),
        (vector[3, "f4"], "vector[3,f4]"),
    ],
)
def test_the_type_of_a_feature_is_what_is_stored(annotation: Any, kind: str) -> None:
    """Allowing null or naming choices does not change the type; a vector's shape does."""
    assert entries_of(namespace(x=annotation))[-1].type == kind


def test_the_shortest_ids_are_given_first() -> None:
    """Ids are given in the schema's order, and go on where the last ones ended."""
    features: dict[str, Any] = {f"f{number}": int for number in range(70)}
    first = registered(namespace(**features))
    assert [first.by_name[f"user.f{n}"].id for n in (0, 61, 62)] == ["a", "9", "aa"]
    second = registered(namespace(**features), namespace(**features, later=int))
    assert second.by_name["user.later"].id == "ai"


def test_scopes_are_independent() -> None:
    """Namespaces, groups of a namespace and features of a namespace are each counted apart."""
    registry = registered(namespace("user", x=int, y=int), namespace("shop", x=int))
    assert ids(registry) == {
        "user": "a",
        "user/default": "a",
        "user.x": "a",
        "user.y": "b",
        "shop": "b",
        "shop/default": "a",
        "shop.x": "a",
    }


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("user", ""),
        ("user.risk", "user."),
        ("user/now", "user/"),
        ("a_b-c@d.e-f@g", "a_b-c@d."),
        ("user.address.street", "user.address."),
        ("user.risk!c", "user."),
    ],
)
def test_the_scope_of_a_name(name: str, scope: str) -> None:
    """The mark in a full name says whose ids it is counted among."""
    assert scope_of(name) == Entry(name, "a", "int").scope == scope


@given(st.sets(st.sampled_from(list(itertools.islice(all_ids(), 30)))), st.integers(1, 40))
def test_reserved_names_are_no_ids(reserved: set[str], count: int) -> None:
    """No id is the name of a table's key or TTL, and no id is skipped but those."""
    features: dict[str, Any] = {f"f{number}": int for number in range(count)}
    registry = registered(namespace(**features), reserved=frozenset(reserved))
    found = [registry.by_name[f"user.f{number}"].id for number in range(count)]
    free = (name for name in all_ids() if name not in reserved)
    assert found == list(itertools.islice(free, count))


@given(st.lists(st.dictionaries(st.sampled_from("pqrstuvw"), st.just(int)), max_size=6))
def test_an_id_never_changes(schemas: list[dict[str, Any]]) -> None:
    """However a schema grows and shrinks, each name keeps its id and no id has two names."""
    registry = Registry()
    for schema in schemas:
        before = ids(registry)
        new = registry.allocate(registry.missing(namespace(**schema)), NOTHING)
        registry = Registry((*registry.entries, *new))
        assert ids(registry) == before | ids(registry)
        scoped = [(entry.scope, entry.id) for entry in registry.entries]
        assert len(set(scoped)) == len(scoped)


def test_nothing_is_missing_twice() -> None:
    """What is registered is not asked for again; only what a schema adds is."""
    registry = registered(namespace(x=int))
    assert registry.missing(namespace(x=int)) == []
    assert registry.missing(namespace()) == []
    assert [e.name for e in registry.missing(namespace(x=int, y=str))] == ["user.y"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (namespace(x=int), namespace(x=str), "user.x is str .* but int in the table"),
        (namespace(x=vector[2]), namespace(x=vector[3]), r"vector\[3,f2\] .* but vector\[2,f2\]"),
        (namespace(key=int), namespace(key=str), "user is str .* but int"),
        (namespace(key=tuple[int]), namespace(key=int), r"user is int .* but \(int\)"),
    ],
)
def test_another_type_is_refused(before: Namespace, after: Namespace, message: str) -> None:
    """A name whose values are stored otherwise raises `TypeConflict` with both types."""
    with pytest.raises(TypeConflict, match=message):
        registered(before).missing(after)


def test_another_group_is_refused() -> None:
    """A feature does not move to another item by being declared there; both groups are named."""
    moved = Namespace("user", int, (Feature("x", int, group="now"),))
    with pytest.raises(RegistryError, match=r"user\.x is in group 'now' .* group 'default'"):
        registered(namespace(x=int)).missing(moved)


def test_a_conflict_is_found_among_new_features() -> None:
    """New names beside a changed one do not hide the conflict."""
    with pytest.raises(TypeConflict, match=r"user\.x"):
        registered(namespace(x=int)).missing(namespace(w=int, x=str, y=int))


def test_the_ids_of_a_group() -> None:
    """A group has the features that were registered in it, of its namespace alone."""
    features = (Feature("x", int), Feature("y", int), Feature("z", int, group="now"))
    registry = registered(
        Namespace("user", int, features), namespace("user2", x=int), namespace(x=int)
    )
    assert registry.ids_of_group("user", "default", ACTIVE) == ("a", "b")
    assert registry.ids_of_group("user", "now", ACTIVE) == ("c",)
    assert registry.ids_of_group("shop", "default", ACTIVE) == ()


# --- what becomes of entries ---------------------------------------------------------------


class Table:
    """The registry's items, to which transactions apply as a backend would."""

    def __init__(self) -> None:
        self.items: dict[ItemKey, Attributes] = {}

    @property
    def registry(self) -> Registry:
        found = sorted((key.sk, item) for key, item in self.items.items() if key.sk > NAMES_AFTER)
        return Registry(tuple(read_entry(item) for _, item in found))

    def perform(self, transactions: edits.Transactions) -> None:
        for swaps in transactions:
            keys = [swap.key(LAYOUT) for swap in swaps]
            assert len(set(keys)) == len(keys) <= 100
            assert all(self.items.get(k) == s.before for k, s in zip(keys, swaps, strict=True))
            for key, swap in zip(keys, swaps, strict=True):
                self.items.pop(key, None)
                if swap.after is not None:
                    self.items[key] = swap.after

    def register(self, namespace: Namespace) -> None:
        registry = self.registry
        new = registry.allocate(registry.missing(namespace), NOTHING)
        self.perform(edits.entered(new, LAYOUT))

    def rename(self, old: str, new: str) -> None:
        self.perform(edits.renamed(self.registry, old, new, LAYOUT))
        assert edits.renamed(self.registry, old, new, LAYOUT) == []

    def drop(self, name: str) -> None:
        doomed = edits.family(self.registry, name)
        self.perform(edits.dropped(self.registry, doomed, LAYOUT))
        assert edits.dropped(self.registry, doomed, LAYOUT) == []

    def check(self) -> None:
        """Each id has one name, aliases apart, and is held by one item; all names differ."""
        registry = self.registry
        owners = [edits.identity(entry) for entry in registry.entries if entry.state != ALIAS]
        assert len(set(owners)) == len(owners)
        aliases = {edits.identity(entry) for entry in registry.entries if entry.state == ALIAS}
        active = {edits.identity(entry) for entry in registry.entries if entry.state == ACTIVE}
        assert aliases <= active
        held = {key.sk for key in self.items if key.sk < NAMES_AFTER}
        assert held == {f"#{scope}#{name_id}" for scope, name_id in owners}


LETTERS = st.sampled_from("pqrs")
STEPS = st.one_of(
    st.tuples(st.just("register"), LETTERS, st.sampled_from([int, str])),
    st.tuples(st.just("rename"), LETTERS, LETTERS),
    st.tuples(st.just("drop"), LETTERS, st.none()),
)


@given(st.lists(STEPS, max_size=15))
def test_names_come_and_go_but_ids_stay(steps: list[Any]) -> None:
    """Whatever is registered, renamed and dropped: no id ever stands for another feature."""
    table = Table()
    given: list[str] = []
    for what, name, more in steps:
        before = features_of(table.registry)
        try:
            if what == "register":
                table.register(namespace(**{name: more}))
            elif what == "rename":
                table.rename(f"user.{name}", f"user.{more}")
            else:
                table.drop(f"user.{name}")
        except (RegistryError, UnknownFeature):
            assert features_of(table.registry) == before
        table.check()
        present = features_of(table.registry)
        assert all(present[n] == before[n] for n in present.keys() & before.keys())
        if what == "register":
            given += [present[n] for n in present.keys() - before.keys()]
        retired = table.registry.ids_of_group("user", "default", RETIRED)
        assert sorted({*retired, *present.values()}) == sorted(given)
        assert not set(retired) & set(present.values())


def features_of(registry: Registry) -> dict[str, str]:
    return {name: name_id for name, name_id in ids(registry).items() if "." in name}


def test_large_edits_are_split() -> None:
    """Thousands of entries go by transactions of at most 100 items, none torn apart."""
    features: dict[str, Any] = {f"f{number}": int for number in range(120)}
    table = Table()
    table.register(namespace(**features))
    everything = frozenset(edits.identity(e) for e in table.registry.entries if e.scope == "user.")
    table.perform(edits.dropped(table.registry, everything, LAYOUT))
    assert len(table.registry.ids_of_group("user", "default", RETIRED)) == 120
    table.check()


def test_what_this_process_dropped_is_not_missing() -> None:
    """A name that was dropped here is neither known nor missing, nor are fields within it."""
    entries = registered(namespace(x=int, y=int)).entries
    registry = Registry(entries, frozenset({"user.x"}))
    assert "user.x" not in registry.by_name
    assert registry.missing(namespace(x=str, y=int)) == []
    assert registry.missing(namespace(xx=str, y=int)) != []


# --- what lies in the table ----------------------------------------------------------------

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_@-]{0,12}", fullmatch=True)
entries = st.builds(
    lambda namespace, mark, rest, name_id, kind, group, state: Entry(
        f"{namespace}{mark}{rest}" if mark else namespace, name_id, kind, group, state
    ),
    names,
    st.sampled_from(["", ".", "/"]),
    names,
    st.sampled_from(["a", "Z9"]),
    st.text(max_size=10),
    names,
    st.text(max_size=10),
)


@given(entries)
def test_an_entry_survives_its_items(entry: Entry) -> None:
    """An entry is read back from its by-name item as it was written, through JSON."""
    by_name, _ = entry.items(LAYOUT)
    assert read_entry(parse_item(render_item(by_name))) == entry


@given(entries)
def test_the_two_items_of_an_entry(entry: Entry) -> None:
    """One item lies under the name, and one under the id, before all names."""
    by_name, by_id = (key_of(LAYOUT, item) for item in entry.items(LAYOUT))
    assert by_name == ItemKey(PARTITION, entry.name)
    assert by_id == ItemKey(PARTITION, f"#{entry.scope}#{entry.id}")
    assert by_id.sk < NAMES_AFTER < by_name.sk


@given(entries, entries)
def test_two_entries_clash_where_they_should(one: Entry, two: Entry) -> None:
    """Two entries share an item exactly where they share a name, or scope and id."""
    keys = [{key_of(LAYOUT, item) for item in entry.items(LAYOUT)} for entry in (one, two)]
    clash = one.name == two.name or (one.scope, one.id) == (two.scope, two.id)
    assert bool(keys[0] & keys[1]) is clash


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Entry)])
def test_an_item_that_is_no_entry_is_refused(field: str) -> None:
    """An item of the registry without one of its texts raises `RegistryError`."""
    item = dict(Entry("user.x", "a", "int", "default").items(LAYOUT)[0])
    for damaged in ({k: v for k, v in item.items() if k != field}, item | {field: b'{"N":"1"}'}):
        with pytest.raises(RegistryError, match="cannot be read"):
            read_entry(damaged)


def test_a_home_region_that_cannot_be_read_stops_changes_alone() -> None:
    """With a damaged item of the home region, names are known, but nothing may be written."""
    found = [e.name_item(LAYOUT) for e in registered(namespace(x=int)).entries]
    damaged = {**home_mark("us-east-1", LAYOUT), "region": b'{"N":"1"}'}
    registry = read_items([*found, damaged], LAYOUT)
    assert registry.missing(namespace(x=int)) == []
    assert not registry.may_be_written_in("us-east-1")
    assert not registry.may_be_written_in("")
