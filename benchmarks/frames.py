"""CPU to encode a row that comes in an Arrow table: by columns, and by dictionaries.

`python -m benchmarks.frames` prints microseconds a row, medians: what happens until the first
byte could be sent, for the row of 20 features that the other benchmarks use as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.registry import Registry
from chalk_online_store.integrations.arrow import namespace_of, rows_of
from chalk_online_store.integrations.frames import batches_of

ROWS = 10_000
ROUNDS = 15
OBSERVED_AT = 1_700_000_000_000_000


def table() -> pa.Table:
    """Rows of 8 floats, 5 ints, 3 short texts, 2 bools, a moment and a vector of 32 fp16."""
    rng = np.random.default_rng(1)
    columns = {"id": pa.array(range(ROWS), pa.int64())}
    columns |= {f"float_{i}": pa.array(rng.normal(size=ROWS)) for i in range(8)}
    columns |= {f"int_{i}": pa.array(rng.integers(0, 10**6, ROWS)) for i in range(5)}
    columns |= {f"text_{i}": pa.array([f"v{n % 97}" for n in range(ROWS)]) for i in range(3)}
    columns |= {f"flag_{i}": pa.array(rng.random(ROWS) < 0.5) for i in range(2)}
    moments = rng.integers(OBSERVED_AT, OBSERVED_AT + 10**14, ROWS)
    columns["seen"] = pa.array(moments).cast(pa.timestamp("us", "UTC"))
    flat = pa.array(rng.normal(size=ROWS * 32).astype("f2"))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, 32)
    return pa.table(columns)


def microseconds(work: Callable[[], object]) -> float:
    """CPU a row."""
    samples = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        work()
        samples.append(time.process_time() - begun)
    return statistics.median(samples[1:]) / ROWS * 1e6


def main() -> None:
    """Print both, and their ratio."""
    found = table()
    namespace = namespace_of("user", found.schema, ["id"])
    empty = Registry()
    registry = Registry(tuple(empty.allocate(empty.missing(namespace), frozenset())))
    codec = NamespaceCodec(namespace, registry, TableLayout())
    times = [OBSERVED_AT] * ROWS

    def by_columns() -> None:
        for batch in batches_of(namespace, found, chunk=ROWS):
            codec.changes_of_rows(batch, times)

    def by_rows() -> None:
        for batch in found.to_batches():
            codec.changes_of_rows(rows_of(batch, ["id"], "id"), times)

    columns, rows = microseconds(by_columns), microseconds(by_rows)
    print(f"by columns {columns:.1f}, by rows {rows:.1f}: {rows / columns:.1f} times")


if __name__ == "__main__":
    main()
