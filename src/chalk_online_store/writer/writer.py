"""`PersistenceWriter`: a thin shell over the core of the writer, for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import optional_timeout
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.errors import RowsPending, WriterFailed
from chalk_online_store.operations.times import ObservedAt, time_of
from chalk_online_store.schema import Duration, Namespace, seconds
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.core import WriterCore, check_store, spool_for
from chalk_online_store.writer.intake import SPOOL, OnInvalid
from chalk_online_store.writer.ledger import DeadLetters
from chalk_online_store.writer.settings import WriterStats, Writing, log_mistake
from chalk_online_store.writer.signal import OwnerLock, at_exit, not_at_exit
from chalk_online_store.writer.tickets import Priority, Ticket

_JOIN_SECONDS = 5.0
"""How much longer than its requests the thread may take to end."""

_PAUSE_SECONDS = 0.05
"""Before the thread begins again: what has ended it may do so at once."""

C = TypeVar("C")
"""A class whose instances are rows."""


class PersistenceWriter:
    """Writes rows to a store in the background. Thread-safe; close it before its store.

    `submit` answers in microseconds; a thread of its own, begun with the first row, encodes rows
    together, makes one write of several to the same entity, and tries again what fails. With a
    `spool`, a file that only this writer uses, rows survive the end of the process: the next
    writer with that spool goes on with them. It holds values, and at most `spool_bytes` of them.

    `dead_letters` takes the rows that can never be written, with the reason: a `DeadLetterFile`,
    or a function that takes a list of `DeadLetter`s. Without, they are logged, without values.

    In a fork of the process it begins anew, without what is pending here; with a spool, it
    refuses to be used there.

    Raises `InvalidStore` unless `store` is an `OnlineStore`, `InvalidValue`, `SpoolInUse`,
    `SpoolError`, `WriterFailed`.
    """

    def __init__(
        self,
        store: OnlineStore,
        settings: Writing | None = None,
        *,
        spool: str | Path | None = None,
        spool_bytes: int = 1 << 30,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        check_store(store, OnlineStore, "PersistenceWriter", "AsyncPersistenceWriter")
        self._store = store
        self._settings = Writing() if settings is None else settings
        self._dead_letters = dead_letters
        self._spool = spool_for(store.core, self._settings, spool, spool_bytes)
        try:
            self._reset()
            if self._spool is not None and self._spool.newest:
                self._start()
        except BaseException:
            if self._spool is not None:
                self._spool.close()
            raise
        reset_after_fork(self)
        at_exit(self)

    def reset(self) -> None:
        """In a fork: have nothing under way, and no thread yet."""
        self._core.leave_to_parent()
        self._reset()

    def _reset(self) -> None:
        self._core = WriterCore(
            self._store.core,
            self._settings,
            spool=self._spool,
            dead_letters=self._dead_letters,
            revive=self._start,
        )
        transports = dict(self._store.driver.transports)
        if self._spool is not None:
            transports[SPOOL] = self._spool
        self._driver = SyncDriver(transports)
        self._starting = OwnerLock()
        self._ending = OwnerLock()
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        """Have a thread that works. Raises `WriterFailed`."""
        with self._starting:
            if self._core.stopped or (self._thread is not None and self._thread.is_alive()):
                return
            thread = threading.Thread(
                target=self._work, name="chalk-online-store-writer", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise WriterFailed(
                    f"The writer cannot start its thread: {error}. Raise the limit of threads of "
                    "this process, or call again later."
                ) from error
            self._thread = thread

    def _work(self) -> None:
        """Work until the end, also after what is no `Exception`: nobody waits for this thread."""
        while not self._core.stopped:
            try:
                self._driver.run(self._core.run())
            except BaseException as error:  # noqa: BLE001 - a thread that exits loses rows.
                log_mistake("The thread of the persistence writer begins again", error)
                time.sleep(_PAUSE_SECONDS)

    def submit(
        self,
        schema: Namespace | type[C],
        rows: Iterable[Mapping[str, Any] | C],
        observed_at: ObservedAt = None,
        *,
        priority: Priority = "live",
        on_invalid: OnInvalid = "raise",
    ) -> Ticket:
        """Hand rows over, as `OnlineStore.write` takes them.

        The rows are copied, their values are not: leave a list or an array in them as it is.
        "backfill" rows wait until no "live" ones do.

        Raises `UnknownFeature` for a name that is not in the schema and `InvalidKey` for a key of
        the wrong type, in any row: then no row is accepted. With `on_invalid="dead_letter"` such
        rows become dead letters instead, as rows with invalid values always do.

        Rows that are accepted are written, or else end in the dead letters. Raises
        `InvalidValue`, `StoreClosed`; `QueueFull` if there is no room and the settings say so;
        `WriterFailed` if no thread can be started, with no row accepted.
        """
        if self._spool is not None:
            self._spool.check_process()
        core = self._core
        submission = core.submission(schema, rows, observed_at, priority, read_clocks(), on_invalid)
        if self._thread is None:
            self._start()
        if not core.offer(submission):
            self._driver.run(core.wait_for_room(submission))
        return submission.ticket

    def write_result(
        self,
        query: str,
        inputs: Mapping[str, Any],
        features: Mapping[str, Any],
        *,
        version: str = "",
        max_staleness: Duration = "infinity",
        observed_at: datetime | None = None,
        priority: Priority = "live",
    ) -> Ticket:
        """Hand the result of a query over: `OnlineStore.write_result` in the background.

        Raises `InvalidValue`, and as `submit` does; `RegistryUnavailable` for a struct feature
        whose ids this process has not read yet (`store.warm()` reads them).
        """
        if observed_at is not None:
            time_of(observed_at)
        row = self._store.core.results.row(query, inputs, features, version, max_staleness)
        return self.submit(self._store.core.of_results(), [row], observed_at, priority=priority)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was accepted by now is written, or dead.

        Raises `RowsPending` after `timeout` seconds.
        """
        self._driver.run(self._core.flush(timeout))

    def drain(self, timeout: float | None = None) -> None:
        """Take nothing more, and `flush`."""
        timeout = optional_timeout(timeout)
        self._core.draining = True
        self.flush(timeout)

    def close(self, timeout: float | None = 30.0) -> None:
        """Drain for at most `timeout` seconds, and end; a second call does nothing.

        What is not written by then stays in the spool for the next writer. Without a spool it
        goes to the dead letters, and `RowsAbandoned` is raised. It is raised as well if dead
        letters could not be delivered since the writer was made.

        If the call is interrupted, as by Ctrl-C, it ends all the same, without waiting further.
        """
        timeout = optional_timeout(timeout)
        if self._core.ended or (self._spool is not None and self._spool.foreign):
            not_at_exit(self)
            return
        try:
            with suppress(RowsPending):
                self.drain(timeout)
        finally:
            self._end()

    def _end(self) -> None:
        with self._ending, ExitStack() as steps:  # Each step is taken, whatever the others raise.
            steps.callback(not_at_exit, self)
            if self._spool is not None:
                steps.callback(self._spool.close)
            if not self._core.ended:
                steps.callback(self._core.abandon)
            steps.callback(self._driver.stop)
            steps.callback(self._join)
            steps.callback(self._core.stop)

    def _join(self) -> None:
        """Wait for the thread to end what is under way."""
        if self._thread is not None:
            self._thread.join(seconds(self._settings.write_timeout) + _JOIN_SECONDS)

    def close_at_exit(self, timeout: float) -> None:
        """The interpreter ends, and nobody has called `close`."""
        self.close(timeout)

    def stats(self) -> WriterStats:
        """What this writer has done so far, and what is pending."""
        return self._core.stats(read_clocks())

    def __enter__(self) -> PersistenceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
