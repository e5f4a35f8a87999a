"""Timestamps in the future: refused beyond `max_future_skew`, and never there for good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import (
    Feature,
    FutureTimestamp,
    InvalidSchema,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    PersistenceWriter,
    WriteFailed,
    Writing,
)
from chalk_online_store.writer.ledger import DeadLetter
from tests.contract.conftest import Open
from tests.contract.test_writes import users, values

AB = users("a", "b")
FAR = datetime(2200, 1, 1, tzinfo=UTC)


def ahead(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_time_far_ahead_is_refused(open_store: Open) -> None:
    """Nothing is written under a time beyond the limit; a time within it is taken."""
    store = open_store([AB])
    row = {"id": 1, "a": 1}
    attempts: list[Callable[[datetime], object]] = [
        lambda when: store.write(AB, [row], observed_at=when),
        lambda when: store.write(AB, [row], observed_at=when, ordering="arrival"),
        lambda when: store.delete(AB, [1], observed_at=when),
        lambda when: store.delete(AB, [1], ["a"], observed_at=when),
    ]
    for attempt in attempts:
        for when in (FAR, ahead(330)):
            with pytest.raises(FutureTimestamp, match="max_future_skew"):
                attempt(when)
        assert values(store, AB) == {}
        attempt(ahead(60))
        store.delete(AB, [1], ordering="arrival")


def test_one_row_ahead_is_named_and_nothing_is_written(open_store: Open) -> None:
    """The error has the position of the row; the rows before it are not written."""
    store = open_store([AB])
    rows = [{"id": 1, "a": 1}, {"id": 2, "a": 1}]
    with pytest.raises(FutureTimestamp, match="row at position 1 "):
        store.write(AB, rows, observed_at=[ahead(0), FAR])
    assert values(store, AB) == {}


def test_the_limit_can_be_set(open_store: Open) -> None:
    """A store has its own limit, and a namespace may have another one."""
    config = OnlineStoreConfig(max_future_skew="2h")
    lenient = Namespace("lenient", int, [Feature("a", int)], online_store_config=config)
    store = open_store([AB, lenient], max_future_skew="1s")
    with pytest.raises(FutureTimestamp):
        store.write(AB, [{"id": 1, "a": 1}], observed_at=ahead(30))
    store.write(lenient, [{"id": 1, "a": 1}], observed_at=ahead(3600))
    with pytest.raises(FutureTimestamp):
        store.write(lenient, [{"id": 1, "a": 1}], observed_at=ahead(8000))
    open_store([AB], max_future_skew="infinity").write(AB, [{"id": 1, "a": 1}], observed_at=FAR)


def test_a_limit_that_is_no_duration_is_refused() -> None:
    """A misspelt limit is refused when the store, or the schema, is made."""
    with pytest.raises(InvalidSchema):
        OnlineStore.open("sqlite://", [AB], max_future_skew="soon")
    with pytest.raises(InvalidSchema):
        OnlineStoreConfig(max_future_skew=-1)


@pytest.mark.parametrize("remedy", ["delete", "write"])
def test_what_was_written_ahead_can_be_removed(open_store: Open, remedy: str) -> None:
    """A write or a delete by arrival ends what a time ahead has blocked, and blocks nothing."""
    wrong, store = open_store([AB], max_future_skew="infinity"), open_store([AB])
    wrong.write(AB, [{"id": 1, "a": 1, "b": 1}, {"id": 2, "b": 1}], observed_at=FAR)
    wrong.delete(AB, [3], observed_at=FAR)
    wrong.delete(AB, [4], ["a"], observed_at=FAR)
    for key in (1, 2, 3, 4):
        row = {"id": key, "a": 2, "b": 2}
        store.delete(AB, [key])
        store.write(AB, [row])
        assert values(store, AB, key) != {"a": 2, "b": 2}
        if remedy == "delete":
            store.delete(AB, [key], ordering="arrival")
            assert values(store, AB, key) == {}
        else:
            store.write(AB, [row], ordering="arrival")
            assert values(store, AB, key) == {"a": 2, "b": 2}
        assert store.write(AB, [{"id": key, "a": 4, "b": 4}]).items_written == 1
        assert values(store, AB, key) == {"a": 4, "b": 4}
        assert store.delete(AB, [key]).superseded == 0
        assert values(store, AB, key) == {}


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_a_persistence_writer_refuses_times_ahead(url: str, ordering: Any) -> None:
    """Of submitted rows those ahead become dead letters, and the others are written."""
    letters: list[DeadLetter] = []
    with OnlineStore.open(url, [AB]) as store:
        settings = Writing(ordering=ordering)
        with PersistenceWriter(store, settings, dead_letters=letters.extend) as writer:
            rows = [{"id": key, "a": key} for key in range(3)]
            ticket = writer.submit(AB, rows, [ahead(0), FAR, ahead(60)])
            with pytest.raises(WriteFailed) as caught:
                ticket.wait(timeout=60)
        found = store.read(AB, range(3), ["a"], consistent=True)
    assert (ticket.written, ticket.dead, list(caught.value.failed)) == (2, 1, [1])
    assert [letter.row for letter in letters] == [rows[1]]
    assert isinstance(letters[0].error, FutureTimestamp)
    assert [status.value for status in found.statuses("a")] == ["hit", "missing", "hit"]
