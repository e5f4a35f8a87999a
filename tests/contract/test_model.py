"""Several writers against one dictionary: whatever they do, event time decides."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from chalk_online_store import Feature, LRUCache, Namespace, OnlineStore, Status
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from tests.helpers import stress

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = "abcd"


def at(seconds: int) -> datetime:
    """A time that many seconds after the first."""
    return T0 + timedelta(seconds=seconds)


def namespace(names: str) -> Namespace:
    """Users whose features are called by single letters, of which `d` has its own group."""
    groups = {"d": "other"}
    return Namespace(
        "user", int, [Feature(n, int | None, group=groups.get(n, "default")) for n in names]
    )


class Writers(RuleBasedStateMachine):
    """Three processes: one knows fewer features, one has a cache."""

    url = ""
    keys = st.integers(0, 2)
    times = st.integers(0, 8)
    values = st.none() | st.integers(-3, 3)
    writers = st.sampled_from(["old", "new", "cached"])

    @initialize()
    def open_stores(self) -> None:
        """An entity space of their own for each run, in one table."""
        run = uuid.uuid4().int % 10**9 * 10
        self.first_key = run
        self.model: dict[tuple[int, str], tuple[int, Any]] = {}
        self.schemas = {"old": namespace("ab"), "new": namespace(NAMES)}
        self.schemas["cached"] = self.schemas["new"]
        caches = {"cached": LRUCache(max_size=10, store_cache_misses=True)}
        self.stores = {
            name: OnlineStore.open(self.url, [schema], lru_cache=caches.get(name))
            for name, schema in self.schemas.items()
        }
        # So that all three go by the same registry from the start.
        self.stores["new"].write(self.schemas["new"], [{"id": run + 9, "a": 0}])

    def teardown(self) -> None:
        """Close what was opened."""
        for store in getattr(self, "stores", {}).values():
            store.close()

    @rule(writer=writers, key=keys, time=times, row=st.dictionaries(st.sampled_from(NAMES), values))
    def write(self, writer: str, key: int, time: int, row: dict[str, Any]) -> None:
        """Write some of the features."""
        self._write(writer, key, time, row)

    @rule(writer=writers, key=keys, time=times, value=values)
    def write_whole(self, writer: str, key: int, time: int, value: Any) -> None:
        """Write every feature that the writer knows."""
        self._write(writer, key, time, dict.fromkeys(NAMES, value))

    def _write(self, writer: str, key: int, time: int, row: dict[str, Any]) -> None:
        schema = self.schemas[writer]
        known = {name: value for name, value in row.items() if name in schema.by_name}
        row = {"id": self.first_key + key, **known}
        self.stores[writer].write(schema, [row], observed_at=at(time))
        self._apply(key, time, {n: (Status.NULL if v is None else v) for n, v in known.items()})

    @rule(writer=st.sampled_from(["new", "cached"]), key=keys, time=times)
    def erase(self, writer: str, key: int, time: int) -> None:
        """Delete an entity."""
        schema = self.schemas[writer]
        self.stores[writer].delete(schema, [self.first_key + key], observed_at=at(time))
        self._apply(key, time, dict.fromkeys(NAMES))

    @rule(writer=writers, key=keys, time=times, name=st.sampled_from("ab"))
    def remove(self, writer: str, key: int, time: int, name: str) -> None:
        """Delete one feature."""
        schema = self.schemas[writer]
        self.stores[writer].delete(schema, [self.first_key + key], [name], observed_at=at(time))
        self._apply(key, time, {name: None})

    def _apply(self, key: int, time: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if time >= self.model.get((key, name), (0, None))[0]:
                self.model[key, name] = (time, value)

    @rule(key=keys)
    def read(self, key: int) -> None:
        """Every feature is what the dictionary says, with its time."""
        row = self.stores["new"].read(self.schemas["new"], [self.first_key + key])[0]
        for name in NAMES:
            time, value = self.model.get((key, name), (0, None))
            if value is None:
                assert row.status(name) is Status.MISSING
            else:
                assert (row.status(name) if value is Status.NULL else row[name]) == value
                assert row.observed_at(name) == at(time)

    @rule(key=keys)
    def read_own_writes(self, key: int) -> None:
        """A store with a cache never serves what is older than its own last strong read."""
        schema, store = self.schemas["cached"], self.stores["cached"]
        strong = store.read(schema, [self.first_key + key], consistent=True)
        cached = store.read(schema, [self.first_key + key])
        assert cached.to_dict() == strong.to_dict()


BRIEFLY = settings(max_examples=stress(20), stateful_step_count=25)


def test_writers_on_sqlite(tmp_path: Any) -> None:
    """Any interleaving of three processes' writes to SQLite equals the dictionary."""
    machine = type("OnSqlite", (Writers,), {"url": f"sqlite:///{tmp_path}/features.db"})
    machine.TestCase.settings = BRIEFLY  # type: ignore[attr-defined]
    machine.TestCase().runTest()  # type: ignore[attr-defined]


def test_writers_on_dynoxide(dynoxide: Dynoxide) -> None:
    """Any interleaving of three processes' writes to DynamoDB's wire equals the dictionary."""
    table = f"model-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, table)
    machine = type("OnDynoxide", (Writers,), {"url": dynoxide.url(table)})
    machine.TestCase.settings = BRIEFLY  # type: ignore[attr-defined]
    machine.TestCase().runTest()  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["valkey", "redis_server"])
def test_writers_on_valkey(engine: str, request: pytest.FixtureRequest) -> None:
    """Any interleaving of three processes' writes to Valkey, or Redis, equals the dictionary."""
    server: Valkey = request.getfixturevalue(engine)
    machine = type("OnValkey", (Writers,), {"url": server.url(f"model-{uuid.uuid4().hex}:")})
    machine.TestCase.settings = BRIEFLY  # type: ignore[attr-defined]
    machine.TestCase().runTest()  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["sqlite", "dynoxide", "valkey", "redis_server"])
def test_writers_at_once_leave_the_newest(
    engine: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    """Threads that race on the same entities leave each feature's newest value, and no other."""
    url = f"sqlite:///{tmp_path}/features.db"
    if engine in ("valkey", "redis_server"):
        server: Valkey = request.getfixturevalue(engine)
        url = server.url(f"race-{uuid.uuid4().hex}:")
    if engine == "dynoxide":
        local: Dynoxide = request.getfixturevalue("dynoxide")
        create_table(local.endpoint_url, table := f"race-{uuid.uuid4().hex}")
        url = local.url(table)
    schema = namespace("abc")
    times = random.Random(7).sample(range(1, 1000), 120)
    with OnlineStore.open(url, [schema]) as store, ThreadPoolExecutor(8) as pool:
        store.write(schema, [{"id": 9, "a": 0}])

        def write(time: int) -> tuple[int, dict[str, int]]:
            names = random.Random(time).choice(["a", "b", "ab", "bc", "abc", "abc"])
            row = dict.fromkeys(names, time)
            store.write(schema, [{"id": time % 3, **row}], observed_at=at(time))
            return time, row

        done = list(pool.map(write, times))
        rows = store.read(schema, range(3))
    for key in range(3):
        for name in "abc":
            newest = max((t for t, row in done if t % 3 == key and name in row), default=None)
            assert rows[key][name] == newest
