"""The persistence service on SQS, and its Lambda handler, on moto's server."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from chalk_online_store import BusFailed, InvalidValue, OnlineStore
from chalk_online_store.integrations.persistence import (
    PersistenceService,
    load_config,
    open_service,
    sqs,
)
from chalk_online_store.integrations.persistence.aws_lambda import make_handler
from chalk_online_store.testing import Blackhole
from chalk_online_store.writer.service import DeadMessage, Partition
from tests.engines import MotoProcess
from tests.kafka import PATIENCE, User, wait_until, write_config

REGION = "us-east-1"


class Queues:
    """Two queues in moto: `name`, and one of dead letters."""

    def __init__(self, moto: MotoProcess, visibility: int = 30) -> None:
        self.endpoint_url = moto.endpoint_url
        self.client = boto3.client("sqs", region_name=REGION, endpoint_url=self.endpoint_url)
        self.name = f"users-{uuid.uuid4().hex}"
        attributes = {"VisibilityTimeout": str(visibility)}
        self.url = self.client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.dead_url = self.client.create_queue(QueueName=f"{self.name}-dead")["QueueUrl"]
        self.bus = f"sqs:///{self.name}?region={REGION}&endpoint_url={self.endpoint_url}"

    def send(self, *bodies: str) -> None:
        for body in bodies:
            attributes = {"source": {"DataType": "String", "StringValue": "test"}}
            self.client.send_message(
                QueueUrl=self.url, MessageBody=body, MessageAttributes=attributes
            )

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))

    def dead(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while some := self.client.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            found += some
        return found


Make = Callable[..., Queues]


@pytest.fixture
def queues(moto: MotoProcess, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes queues. A long poll is short, since moto answers none before its end."""
    monkeypatch.setattr("chalk_online_store.integrations.persistence.sqs._WAIT_SECONDS", 1)
    return lambda **options: Queues(moto, **options)


def body(key: int, visits: Any, at: int) -> str:
    return json.dumps({"id": key, "visits": visits, "ts": at})


@contextmanager
def running(queues: Queues, url: str, home: Path, **more: Any) -> Iterator[PersistenceService]:
    topic = {
        "name": queues.name,
        "schema": "tests.kafka:User",
        "observed_at": "ts",
        "observed_at_unit": "us",
    }
    dead = {"topic": f"{queues.name}-dead"}
    config = write_config(home / "writer.toml", topics=[topic], dead_letters=dead, **more)
    with open_service(queues.bus, load_config(config), url=url) as service:
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            yield service
        finally:
            service.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_messages_are_deleted_when_they_are_written(queues: Make, tmp_path: Path) -> None:
    """The newest value wins, dead letters have their body and reason, and the queue is empty."""
    made, url, now = queues(), f"sqlite:///{tmp_path}/f.db", int(time.time() * 1e6)
    made.send(*(body(key % 5, key, now - 60_000_000 + key) for key in range(25)))
    made.send(body(1, "text", now), "{")
    with running(made, url, tmp_path) as service:
        wait_until(lambda: service.stats().messages >= 27 and made.left() == 0)
    with OnlineStore.open(url, [User]) as store:
        assert store.read(User, range(5)).column("visits") == [20, 21, 22, 23, 24]
    dead = made.dead()
    assert {each["Body"] for each in dead} == {body(1, "text", now), "{"}
    attributes = dead[0]["MessageAttributes"]
    assert attributes["dead_letter.topic"]["StringValue"] == made.name
    assert attributes["source"]["BinaryValue"] == b"test"


class FakeSqs:
    """A queue of three messages, and the requests that extend their timeouts."""

    def __init__(self) -> None:
        self.bodies = ["a", "b", "c"]
        self.extended: list[str] = []
        self.deleted: list[str] = []

    def get_queue_url(self, **_: Any) -> dict[str, Any]:
        return {"QueueUrl": "url"}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {"VisibilityTimeout": "30"}}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        bodies, self.bodies = self.bodies, []
        if not bodies:
            time.sleep(0.01)
        return {
            "Messages": [
                {"MessageId": each, "ReceiptHandle": f"receipt-{each}", "Body": each}
                for each in bodies
            ]
        }

    def change_message_visibility_batch(self, Entries: Any, **_: Any) -> None:  # noqa: N803
        if Entries[0]["VisibilityTimeout"]:
            self.extended += [each["ReceiptHandle"] for each in Entries]

    def delete_message_batch(self, Entries: Any, **_: Any) -> dict[str, Any]:  # noqa: N803
        self.deleted += [each["ReceiptHandle"] for each in Entries[1:]]
        return {"Failed": [{"Id": Entries[0]["Id"], "Code": "InternalError"}]}

    def close(self) -> None:
        pass


class Outcomes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.stored: dict[Partition, int] = {}
        self.refusals = 0

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        self.stored |= offsets

    def commit_refused(self, error: Exception) -> None:
        self.refusals += 1

    def revoked(self, partitions: Any) -> None:
        raise AssertionError

    lost = revoked


