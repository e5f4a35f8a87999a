"""The persistence writer in virtual time: batches, policies, failures, priorities, pace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import (
    InvalidValue,
    QueueFull,
    RowsAbandoned,
    RowsPending,
    StoreClosed,
    UnknownFeature,
    Writing,
)
from chalk_online_store.effects import Operation, Sleep
from chalk_online_store.embedded import requests
from chalk_online_store.errors import ConnectionFailed, RequestRefused, Throttled
from chalk_online_store.schema import Namespace
from tests.helpers import stress
from tests.writers import WRITES, Order, User, World, world

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def row(key: int, a: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": key, "a": a, "b": None, **more}


@pytest.fixture
def calm() -> Iterator[World]:
    with world() as found:
        yield found


def test_rows_reach_the_table(calm: World) -> None:
    """What was submitted is there after a flush, and its ticket says so."""

    def script() -> Operation[None]:
        ticket = yield from calm.submit([row(1, 7), row(2, 8)])
        assert (ticket.rows, ticket.pending, ticket.done) == (2, 2, False)
        yield from calm.writer.flush(10)
        assert (ticket.written, ticket.dead, ticket.done, ticket.durable) == (2, 0, True, True)

    calm.run(script)
    assert calm.read(1) == {"a": 7, "b": None}
    assert calm.read(2) == {"a": 8, "b": None}
    calm.check_account()


def test_rows_wait_for_others_but_not_for_long(calm: World) -> None:
    """Rows of a moment share requests; after `max_batch_age` they go out, few as they are."""

    def script() -> Operation[None]:
        yield from calm.submit([row(0)])
        yield Sleep(1)  # The registry is known now.
        for key in range(10):
            yield from calm.submit([row(key)])
            yield Sleep(0.001)
        yield Sleep(0.1)
        assert calm.writer.inbox.rows == 0

    calm.run(script)
    batches = [len(request.changes) for _, request in calm.writes[1:]]
    assert sum(batches) == 10
    assert len(batches) <= 2


def test_newest_wins_whatever_the_order(calm: World) -> None:
    """An older row submitted later does not overwrite a newer one, nor is it sent."""

    def script() -> Operation[None]:
        yield from calm.submit([row(1, 2)], T0 + timedelta(seconds=1))
        yield from calm.submit([row(1, 1)], T0)
        yield from calm.writer.flush(10)

    calm.run(script)
    assert calm.read(1)["a"] == 2
    assert sum(len(request.changes) for _, request in calm.writes) == 1
    calm.check_account()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from("ab"), st.booleans()),
        max_size=12,
    )
)
@settings(max_examples=stress(25))
def test_features_are_each_as_new_as_what_was_submitted(
    rows: list[tuple[int, int, str, bool]],
) -> None:
    """Of every feature the newest submitted value is there, though requests fail now and then."""
    newest: dict[tuple[int, str], tuple[int, int]] = {}

    def script() -> Operation[None]:
        for number, (key, second, name, pause) in enumerate(rows):
            value: Any = number if name == "a" else str(number)
            time = T0 + timedelta(seconds=second)
            yield from found.submit([{"id": key, name: value}], time)
            if second >= newest.get((key, name), (-1, 0))[0]:
                newest[key, name] = (second, number)
            if pause:
                yield Sleep(0.03)
        yield from found.writer.flush(600)

    with world() as found:
        fails = iter([False, True, False, False, True, True] * 50)
        found.fault = lambda request, now: (
            ConnectionFailed("gone") if isinstance(request, WRITES) and next(fails) else None
        )
        found.run(script)
        found.check_account()
        for (key, name), (_, number) in newest.items():
            assert found.read(key)[name] == (number if name == "a" else str(number))


def test_an_engine_that_is_down_for_a_minute_loses_nothing(calm: World) -> None:
    """Rows wait while nothing can be written, are tried seldom, and are all there afterwards."""
    calm.fault = lambda request, now: ConnectionFailed("down") if 1 <= now < 61 else None

    def script() -> Operation[None]:
        for key in range(100):
            yield from calm.submit([row(key, key)])
            yield Sleep(0.1)
        calm.check_account()
        with pytest.raises(RowsPending) as caught:
            yield from calm.writer.flush(1)
        assert caught.value.pending > 50
        yield from calm.writer.flush(120)

    calm.run(script)
    assert [calm.read(key)["a"] for key in range(100)] == list(range(100))
    tries = [at for at, _ in calm.writes if 2 <= at < 61]
    assert 10 <= len(tries) <= 80


def test_a_registry_that_is_down_keeps_rows_waiting(calm: World) -> None:
    """Also rows that cannot even be encoded yet wait, and other threads' are not in their way."""
    calm.fault = lambda request, now: ConnectionFailed("down") if now < 30 else None

    def script() -> Operation[None]:
        ticket = yield from calm.submit([row(1, 5)])
        yield Sleep(20)
        assert not ticket.done
        calm.check_account()
        yield from calm.writer.flush(60)
        assert ticket.written == 1

    calm.run(script)
    assert calm.read(1)["a"] == 5


