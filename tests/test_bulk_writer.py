"""Bulk writes: batches that end with every row written or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import Feature, Namespace, OnlineStore
from chalk_online_store.backend import Call
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.effects import Operation
from chalk_online_store.errors import (
    AccessDenied,
    DamagedItem,
    OnlineStoreError,
    RequestRefused,
    Throttled,
    WriteFailed,
)
from chalk_online_store.operations.write import Ordering
from chalk_online_store.report import Report
from chalk_online_store.writer.bulk import BulkWriter

USER = Namespace("user", int, [Feature("score", int | None), Feature("name", str | None)])
NOW = datetime(2026, 1, 2, tzinfo=UTC)

Fault = Callable[[Sequence[Planned], Call], dict[int, OnlineStoreError]]
"""The errors of a piece, by position; raises an error of the whole piece."""


@pytest.fixture
def store() -> Iterator[OnlineStore]:
    with OnlineStore.open("sqlite://", schema=[USER]) as opened:
        yield opened


def pieces_of(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch, *faults: Fault
) -> list[list[int]]:
    """Let the n-th piece meet the n-th fault; the result has the number of each piece's changes."""
    apply = store.core.apply
    seen: list[list[int]] = []

    def faulty(
        codec: NamespaceCodec,
        planned: Sequence[Planned],
        ordering: Ordering,
        call: Call,
        superseded: set[int] | None = None,
    ) -> Operation[Report]:
        number = len(seen)
        seen.append([position for position, _ in planned])
        failed = faults[number](planned, call) if number < len(faults) else {}
        left = [each for position, each in enumerate(planned) if position not in failed]
        report = yield from apply(codec, left, ordering, call, superseded)
        if failed:
            raise WriteFailed("some", failed, report)
        return report

    monkeypatch.setattr(store.core, "apply", faulty)
    return seen


def write(
    store: OnlineStore, rows: Sequence[dict[str, Any]], ordering: Ordering = "event", at: Any = NOW
) -> dict[int, OnlineStoreError]:
    return store.driver.run(BulkWriter(store.core, USER, ordering, None).write(rows, at))


def scores(store: OnlineStore, count: int) -> list[Any]:
    return list(store.read(USER, range(count), ["score"]).column("score"))


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "score": n} for n in range(count)]


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_throttled_changes_are_sent_again(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch, ordering: Ordering
) -> None:
    """A batch whose changes are throttled sends these again, and no others."""
    throttled = {1: Throttled("slower"), 3: Throttled("slower")}
    pieces = pieces_of(store, monkeypatch, lambda planned, call: dict(throttled))
    assert write(store, rows_of(5), ordering) == {}
    assert scores(store, 5) == [0, 1, 2, 3, 4]
    assert list(map(len, pieces)) == [5, 2]


def test_an_outage_is_waited_for(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the engine fails everything, small pieces are tried until one is accepted."""

    def unreachable(planned: Sequence[Planned], call: Call) -> dict[int, OnlineStoreError]:
        raise Throttled("all of them")

    pieces = pieces_of(store, monkeypatch, unreachable, unreachable)
    assert write(store, rows_of(50)) == {}
    assert scores(store, 50) == list(range(50))
    assert list(map(len, pieces)) == [50, 16, 16, 34]


def test_a_refused_request_costs_the_change_at_fault_alone(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of a refused request are sent one by one, and the one that is refused again ends."""
    refused = RequestRefused("invalid")
    pieces = pieces_of(
        store,
        monkeypatch,
        lambda planned, call: dict.fromkeys((1, 2), refused),
        lambda planned, call: {},
        lambda planned, call: {0: refused},
    )
    assert write(store, rows_of(4), "arrival") == {2: refused}
    assert scores(store, 4) == [0, 1, None, 3]
    assert list(map(len, pieces)) == [4, 1, 1]


def test_a_damaged_item_costs_its_row(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that one item of the table causes ends its row, not the load."""
    store.write(USER, [{"id": 1, "score": 7}])

    def damaged(planned: Sequence[Planned], call: Call) -> dict[int, OnlineStoreError]:
        if any(change.key.pk.endswith("1") for _, change in planned):
            raise DamagedItem("the item is damaged")
        return {}

    pieces_of(store, monkeypatch, *[damaged] * 10)
    assert [type(error) for error in write(store, rows_of(3)).values()] == [DamagedItem]
    assert scores(store, 3) == [0, 7, 2]


def test_a_missing_permission_ends_the_load(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that no retry remedies is raised."""

    def denied(planned: Sequence[Planned], call: Call) -> dict[int, OnlineStoreError]:
        raise AccessDenied("not allowed")

    pieces = pieces_of(store, monkeypatch, denied)
    with pytest.raises(AccessDenied):
        write(store, rows_of(3))
    assert len(pieces) == 1


@pytest.mark.parametrize(("ordering", "expected"), [("event", (3, "c")), ("arrival", (1, None))])
def test_rows_of_one_entity_are_sent_as_one(
    store: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
    ordering: Ordering,
    expected: tuple[int, str | None],
) -> None:
    """Of many whole rows of an entity, only the one that wins is sent."""
    pieces = pieces_of(store, monkeypatch)
    rows: list[dict[str, Any]] = [
        {"id": 0, "score": 2, "name": "b"},
        {"id": 0, "score": 3, "name": "c"},
        {"id": 0, "score": 1, "name": None},
    ]
    assert write(store, rows, ordering, [NOW + timedelta(hours=row["score"]) for row in rows]) == {}
    assert tuple(store.read(USER, [0])[0].to_dict().values()) == expected
    assert list(map(len, pieces)) == [1]


def test_what_is_left_of_an_older_row_is_written(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer row with fewer features replaces only these; the changes are sent in their order."""
    pieces = pieces_of(store, monkeypatch)
    rows: list[dict[str, Any]] = [{"id": 0, "score": 1}, {"id": 0, "score": 2, "name": "old"}]
    assert write(store, rows, at=[NOW, NOW - timedelta(hours=1)]) == {}
    assert store.read(USER, [0])[0].to_dict() == {"score": 1, "name": "old"}
    assert list(map(len, pieces)) == [1, 1]


def test_a_row_that_is_invalid_costs_itself(store: OnlineStore) -> None:
    """An invalid value and a time too far ahead are refused by row."""
    rows: list[dict[str, Any]] = [{"id": 0, "score": "text"}, {"id": 1, "score": 1}, {"id": 2}]
    times = [NOW, NOW, datetime(2999, 1, 1, tzinfo=UTC)]
    refused = write(store, rows, at=times)
    assert {row: type(error).__name__ for row, error in refused.items()} == {
        0: "InvalidValue",
        2: "FutureTimestamp",
    }
    assert scores(store, 3) == [None, 1, None]
