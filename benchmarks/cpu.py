"""Client CPU of each workload by each client, in interleaved rounds against the canned server."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.clients import OURS, PLACES
from benchmarks.crew import Crewman, cores, crew
from benchmarks.inprocess import calls_of
from benchmarks.server import CannedServer
from benchmarks.workloads import WORKLOADS, Workload

LEAST_CALLS = 4
"""Also of the slowest clients, so that one long garbage collection does not make a sample."""


@dataclass
class Contender:
    """One client at one workload, and its samples round by round."""

    worker: Crewman
    workload: Workload
    times: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def sample(self, times: int) -> dict[str, Any]:
        """Have the workload done so many times."""
        at_once = self.worker.at_once
        return self.worker.do("time", workload=self.workload, times=times, at_once=at_once)

    def warm_up(self) -> bool:
        """Find how many calls make a sample; False where the client has no such."""
        at_once = self.worker.at_once
        if self.worker.reads_only and self.workload.action in ("write", "update"):
            return False
        if not self.sample(at_once)["can"]:
            return False
        least = math.ceil(LEAST_CALLS / at_once)
        self.times = calls_of(self.sample(at_once)["cpu_us"], at_once, least)
        return True

    def each(self, what: str) -> list[float]:
        """One measure, round by round."""
        return [sample[what] for sample in self.samples]


def run(
    clients: Iterable[str] = PLACES,
    workloads: Sequence[Workload] = WORKLOADS,
    rounds: int = 15,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Check every client, then measure them all: results, and the versions of what ran.

    `clients` must have those of `OURS` among them. Raises `WorkerFailed` where a client reads
    something else than it wrote.
    """
    client_core, server_core = cores()
    with (
        CannedServer(core=server_core) as server,
        crew(clients, server.url, client_core) as workers,
    ):
        for worker in workers:
            prepare(worker, server, workloads)
        possible = (Contender(w, workload) for workload in workloads for w in workers)
        contenders = [contender for contender in possible if contender.warm_up()]
        measure(contenders, rounds, seed)
        return list(results(contenders)), versions(workers)


def versions(workers: Iterable[Crewman]) -> dict[str, str]:
    """What ran: of a package that two environments have in other versions, both."""
    found: dict[str, set[str]] = defaultdict(set)
    for worker in workers:
        for package, version in worker.versions.items():
            found[package].add(version)
    return {package: " and ".join(sorted(some)) for package, some in found.items()}


def prepare(worker: Crewman, server: CannedServer, workloads: Sequence[Workload]) -> None:
    """Fill the client's tables by its own writes, and check that its reads give the rows."""
    for features in {workload.features for workload in workloads}:
        reads = [w for w in workloads if w.features == features and w.action in ("read", "cached")]
        if any(w.action == "update" and w.features == features for w in workloads):
            server.forget(worker.table(features))
            if worker.do("fill", features=features, action="update")["can"]:
                _check(worker, reads[:1])
        server.forget(worker.table(features))
        worker.do("fill", features=features)
        _check(worker, reads)


def _check(worker: Crewman, reads: Sequence[Workload]) -> None:
    for read in reads:
        worker.do("check", workload=read)


def measure(contenders: Sequence[Contender], rounds: int, seed: int) -> None:
    """Sample every contender once a round, in an order that is another one in each."""
    rng = random.Random(seed)
    for _ in range(rounds):
        for contender in rng.sample(contenders, len(contenders)):
            contender.samples.append(contender.sample(contender.times))


def results(contenders: Sequence[Contender]) -> Iterable[dict[str, Any]]:
    """A line for each contender, with ratios to ours that has as many calls under way."""
    by_name = {(c.workload, c.worker.client): c.each("cpu_us") for c in contenders}
    for contender in contenders:
        ours = OURS[contender.worker.tasks]
        cpu_us = contender.each("cpu_us")
        low, median, high = quartiles(cpu_us, by_name[contender.workload, ours])
        yield {
            "workload": contender.workload.title,
            "client": contender.worker.client,
            "at_once": contender.worker.at_once,
            "cpu_us": statistics.median(cpu_us),
            "calls_per_second": 1e6 / statistics.median(contender.each("wall_us")),
            "rss_mb": max(contender.each("rss_mb")),
            "compared_to": ours,
            "ratio_to_ours": median,
            "quartiles": [low, high],
        }


def quartiles(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Quartile, median, quartile of the ratios of two clients' times in the same round."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return ratios * 3 if len(ratios) == 1 else statistics.quantiles(ratios, method="inclusive")
