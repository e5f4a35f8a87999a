"""The Spark data source, with real worker processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it.

from chalk_online_store import Feature, Namespace, OnlineStore
from chalk_online_store.integrations import spark as chalk_spark
from chalk_online_store.integrations.bulk import Lookup, Scan
from tests.distributed.app import SCHEMA, User
from tests.distributed.killing import workers_killed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROWS = 600


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    session = (
        SparkSession.builder.master("local[2,4]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "America/New_York")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    chalk_spark.register(session)
    yield session
    session.stop()


def users(spark: SparkSession, rows: int, factor: int = 1, at: datetime = NOW) -> DataFrame:
    number = F.col("id")
    return (
        spark.range(rows)
        .select(
            "id",
            F.concat(F.lit("user "), number).alias("name"),
            (number * factor).alias("visits"),
            (number / 7).alias("risk"),
            F.array([(number % 8).cast("float")] * 4).alias("embedding"),
            F.lit(at).alias("ts"),
        )
        .repartition(2)
    )


def write(frame: DataFrame, url: str, **options: Any) -> None:
    writer = frame.write.format("chalk_online_store").option("url", url)
    for name, value in ({"schema": SCHEMA, "observedAt": "ts"} | options).items():
        if value is not None:
            writer = writer.option(name, value)
    writer.mode("append").save()


def stored(url: str, *features: str) -> dict[int, tuple[Any, ...]]:
    names = list(features) or ["visits"]
    rows = [row for batch in Scan(url, User, names) for row in batch.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: tuple(row[name] for name in names) for row in rows}


def test_a_data_frame_is_written_and_scanned(spark: SparkSession, url: str) -> None:
    """All types come back exactly as written, each entity once, from four segments."""
    write(users(spark, ROWS), url)
    reader = spark.read.format("chalk_online_store").option("url", url).option("schema", SCHEMA)
    found = reader.option("segments", 4).load()
    assert found.rdd.getNumPartitions() == 4
    assert dict(found.dtypes) == {
        "id": "bigint",
        "name": "string",
        "visits": "bigint",
        "risk": "double",
        "embedding": "array<float>",
    }
    rows = {row["id"]: row.asDict() for row in found.collect()}
    assert rows == {
        n: {"id": n, "name": f"user {n}", "visits": n, "risk": n / 7, "embedding": [n % 8] * 4}
        for n in range(ROWS)
    }
    times = reader.option("features", "visits").option("observedAtColumns", "true").load()
    same = times.select(F.min(F.col("`visits.observed_at`").cast("long"))).collect()
    assert same[0][0] == int(NOW.timestamp())


def test_killed_workers_lose_and_double_nothing(spark: SparkSession, url: str) -> None:
    """With `kill -9` of both Python workers while they write, every value is right, once."""
    rows = 3_000
    frame = users(spark, rows).select("id", "visits", "ts")
    scan = Scan(url, User, ["visits"])
    with workers_killed(scan, is_spark_worker, 2) as killed:
        write(frame, url, wcuPerSecond=800, writers=2)
    assert len(killed) == 2
    assert stored(url) == {n: (n,) for n in range(rows)}


def is_spark_worker(process: psutil.Process) -> bool:
    """Return True for a process that a daemon of PySpark has forked."""
    parent = process.parent()
    command = " ".join(process.cmdline())
    return parent is not None and "pyspark" in command and "daemon" in " ".join(parent.cmdline())


def test_an_older_load_changes_nothing(spark: SparkSession, url: str) -> None:
    """A load of older values after a newer one leaves the newer values."""
    write(users(spark, 50, factor=2, at=NOW + timedelta(hours=1)), url)
    write(users(spark, 60), url)
    assert stored(url) == {n: (n * 2 if n < 50 else n,) for n in range(60)}


def test_dead_rows_fail_the_job(spark: SparkSession, url: str, tmp_path: Path) -> None:
    """Rows that cannot be written fail the job after the others are written, or are allowed."""
    null = F.when(F.col("id") < 5, None).otherwise(F.col("visits"))
    bad = users(spark, 50).withColumn("visits", null)
    with pytest.raises(Exception, match="LoadIncomplete: 5 of 50 rows"):
        write(bad, url, deadLetters=f"{tmp_path}/letters")
    letters = [
        json.loads(line)
        for file in (tmp_path / "letters").iterdir()
        for line in file.read_text().splitlines()
    ]
    assert sorted(letter["row"]["id"] for letter in letters) == [*range(5)]
    assert sorted(stored(url)) == [*range(5, 50)]
    write(bad, url, maxDead=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": None}, "schema"),
        ({"schema": "no_such_module:User"}, "no_such_module"),
        ({"wcuPerSecond": 5}, "writers"),
        ({"writers": "many"}, "writers"),
        ({"speed": 5}, "speed"),
        ({"observedAt": "missing"}, "missing"),
        ({"maxDead": "-1"}, "max_dead"),
    ],
)
def test_bad_options_fail_the_plan(
    spark: SparkSession, url: str, change: dict[str, Any], message: str
) -> None:
    """An option that cannot be used fails the job before a task starts."""
    with pytest.raises(Exception, match=message):
        write(users(spark, 1), url, **change)
    assert stored(url) == {}


def test_columns_of_the_wrong_type_fail_the_plan(spark: SparkSession, url: str) -> None:
    """A column of text for an int feature is an error of the job, which names it."""
    with pytest.raises(Exception, match="Column 'visits' is string"):
        write(users(spark, 5).withColumn("visits", F.col("visits").cast("string")), url)


def test_overwrite_is_refused(spark: SparkSession, url: str) -> None:
    """A mode that would empty the table is refused."""
    frame = users(spark, 1).write.format("chalk_online_store").option("url", url)
    with pytest.raises(Exception, match="append"):
        frame.option("schema", SCHEMA).mode("overwrite").save()


def test_a_namespace_can_come_from_the_columns(spark: SparkSession, url: str) -> None:
    """Without a feature class, features have the types of the columns."""
    frame = users(spark, 20).select("id", "name", "visits", "ts")
    write(frame, url, schema=None, namespace="client", key="id")
    client = Namespace("client", int, [Feature("name", str | None), Feature("visits", int | None)])
    with OnlineStore.open(url, [client]) as store:
        assert store.get(client, 7).to_dict() == {"name": "user 7", "visits": 7}


def test_a_stream_is_written(spark: SparkSession, url: str, tmp_path: Path) -> None:
    """Micro-batches of a structured stream are written; a stream without times is refused."""
    source = tmp_path / "source"
    users(spark, 200).write.parquet(str(source))
    stream = spark.readStream.schema(users(spark, 1).schema).parquet(str(source))

    def start(name: str, **options: str) -> Any:
        writer = stream.writeStream.format("chalk_online_store").option("url", url)
        writer = writer.option("checkpointLocation", str(tmp_path / name))
        writer = writer.option("schema", SCHEMA).trigger(availableNow=True)
        return writer.options(**options).start()

    for _ in range(2):  # The second one has nothing left to do.
        start("checkpoint", observedAt="ts").awaitTermination()
    start("again", observedAt="ts").awaitTermination()  # Every micro-batch a second time.
    assert stored(url) == {n: (n,) for n in range(200)}
    with pytest.raises(Exception, match="observedAt"):
        start("other").awaitTermination()


def test_lookups_join_by_point_reads(spark: SparkSession, url: str) -> None:
    """Rows of two partitions get the features of their keys, and nulls where there is none."""
    write(users(spark, 100), url)
    orders = spark.range(0, 300, numPartitions=2).select(
        F.when(F.col("id") % 3 == 0, None).otherwise(F.col("id")).alias("user_id"),
        F.col("id").alias("order"),
    )
    lookup = Lookup(url, User, ["visits", "embedding"], key=["user_id"])
    found = {row["order"]: row for row in chalk_spark.lookup(orders, lookup).collect()}
    assert len(found) == 300
    for n, row in found.items():
        expected = n if n < 100 and n % 3 else None
        assert row["visits"] == expected
        assert row["embedding"] == (None if expected is None else [n % 8] * 4)


def test_types_that_spark_lacks_are_refused() -> None:
    """A column of a type that Spark does not have is named, and how to leave it out."""
    wanted = pa.schema([("a", pa.int64()), ("when", pa.month_day_nano_interval())])
    with pytest.raises(Exception, match="'when'"):
        chalk_spark.spark_schema(wanted)
