"""From rows to changes: encoded many at once, kept on disk, and handed on to be sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from chalk_online_store.backend import Call
from chalk_online_store.codec.columns import Row
from chalk_online_store.codec.keys import keys_encoder
from chalk_online_store.codec.namespaces import NamespaceCodec, Planned
from chalk_online_store.codec.results import RESULTS
from chalk_online_store.effects import NOW, Instant, Operation, Send, Sleep
from chalk_online_store.errors import (
    InvalidKey,
    InvalidValue,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    UnknownFeature,
)
from chalk_online_store.logs import event
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.times import check_not_ahead
from chalk_online_store.operations.write import changes_of_rows, row_by_row
from chalk_online_store.schema import Namespace
from chalk_online_store.writer import records
from chalk_online_store.writer.ledger import Ledger
from chalk_online_store.writer.pending import Entry, Pending
from chalk_online_store.writer.settings import LOG, log_mistake
from chalk_online_store.writer.signal import Signal, StopFlag
from chalk_online_store.writer.spool import Commit
from chalk_online_store.writer.tickets import EncodedBatch, PendingRow, Submission

SPOOL = "spool"
"""What a `Send` to the spool is addressed to: no region is called so."""

_ROWS_A_CYCLE = 4096
_ROWS_A_PARCEL = 256
"""Encoded in one go, some milliseconds: others of the process want to go on as well."""

_AWAKE = 1.0
"""Seconds for which it looks by itself after the last row: to be woken costs whoever submits."""

_ASLEEP = 5.0
_TRY_AGAIN = 1.0
_TIMEOUT = 10.0
_TRIES = 3
"""How often rows are encoded if memory runs out, or something ends the thread meanwhile."""

_GONE = 64
"""Records to remove from the spool that are worth a commit of their own."""


@dataclass(slots=True)
class _Chunk:
    """Rows of one namespace that are encoded together."""

    codec: NamespaceCodec
    parcel: EncodedBatch
    units: list[PendingRow] = field(default_factory=list)
    planned: Sequence[Planned] = ()

    def entries(self) -> Iterator[Entry]:
        for row, change in self.planned:
            unit = self.units[row]
            submission = unit.submission
            replay = submission.tried > 1  # It may be in the table, and a newer one after it.
            yield Entry(self.codec, change, unit, submission.priority, replay)


class Intake:
    """Takes rows from the inbox. `wake` is told when there is something to send."""

    def __init__(
        self,
        core: Core,
        ledger: Ledger,
        pending: Pending,
        wake: Callable[[], None],
        bell: Signal,
        stop: StopFlag,
        *,
        batch_age: float,
        spooled: bool,
        kept: bool,
        most_encoded: float,
    ) -> None:
        """`kept` says that records are needed, also without a spool."""
        self._core = core
        self._ledger = ledger
        self._inbox = ledger.inbox
        self._pending = pending
        self._wake = wake
        self._batch_age = batch_age
        self._spooled = spooled
        self._kept = kept
        self._most_encoded = most_encoded
        self._stuck: dict[str, list[Submission]] = {}
        self._stuck_until: dict[str, float] = {}
        self._awake_until = 0.0
        self.bell = bell
        self._stop = stop
        self.asleep = False

    def run(self) -> Operation[None]:
        """Work until it is told to stop."""
        while not self._stop.is_set:
            seen = self.bell.count
            now: Instant = yield NOW
            taken = self._take(now.monotonic)
            if taken:
                yield from self._encode_all(taken)
                self._awake_until = now.monotonic + _AWAKE
            self._ledger.release_stale()
            if self._ledger.gone >= _GONE:
                yield from self._commit([])
            if self._inbox.waiting < _ROWS_A_CYCLE or not taken:
                yield from self._rest(seen, now.monotonic)
        if self._ledger.gone:
            yield from self._commit([])

    def _rest(self, seen: int, now: float) -> Operation[None]:
        self.asleep = now > self._awake_until and not self._stuck
        if self.asleep and self._ledger.gone:
            yield from self._commit([])
        if self.asleep and self._inbox.waiting:  # Handed over just before it fell asleep.
            self.asleep = False
        yield from self.bell.wait(seen, _ASLEEP if self.asleep else self._batch_age)
        self.asleep = False

    def _take(self, now: float) -> list[Submission]:
        again = [name for name, until in self._stuck_until.items() if until <= now]
        taken = []
        for name in again:
            del self._stuck_until[name]
            taken += self._stuck.pop(name)
        under_way = self._inbox.rows - self._inbox.waiting - self.stuck
        room = int(min(_ROWS_A_CYCLE, self._most_encoded - under_way))
        return taken + (self._inbox.take(room) if room > 0 else [])

    @property
    def stuck(self) -> int:
        """How many rows wait until the registry can be asked."""
        return sum(len(s.rows) for found in list(self._stuck.values()) for s in found)

    @property
    def oldest(self) -> float | None:
        """When the oldest row that is not encoded came, on the monotonic clock."""
        stuck = [found[0].ticket.since for found in list(self._stuck.values()) if found]
        waiting = self._inbox.oldest
        return min(stuck if waiting is None else [*stuck, waiting], default=None)

    def _encode_all(self, taken: Sequence[Submission]) -> Operation[None]:
        chunks: list[_Chunk] = []
        by_namespace: dict[str, list[Submission]] = defaultdict(list)
        for submission in taken:
            by_namespace[submission.namespace].append(submission)
        for name, submissions in by_namespace.items():
            if name in self._stuck:  # In their order.
                self._stuck[name] += submissions
            else:
                chunks += yield from self._encode(name, submissions)
        yield from self._commit(chunks)
        yield from self._hand_on(chunks)

    def _encode(self, name: str, submissions: list[Submission]) -> Operation[list[_Chunk]]:
        try:
            codec = yield from self._codec(submissions[0])
        except (RequestError, RegistryUnavailable) as error:
            now: Instant = yield NOW
            self._stuck[name] = submissions
            self._stuck_until[name] = now.monotonic + _TRY_AGAIN
            kind = type(error).__name__
            LOG.warning(
                "Rows of %s wait, as the registry cannot be asked: %s.",
                name,
                kind,
                extra=event("writer.registry_away", namespace=name, error=error),
            )
            return []
        except OnlineStoreError as error:
            self._ledger.refuse(submissions, error)
            return []
        now = yield NOW
        latest = self._core.latest_time(codec.namespace, now)
        chunks = []
        for chunk, rows, times in _chunks(codec, submissions):
            self._plan(chunk, rows, times, latest)
            chunks.append(chunk)
            yield Sleep(0)
        return chunks

    def _codec(self, submission: Submission) -> Operation[NamespaceCodec]:
        namespace = submission.schema
        assert namespace is not None
        known = self._core.registry.known(namespace)
        if known is not None and known.prefix is not None:
            return known
        now: Instant = yield NOW
        call = Call(now.monotonic + _TIMEOUT)
        return (yield from self._core.registry.for_write(namespace, call))

    def _plan(
        self, chunk: _Chunk, rows: Sequence[Row], times: Sequence[int], latest: int | None
    ) -> None:
        """Encode rows; the bad ones, and those observed after `latest` (UTC us), end here."""
        refused: dict[int, OnlineStoreError] = {}
        try:
            check_not_ahead(times, latest)
            chunk.planned = changes_of_rows(chunk.codec, rows, times)
        except BaseException as error:
            tried = max(unit.submission.tried for unit in chunk.units)
            if not isinstance(error, Exception) and _may_pass(error, tried):
                raise
            chunk.planned, refused = self._plan_each(chunk, rows, times, latest)
        for position, refusal in refused.items():
            chunk.units[position].error = refusal
        if chunk.planned and self._kept:
            chunk.parcel.body = records.encode(chunk.codec, chunk.planned)

    def _plan_each(
        self, chunk: _Chunk, rows: Sequence[Row], times: Sequence[int], latest: int | None
    ) -> tuple[list[Planned], dict[int, OnlineStoreError]]:
        """Encode row by row. A row whose encoding raises anything at all is refused."""
        planned: list[Planned] = []
        refused: dict[int, OnlineStoreError] = {}
        for position, (row, time) in enumerate(zip(rows, times, strict=True)):
            try:
                changes, errors = row_by_row(chunk.codec, [row], [time], latest=latest)
            except BaseException as error:
                if _may_pass(error, chunk.units[position].submission.tried):
                    raise
                log_mistake("A row cannot be encoded", error)
                errors = {0: InvalidValue(f"The row cannot be encoded: {type(error).__name__}.")}
                changes = []
            planned += [(position, change) for _, change in changes]
            if errors:
                refused[position] = errors[0]
        return planned, refused

    def _commit(self, chunks: Sequence[_Chunk]) -> Operation[None]:
        """Keep what was encoded on disk, and remove from there what is not needed any more.

        What the spool cannot take is sent all the same: it is safe once it is in the table.
        """
        if not self._spooled:
            return
        spooled = [chunk for chunk in chunks if chunk.planned]
        bodies = [chunk.parcel.body or b"" for chunk in spooled]
        commit = Commit(bodies, self._ledger.records_gone())
        try:
            yield Send(commit, _TIMEOUT, SPOOL)
        except Exception as error:  # noqa: BLE001 - for example, a thread that cannot start.
            # An exception may come after the commit: then there are ids all the same.
            if commit.give_up() is None:
                said = event("spool.refused", error=error)
                LOG.warning("The spool takes nothing: %s", _reason(error), extra=said)
                if spooled and commit.remove:  # What makes room has to be possible.
                    yield from self._commit([])
                return
        self._ledger.removed(commit.remove)
        parcels = [chunk.parcel for chunk in spooled]
        for parcel, record in zip(parcels, commit.ids or (), strict=True):
            parcel.id, parcel.body = record, None
        self._ledger.kept(parcels, (chunk.units for chunk in spooled))

    def _hand_on(self, chunks: Sequence[_Chunk]) -> Operation[None]:
        now: Instant = yield NOW
        for chunk in chunks:
            for entry in chunk.entries():
                self._pending.add(entry)
            # Those that were refused, or that change nothing.
            self._ledger.end([unit for unit in chunk.units if not unit.left], now.monotonic)
        self._wake()


def _may_pass(error: BaseException, tried: int) -> bool:
    """Return True if rows that were tried so often are to be tried again after an error.

    Memory can run out for a moment, and Ctrl-C can come at any time. But a value whose own methods
    raise `SystemExit` would do so for ever, and no row after it would be written.
    """
    if isinstance(error, Exception) and not isinstance(error, MemoryError):
        return False
    return tried < _TRIES


def _reason(error: Exception) -> str:
    """The text of our own errors, which has no values in it; of others, their class."""
    return str(error) if isinstance(error, OnlineStoreError) else type(error).__name__


def _chunks(
    codec: NamespaceCodec, submissions: Sequence[Submission]
) -> Iterator[tuple[_Chunk, list[Row], list[int]]]:
    """The pending rows of one namespace, with their times, some at a time."""
    flat = (
        (submission, position)
        for submission in submissions
        for position in (
            submission.pending() if submission.tried > 1 else range(len(submission.rows))
        )
    )
    while some := list(islice(flat, _ROWS_A_PARCEL)):
        chunk = _Chunk(codec, EncodedBatch(len(some)))
        rows: list[Row] = []
        times: list[int] = []
        for submission, position in some:
            unit = PendingRow(submission, position, chunk.parcel)
            chunk.units.append(unit)
            rows.append(unit.row or {})
            times.append(submission.times[position])
        yield chunk, rows, times


# --- What `submit` can tell of rows before it takes them: names of features, and primary ---


OnInvalid = Literal["raise", "dead_letter"]
"""Whether rows with unknown names or invalid keys are refused at once, or become dead letters."""

_MAX_KNOWN = 1024
_MAX_PLAIN_INT = 1 << 64
_MAX_PLAIN_STR = 1024


class RowValidator:
    """Checks the names and keys of rows. Thread-safe."""

    def __init__(self) -> None:
        self._validators: dict[str, _NamespaceValidator] = {}

    def check(self, namespace: Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise `UnknownFeature` or `InvalidKey` for the first bad row; a note names its position.

        Values are not looked at: they are encoded, and so checked, in the background.
        """
        if not rows or namespace is RESULTS:  # Rows of results are made here.
            return
        validator = self._validators.get(namespace.name)
        if validator is None or validator.namespace is not namespace:
            validator = self._validators[namespace.name] = _NamespaceValidator(namespace)
        validator.check(rows)