def test_bad_rows_end_in_the_dead_letters(calm: World) -> None:
    """A bad row does not hold up its neighbours; its letter has the row and the reason."""

    def script() -> Operation[None]:
        bad: list[dict[str, Any]] = [
            {"id": 2, "a": "no int"},
            {"a": 1},
            {"id": 3, "c": 1},
            row(4, b="x" * 500_000),
        ]
        rows = [row(1, 7), *bad, row(5, 9)]
        ticket = yield from calm.submit(rows, T0, on_invalid="dead_letter")
        yield from calm.writer.flush(10)
        assert (ticket.written, ticket.dead, ticket.durable) == (2, 4, True)
        reasons = {position: type(error).__name__ for position, error in ticket.errors.items()}
        assert reasons == {
            1: "InvalidValue",
            2: "InvalidKey",
            3: "UnknownFeature",
            4: "ItemTooLarge",
        }

    calm.run(script)
    assert calm.read(1)["a"] == 7
    assert calm.read(5)["a"] == 9
    kinds = [type(letter.error).__name__ for letter in calm.letters]
    assert kinds == ["InvalidValue", "InvalidKey", "UnknownFeature", "ItemTooLarge"]
    assert calm.letters[0].row == {"id": 2, "a": "no int"}
    assert {(letter.namespace, letter.observed_at) for letter in calm.letters} == {("user", T0)}
    calm.check_account()


def test_what_the_engine_refuses_is_found_one_by_one(calm: World) -> None:
    """A row that spoils a batch is found by sending its neighbours without it."""
    with world(Writing(ordering="arrival")) as found:

        def refuse(request: Any, now: float) -> RequestRefused | None:
            if isinstance(request, requests.Replace) and any(
                change.key.pk.endswith(":7") for change in request.changes
            ):
                return RequestRefused("no")
            return None

        found.fault = refuse

        def script() -> Operation[None]:
            ticket = yield from found.submit([row(key, key) for key in range(20)])
            yield from found.writer.flush(60)
            assert (ticket.written, ticket.dead) == (19, 1)

        found.run(script)
        assert [letter.row["id"] for letter in found.letters] == [7]
        assert found.read(19)["a"] == 19


def test_a_type_conflict_ends_in_the_dead_letters(calm: World) -> None:
    """Rows of a schema that the registry contradicts can never be written."""
    calm.run(lambda: _write_and_flush(calm))
    other = Namespace("user", int, [*_features_of(User, "a"), _feature("b", int)])
    calm.store.schema["user"] = other

    def script() -> Operation[None]:
        ticket = yield from calm.submit([{"id": 1, "b": 1}], schema=other)  # type: ignore[arg-type]
        yield from calm.writer.flush(10)
        assert ticket.dead == 1

    with world() as found:
        found.engine, calm.engine = calm.engine, found.engine
        found.store.schema["user"] = other
        calm = found
        calm.run(script)
    assert [type(letter.error).__name__ for letter in calm.letters] == ["TypeConflict"]


def _write_and_flush(found: World) -> Operation[None]:
    yield from found.submit([row(1)])
    yield from found.writer.flush(10)


