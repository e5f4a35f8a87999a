"""Vector search: recall against an exact search, CPU per search, and bytes that are billed.

    python -m benchmarks.vector_search [URL ...] [--vectors 100000] [--searches 200]

Without URLs it measures SQLite and dynoxide, which both search exactly: there, recall shows that
nothing is lost on the way. Recall of DynamoDB's index needs the URL of a table of yours, in which
100,000 items are written and left. CPU is that of this process, without the engine's for a URL.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from chalk_online_store import Feature, Namespace, OnlineStore, Vector, VectorIndex
from chalk_online_store.provisioning.schema_indexes import create_vector_indexes
from chalk_online_store.testing import Dynoxide, create_table

vector: Any = Vector
SIZE = 128
K = 10
DOCUMENT = Namespace(
    "document",
    int,
    [
        Feature("title", str),
        Feature("at", vector[SIZE, "f4"], index=VectorIndex(project=["title"])),
    ],
)
_CHUNK = 2000


def make_vectors(count: int, seed: int = 7) -> Any:
    """Unit vectors around some centres: neighbours of random ones are hardly nearer than others."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, count // 100), SIZE))
    found = centres[rng.integers(len(centres), size=count)] + rng.normal(size=(count, SIZE)) * 0.5
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("f4")


def exact(vectors: Any, queries: Any) -> list[set[int]]:
    """The keys of the nearest vectors of each query."""
    products = queries.astype("f8") @ vectors.astype("f8").T
    return [set(np.argpartition(-row, K)[:K].tolist()) for row in products]


def load(store: OnlineStore, vectors: Any) -> float:
    """Write all vectors; seconds."""
    began = time.perf_counter()
    for start in range(0, len(vectors), _CHUNK):
        some = vectors[start : start + _CHUNK]
        rows = [{"id": start + i, "title": f"t{i}", "at": at} for i, at in enumerate(some)]
        store.write(DOCUMENT, rows, ordering="arrival", timeout=600)
    return time.perf_counter() - began


def measure(name: str, url: str, vectors: Any, queries: Any, searches: int) -> str:
    """A line of the table for one store."""
    wanted = exact(vectors, queries)
    with OnlineStore.open(url, [DOCUMENT], timeout=600) as store:
        seconds = load(store, vectors)
        lines = []
        for features in (["title"], ["title", "at"]):
            found, took, cpu, billed = 0, [], 0.0, 0.0
            for query, keys in zip(queries[:searches], wanted, strict=False):
                began, worked = time.perf_counter(), time.process_time()
                rows = store.search(
                    DOCUMENT, "at", query, k=K, features=features, max_scanned=len(vectors)
                )
                took.append(time.perf_counter() - began)
                cpu += time.process_time() - worked
                billed += rows.report.search_bytes
                found += len(keys & {row.key for row in rows})
            count = len(took)
            lines.append(
                f"| {name} | {', '.join(features)} | {found / (K * count):.3f} "
                f"| {np.median(took) * 1000:.1f} | {cpu / count * 1000:.2f} "
                f"| {billed / count:,.0f} | {len(vectors) / seconds:,.0f} |"
            )
    return "\n".join(lines)


@contextmanager
def stores() -> Iterator[list[tuple[str, str, int]]]:
    """Name, URL and share of the searches of the engines that need nothing."""
    with tempfile.TemporaryDirectory() as directory, Dynoxide() as engine:
        create_table(engine.endpoint_url, "vectors-bench", schema=[DOCUMENT])
        url = f"{engine.url('vectors-bench')}&read_timeout=120"
        yield [("SQLite", f"sqlite:///{directory}/f.db", 20), ("dynoxide", url, 1)]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="*")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=200)
    given = parser.parse_args()
    vectors, queries = make_vectors(given.vectors), make_vectors(given.searches, seed=8)
    print(f"{given.vectors:,} vectors of {SIZE} float32, k={K}, {os.cpu_count()} cores\n")
    print("| store | features | recall | ms per search | CPU ms | bytes billed | writes per s |")
    print("|---|---|--:|--:|--:|--:|--:|")
    if given.urls:
        for url in given.urls:
            create_vector_indexes(url, [DOCUMENT])
            print(measure("DynamoDB", url, vectors, queries, given.searches), flush=True)
        return
    with stores() as found:
        for name, url, fewer in found:
            searches = max(1, given.searches // fewer)
            print(measure(name, url, vectors, queries, searches), flush=True)


if __name__ == "__main__":
    main()
