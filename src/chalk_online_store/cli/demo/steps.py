"""What every part of the demo works with: the engine, the data, and the account of it all."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from rich.console import Console
from rich.progress import Progress

from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.backend import Backend, Call, fan_out
from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.demo.account import Account, Phase, as_json
from chalk_online_store.cli.demo.data import (
    FINAL,
    LATE,
    LOADED,
    SCHEMA,
    Aircraft,
    Row,
    Tables,
    Truth,
    Workload,
    key_name,
    plan,
    read_tables,
)
from chalk_online_store.codec.changes import Attributes
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.connect import connect
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.errors import InvalidURL, OnlineStoreError
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.operations.rows import Rows
from chalk_online_store.operations.write import Ordering
from chalk_online_store.schema import LRUCache, Namespace, namespace_of
from chalk_online_store.store import OnlineStore
from chalk_online_store.urls import SqliteTarget, parse_url
from chalk_online_store.valkey.urls import ValkeyTarget

if TYPE_CHECKING:
    import boto3


# --- Where the demo runs: a temporary engine, or a store that the user names ---------------


@dataclass(frozen=True)
class Place:
    """An engine that is ready: what to call it, and how to open a store there.

    From one that is not `temporary`, the demo's rows have to be deleted again.
    """

    title: str
    url: str
    temporary: bool = False
    session: boto3.Session | None = None

    @property
    def counts_capacity(self) -> bool:
        """Whether it has read and write capacity units at all."""
        return not isinstance(parse_url(self.url), SqliteTarget)


@contextmanager
def open_engine(name: str) -> Iterator[Place]:
    """Have an engine ready: "sqlite", "dynoxide", or a store URL; gone on leaving."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="chalk-online-store-") as folder:
            yield Place("SQLite, in a temporary file", f"sqlite:///{folder}/demo.db", True)
    elif name == "dynoxide":
        yield from _dynoxide()
    else:
        yield Place(_title(name), name)


def _dynoxide() -> Iterator[Place]:
    from chalk_online_store.testing import Dynoxide, create_table

    with Dynoxide() as engine:
        create_table(engine.endpoint_url, "chalk-demo")
        yield Place("dynoxide, in memory", engine.url("chalk-demo"), True, engine.session())


def _title(url: str) -> str:
    if "://" not in url:
        raise InvalidURL("--engine takes sqlite, dynoxide, or a store URL.")
    target = parse_url(url)
    if isinstance(target, ValkeyTarget):
        return f"the Valkey database {target.name}"
    if not isinstance(target, SqliteTarget):
        return f"the DynamoDB table {target.table}"
    if not target.path:
        raise InvalidURL("sqlite:// in memory ends with its first store; use --engine sqlite.")
    return f"SQLite, {target.path}"


T = TypeVar("T")

Keys: TypeAlias = tuple[type, list[Any]]
"""A namespace and some keys of it."""


