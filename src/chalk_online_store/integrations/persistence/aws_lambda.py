"""A Lambda handler that writes the records of SQS, Kinesis, and Kafka (MSK or self-managed).

    from chalk_online_store.integrations.persistence.aws_lambda import make_handler

    handler = make_handler("writer.toml")

Turn on `ReportBatchItemFailures` in the event source mapping. The handler returns the records that
are not written when the invocation has to end, and Lambda delivers them again. Records that can
never be written go to the dead-letter queue of the configuration, and are not returned.

The store and the writer are opened when the execution environment starts, and serve all of its
invocations. Each invocation runs the loop of the persistence service on the records of its event.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.persistence.config import ServiceConfig, load_config
from chalk_online_store.integrations.persistence.service import (
    BusTarget,
    open_dead_letters,
    open_store_and_writer,
)
from chalk_online_store.integrations.persistence.sqs import message_of
from chalk_online_store.writer.service import (
    DeadMessages,
    Listener,
    Message,
    Partition,
    PersistenceLoop,
    ServiceSettings,
)

_POLL_SECONDS = 0.002
"""How long the loop leaves the processor to the writer's thread."""

Identifier = str | dict[str, Any]
"""What names a record in `batchItemFailures`."""


class LambdaContext(Protocol):
    """What is used of the context that Lambda passes."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends this invocation."""
        ...


Handler = Callable[[Mapping[str, Any], LambdaContext], dict[str, Any]]


class _Event:
    """The records of one event as a bus. Each is a partition, so it is acknowledged by itself."""

    def __init__(self, records: Sequence[tuple[Message, Identifier]]) -> None:
        self.left = {message.partition: identifier for message, identifier in records}
        self._undelivered = [message for message, _ in records]

    def start(self, listener: Listener) -> None:
        self._listener = listener

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        if not self._undelivered:
            time.sleep(min(timeout, _POLL_SECONDS))
        messages, self._undelivered = self._undelivered[:limit], self._undelivered[limit:]
        return messages

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool) -> None:
        for partition in offsets:
            self.left.pop(partition, None)
        self._listener.committed(offsets)

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def lag(self) -> Mapping[Partition, int]:
        return {}

    def close(self) -> None:
        pass


def make_handler(
    config: ServiceConfig | str | Path,
    *,
    url: str = "",
    dead_letters: DeadMessages | None = None,
    margin: float = 1.0,
) -> Handler:
    """Open a store and a writer, and return a handler of events.

    A topic of the configuration is the name of a queue, a stream or a topic. `dead_letters`
    replaces the destination of the configuration, whose topic is the name of an SQS queue. The
    handler returns `margin` seconds before Lambda would end the invocation. Raises as
    `open_service` does.
    """
    directory = Path()
    if not isinstance(config, ServiceConfig):
        directory = Path(config).parent
        config = load_config(config)
    if config.spool is not None:
        raise InvalidValue("A Lambda function has no disk that outlives it. Remove [spool].")
    stack = ExitStack()  # Closed by the interpreter's end: the environment has no other one.
    store, writer = open_store_and_writer(stack, config, url)
    decode = config.decoder(store.core, directory)
    deliver = dead_letters or open_dead_letters(BusTarget("sqs", "", (), {}), config)
    settings = ServiceSettings(commit_interval="1ms")

    def handler(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - margin
        bus = _Event(list(_records(event)))
        loop = PersistenceLoop(bus, writer, decode, deliver, settings)
        bus.start(loop)
        while bus.left and time.monotonic() < deadline:
            loop.step()
        return {"batchItemFailures": [{"itemIdentifier": each} for each in bus.left.values()]}

    return handler


def _records(event: Mapping[str, Any]) -> Iterator[tuple[Message, Identifier]]:
    """Return the messages of an event, and what names each of them in a response."""
    if isinstance(event.get("records"), Mapping):
        for records in event["records"].values():
            yield from map(_of_kafka, records)
        return
    for record in event.get("Records", ()):
        source = record.get("eventSource")
        if source == "aws:sqs":
            name = str(record["eventSourceARN"]).rpartition(":")[2]
            yield message_of(name, record), str(record["messageId"])
        elif source == "aws:kinesis":
            yield _of_kinesis(record)
        else:
            raise InvalidValue("The event is not one of SQS, Kinesis, MSK or Kafka.")


def _of_kafka(record: Mapping[str, Any]) -> tuple[Message, Identifier]:
    topic, number, offset = record["topic"], record["partition"], record["offset"]
    message = Message(
        Partition(topic, f"{number}:{offset}"),
        0,
        _decoded(record.get("value")),
        _decoded(record.get("key")),
        tuple(
            (name, bytes(each & 0xFF for each in value))  # Java's bytes are signed.
            for header in record.get("headers") or ()
            for name, value in header.items()
        ),
        int(record["timestamp"]) * 1000 if record.get("timestamp") is not None else None,
    )
    return message, {"topic-partition": f"{topic}-{number}", "offset": offset}


def _of_kinesis(record: Mapping[str, Any]) -> tuple[Message, Identifier]:
    data = record["kinesis"]
    stream = str(record["eventSourceARN"]).rpartition("/")[2]
    arrived = data.get("approximateArrivalTimestamp")
    message = Message(
        Partition(stream, str(record.get("eventID") or data["sequenceNumber"])),
        0,
        _decoded(data["data"]),
        str(data["partitionKey"]).encode(),
        (),
        None if arrived is None else round(float(arrived) * 1000) * 1000,
    )
    return message, str(data["sequenceNumber"])


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
