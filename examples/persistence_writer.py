"""A persistence writer: from a log such as Kafka's into the table, and nothing is lost.

    export CHALK_ONLINE_STORE_URL=sqlite:///features.db
    echo "$(date -u +%FT%TZ) "'{"id": 1, "email": null, "visits": 3}' >> events.log
    python examples/persistence_writer.py events.log writer.spool

The order is all that matters: messages are polled, then their rows are durable, then the offset
is committed. A process that is killed in between is handed the same messages again, and writing
a row twice at the same observed-at changes nothing.

`Consumer` is what is needed of a log. With confluent-kafka it is a consumer that has
`enable.auto.commit` off: `poll` is its `consume(500, timeout)`, without the messages that have an
`error()`, and `commit` its `commit(asynchronous=False)`. Here it is a file of lines.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from chalk_online_store import (
    DeadLetter,
    DeadLetterFile,
    InvalidValue,
    OnlineStore,
    PersistenceWriter,
    WriteFailed,
    feature,
    features,
)


@features(max_staleness="30d")
class User:
    """What is known of a user."""

    id: int
    email: str | None
    visits: int
    risk: float = feature(max_staleness="1h", group="realtime")


@dataclass(frozen=True, slots=True)
class Message:
    """A row as JSON, and when it was true."""

    value: bytes
    timestamp: datetime


class Consumer(Protocol):
    """A log that is read from the last committed offset on."""

    def poll(self, timeout: float) -> Sequence[Message]:
        """The next messages; none where none has come within `timeout` seconds."""

    def commit(self) -> None:
        """What was polled so far is never handed over again, whoever asks."""


# A row that waits longer than this for the disk ends the process, before the log takes it for
# hung (Kafka's `max.poll.interval.ms` is five minutes). The next one is handed it again.
DURABLE_WITHIN = 120.0


def persist(
    consumer: Consumer,
    writer: PersistenceWriter,
    dead_letters: DeadLetterFile,
    stop: threading.Event,
) -> None:
    """Bring messages into the table until `stop`. Raises `RowsPending`, `QueueFull`."""
    while not stop.is_set():
        messages = consumer.poll(timeout=0.5)
        if not messages:
            continue
        rows, times = decode(messages, dead_letters)
        ticket = writer.submit(User, rows, times, on_invalid="dead_letter")
        with suppress(WriteFailed):  # Its rows are among the dead letters.
            ticket.wait("durable", timeout=DURABLE_WITHIN)
        consumer.commit()


def decode(
    messages: Sequence[Message], dead_letters: DeadLetterFile
) -> tuple[list[dict[str, Any]], list[datetime]]:
    """Rows and their times. What is no JSON object must not hold up the rest: a dead letter."""
    rows, times = [], []
    for message in messages:
        try:
            rows.append(msgspec.json.decode(message.value, type=dict[str, Any]))
            times.append(message.timestamp)
        except msgspec.DecodeError as error:
            reason = InvalidValue(str(error))
            letter = DeadLetter("user", {"message": message.value}, message.timestamp, reason)
            dead_letters([letter])
    return rows, times


class LineLog:
    """A file to which others append lines, and beside it the offset that was committed.

    A line is when a row was true, in ISO 8601, a space, and the row as JSON.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._committed = path.with_suffix(".offset")
        self._file.seek(int(self._committed.read_text()) if self._committed.exists() else 0)

    def poll(self, timeout: float) -> list[Message]:
        """The next 500 lines at most."""
        messages: list[Message] = []
        while len(messages) < 500 and (message := self._next()):
            messages.append(message)
        if not messages:
            time.sleep(timeout)
        return messages

    def _next(self) -> Message | None:
        line = self._file.readline()
        if line.endswith(b"\n"):
            timestamp, value = line.split(maxsplit=1)
            return Message(value, datetime.fromisoformat(timestamp.decode()))
        self._file.seek(-len(line), os.SEEK_CUR)  # Still being written.
        return None

    def commit(self) -> None:
        """At once or not at all: a new file takes the place of the old one."""
        new = self._committed.with_suffix(".new")
        new.write_text(str(self._file.tell()))
        new.replace(self._committed)

    def close(self) -> None:
        """Close the file; what was not committed is handed over again."""
        self._file.close()


def main(log: str, spool: str) -> None:
    """Write what is appended to `log`, until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    dead_letters = DeadLetterFile("dead-letters.jsonl")
    with (
        OnlineStore.open(os.environ["CHALK_ONLINE_STORE_URL"], schema=[User]) as store,
        PersistenceWriter(store, spool=spool, dead_letters=dead_letters) as writer,
        closing(LineLog(Path(log))) as consumer,
    ):
        persist(consumer, writer, dead_letters, stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