@dataclass
class Stage:
    """One run on one engine."""

    place: Place
    workloads: Sequence[Workload]
    account: Account
    progress: Progress
    written: dict[type, dict[Any, None]] = field(default_factory=dict)
    """The keys that may have been written: none twice, in order."""

    def note_written(self, schema: type, rows: Iterable[Row]) -> None:
        """Remember which rows are to be deleted in the end, before they are written."""
        name = key_name(schema)
        self.written.setdefault(schema, {}).update((row[name], None) for row in rows)

    @cached_property
    def truth(self) -> dict[type, dict[Any, dict[str, Truth]]]:
        """What every feature has to be in the end."""
        return {workload.schema: workload.truth() for workload in self.workloads}

    def open(self, lru_cache: LRUCache | None = None) -> OnlineStore:
        """Another store on the engine."""
        place = self.place
        return OnlineStore.open(place.url, SCHEMA, session=place.session, lru_cache=lru_cache)

    def open_async(self) -> AsyncOnlineStore:
        """Another store on the engine, for asyncio."""
        return AsyncOnlineStore.open(self.place.url, SCHEMA, session=self.place.session)

    def phase(self, title: str, calls: Sequence[T]) -> tuple[Phase, Iterable[T]]:
        """Begin a phase of these calls: its account, and the calls under a progress bar."""
        phase = self.account.phase(title)
        return phase, self.progress.track(calls, description=title)

    def batches(self, size: int) -> list[Keys]:
        """The keys of every entity, so many at a time."""
        return [
            (schema, keys) for schema, truth in self.truth.items() for keys in chunks(truth, size)
        ]

    def check(self, schema: type, rows: Rows) -> None:
        """Hold rows to their source."""
        self.account.verdict.check(rows, self.truth[schema])


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values, so many at a time."""
    rest = list(values)
    while rest:
        yield rest[:size]
        rest = rest[size:]


# --- The reading parts of the demo: from threads, on asyncio, through the cache ------------


_KEYS_PER_READ = 100
_ROUNDS = 3
READERS = 16
"""Async reads under way at once."""

_HOT_READS = 200


def read_all(stage: Stage, store: OnlineStore) -> None:
    """Read every entity, some rounds, one call after the other."""
    phase, calls = stage.phase(f"read {_KEYS_PER_READ}", stage.batches(_KEYS_PER_READ) * _ROUNDS)
    for schema, keys in calls:
        stage.check(schema, _read(phase, store, schema, keys))


def read_concurrently(stage: Stage) -> None:
    """Read every entity, some rounds, many calls at once; check when all are there."""
    batches = stage.batches(_KEYS_PER_READ) * _ROUNDS
    phase, calls = stage.phase(f"read {_KEYS_PER_READ}, async", batches)
    for schema, rows in asyncio.run(_gather(stage, phase, calls)):
        stage.check(schema, rows)


def read_hot(stage: Stage) -> None:
    """Read the busiest aircraft again and again, through the cache."""
    busiest = sorted(stage.workloads[0].loaded, key=lambda row: int(row["flights"]))
    keys = [row["tailnum"] for row in busiest[-_KEYS_PER_READ:]]
    phase, calls = stage.phase(f"read {_KEYS_PER_READ}, cached", [keys] * _HOT_READS)
    with stage.open(LRUCache(max_size=_KEYS_PER_READ)) as store:
        for hot in calls:
            stage.check(Aircraft, _read(phase, store, Aircraft, hot))
    stage.account.hot_items = len(keys) * _HOT_READS
    stage.account.cache_hits = phase.report.cache_hits


def _read(phase: Phase, store: OnlineStore, schema: type, keys: list[Any]) -> Rows:
    """One timed call: the time includes taking out every value."""
    with phase.call(len(keys)):
        rows: Rows = store.read(schema, keys)
        rows.to_dict()
    phase.report.add(rows.report)
    return rows


async def _gather(stage: Stage, phase: Phase, calls: Iterable[Keys]) -> list[tuple[type, Rows]]:
    found: list[tuple[type, Rows]] = []
    waiting = iter(calls)  # Shared: each reader takes the next call when it has done one.
    start = time.perf_counter()
    try:
        async with stage.open_async() as store, asyncio.TaskGroup() as readers:
            for _ in range(READERS):
                readers.create_task(_work(phase, store, waiting, found))
    except ExceptionGroup as failures:  # The first says it all.
        raise failures.exceptions[0] from None
    phase.elapsed = time.perf_counter() - start
    return found


async def _work(
    phase: Phase,
    store: AsyncOnlineStore,
    calls: Iterable[Keys],
    found: list[tuple[type, Rows]],
) -> None:
    for schema, keys in calls:
        with phase.call(len(keys)):
            rows: Rows = await store.read(schema, keys)
            rows.to_dict()
        phase.report.add(rows.report)
        found.append((schema, rows))


# --- The writing part of the demo, and the deleting of what it wrote -----------------------


_ROWS_PER_WRITE = 25
_DELETED_AT_ONCE = 100

Work = Sequence[tuple[Workload, list[Row]]]


def write_all(stage: Stage, store: OnlineStore) -> None:
    """Load in bulk, update in event time, and then write what comes too late."""
    workloads = stage.workloads
    _write(stage, store, "bulk load", [(w, w.loaded) for w in workloads], LOADED, "arrival")
    _write(stage, store, "update", [(w, w.updates) for w in workloads], FINAL, "event")
    late = _write(stage, store, "late update", [(w, w.late) for w in workloads], LATE, "event")
    stage.account.late_items = sum(workload.late_items() for workload in workloads)
    stage.account.superseded = late.report.superseded


def _write(
    stage: Stage, store: OnlineStore, kind: str, work: Work, moment: datetime, ordering: Ordering
) -> Phase:
    calls = [(w.schema, rows) for w, all_rows in work for rows in chunks(all_rows, _ROWS_PER_WRITE)]
    phase, calls_made = stage.phase(f"{kind} {_ROWS_PER_WRITE}", calls)
    for schema, rows in calls_made:
        stage.note_written(schema, rows)
        with phase.call(len(rows)):
            report = store.write(schema, rows, observed_at=moment, ordering=ordering)
        phase.report.add(report)
    return phase


@contextmanager
def removing(stage: Stage, store: OnlineStore) -> Iterator[None]:
    """Delete the demo's rows on leaving, however it ends, unless the engine goes anyway."""
    try:
        yield
    except BaseException:
        try:
            _remove(stage, store)
        except OnlineStoreError as error:  # What happened first counts more.
            left = f"Rows of the demo are left in the table: {error}"
            stage.progress.console.print(left)
        raise
    _remove(stage, store)


