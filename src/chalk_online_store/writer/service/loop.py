"""The loop of the persistence service: poll, decode, submit, and commit what is written.

Problem. A service consumes messages in batches, and writes their rows in the background. It can
be killed at any moment, its partitions can move to another consumer at any moment, the table can
be unreachable for hours, and some messages can never be written. No message may be lost.

Approach. Each poll becomes a batch. A batch is settled when each of its rows is written or dead,
and its dead messages are stored at the dead-letter destination. Each partition has a queue of
its batches with the offset after the last message of each. The offset of a batch is committed
when it and all earlier batches of its partition are settled.

Invariants.
- A message is acknowledged only after its rows are written, or it is stored as a dead message.
- A message that is delivered twice changes nothing: its rows have the same observed-at, and of
  equal observed-ats the later submission wins. Within a partition that is the later offset.
- The number of messages in memory is bounded. At the limit the bus is paused, and still polled,
  since a consumer that does not poll is expelled.
- A refused commit is not an error: the offsets are part of the next commit.

The loop has one thread, and a bus calls it back only from within `Bus.poll` or `Bus.close`. The
clock is passed in, so tests run it in virtual time. `stats` and `stop` may be called from any
thread. See docs/decisions/0046-persistence-service.md.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

from chalk_online_store.arguments import (
    MAX_TIMEOUT_SECONDS,
    check_choice,
    check_instance,
    whole_number,
)
from chalk_online_store.codec.columns import Stored
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.effects import Instant
from chalk_online_store.errors import (
    InvalidValue,
    OnlineStoreError,
    QueueFull,
    RegistryUnavailable,
    RequestError,
    StoreClosed,
    WriterFailed,
)
from chalk_online_store.logs import event
from chalk_online_store.schema import Duration, Namespace, seconds
from chalk_online_store.writer.intake import OnInvalid
from chalk_online_store.writer.ledger import moment
from chalk_online_store.writer.service.bus import Bus, Message, Partition
from chalk_online_store.writer.service.dead_messages import DeadMessage, DeadMessages

LOG = logging.getLogger("chalk_online_store.service")

CommitAt = Literal["written", "durable"]
"""Commit a message when its rows are in the table, or when they are in the spool."""

_IDLE_POLL_SECONDS = 0.25
"""How long a poll waits while nothing is pending: the time that a stop takes to be noticed."""

_BUSY_POLL_SECONDS = 0.02
"""How long a poll waits while rows are pending, or a batch waits for room."""

_RETRY_SECONDS = 1.0
"""Time between two attempts to deliver dead messages, or to decode while the registry is down."""

_WAIT_STEP_SECONDS = 0.005
"""How often the tickets of revoked partitions are checked."""

_RATE_SECONDS = 10.0
"""The period over which rows per second are counted."""


class DecodedRow(NamedTuple):
    """A row of a message: its namespace or feature class, and its observed-at, UTC us."""

    schema: Namespace | type
    row: Mapping[str, Any]
    observed_at: int


Decode = Callable[[Message], Iterable[DecodedRow]]
"""Decodes a message. Raises `InvalidValue` if it can never be decoded."""


class PendingRows(Protocol):
    """What the loop uses of a `Ticket`."""

    @property
    def done(self) -> bool: ...  # noqa: D102 - see `Ticket`

    @property
    def durable(self) -> bool: ...  # noqa: D102

    @property
    def errors(self) -> Mapping[int, OnlineStoreError]: ...  # noqa: D102


class RowWriter(Protocol):
    """What the loop uses of a `PersistenceWriter`, whose `when_full` is "raise"."""

    def submit(
        self,
        schema: Namespace | type[Any],
        rows: Iterable[Mapping[str, Any]],
        observed_at: Stored,
        *,
        on_invalid: OnInvalid,
    ) -> PendingRows:
        """Accept rows. Raises `QueueFull` if there is no room."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Settings of the persistence service. Raises `InvalidValue` for an invalid one.

    `poll_messages` is the largest batch, and `max_messages` the number of messages in memory at
    which the bus is paused. Offsets are committed every `commit_interval`, at `commit_at`:
    "written", or "durable", which needs a spool. When partitions move to another consumer, their
    pending rows have `revoke_timeout` to be written; at a stop, all pending rows have
    `drain_timeout`.
    """

    poll_messages: int = 1_000
    max_messages: int = 100_000
    commit_interval: Duration = "1s"
    commit_at: CommitAt = "written"
    revoke_timeout: Duration = "5s"
    drain_timeout: Duration = "20s"

    def __post_init__(self) -> None:
        for name in ("poll_messages", "max_messages"):
            whole_number(getattr(self, name), f"ServiceSettings({name}=...)")
        check_choice(self.commit_at, get_args(CommitAt), "ServiceSettings(commit_at=...)")
        for name in ("commit_interval", "revoke_timeout", "drain_timeout"):
            argument = f"ServiceSettings({name}=...)"
            if not 0 < seconds(getattr(self, name), argument) <= MAX_TIMEOUT_SECONDS:
                raise InvalidValue(
                    f'{argument} must be above 0 and below 11 days. Pass a time such as "5s".'
                )


@dataclass(frozen=True, slots=True)
class LoopStats:
    """Counts of a loop since it started, and its current state.

    `messages` were polled, and became `rows`; `dead` messages are at the dead-letter destination.
    `pending` messages are in memory, and the oldest of them was created `oldest_seconds` ago.
    `lag` is the number of messages per partition that are not acknowledged. `step_seconds` is the
    age of the last step of the loop: if it grows, the loop is stuck. `rows_per_second` is the
    mean over the last 10 seconds of rows that were written or dead.
    """

    messages: int
    rows: int
    dead: int
    pending: int
    oldest_seconds: float
    rows_per_second: float
    commits: int
    refused_commits: int
    revocations: int
    losses: int
    pauses: int
    paused: bool
    undelivered: int
    lag: Mapping[Partition, int]
    step_seconds: float


@dataclass(slots=True)
class _Group:
    """Rows of one namespace of a batch; `sources` are the positions of their messages."""

    schema: Namespace | type
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Messages that were polled together."""

    messages: Sequence[Message]
    rows: int
    unsubmitted: list[_Group]
    submitted: list[tuple[PendingRows, _Group]] = field(default_factory=list)
    dead: dict[int, OnlineStoreError] = field(default_factory=dict)
    settled: bool = False

    def reached(self, level: CommitAt) -> bool:
        """Return True if each row is in the table or dead, or durable."""
        if self.unsubmitted:
            return False
        if level == "durable":
            return all(ticket.durable for ticket, _ in self.submitted)
        return all(ticket.done for ticket, _ in self.submitted)

    def collect_dead(self) -> list[DeadMessage]:
        """Return each message that has a dead row once, with the error of its first one."""
        for ticket, group in self.submitted:
            for position, error in ticket.errors.items():
                self.dead.setdefault(group.sources[position], error)
        return [DeadMessage(self.messages[at], error) for at, error in sorted(self.dead.items())]


