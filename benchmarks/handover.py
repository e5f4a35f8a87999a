"""Handing rows over to a persistence writer: `python -m benchmarks.handover URL CORE`.

A process of its own, on one core; the engine is the canned server on another. Prints a JSON list
of lines with `what`, and whatever was measured.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from benchmarks.clients.base import ACCESS_KEY, SECRET_KEY
from benchmarks.clients.ours import namespace, store_url
from benchmarks.data import OBSERVED_AT
from benchmarks.workloads import Workload
from chalk_online_store import OnlineStore, PersistenceWriter, Ticket, Writing

ROWS = Workload("stream", 20_000).rows
SCHEMA = namespace(Workload("stream", 1).dataset)
SECONDS = 3.0

Line = dict[str, Any]


@contextmanager
def writing(url: str, spooled: bool) -> Iterator[PersistenceWriter]:
    """A writer that has written a row."""
    settings = Writing(ordering="arrival", max_rows=10**6, max_bytes=1 << 32)
    session = boto3.Session(ACCESS_KEY, SECRET_KEY)
    with (
        tempfile.TemporaryDirectory() as directory,
        OnlineStore.open(store_url(url, "handover"), [SCHEMA], session=session) as store,
        PersistenceWriter(
            store, settings, spool=Path(directory) / "spool" if spooled else None
        ) as writer,
    ):
        writer.submit(SCHEMA, ROWS[:1], OBSERVED_AT)
        writer.flush(10)
        yield writer
        writer.flush(60)


def percentiles(took: list[float]) -> Line:
    """Of seconds, in microseconds."""
    ordered = sorted(took)
    shares = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}
    found = {name: ordered[int(len(ordered) * share)] * 1e6 for name, share in shares.items()}
    return {**found, "count": len(ordered)}


def accepted(writer: PersistenceWriter, rate: float) -> Line:
    """`submit` of single rows at a steady rate, while the writer writes them; 0 for no rest."""
    took, began = [], time.perf_counter()
    for number, row in enumerate(ROWS):
        due = began + number / rate if rate else 0.0
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        before = time.perf_counter()
        writer.submit(SCHEMA, [row], OBSERVED_AT)
        took.append(time.perf_counter() - before)
        if rate and before - began > SECONDS:
            break
    return percentiles(took)


def durable_one_by_one(writer: PersistenceWriter, threads: int) -> Line:
    """Rows of threads that each wait until theirs is on disk before the next."""
    took: list[float] = []

    def work() -> None:
        for row in ROWS[: 4000 // threads]:
            before = time.perf_counter()
            writer.submit(SCHEMA, [row], OBSERVED_AT).wait("durable", timeout=10)
            took.append(time.perf_counter() - before)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return {**percentiles(took), "rows_per_second": len(took) / (time.perf_counter() - began)}


def durable_at_once(writer: PersistenceWriter, at_once: int) -> Line:
    """As many rows as can be made durable, so many a submission; CPU of all threads."""
    cpu, began = time.process_time(), time.perf_counter()
    tickets: list[Ticket] = [
        writer.submit(SCHEMA, ROWS[start : start + at_once], OBSERVED_AT)
        for start in range(0, len(ROWS), at_once)
    ]
    for ticket in tickets:
        ticket.wait("durable", timeout=60)
    took = time.perf_counter() - began
    cpu_of_durable = time.process_time() - cpu
    writer.flush(60)
    whole = time.perf_counter() - began
    return {
        "rows_per_second": len(ROWS) / took,
        "cpu_us": cpu_of_durable / len(ROWS) * 1e6,
        "written_per_second": len(ROWS) / whole,
        "written_cpu_us": (time.process_time() - cpu) / len(ROWS) * 1e6,
    }


def run(url: str) -> Iterator[Line]:
    """All of it."""
    with writing(url, spooled=False) as writer:
        for rate in (1000.0, 5000.0, 0.0):
            name = f"accepted, {rate:,.0f} rows/s" if rate else "accepted, no rest between"
            yield {"what": name, **accepted(writer, rate)}
            writer.flush(60)
    with writing(url, spooled=True) as writer:
        for threads in (1, 32):
            name = f"durable, {threads} thread{'s' * (threads > 1)} that wait"
            yield {"what": name, **durable_one_by_one(writer, threads)}
            writer.flush(60)
        for at_once in (10, 100):
            name = f"durable, {at_once} rows a submission"
            yield {"what": name, **durable_at_once(writer, at_once)}


def main(url: str, core: str) -> None:
    if core.isdigit():
        os.sched_setaffinity(0, {int(core)})
    print(json.dumps(list(run(url))))


if __name__ == "__main__":
    main(*sys.argv[1:])
