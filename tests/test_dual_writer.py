"""`DualWriter` and `AsyncDualWriter`: two persistence writers, and rows that one cannot write."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chalk_online_store import (
    AsyncPersistenceWriter,
    ConnectionFailed,
    DeadLetter,
    InvalidKey,
    InvalidStore,
    PersistenceWriter,
    StoreClosed,
    Writing,
)
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.migration import AsyncDualWriter, DualWriter
from tests.dual_stores import Pair, User, opened

NOW = datetime.now(UTC).replace(microsecond=7)


class Writers:
    """A pair of stores with a writer each; calls are the same for threads and for asyncio."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.letters: list[DeadLetter] = []
        kind: Any = AsyncPersistenceWriter if pair.runner else PersistenceWriter
        dual: Any = AsyncDualWriter if pair.runner else DualWriter
        self.old = kind(pair.old, dead_letters=pair.dual.dead_letters("old"))
        sink = pair.dual.dead_letters("new", self.letters.extend)
        self.new = kind(pair.new, Writing(write_timeout="1s"), dead_letters=sink)
        self.dual = dual(pair.dual, self.old, self.new)

    def run(self, call: Any, *args: Any, **options: Any) -> Any:
        """Call a method, in the event loop if there is one."""

        async def called() -> Any:
            result = call(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return self.pair.runner.run(called()) if self.pair.runner else call(*args, **options)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def writers(request: pytest.FixtureRequest) -> Iterator[Writers]:
    with opened(request.param, "sqlite://", "sqlite://") as pair:
        made = Writers(pair)
        yield made
        made.run(made.dual.close)


def user(number: int) -> dict[str, Any]:
    return {"id": number, "name": "Ada", "risk": None}


def test_rows_reach_both_stores_with_one_observed_at(writers: Writers) -> None:
    """Submitted rows are in both stores after a flush, with equal times."""
    ticket = writers.run(writers.dual.submit, User, iter([user(1), User(2, "Bob", -0.0)]))
    writers.run(writers.dual.submit, User, [user(3)], NOW, priority="backfill")
    writers.run(writers.dual.flush, timeout=60.0)
    assert ticket.rows == 2
    writers.pair.assert_same([1, 2, 3])
    assert writers.pair.seen(writers.pair.new, [3])[0][0][2] == NOW
    assert {side: each.written for side, each in writers.dual.stats().items()} == {
        "old": 3,
        "new": 3,
    }


def test_rows_that_are_refused_reach_no_writer(writers: Writers) -> None:
    """A bad key raises, and neither writer accepts a row."""
    with pytest.raises(InvalidKey):
        writers.run(writers.dual.submit, User, [user(1), {"id": "x"}])
    assert [each.accepted for each in writers.dual.stats().values()] == [0, 0]
    assert writers.pair.dual.outstanding() == []


def test_rows_that_one_writer_refuses_are_outstanding(writers: Writers) -> None:
    """If the writer of the shadow store is closed, its entities are outstanding."""
    writers.run(writers.new.close)
    writers.run(writers.dual.submit, User, [user(1)])
    writers.run(writers.dual.flush, timeout=60.0)
    assert [(each.store, each.key) for each in writers.pair.dual.outstanding()] == [("new", 1)]
    assert writers.pair.dual.report().errors == {"StoreClosed": 1}
    assert writers.pair.copy_outstanding() == 1
    writers.pair.assert_same([1])
    writers.run(writers.old.close)
    with pytest.raises(StoreClosed):
        writers.run(writers.dual.submit, User, [user(2)])
    assert writers.pair.dual.outstanding() == []


def test_dead_rows_are_outstanding(writers: Writers) -> None:
    """Rows that the shadow store can never take are outstanding, and go to the user's sink."""
    letters = [
        DeadLetter("user", user(7), NOW, OnlineStoreError("too large")),
        DeadLetter("user", {"id": "7"}, NOW, OnlineStoreError("from the spool, with a text key")),
        DeadLetter("other", {"id": 1}, NOW, OnlineStoreError("of no namespace here")),
    ]
    writers.run(writers.pair.dual.dead_letters("new", writers.letters.extend), letters)
    assert [each.key for each in writers.pair.dual.outstanding("new")] == [7]
    assert writers.pair.dual.report().outstanding_dropped == 1
    assert writers.letters == letters


def test_rows_that_close_abandons_are_outstanding(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` with a shadow store that is down returns, and its rows are outstanding."""
    broken: Any = writers.pair.new.driver.transports[""]
    transport = broken._transport if writers.pair.runner else broken

    def fail(*_: Any) -> Any:
        raise ConnectionFailed("down")

    with monkeypatch.context() as patched:
        patched.setattr(type(transport), "send", Only(transport, type(transport).send, fail))
        writers.run(writers.dual.submit, User, [user(1)])
        writers.run(writers.old.flush, timeout=60.0)
        writers.run(writers.dual.close, 0.1)
    assert [(each.store, each.key) for each in writers.pair.dual.outstanding()] == [("new", 1)]
    assert [each.row["id"] for each in writers.letters] == [1]
    assert writers.pair.copy_outstanding() == 1
    writers.pair.assert_same([1])


class Only:
    """A method that is replaced for one object."""

    def __init__(self, owner: Any, usual: Any, other: Any) -> None:
        self._owner, self._usual, self._other = owner, usual, other

    def __get__(self, owner: Any, _: type) -> Any:
        return (self._other if owner is self._owner else self._usual).__get__(owner)


def test_writers_of_the_wrong_kind_are_refused(writers: Writers) -> None:
    """A writer for threads in place of one for asyncio is named."""
    kind = type(writers.dual)
    for arguments in (
        (writers.pair.old, writers.old, writers.new),
        (writers.pair.dual, writers.pair.old, writers.new),
        (writers.pair.dual, writers.old, None),
    ):
        with pytest.raises(InvalidStore, match="must be an open"):
            kind(*arguments)