def _remove(stage: Stage, store: OnlineStore) -> None:
    if stage.place.temporary:
        return
    calls: list[Keys] = [
        (schema, keys)
        for schema, written in stage.written.items()
        for keys in chunks(written, _DELETED_AT_ONCE)
    ]
    phase, calls_made = stage.phase(f"delete {_DELETED_AT_ONCE}", calls)
    for schema, keys in calls_made:
        with phase.call(len(keys)):
            report = store.delete(schema, keys, ordering="arrival")
        phase.report.add(report)


# --- Weighs what the demo has written: reads every item as it is stored --------------------


_ENTITIES = 100
_CONCURRENT_READS = 16
_SECONDS = 30.0


def weigh_all(stage: Stage) -> None:
    """Account for the size of every item, and of the same rows as JSON."""
    backend, transports, _ = connect(stage.place.url, stage.place.session)
    phase, calls = stage.phase(f"query {_ENTITIES}", stage.batches(_ENTITIES))
    keeper = RegistryKeeper(backend)
    with closing(SyncDriver(transports)) as driver:
        for schema, keys in calls:
            namespace, call = namespace_of(schema), Call(time.monotonic() + _SECONDS)
            with phase.call(len(keys)):
                items = driver.run(_items(backend, keeper, namespace, keys, call))
            phase.report.add(call.report)
            texts = [as_json(namespace, stage.truth[schema][key]) for key in keys]
            stage.account.sizes[schema].add(items, texts)


def _items(
    backend: Backend, keeper: RegistryKeeper, namespace: Namespace, keys: Sequence[Any], call: Call
) -> Operation[list[Attributes]]:
    """Every item of these entities, of whatever group."""
    codec: NamespaceCodec = yield from keeper.for_read(namespace, call)
    reads = [partial(backend.list_partition, pk, "") for pk in codec.partition_keys(keys)]
    found = yield from fan_out(call, reads, _CONCURRENT_READS)
    return [item for items in found for item in items]


# --- Does the demo, from having an engine to having left nothing behind --------------------


def run_demo(engine: str, entities: int | None, console: Console) -> Account:
    """Run it all on this engine; what was wrong is in the account.

    `entities` is how many aircraft, and how many routes, there are at most.
    """
    start = time.perf_counter()
    with open_engine(engine) as place:
        with console.status("Computing the features of real flights"):
            tables = read_tables()
            workloads = plan(tables, entities)
        account = _account_of(place, tables)
        with bars(console=console) as progress:
            _perform(Stage(place, workloads, account, progress))
    account.seconds = time.perf_counter() - start
    return account


def _account_of(place: Place, tables: Tables) -> Account:
    return Account(place.title, place.temporary, place.counts_capacity, len(tables.flights))


def _perform(stage: Stage) -> None:
    with stage.open() as store:
        store.read(Aircraft, [])  # Tells at once if there is no such table.
        with removing(stage, store):
            write_all(stage, store)
            read_all(stage, store)
            read_concurrently(stage)
            read_hot(stage)
            weigh_all(stage)
