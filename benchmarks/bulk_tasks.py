"""CPU and WCU per row of a task that writes Arrow batches: `Sink`, boto3 and Feast's store.

Each writes the same batches to a new table of one dynoxide, in the process of the benchmark. The
CPU is that of this process, without the engine's. WCU are those that the engine reports, of new
items.

Run it as `python -m benchmarks.bulk_tasks`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pyarrow as pa

from chalk_online_store import Feature, Namespace
from chalk_online_store.integrations.bulk import Sink
from chalk_online_store.testing import Dynoxide, create_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FLOATS = [f"avg_transaction_amount_{n}d" for n in range(1, 13)]
INTS = [f"transaction_count_{n}d" for n in range(1, 7)]
TEXTS = ["merchant_category", "country"]
REGION = "us-east-1"
BATCH = 1_000

USER = Namespace(
    "user",
    int,
    [
        *(Feature(name, float | None) for name in FLOATS),
        *(Feature(name, int | None) for name in INTS),
        *(Feature(name, str | None) for name in TEXTS),
    ],
)


class Task(NamedTuple):
    """What a way to write did: seconds of CPU, rows, and WCU; None if it does not tell them."""

    cpu: float
    rows: int
    wcu: float | None


Write = Callable[[Sequence[pa.RecordBatch]], float | None]
"""Writes batches, and returns the WCU."""


def batches_of(rows: int) -> list[pa.RecordBatch]:
    """Make rows of 20 features."""
    table = pa.table(
        {
            "id": range(rows),
            **{name: [(n + 1) / (i + 3) for n in range(rows)] for i, name in enumerate(FLOATS)},
            **{name: [n * 10 + i for n in range(rows)] for i, name in enumerate(INTS)},
            **{name: [f"{name[:4]} {n % 50}" for n in range(rows)] for name in TEXTS},
            "ts": pa.array([NOW] * rows, pa.timestamp("us", "UTC")),
        }
    )
    return list(table.to_batches(max_chunksize=BATCH))


def by_sink(engine: Dynoxide, ordering: Any) -> Write:
    """Write by `Sink`, in the given ordering."""
    name = f"sink-{uuid.uuid4().hex}"
    create_table(engine.endpoint_url, name)
    sink = Sink(engine.url(name), USER, observed_at="ts", ordering=ordering).prepare(writers=1)
    return lambda batches: sink.write(batches).wcu


def by_boto3(engine: Dynoxide) -> Write:
    """Write by boto3's `batch_writer`, an attribute for each feature, as a script would."""
    name = f"boto3-{uuid.uuid4().hex}"
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=engine.endpoint_url,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    table = resource.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    consumed: list[float] = []

    def ask(params: dict[str, Any], **_: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def count(parsed: dict[str, Any], **_: Any) -> None:
        consumed.extend(each["CapacityUnits"] for each in parsed["ConsumedCapacity"])

    events = table.meta.client.meta.events
    events.register("before-parameter-build.dynamodb.BatchWriteItem", ask)
    events.register("after-call.dynamodb.BatchWriteItem", count)

    def write(batches: Sequence[pa.RecordBatch]) -> float:
        consumed.clear()
        with table.batch_writer() as writer:
            for batch in batches:
                for row in batch.to_pylist():
                    writer.put_item(Item={name: _plain(value) for name, value in row.items()})
        return sum(consumed)

    return write


def _plain(value: Any) -> Any:
    """Return what boto3 takes: it has no floats and no datetimes."""
    if isinstance(value, float):
        return Decimal(repr(value))
    return value.isoformat() if isinstance(value, datetime) else value


@contextmanager
def by_feast(engine: Dynoxide, directory: Path, kind: str) -> Iterator[Write]:
    """Write by Feast's DynamoDB store or by our plug-in, as its Spark engine does for a batch."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.repo_config import RegistryConfig
    from feast.types import Float64, Int64, String
    from feast.utils import _convert_arrow_to_proto

    if kind == "chalk":
        name = f"feast-{uuid.uuid4().hex}"
        create_table(engine.endpoint_url, name)
        online: dict[str, Any] = {
            "type": "chalk_online_store.integrations.feast.ChalkOnlineStore",
            "url": engine.url(name),
            "timeout": 300,
        }
    else:
        online = {"type": "dynamodb", "region": REGION, "endpoint_url": engine.endpoint_url}
    config = RepoConfig(
        project=f"bench{kind}",
        provider="local",
        registry=RegistryConfig(path=str(directory / f"{kind}.db")),
        online_store=online,
        offline_store="file",
        entity_key_serialization_version=3,
    )
    user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
    kinds = [*((n, Float64) for n in FLOATS), *((n, Int64) for n in INTS)]
    kinds += [(n, String) for n in TEXTS]
    view = FeatureView(
        name="stats",
        entities=[user],
        schema=[Field(name="id", dtype=Int64), *(Field(name=n, dtype=t) for n, t in kinds)],
        source=FileSource(path="none.parquet", timestamp_field="ts"),
    )
    features = FeatureStore(config=config)
    features.apply([user, view])
    provider = features._get_provider()
    join_keys = {"id": ValueType.INT64}

    def write(batches: Sequence[pa.RecordBatch]) -> None:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            rows = _convert_arrow_to_proto(table, view, join_keys)
            provider.online_write_batch(config, view, rows, lambda _: None)

    yield write


def measure(write: Write, batches: Sequence[pa.RecordBatch]) -> Task:
    """Write once to open connections, then again; measure the second."""
    write(batches[:1])
    rows = sum(batch.num_rows for batch in batches[1:])
    before = time.process_time()
    wcu = write(batches[1:])
    return Task(time.process_time() - before, rows, wcu)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    batches = batches_of(options.rows + BATCH)
    found: dict[str, list[Task]] = {}
    with Dynoxide() as engine, tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds):
            ways: dict[str, Write] = {
                'Sink, ordering="event"': by_sink(engine, "event"),
                'Sink, ordering="arrival"': by_sink(engine, "arrival"),
                "boto3's batch_writer": by_boto3(engine),
            }
            for name, write in ways.items():
                found.setdefault(name, []).append(measure(write, batches))
            for kind, name in (("dynamodb", "Feast's store"), ("chalk", "our store in Feast")):
                if find_spec("feast"):
                    with by_feast(engine, Path(directory), kind) as write:
                        found.setdefault(name, []).append(measure(write, batches))
    print(f"{options.rows} rows of 20 features, medians of {options.rounds} rounds\n")
    print("| way | CPU, us per row | WCU per row |")
    print("|---|--:|--:|")
    for name, tasks in found.items():
        cpu = statistics.median(task.cpu / task.rows for task in tasks) * 1e6
        wcu = tasks[0].wcu
        print(f"| {name} | {cpu:.0f} | {'' if wcu is None else f'{wcu / tasks[0].rows:.2f}'} |")


if __name__ == "__main__":
    main()
