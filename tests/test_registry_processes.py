"""The registry under many processes at once: real ones, on one engine."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import uuid
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalk_online_store import Feature, Namespace
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import Attributes, key_of
from chalk_online_store.codec.layout import ItemKey, TableLayout, free_ids
from chalk_online_store.codec.registry import PARTITION, Registry, home_mark
from chalk_online_store.connect import connect
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.testing import Dynoxide, create_table
from tests.helpers import stress

LAYOUT = TableLayout()
PROCESSES = min(50, stress(16))
FEATURES = 2_000
"""Features of each process's schema."""
NAMES = 2_500
"""Features of all schemas together."""
WITHIN = 600.0
"""Seconds that a process may take at most."""


def schema_of(number: int) -> Namespace:
    """2,000 of the 2,500 features; which, and in which order, differs between processes."""
    start = number * 97 % NAMES
    names = (f"f{(start + place) % NAMES}" for place in range(FEATURES))
    return Namespace("user", int, [Feature(name, int) for name in names])


def run(url: str, operation: Callable[[Any, Call], Operation[Any]]) -> Any:
    """The result of `operation(backend, call)`."""
    local = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local")
    backend, transports, _ = connect(url, local)
    driver = SyncDriver(transports)
    try:
        return driver.run(operation(backend, Call(read_clocks().monotonic + WITHIN)))
    finally:
        driver.close()


def digest(registry: Registry, namespace: Namespace) -> str:
    """Of the ids that a registry has for the features of a schema."""
    names = sorted(namespace.full_name(feature) for feature in namespace.features)
    pairs = "".join(f"{name}={registry.by_name[name].id}\n" for name in names)
    return hashlib.sha256(pairs.encode()).hexdigest()


def work(url: str, number: int, start: Connection, answer: Connection) -> None:
    """What each process does once all are ready: register a schema as a first write would."""
    schema = schema_of(number)
    answer.send("ready")
    start.recv()
    codec = run(url, lambda backend, call: RegistryKeeper(backend).for_write(schema, call))
    answer.send(digest(codec.registry, schema))


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty table, on an engine of its own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/features.db"
        return
    with Dynoxide() as engine:
        table = f"processes-{uuid.uuid4().hex}"
        create_table(engine.endpoint_url, table)
        yield engine.url(table)


def digests_of_processes(url: str) -> list[str]:
    """Start all processes, let them go at once, and answer the digest of each one's map."""
    # Each is a process of its own, forked from one that has imported everything once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started = []
    try:
        for number in range(PROCESSES):
            (ready, answer), (start, go) = context.Pipe(False), context.Pipe(False)
            process = context.Process(target=work, args=(url, number, start, answer))
            process.start()
            answer.close()  # So that the death of a process ends the wait for its answer.
            started.append((process, go, ready))
        assert [received(ready) for _, _, ready in started] == ["ready"] * PROCESSES
        for _, go, _ in started:
            go.send("go")
        return [received(answer) for _, _, answer in started]
    finally:
        for process, go, ready in started:
            process.kill()
            process.join()
            go.close()
            ready.close()


def received(connection: Connection) -> str:
    assert connection.poll(WITHIN), "A process did not answer."
    return str(connection.recv())


@pytest.mark.slow
def test_processes_that_register_at_once_end_with_one_map(url: str) -> None:
    """Many processes with overlapping sets of 2,000 features: one map, without gaps, for all."""
    digests = digests_of_processes(url)
    registry: Registry = run(url, lambda backend, call: RegistryKeeper(backend).load(call))
    assert digests == [digest(registry, schema_of(number)) for number in range(PROCESSES)]

    features = [entry for entry in registry.entries if entry.scope == "user."]
    assert {entry.name for entry in features} == {f"user.f{n}" for n in range(NAMES)}
    shortest = itertools.islice(free_ids(LAYOUT.reserved), NAMES)
    assert sorted(entry.id for entry in features) == sorted(shortest)
    # A lost race leaves nothing behind: the items by id say just what those by name say.
    items = run(url, lambda backend, call: backend.list_partition(PARTITION, "!", call))
    assert by_key(items) == by_key(
        [
            *(item for entry in registry.entries for item in entry.items(LAYOUT)),
            *([home_mark(registry.home, LAYOUT)] if registry.home else []),
        ]
    )


def by_key(items: Iterable[Attributes]) -> dict[ItemKey, Attributes]:
    return {key_of(LAYOUT, item): item for item in items}
