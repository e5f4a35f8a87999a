"""Kafka, and services with its protocol, by confluent-kafka.

Offsets are committed by the loop alone: automatic commits are off. Partitions move
cooperatively unless `partition.assignment.strategy` says otherwise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from chalk_online_store.errors import BusFailed, InvalidValue, MissingDependency
from chalk_online_store.logs import event
from chalk_online_store.writer.service import DeadMessage, Listener, Message, Partition

try:
    from confluent_kafka import (
        OFFSET_INVALID,
        TIMESTAMP_NOT_AVAILABLE,
        Consumer,
        KafkaError,
        KafkaException,
        Producer,
        TopicPartition,
    )
except ImportError:
    raise MissingDependency(
        "Kafka needs confluent-kafka: pip install 'chalk-online-store[kafka]'."
    ) from None

LOG = logging.getLogger("chalk_online_store.service.kafka")

_CONSUMER_DEFAULTS: dict[str, Any] = {
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "queued.max.messages.kbytes": 65536,
}
"""`earliest`, since a new group must not skip messages."""

_CONSUMER_FIXED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": False,
}

_PRODUCER_DEFAULTS: dict[str, Any] = {"message.timeout.ms": 20_000, "message.max.bytes": 10_000_000}
"""The broker's limit of the size of a message applies, not the client's."""

_PRODUCER_FIXED = {"enable.idempotence": True}

_COMMIT_SECONDS = 5.0
"""How long a stop waits for its last commit."""

_FLUSH_SECONDS = 25.0
"""How long dead letters have to be acknowledged: longer than `message.timeout.ms`."""

_LOG_AGAIN_SECONDS = 30.0
_COMMITTED_AGAIN_SECONDS = 30.0
_COMMITTED_SECONDS = 1.0


class KafkaBus:
    """A member of a consumer group. `options` are properties of librdkafka."""

    def __init__(
        self, servers: str, topics: Sequence[str], group: str, options: Mapping[str, Any]
    ) -> None:
        if not group:
            raise InvalidValue("Kafka needs a consumer group. Set group in the configuration.")
        for name in _CONSUMER_FIXED.keys() & options.keys():
            raise InvalidValue(f"[kafka.consumer] {name} is set by the service. Remove it.")
        given = {"bootstrap.servers": servers, "group.id": group}
        self._options = _CONSUMER_DEFAULTS | dict(options) | given | _CONSUMER_FIXED
        self._topics = list(topics)
        self._is_cooperative = "cooperative" in str(self._options["partition.assignment.strategy"])
        self._assigned: dict[tuple[str, int], Partition] = {}
        self._committed: dict[Partition, int] = {}
        self._committed_asked_at = 0.0
        self._reported = False
        self._is_in_callback = False
        self._paused = False
        self._logged: dict[int, float] = {}

    def start(self, listener: Listener) -> None:
        """Join the group. Raises `BusFailed` if an option is refused."""
        self._listener = listener
        callbacks = {"on_commit": self._on_commit, "error_cb": self._note}
        try:
            self._consumer = Consumer({**self._options, **callbacks}, logger=LOG)
            self._consumer.subscribe(
                self._topics,
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
        except (KafkaException, ValueError, TypeError) as error:
            raise BusFailed(f"Kafka refused the consumer: {_reason(error)}.") from error

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """Return up to `limit` messages. Raises `BusFailed`."""
        try:
            # The first message ends the wait, and the rest of the batch is what has arrived.
            # `consume` alone would wait for a full batch until the timeout.
            first = self._consumer.poll(timeout)
            if first is None:
                return ()
            records = [first]
            if limit > 1:
                records += self._consumer.consume(limit - 1, timeout=0)
        except KafkaException as error:
            self._check_fatal(error.args[0])
            return ()
        messages = []
        for record in records:
            fault = record.error()
            if fault is None:
                messages.append(self._message(record))
            else:
                self._check_fatal(fault)
        return messages

    def _message(self, record: Any) -> Message:
        where = (record.topic(), record.partition())
        kind, milliseconds = record.timestamp()
        return Message(
            self._assigned.get(where) or Partition(*where),
            record.offset(),
            record.value(),
            record.key(),
            tuple(record.headers() or ()),
            None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds * 1000,
        )

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """Commit offsets. The outcome is reported to the listener."""
        wanted = [TopicPartition(p.topic, int(p.id), offset) for p, offset in offsets.items()]
        # A callback may not poll, so it commits synchronously. The library bounds that by the
        # session timeout. Elsewhere the loop keeps polling until the outcome is reported.
        try:
            if self._is_in_callback:
                self._on_commit(None, self._consumer.commit(offsets=wanted, asynchronous=False))
                return
            self._reported = False
            self._consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            self._listener.commit_refused(BusFailed(_reason(error)))
            return
        deadline = time.monotonic() + _COMMIT_SECONDS
        while wait and not self._reported and time.monotonic() < deadline:
            self._consumer.poll(0.05)

    def pause(self) -> None:
        """Stop delivery of all partitions."""
        self._paused = True
        with suppress(KafkaException):
            self._consumer.pause(self._consumer.assignment())

    def resume(self) -> None:
        """Continue delivery of all partitions."""
        self._paused = False
        with suppress(KafkaException):
            self._consumer.resume(self._consumer.assignment())

    def lag(self) -> Mapping[Partition, int]:
        """Return the high watermark of the last fetch less the committed offset."""
        self._read_committed()
        found = {}
        for where, partition in self._assigned.items():
            committed = self._committed.get(partition)
            with suppress(KafkaException):
                place = TopicPartition(*where)
                marks: Any = self._consumer.get_watermark_offsets(place, cached=True)
                if marks is not None and marks[1] >= 0 and committed is not None:
                    base = max(marks[0], 0) if committed < 0 else committed
                    found[partition] = max(0, marks[1] - base)
        return found

    def _read_committed(self) -> None:
        """Read the committed offsets of partitions that this member has not committed yet."""
        unknown = [
            TopicPartition(*w) for w, p in self._assigned.items() if p not in self._committed
        ]
        now = time.monotonic()
        if not unknown or now < self._committed_asked_at + _COMMITTED_AGAIN_SECONDS:
            return
        self._committed_asked_at = now
        with suppress(KafkaException):
            for found in self._consumer.committed(unknown, timeout=_COMMITTED_SECONDS):
                partition = self._assigned.get((found.topic, found.partition))
                if partition is not None and found.error is None:
                    self._committed.setdefault(partition, found.offset)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    # --- callbacks of librdkafka, from within `poll` and `close` -------------------------------

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        for each in partitions:
            self._assigned[each.topic, each.partition] = Partition(each.topic, each.partition)
        self._committed_asked_at = 0.0
        if self._is_cooperative:
            consumer.incremental_assign(partitions)
        else:
            consumer.assign(partitions)
        if self._paused and partitions:
            consumer.pause(partitions)

    def _on_revoke(self, _consumer: Any, partitions: list[Any]) -> None:
        self._is_in_callback = True
        try:
            self._listener.revoked(self._partitions_of(partitions))
        finally:
            self._is_in_callback = False
            self._unassign(partitions)

    def _on_lost(self, _consumer: Any, partitions: list[Any]) -> None:
        self._listener.lost(self._partitions_of(partitions))
        self._unassign(partitions)

    def _partitions_of(self, partitions: list[Any]) -> Collection[Partition]:
        return {Partition(each.topic, each.partition) for each in partitions}

    def _unassign(self, partitions: list[Any]) -> None:
        for each in partitions:
            partition = self._assigned.pop((each.topic, each.partition), None)
            if partition is not None:
                self._committed.pop(partition, None)

    def _on_commit(self, error: KafkaError | None, partitions: list[Any]) -> None:
        self._reported = True
        if error is None:
            error = next((each.error for each in partitions if each.error is not None), None)
        stored = {
            Partition(each.topic, each.partition): each.offset
            for each in partitions
            if each.error is None and each.offset != OFFSET_INVALID
        }
        if error is not None:
            self._listener.commit_refused(BusFailed(error.name()))
            return
        for partition, offset in stored.items():
            if (partition.topic, partition.id) in self._assigned:
                self._committed[partition] = offset
        self._listener.committed(stored)

    # --- errors --------------------------------------------------------------------------------

    def _check_fatal(self, error: KafkaError) -> None:
        """Raise `BusFailed` for a fatal error; log others, which librdkafka retries."""
        if error.fatal():
            raise BusFailed(f"Kafka reported a fatal error: {error.name()}.")
        self._note(error)

    def _note(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now >= self._logged.get(error.code(), -_LOG_AGAIN_SECONDS) + _LOG_AGAIN_SECONDS:
            self._logged[error.code()] = now
            said = event("service.kafka", error_code=error.name())
            LOG.warning("Kafka: %s; the client retries.", error.name(), extra=said)


class KafkaDeadLetters:
    """Produces dead messages to a topic, with their key, bytes and headers, and the reason.

    The headers `dead_letter.topic`, `.partition`, `.offset`, `.timestamp`, `.error` and `.reason`
    are added. A call returns when all in-sync replicas have the messages, and raises `BusFailed`
    otherwise.
    """

    def __init__(self, servers: str, topic: str, options: Mapping[str, Any]) -> None:
        self._topic = topic
        own = {"bootstrap.servers": servers} | _PRODUCER_FIXED
        given = _PRODUCER_DEFAULTS | dict(options) | own
        try:
            self._producer = Producer(given, logger=LOG)
        except (KafkaException, ValueError, TypeError) as error:
            raise BusFailed(f"Kafka refused the producer: {_reason(error)}.") from error

    def __call__(self, letters: Sequence[DeadMessage]) -> None:
        """Produce messages, and wait until they are stored."""
        failed: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, _record: Any) -> None:
            if error is not None:
                failed.append(error)

        for letter in letters:
            self._produce(letter, on_delivery)
        left = self._producer.flush(_FLUSH_SECONDS)
        if left or failed:
            self._producer.purge()
            reason = failed[0].name() if failed else "no response"
            raise BusFailed(f"{left + len(failed)} dead letters could not be produced: {reason}.")

    def _produce(self, letter: DeadMessage, on_delivery: Any) -> None:
        message = letter.message
        context = {
            "topic": message.topic,
            "partition": message.partition.id,
            "offset": message.offset,
            "timestamp": message.timestamp,
            "error": type(letter.error).__name__,
            "reason": letter.error,
        }
        added = [(f"dead_letter.{name}", str(value).encode()) for name, value in context.items()]
        headers: Any = [*message.headers, *added]
        deadline = time.monotonic() + _FLUSH_SECONDS
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    message.value,
                    message.key,
                    headers=headers,
                    on_delivery=on_delivery,
                )
                return
            except BufferError:  # The queue of the producer is full.
                if time.monotonic() > deadline:
                    raise BusFailed("The queue of the Kafka producer stays full.") from None
                self._producer.poll(0.1)
            except KafkaException as error:
                raise BusFailed(f"A dead letter was refused: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Return the name of a Kafka error, and an unknown property; other texts can quote values."""
    first = error.args[0] if error.args else None
    if not isinstance(first, KafkaError):
        return type(error).__name__
    text = str(first.str())
    return text if text.startswith("No such configuration property") else str(first.name())
