"""Faults at every line of the writer: each accepted row is still accounted for.

The default run tries one line of 101. `CHALK_STRESS=n` tries n times as many; 101 tries every line.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from chalk_online_store import (
    DeadLetter,
    OnlineStore,
    PersistenceWriter,
    RowsAbandoned,
    Ticket,
    WriteFailed,
    Writing,
)
from chalk_online_store import writer as package
from chalk_online_store.effects import Operation, Sleep
from chalk_online_store.errors import ConnectionFailed
from chalk_online_store.writer.spool import Spool
from tests.writers import WRITES, User, World

STRESS = int(os.environ.get("CHALK_STRESS", "1"))
FOLDER = str(Path(package.__file__).parent)
T0 = datetime(2026, 1, 1, tzinfo=UTC)
THREAD = "chalk-online-store-writer"


class Injector:
    """Raises an exception at the n-th line that is run below the writer's folder."""

    def __init__(self, line: int, error: type[BaseException], thread: str | None = None) -> None:
        self.lines = 0
        self.where = ""
        self._line = line
        self._error = error
        self._thread = thread

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if self._thread is not None and threading.current_thread().name != self._thread:
            return None
        return self._trace

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line" and not self.where:
            self.lines += 1
            if self.lines == self._line:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise self._error("injected")
        return self._trace


@contextmanager
def traced(injector: Injector) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(injector)
    try:
        yield
    finally:
        sys.settrace(before)


# --- in virtual time: every line, the same run every time ----------------------------------


class Run:
    """One short life of a writer: rows good and bad, a request that fails, and a flush."""

    def __init__(self, injector: Injector, spool: Path | None, ordering: str) -> None:
        self.injector = injector
        opened = None if spool is None else Spool(spool, table="t")
        self.world = World(Writing(ordering=ordering), spool=opened)  # type: ignore[arg-type]
        self.tickets: list[Ticket] = []
        self.abandoned = 0
        failures = iter([True, False, True])
        self.world.fault = lambda request, now: (
            ConnectionFailed("gone")
            if isinstance(request, WRITES) and next(failures, False)
            else None
        )
        with traced(injector):
            try:
                self.world.run(self._script)
            except Exception as error:  # noqa: BLE001
                expect_injected(error)
            self._end()

    def _script(self) -> Operation[None]:
        for rows in (
            [row(1, 1), row(2, 2), row(3, 3)],
            [row(4, 4), {"id": 5, "a": "bad"}],
        ):
            yield from self._submit(rows, T0)
        yield Sleep(0.5)
        yield from self._submit([row(1, 10), row(2, 20)], T0 + timedelta(seconds=1))
        for _ in range(2):
            try:
                yield from self.world.writer.flush(60)
                break
            except Exception as error:  # noqa: BLE001
                expect_injected(error)

    def _submit(self, rows: list[dict[str, Any]], time: datetime) -> Operation[None]:
        for _ in range(2):  # Whoever is told that it has failed, submits again.
            try:
                self.tickets.append((yield from self.world.submit(rows, time)))
                break
            except Exception as error:  # noqa: BLE001
                expect_injected(error)

    def _end(self) -> None:
        """What `close` does; the second time, if the first one is interrupted."""
        for _ in range(2):
            if self.world.writer.ended:
                break
            try:
                self.world.writer.stop()
                self.world.writer.abandon()
            except RowsAbandoned as error:
                self.abandoned = error.rows
            except Exception as error:  # noqa: BLE001
                expect_injected(error)

    def check(self, spool: Path | None) -> None:
        world = self.world
        world.check_account()
        stats = world.writer.stats(_instant(world.driver.now))
        lost = self.abandoned - stats.undelivered
        pending = sum(ticket.pending for ticket in self.tickets)
        assert stats.pending >= pending
        if spool is not None:
            assert world.spool is not None
            world.spool.close()
            self._recover(spool)
        else:
            assert (stats.pending, pending) == (0, 0)
        if not lost:
            values = {key: world.read(key).get("a") for key in range(1, 6)}
            assert values == {1: 10, 2: 20, 3: 3, 4: 4, 5: None}
        assert stats.undelivered or 5 in {letter.row.get("id") for letter in world.letters}
        for ticket in self.tickets:
            assert ticket.written + ticket.dead + ticket.pending == ticket.rows
            assert len(ticket.errors) == ticket.dead

    def _recover(self, spool: Path) -> None:
        """The next writer with the spool writes what is left in it."""
        engine = self.world.engine
        again = World(spool=Spool(spool, table="t"))
        again.engine, old = engine, again.engine
        old.close()

        def script() -> Operation[None]:
            yield from again.writer.flush(60)

        again.run(script)
        assert again.spool is not None
        assert again.spool.damaged == 0
        again.spool.close()


