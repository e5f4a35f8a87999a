"""Spark: a data source to write, stream and scan features, and point lookups. See docs/bulk.md.

Needs Spark 4.1: `pip install 'chalk-online-store[arrow]'`, on the driver and on the workers. Call
`register(spark)` once in a session; then `chalk_online_store` is a format:

```
df.write.format("chalk_online_store").option("url", url).option("schema", "app:User").mode(
    "append"
).save()
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chalk_online_store.errors import InvalidSchema, InvalidValue, MissingDependency

try:
    import pyarrow as pa
    from pyspark import TaskContext
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceArrowWriter,
        DataSourceReader,
        DataSourceStreamArrowWriter,
        InputPartition,
        WriterCommitMessage,
    )
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
    from pyspark.sql.types import StructType
except ImportError as error:
    raise MissingDependency(
        "The Spark data source needs pyspark 4.1 and pyarrow: "
        "pip install 'chalk-online-store[arrow]' 'pyspark>=4.1'."
    ) from error

from chalk_online_store.integrations.arrow import namespace_of
from chalk_online_store.integrations.bulk import Lookup, Scan, ScanPart, Sink, Written
from chalk_online_store.schema import Namespace

FORMAT = "chalk_online_store"
"""The name of the data source."""

_COMMON = ("url", "schema", "key")
_WRITE = (
    *_COMMON,
    "namespace",
    "observedAt",
    "timeZone",
    "ordering",
    "wcuPerSecond",
    "writers",
    "maxDead",
    "deadLetters",
)
_READ = (
    *_COMMON,
    "features",
    "segments",
    "readers",
    "rcuPerSecond",
    "statuses",
    "observedAtColumns",
)
_OF_SPARK = frozenset(("checkpointlocation", "outputmode", "path", "queryname", "triggerinterval"))
"""Options of a stream, in lower case, that are Spark's own but come with those of the source."""


def register(spark: SparkSession) -> None:
    """Register the data source in a session."""
    spark.dataSource.register(FeaturesDataSource)


def lookup(frame: DataFrame, lookup: Lookup) -> DataFrame:
    """Return a data frame with the features of a lookup added, by point reads in the tasks.

    Raises `InvalidValue` if a column of this name exists already, and `InvalidSchema` for a type
    that Spark does not have.
    """
    given = to_arrow_schema(frame.schema, timezone="UTC")
    schema = spark_schema(lookup.arrow_schema(given))
    return frame.mapInArrow(_SparkBatches(lookup), from_arrow_schema(schema))


class FeaturesDataSource(DataSource):
    """The data source `chalk_online_store`. Options are those of docs/bulk.md.

    Raises `InvalidValue` for an option that is unknown or cannot be read.
    """

    @classmethod
    def name(cls) -> str:
        """Return the name of the format."""
        return FORMAT

    def schema(self) -> StructType:
        """Return the columns of a scan."""
        return from_arrow_schema(spark_schema(self._scan().arrow_schema))

    def reader(self, schema: StructType) -> DataSourceReader:
        """Return a reader with a partition for each segment."""
        return _Reader(self._scan())

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        """Prepare a sink, and return a writer. Raises `InvalidValue` for mode("overwrite")."""
        if overwrite:
            raise InvalidValue(
                'mode("overwrite") is not supported: a write merges rows into the table. Use '
                'mode("append").'
            )
        return _Writer(self._prepared(schema, self._options(_WRITE)))

    def streamWriter(  # noqa: N802 - PySpark's name.
        self, schema: StructType, overwrite: bool
    ) -> DataSourceStreamArrowWriter:
        """Prepare a sink, and return a writer of micro-batches, which Spark may repeat.

        Raises `InvalidValue` without a column of the observed-at, and for ordering "arrival": a
        repeated micro-batch would overwrite newer values.
        """
        options = self._options(_WRITE)
        if options.get("observedAt") is None or options.get("ordering") == "arrival":
            raise InvalidValue(
                "A stream needs the option observedAt, the column of the observed-at, and the "
                'ordering "event": Spark may repeat a micro-batch, which must not replace newer '
                "values."
            )
        return _StreamWriter(self._prepared(schema, options))

    # --- options ---------------------------------------------------------------------------

    def _options(self, known: tuple[str, ...]) -> dict[str, str]:
        """Return the options by their names. Spark gives the names in any case."""
        names = {name.lower(): name for name in known}
        found = {}
        for name, value in self.options.items():
            if name.lower() in _OF_SPARK:
                continue
            if name.lower() not in names:
                raise InvalidValue(
                    f"Option {name!r} is unknown. The options are: {', '.join(known)}."
                )
            found[names[name.lower()]] = value
        if "url" not in found:
            raise InvalidValue('Option "url" is missing: the URL of the store.')
        return found

    def _prepared(self, columns: StructType, options: Mapping[str, str]) -> Sink:
        arrow = to_arrow_schema(columns, timezone="UTC")
        rate, writers = options.get("wcuPerSecond"), options.get("writers")
        if rate is not None and writers is None:
            raise InvalidValue(
                'Option "wcuPerSecond" needs "writers": how many tasks write at once, which is the '
                "smaller of the number of partitions and spark.sparkContext.defaultParallelism."
            )
        if rate is not None and rate != "table":
            rate = _read(options, "wcuPerSecond", float)
        most = options.get("maxDead", "0")
        return Sink(
            options["url"],
            _namespace(options, arrow),
            key=_list(options.get("key")),
            observed_at=options.get("observedAt"),
            time_zone=options.get("timeZone"),
            ordering=options.get("ordering", "event"),  # type: ignore[arg-type] # It is checked.
            wcu_per_second=rate,
            max_dead=None if most == "any" else _read({"maxDead": most}, "maxDead", int),
            dead_letters=options.get("deadLetters"),
        ).prepare(writers=_read(options, "writers", int, 1), columns=arrow)

    def _scan(self) -> Scan:
        options = self._options(_READ)
        if "schema" not in options:
            raise InvalidValue('Option "schema" is missing: the feature class, as module:Class.')
        return Scan(
            options["url"],
            options["schema"],
            _list(options.get("features")),
            key=_list(options.get("key")),
            segments=_read(options, "segments", int, 1),
            readers=_read(options, "readers", int) if "readers" in options else None,
            rcu_per_second=(
                _read(options, "rcuPerSecond", float) if "rcuPerSecond" in options else None
            ),
            statuses=_read(options, "statuses", _flag, False),
            observed_at=_read(options, "observedAtColumns", _flag, False),
        )


