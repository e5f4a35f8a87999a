"""Writes: event time, arrival order, deletes, growing schemas."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    Feature,
    ItemTooLarge,
    Namespace,
    RegistryError,
    Status,
    TypeConflict,
    WriteFailed,
    features,
)
from tests.contract.conftest import AnyStore, Open
from tests.helpers import stress

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(minutes: int) -> datetime:
    """A time that many minutes after the first."""
    return T0 + timedelta(minutes=minutes)


def users(*names: str, **annotations: Any) -> Namespace:
    """A namespace `user` of int features, and others by annotation."""
    ints = [Feature(name, int) for name in names]
    return Namespace("user", int, [*ints, *(Feature(n, a) for n, a in annotations.items())])


AB = users("a", "b")


def values(store: AnyStore, namespace: Namespace, key: int = 1) -> dict[str, Any]:
    """What the store serves of one entity: only what is a hit."""
    row = store.read(namespace, [key], consistent=True)[0]
    return {n: row[n] for n in namespace.by_name if row.status(n) is Status.HIT}


def test_a_late_older_value_never_overwrites_a_newer_one(open_store: Open) -> None:
    """Of two whole writes the newer observed-at stays, in whichever order they arrive."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    report = store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    assert report.superseded == 1
    assert values(store, AB) == {"a": 2, "b": 2}


def test_one_row_can_be_newer_in_part(open_store: Open) -> None:
    """A late row loses against newer features and wins against older ones of the same item."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.write(AB, [{"id": 1, "a": 3}], observed_at=at(3))
    store.write(AB, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    assert values(store, AB) == {"a": 3, "b": 2}
    row = store.read(AB, [1], consistent=True)[0]
    assert (row.observed_at("a"), row.observed_at("b")) == (at(3), at(2))


def test_a_whole_write_after_partial_ones_costs_no_own_times(open_store: Open) -> None:
    """A newer whole write supersedes all own times of the item's features."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1}], observed_at=at(1))
    store.write(AB, [{"id": 1, "b": 2}], observed_at=at(2))
    store.write(AB, [{"id": 1, "a": 3, "b": 3}], observed_at=at(3))
    store.write(AB, [{"id": 1, "b": 0}], observed_at=at(2))
    row = store.read(AB, [1], consistent=True)[0]
    assert row.to_dict() == {"a": 3, "b": 3}
    assert row.observed_at("a") == row.observed_at("b") == at(3)


def test_of_equal_times_the_last_to_arrive_wins(open_store: Open) -> None:
    """Writing the same moment again replaces its value, so a corrected replay takes effect."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.write(AB, [{"id": 1, "a": 2}], observed_at=at(1))
    assert values(store, AB) == {"a": 2, "b": 1}


def test_one_key_twice_in_one_write(open_store: Open) -> None:
    """Rows of one call may name an entity twice; event time, then position, decides."""
    store = open_store([AB])
    rows = [{"id": 1, "a": 1, "b": 1}, {"id": 1, "a": 2}, {"id": 1, "b": 3}]
    store.write(AB, rows, observed_at=[at(2), at(1), at(3)])
    assert values(store, AB) == {"a": 1, "b": 3}
    store.write(AB, rows, ordering="arrival")
    assert values(store, AB) == {"b": 3}


def test_arrival_replaces_whatever_is_there(open_store: Open) -> None:
    """A bulk load replaces whole items, also newer ones, and a delete by arrival removes them."""
    store = open_store([AB])
    store.write(AB, [{"id": i, "a": 9, "b": 9} for i in range(30)], observed_at=at(9))
    store.write(AB, [{"id": i, "a": i} for i in range(30)], observed_at=at(1), ordering="arrival")
    assert [values(store, AB, i) for i in range(30)] == [{"a": i} for i in range(30)]
    store.delete(AB, range(29), ordering="arrival")
    store.delete(AB, [29], ordering="arrival")
    store.write(AB, [{"id": 29, "a": 1}], observed_at=at(0))
    assert [values(store, AB, i) for i in (0, 28, 29)] == [{}, {}, {"a": 1}]


def test_a_delete_is_a_write_in_time(open_store: Open) -> None:
    """A deleted entity stays deleted for older writes, and newer ones bring it back."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.delete(AB, [1], observed_at=at(5))
    store.write(AB, [{"id": 1, "a": 3}], observed_at=at(3))
    assert values(store, AB) == {}
    store.write(AB, [{"id": 1, "b": 7}], observed_at=at(7))
    assert values(store, AB) == {"b": 7}