def expect_injected(error: Exception) -> None:
    if "injected" not in str(error):
        raise error


def _instant(now: float) -> Any:
    from chalk_online_store.effects import Instant

    return Instant(now, 0)


def row(key: int, a: int) -> dict[str, Any]:
    return {"id": key, "a": a, "b": None}


def lives(error: type[BaseException], spool: Path | None, ordering: str, gap: int) -> Iterator[Run]:
    line = 1
    while True:
        place = None if spool is None else spool.with_name(f"spool-{line}")
        injector = Injector(line, error)
        try:
            run = Run(injector, place, ordering)
            run.check(place)
            run.world.engine.close()
        except BaseException as wrong:
            wrong.add_note(f"{error.__name__} at line {line}, {injector.where}")
            raise
        yield run
        if not injector.where:
            return
        line += gap


@pytest.mark.parametrize("ordering", ["event", "arrival"])
@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_fault_at_any_line_loses_no_row(
    tmp_path: Path, error: type[Exception], spooled: bool, ordering: str
) -> None:
    """After an exception at any line of the writer, each row is written, dead or raised."""
    spool = tmp_path / "spool" if spooled else None
    gap = max(1, 101 // STRESS)
    runs = sum(1 for _ in lives(error, spool, ordering, gap))
    assert runs > 10


# --- with threads: also what is no `Exception` ---------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("spooled", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_a_fault_in_the_writers_thread_loses_no_row(
    tmp_path: Path, error: type[BaseException], spooled: bool
) -> None:
    """A thread that is ended at any line begins again, and `close` accounts for each row."""
    lines = range(1, 4000, max(1, 401 // STRESS))
    fired = 0
    for line in lines:
        place = tmp_path / f"spool-{line}" if spooled else None
        injector = Injector(line, error, THREAD)
        threading.settrace(injector)
        try:
            run_with_threads(place)
        except BaseException as wrong:
            wrong.add_note(f"{error.__name__} at line {line}, {injector.where}")
            raise
        finally:
            threading.settrace(None)
        fired += bool(injector.where)
    assert fired


def run_with_threads(spool: Path | None) -> None:
    letters: list[DeadLetter] = []
    with OnlineStore.open("sqlite://", [User]) as store:
        writer = PersistenceWriter(store, spool=spool, dead_letters=letters.extend)
        first = writer.submit(User, [row(1, 1), row(2, 2), {"id": 5, "a": "bad"}], T0)
        with pytest.raises(WriteFailed):
            first.wait(timeout=60)
        second = writer.submit(User, [row(1, 10), row(3, 3)], T0 + timedelta(seconds=1))
        second.wait("durable", timeout=60)
        writer.flush(30)
        writer.close(30)
        stats = writer.stats()
        assert (stats.accepted, stats.written, stats.dead, stats.pending) == (5, 4, 1, 0)
        assert [each["a"] for each in store.read(User, [1, 2, 3])] == [10, 2, 3]
        assert 5 in [letter.row["id"] for letter in letters]


def test_a_thread_that_is_gone_is_started_again() -> None:
    """A waiting caller restarts the writer's thread if it has ended, whatever has ended it."""
    with OnlineStore.open("sqlite://", [User]) as store, PersistenceWriter(store) as writer:
        writer.submit(User, [row(1, 1)]).wait(timeout=60)
        thread, core = writer._thread, writer._core
        assert thread is not None
        core.stopped = True  # As if an exception had ended the loop of the thread.
        core._pipeline.stop()
        thread.join(60)
        core.stopped = False
        writer.submit(User, [row(1, 2)]).wait(timeout=60)
        assert store.read(User, [1])[0]["a"] == 2
