"""Event time: an item after any writes, in any order, is what a dictionary model says it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    Times,
    features_of,
    fresh_item,
    key_of,
    merge,
    number,
    parse_item,
    read_number,
    render_item,
)
from chalk_online_store.codec.layout import BASE, LATEST, WIDTH, ItemKey, TableLayout, own
from tests.helpers import stress

LAYOUT = TableLayout()
KEY = ItemKey("a:1", "a")
Group = tuple[str, ...]
OLD: Group = ("a", "b")
NEW: Group = ("a", "b", "c", "d")  # the same group, after two features were added to it

Seen = dict[str, tuple[int, bytes | None]]
"""Observed-at and attribute of each feature."""

thorough = settings(max_examples=stress(40))
quick = settings(max_examples=stress(30))


def whole(time: int, group: Group = NEW, expires_at: int | None = None, **values: int) -> Change:
    attributes = {name: number(value) for name, value in values.items()}
    return Change.of(KEY, time, attributes, True, len(group), expires_at)


def part(time: int, expires_at: int | None = None, **values: int | None) -> Change:
    attributes = {n: None if v is None else number(v) for n, v in values.items()}
    return Change.of(KEY, time, attributes, False, len(NEW), expires_at)


def erase(time: int, expires_at: int | None = None, group: Group = NEW) -> Change:
    return Change.of(KEY, time, {}, True, len(group), expires_at)


def after(changes: Iterable[Change], item: Attributes | None = None) -> Attributes:
    for change in changes:
        item = merge(LAYOUT, item, change)
    assert item is not None
    return item


def seen(item: Attributes) -> Seen:
    times = Times(item)
    return {name: (times.of(name), item.get(name)) for name in NEW}


@dataclass
class Model:
    """What event time means, with no item in sight: each feature keeps its newest write."""

    features: Seen = field(default_factory=lambda: dict.fromkeys(NEW, (0, None)))
    latest: int = 0
    expires_at: int | None = None

    def apply(self, change: Change) -> None:
        for name in NEW if change.erases else change.values:
            if change.observed_at >= self.features[name][0]:
                self.features[name] = (change.observed_at, change.values.get(name))
        if change.observed_at >= self.latest:
            self.latest, self.expires_at = change.observed_at, change.expires_at


def model_of(changes: Iterable[Change]) -> Model:
    model = Model()
    for change in changes:
        model.apply(change)
    return model


# --- any writes, in any order --------------------------------------------------------------

times = st.integers(0, 9)
values = st.integers(0, 999).map(number)
expiries = st.none() | st.integers(100, 999)


def whole_changes(group: Group) -> SearchStrategy[Change]:
    rows = st.fixed_dictionaries(dict.fromkeys(group, values))
    return st.builds(
        Change.of, st.just(KEY), times, rows, st.just(True), st.just(len(group)), expiries
    )


def partial_changes(group: Group) -> SearchStrategy[Change]:
    rows = st.dictionaries(st.sampled_from(group), values | st.none(), min_size=1)
    return st.builds(
        Change.of, st.just(KEY), times, rows, st.just(False), st.just(len(group)), expiries
    )


without_erasures = whole_changes(NEW) | partial_changes(NEW)
of_one_schema = without_erasures | st.builds(erase, times, expiries)
of_old_schema = whole_changes(OLD) | partial_changes(OLD)
of_two_schemas = of_one_schema | of_old_schema | st.builds(erase, times, expiries, st.just(OLD))


def histories(changes: SearchStrategy[Change]) -> SearchStrategy[list[Change]]:
    return st.lists(changes, min_size=1, max_size=8)


@thorough
@given(histories(without_erasures))
def test_the_newest_observed_at_wins(history: list[Change]) -> None:
    """Of whole and partial writes and removals each feature keeps the newest, ties the last."""
    assert seen(after(history)) == model_of(history).features


@thorough
@given(histories(of_one_schema))
def test_an_erasure_is_a_removal_of_every_feature(history: list[Change]) -> None:
    """Among erasures too, each feature keeps its newest write; an erasure writes all of them."""
    assert seen(after(history)) == model_of(history).features


@thorough
@given(histories(without_erasures | of_old_schema))
def test_schemas_of_two_ages_write_beside_each_other(history: list[Change]) -> None:
    """A whole write of an older schema says nothing of the features it has never heard of."""
    assert seen(after(history)) == model_of(history).features


@thorough
@given(histories(of_two_schemas))
def test_schemas_of_two_ages_erase_beside_each_other(history: list[Change]) -> None:
    """Whoever erases an entity, and whoever writes it afterwards: older values stay out."""
    assert seen(after(history)) == model_of(history).features


@quick
@given(st.data())
def test_the_order_of_arrival_does_not_matter(data: st.DataObject) -> None:
    """Writes of different times leave the same values, whatever order they arrive in."""
    history = data.draw(st.lists(of_one_schema, max_size=6, unique_by=lambda c: c.observed_at))
    history = [*history, whole(10, a=1, b=2, c=3, d=4), part(11, a=None)]
    assert seen(after(data.draw(st.permutations(history)))) == seen(after(history))


@quick
@given(histories(of_two_schemas))
def test_latest_and_expiry_are_those_of_the_newest_write(history: list[Change]) -> None:
    """The item's own observed-at is the newest there was, and its expiry came with that write."""
    item, model = after(history), model_of(history)
    assert read_number(item[LATEST]) == model.latest
    assert read_number(item.get(LAYOUT.ttl)) == model.expires_at


