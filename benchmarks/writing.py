"""Streams of rows into a table: what each client takes a row, and a row to be handed over."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.clients import WRITERS
from benchmarks.cpu import quartiles, versions
from benchmarks.crew import Crewman, cores, crew
from benchmarks.e2e import engine, tables
from benchmarks.server import ROOT, CannedServer
from benchmarks.workloads import STREAM

Line = dict[str, Any]
OURS = "PersistenceWriter"


def run(rounds: int, seed: int) -> tuple[list[Line], dict[str, str]]:
    """Lines of `engine` and `client` for streams, and of `what` for handing over; versions."""
    client_core, server_core = cores()
    found: list[Line] = []
    with CannedServer(core=server_core) as server:
        with crew(WRITERS, server.url, client_core) as workers:
            found += streams(workers, "canned server", rounds, seed)
            ran = versions(workers)
        found += handovers(server.url, client_core)
    with (
        engine(None, server_core) as url,
        crew(WRITERS, url, client_core) as workers,
        tables(workers, url),
    ):
        found += streams(workers, "dynoxide", max(3, rounds // 2), seed)
    return found, ran


def streams(workers: Sequence[Crewman], engine: str, rounds: int, seed: int) -> list[Line]:
    """Each client writes the stream once a round, in an order that is another one in each."""
    rng = random.Random(seed)
    samples: dict[str, list[Line]] = {worker.client: [] for worker in workers}
    for number in range(rounds + 1):
        for worker in rng.sample(workers, len(workers)):
            sample = worker.do("time", workload=STREAM, times=1, at_once=1)
            if number:  # The first is to warm up.
                samples[worker.client].append(sample)
    return [_line(engine, client, found, samples[OURS]) for client, found in samples.items()]


def _line(engine: str, client: str, found: Sequence[Line], ours: Sequence[Line]) -> Line:
    rows = STREAM.entities
    cpu = [sample["cpu_us"] / rows for sample in found]
    low, median, high = quartiles(cpu, [sample["cpu_us"] / rows for sample in ours])
    return {
        "engine": engine,
        "client": client,
        "cpu_us": statistics.median(cpu),
        "rows_per_second": rows * 1e6 / statistics.median(sample["wall_us"] for sample in found),
        "ratio_to_ours": median,
        "quartiles": [low, high],
    }


def handovers(url: str, core: int | None) -> list[Line]:
    """See `benchmarks.handover`."""
    command = [sys.executable, "-m", "benchmarks.handover", url, str(core)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[Line] = json.loads(done.stdout)
    return found
