"""Items as changes and as hashes: what is copied is what was there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.codec.changes import (
    Attributes,
    Change,
    Times,
    features_of,
    merge,
    parse_item,
    read_number,
    render_item,
)
from chalk_online_store.codec.copying import changes_of, hash_item
from chalk_online_store.codec.layout import ItemKey, TableLayout

LAYOUT = TableLayout()
FEATURES = "abcd"
KEY = ItemKey("u:1", "g")

values = st.dictionaries(
    st.sampled_from(FEATURES), st.none() | st.integers(0, 9).map(lambda n: b'{"N":"%d"}' % n)
)
changes = st.builds(
    lambda time, values, whole, expires: Change.of(
        KEY, time, values, whole, len(FEATURES), expires
    ),
    st.integers(1, 8),
    values,
    st.booleans(),
    st.none() | st.integers(100, 105),
)
histories = st.lists(changes, min_size=1, max_size=8)


def made(history: Sequence[Change], item: Attributes | None = None) -> Attributes:
    """What changes make of an item."""
    found = reduce(partial(merge, LAYOUT), history, item)
    assert found is not None
    return found


def said(item: Attributes) -> object:
    """All that an item tells a reader or a writer."""
    times = Times(item)
    features = {name: (times.of(name), item.get(name)) for name in features_of(item, LAYOUT)}
    return features, times.erased, times.latest, read_number(item.get(LAYOUT.ttl))


def usable(history: Sequence[Change]) -> bool:
    """A change that says nothing is never made, and a whole one without values erases."""
    return all(change.form.kept or change.form.gone or change.form.whole for change in history)


@given(histories.filter(usable))
def test_an_item_is_made_again_of_nothing(history: Sequence[Change]) -> None:
    """Every value with its time, every erasure and the expiry, whatever the history."""
    item = made(history)
    again = made(changes_of(LAYOUT, item))
    assert said(again) == said(item)
    assert hash_item(LAYOUT, again) == hash_item(LAYOUT, item)


@given(histories.filter(usable))
def test_an_item_is_copied_twice_without_a_trace(history: Sequence[Change]) -> None:
    """A copy that is interrupted begins a page again."""
    item = made(history)
    copied = made(changes_of(LAYOUT, item))
    assert said(made(changes_of(LAYOUT, item), copied)) == said(copied)


@given(histories.filter(usable), changes)
def test_a_newer_write_beside_the_copy_stays(history: Sequence[Change], newer: Change) -> None:
    """What was written into the target meanwhile, and is newer than all that is copied."""
    item = made(history)
    late = msgspec.structs.replace(newer, observed_at=99)
    if not usable([late]):
        return
    before, after = made([late]), made(changes_of(LAYOUT, item), made([late]))
    for name in late.form.kept:
        assert after[name] == before[name]
        assert Times(after).of(name) == 99
    for name in () if late.form.whole else late.form.gone:  # A whole one keeps no such times.
        assert name not in after


@given(histories.filter(usable), histories.filter(usable))
def test_hashes_tell_items_apart(one: Sequence[Change], other: Sequence[Change]) -> None:
    """Two items hash alike where they say the same, and only there."""
    first, second = made(one), made(other)
    same = said(first)[:2] == said(second)[:2] and (  # type: ignore[index]
        first.get(LAYOUT.ttl) == second.get(LAYOUT.ttl)
    )
    assert (hash_item(LAYOUT, first) == hash_item(LAYOUT, second)) is same


def test_a_hash_does_not_depend_on_how_an_engine_writes() -> None:
    """Zeros of numbers, the order of sets and maps, white space."""
    one = parse_item(
        b'{"pk":{"S":"a"},"sk":{"S":"b"},"@":{"N":"5"},"a":{"N":"1.50"},"b":{"SS":["x","y"]},'
        b'"c":{"M":{"p":{"N":"1"},"q":{"NS":["2","1.0"]}}}}'
    )
    other = parse_item(
        b'{"c": {"M": {"q": {"NS": ["1", "2"]}, "p": {"N": "1"}}}, "b": {"SS": ["y", "x"]},'
        b'"a": {"N": "1.5"}, "@": {"N": "5"}, "sk": {"S": "b"}, "pk": {"S": "a"}}'
    )
    assert render_item(one) != render_item(other)
    assert hash_item(LAYOUT, one) == hash_item(LAYOUT, other)
