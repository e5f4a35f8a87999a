"""Amazon SQS, by boto3.

A queue has no offsets: each message is a partition of its own, which is deleted when its rows are
written. A received message is invisible to other consumers for the queue's visibility timeout;
while it is pending, the timeout is extended when a third of it has passed. Messages of a consumer
that is killed become visible again after the timeout.

SQS returns at most 10 messages per request and waits up to 20 s for the first one. So each queue
is read by threads, and each request is a long poll.
"""

from __future__ import annotations

import base64
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chalk_online_store.errors import BusFailed
from chalk_online_store.logs import event
from chalk_online_store.writer.service import DeadMessage, Listener, Message, Partition

LOG = logging.getLogger("chalk_online_store.service.sqs")

T = TypeVar("T")

_BATCH = 10
"""The largest number of messages of a request."""

_THREADS = 2
"""Threads that receive messages, per queue."""

_WAIT_SECONDS = 20
_BUFFERED_BATCHES = 20
_RETRY_SECONDS = 1.0
_LAG_SECONDS = 30.0
_JOIN_SECONDS = 5.0
_ERRORS = (BotoCoreError, ClientError)

_FINAL = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "QueueDoesNotExist",
    }
)
"""Codes of errors that retries cannot correct."""


@dataclass(slots=True)
class _Received:
    """A message that is not deleted yet: its latest receipt, and when to extend its timeout."""

    queue: str
    receipt: str
    extend_at: float


def message_of(queue_name: str, found: Mapping[str, Any]) -> Message:
    """Return the message of a record of `ReceiveMessage`, or of a Lambda event."""
    attributes = found.get("Attributes") or found.get("attributes") or {}
    given = found.get("MessageAttributes") or found.get("messageAttributes") or {}
    sent = attributes.get("SentTimestamp")
    group = attributes.get("MessageGroupId")
    return Message(
        Partition(queue_name, str(found.get("MessageId") or found["messageId"])),
        0,
        str(found.get("Body") or found.get("body") or "").encode(),
        None if group is None else str(group).encode(),
        tuple((name, _attribute(value)) for name, value in given.items()),
        None if sent is None else int(sent) * 1000,
    )


def _attribute(value: Mapping[str, Any]) -> bytes:
    text = value.get("StringValue", value.get("stringValue"))
    if text is not None:
        return str(text).encode()
    binary = value.get("BinaryValue")
    if binary is not None:
        return bytes(binary)
    return base64.b64decode(value.get("binaryValue") or "")  # As Lambda's events have it.


