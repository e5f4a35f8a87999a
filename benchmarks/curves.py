"""How CPU grows with keys, features and callers: nothing may grow worse than in proportion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.crew import Crewman, cores, crew
from benchmarks.inprocess import calls_of
from benchmarks.server import CannedServer
from benchmarks.workloads import Workload

CLIENTS = ("OnlineStore", "AsyncOnlineStore", "boto3 client")
"""boto3's client and not its resource, as only that one is safe to share between threads."""
KEYS = (1, 10, 100, 1_000, 10_000)
FEATURES = (5, 10, 20, 100, 200, 500, 1_000)
CALLERS = (1, 2, 4, 8, 16, 32, 64)

LINEAR = 1.1
"""The steepest slope that still counts as linear, noise allowed for."""


class Point(NamedTuple):
    """One size on an axis: what is read, and by how many callers at once."""

    axis: str
    size: int
    workload: Workload
    callers: int


def points() -> list[Point]:
    """Every size of every axis; what an axis does not vary is 100 keys, 20 features, 1 caller."""
    return [
        *(Point("keys", n, Workload("read", n, 20), 1) for n in KEYS),
        *(Point("features", n, Workload("read", 100, n), 1) for n in FEATURES),
        *(Point("callers", n, Workload("read", 100, 20), n) for n in CALLERS),
    ]


def run(rounds: int = 3, wanted: Sequence[Point] | None = None) -> list[dict[str, Any]]:
    """CPU a call at every point, by every client."""
    wanted = points() if wanted is None else wanted
    client_core, server_core = cores()
    with (
        CannedServer(core=server_core) as server,
        crew(CLIENTS, server.url, client_core) as workers,
    ):
        for worker in workers:
            for features in {point.workload.features for point in wanted}:
                worker.do("fill", features=features)
        return [_measured(worker, point, rounds) for point in wanted for worker in workers]


def _measured(worker: Crewman, point: Point, rounds: int) -> dict[str, Any]:
    def sample(times: int) -> dict[str, Any]:
        return worker.do("time", workload=point.workload, times=times, at_once=point.callers)

    times = calls_of(sample(point.callers)["cpu_us"], point.callers)
    samples = [sample(times) for _ in range(rounds)]
    return {
        "axis": point.axis,
        "size": point.size,
        "client": worker.client,
        "cpu_us": statistics.median(one["cpu_us"] for one in samples),
        "calls_per_second": 1e6 / statistics.median(one["wall_us"] for one in samples),
    }


def slopes(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Axis, client, and the exponent that CPU grows with at the larger half of the sizes.

    Small sizes are left out: there it is the fixed cost of a call that one would see. For
    callers it is the CPU of one call by each of them.
    """
    for axis in ("keys", "features", "callers"):
        for client in CLIENTS:
            curve = [r for r in results if (r["axis"], r["client"]) == (axis, client)]
            yield axis, client, slope([(r["size"], _total(r)) for r in curve])


def slope(curve: Sequence[tuple[float, float]]) -> float:
    """Of the line through the upper half of the points, on logarithmic axes."""
    upper = curve[(len(curve) - 1) // 2 :]
    sizes, costs = ([math.log(value) for value in values] for values in zip(*upper, strict=True))
    return statistics.linear_regression(sizes, costs).slope


def _total(result: Mapping[str, Any]) -> float:
    callers = result["size"] if result["axis"] == "callers" else 1
    return float(result["cpu_us"] * callers)