def test_a_late_delete_spares_what_is_newer(open_store: Open) -> None:
    """A delete removes the features that are older than it, and only those."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.write(AB, [{"id": 1, "b": 5}], observed_at=at(5))
    store.delete(AB, [1], observed_at=at(3))
    store.write(AB, [{"id": 1, "a": 2}], observed_at=at(2))
    assert values(store, AB) == {"b": 5}


def test_one_feature_can_be_deleted(open_store: Open) -> None:
    """Deleting a feature leaves its neighbours, and holds against older values of its own."""
    store = open_store([AB])
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    store.delete(AB, [1], ["a"], observed_at=at(3))
    store.write(AB, [{"id": 1, "a": 2, "b": 2}], observed_at=at(2))
    assert values(store, AB) == {"b": 2}


def test_deleting_what_never_was_holds_against_older_writes(open_store: Open) -> None:
    """A delete that is the first thing a table hears of an entity is remembered all the same."""
    store = open_store([AB])
    assert store.delete(AB, [1], ordering="arrival").items_written == 0
    store.delete(AB, [1], ["b"], observed_at=at(2))
    store.delete(AB, [1], observed_at=at(1))
    store.write(AB, [{"id": 1, "a": 0, "b": 0}], observed_at=at(0))
    assert values(store, AB) == {}
    store.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    assert values(store, AB) == {"a": 1}


def test_a_feature_can_be_added(open_store: Open) -> None:
    """A newer process adds a feature; the older one goes on, and neither harms the other."""
    older, newer = open_store([AB]), open_store([wide := users("a", "b", "c")])
    older.write(AB, [{"id": 1, "a": 1, "b": 1}], observed_at=at(1))
    newer.write(wide, [{"id": 1, "a": 2, "b": 2, "c": 2}], observed_at=at(2))
    older.write(AB, [{"id": 1, "a": 4, "b": 4}], observed_at=at(4))
    assert values(newer, wide) == {"a": 4, "b": 4, "c": 2}
    row = newer.read(wide, [1], consistent=True)[0]
    assert (row.observed_at("a"), row.observed_at("c")) == (at(4), at(2))
    newer.write(wide, [{"id": 1, "c": 3}], observed_at=at(3))
    assert values(newer, wide) == {"a": 4, "b": 4, "c": 3}


def test_a_new_feature_can_be_filled_in_with_the_past(open_store: Open) -> None:
    """A feature that no write of the entity has known takes values older than the others."""
    older, newer = open_store([AB]), open_store([wide := users("a", "b", "c")])
    older.write(AB, [{"id": 1, "a": 5, "b": 5}], observed_at=at(5))
    newer.write(wide, [{"id": 1, "c": 1}], observed_at=at(1))
    assert values(newer, wide) == {"a": 5, "b": 5, "c": 1}
    newer.write(wide, [{"id": 1, "a": 6, "b": 6, "c": 6}], observed_at=at(6))
    newer.write(wide, [{"id": 1, "c": 3}], observed_at=at(3))
    assert values(newer, wide) == {"a": 6, "b": 6, "c": 6}


def test_features_may_change_places(open_store: Open) -> None:
    """The order of features in a schema has no bearing on what is stored."""
    open_store([AB]).write(AB, [{"id": 1, "a": 1, "b": 2}])
    ba = users("b", "a")
    assert values(open_store([ba]), ba) == {"a": 1, "b": 2}


def test_another_type_under_the_same_name_is_refused(open_store: Open) -> None:
    """A type change names both types, and nothing is written."""
    open_store([AB]).write(AB, [{"id": 1, "a": 1, "b": 2}])
    changed = users("a", b=str)
    with pytest.raises(TypeConflict, match=r"user\.b is str .*int"):
        open_store([changed]).write(changed, [{"id": 1, "b": "text"}])


def test_another_group_under_the_same_name_is_refused(open_store: Open) -> None:
    """A feature cannot silently move away from where its values lie."""
    open_store([AB]).write(AB, [{"id": 1, "a": 1, "b": 2}])
    moved = Namespace("user", int, [Feature("a", int), Feature("b", int, group="other")])
    with pytest.raises(RegistryError, match="'other'"):
        open_store([moved]).read(moved, [1])


def test_an_item_too_large_for_an_update_is_named(open_store: Open, url: str) -> None:
    """Where only the engine can know that an item outgrows 400 KB, its row is reported."""
    if not url.startswith("dynamodb"):
        pytest.skip("Only DynamoDB has a limit of 400 KB.")
    large = Namespace("large", int, [Feature("a", bytes), Feature("b", bytes)])
    store = open_store([large])
    store.write(large, [{"id": 1, "a": b"x" * 300_000}])
    with pytest.raises(WriteFailed) as failed:
        store.write(large, [{"id": 2, "b": b"y"}, {"id": 1, "b": b"y" * 300_000}])
    assert list(failed.value.failed) == [1]
    assert isinstance(failed.value.failed[1], ItemTooLarge)
    assert store.read(large, [2], ["b"])[0]["b"] == b"y"


def test_many_features_in_one_group(open_store: Open) -> None:
    """Groups beyond what one update expression holds are written all the same, in event time."""
    names = [f"f{i}" for i in range(420)]
    namespace = users(*names)
    store = open_store([namespace])
    for time, value in ((1, 1), (3, 3), (2, 2)):
        row = dict.fromkeys(names, value)
        store.write(namespace, [{"id": 1, **row}], observed_at=at(time))
    store.write(namespace, [{"id": 1, **dict.fromkeys(names[:250], 4)}], observed_at=at(4))
    store.delete(namespace, [1], observed_at=at(3))
    assert values(store, namespace) == dict.fromkeys(names[:250], 4)


STEP = st.one_of(
    st.tuples(
        st.just("write"),
        st.integers(0, 1),
        st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9), min_size=1),
        st.integers(0, 6),
    ),
    st.tuples(
        st.just("delete"),
        st.integers(0, 1),
        st.none() | st.lists(st.sampled_from("abc"), min_size=1, unique=True),
        st.integers(0, 6),
    ),
)


@features
class Abc:
    id: int
    a: int
    b: int
    c: int


def apply_to_model(
    model: dict[tuple[int, str], tuple[int, Any]], key: int, changed: dict[str, Any], time: int
) -> None:
    """What any sequence of writes must come to: per feature, the newest time's last value."""
    for name, value in changed.items():
        if time >= model.get((key, name), (-1, None))[0]:
            model[key, name] = (time, value)


