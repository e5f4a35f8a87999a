"""`explain` names every byte of a row, before there is a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import (
    Feature,
    InvalidKey,
    InvalidValue,
    Namespace,
    UnknownFeature,
    feature,
    features,
)
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.planning.explain import Explanation, explain
from tests.fakes import SimulatedStore

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@features(max_staleness="30d")
class User:
    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h", group="realtime")


ROW = {"id": 7, "email": "a@b.c", "visits": 3, "risk": 0.25}


def test_every_byte_has_a_name() -> None:
    """Each attribute says what it stands for, and what its name and its value take."""
    default, realtime = explain(User, ROW, NOW).items
    told = [(a.name, a.stands_for, a.kind, a.name_bytes, a.value_bytes) for a in default.attributes]
    assert told == [
        ("pk", "partition key", "S", 2, 3),
        ("sk", "sort key: the group", "S", 2, 1),
        ("@", "newest observed-at", "N", 1, 9),
        ("%", "features in the group", "N", 1, 2),
        ("ttl", "expiry", "N", 3, 6),
        ("a", "user.email", "S", 1, 5),
        ("b", "user.visits", "N", 1, 2),
    ]
    assert (default.group, default.bytes) == ("default", sum(n + v for *_, n, v in told))
    assert (realtime.group, realtime.attributes[-1].stands_for) == ("realtime", "user.risk")


def test_totals_add_up() -> None:
    """A row of two groups is two items: each is written, and rounded up, by itself."""
    told = explain(User, ROW, NOW)
    assert told.bytes == sum(item.bytes for item in told.items)
    assert (told.wcu, told.rcu, told.consistent_rcu) == (2, 1, 2)
    larger = explain(User, {**ROW, "email": "x" * 5_000}, NOW)
    assert (larger.wcu, larger.rcu, larger.consistent_rcu) == (6, 1.5, 3)
    item = larger.items[0]
    assert (item.wcu, item.rcu, item.consistent_rcu) == (5, 1, 2)


def test_it_prints_as_a_table() -> None:
    """Numbers stand in columns under their headings; no value of the row is shown."""
    lines = str(explain(User, {"id": 7, "risk": 0.25}, NOW)).splitlines()
    assert lines == [
        "group realtime: 33 bytes, 1 WCU to write, 0.5 RCU to read (1 consistent)",
        "     stands for             type  name  value  bytes",
        "pk   partition key          S        2      3      5",
        "sk   sort key: the group    S        2      1      3",
        "@    newest observed-at     N        1      9     10",
        "%    features in the group  N        1      2      3",
        "ttl  expiry                 N        3      6      9",
        "c    user.risk              N        1      2      3",
    ]
    assert "a@b.c" not in str(explain(User, ROW, NOW))


def test_several_groups_print_with_their_sum() -> None:
    """Each group has a table, and the last line is what all of them cost."""
    *_, last = str(explain(User, ROW, NOW)).splitlines()
    assert last == "2 items: 72 bytes, 2 WCU to write, 1 RCU to read (2 consistent)"


def test_a_part_of_a_group_brings_times_of_its_own() -> None:
    """What is written apart from its group carries its own observed-at, and that is told."""
    (item,) = explain(User, {"id": 7, "visits": 3}, NOW).items
    meanings = {attribute.name: attribute.stands_for for attribute in item.attributes}
    assert meanings["@b"] == "observed-at of user.visits"
    assert meanings["~"] == "observed-at of the rest"


names = st.lists(st.text("abcxyz", min_size=1, max_size=8), min_size=1, max_size=80, unique=True)


@given(names.filter(lambda some: "id" not in some), st.floats(), st.text())
def test_it_is_the_item_that_is_sent(some: list[str], number: float, text: str) -> None:
    """The bytes of an explanation are those of the item that a store sends for the same row."""
    kinds = [float, str | None]
    declared = [Feature(name, kinds[n % 2]) for n, name in enumerate(some)]
    namespace = Namespace("thing", str, declared)
    row: dict[str, Any] = {"id": "k"} | {n: (number, text)[i % 2] for i, n in enumerate(some)}
    store = SimulatedStore([namespace])
    store.write(namespace, [row], observed_at=NOW)
    (item,) = (item for key, item in store.table.items.items() if key[0] != "!registry")
    told: Explanation = explain(namespace, row, NOW)
    assert told.bytes == item_size(msgspec.json.decode(msgspec.json.encode(item)))


def test_without_a_time_it_is_written_now() -> None:
    """The observed-at of today takes nine bytes, if its last digits are no zeros."""
    told = explain(User, ROW).items[0].attributes[2]
    assert (told.stands_for, told.value_bytes <= 9) == ("newest observed-at", True)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"visits": 3}, InvalidKey),
        ({"id": 7, "visits": "three"}, InvalidValue),
        ({"id": 7, "visit": 3}, UnknownFeature),
    ],
)
def test_a_row_that_cannot_be_stored_is_refused(row: dict[str, Any], error: type) -> None:
    """It raises what a write of the row would raise."""
    with pytest.raises(error):
        explain(User, row, NOW)


def test_a_time_without_a_zone_is_refused() -> None:
    """As everywhere, an observed-at needs a time zone."""
    with pytest.raises(InvalidValue, match="time zone"):
        explain(User, ROW, datetime(2026, 1, 2))  # noqa: DTZ001