class _Section(NamedTuple):
    """The messages of one batch in one partition."""

    batch: _Batch
    next_offset: int
    oldest: int | None


@dataclass(slots=True)
class _Progress:
    """A partition: its unsettled batches, the offset to commit, and the committed one."""

    sections: deque[_Section] = field(default_factory=deque)
    settled: int = -1
    committed: int = -1


_COUNTS = (
    "messages",
    "rows",
    "dead",
    "commits",
    "refused_commits",
    "revocations",
    "losses",
    "pauses",
    "undelivered",
)
"""The fields of `LoopStats` that only grow."""


class PersistenceLoop:
    """Writes the rows of a bus's messages. See the module.

    `run` returns after `stop`, and raises `BusFailed`. `decode` raises `InvalidValue` for a
    message that can never be decoded; `dead_messages` stores such messages.
    """

    def __init__(
        self,
        bus: Bus,
        writer: RowWriter,
        decode: Decode,
        dead_messages: DeadMessages,
        settings: ServiceSettings | None = None,
        *,
        now: Callable[[], Instant] = read_clocks,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = ServiceSettings() if settings is None else settings
        check_instance(self.settings, ServiceSettings, "settings", InvalidValue)
        self._bus = bus
        self._writer = writer
        self._decode = decode
        self._deliver = dead_messages
        self._now = now
        self._sleep = sleep
        self._inbox: deque[Message] = deque()
        self._waiting: _Batch | None = None
        self._unsettled: deque[_Batch] = deque()
        self._partitions: dict[Partition, _Progress] = {}
        self._pending = 0
        self._paused = False
        self._stopping = False
        self._next_commit = 0.0
        self._decode_after = 0.0
        self._deliver_after = 0.0
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._finished: deque[tuple[float, int]] = deque()
        self._stepped_at = now().monotonic
        self._stats = LoopStats(
            **self._counts,
            pending=0,
            oldest_seconds=0.0,
            rows_per_second=0.0,
            paused=False,
            lag={},
            step_seconds=0.0,
        )

    # --- running ---------------------------------------------------------------------------

    def run(self) -> None:
        """Consume until `stop`, then write and commit what is pending, and leave the bus."""
        self._bus.start(self)
        try:
            while not self._stopping:
                self.step()
            self._drain()
        finally:
            self._bus.close()

    def stop(self) -> None:
        """Let `run` return. May be called from a signal handler."""
        self._stopping = True

    def step(self) -> None:
        """Poll once, and do everything that is possible without waiting."""
        is_busy = bool(self._unsettled or self._inbox or self._waiting)
        wait = _BUSY_POLL_SECONDS if is_busy else _IDLE_POLL_SECONDS
        self._receive(self._bus.poll(self.settings.poll_messages, wait))
        self._advance()
        self._control_flow()
        self._commit_if_due()

    def _receive(self, messages: Sequence[Message]) -> None:
        self._inbox.extend(messages)
        self._pending += len(messages)
        self._counts["messages"] += len(messages)

    def _advance(self) -> None:
        """Submit what there is room for, and settle what is finished."""
        self._stepped_at = self._now().monotonic
        self._settle()
        while self._waiting is not None or self._inbox:
            if self._waiting is None:
                self._waiting = self._next_batch()
            if self._waiting is None or not self._submit(self._waiting):
                break
            self._waiting = None
        self._settle()

    def _control_flow(self) -> None:
        """Pause the bus while there is no room, and resume it when there is."""
        is_blocked = self._waiting is not None or bool(self._inbox)
        is_full = is_blocked or self._pending >= self.settings.max_messages
        if is_full and not self._paused:
            self._paused = True
            self._counts["pauses"] += 1
            self._bus.pause()
            LOG.info("Paused: the writer has no room.", extra=event("service.paused"))
        elif self._paused and not is_full:
            self._paused = False
            self._bus.resume()
            LOG.info("Resumed: the writer has room.", extra=event("service.resumed"))

    # --- messages to rows --------------------------------------------------------------------

    def _next_batch(self) -> _Batch | None:
        """Decode messages of the inbox, each of them once. Return None if none can be now."""
        if self._now().monotonic < self._decode_after:
            return None
        messages: list[Message] = []
        groups: dict[int, _Group] = {}
        dead: dict[int, OnlineStoreError] = {}
        rows = 0
        while self._inbox and len(messages) < self.settings.poll_messages:
            message = self._inbox[0]
            try:
                decoded = list(self._decode(message))
            except (RequestError, RegistryUnavailable) as error:
                self._postpone_decoding(error)
                break
            except OnlineStoreError as error:
                dead[len(messages)] = error
                decoded = []
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - a user's function can raise anything.
                # The text of the error may hold values, so only its class is reported.
                kind = type(error).__name__
                dead[len(messages)] = InvalidValue(f"Decoding the message raised {kind}.")
                decoded = []
            for each in decoded:
                group = groups.get(id(each.schema))
                if group is None:
                    group = groups[id(each.schema)] = _Group(each.schema)
                group.rows.append(each.row)
                group.times.append(each.observed_at)
                group.sources.append(len(messages))
            rows += len(decoded)
            messages.append(self._inbox.popleft())
        if not messages:
            return None
        self._counts["rows"] += rows
        batch = _Batch(messages, rows, list(groups.values()), dead=dead)
        self._register(batch)
        return batch

    def _postpone_decoding(self, error: OnlineStoreError) -> None:
        """Keep messages that need the registry, which cannot be read now."""
        self._decode_after = self._now().monotonic + _RETRY_SECONDS
        said = event("service.decode_postponed", error=error)
        LOG.warning("Decoding is postponed: %s", type(error).__name__, extra=said)

    def _register(self, batch: _Batch) -> None:
        """Append a batch to the queue of each of its partitions."""
        ends: dict[Partition, tuple[int, int | None]] = {}
        for message in batch.messages:
            found = ends.get(message.partition)
            oldest = message.timestamp if found is None else found[1]
            ends[message.partition] = (message.offset + 1, oldest)
        for partition, (next_offset, oldest) in ends.items():
            progress = self._partitions.setdefault(partition, _Progress())
            progress.sections.append(_Section(batch, next_offset, oldest))
        self._unsettled.append(batch)

    def _submit(self, batch: _Batch) -> bool:
        """Submit the rows of a batch. Return False if the writer has no room for some of them."""
        while batch.unsubmitted:
            group = batch.unsubmitted[0]
            times = Stored(group.times, moment)
            try:
                ticket = self._writer.submit(
                    group.schema, group.rows, times, on_invalid="dead_letter"
                )
            except (QueueFull, WriterFailed):
                return False
            except StoreClosed:
                raise
            except OnlineStoreError as error:
                self._isolate(batch, group, error)
                continue
            batch.submitted.append((ticket, group))
            del batch.unsubmitted[0]
        return True

    def _isolate(self, batch: _Batch, group: _Group, error: OnlineStoreError) -> None:
        """Submit the rows of a refused group one by one, so that only the bad ones are dead."""
        if len(group.rows) == 1:
            batch.dead.setdefault(group.sources[0], error)
            del batch.unsubmitted[0]
            return
        batch.unsubmitted[:1] = [
            _Group(group.schema, [row], [at], [source])
            for row, at, source in zip(group.rows, group.times, group.sources, strict=True)
        ]

    # --- settling and committing -------------------------------------------------------------

    def _settle(self) -> None:
        """Settle each finished batch: deliver its dead messages, then release its offsets."""
        finished = [batch for batch in self._unsettled if batch.reached(self.settings.commit_at)]
        if not finished:
            return
        letters = [letter for batch in finished for letter in batch.collect_dead()]
        if letters and not self._delivered(letters):
            finished = [batch for batch in finished if not batch.dead]
        now = self._now().monotonic
        for batch in finished:
            batch.settled = True
            self._pending -= len(batch.messages)
            self._finished.append((now, batch.rows))
        if finished:
            self._unsettled = deque(batch for batch in self._unsettled if not batch.settled)
            self._release()

    def _delivered(self, letters: Sequence[DeadMessage]) -> bool:
        """Store dead messages. Return False if that failed, or may not be tried again yet."""
        if self._now().monotonic < self._deliver_after:
            return False
        try:
            self._deliver(letters)
        except Exception as error:  # noqa: BLE001 - a destination of the user's can raise anything.
            self._counts["undelivered"] += 1
            self._deliver_after = self._now().monotonic + _RETRY_SECONDS
            LOG.error(
                "%d dead messages could not be stored, and are not acknowledged; trying again: %s",
                len(letters), type(error).__name__,
                extra=event("service.dead_messages_failed", error=error, messages=len(letters)),
            )  # fmt: skip
            return False
        self._counts["dead"] += len(letters)
        reasons = sorted({type(letter.error).__name__ for letter in letters})
        LOG.warning(
            "%d messages can never be written, and are dead letters: %s",
            len(letters), ", ".join(reasons),
            extra=event("service.dead_messages", messages=len(letters), reasons=reasons),
        )  # fmt: skip
        return True

    def _release(self) -> None:
        """Move the offset of each partition past its settled batches, in order."""
        for progress in self._partitions.values():
            sections = progress.sections
            while sections and sections[0].batch.settled:
                progress.settled = sections.popleft().next_offset
        self._drop_idle()

    def _drop_idle(self) -> None:
        """Forget partitions without pending messages: each message of a queue has its own."""
        for partition, progress in tuple(self._partitions.items()):
            if not progress.sections and progress.settled <= progress.committed:
                del self._partitions[partition]

    def _commit_if_due(self) -> None:
        now = self._now().monotonic
        if now >= self._next_commit:
            self._next_commit = now + seconds(self.settings.commit_interval)
            self._commit(tuple(self._partitions), wait=False)
            self._publish()

    def _commit(self, partitions: Iterable[Partition], *, wait: bool) -> None:
        offsets = {
            partition: progress.settled
            for partition in partitions
            if (progress := self._partitions.get(partition))
            and progress.settled > progress.committed
        }
        if offsets:
            self._bus.commit(offsets, wait=wait)

    def _drain(self) -> None:
        """Write and commit what was submitted; the rest is delivered to another consumer."""
        self._paused = True
        self._bus.pause()
        self._forget_unsubmitted(set(self._partitions) | {m.partition for m in self._inbox})
        deadline = self._now().monotonic + seconds(self.settings.drain_timeout)
        while self._unsettled and self._now().monotonic < deadline:
            self._bus.poll(1, _BUSY_POLL_SECONDS)  # A poll while paused keeps the membership.
            if self._waiting is not None and self._submit(self._waiting):
                self._waiting = None
            self._settle()
        self._commit(tuple(self._partitions), wait=True)
        self._publish()
        if self._unsettled:
            LOG.warning(
                "Stopped with %d messages that are not written; they will be delivered again.",
                self._pending, extra=event("service.undrained", messages=self._pending),
            )  # fmt: skip

    # --- called back by the bus --------------------------------------------------------------

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Finish the messages of partitions that another consumer will receive, and commit."""
        self._counts["revocations"] += 1
        self._forget_unsubmitted(partitions)
        deadline = self._now().monotonic + seconds(self.settings.revoke_timeout)
        self._settle()
        while self._are_pending(partitions) and self._now().monotonic < deadline:
            self._sleep(_WAIT_STEP_SECONDS)
            self._settle()
        self._commit(partitions, wait=True)
        self._forget(partitions)

    def lost(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another consumer may already have."""
        self._counts["losses"] += 1
        self._forget_unsubmitted(partitions)
        self._forget(partitions)

    def commit_refused(self, error: Exception) -> None:
        """Note that a commit failed. Its offsets are committed again later."""
        self._counts["refused_commits"] += 1
        said = event("service.commit_refused", error=error)
        LOG.info("A commit was refused, and will be repeated: %s", error, extra=said)

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that these offsets are stored by the bus."""
        self._counts["commits"] += 1
        for partition, offset in offsets.items():
            progress = self._partitions.get(partition)
            if progress is not None:
                progress.committed = max(progress.committed, offset)
        self._drop_idle()

    def _are_pending(self, partitions: Collection[Partition]) -> bool:
        """Return True if submitted rows of these partitions are not settled."""
        return any(
            section.batch is not self._waiting
            for partition in partitions
            if partition in self._partitions
            for section in self._partitions[partition].sections
        )

    def _forget_unsubmitted(self, partitions: Collection[Partition]) -> None:
        """Drop messages that are not decoded yet. A batch that waits for room is kept.

        It may have messages of other partitions. Its rows are written twice, which is harmless.
        """
        kept = [message for message in self._inbox if message.partition not in partitions]
        self._pending -= len(self._inbox) - len(kept)
        self._inbox = deque(kept)

    def _forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)

    # --- observing ---------------------------------------------------------------------------

    def stats(self) -> LoopStats:
        """Return counts and the state at the last commit interval."""
        return replace(self._stats, step_seconds=self._now().monotonic - self._stepped_at)

    def _publish(self) -> None:
        """Replace the counts that other threads read."""
        now = self._now()
        while self._finished and self._finished[0][0] < now.monotonic - _RATE_SECONDS:
            self._finished.popleft()
        oldest = self._oldest()
        self._stats = LoopStats(
            **self._counts,
            pending=self._pending,
            oldest_seconds=0.0 if oldest is None else max(0.0, (now.wall - oldest) / 1e6),
            rows_per_second=sum(rows for _, rows in self._finished) / _RATE_SECONDS,
            paused=self._paused,
            lag=dict(self._bus.lag()),
            step_seconds=0.0,
        )

    def _oldest(self) -> int | None:
        """Return when the oldest message in memory was created, in UTC microseconds."""
        found = [each.sections[0].oldest for each in self._partitions.values() if each.sections]
        if self._inbox:
            found.append(self._inbox[0].timestamp)
        return min((each for each in found if each is not None), default=None)
