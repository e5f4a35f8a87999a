"""A namespace with its ids: rows to changes of items."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import Feature, InvalidKey, InvalidValue, Namespace, UnknownFeature
from chalk_online_store.codec.changes import Change, number
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry

SECOND = 1_000_000
USER = Namespace(
    "user",
    int,
    (
        Feature("a", int, max_staleness="10s"),
        Feature("b", int | None, max_staleness="20s"),
        Feature("risk", float, group="realtime"),
    ),
)


def codec_of(namespace: Namespace, known: Namespace | None = None) -> NamespaceCodec:
    """The namespace by a registry in which `known`, or the namespace itself, is entered."""
    empty = Registry()
    entries = empty.allocate(empty.missing(known or namespace), frozenset())
    return NamespaceCodec(namespace, Registry(tuple(entries)), TableLayout())


def change_of(row: dict[str, Any], time: int = 0) -> Change:
    """The one change of a row of `USER`."""
    (change,) = codec_of(USER).changes({"id": 1} | row, time)
    return change


def test_a_row_is_one_change_a_group() -> None:
    """Each group that a row touches is one change of one item, under short ids."""
    changes = codec_of(USER).changes({"id": 7, "a": 1, "b": None, "risk": 0.5}, 5 * SECOND)
    assert changes == [
        Change.of(
            ItemKey("a:7", "a"),
            5 * SECOND,
            {"a": number(1), "b": b'{"NULL":true}'},
            whole=True,
            width=2,
            expires_at=25,
        ),
        Change.of(ItemKey("a:7", "b"), 5 * SECOND, {"c": b'{"N":"0.5"}'}, True, 1, None),
    ]


def test_a_row_of_a_key_alone_changes_nothing() -> None:
    """A row that names no feature has no change."""
    assert codec_of(USER).changes({"id": 7}, 0) == []


@pytest.mark.parametrize(
    ("row", "whole"), [({"a": 1, "b": 2}, True), ({"a": 1, "b": None}, True), ({"a": 1}, False)]
)
def test_a_change_is_whole_when_it_names_all(row: dict[str, Any], whole: bool) -> None:
    """A row speaks of its whole group when it has a value or a null for every feature of it."""
    assert change_of(row).form.whole is whole


def test_a_removal_of_all_is_not_whole() -> None:
    """Removing each feature leaves their times behind; erasing the entity is another thing."""
    group = codec_of(USER).groups["default"]
    assert group.change_of("a:1", {"a": None, "b": None}, 0).form.whole is False


def test_what_the_schema_leaves_out_may_live_for_ever() -> None:
    """An item expires only if the writer knows how long each of its features may be served."""
    small = Namespace("user", int, USER.features[:1])
    assert codec_of(USER).groups["default"].expires_at(0) is not None
    (change,) = codec_of(small, known=USER).changes({"id": 1, "a": 1}, 0)
    assert change.expires_at is None


def test_what_the_schema_leaves_out_counts() -> None:
    """A schema that does not know every registered feature never writes a whole group."""
    small = Namespace("user", int, USER.features[:1])
    (change,) = codec_of(small, known=USER).changes({"id": 1, "a": 1}, 0)
    assert (change.form.whole, change.form.width) == (False, 2)


@given(st.integers(0, 10**17))
def test_an_item_expires_when_nothing_of_it_can_be_served(time: int) -> None:
    """Expiry is the first whole second from which the longest-lived feature is stale."""
    expires_at = change_of({"a": 1}, time).expires_at
    assert expires_at is not None
    assert 0 <= expires_at * SECOND - (time + 20 * SECOND) < SECOND


def test_an_item_with_one_lasting_feature_never_expires() -> None:
    """One feature without a max staleness keeps its item for ever."""
    assert change_of({"risk": 1.0}).expires_at is None


@pytest.mark.parametrize("name", ["c", "user.a", "ID", ""])
def test_a_name_that_is_no_feature(name: str) -> None:
    """A row's names are short names of features; anything else is refused, full names too."""
    with pytest.raises(UnknownFeature):
        codec_of(USER).changes({"id": 1, "a": 1, name: 2}, 0)


def test_a_row_without_a_key() -> None:
    """A row says whose features it holds."""
    with pytest.raises(InvalidKey, match="'user' has no primary key 'id'"):
        codec_of(USER).changes({"a": 1}, 0)


def test_a_bad_value_names_its_feature() -> None:
    """A value that cannot be stored is refused under its full name."""
    with pytest.raises(InvalidValue, match=r"^user\.a is int, not str"):
        codec_of(USER).changes({"id": 1, "a": "x"}, 0)


def test_a_feature_without_an_id_is_left_out() -> None:
    """What the registry does not have yet is missing, and is neither read nor written."""
    grown = Namespace("user", int, (*USER.features, Feature("new", int, group="new")))
    codec = codec_of(grown, known=USER)
    assert [entry.name for entry in codec.missing] == ["user/new", "user.new"]
    assert list(codec.groups) == ["default", "realtime"]


def test_partition_keys_begin_with_the_namespace() -> None:
    """Keys of a namespace begin with its id; before anything is registered there is none."""
    assert codec_of(USER).partition_keys([1, 2]) == ["a:1", "a:2"]
    assert NamespaceCodec(USER, Registry(), TableLayout()).prefix is None
