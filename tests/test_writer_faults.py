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
    RowsPending,
    Ticket,
    WriteFailed,
    Writing,
)
from chalk_online_store import writer as package
from chalk_online_store.drivers.sqlite import SqliteEngine
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
                assert "injected" in str(error)
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
                assert "injected" in str(error)

    def _submit(self, rows: list[dict[str, Any]], time: datetime) -> Operation[None]:
        for _ in range(2):  # Whoever is told that it has failed, submits again.
            try:
                self.tickets.append((yield from self.world.submit(rows, time)))
                break
            except Exception as error:  # noqa: BLE001
                assert "injected" in str(error)

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
                assert "injected" in str(error)

    def check(self, spool: Path | None) -> None:
        world = self.world
        world.check_account()
        stats = world.writer.stats(_instant(world.driver.now))
        pending = sum(ticket.pending for ticket in self.tickets)
        assert stats.pending >= pending
        if spool is not None:
            assert world.spool is not None
            world.spool.close()
            self._recover(spool)
        elif not self.abandoned:
            assert (stats.pending, pending) == (0, 0)
        if not self.abandoned:
            values = {key: world.read(key).get("a") for key in range(1, 6)}
            assert values == {1: 10, 2: 20, 3: 3, 4: 4, 5: None}
        assert 5 in {letter.row.get("id") for letter in world.letters}
        for ticket in self.tickets:
            assert ticket.written + ticket.dead + ticket.pending == ticket.rows

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


def _instant(now: float) -> Any:
    from chalk_online_store.effects import Instant

    return Instant(now, 0)


def row(key: int, a: int) -> dict[str, Any]:
    return {"id": key, "a": a, "b": None}


def lives(
    error: type[BaseException], spool: Path | None, ordering: str, gap: int
) -> Iterator[Run]:
    line = 1
    while True:
        place = None if spool is None else spool.with_name(f"spool-{line}")
        injector = Injector(line, error)
        run = Run(injector, place, ordering)
        try:
            run.check(place)
        except BaseException as wrong:
            wrong.add_note(f"{error.__name__} at line {line}, {injector.where}")
            raise
        finally:
            run.world.engine.close()
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
