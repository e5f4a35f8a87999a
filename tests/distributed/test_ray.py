"""The Ray data sink and source, with real worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray

from chalk_online_store.errors import InvalidValue, LoadIncomplete
from chalk_online_store.integrations import ray as chalk_ray
from chalk_online_store.integrations.bulk import Lookup, Scan, Sink
from tests.distributed.app import User
from tests.distributed.killing import workers_killed

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    ray.init(
        include_dashboard=False,
        object_store_memory=200 << 20,
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def users(rows: int) -> pa.Table:
    return pa.table(
        {
            "id": range(rows),
            "name": [f"user {n}" for n in range(rows)],
            "visits": range(rows),
            "risk": [n / 7 for n in range(rows)],
            "embedding": pa.array([[n % 8] * 4 for n in range(rows)], pa.list_(pa.float32(), 4)),
            "ts": pa.array([NOW] * rows, pa.timestamp("us", "UTC")),
        }
    )


def dataset(table: pa.Table) -> Any:
    half = table.num_rows // 2
    return ray.data.from_arrow([table.slice(0, half), table.slice(half)])


def test_a_dataset_is_written_and_read(url: str) -> None:
    """Two tasks write all rows; three read tasks give each entity once, with exact values."""
    table = users(400)
    written = chalk_ray.write_features(dataset(table), Sink(url, User, observed_at="ts"))
    assert (written.rows, written.written, written.dead, written.wcu) == (400, 400, 0, 800)
    scan = Scan(url, User, segments=3)
    blocks = ray.get(chalk_ray.read_features(scan).to_arrow_refs())
    found = pa.concat_tables(blocks).sort_by("id")
    assert found.equals(table.drop_columns(["ts"]).cast(scan.arrow_schema))


def test_killed_workers_lose_and_double_nothing(url: str) -> None:
    """With `kill -9` of workers while they write, Ray runs their tasks again: all is right."""
    rows = 3_000
    table = users(rows).select(["id", "visits", "ts"])
    sink = Sink(url, User, observed_at="ts", wcu_per_second=800)
    with workers_killed(Scan(url, User, ["visits"]), is_ray_worker, 2) as killed:
        written = chalk_ray.write_features(dataset(table), sink, writers=2)
    assert killed
    assert (written.rows, written.written) == (rows, rows)
    found = [row for batch in Scan(url, User, ["visits"]) for row in batch.to_pylist()]
    assert sorted((row["id"], row["visits"]) for row in found) == [(n, n) for n in range(rows)]


def is_ray_worker(process: psutil.Process) -> bool:
    """Return True for a worker that runs a task; an idle one is called ray::IDLE."""
    command = " ".join(process.cmdline())
    return command.startswith("ray::") and "Write" in command


def test_dead_rows_fail_the_write(url: str) -> None:
    """Too many dead rows raise on the driver, with the counts of all tasks."""
    table = users(40)
    bad = table.set_column(2, "visits", pa.array([None] * 3 + [*range(37)], pa.int64()))
    with pytest.raises(LoadIncomplete, match="3 of 40 rows") as failed:
        chalk_ray.write_features(dataset(bad), Sink(url, User, observed_at="ts"))
    assert failed.value.written.written == 37


def test_a_rate_needs_writers(url: str) -> None:
    """A rate without the number of writers cannot be divided, so it is refused."""
    with pytest.raises(InvalidValue, match="writers="):
        chalk_ray.FeaturesDatasink(Sink(url, User, wcu_per_second=5))


def test_lookups_join_by_point_reads(url: str) -> None:
    """Rows get the features of their keys, and nulls where there is none."""
    chalk_ray.write_features(dataset(users(10)), Sink(url, User, observed_at="ts"))
    orders = ray.data.from_arrow(pa.table({"user_id": [3, None, 99], "order": [1, 2, 3]}))
    found = chalk_ray.lookup(orders, Lookup(url, User, ["visits"], key=["user_id"])).take_all()
    assert [row["visits"] for row in sorted(found, key=lambda row: row["order"])] == [3, None, None]
