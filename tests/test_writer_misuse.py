"""Mistakes in the use of a writer, and ends that nobody planned: each of them is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    AsyncPersistenceWriter,
    DeadLetter,
    InvalidKey,
    InvalidStore,
    InvalidValue,
    OnlineStore,
    PersistenceWriter,
    RowsAbandoned,
    SpoolDamaged,
    Status,
    UnknownFeature,
    WriteFailed,
    WriterFailed,
    Writing,
    features,
)
from chalk_online_store.effects import Await
from chalk_online_store.errors import StoreClosed
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.signal import Signal
from chalk_online_store.writer.spool import Commit, Left, Spool
from chalk_online_store.writer.tickets import EncodedBatch, Inbox, PendingRow, Submission, Ticket


@features
class User:
    id: int
    a: int


@features
class Named:
    id: str
    a: int


def test_a_store_of_the_other_kind_is_refused() -> None:
    """Each writer names the class for the store that it was given."""
    plain = OnlineStore.open("sqlite://", [User, Named])
    store = AsyncOnlineStore.open("sqlite://", [User])
    with pytest.raises(InvalidStore, match="Use AsyncPersistenceWriter") as caught:
        PersistenceWriter(store)  # type: ignore[arg-type]
    assert isinstance(caught.value, TypeError)
    with pytest.raises(InvalidStore, match="Use PersistenceWriter"):
        AsyncPersistenceWriter(plain)  # type: ignore[arg-type]
    for other in (None, "sqlite://", OnlineStore):
        with pytest.raises(InvalidStore):
            PersistenceWriter(other)  # type: ignore[arg-type]
    plain.close()
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("schema", "bad", "error"),
    [
        (User, {"id": 1, "vists": 1}, UnknownFeature),
        (User, {"id": 1, "other.a": 1}, UnknownFeature),
        (User, {"a": 1}, InvalidKey),
        (User, {"id": "1", "a": 1}, InvalidKey),
        (User, {"id": True, "a": 1}, InvalidKey),
        (User, {"id": None, "a": 1}, InvalidKey),
        (User, {"id": 10**5000, "a": 1}, InvalidKey),
        (Named, {"id": 1, "a": 1}, InvalidKey),
        (Named, {"id": "x" * 3000, "a": 1}, InvalidKey),
        (Named, {"id": "\ud800", "a": 1}, InvalidKey),
    ],
)
def test_submit_refuses_unknown_names_and_invalid_keys(
    schema: type, bad: dict[str, Any], error: type[Exception]
) -> None:
    """A bad row refuses its submission whole, or becomes a dead letter if the caller says so."""
    letters: list[DeadLetter] = []
    good = {"id": 7 if schema is User else "k", "a": 7}
    with (
        OnlineStore.open("sqlite://", [User, Named]) as store,
        PersistenceWriter(store, dead_letters=letters.extend) as writer,
    ):
        for _ in range(2):
            with pytest.raises(error) as caught:
                writer.submit(schema, [good, bad])
        assert "position 1; nothing was accepted" in caught.value.__notes__[0]
        assert writer.stats().accepted == 0
        ticket = writer.submit(schema, [good, bad], on_invalid="dead_letter")
        with pytest.raises(WriteFailed, match="1 of 2 rows") as failed:
            ticket.wait(timeout=60)
        assert {at: type(e) for at, e in failed.value.failed.items()} == {1: error}
        assert {at: type(e) for at, e in ticket.errors.items()} == {1: error}
        assert len(letters) == 1
        with pytest.raises(InvalidValue):
            ticket.wait("written")  # type: ignore[arg-type]


def test_a_thread_that_cannot_start_refuses_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`submit` accepts no row if there is no thread to write it, and works once there is."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with OnlineStore.open("sqlite://", [User]) as store, PersistenceWriter(store) as writer:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(WriterFailed):
            writer.submit(User, [{"id": 1, "a": 1}])
        assert writer.stats().accepted == 0
        monkeypatch.setattr(threading.Thread, "start", start)
        writer.submit(User, [{"id": 1, "a": 1}]).wait(timeout=60)


# --- asyncio -------------------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
def test_a_cancelled_close_ends_all_the_same(tmp_path: Path, spooled: bool) -> None:
    """After a cancelled `close`, the spool can be opened again and no row is unaccounted for."""
    spool = tmp_path / "spool" if spooled else None
    letters: list[DeadLetter] = []

    async def main() -> None:
        async with AsyncOnlineStore.open(f"sqlite:///{tmp_path}/db", [User]) as store:
            await store.write(User, [{"id": 0, "a": 0}])
            slow = Writing(wcu_per_second=1)
            writer = AsyncPersistenceWriter(store, slow, spool=spool, dead_letters=letters.extend)
            ticket = await writer.submit(User, [{"id": i, "a": i} for i in range(40)])
            if spooled:
                await ticket.wait("durable", timeout=60)
            closing = asyncio.create_task(writer.close())
            await asyncio.sleep(0.05)
            closing.cancel()
            expected = asyncio.CancelledError if spooled else RowsAbandoned
            with pytest.raises(expected):
                await closing
            await writer.close()
            stats = writer.stats()
            assert stats.accepted == stats.written + stats.dead + stats.pending
            if spooled:
                async with AsyncPersistenceWriter(store, spool=spool) as again:
                    await again.flush(30)
            else:
                assert stats.pending == 0
                assert stats.dead == len(letters) > 0
            found = await store.read(User, range(40))
            assert found.statuses("a").count(Status.HIT) + len(letters) >= 40

    asyncio.run(main())


def test_a_writer_continues_in_the_next_event_loop(tmp_path: Path) -> None:
    """Rows that were pending when their event loop ended are written in another one."""
    store = AsyncOnlineStore.open(f"sqlite:///{tmp_path}/db", [User])
    writer = AsyncPersistenceWriter(store)

    async def submit() -> Any:
        return await writer.submit(User, [{"id": 1, "a": 5}])

    ticket = asyncio.run(submit())

    async def finish() -> Any:
        await ticket.wait(timeout=60)
        await writer.close()
        row = (await store.read(User, [1]))[0]["a"]
        await store.close()
        return row

    assert asyncio.run(finish()) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_leaves_the_rows_of_an_async_writer_to_the_parent(tmp_path: Path) -> None:
    """A child that ends writes no dead letters for what is pending in its parent."""
    code = f"""