class SqsBus:
    """Receives the messages of queues, which are topics of the configuration."""

    def __init__(self, queues: Sequence[str], region: str = "", endpoint_url: str = "") -> None:
        self._queues = list(queues)
        self._client = _client(region, endpoint_url)
        self._urls: dict[str, str] = {}
        self._visibility: dict[str, float] = {}
        self._received: dict[str, _Received] = {}
        self._lock = threading.Lock()
        self._buffer: queue.Queue[list[Message]] = queue.Queue(_BUFFERED_BATCHES)
        self._stopping = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._failed: BusFailed | None = None
        self._threads: list[threading.Thread] = []
        self._lag: dict[Partition, int] = {}
        self._lag_read_at = -_LAG_SECONDS

    def start(self, listener: Listener) -> None:
        """Look the queues up, and begin to receive. Raises `BusFailed`."""
        self._listener = listener
        for name in self._queues:
            try:
                url = self._client.get_queue_url(QueueName=name)["QueueUrl"]
                found = self._client.get_queue_attributes(
                    QueueUrl=url, AttributeNames=["VisibilityTimeout"]
                )
            except _ERRORS as error:
                raise BusFailed(f"Queue {name}: {_code(error)}.") from error
            self._urls[name] = url
            self._visibility[name] = max(1.0, float(found["Attributes"]["VisibilityTimeout"]))
        for name in self._queues * _THREADS:
            thread = threading.Thread(
                target=self._receive, args=(name,), daemon=True, name="chalk-online-store-sqs"
            )
            self._threads.append(thread)
            thread.start()

    # --- receiving, in threads -----------------------------------------------------------------

    def _receive(self, name: str) -> None:
        while not self._stopping.is_set():
            if not self._running.wait(_RETRY_SECONDS):
                continue
            try:
                self._receive_batch(name)
            except _ERRORS as error:
                code = _code(error)
                if code in _FINAL:
                    self._failed = BusFailed(f"Queue {name}: {code}.")
                    return
                said = event("service.sqs", error=error, error_code=code)
                LOG.warning("SQS: %s; receiving again in 1 s.", code, extra=said)
                self._stopping.wait(_RETRY_SECONDS)

    def _receive_batch(self, name: str) -> None:
        # Taken before the request: the timeout of a message begins when SQS answers.
        asked_at = time.monotonic()
        found = self._client.receive_message(
            QueueUrl=self._urls[name],
            MaxNumberOfMessages=_BATCH,
            WaitTimeSeconds=_WAIT_SECONDS,
            MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not found:
            return
        extend_at = max(asked_at, time.monotonic() - _RETRY_SECONDS) + self._visibility[name] / 3
        messages = [message_of(name, each) for each in found]
        with self._lock:
            for message, each in zip(messages, found, strict=True):
                self._received[str(message.partition.id)] = _Received(
                    name, each["ReceiptHandle"], extend_at
                )
        while not self._stopping.is_set():
            with suppress(queue.Full):
                self._buffer.put(messages, timeout=_RETRY_SECONDS)
                return

    # --- the protocol of a bus, in the loop's thread ---------------------------------------------

    def poll(self, limit: int, timeout: float) -> Sequence[Message]:
        """Return received messages. Raises `BusFailed`."""
        if self._failed is not None:
            raise self._failed
        self._extend()
        if not self._running.is_set():
            self._stopping.wait(timeout)
            return ()
        messages: list[Message] = []
        with suppress(queue.Empty):
            messages += self._buffer.get(timeout=timeout)
            while len(messages) + _BATCH <= limit:
                messages += self._buffer.get_nowait()
        return messages

    def _extend(self) -> None:
        """Extend the visibility timeout of pending messages of which a third has passed."""
        now = time.monotonic()
        with self._lock:
            due = [(key, each) for key, each in self._received.items() if each.extend_at <= now]
            for _, each in due:
                each.extend_at = now + self._visibility[each.queue] / 3
        for name, some in _by_queue(due):
            entries = [
                {
                    "Id": str(number),
                    "ReceiptHandle": each.receipt,
                    "VisibilityTimeout": int(self._visibility[name]),
                }
                for number, (_, each) in enumerate(some)
            ]
            with suppress(*_ERRORS):  # The message is delivered again, which is harmless.
                self._client.change_message_visibility_batch(
                    QueueUrl=self._urls[name], Entries=entries
                )

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """Delete messages."""
        with self._lock:
            ids = [str(partition.id) for partition in offsets]
            known = [(key, self._received[key]) for key in ids if key in self._received]
            unknown = {p: at for p, at in offsets.items() if str(p.id) not in self._received}
        if unknown:  # Deleted before, and delivered twice.
            self._listener.committed(unknown)
        for name, some in _by_queue(known):
            entries = [
                {"Id": str(number), "ReceiptHandle": each.receipt}
                for number, (_, each) in enumerate(some)
            ]
            try:
                answer = self._client.delete_message_batch(
                    QueueUrl=self._urls[name], Entries=entries
                )
            except _ERRORS as error:
                self._listener.commit_refused(BusFailed(_code(error)))
                continue
            failed = {int(each["Id"]): each for each in answer.get("Failed", [])}
            deleted = [key for number, (key, _) in enumerate(some) if number not in failed]
            with self._lock:
                for key in deleted:
                    self._received.pop(key, None)
            self._listener.committed({Partition(name, key): 1 for key in deleted})
            for each in failed.values():
                self._listener.commit_refused(BusFailed(str(each.get("Code"))))

    def pause(self) -> None:
        """Stop receiving. Messages that are received already stay invisible."""
        self._running.clear()

    def resume(self) -> None:
        """Continue receiving."""
        self._running.set()

    def lag(self) -> Mapping[Partition, int]:
        """Return the approximate number of messages per queue, at most every 30 s."""
        now = time.monotonic()
        if now >= self._lag_read_at + _LAG_SECONDS:
            self._lag_read_at = now
            for name, url in self._urls.items():
                with suppress(*_ERRORS):
                    found = self._client.get_queue_attributes(
                        QueueUrl=url,
                        AttributeNames=[
                            "ApproximateNumberOfMessages",
                            "ApproximateNumberOfMessagesNotVisible",
                        ],
                    )["Attributes"]
                    self._lag[Partition(name, "")] = sum(int(value) for value in found.values())
        return self._lag

    def close(self) -> None:
        """Stop, and make messages that are not written visible to other consumers at once."""
        self._stopping.set()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:  # A long poll may take longer: it ends with the process.
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = list(self._received.items())
        for name, some in _by_queue(left):
            entries = [
                {"Id": str(number), "ReceiptHandle": each.receipt, "VisibilityTimeout": 0}
                for number, (_, each) in enumerate(some)
            ]
            with suppress(*_ERRORS):
                self._client.change_message_visibility_batch(
                    QueueUrl=self._urls[name], Entries=entries
                )
        self._client.close()


class SqsDeadLetters:
    """Sends dead messages to a queue: the original body, and the reason as attributes.

    SQS takes at most 10 attributes, so those of the original are kept as long as there is room.
    """

    def __init__(self, queue_name: str, region: str = "", endpoint_url: str = "") -> None:
        self._client = _client(region, endpoint_url)
        try:
            self._url = self._client.get_queue_url(QueueName=queue_name)["QueueUrl"]
        except _ERRORS as error:
            raise BusFailed(f"Queue {queue_name}: {_code(error)}.") from error

    def __call__(self, letters: Sequence[DeadMessage]) -> None:
        """Send messages. Raises `BusFailed` if SQS has not stored all of them."""
        for some in _chunks(letters, _BATCH):
            entries = [_entry(number, letter) for number, letter in enumerate(some)]
            try:
                answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
            except _ERRORS as error:
                raise BusFailed(f"Dead letters were refused: {_code(error)}.") from error
            if answer.get("Failed"):
                code = answer["Failed"][0].get("Code")
                raise BusFailed(f"{len(answer['Failed'])} dead letters were refused: {code}.")


def _entry(number: int, letter: DeadMessage) -> dict[str, Any]:
    message, error = letter
    reason = {
        "dead_letter.topic": message.topic,
        "dead_letter.error": type(error).__name__,
        "dead_letter.reason": str(error)[:1000],
    }
    attributes = {
        name: {"DataType": "String", "StringValue": value} for name, value in reason.items()
    }
    for name, value in message.headers[: _BATCH - len(attributes)]:
        if value:
            attributes[name] = {"DataType": "Binary", "BinaryValue": value}  # type: ignore[dict-item]
    body = (message.value or b"").decode(errors="replace")
    return {"Id": str(number), "MessageBody": body or " ", "MessageAttributes": attributes}


def _client(region: str, endpoint_url: str) -> Any:
    config = Config(
        connect_timeout=5, read_timeout=_WAIT_SECONDS + 10, retries={"mode": "standard"}
    )
    try:
        return boto3.client(
            "sqs", region_name=region or None, endpoint_url=endpoint_url or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise BusFailed(f"SQS: {error}") from error


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__


def _by_queue(
    found: Sequence[tuple[str, _Received]],
) -> Iterator[tuple[str, list[tuple[str, _Received]]]]:
    """Batches of at most 10 messages of one queue."""
    for name in {each.queue for _, each in found}:
        for some in _chunks([pair for pair in found if pair[1].queue == name], _BATCH):
            yield name, some


def _chunks(values: Sequence[T], size: int) -> Iterator[list[T]]:
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some