def _features_of(schema: type, *names: str) -> list[Any]:
    return [schema.__chalk_namespace__.by_name[name] for name in names]  # type: ignore[attr-defined]


def _feature(name: str, annotation: Any) -> Any:
    from chalk_online_store import Feature

    return Feature(name, annotation)


# --- a full queue --------------------------------------------------------------------------


def slow(found: World) -> None:
    """The consumer is slow: nothing is written before the 60th second."""
    found.fault = lambda request, now: (
        ConnectionFailed("slow") if isinstance(request, WRITES) and now < 60 else None
    )


def test_a_full_queue_blocks_until_there_is_room() -> None:
    """With "block", `submit` waits until rows are written, and is refused after a while."""
    with world(Writing(max_rows=10, block_timeout="90s")) as found:
        slow(found)

        def script() -> Operation[None]:
            yield from found.submit([row(key) for key in range(10)])
            yield from found.submit([row(10)])
            assert found.driver.now >= 60
            yield from found.writer.flush(60)

        found.run(script)
        assert found.read(10)["a"] == 0
    with world(Writing(max_rows=10, block_timeout="5s")) as found:
        slow(found)

        def too_long() -> Operation[None]:
            yield from found.submit([row(key) for key in range(10)])
            with pytest.raises(QueueFull, match="takes 10 "):
                yield from found.submit([row(10)])
            assert 5 <= found.driver.now < 6
            yield from found.writer.flush(120)

        found.run(too_long)
        found.check_account()
        assert found.read(10) == {}


def test_a_full_queue_raises() -> None:
    """With "raise", `submit` is refused at once, and nothing of it is accepted."""
    with world(Writing(max_rows=10, when_full="raise")) as found:
        slow(found)

        def script() -> Operation[None]:
            yield from found.submit([row(key) for key in range(9)])
            with pytest.raises(QueueFull):
                yield from found.submit([row(10), row(11)])
            yield from found.submit([row(9)])
            assert found.driver.now < 1
            yield from found.writer.flush(120)

        found.run(script)
        found.check_account()
        assert (found.read(9)["a"], found.read(10)) == (0, {})


def test_a_full_queue_sheds_its_oldest_rows() -> None:
    """With "shed_oldest", newer rows take the place of waiting ones, which are dead letters."""
    with world(Writing(max_rows=10, when_full="shed_oldest")) as found:
        slow(found)

        def script() -> Operation[None]:
            tickets = []
            for key in range(12):
                tickets.append((yield from found.submit([row(key)])))
            assert [ticket.dead for ticket in tickets] == [1, 1] + [0] * 10
            yield from found.writer.flush(120)
            found.check_account()

        found.run(script)
        assert [letter.row["id"] for letter in found.letters] == [0, 1]
        assert {type(letter.error) for letter in found.letters} == {QueueFull}
        assert (found.read(0), found.read(11)["a"]) == ({}, 0)


def test_bytes_bound_the_queue_as_rows_do() -> None:
    """Large rows fill the queue sooner; alone, a row of any size is taken."""
    with world(Writing(max_bytes=100_000, when_full="raise")) as found:
        slow(found)

        def script() -> Operation[None]:
            yield from found.submit([row(1, b="x" * 150_000)])
            with pytest.raises(QueueFull):
                yield from found.submit([row(2)])
            yield from found.writer.flush(120)
            yield from found.submit([row(2)])
            yield from found.writer.flush(120)

        found.run(script)


# --- pace ----------------------------------------------------------------------------------


def test_backfills_wait_until_no_live_row_does() -> None:
    """A live row overtakes a backfill that is under way."""
    with world(Writing(wcu_per_second=50)) as found:

        def script() -> Operation[None]:
            yield from found.submit([row(key) for key in range(1000)], priority="backfill")
            yield Sleep(2)
            began = found.driver.now
            ticket = yield from found.submit([row(5000, 1)])
            while not ticket.done:
                yield Sleep(0.01)
            assert found.driver.now - began < 0.5
            assert found.writer.inbox.rows > 500

        found.run(script)