def test_the_timeout_of_pending_messages_is_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a third of it, also while paused; a message whose deletion failed is extended on."""
    client, now, told = FakeSqs(), [1000.0], Outcomes()
    monkeypatch.setattr(sqs, "_client", lambda *_: client)
    bus = sqs.SqsBus(["users"])
    bus.start(told)
    monkeypatch.setattr(sqs, "time", SimpleNamespace(monotonic=lambda: now[0]))
    messages = bus.poll(10, 30.0)
    for each in bus._received.values():
        each.extend_at = now[0] + 10.0
    bus.pause()
    bus.poll(10, 0.0)
    assert client.extended == []
    now[0] += 10.5
    bus.poll(10, 0.0)
    bus.poll(10, 0.0)
    assert client.extended == ["receipt-a", "receipt-b", "receipt-c"]
    bus.commit({message.partition: 1 for message in messages}, wait=False)
    assert client.deleted == ["receipt-b", "receipt-c"]
    assert (set(told.stored), told.refusals) == ({each.partition for each in messages[1:]}, 1)
    now[0] += 10.5
    bus.poll(10, 0.0)
    assert client.extended[3:] == ["receipt-a"]
    bus.close()


def test_a_stop_gives_messages_back_at_once(
    queues: Make, table: str, fault_proxy: Any, tmp_path: Path
) -> None:
    """Messages that could not be written are visible to another consumer without a timeout."""
    made, url, now = queues(visibility=1000), fault_proxy.url(table), int(time.time() * 1e6)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 0, "visits": 0}])
    with fault_proxy.fault(Blackhole(), operations={"UpdateItem"}):
        made.send(body(1, 1, now))
        with running(made, url, tmp_path, service={"drain_timeout": "500ms"}) as service:
            wait_until(lambda: service.stats().pending == 1)
    with running(made, url, tmp_path):
        wait_until(lambda: made.left() == 0)


def test_a_queue_that_does_not_exist_is_named(queues: Make, tmp_path: Path) -> None:
    """The service ends at its start, with the name of the queue."""
    made = queues()
    made.client.delete_queue(QueueUrl=made.url)
    topic = {"name": made.name, "schema": "tests.kafka:User"}
    config = write_config(
        tmp_path / "writer.toml", topics=[topic], dead_letters={"file": str(tmp_path / "dead")}
    )
    with (
        pytest.raises(BusFailed, match=made.name),
        open_service(made.bus, load_config(config), url="sqlite://") as service,
    ):
        service.run()


# --- Lambda ---------------------------------------------------------------------------------


class Context:
    """Of an invocation that ends so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


def sqs_event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": "r",
                "body": each,
                "attributes": {"SentTimestamp": "1700000000000"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:1:users",
            }
            for number, each in enumerate(bodies)
        ]
    }


def kinesis_event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventID": f"shardId-0:{number}",
                "eventSource": "aws:kinesis",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:1:stream/users",
                "kinesis": {
                    "partitionKey": "k",
                    "sequenceNumber": f"4900{number}",
                    "data": base64.b64encode(each.encode()).decode(),
                    "approximateArrivalTimestamp": 1700000000.123,
                },
            }
            for number, each in enumerate(bodies)
        ]
    }


def kafka_event(*bodies: str) -> dict[str, Any]:
    return {
        "eventSource": "aws:kafka",
        "records": {
            "users-3": [
                {
                    "topic": "users",
                    "partition": 3,
                    "offset": 10 + number,
                    "timestamp": 1700000000123,
                    "timestampType": "CREATE_TIME",
                    "key": base64.b64encode(b"k").decode(),
                    "value": base64.b64encode(each.encode()).decode(),
                    "headers": [{"h": [-1, 2]}],
                }
                for number, each in enumerate(bodies)
            ]
        },
    }


def dropped(_letters: Sequence[DeadMessage]) -> None:
    """A destination for tests without dead letters."""


EVENTS = {
    "sqs": (sqs_event, "m0"),
    "kinesis": (kinesis_event, "49000"),
    "kafka": (kafka_event, {"topic-partition": "users-3", "offset": 10}),
}


@pytest.mark.parametrize("source", EVENTS)
def test_the_handler_writes_the_records_of_an_event(source: str, tmp_path: Path) -> None:
    """Rows are written when it returns; bad records are dead letters, and none is returned."""
    event, _ = EVENTS[source]
    dead: list[DeadMessage] = []
    url = f"sqlite:///{tmp_path}/f.db"
    handler = make_handler(write_config(tmp_path / "w.toml"), url=url, dead_letters=dead.extend)
    now = int(time.time() * 1e6)
    bodies = [body(key, key * 2, now) for key in range(20)]
    assert handler(event(*bodies, "{", body(1, "x", now)), Context(60)) == {"batchItemFailures": []}
    with OnlineStore.open(url, [User]) as store:
        assert store.read(User, range(20)).column("visits") == [key * 2 for key in range(20)]
    assert {letter.message.value for letter in dead} == {b"{", body(1, "x", now).encode()}
    if source == "kafka":
        assert dead[0].message.headers == (("h", b"\xff\x02"),)


@pytest.mark.parametrize("source", EVENTS)
def test_the_handler_returns_what_it_could_not_write(
    source: str, table: str, fault_proxy: Any, tmp_path: Path
) -> None:
    """Before Lambda ends the invocation, records of a table that does not respond are returned."""
    event, identifier = EVENTS[source]
    url = fault_proxy.url(table)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 0, "visits": 0}])
    handler = make_handler(write_config(tmp_path / "w.toml"), url=url, dead_letters=dropped)
    given = event(body(1, 1, int(time.time() * 1e6)))
    with fault_proxy.fault(Blackhole(), operations={"UpdateItem"}):
        assert handler(given, Context(1.5)) == {
            "batchItemFailures": [{"itemIdentifier": identifier}]
        }
    assert handler(given, Context(60)) == {"batchItemFailures": []}


def test_the_handler_refuses_other_events(tmp_path: Path) -> None:
    """An event of another source is an error, so that Lambda does not take it for written."""
    handler = make_handler(write_config(tmp_path / "w.toml"), url="sqlite://", dead_letters=dropped)
    with pytest.raises(InvalidValue, match="SQS, Kinesis"):
        handler({"Records": [{"eventSource": "aws:s3"}]}, Context(60))
