"""`get_online_features` through Feast's DynamoDB store, and through ours: `make bench-feast`.

Both answer the same requests from the same dynoxide, in turns, in one process; the CPU is that of
this process alone.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.repo_config import RegistryConfig
from feast.types import Bool, Float64, Int64, String, UnixTimestamp

from chalk_online_store.testing import Dynoxide, create_table

REGION = "us-east-1"
ENTITIES = 100
VIEWS = 5
KINDS: tuple[tuple[Any, Callable[[int, int], Any]], ...] = (
    *((Float64, lambda number, place: (number + 1) / (place + 3)) for _ in range(9)),
    *((Int64, lambda number, place: number * 1000 + place) for _ in range(5)),
    *((String, lambda number, place: f"text {number} {place}") for _ in range(3)),
    *((Bool, lambda number, place: (number + place) % 2 == 0) for _ in range(2)),
    (UnixTimestamp, lambda number, place: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(number)),
)
"""The types of a view's 20 features, and their values of an entity."""

USER = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)


class Case(NamedTuple):
    """A request, and how often a round makes it."""

    name: str
    views: int
    entities: int
    calls: int


CASES = (
    Case("1 entity x 20 features", 1, 1, 60),
    Case("100 entities x 20 features", 1, 100, 8),
    Case("1 entity x 5 views of 20", 5, 1, 25),
    Case("100 entities x 5 views of 20", 5, 100, 3),
)


class Took(NamedTuple):
    """What a call takes, in microseconds."""

    cpu: float
    wall: float


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory, Dynoxide() as engine:
        stores = _stores(Path(directory), engine)
        for store in stores:
            _fill(store)
        _compare_answers(stores)
        print(f"feast {version('feast')}, {rounds} rounds, medians, microseconds a call\n")
        print("| request | Feast's DynamoDB store, CPU | ours, CPU | ratio | wall, theirs | ours |")
        print("|---|--:|--:|--:|--:|--:|")
        for case in CASES:
            print(_row(case, *_measure([_call(store, case) for store in stores], case, rounds)))


def _stores(directory: Path, engine: Dynoxide) -> list[FeatureStore]:
    create_table(engine.endpoint_url, "ours")
    theirs = {"type": "dynamodb", "region": REGION, "endpoint_url": engine.endpoint_url}
    ours = {
        "type": "chalk_online_store.integrations.feast.ChalkOnlineStore",
        "url": engine.url("ours"),
    }
    return [
        FeatureStore(
            config=RepoConfig(
                project=f"bench{number}",
                provider="local",
                registry=RegistryConfig(path=str(directory / f"{number}.db")),
                online_store=online_store,
                offline_store="file",
                entity_key_serialization_version=3,
            )
        )
        for number, online_store in enumerate((theirs, ours))
    ]


def _views() -> Iterator[FeatureView]:
    for number in range(VIEWS):
        fields = [Field(name=f"v{number}_{i}", dtype=kind) for i, (kind, _) in enumerate(KINDS)]
        yield FeatureView(
            name=f"view_{number}",
            entities=[USER],
            schema=[Field(name="user", dtype=Int64), *fields],
            source=FileSource(path="none.parquet", timestamp_field="at"),
            ttl=timedelta(days=1),
        )


def _fill(store: FeatureStore) -> None:
    views = list(_views())
    store.apply([USER, *views])
    now = datetime.now(UTC)
    for view in views:
        rows = [
            {
                "user": number,
                "at": now,
                **{
                    field.name: make(number, place)
                    for place, (field, (_, make)) in enumerate(
                        zip(view.features, KINDS, strict=True)
                    )
                },
            }
            for number in range(ENTITIES)
        ]
        store.write_to_online_store(view.name, pd.DataFrame(rows))


def _call(store: FeatureStore, case: Case) -> Callable[[], Any]:
    features = [f"{v.name}:{f.name}" for v in list(_views())[: case.views] for f in v.features]
    entities = [{"user": number} for number in range(case.entities)]
    return lambda: store.get_online_features(features, entities).to_dict()


def _compare_answers(stores: list[FeatureStore]) -> None:
    """A store that answers something else is not faster."""
    one, other = (_call(store, CASES[-1])() for store in stores)
    if one != other:
        raise SystemExit("The two stores do not give the same answer.")


def _measure(calls: list[Callable[[], Any]], case: Case, rounds: int) -> list[list[Took]]:
    """What each round of each store took, one round of each in turn."""
    took: list[list[Took]] = [[] for _ in calls]
    for call in calls:
        _time(call, case.calls)
    for _ in range(rounds):
        for call, found in zip(calls, took, strict=True):
            found.append(_time(call, case.calls))
    return took


def _time(call: Callable[[], Any], times: int) -> Took:
    with _no_collection():
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Took(cpu / times * 1e6, wall / times * 1e6)


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _row(case: Case, theirs: list[Took], ours: list[Took]) -> str:
    cpu = [statistics.median(took.cpu for took in found) for found in (theirs, ours)]
    wall = [statistics.median(took.wall for took in found) for found in (theirs, ours)]
    ratio = statistics.median(t.cpu / o.cpu for t, o in zip(theirs, ours, strict=True))
    numbers = f"{cpu[0]:,.0f} | {cpu[1]:,.0f} | {ratio:.1f} | {wall[0]:,.0f} | {wall[1]:,.0f}"
    return f"| {case.name} | {numbers} |"


if __name__ == "__main__":
    main()
