"""What the persistence service requires of a message bus: one small protocol.

Buses differ in how messages arrive, how they are acknowledged and how the flow is stopped. A bus
has partitions; within a partition, messages are acknowledged in order, by the offset after the
last one. Kafka has such partitions. A queue without order, such as SQS, makes each message a
partition of one message, so it can be acknowledged at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec


class Partition(NamedTuple):
    """A sequence of messages that are acknowledged in order: a topic, and its part."""

    topic: str
    id: int | str


class Message(msgspec.Struct, frozen=True):
    """A message as the bus delivered it.

    `timestamp` is when the producer or the bus created it, in UTC microseconds, or None if the
    bus does not say.
    """

    partition: Partition
    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int | None = None

    @property
    def topic(self) -> str:
        """The topic or queue of the message."""
        return self.partition.topic

    def header(self, name: str) -> bytes | None:
        """Return the last value of a header, or None."""
        for each, value in reversed(self.headers):
            if each == name:
                return value
        return None


class Listener(Protocol):
    """The consumer of a bus. A bus calls it from within its own methods, in their thread."""

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Finish the messages of partitions that another consumer will receive, and commit."""

    def lost(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that another consumer may already have."""

    def commit_refused(self, error: Exception) -> None:
        """Note that a commit failed. Its offsets are committed again later."""

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Note that these offsets are stored by the bus."""


class Bus(Protocol):
    """A source of messages. All methods are called from one thread."""

    def start(self, listener: Listener) -> None:
        """Connect and join. Raises `BusFailed` if the bus refuses this consumer."""

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """Return up to `limit` messages, or none after `timeout` seconds.

        While the bus is paused, this returns no messages, but keeps the membership alive. Raises
        `BusFailed` for an error that retries cannot correct.
        """
        ...

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """Store the offsets of the next messages to deliver.

        With `wait`, the outcome is known when this returns. It is reported to the listener, and
        never raised.
        """

    def pause(self) -> None:
        """Stop delivery, also for partitions that are assigned later."""

    def resume(self) -> None:
        """Continue delivery."""

    def lag(self) -> Mapping[Partition, int]:
        """Return the number of messages that are not acknowledged, as far as it is known."""
        ...

    def close(self) -> None:
        """Leave, so that other consumers take over at once."""