@quick
@given(histories(of_two_schemas))
def test_a_write_repeated_changes_nothing_more(history: list[Change]) -> None:
    """A retry of the last write, whether or not it had arrived, leaves the item as it is."""
    once = after(history)
    assert merge(LAYOUT, once, history[-1]) == once


@quick
@given(histories(of_two_schemas), of_two_schemas)
def test_a_write_that_came_too_late_returns_the_item_itself(
    history: list[Change], late: Change
) -> None:
    """`merge` gives the same object back only where nothing is to be written."""
    item = after(history)
    if merge(LAYOUT, item, late) is item:
        assert seen(item) == model_of([*history, late]).features


@quick
@given(histories(of_two_schemas))
def test_merge_leaves_its_input_alone(history: list[Change]) -> None:
    """The item that is given is never changed in place."""
    item = after(history[:-1]) if history[1:] else {}
    before = dict(item)
    merge(LAYOUT, item or None, history[-1])
    assert item == before


@quick
@given(histories(of_two_schemas))
def test_the_bookkeeping_is_sound(history: list[Change]) -> None:
    """No time lies after LATEST, own times have a BASE beside them, the key is always there."""
    item = after(history)
    latest = read_number(item[LATEST]) or 0
    assert (read_number(item.get(BASE)) or 0) <= latest
    owned = [name for name in NEW if own(name) in item]
    assert all((read_number(item[own(name)]) or 0) <= latest for name in owned)
    assert BASE in item or not owned
    assert key_of(LAYOUT, item) == KEY


@quick
@given(histories(of_two_schemas), without_erasures, st.data())
def test_the_parts_of_a_write_do_what_the_whole_does(
    history: list[Change], change: Change, data: st.DataObject
) -> None:
    """A write too large for one request may be split, and its parts sent in any order."""
    parts = list(change.split(data.draw(st.integers(1, 3))))
    item = after(history)
    in_parts = after(data.draw(st.permutations(parts)), item)
    assert seen(in_parts) == seen(merge(LAYOUT, item, change))


@quick
@given(histories(of_two_schemas))
def test_an_item_survives_its_json(history: list[Change]) -> None:
    """What is rendered for the engine is parsed back, attribute by attribute."""
    item = after(history)
    assert parse_item(render_item(item)) == item


# --- one case each -------------------------------------------------------------------------


def test_a_whole_write_costs_one_observed_at() -> None:
    """Features written together share one time: no BASE, no own times."""
    item = after([whole(5, a=1, b=2, c=3, d=4)])
    assert set(item) == {"pk", "sk", LATEST, WIDTH, *NEW}


def test_a_whole_write_clears_away_what_parts_left() -> None:
    """After a newer whole write the item is as small as if nothing else had ever been written."""
    row = whole(9, a=1, b=2, c=3, d=4)
    assert after([part(1, a=1), part(2, b=None), row]) == fresh_item(LAYOUT, row)


