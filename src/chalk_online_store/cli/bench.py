"""The command `bench`."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import numpy as np
import typer
from numpy.typing import NDArray

from chalk_online_store.cli import require
from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import (
    Features,
    Json,
    OneSchema,
    Url,
    Yes,
    confirm,
    namespace_called,
)
from chalk_online_store.cli.plots import check_format, plot_latencies
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.dynamodb.credentials import is_local
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import OnlineStoreError, RequestRefused, WriteFailed
from chalk_online_store.operations.rows import Status
from chalk_online_store.planning.items import typical_rows
from chalk_online_store.planning.traffic import zipf
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace
from chalk_online_store.store import OnlineStore
from chalk_online_store.urls import SqliteTarget, parse_url
from chalk_online_store.valkey.urls import ValkeyTarget

# --- What a number of calls came to: latencies, rates, CPU and capacity units --------------


Seconds: TypeAlias = NDArray[np.float64]

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Calls of one kind, "read" or "write".

    `latencies` has the seconds of each call. `elapsed` are those of all, which were several at
    once; `cpu` the seconds that the process computed meanwhile. `report` adds up what the calls
    reported.
    """

    what: str
    latencies: Seconds
    elapsed: float
    cpu: float
    report: Report

    @property
    def queries(self) -> int:
        """How many calls there were."""
        return len(self.latencies)

    def percentile(self, percent: float) -> float:
        """The least latency, in seconds, that so many per cent of the calls kept within."""
        return float(np.percentile(self.latencies, percent, method="inverted_cdf"))

    @property
    def queries_per_second(self) -> float:
        """Calls a second."""
        return self.queries / self.elapsed

    @property
    def cpu_per_query(self) -> float:
        """Seconds of CPU a call, by all threads of this process."""
        return self.cpu / self.queries

    def plain(self) -> dict[str, Any]:
        """As JSON has it: milliseconds of latency, microseconds of CPU, capacity units of all."""
        report = self.report
        return {
            "what": self.what,
            "queries": self.queries,
            **{f"p{percent}_ms": 1e3 * self.percentile(percent) for percent in PERCENTILES},
            "max_ms": 1e3 * float(self.latencies.max()),
            "queries_per_second": self.queries_per_second,
            "cpu_us_per_query": 1e6 * self.cpu_per_query,
            "requests": report.requests,
            "rcu": report.rcu,
            "wcu": report.wcu,
            "cache_hits": report.cache_hits,
            "shared_hits": report.shared_hits,
            "bloom_skips": report.bloom_skips,
            "retries": report.retries,
            "throttles": report.throttles,
            "failed": report.failed,
        }


# --- Making calls from several threads, and timing each ------------------------------------


Call = Callable[[int], Report]
"""Makes the call of a number, and tells what it took."""

Tell = Callable[[int], None]
"""Hears how many calls are done."""

_LOOK_EVERY = 0.1


@dataclass(slots=True)
class _Share:
    """What one thread did."""

    latencies: list[float] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    def work(self, call: Call, numbers: Iterable[int], stop: threading.Event) -> None:
        for number in numbers:
            if stop.is_set():
                return
            start = time.perf_counter()
            report = call(number)
            self.latencies.append(time.perf_counter() - start)
            self.report.add(report)


def measure(what: str, call: Call, count: int, concurrency: int, tell: Tell) -> Measured:
    """Make calls 0 to `count` - 1 from so many threads, each one after the other.

    Raises what a call raises, once the calls that are under way have ended.
    """
    shares = [_Share() for _ in range(min(concurrency, count))]
    stop = threading.Event()
    cpu, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        try:
            futures = [
                pool.submit(share.work, call, range(first, count, len(shares)), stop)
                for first, share in enumerate(shares)
            ]
            while wait(futures, _LOOK_EVERY, FIRST_EXCEPTION).not_done:
                tell(sum(len(share.latencies) for share in shares))
                if any(future.done() and future.exception() for future in futures):
                    break
        finally:  # Also on Ctrl-C.
            stop.set()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    for future in futures:
        future.result()
    report = Report()
    for share in shares:
        report.add(share.report)
    latencies = np.concatenate([share.latencies for share in shares])
    return Measured(what, latencies, elapsed, cpu, report)


# --- The benchmark itself: on rows of its own, which are not there before and not afterwa ---


