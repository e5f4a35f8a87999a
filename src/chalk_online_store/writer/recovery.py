"""What an earlier process has left in the spool: taken up where it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from chalk_online_store.backend import Call
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import (
    DamagedItem,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    SpoolError,
    UnknownFeature,
)
from chalk_online_store.logs import event
from chalk_online_store.operations.core import Core
from chalk_online_store.writer import records
from chalk_online_store.writer.intake import SPOOL
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.logs import LOG
from chalk_online_store.writer.pending import Entry, Pending
from chalk_online_store.writer.signal import Signal, StopFlag
from chalk_online_store.writer.spool import Fetch
from chalk_online_store.writer.tickets import Submission, Wakeable

_RECORDS_A_PAGE = 16
_TIMEOUT = 10.0
_TRY_AGAIN = 1.0
_IDLE = 5.0


class Recovery:
    """Replays the spool, in event time: what is in the table already stays as it is.

    `records` are the ids of the earlier process's records, in ascending order.
    """

    def __init__(
        self, core: Core, ledger: Ledger, records: Sequence[int], writer: Wakeable
    ) -> None:
        self._core = core
        self._ledger = ledger
        self._writer = writer
        self._left = deque(records)
        self.ended = Signal()

    @property
    def done(self) -> bool:
        """Whether all of it is under way, or further."""
        return not self._left

    def restart(self, submissions: Iterable[Submission]) -> None:
        """After a fault: take up again what is not written yet."""
        again = {s.record_id for s in submissions if s.record_id is not None}
        self._left = deque(sorted(again.union(self._left)))

    def run(self, pending: Pending, wake: Callable[[], None], stop: StopFlag) -> Operation[None]:
        """Take up page after page, as long as there is room; `wake` sends what is pending."""
        inbox, room = self._ledger.inbox, self._ledger.room
        while not (self.done or stop.is_set):
            seen = room.count
            try:
                if inbox.rows < inbox.max_rows:
                    yield from self._load_records(pending)
                    wake()
                    continue
            except (RequestError, RegistryUnavailable, SpoolError) as error:
                said = event("writer.recovery_waits", error=error)
                LOG.warning("What lies in the spool has to wait: %s", error, extra=said)
            yield from room.wait(seen, _TRY_AGAIN)
        self.ended.notify()
        while not stop.is_set:  # A part that ends before the others ends them all.
            yield from room.wait(room.count, _IDLE)

    def _load_records(self, pending: Pending) -> Operation[None]:
        ids = list(islice(self._left, _RECORDS_A_PAGE))
        try:
            found: dict[int, bytes] = yield Send(Fetch(ids), _TIMEOUT, SPOOL)
        except SpoolError:
            raise
        except Exception as error:  # For example, no thread can be started that would read it.
            raise SpoolError(f"The spool cannot be read: {type(error).__name__}.") from error
        for record_id in ids:
            if record_id in found:
                yield from self._enqueue(record_id, found[record_id], pending)
            self._left.popleft()

    def _enqueue(self, record_id: int, body: bytes, pending: Pending) -> Operation[None]:
        try:
            record = records.decode(body)
            changes = list(records.changes_of(record))
        except DamagedItem as error:
            said = event("spool.record_lost", record=record_id, error=error)
            LOG.error("A record of the spool is lost: %s", error, extra=said)
            return
        now: Instant = yield NOW
        refusal: OnlineStoreError | None = None
        try:
            codec = yield from codec_of(self._core, record)
        except (UnknownFeature, DamagedItem) as error:
            refusal = error
        units = self._ledger.recover(record, record_id, now.monotonic, self._writer)
        if refusal is not None:
            self._ledger.dead_letter(record, units, refusal, now.monotonic)
            return
        for row, change in changes:
            if row in units:
                pending.add(Entry(codec, change, units[row], "live", replay=True))


def codec_of(core: Core, record: records.Record) -> Operation[NamespaceCodec]:
    """The namespace of a record as the registry has it.

    Raises `UnknownFeature` where its ids stand for something else by now, `RegistryUnavailable`.
    """
    namespace = core.schema.get(record.namespace)
    if namespace is None:
        raise UnknownFeature(f"The schema has no namespace {record.namespace!r} any more.")
    now: Instant = yield NOW
    try:
        codec = yield from core.registry.for_read(namespace, Call(now.monotonic + _TIMEOUT))
    except RequestError:
        raise
    except OnlineStoreError as error:
        if isinstance(error, RegistryUnavailable):
            raise
        raise UnknownFeature(str(error)) from error
    records.check(record, codec.registry)
    return codec