class _NamespaceValidator:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._key_name = namespace.key_name
        self._known: set[tuple[str, ...]] = set()
        encode = keys_encoder(namespace.name, namespace.key)
        self._check_keys: Callable[[Sequence[Any]], object] = lambda keys: encode("", keys)
        self._is_plain = _PLAIN_KEYS.get(namespace.key.annotation, _is_never_plain)

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        known, key_name, is_plain = self._known, self._key_name, self._is_plain
        last: tuple[str, ...] = ()
        for position, row in enumerate(rows):
            names = tuple(row)
            if names != last:
                if names not in known:
                    self._check_names(names, position)
                last = names
            key = row[key_name]
            if not is_plain(key):
                self._check_key(key, position)

    def _check_names(self, names: tuple[Any, ...], position: int) -> None:
        namespace = self.namespace
        try:
            for name in names:
                if name != self._key_name and name not in namespace.by_name:
                    namespace.feature(str(name))
                    raise UnknownFeature(f"A row calls features by their short name, not {name!r}.")
            if self._key_name not in names:
                raise InvalidKey(
                    f"A row of {namespace.name!r} has no primary key {self._key_name!r}."
                )
        except OnlineStoreError as error:
            raise _at(position, error) from None
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(names)

    def _check_key(self, key: Any, position: int) -> None:
        try:
            self._check_keys([key])
        except InvalidKey as error:
            raise _at(position, error) from None


def _at(position: int, error: OnlineStoreError) -> OnlineStoreError:
    error.add_note(f"In the row at position {position}; nothing was accepted.")
    return error


def _is_plain_int(key: Any) -> bool:
    return type(key) is int and -_MAX_PLAIN_INT < key < _MAX_PLAIN_INT


def _is_plain_str(key: Any) -> bool:
    return type(key) is str and len(key) < _MAX_PLAIN_STR and key.isascii()


def _is_never_plain(key: Any) -> bool:
    return False


_PLAIN_KEYS: dict[Any, Callable[[Any], bool]] = {int: _is_plain_int, str: _is_plain_str}
"""Cheap tests by the type of the key: a key that passes is valid, of others nothing is known."""