@settings(
    max_examples=stress(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, max_size=12))
def test_event_time_wins_whatever_order_writes_arrive_in(
    open_store: Open, steps: list[Any]
) -> None:
    """Any sequence of whole, partial, late, equal and deleting writes equals a dictionary."""
    store = open_store([Abc])
    model: dict[tuple[int, str], tuple[int, Any]] = {}
    store.delete(Abc, [0, 1], ordering="arrival")
    for kind, key, what, time in steps:
        if kind == "write":
            store.write(Abc, [{"id": key, **what}], observed_at=at(time))
            apply_to_model(model, key, what, time)
        else:
            store.delete(Abc, [key], what, observed_at=at(time))
            apply_to_model(model, key, dict.fromkeys(what or "abc"), time)
    rows = store.read(Abc, [0, 1], consistent=True)
    for key, row in enumerate(rows):
        for name in "abc":
            expected = model.get((key, name), (-1, None))
            assert row[name] == expected[1]
            if expected[1] is not None:
                assert row.observed_at(name) == at(expected[0])


def test_a_delete_knows_what_others_have_just_registered(open_store: Open) -> None:
    """A store that found the namespace empty deletes what another one has written since."""
    user = Namespace("fresh", int, [Feature("a", int)])
    store, other = open_store([user]), open_store([user])
    assert store.read(user, [1]).statuses("a") == [Status.MISSING]
    other.write(user, [{"id": 1, "a": 1}])
    store.delete(user, [1], ordering="arrival")
    assert other.read(user, [1], consistent=True).statuses("a") == [Status.MISSING]