_AT_ONCE = 100
_WARM_UP = 10
"""One call in so many is made before anything is measured."""

Phase = Callable[[str, int], Tell]
"""Hears what begins, and of how many calls; what it gives hears how many are done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: `queries` calls of `batch` entities each, drawn by Zipf's law.

    All features, unless `features` names some.
    """

    namespace: Namespace
    features: Sequence[str] | None
    entities: int
    queries: int
    batch: int
    concurrency: int
    exponent: float
    write: bool


def run(store: OnlineStore, plan: Plan, phase: Phase) -> list[Measured]:
    """Measure reads, and writes where they are wanted.

    Raises what the first call that failed as a whole did, and `RequestRefused` where a row of
    its keys exists already.
    """
    store.prepare(plan.namespace, plan.features)
    with _own_rows(store, plan) as rows:
        store.warm(plan.concurrency)
        found = [_measured(plan, "read", _reads(store, plan, rows), phase)]
        if plan.write:
            found.append(_measured(plan, "write", _writes(store, plan, rows), phase))
        return found


def _measured(plan: Plan, what: str, call: Call, phase: Phase) -> Measured:
    warm_up = max(plan.concurrency, plan.queries // _WARM_UP)
    measure("warm-up", call, warm_up, plan.concurrency, phase("warm-up", warm_up))
    tell = phase(what, plan.queries)
    return measure(what, call, plan.queries, plan.concurrency, tell)


def _reads(store: OnlineStore, plan: Plan, rows: Sequence[dict[str, Any]]) -> Call:
    prepared = store.prepare(plan.namespace, plan.features)
    keys = [row[plan.namespace.key_name] for row in rows]
    drawn = _drawn(plan)
    return lambda number: prepared.read([keys[place] for place in drawn[number]]).report


def _writes(store: OnlineStore, plan: Plan, rows: Sequence[dict[str, Any]]) -> Call:
    """Each writes the values of other entities, so that they change."""
    name = plan.namespace.key_name
    wanted = plan.features or [feature.name for feature in plan.namespace.features]
    drawn = _drawn(plan)

    def call(number: int) -> Report:
        batch = []
        for place in dict.fromkeys(drawn[number]):
            other = rows[(place + number + 1) % len(rows)]
            batch.append({name: rows[place][name], **{each: other[each] for each in wanted}})
        try:
            return store.write(plan.namespace, batch)
        except WriteFailed as error:
            return Report(failed=len(error.failed))

    return call


def _drawn(plan: Plan) -> Sequence[Sequence[int]]:
    """The places of the entities of each call."""
    calls = max(plan.queries, plan.concurrency)
    places = zipf(calls * plan.batch, plan.entities, plan.exponent).entities
    return places.reshape(calls, plan.batch).tolist()


# --- rows of its own -----------------------------------------------------------------------


def own_keys(namespace: Namespace, count: int, token: int) -> list[Any]:
    """Keys that nobody else has; `token` has 62 bits and tells one run from another."""

    def part(kind: type, number: int) -> Any:
        if kind is int:
            return token + number
        return UUID(int=(token << 64) + number) if kind is UUID else f"bench-{token:x}-{number}"

    keys = (tuple(part(kind, each) for kind in namespace.key.parts) for each in range(count))
    return [key if namespace.key.composite else key[0] for key in keys]


@contextmanager
def _own_rows(store: OnlineStore, plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """Rows that are made up and written; they are deleted on leaving, however it ends."""
    namespace = plan.namespace
    keys = own_keys(namespace, plan.entities, (1 << 61) + secrets.randbits(60))
    _refuse_existing(store, namespace, keys)
    made = typical_rows(namespace, plan.entities)
    rows = [{**row, namespace.key_name: key} for row, key in zip(made, keys, strict=True)]
    try:
        for some in _chunks(rows):
            store.write(namespace, some)
        yield rows
    finally:
        _remove(store, namespace, keys)


def _refuse_existing(store: OnlineStore, namespace: Namespace, keys: Sequence[Any]) -> None:
    for some in _chunks(keys):
        rows = store.read(namespace, some, consistent=True)
        for row, name in product(rows, rows.features):
            if row.status(name) is Status.FAILED:
                row[name]  # Raises what failed.
            if row.status(name) is not Status.MISSING:
                raise RequestRefused("A row under the benchmark's own keys exists: run it again.")


def _remove(store: OnlineStore, namespace: Namespace, keys: Sequence[Any]) -> None:
    try:
        for some in _chunks(keys):
            store.delete(namespace, some, ordering="arrival")  # Leaves no tombstones.
    except OnlineStoreError as error:
        left = f"Rows of the benchmark are left, {keys[0]!r} to {keys[-1]!r}: {error}"
        say(left, err=True)
        raise


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), _AT_ONCE):
        yield values[first : first + _AT_ONCE]