def test_no_more_units_are_written_than_the_rate_allows() -> None:
    """At 100 WCU a second, 1,000 small rows take about ten seconds, after the first hundred."""
    with world(Writing(wcu_per_second=100)) as found:

        def script() -> Operation[None]:
            yield from found.submit([row(key) for key in range(1000)])
            yield from found.writer.flush(60)

        found.run(script)
        assert 8.5 < found.driver.now < 11


def test_throttles_slow_a_writer_down_to_what_the_table_takes() -> None:
    """A table throttled to a tenth gets about that much, with few requests in vain."""
    capacity, level, at = 20.0, [20.0], [0.0]

    def fault(request: Any, now: float) -> Throttled | None:
        if not isinstance(request, WRITES):
            return None
        level[0] = min(capacity, level[0] + capacity * (now - at[0]))
        at[0] = now
        if level[0] < len(request.changes):
            return Throttled("slower")
        level[0] -= len(request.changes)
        return None

    with world(Writing(wcu_per_second=200)) as found:
        found.fault = fault

        def script() -> Operation[None]:
            yield from found.submit([row(key) for key in range(2000)])
            yield from found.writer.flush(600)

        found.run(script)
        found.check_account()
        assert found.driver.now < 2000 / capacity * 1.7


# --- the end -------------------------------------------------------------------------------


def test_a_writer_that_drains_takes_nothing_more(calm: World) -> None:
    """After the end, `submit` is refused; what was accepted before is written."""

    def script() -> Operation[None]:
        yield from calm.submit([row(1, 1)])
        calm.writer.draining = True
        with pytest.raises(StoreClosed):
            yield from calm.submit([row(2)])
        yield from calm.writer.flush(10)

    calm.run(script)
    assert calm.read(1)["a"] == 1


def test_what_could_not_be_written_at_the_end_is_said(calm: World) -> None:
    """Rows that are left when a writer without a spool ends are dead letters, not forgotten."""
    calm.fault = lambda request, now: (
        ConnectionFailed("down") if isinstance(request, WRITES) else None
    )

    def script() -> Operation[None]:
        yield from calm.submit([row(1), row(2)])
        yield Sleep(1)
        yield from calm.submit([row(3)])

    calm.run(script)
    with pytest.raises(RowsAbandoned) as caught:
        calm.writer.abandon()
    assert caught.value.rows == 3
    assert sorted(letter.row["id"] for letter in calm.letters) == [1, 2, 3]
    calm.check_account()


def test_what_cannot_be_meant_is_refused_at_once(calm: World) -> None:
    """Times without a zone, foreign namespaces and unknown priorities never get into the queue."""

    def script() -> Operation[None]:
        with pytest.raises(InvalidValue):
            yield from calm.submit([row(1)], datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(UnknownFeature):
            yield from calm.submit([{"id": 1}], schema=_foreign())
        with pytest.raises(InvalidValue):
            yield from calm.submit([row(1)], priority="soon")  # type: ignore[arg-type]

    calm.run(script)
    assert calm.writer.inbox.rows == 0


def _foreign() -> Any:
    return Namespace("elsewhere", int, [_feature("x", int)])


def test_rows_are_copied(calm: World) -> None:
    """What the caller does to its rows afterwards changes nothing."""
    mine = row(1, 1)

    def script() -> Operation[None]:
        yield from calm.submit([mine])
        mine["a"] = 2
        yield from calm.writer.flush(10)

    calm.run(script)
    assert calm.read(1)["a"] == 1


def test_several_namespaces_share_a_writer(calm: World) -> None:
    """Rows of different namespaces go out side by side."""

    def script() -> Operation[None]:
        yield from calm.submit([row(1, 1)])
        yield from calm.submit([{"id": "o1", "total": 1.5}], schema=Order)
        yield from calm.writer.flush(10)

    calm.run(script)
    assert calm.read("o1", Order) == {"total": 1.5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ordering": "any"},
        {"when_full": "drop"},
        {"max_rows": 0},
        {"max_bytes": 0},
        {"max_concurrency": 0},
        {"wcu_per_second": 0},
        {"wcu_per_second": float("nan")},
        {"max_batch_age": "0s"},
        {"block_timeout": "infinity"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    """Each setting says what it takes."""
    with pytest.raises(InvalidValue):
        Writing(**wrong)
