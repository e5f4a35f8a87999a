"""Replays on every engine: what an item says already is not written again."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import features
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import Change
from chalk_online_store.operations.write import changes_of_deletes, changes_of_rows
from chalk_online_store.report import Report
from tests.contract.conftest import AnyStore, Open

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@features
class User:
    id: int
    a: int
    b: str


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def change(store: AnyStore, row: dict[str, Any], moment: datetime = NOW) -> Change:
    """What a row changes."""
    codec = store.core.registry.known(User.__chalk_namespace__)  # type: ignore[attr-defined]
    assert codec is not None
    ((_, found),) = changes_of_rows(codec, [row], [micros(moment)])
    return found


def replay(store: AnyStore, *changes: Change) -> Report:
    """Apply changes that may have been made before."""
    call = Call(time.monotonic() + 120, replay=True)
    store.run(store.core.backend.change(changes, call))
    return call.report


@pytest.fixture
def store(open_store: Open) -> AnyStore:
    found = open_store([User])
    found.write(User, [{"id": 1, "a": 1, "b": "x"}], observed_at=NOW)
    return found


def values(store: AnyStore) -> list[Any]:
    row = store.read(User, [1], consistent=True)[0]
    return [row["a"], row["b"], row.observed_at("a")]


def test_what_is_there_already_is_not_written(store: AnyStore) -> None:
    """A whole write, again: no unit is consumed by a write, and nothing changes."""
    report = replay(store, change(store, {"id": 1, "a": 1, "b": "x"}))
    assert report.wcu == 0
    assert values(store) == [1, "x", NOW]


def test_parts_that_are_there_already_are_not_written(store: AnyStore) -> None:
    """The same of a partial write, beside a newer one of another feature."""
    earlier, later = NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)
    store.write(User, [{"id": 1, "a": 5}], observed_at=earlier)
    store.write(User, [{"id": 1, "b": "y"}], observed_at=later)
    again = [change(store, {"id": 1, "a": 5}, earlier), change(store, {"id": 1, "b": "y"}, later)]
    for one in again:
        assert replay(store, one).wcu == 0
    assert values(store) == [5, "y", earlier]


def test_what_is_missing_is_written(store: AnyStore) -> None:
    """A region that lost a write, or never had it, gets it."""
    newer = NOW + timedelta(seconds=1)
    absent = change(store, {"id": 2, "a": 2, "b": "z"})
    replay(store, change(store, {"id": 1, "a": 9, "b": "w"}, newer), absent)
    assert values(store) == [9, "w", newer]
    assert store.read(User, [2])[0]["b"] == "z"


def test_nothing_newer_is_undone(store: AnyStore) -> None:
    """An older write that comes again changes nothing but what nobody has written since."""
    older = NOW - timedelta(seconds=1)
    replay(store, change(store, {"id": 1, "a": 7, "b": "old"}, older))
    assert values(store) == [1, "x", NOW]


def test_an_erasure_is_not_made_twice(store: AnyStore) -> None:
    """A tombstone that is there stays; one that is not is put."""
    codec = store.core.registry.known(User.__chalk_namespace__)  # type: ignore[attr-defined]
    assert codec is not None
    later = micros(NOW + timedelta(seconds=5))
    ((_, erasure),) = changes_of_deletes(codec, [1], None, later, later)
    replay(store, erasure)
    assert store.read(User, [1], consistent=True)[0].status("a") == "missing"
    assert replay(store, erasure).wcu == 0
    assert store.read(User, [1], consistent=True)[0].status("a") == "missing"
