"""What an earlier process has left in the spool: taken up where it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from chalk_online_store.backend import Call
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.effects import NOW, Instant, Operation, Send, Sleep
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
from chalk_online_store.routing.health import RegionState
from chalk_online_store.routing.router import Router
from chalk_online_store.writer import records
from chalk_online_store.writer.intake import SPOOL
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.pending import Entry, Pending, by_event_time
from chalk_online_store.writer.sending import WriteRate
from chalk_online_store.writer.settings import LOG
from chalk_online_store.writer.signal import Signal, StopFlag
from chalk_online_store.writer.spool import Fetch
from chalk_online_store.writer.tickets import (
    EncodedBatch,
    PendingRow,
    ReplayBuffer,
    Submission,
    Wakeable,
)

_RECORDS_A_PAGE = 16
_LOAD_TIMEOUT = 10.0
_RETRY_SECONDS = 1.0
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
            yield from room.wait(seen, _RETRY_SECONDS)
        self.ended.notify()
        while not stop.is_set:  # A part that ends before the others ends them all.
            yield from room.wait(room.count, _IDLE)

    def _load_records(self, pending: Pending) -> Operation[None]:
        ids = list(islice(self._left, _RECORDS_A_PAGE))
        try:
            found: dict[int, bytes] = yield Send(Fetch(ids), _LOAD_TIMEOUT, SPOOL)
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
        codec = yield from core.registry.for_read(namespace, Call(now.monotonic + _LOAD_TIMEOUT))
    except RequestError:
        raise
    except OnlineStoreError as error:
        if isinstance(error, RegistryUnavailable):
            raise
        raise UnknownFeature(str(error)) from error
    records.check(record, codec.registry)
    return codec


# --- Writes again what a region had acknowledged that may be lost with it: nothing else c ---
#
# A region that is lost may have acknowledged writes that had not been replicated yet. They are
# written to the region that is written to from then on, and to the lost one once it is back.
# Whoever has them already is left as it is (`Call.replay`): a new version of an item would overtake
# what another process writes to it elsewhere.


_EVERY = 0.5
"""Seconds between two looks at the regions."""

_CAUGHT_UP = 5.0
"""Seconds that a region may be behind that gets back what it lost: what is missing then is lost."""

_PARCELS_AT_ONCE = 64
_CHANGES_AT_ONCE = 16
_REPLAY_TIMEOUT = 5.0
_REPLAY_RETRY_SECONDS = 1.0


class Replays:
    """Looks after what the regions of a store have acknowledged."""

    def __init__(
        self, core: Core, router: Router, window: ReplayBuffer, ledger: Ledger, rate: WriteRate
    ) -> None:
        self._core = core
        self._router = router
        self._window = window
        self._ledger = ledger
        self._rate = rate
        self._active = router.written
        self.bell = Signal()
        self._stop = StopFlag()

    def run(self, stop: StopFlag) -> Operation[None]:
        """Look at the regions now and then, until it is told to stop."""
        self._stop = stop
        while not stop.is_set:
            seen = self.bell.count
            yield from self._core.look_after_regions()
            now: Instant = yield NOW
            yield from self._follow(now)
            yield from self._replay_pending()
            self._ledger.release(self._window.expire(now.monotonic))
            yield from self.bell.wait(seen, _EVERY)

    def _follow(self, now: Instant) -> Operation[None]:
        """Write to the active region what others have acknowledged lately."""
        fresh = self._window.fresh()
        try:
            yield from self._replay_lost(fresh, now)
        except BaseException:
            self._window.give_back(fresh)
            raise

    def _replay_lost(self, fresh: Sequence[EncodedBatch], now: Instant) -> Operation[None]:
        written = self._router.to_write(now)
        strays = [p for p in fresh if p.regions.keys() - {self._active, written}]
        lost = {name for parcel in strays for name in parcel.regions} - {self._active, written}
        left = self._active
        if written != left and self._router.may_have_lost_writes(left):
            lost.add(left)
            strays += self._window.acknowledged(left, now.monotonic)
        strays = list(dict.fromkeys(strays))
        if not strays:
            self._active = written
            return
        LOG.warning(
            "%d parcels of rows that %s has acknowledged are written to %s again.",
            len(strays), ", ".join(sorted(lost)), written,
            extra=event("writer.replay", parcels=len(strays), lost=sorted(lost), region=written),
        )  # fmt: skip
        for name in lost:
            self._window.schedule_replay(
                name, [parcel for parcel in strays if name in parcel.regions]
            )
        yield from self._replay(strays, "")
        self._active = written
        for parcel in strays:
            for name in lost:
                parcel.regions.pop(name, None)

    def _replay_pending(self) -> Operation[None]:
        for region in self._window.regions_to_replay:
            if self._is_healthy(region) and (
                yield from self._replay(self._window.pending_replay(region), region)
            ):
                self._ledger.release(self._window.settled(region))

    def _is_healthy(self, region: str) -> bool:
        """Whether a region is well, and has what was written elsewhere meanwhile."""
        if self._router.health[region].state is not RegionState.HEALTHY:
            return False
        behind = self._router.behind(region)
        return behind is None or behind < _CAUGHT_UP

    # --- writing again ---------------------------------------------------------------------

    def _replay(self, parcels: Sequence[EncodedBatch], region: str) -> Operation[bool]:
        """Write parcels to a region; False if it is gone before the end. "" is the active one."""
        for start in range(0, len(parcels), _PARCELS_AT_ONCE):
            some = parcels[start : start + _PARCELS_AT_ONCE]
            pending = yield from self._unpack(some)
            while pending.ready("live"):
                if self._stop.is_set or (region and not self._is_healthy(region)):
                    return False
                yield from self._write_some(pending, region)
            if not region:  # That region may be lost, too.
                now: Instant = yield NOW
                for parcel in some:
                    self._window.add(parcel, now.monotonic)
        return True

    def _unpack(self, parcels: Sequence[EncodedBatch]) -> Operation[Pending]:
        """The changes of parcels, as few as they can be made."""
        fetched = yield from self._fetch([p.id for p in parcels if p.id is not None])
        pending = Pending(by_event_time)
        for parcel in parcels:
            body = parcel.body if parcel.id is None else fetched.get(parcel.id)
            try:
                if body is not None:
                    yield from self._unpack_one(body, parcel, pending)
            except (UnknownFeature, DamagedItem) as error:
                said = event("writer.replay_skipped", error=error)
                LOG.warning("Rows are not written again: %s", error, extra=said)
        return pending

    def _fetch(self, ids: Sequence[int]) -> Operation[dict[int, bytes]]:
        if not ids:
            return {}
        try:
            found: dict[int, bytes] = yield Send(Fetch(ids), _REPLAY_TIMEOUT, SPOOL)
        except SpoolError as error:
            said = event("writer.replay_failed", error=error)
            LOG.error("Rows cannot be written again: %s", error, extra=said)
            return {}
        return found

    def _unpack_one(self, body: bytes, parcel: EncodedBatch, pending: Pending) -> Operation[None]:
        record = records.decode(body)
        codec = yield from codec_of(self._core, record)
        for _, change in records.changes_of(record):
            unit = PendingRow.of_replay(parcel)
            pending.add(Entry(codec, change, unit, "live", replay=True))

    def _write_some(self, pending: Pending, region: str) -> Operation[None]:
        now: Instant = yield NOW
        wait = self._rate.wait(now.monotonic, backfill=False)
        if wait:
            yield Sleep(wait)
        batch = pending.take("live", _CHANGES_AT_ONCE, self._rate.most)
        cost = sum(entry.cost for entry in batch)
        self._rate.spend(cost)
        call = Call(
            now.monotonic + wait + _REPLAY_TIMEOUT, region=region, replay=True, retries=False
        )
        failed = yield from self._write(batch, call)
        for entry in batch:
            (pending.put_back if entry in failed else pending.done)(entry)
        self._ledger.counts.replayed += len(batch) - len(failed)
        ended: Instant = yield NOW
        for entry in batch:
            for unit in entry.units:
                unit.parcel.regions.update(dict.fromkeys(call.report.regions, ended.monotonic))
        self._rate.settle(cost, call.report.wcu, call.report.throttles > 0, ended.monotonic)
        if failed:
            yield Sleep(_REPLAY_RETRY_SECONDS)

    def _write(self, batch: Sequence[Entry], call: Call) -> Operation[list[Entry]]:
        """Those of a batch that are to be tried again."""
        try:
            outcomes = yield from self._core.backend.change([e.change for e in batch], call)
        except OnlineStoreError:
            return list(batch)
        found = zip(batch, outcomes, strict=True)
        return [
            e for e, outcome in found if isinstance(outcome, RequestError) and outcome.retryable
        ]
