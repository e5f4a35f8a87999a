"""What an earlier process has left in the spool: taken up where it ended."""

from __future__ import annotations

from collections.abc import Callable

from chalk_online_store.backend import Call
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import (
    DamagedItem,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    UnknownFeature,
)
from chalk_online_store.logs import event
from chalk_online_store.operations.core import Core
from chalk_online_store.writer import records
from chalk_online_store.writer.bell import Bell
from chalk_online_store.writer.intake import SPOOL
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.logs import LOG
from chalk_online_store.writer.pending import Entry, Pending
from chalk_online_store.writer.spool import Left

_RECORDS_A_PAGE = 16
_TIMEOUT = 10.0
_TRY_AGAIN = 1.0


class Recovery:
    """Replays the spool, in event time: what is in the table already stays as it is.

    `newest` is the last record of the earlier process. `wake` is told when there is something
    to send.
    """

    def __init__(
        self, core: Core, ledger: Ledger, pending: Pending, wake: Callable[[], None], newest: int
    ) -> None:
        self._core = core
        self._ledger = ledger
        self._pending = pending
        self._wake = wake
        self._newest = newest
        self._after = 0
        self.ended = Bell()
        self.stopping = False

    @property
    def done(self) -> bool:
        """Whether all of it is under way, or further."""
        return self._after >= self._newest

    def run(self) -> Operation[None]:
        """Take up page after page, as long as there is room."""
        inbox, room = self._ledger.inbox, self._ledger.room
        while not (self.done or self.stopping):
            seen = room.count
            try:
                if inbox.rows < inbox.max_rows:
                    yield from self._take_up()
                    continue
            except (RequestError, RegistryUnavailable) as error:
                said = event("writer.recovery_waits", error=error)
                LOG.warning("What lies in the spool has to wait: %s", error, extra=said)
            yield from room.wait(seen, _TRY_AGAIN)
        self.ended.ring()

    def _take_up(self) -> Operation[None]:
        page: list[tuple[int, bytes]] = yield Send(
            Left(self._after, _RECORDS_A_PAGE), _TIMEOUT, SPOOL
        )
        for record_id, body in page:
            if record_id <= self._newest:
                yield from self._enter(record_id, body)
            self._after = record_id
        if not page:
            self._after = self._newest
        self._wake()

    def _enter(self, record_id: int, body: bytes) -> Operation[None]:
        try:
            record = records.decode(body)
        except DamagedItem as error:
            said = event("spool.record_lost", record=record_id, error=error)
            LOG.error("A record of the spool is lost: %s", error, extra=said)
            return
        now: Instant = yield NOW
        try:
            codec = yield from codec_of(self._core, record)
        except (UnknownFeature, DamagedItem) as error:
            self._ledger.bury(record, record_id, error, now.monotonic)
            return
        units = self._ledger.recover(record, record_id, now.monotonic)
        for row, change in records.changes_of(record):
            self._pending.add(Entry(codec, change, units[row], "live", replay=True))


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
