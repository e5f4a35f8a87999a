"""Tickets: what `submit` answers, and what is known of a row under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, get_args

from chalk_online_store.arguments import check_choice, optional_timeout
from chalk_online_store.errors import OnlineStoreError, RowsPending
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.bell import Bell
from chalk_online_store.writer.window import Parcel

Level = Literal["durable", "done"]
"""Kept on disk or in the table; or in the table or in the dead letters for good."""

Priority = Literal["live", "backfill"]


class Progress:
    """How many rows are still under way, of a submission or of several.

    Counted in the writer's loop alone; read in any thread.
    """

    __slots__ = ("_waits", "left")

    def __init__(self, rows: int) -> None:
        self.left = rows
        self._waits: Future[None] | None = None

    def advance(self, rows: int) -> None:
        """So many rows have come there."""
        self.left -= rows
        if rows and not self.left and self._waits is not None:
            self._waits.set_result(None)

    def future(self, lock: threading.Lock) -> Future[None]:
        """Settled when none is left. `lock` is the one that `advance` is called under."""
        with lock:
            if self._waits is None:
                self._waits = Future()
                if not self.left:
                    self._waits.set_result(None)
            return self._waits


class Ticket:
    """One submission: `rows` is how many it has, `written` and `dead` what became of them.

    `dead` ones were refused for good and are in the dead letters. A row that a newer one of the
    same entity has made superfluous is written when that one is.
    """

    __slots__ = (
        "_bell",
        "_done",
        "_durable",
        "_lock",
        "dead",
        "epoch",
        "row_bytes",
        "rows",
        "since",
        "written",
    )

    epoch: Progress

    def __init__(
        self, rows: int, row_bytes: float, since: float, lock: threading.Lock, bell: Bell
    ) -> None:
        """`since` is when it was handed over, on the monotonic clock."""
        self.rows = rows
        self.since = since
        self.written = 0
        self.dead = 0
        self.row_bytes = row_bytes
        self._lock = lock
        self._bell = bell
        self._durable = Progress(rows)
        self._done = Progress(rows)

    @property
    def pending(self) -> int:
        """How many rows are neither written nor dead."""
        return self._done.left

    @property
    def durable(self) -> bool:
        """Whether no crash of this process can lose a row of it any more.

        They are on disk, where the writer has a spool, or else in the table.
        """
        return not self._durable.left

    @property
    def done(self) -> bool:
        """Whether every row is written or dead."""
        return not self._done.left

    def wait(self, until: Level = "done", *, timeout: float | None = None) -> None:
        """Wait at most `timeout` seconds for this; for threads.

        Raises `RowsPending` where it has not come by then.
        """
        timeout = optional_timeout(timeout)
        try:
            self._reached(until).result(timeout)
        except TimeoutError:
            raise self._late(until) from None

    def _reached(self, until: Level) -> Future[None]:
        check_choice(until, get_args(Level), "until")
        progress = self._durable if until == "durable" else self._done
        if progress.left:
            self._bell.ring()  # Somebody waits: why should rows do so?
        return progress.future(self._lock)

    def _late(self, until: Level) -> RowsPending:
        left = (self._durable if until == "durable" else self._done).left
        return RowsPending(f"{left} of {self.rows} rows are not {until} yet; they go on.", left)

    # --- counted by the writer, under its lock ---

    def kept(self, rows: int) -> None:
        """So many rows are on disk now."""
        self._durable.advance(rows)

    def ended(self, written: int, dead: int) -> None:
        """So many rows are written, and so many dead."""
        self.written += written
        self.dead += dead
        self._done.advance(written + dead)


class AsyncTicket(Ticket):
    """A `Ticket` that is awaited."""

    __slots__ = ()

    async def wait(  # type: ignore[override]
        self, until: Level = "done", *, timeout: float | None = None
    ) -> None:
        """As `Ticket.wait`, for asyncio."""
        timeout = optional_timeout(timeout)
        reached = asyncio.wrap_future(self._reached(until))
        try:
            await asyncio.wait_for(asyncio.shield(reached), timeout)
        except TimeoutError:
            raise self._late(until) from None


@dataclass(slots=True)
class Submission:
    """Rows of one namespace, as they were handed over; `times` are their observed-at, UTC us."""

    ticket: Ticket
    namespace: Namespace
    rows: Sequence[Mapping[str, Any]]
    times: list[int]
    priority: Priority


class Unit:
    """One row under way: it ends once all changes that it waits for have; of these, `left`.

    `row` is None for one from the spool, of which only its changes are known.
    """

    __slots__ = ("error", "left", "namespace", "observed_at", "parcel", "row", "ticket")

    def __init__(
        self,
        ticket: Ticket,
        namespace: str,
        row: Mapping[str, Any] | None,
        observed_at: int,
        parcel: Parcel,
    ) -> None:
        self.ticket = ticket
        self.namespace = namespace
        self.row = row
        self.observed_at = observed_at
        self.parcel = parcel
        self.left = 0
        self.error: OnlineStoreError | None = None

    @classmethod
    def of_replay(cls, namespace: str, observed_at: int, parcel: Parcel) -> Unit:
        """A row that nobody waits for any more."""
        return cls(_NOBODY, namespace, None, observed_at, parcel)


_NOBODY = Ticket(0, 0.0, 0.0, threading.Lock(), Bell())
