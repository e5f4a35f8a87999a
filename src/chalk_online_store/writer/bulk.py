"""Bulk writes in the caller's thread, for loads.

Problem. A load has one caller, rows in batches, and no need to survive the end of its process: the
file can be read again. A `PersistenceWriter` accounts for each row by itself, which takes more CPU
than encoding the row. `OnlineStore.write` encodes a batch by columns, but it ends at the first row
that is invalid and at the first outage.

Approach. A batch is encoded as `OnlineStore.write` encodes it, and sent in as large pieces as the
rate allows. Changes that failed are sent again with backoff, until the engine has accepted or
refused each one. So a batch ends with all rows written or refused, or with an error that no
retry remedies, such as a missing permission.

Invariants.
- Of two changes of one item in a batch, at most one is in a piece. They are sent in their order.
- A change may be sent twice, with the same observed-at. That has the effect of sending it once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import Change, subtract_newer
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import (
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    RequestRefused,
    WriteFailed,
)
from chalk_online_store.logs import event
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.times import ObservedAt, check_not_ahead, times_of_rows
from chalk_online_store.operations.write import Ordering, changes_of_rows, row_by_row
from chalk_online_store.report import Report
from chalk_online_store.retry import RetryPolicy
from chalk_online_store.schema import Namespace
from chalk_online_store.writer.pending import estimated_units
from chalk_online_store.writer.sending import Retries, WriteRate
from chalk_online_store.writer.settings import LOG

_RETRY = RetryPolicy(base=0.1, cap=5.0)
_REGISTRY_SECONDS = 10.0
_PIECE_SECONDS = 60.0
"""Timeout of a piece. Changes that are not sent by then are sent again with the next piece."""

_PROBE = 16
"""Changes of a piece while the engine fails all of them."""


class _Outgoing:
    """A change that is not written yet, and the positions of the rows that it is for.

    The first row is the one that the change is of. Those after it have nothing that it replaces.
    """

    __slots__ = ("change", "is_suspect", "rows")

    def __init__(self, change: Change, rows: list[int]) -> None:
        self.change = change
        self.rows = rows
        self.is_suspect = False
        """True if a piece with this change was refused: it is sent by itself."""


class BulkWriter:
    """Writes batches of rows of one namespace. Not thread-safe.

    `ordering` is as for `OnlineStore.write`. `wcu_per_second` bounds the rate; throttles lower it,
    as they do for a backfill of a `PersistenceWriter`. `report` counts all batches.

    The rate begins without saved units, and `finish` waits until all that was sent is paid for. So
    writers that follow each other, in any number of processes, keep the rate together.
    """

    def __init__(
        self,
        core: Core,
        namespace: Namespace,
        ordering: Ordering,
        wcu_per_second: float | None,
        rng: random.Random | None = None,
    ) -> None:
        self._core = core
        self._namespace = namespace
        self._ordering: Ordering = ordering
        self._rate = WriteRate(wcu_per_second, prepaid=True)
        self._retries = Retries(_RETRY, rng or random.Random())
        self.report = Report()
        self.superseded_rows = 0
        """Rows so far of which nothing was stored, because the table or the batch has newer ones.

        A row of several groups counts if none of its items was changed.
        """

    def write(
        self, rows: Sequence[Mapping[str, Any]], observed_at: ObservedAt, *, is_replay: bool = False
    ) -> Operation[dict[int, OnlineStoreError]]:
        """Write a batch; return why each row that can never be written was refused, by position.

        `is_replay` states that these rows were written before, perhaps to a region that is lost.
        Waits for an engine that is unreachable. Raises `OnlineStoreError` if no retry can succeed.
        """
        codec = yield from self._codec()
        now: Instant = yield NOW
        times = times_of_rows(observed_at, len(rows), {}, now.wall)
        latest = self._core.latest_time(codec.namespace, now)
        refused: dict[int, OnlineStoreError] = {}
        stored: set[int] = set()
        try:
            check_not_ahead(times, latest)
            planned = changes_of_rows(codec, rows, times)
        except Exception:  # noqa: BLE001 - row by row, to find which rows are invalid.
            planned, refused = row_by_row(codec, rows, times, latest=latest)
        waiting = deque(_combined(planned, self._ordering))
        while waiting:
            piece = yield from self._next_piece(waiting)
            for outgoing, error in (yield from self._send(codec, piece, is_replay, stored)):
                if error is None:
                    waiting.appendleft(outgoing)
                else:
                    refused |= dict.fromkeys(outgoing.rows, error)
        self.superseded_rows += len({row for row, _ in planned} - stored - refused.keys())
        return refused

    def finish(self) -> Operation[None]:
        """Wait until the rate allows for all that was sent."""
        now: Instant = yield NOW
        while (wait := self._rate.debt(now.monotonic)) > 0:
            yield Sleep(wait)
            now = yield NOW

    def _codec(self) -> Operation[NamespaceCodec]:
        known = self._core.registry.known(self._namespace)
        if known is not None and known.prefix is not None:
            return known
        while True:
            now: Instant = yield NOW
            call = Call(now.monotonic + _REGISTRY_SECONDS)
            try:
                codec = yield from self._core.registry.for_write(self._namespace, call)
            except (RequestError, RegistryUnavailable) as error:
                if isinstance(error, RequestError) and not error.retryable:
                    raise
                yield from self._wait_after_failure(1, error)
            else:
                return codec

    # --- choosing what to send -------------------------------------------------------------

    def _next_piece(self, waiting: deque[_Outgoing]) -> Operation[list[_Outgoing]]:
        """Take the next changes of distinct items, once the rate allows to send them."""
        now: Instant = yield NOW
        while (wait := self._seconds_to_wait(now.monotonic)) > 0:
            yield Sleep(wait)
            now = yield NOW
        piece: list[_Outgoing] = []
        left_over: list[_Outgoing] = []
        keys: set[ItemKey] = set()
        units = self._rate.most
        most = _PROBE if self._retries.ill else len(waiting)
        while waiting and len(piece) < most and not (piece and (units < 0 or piece[-1].is_suspect)):
            outgoing = waiting.popleft()
            key = outgoing.change.key
            if key in keys or (piece and outgoing.is_suspect):
                left_over.append(outgoing)
            else:
                piece.append(outgoing)
                if self._rate.bounded:
                    units -= estimated_units(outgoing.change)
            keys.add(key)
        waiting.extendleft(reversed(left_over))
        return piece

    def _seconds_to_wait(self, now: float) -> float:
        return max(self._retries.not_before - now, self._rate.wait(now, backfill=True))

    # --- sending ---------------------------------------------------------------------------

    def _send(
        self,
        codec: NamespaceCodec,
        piece: Sequence[_Outgoing],
        is_replay: bool,
        stored: set[int],
    ) -> Operation[list[tuple[_Outgoing, OnlineStoreError | None]]]:
        """Send a piece; return the changes to send again (None), and those that were refused.

        Adds the positions of the rows of which something was stored to `stored`.
        """
        bounded = self._rate.bounded
        estimated = sum(estimated_units(each.change) for each in piece) if bounded else 0.0
        self._rate.spend(estimated)
        now: Instant = yield NOW
        call = Call(now.monotonic + _PIECE_SECONDS, replay=is_replay, retries=False)
        superseded: set[int] = set()
        failed = yield from self._apply(codec, piece, call, superseded)
        for position, outgoing in enumerate(piece):
            if position not in failed and position not in superseded:
                stored.add(outgoing.rows[0])
        now = yield NOW
        throttled = call.report.throttles > 0
        self._rate.settle(estimated, call.report.wcu, throttled, now.monotonic)
        self.report.add(call.report)
        if len(failed) < len(piece):
            self._retries.succeeded(len(piece) - len(failed))
        found: list[tuple[_Outgoing, OnlineStoreError | None]] = []
        for position in sorted(failed, reverse=True):  # The first is put back in front of others.
            error, outgoing = failed[position], piece[position]
            if isinstance(error, RequestError) and not isinstance(error, RequestRefused):
                found.append((outgoing, None))
            elif len(piece) > 1:  # It may be the fault of another change of the same request.
                outgoing.is_suspect = True
                found.append((outgoing, None))
            else:
                found.append((outgoing, error))
        faults = [error for error in failed.values() if isinstance(error, RequestError)]
        faults = [error for error in faults if not isinstance(error, RequestRefused)]
        if faults:
            yield from self._wait_after_failure(len(faults), faults[0], len(faults) == len(piece))
        return found

    def _apply(
        self,
        codec: NamespaceCodec,
        piece: Sequence[_Outgoing],
        call: Call,
        superseded: set[int],
    ) -> Operation[dict[int, OnlineStoreError]]:
        """Return the errors of the changes that failed, by position in the piece."""
        planned = [(position, each.change) for position, each in enumerate(piece)]
        writing = self._core.apply(codec, planned, self._ordering, call, superseded)
        watcher = self._core.watcher
        try:
            yield from (
                writing if watcher is None else watcher.watch("write", codec.namespace, writing)
            )
        except WriteFailed as error:
            return dict(error.failed)
        except RequestError as error:
            if not error.retryable and not isinstance(error, RequestRefused):
                raise
            return dict.fromkeys(range(len(piece)), error)
        except OnlineStoreError as error:  # Of one item, such as a damaged one in the table.
            return dict.fromkeys(range(len(piece)), error)
        return {}

    def _wait_after_failure(
        self, failures: int, error: OnlineStoreError, is_total: bool = True
    ) -> Operation[None]:
        """Record failures, so that the next piece waits with backoff."""
        if is_total and not self._retries.ill:
            said = event("writer.stuck", error=error)
            LOG.warning("Nothing can be written now; rows wait: %s", error, extra=said)
        self.report.retries += failures
        now: Instant = yield NOW
        self._retries.failed(failures, is_total, now.monotonic)


def _combined(planned: Sequence[tuple[int, Change]], ordering: Ordering) -> Iterator[_Outgoing]:
    """Yield changes in the order to send them, without those that later ones replace.

    A file may have many rows of one entity, as a log of events does. Only what is left of their
    changes is sent, because each request has its price.
    """
    if len({change.key for _, change in planned}) == len(planned):
        yield from (_Outgoing(change, [position]) for position, change in planned)
        return
    by_item: dict[ItemKey, list[tuple[int, Change]]] = {}
    for position, change in planned:
        by_item.setdefault(change.key, []).append((position, change))
    for changes in by_item.values():
        if len(changes) == 1:
            yield _Outgoing(changes[0][1], [changes[0][0]])
        elif ordering == "arrival":
            yield _Outgoing(changes[-1][1], [position for position, _ in reversed(changes)])
        else:
            yield from _combined_by_event_time(changes)


def _combined_by_event_time(changes: Sequence[tuple[int, Change]]) -> list[_Outgoing]:
    in_time = sorted(changes, key=lambda each: each[1].observed_at)  # Stable: arrival breaks ties.
    kept: list[_Outgoing] = []
    for position, change in reversed(in_time):
        left = change
        for newer in kept:
            rest = subtract_newer(left, newer.change)
            if rest is None:
                newer.rows.append(position)
                break
            left = rest
        else:
            kept.append(_Outgoing(left, [position]))
    kept.reverse()
    return kept
