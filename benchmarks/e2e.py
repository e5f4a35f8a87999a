"""End to end: latency and CPU of single calls against a real engine.

dynoxide, unless another endpoint is named. Each client makes its own table and fills it.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import boto3

from benchmarks.clients.base import ACCESS_KEY, REGION, SECRET_KEY
from benchmarks.crew import Crewman, cores, crew
from benchmarks.workloads import READ_MANY, READ_ONE, UPDATE, WRITE, Workload
from chalk_online_store.testing import Dynoxide

CLIENTS = (
    "OnlineStore",
    "AsyncOnlineStore",
    "dynamoxy",
    "pydynox",
    "aiodynamo",
    "boto3 client",
    "boto3 resource",
)
WORKLOADS = (READ_MANY, READ_ONE, WRITE, UPDATE)
FEATURES = 20
CALLS = 10
"""How many calls a client makes in one go."""


def run(
    rounds: int = 20, seed: int = 0, endpoint: str | None = None, clients: Sequence[str] = CLIENTS
) -> list[dict[str, Any]]:
    """Percentiles of latency in milliseconds, and CPU a call, one call at a time."""
    client_core, server_core = cores()
    with (
        engine(endpoint, server_core) as url,
        crew(clients, url, client_core) as workers,
        tables(workers, url),
    ):
        for worker in workers:
            worker.do("fill", features=FEATURES)
            worker.do("check", workload=READ_MANY)
        pairs = [Pair(workload, worker) for workload in WORKLOADS for worker in workers]
        samples = _samples(pairs, rounds, random.Random(seed))
        return [_result(pair, samples[pair]) for pair in pairs]


class Pair(NamedTuple):
    """One client at one workload."""

    workload: Workload
    worker: Crewman


@contextmanager
def engine(endpoint: str | None, core: int | None) -> Iterator[str]:
    """The URL of an engine: the one that is given, or else a dynoxide on this core."""
    if endpoint is not None:
        yield endpoint
        return
    with Dynoxide() as engine:
        if core is not None:
            os.sched_setaffinity(engine.pid, {core})
        yield engine.endpoint_url


@contextmanager
def tables(workers: Sequence[Crewman], url: str) -> Iterator[None]:
    """A table for each client, gone afterwards."""
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    with closing(session.client("dynamodb", endpoint_url=url)) as client:
        for worker in workers:
            _create(client, worker.table(FEATURES), worker.keys)
        try:
            yield
        finally:
            for worker in workers:
                client.delete_table(TableName=worker.table(FEATURES))


def _create(client: Any, table: str, keys: Sequence[str]) -> None:
    kinds = zip(keys, ("HASH", "RANGE"), strict=False)
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in kinds],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})


def _samples(
    pairs: Sequence[Pair], rounds: int, rng: random.Random
) -> dict[Pair, list[dict[str, Any]]]:
    samples: dict[Pair, list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for pair in pairs:  # Connections, imports and caches are not what is measured.
        pair.worker.do("latencies", workload=pair.workload, times=CALLS)
    for _ in range(rounds):
        for pair in rng.sample(pairs, len(pairs)):
            answer = pair.worker.do("latencies", workload=pair.workload, times=CALLS)
            samples[pair].append(answer)
    return samples


def _result(pair: Pair, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    wall_ms = [took / 1e3 for sample in samples for took in sample["wall_us"]]
    percentiles = statistics.quantiles(wall_ms, n=100, method="inclusive")
    return {
        "workload": pair.workload.title,
        "client": pair.worker.client,
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "cpu_us": statistics.median(sample["cpu_us"] for sample in samples),
    }
