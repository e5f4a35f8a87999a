"""Ray Data: a data sink, a data source and point lookups. See docs/bulk.md.

Needs Ray: `pip install 'chalk-online-store[arrow]'`, on the driver and on the workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chalk_online_store.errors import InvalidValue, MissingDependency

try:
    import pyarrow as pa
    import ray.data
    from ray.data import Datasink, Datasource
    from ray.data._internal.execution.interfaces import TaskContext
    from ray.data.block import BlockAccessor, BlockMetadata
    from ray.data.datasource import ReadTask
except ImportError as error:
    raise MissingDependency(
        "The Ray data sink needs ray[data] and pyarrow: pip install "
        "'chalk-online-store[arrow]' 'ray[data]'."
    ) from error

from chalk_online_store.integrations.bulk import Lookup, Scan, ScanPart, Sink, Written

__all__ = ["FeaturesDatasink", "lookup", "read_features", "write_features"]


class FeaturesDatasink(Datasink[Written]):
    """Writes a dataset by a sink: `dataset.write_datasink(FeaturesDatasink(sink, writers=N))`.

    `writers` is how many tasks write at once, which divides the sink's write rate. After the write
    `written` has the counts of all tasks. Raises `InvalidValue` if the sink has a rate and
    `writers` is not given, and `LoadIncomplete` after the write if too many rows are dead.
    """

    def __init__(self, sink: Sink, *, writers: int | None = None) -> None:
        if writers is None and sink.wcu_per_second is not None and not sink.is_prepared:
            raise InvalidValue(
                "wcu_per_second needs writers=: how many tasks write at once, which is the number "
                "of CPUs of the cluster if there are at least as many blocks."
            )
        self._sink = sink
        self._writers = writers or 1
        self.written = Written()

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        """Prepare the sink, on the driver."""
        if not self._sink.is_prepared:
            self._sink = self._sink.prepare(writers=self._writers)

    def write(self, blocks: Iterable[Any], ctx: TaskContext) -> Written:
        """Write the blocks of a task."""
        tables = (BlockAccessor.for_block(block).to_arrow() for block in blocks)
        return self._sink.write(tables, partition=ctx.task_idx)

    def on_write_complete(self, write_result: Any) -> None:
        """Add up the counts, on the driver."""
        self.written = self._sink.total([Written(), *write_result.write_returns])

    def get_name(self) -> str:
        """Return the name that Ray shows."""
        return "ChalkOnlineStore"


def write_features(dataset: ray.data.Dataset, sink: Sink, *, writers: int | None = None) -> Written:
    """Write a dataset, and return the counts of all tasks. Raises as `FeaturesDatasink`."""
    target = FeaturesDatasink(sink, writers=writers)
    dataset.write_datasink(target)
    return target.written


class _FeaturesDatasource(Datasource):
    def __init__(self, scan: Scan) -> None:
        super().__init__()
        self._scan = scan

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size is unknown."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return a task for each part of the scan."""
        schema = self._scan.arrow_schema
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(_ReadPart(self._scan, part), metadata, schema=schema)
            for part in self._scan.parts()
        ]


class _ReadPart:
    def __init__(self, scan: Scan, part: ScanPart) -> None:
        self._scan = scan
        self._part = part

    def __call__(self) -> Iterable[pa.Table]:
        found = False
        for batch in self._scan.read(self._part):
            found = True
            yield pa.Table.from_batches([batch])
        if not found:  # A task without a block would have no columns.
            yield self._scan.arrow_schema.empty_table()


def read_features(scan: Scan) -> ray.data.Dataset:
    """Return a dataset of all entities, read by a task for each segment of the scan."""
    return ray.data.read_datasource(_FeaturesDatasource(scan))


def lookup(dataset: ray.data.Dataset, lookup: Lookup) -> ray.data.Dataset:
    """Return a dataset with the features of a lookup added, by point reads in its tasks."""
    return dataset.map_batches(_call, fn_kwargs={"lookup": lookup}, batch_format="pyarrow")


def _call(table: pa.Table, lookup: Lookup) -> pa.Table:
    return lookup(table)