def test_an_erasure_leaves_a_tombstone() -> None:
    """Of an erased entity only the time and the expiry stay, and older writes stay out."""
    tombstone = after([whole(5, a=1, b=2, c=3, d=4), erase(6, expires_at=77)])
    assert list(features_of(tombstone, LAYOUT)) == []
    assert read_number(tombstone[LAYOUT.ttl]) == 77
    assert seen(after([whole(5, a=9, b=9, c=9, d=9), part(5, a=9)], tombstone)) == seen(tombstone)


def test_a_late_erasure_reaches_features_that_are_absent() -> None:
    """What is older than a deletion stays deleted, also where a newer feature outlived it."""
    history = [part(10, a=1), erase(5), part(3, b=2)]
    assert "b" not in after(history)


@pytest.mark.parametrize("width", [OLD, NEW])
def test_a_late_erasure_wins_a_tie(width: Group) -> None:
    """An erasure removes what has its very time, written apart or not; what is newer stays."""
    row = dict.fromkeys(width, 1)
    item = after([whole(5, width, **row), part(5, b=2), part(10, a=3), erase(5)])
    expected = dict.fromkeys(NEW, (5, None)) | {"a": (10, number(3))}
    assert seen(item) == expected
    assert seen(after([part(5, b=4)], item))["b"] == (5, number(4))


def test_a_new_feature_can_be_filled_in_with_the_past() -> None:
    """A feature that no write has ever spoken of takes any time, whatever its neighbours have."""
    item = after([whole(10, OLD, a=1, b=2), part(5, c=3)])
    assert seen(item) == {
        "a": (10, number(1)),
        "b": (10, number(2)),
        "c": (5, number(3)),
        "d": (0, None),
    }


def test_a_newer_feature_stays_erased_when_an_older_schema_writes() -> None:
    """A write that has never heard of a feature does not undo its deletion."""
    assert "c" not in after([erase(5), whole(9, OLD, a=1, b=2), part(3, c=4)])


def test_an_older_schema_erases_newer_features() -> None:
    """A deletion is of the entity: of features that the deleter has never heard of, too."""
    assert "c" not in after([part(3, c=4), erase(5, group=OLD)])
    assert "c" not in after([erase(5, group=OLD), part(3, c=4)])


def test_an_older_schema_keeps_the_times_of_newer_features() -> None:
    """A whole write by a process that knows two of four features leaves the others' times."""
    item = after([whole(5, a=1, b=2, c=3, d=4), whole(9, OLD, a=5, b=6)])
    assert seen(item)["c"] == (5, number(3))
    assert seen(after([part(7, c=8)], item))["c"] == (7, number(8))


def test_a_removal_is_remembered() -> None:
    """A removed feature keeps its time, so that an older value does not come back."""
    item = after([whole(5, a=1, b=2, c=3, d=4), part(8, a=None), part(7, a=9)])
    assert seen(item)["a"] == (8, None)


def test_a_late_write_keeps_the_expiry() -> None:
    """A write that is older than the item does not shorten or lengthen its life."""
    item = after([part(8, expires_at=80, a=1), part(7, expires_at=70, b=2)])
    assert read_number(item[LAYOUT.ttl]) == 80
    assert LAYOUT.ttl not in merge(LAYOUT, item, part(9, c=3))


def test_other_attribute_names_of_a_table() -> None:
    """A table may call its key and TTL otherwise; nothing else lies under those names."""
    layout = TableLayout("entity", "part", "gone")
    item = merge(layout, None, whole(1, expires_at=7, a=1))
    assert set(item) == {"entity", "part", "gone", LATEST, WIDTH, "a"}
    assert list(features_of(item, layout)) == ["a"]


@pytest.mark.parametrize("key", [ItemKey('q"\\', "s\n"), ItemKey("ü☃\U0001f600", "a")])
def test_a_key_survives_its_item(key: ItemKey) -> None:
    """Keys of any text are found again in the item that they identify."""
    item = parse_item(render_item(fresh_item(LAYOUT, Change.of(key, 1, {}, True, len(NEW), None))))
    assert key_of(LAYOUT, item) == key
