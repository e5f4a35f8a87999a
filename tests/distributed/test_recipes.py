"""The code of docs/bulk.md that needs an engine, run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from chalk_online_store.integrations.bulk import Scan, Written
from tests.distributed.app import User

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[2] / "docs" / "bulk.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def code_of(heading: str) -> str:
    section = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(BLOCK.findall(section))


def run(heading: str, **names: Any) -> dict[str, Any]:
    """Run the code of a section; classes in it are pickled by value, as those of a script."""
    namespace = {"__name__": "__main__", "User": User, **names}
    exec(compile(code_of(heading), str(DOCUMENT), "exec"), namespace)
    return namespace


def users(rows: int = 200) -> pa.Table:
    return pa.table(
        {
            "id": range(rows),
            "visits": range(rows),
            "ts": pa.array([NOW] * rows, pa.timestamp("us", "UTC")),
        }
    )


def check(url: str) -> None:
    found = [row for batch in Scan(url, User, ["visits"]) for row in batch.to_pylist()]
    assert sorted((row["id"], row["visits"]) for row in found) == [(n, n) for n in range(200)]


@pytest.fixture
def dask_cluster() -> Iterator[None]:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield


@pytest.mark.usefixtures("dask_cluster")
def test_dask(url: str) -> None:
    """A data frame of Dask is written by two worker processes."""
    dataframe = pytest.importorskip("dask.dataframe")
    frame = dataframe.from_pandas(users().to_pandas(), npartitions=4)
    total = run("Dask", url=url, frame=frame)["total"]
    assert (total.rows, total.written) == (200, 200)
    check(url)


def test_daft(url: str) -> None:
    """A data frame of Daft is written through a data sink."""
    daft = pytest.importorskip("daft")
    frame = daft.from_arrow(users()).into_partitions(2)
    assert run("Daft", url=url, frame=frame)["total"] == 200
    check(url)


def test_beam(url: str) -> None:
    """Elements of Beam are written bundle by bundle, observed at their timestamps."""
    beam = pytest.importorskip("apache_beam")
    from apache_beam.testing.util import assert_that
    from apache_beam.utils.timestamp import Timestamp

    def stamped(row: dict[str, Any]) -> Any:
        at = Timestamp.of(row.pop("ts").timestamp())
        return beam.window.TimestampedValue(row, at)

    def is_whole(found: list[Written]) -> None:
        (total,) = found
        assert (total.rows, total.written, total.dead) == (200, 200, 0)

    with beam.Pipeline(runner="DirectRunner") as pipeline:
        rows = pipeline | beam.Create(users().to_pylist()) | beam.Map(stamped)
        assert_that(run("Beam", url=url, rows=rows)["total"], is_whole)
    check(url)
    times = [
        row for batch in Scan(url, User, ["visits"], observed_at=True) for row in batch.to_pylist()
    ]
    assert {row["visits.observed_at"] for row in times} == {NOW}