def _namespace(options: Mapping[str, str], columns: pa.Schema) -> Namespace | str:
    """Return the schema of a write: the one that is named, or one of the columns' types."""
    schema, name = options.get("schema"), options.get("namespace")
    if (schema is None) == (name is None):
        raise InvalidValue(
            'Give one of the options "schema", the feature class as module:Class, and "namespace", '
            'with "key", for features of the types of the columns.'
        )
    if schema is not None:
        return schema
    assert name is not None
    times = _list(options.get("observedAt")) or []
    keys = _list(options.get("key")) or []
    return namespace_of(name, columns, keys, leave_out=times, time_zone=options.get("timeZone"))


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _read(
    options: Mapping[str, str], name: str, kind: Callable[[str], Any], default: Any = None
) -> Any:
    try:
        return kind(options[name]) if name in options else default
    except (ValueError, KeyError):
        expected = {int: "a whole number", float: "a number"}.get(kind, "true or false")  # type: ignore[call-overload]
        raise InvalidValue(f"Option {name!r}: expected {expected}.") from None


# --- types ---------------------------------------------------------------------------------


def spark_schema(schema: pa.Schema) -> pa.Schema:
    """Return the Arrow types that Spark has for those of a scan or a lookup.

    Vectors become lists of float or double, because Spark has neither half floats nor lists of a
    fixed size. Raises `InvalidSchema` for a type that Spark does not have, such as a time.
    """
    found = pa.schema([pa.field(each.name, _spark_type(each.type)) for each in schema])
    for each in found:
        try:
            from_arrow_schema(pa.schema([each]))
        except Exception as error:
            raise InvalidSchema(
                f"Column {each.name!r} is {each.type}, a type that Spark does not have. Leave it "
                "out: features."
            ) from error
    return found


def _spark_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(pa.string(), _spark_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _spark_type(each.type)) for each in kind.fields])
    return kind


class _SparkBatches:
    """A lookup as `mapInArrow` takes it."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in self._lookup.batches(batches):
            yield batch.cast(spark_schema(batch.schema))


# --- what runs in the tasks ----------------------------------------------------------------


@dataclass
class _Message(WriterCommitMessage):
    """The counts of a task."""

    written: Written


class _Writer(DataSourceArrowWriter):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WriterCommitMessage:
        context = TaskContext.get()
        partition = None if context is None else context.partitionId()
        return _Message(self._sink.write(iterator, partition=partition))

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Fail the job if too many rows are dead. What is written stays."""
        self._sink.total(each.written for each in messages if isinstance(each, _Message))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Do nothing: rows that are written have their observed-at, and a new run merges them."""


class _StreamWriter(DataSourceStreamArrowWriter):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WriterCommitMessage:
        # Dead letters have random names, because each micro-batch has the same partitions.
        return _Message(self._sink.write(iterator))

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803
        """Fail the query if too many rows of this micro-batch are dead."""
        self._sink.total(each.written for each in messages if isinstance(each, _Message))

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803
        """Do nothing: Spark repeats the micro-batch, which changes nothing that is written."""


class _Partition(InputPartition):
    def __init__(self, part: ScanPart) -> None:
        super().__init__(tuple(part))


class _Reader(DataSourceReader):
    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    def partitions(self) -> list[InputPartition]:
        return [_Partition(part) for part in self._scan.parts()]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        schema = spark_schema(self._scan.arrow_schema)
        for batch in self._scan.read(ScanPart(*partition.value)):
            yield batch.cast(schema)