import asyncio, os, sys
from chalk_online_store import *
from tests.test_writer_misuse import User
async def main():
    store = AsyncOnlineStore.open("sqlite:///{tmp_path}/db", [User])
    await store.write(User, [{{"id": 0, "a": 0}}])
    sink = DeadLetterFile("{tmp_path}/letters")
    writer = AsyncPersistenceWriter(store, Writing(wcu_per_second=20), dead_letters=sink)
    ticket = await writer.submit(User, [{{"id": i, "a": i}} for i in range(30)])
    child = os.fork()
    if not child:
        assert writer.stats().accepted == 0
        asyncio._set_running_loop(None)
        try:
            asyncio.new_event_loop().run_until_complete(ticket.wait(timeout=60))
        except StoreClosed:
            sys.exit(0)
        sys.exit(1)
    status = os.waitpid(child, 0)[1]
    await writer.flush(30)
    print(status, writer.stats().written)
    await writer.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout.split()[-2:] == ["0", "30"], done.stderr
    assert not (tmp_path / "letters").exists()


# --- the spool -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_deleted_spool_is_noticed(tmp_path: Path, suffix: str) -> None:
    """Without its file a spool takes nothing more, and the rows are written all the same."""
    path = tmp_path / "spool"
    letters: list[DeadLetter] = []
    with OnlineStore.open("sqlite://", [User]) as store:
        writer = PersistenceWriter(store, spool=path, dead_letters=letters.extend)
        writer.submit(User, [{"id": 1, "a": 1}]).wait(timeout=60)
        Path(f"{path}{suffix}").unlink()
        writer.submit(User, [{"id": 2, "a": 2}]).wait("durable", timeout=60)
        assert writer.stats().written == 2
        assert writer._spool is not None
        with pytest.raises(SpoolDamaged, match="deleted or replaced"):
            writer._spool.send(Commit([b"x"]), 1)
        writer.close()


def stored(path: Path, change: str, *parameters: Any) -> None:
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute(change, parameters)
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM records WHERE id = 5",
        "UPDATE records SET body = (SELECT body FROM records WHERE id = 6) WHERE id = 5",
        "UPDATE records SET id = 50 WHERE id = 5",
        "DELETE FROM about WHERE id = 2",
    ],
)
def test_changes_that_leave_a_sound_database_are_found(tmp_path: Path, change: str) -> None:
    """Records that are missing, exchanged or renumbered count as damage; the others are kept."""
    path = tmp_path / "spool"
    spool = Spool(path, table="t")
    bodies: Sequence[bytes] = [bytes([number]) * 100 for number in range(10)]
    ids = spool.send(Commit(bodies), 1)
    spool.close()
    stored(path, change)
    again = Spool(path, table="t")
    found = dict(again.send(Left(0, 100), 1))
    assert again.damaged > 0
    assert len(found) >= 9
    assert all(bodies[ids.index(record_id)] == body for record_id, body in found.items())
    again.close()


class Exits(list[int]):
    """A value that ends the thread which encodes it."""

    def __iter__(self) -> Iterator[int]:
        raise SystemExit


def test_a_value_that_ends_the_thread_holds_up_no_other_row() -> None:
    """A row whose value raises `SystemExit` becomes a dead letter, and other rows are written."""

    @features
    class Visit:
        id: int
        pages: list[int]

    letters: list[DeadLetter] = []
    with OnlineStore.open("sqlite://", [Visit]) as store:
        with PersistenceWriter(store, dead_letters=letters.extend) as writer:
            rows = [{"id": 1, "pages": Exits([1])}, {"id": 2, "pages": [2]}]
            ticket = writer.submit(Visit, rows)
            with pytest.raises(WriteFailed):
                ticket.wait(timeout=30)
        assert (ticket.written, ticket.dead, len(letters)) == (1, 1, 1)
        assert store.read(Visit, [2])[0]["pages"] == [2]


def test_a_wait_that_is_given_up_takes_no_ring() -> None:
    """A bell that wakes one waiter wakes one that still waits."""
    bell = Signal()
    given_up, waiting = bell.wait(0, 30), bell.wait(0, 30)
    next(given_up)
    effect = next(waiting)
    given_up.close()
    bell.notify(1)
    assert isinstance(effect, Await)
    assert effect.future.done()


def test_a_row_that_is_written_while_it_is_given_up_counts_once() -> None:
    """`close` gives up rows in one thread while the request of another one is acknowledged."""
    inbox = Inbox(100, 1 << 20)

    def written_meanwhile(letters: Any) -> None:
        ledger.end([PendingRow(submission, 0, EncodedBatch(1))], 0.0)

    ledger = Ledger(inbox, None, written_meanwhile)
    submission = Submission(Ticket(2, 10.0, 0.0, ledger), "user", [{}, {}], [0, 0], "live")  # type: ignore[arg-type]
    ledger.accept(submission)
    ledger.abandon(StoreClosed("closed"), is_spooled=False)
    assert (ledger.counts.written, ledger.counts.dead, inbox.rows) == (1, 1, 0)