def bench(
    url: Url,
    schema: OneSchema,
    entities: Annotated[
        int, typer.Option(min=1, help="Number of entities to generate and write.")
    ] = 100,
    feature: Features = None,
    queries: Annotated[int, typer.Option(min=1, help="Number of calls to measure.")] = 500,
    batch: Annotated[int, typer.Option(min=1, help="Number of entities per call.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Number of threads.")] = 8,
    exponent: Annotated[
        float,
        typer.Option("--zipf", min=0, help="Exponent of the Zipf distribution of keys."),
    ] = 1.0,
    write: Annotated[bool, typer.Option("--write", help="Measure writes too.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="File for a chart of the latencies (.png or .svg).")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Measure latency, rate, CPU and capacity units of reads and writes.

    Generates rows of the schema under separate keys and deletes them at the end. No other row is
    changed. The registry keeps the names of the features, and a Bloom filter keeps the keys until
    it is rebuilt. Asks first if the store is not on this machine.

    Exits with status 1 if a row could not be read or written.

    Example: chalk-online-store bench --schema app:User --url sqlite:///features.db --write
    """
    if plot is not None:
        require("plots", "matplotlib")
        check_format(plot)
    namespace = namespace_called(schema)
    plan = Plan(namespace, feature, entities, queries, batch, concurrency, exponent, write)
    confirm(_question(plan), yes or on_this_machine(url))
    with terminated_as_interrupted(), OnlineStore.open(url, [namespace]) as store, _bars() as phase:
        found = run(store, plan, phase)
    if as_json:
        print_json(_plain(plan, found))
    else:
        _print(found)
    if plot is not None:
        plot_latencies({each.what: each.latencies for each in found}, plot)
        say(f"Drawn: {plot}", err=True)
    if any(each.report.failed for each in found):
        raise typer.Exit(1)


def on_this_machine(url: str) -> bool:
    """Whether a URL names an engine that costs nobody anything. Raises `InvalidURL`."""
    match parse_url(url):
        case SqliteTarget():
            return True
        case ValkeyTarget(nodes=nodes):  # A Unix socket has none.
            return all(is_local(f"//{host}") for host, _ in nodes)
        case DynamoDBTarget(endpoint_urls=urls):
            return bool(urls) and all(map(is_local, urls))


def _question(plan: Plan) -> str:
    calls = f"{plan.queries:,} {'reads and as many writes' if plan.write else 'reads'}"
    return (
        f"Write {plan.entities:,} entities of {plan.namespace.name}, make {calls} of {plan.batch:,}"
        ", and delete the entities?"
    )


@contextmanager
def _bars() -> Iterator[Phase]:
    """A progress bar for each phase, on a terminal."""
    with bars() as progress:

        def phase(what: str, calls: int) -> Tell:
            task = progress.add_task(what, total=calls)
            return lambda done: progress.update(task, completed=done)

        yield phase


def _plain(plan: Plan, found: Sequence[Measured]) -> dict[str, object]:
    return {
        "namespace": plan.namespace.name,
        "features": plan.features,
        "entities": plan.entities,
        "batch": plan.batch,
        "concurrency": plan.concurrency,
        "zipf": plan.exponent,
        "measured": [each.plain() for each in found],
    }


def _print(found: Sequence[Measured]) -> None:
    columns = [each.plain() for each in found]
    names = [name for name in columns[0] if name != "what"]
    rows = [
        [name.replace("_", " "), *(_figure(name, column[name]) for column in columns)]
        for name in names
    ]
    print_table(["measured", *(each.what for each in found)], rows, numbers=True)


def _figure(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return f"{value:,.3f}"
    return f"{value:,.1f}" if value < 100 and value % 1 else f"{value:,.0f}"
