"""The registry as a map: which ids are given to whom, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import Feature, Namespace, RegistryError, TypeConflict
from chalk_online_store.codec.changes import key_of, parse_item, render_item
from chalk_online_store.codec.ids import all_ids
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.registry import (
    ACTIVE,
    NAMES_AFTER,
    PARTITION,
    Entry,
    Registry,
    entries_of,
    read_entry,
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


@settings(max_examples=100, deadline=None)
@given(st.sets(st.sampled_from(list(itertools.islice(all_ids(), 30)))), st.integers(1, 40))
def test_reserved_names_are_no_ids(reserved: set[str], count: int) -> None:
    """No id is the name of a table's key or TTL, and no id is skipped but those."""
    features: dict[str, Any] = {f"f{number}": int for number in range(count)}
    registry = registered(namespace(**features), reserved=frozenset(reserved))
    found = [registry.by_name[f"user.f{number}"].id for number in range(count)]
    free = (name for name in all_ids() if name not in reserved)
    assert found == list(itertools.islice(free, count))


@settings(max_examples=100, deadline=None)
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


@settings(max_examples=100, deadline=None)
@given(entries)
def test_an_entry_survives_its_items(entry: Entry) -> None:
    """An entry is read back from its by-name item as it was written, through JSON."""
    by_name, _ = entry.items(LAYOUT)
    assert read_entry(parse_item(render_item(by_name))) == entry


@settings(max_examples=100, deadline=None)
@given(entries)
def test_the_two_items_of_an_entry(entry: Entry) -> None:
    """One item lies under the name, and one under the id, before all names."""
    by_name, by_id = (key_of(LAYOUT, item) for item in entry.items(LAYOUT))
    assert by_name == ItemKey(PARTITION, entry.name)
    assert by_id == ItemKey(PARTITION, f"#{entry.scope}#{entry.id}")
    assert by_id.sk < NAMES_AFTER < by_name.sk


@settings(max_examples=100, deadline=None)
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
