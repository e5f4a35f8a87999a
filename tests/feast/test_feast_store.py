"""`FeastStore`: Feast's own online stores as the old store of a migration."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from feast import Entity, FeatureStore, FeatureView, Field, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Int32, String, UnixTimestamp

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidKey,
    InvalidSchema,
    InvalidStore,
    InvalidValue,
    OnlineStore,
    ReadFailed,
    ReadRequest,
    RequestTimeout,
    StoreClosed,
    UnknownFeature,
    Vector,
    feature,
    features,
)
from chalk_online_store.integrations.feast import AsyncFeastStore, FeastMapping, FeastStore
from chalk_online_store.migration import AsyncDualStore, DualSettings, DualStore
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from tests.feast.test_feast_copying import config, write
from tests.feast.world import CITY, DRIVER, PLACE, SOURCE, STATS, VISITS, WEATHER

NOW = datetime.now(UTC).replace(microsecond=0)
EARLIER = NOW - timedelta(minutes=5)

RIDER = Entity(name="rider", join_keys=["rider_id"], value_type=ValueType.STRING)
PROFILE = FeatureView(
    name="profile",
    entities=[RIDER],
    schema=[
        Field(name="rider_id", dtype=String),
        Field(name="seats", dtype=Int32),
        Field(name="score", dtype=Float32),
        Field(name="tags", dtype=Array(String)),
        Field(name="vector", dtype=Array(Float32), vector_length=3),
        Field(name="joined", dtype=UnixTimestamp),
        Field(name="note", dtype=String),
    ],
    source=SOURCE,
)


@features
class Driver:
    id: int
    trips: int | None
    rating: float | None = feature(group="realtime")
    street: str = feature(group="realtime", default="")


@features
class Visit:
    id: tuple[str, int] = feature(primary=True)
    count: int


@features
class Rider:
    id: UUID
    seats: int
    score: float
    tags: list[str]
    vector: Vector[3, "f4"]  # noqa: F821, UP037
    joined: int
    note: str


DRIVERS = FeastMapping(
    Driver,
    {"trips": "stats:trips", "rating": "stats:rating", "street": "place:street"},
    ["driver_id"],
)
VISITED = FeastMapping(Visit, {"count": "visits:count"}, ["city", "driver_id"])
RIDERS = FeastMapping(
    Rider,
    {name: f"profile:{name}" for name in ("seats", "score", "tags", "vector", "joined", "note")},
    ["rider_id"],
)
MAPPINGS = [DRIVERS, VISITED, RIDERS]
SCHEMA = [Driver, Visit, Rider]

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "dynamodb", "redis"])
def feast(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    """A project on each of Feast's own stores, without values."""
    return made(request, request.param, tmp_path)


def made(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> FeatureStore:
    online: dict[str, Any] = {"type": "sqlite", "path": str(tmp_path / "theirs.db")}
    if kind == "dynamodb":
        engine: Dynoxide = request.getfixturevalue("dynoxide")
        online = {
            "type": "dynamodb",
            "region": "us-east-1",
            "endpoint_url": engine.endpoint_url,
            "table_name_template": f"{tmp_path.name}.{{project}}.{{table_name}}",
        }
    elif kind == "redis":
        server: Valkey = request.getfixturevalue("valkey")
        online = {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=7"}
    settings = config(tmp_path / f"feast-{next(_numbers)}", online)
    settings.project = f"shop_{uuid.uuid4().hex[:8]}"
    store = FeatureStore(config=settings)
    store.apply([DRIVER, CITY, RIDER, STATS, PLACE, WEATHER, VISITS, PROFILE])
    return store


@pytest.fixture
def source(feast: FeatureStore) -> Iterator[FeastStore]:
    """Feast behind the methods of `OnlineStore`; one thread, since SQLite has one connection."""
    store = FeastStore(feast, MAPPINGS, timeout=60.0, max_threads=1)
    yield store
    store.close()


def driver(number: int, trips: int | None = 7, rating: float | None = -0.0) -> dict[str, Any]:
    return {"id": number, "trips": trips, "rating": rating, "street": f"street {number}"}


def test_what_feast_has_is_read_as_from_any_store(feast: FeatureStore, source: FeastStore) -> None:
    """Values, nulls, times, duplicates and absent entities of several views have statuses."""
    rows = [({"driver_id": n}, {"trips": Value(int64_val=n), "rating": Value()}) for n in (1, 2)]
    write(feast, STATS, rows, EARLIER)
    write(feast, PLACE, [({"driver_id": 2}, {"street": Value(string_val="Via")})], NOW)
    found = source.read(Driver, [2, 1, 2, 3], ["trips", "street", Driver.rating])
    assert found["trips"] == [2, 1, 2, None]
    assert [row.status("trips") for row in found] == ["hit", "hit", "hit", "missing"]
    assert [row.status("rating") for row in found] == ["null", "null", "null", "missing"]
    assert [row.observed_at("trips") for row in found] == [EARLIER, EARLIER, EARLIER, None]
    assert [row.observed_at("street") for row in found] == [NOW, None, NOW, None]
    assert source.read(Driver, [2], max_staleness={"trips": "1m"})[0].status("trips") == "stale"
    assert source.read(Driver, [3], defaults=True)[0]["street"] == ""
    assert source.read(Driver, []).to_dict() == {"trips": [], "rating": [], "street": []}
    assert source.read(Driver, range(300), consistent=True)["trips"].count(None) == 298
    drivers, visits = source.read_many(
        ReadRequest(Driver, [1], ["trips"]), ReadRequest(Visit, [("Rome", 1)])
    )
    assert (drivers["trips"], visits[0].status("count")) == ([1], "missing")


def test_what_is_written_to_feast_is_read_again(feast: FeatureStore, source: FeastStore) -> None:
    """Rows of several types, views and join keys come back as they were written."""
    source.write(Driver, [driver(1), driver(2, None, None)], observed_at=[EARLIER, NOW])
    source.write(Visit, [{"id": ("Rome", 1), "count": 3}], observed_at=NOW)
    rider = {
        "id": UUID(int=7),
        "seats": 2,
        "score": 0.1,
        "tags": ["a", "b"],
        "vector": [1.0, 0.5, -0.0],
        "joined": 1_700_000_000,
        "note": "",
    }
    source.write(Rider, [rider], observed_at=NOW)
    assert [dict(row) for row in source.read(Driver, [1, 2])] == [
        {"trips": 7, "rating": -0.0, "street": "street 1"},
        {"trips": None, "rating": None, "street": "street 2"},
    ]
    assert source.read(Visit, [("Rome", 1)])["count"] == [3]
    found = source.read(Rider, [UUID(int=7)])[0]
    assert {**found, "id": found.key, "vector": found["vector"].tolist()} == rider
    seen = feast.get_online_features(["stats:trips"], [{"driver_id": 1}]).to_dict()
    assert seen["trips"] == [7]


def test_a_part_of_a_view_is_written_only_if_feast_merges_it(
    request: pytest.FixtureRequest, source: FeastStore
) -> None:
    """A row with a part of a view's fields is refused for a store that would lose the others."""
    source.write(Driver, [driver(1)], observed_at=EARLIER)
    if request.node.callspec.params["feast"] == "dynamodb":
        with pytest.raises(InvalidValue, match="lacks rating of the feature view 'stats'"):
            source.write(Driver, [{"id": 1, "trips": 8}], observed_at=NOW)
        assert source.read(Driver, [1])["trips"] == [7]
    else:
        source.write(Driver, [{"id": 1, "trips": 8}], observed_at=NOW)
        assert dict(source.read(Driver, [1])[0])["rating"] == -0.0
    source.write(Driver, [{"id": 1, "street": "Via"}], observed_at=NOW)  # All of another view.
    assert source.read(Driver, [1])["street"] == ["Via"]


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    """A project on Feast's SQLite store."""
    return made(request, "sqlite", tmp_path)


def test_a_mapping_that_does_not_fit_is_refused(sqlite: FeatureStore) -> None:
    """Views, fields, join keys and features that are not there are named."""
    names = ["city", "driver_id"]
    for mapping, words in (
        (FeastMapping(Visit, {"count": "calls:count"}, ["city", "driver_id"]), "'calls'"),
        (FeastMapping(Visit, {"count": "visits:sum"}, ["city", "driver_id"]), "'sum'"),
        (FeastMapping(Visit, {"count": "stats:trips"}, ["city", "driver_id"]), "join keys"),
        (FeastMapping(Visit, {"count": "visits:count"}, ["city"]), "2 parts"),
        (FeastMapping(Visit, {}, ["city", "driver_id"]), "no Feast reference for count"),
    ):
        with pytest.raises(InvalidSchema, match=words):
            FeastStore(sqlite, [mapping])
    with pytest.raises(UnknownFeature):
        FeastStore(
            sqlite, [FeastMapping(Visit, {"count": "visits:count", "x": "visits:count"}, names)]
        )
    with pytest.raises(InvalidValue):
        FeastStore(sqlite, [7])  # type: ignore[list-item]
    with pytest.raises(InvalidValue):
        FeastStore("repository", MAPPINGS)


def test_bad_arguments_are_refused_before_anything_is_sent(sqlite: FeatureStore) -> None:
    """Keys, rows and features are checked as by any store; Feast has no deletes."""
    store = FeastStore(sqlite, MAPPINGS, max_threads=1)
    for call, error in (
        (lambda: store.read(Driver, ["1"]), InvalidKey),
        (lambda: store.read(Driver, [1], ["age"]), UnknownFeature),
        (lambda: store.prepare(Driver, ["age"]), UnknownFeature),
        (lambda: store.write(Driver, [driver(1), {"id": 2, "trips": "x"}]), InvalidValue),
        (lambda: store.write(Driver, [driver(1)], observed_at=NOW + timedelta(1)), InvalidValue),
        (lambda: store.write(Driver, [driver(1, trips=2**70)]), InvalidValue),
        (lambda: store.delete(Driver, [1]), InvalidStore),
    ):
        with pytest.raises(error):
            call()
    assert store.read(Driver, [1])[0].status("trips") == "missing"
    store.close()
    with pytest.raises(StoreClosed):
        store.read(Driver, [1])


def test_a_value_that_does_not_fit_is_failed(sqlite: FeatureStore) -> None:
    """A value of Feast's that the declared type cannot hold is `failed`, and others are read."""

    @features
    class Strict:
        id: int
        trips: bool
        rating: float | None = feature(group="realtime")

    mapping = FeastMapping(
        Strict, {"trips": "stats:trips", "rating": "stats:rating"}, ["driver_id"]
    )
    store = FeastStore(sqlite, [mapping], max_threads=1)
    write(sqlite, STATS, [({"driver_id": 1}, {"trips": Value(int64_val=7)})])
    row = store.read(Strict, [1])[0]
    assert (row.status("trips"), row.status("rating")) == ("failed", "missing")
    write(sqlite, STATS, [({"driver_id": 2}, {"trips": Value(double_val=0.5)})])
    assert store.read(Strict, [2])[0].status("trips") == "failed"
    with pytest.raises(ReadFailed):
        store.read(Strict, [1], raise_failed=True)
    store.close()


def test_a_call_of_feast_that_hangs_times_out(
    sqlite: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` bounds a call that Feast itself would wait for."""
    store, gate = FeastStore(sqlite, MAPPINGS, max_threads=1), threading.Event()
    provider = sqlite._get_provider()
    monkeypatch.setattr(provider, "online_read", lambda *_: gate.wait(60))
    for _ in range(2):  # The second one finds the only thread busy.
        with pytest.raises(RequestTimeout):
            store.read(Driver, [1], timeout=0.05)
    gate.set()
    store.close()


# --- the migration -------------------------------------------------------------------------


class Load:
    """Reads and writes of an application, in threads or in tasks, until it is stopped."""

    def __init__(self, keys: Sequence[int]) -> None:
        self.keys = keys
        self.failures: list[BaseException] = []
        self.reads = self.writes = 0
        self._stopped = threading.Event()
        self._trips = itertools.count(1000)

    def _row(self, number: int) -> dict[str, Any]:
        return driver(number, next(self._trips), number / 7)

    def _check(self, rows: Any) -> None:
        assert [row.status("trips") for row in rows] == ["hit"] * len(rows)
        self.reads += 1

    def use(self, store: DualStore, worker: int) -> None:
        """Use the store in one of two threads. Each entity has one writer, as Feast requires."""
        try:
            for number in itertools.cycle(self.keys[worker::2]):
                if self._stopped.is_set():
                    return
                self._check(store.read(Driver, [number, self.keys[0]]))
                store.write(Driver, [self._row(number)])
                self.writes += 1
        except BaseException as error:  # noqa: BLE001 - the test raises it.
            self.failures.append(error)

    async def use_async(self, store: AsyncDualStore, worker: int) -> None:
        """As `use`, in one of three tasks."""
        for number in itertools.cycle(self.keys[worker::3]):
            if self._stopped.is_set():
                return
            self._check(await store.read(Driver, [number, self.keys[0]]))
            await store.write(Driver, [self._row(number)])
            self.writes += 1

    def stop(self) -> None:
        self._stopped.set()


KEYS = list(range(40))
PATIENT = DualSettings(
    shadow_timeout=60.0, recheck_after=0.1, observed_at_tolerance=1.0, max_queued_keys=100_000
)


def until(load: Load, condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(60_000):
        if condition() or load.failures:
            return
        pause.wait(0.001)
    raise AssertionError("The load makes no progress.")


def test_threads_migrate_from_feast_without_a_failed_read(
    sqlite: FeatureStore, dynoxide: Dynoxide
) -> None:
    """Under load: dual writes, copy, compare, switch and stop, and every value is the same."""
    write(sqlite, STATS, [({"driver_id": n}, {"trips": Value(int64_val=n)}) for n in KEYS], EARLIER)
    table = f"feast-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, table)
    old = FeastStore(sqlite, MAPPINGS, timeout=60.0, max_threads=1)
    new = OnlineStore.open(dynoxide.url(table), SCHEMA, timeout=60.0)
    with DualStore(old, new, compare=0.5, settings=PATIENT) as dual:
        load = Load(KEYS)
        threads = [threading.Thread(target=load.use, args=[dual, n]) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            until(load, lambda: load.writes > 10)
            assert dual.backfill(Driver, KEYS, timeout=60.0) == len(KEYS)
            before = load.reads
            until(load, lambda: load.reads > before + 20)
            dual.switch_to("new")
            before = load.reads
            until(load, lambda: load.reads > before + 20)
        finally:
            load.stop()
            for thread in threads:
                thread.join()
        assert load.failures == []
        assert dual.wait_for_comparisons(60.0)
        assert dual.report().reads_compared > 0
        assert dual.outstanding() == []
        assert_same(old.read(Driver, KEYS), new.read(Driver, KEYS))


def assert_same(ours: Any, theirs: Any) -> None:
    """Two stores have the same drivers; Feast keeps whole seconds of their times."""
    for one, other in zip(ours, theirs, strict=True):
        assert dict(one) == dict(other)
        for name in one:
            apart = one.observed_at(name) and one.observed_at(name) - other.observed_at(name)
            assert apart is None or abs(apart) <= timedelta(seconds=1)


def test_tasks_migrate_from_feast_without_a_failed_read(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: Valkey
) -> None:
    """The same with asyncio, from Feast's Redis store to Valkey."""
    feast = made(request, "redis", tmp_path)
    write(feast, STATS, [({"driver_id": n}, {"trips": Value(int64_val=n)}) for n in KEYS], EARLIER)

    async def migrate() -> None:
        old = AsyncFeastStore(feast, MAPPINGS, timeout=60.0)
        url = f"{valkey.url()}?prefix={uuid.uuid4().hex}:"
        new = AsyncOnlineStore.open(url, SCHEMA, timeout=60.0)
        async with AsyncDualStore(old, new, compare=0.5, settings=PATIENT) as dual:
            load = Load(KEYS)
            tasks = [asyncio.create_task(load.use_async(dual, n)) for n in range(3)]
            await reached(tasks, lambda: load.writes > 10)
            assert await dual.backfill(Driver, KEYS, timeout=60.0) == len(KEYS)
            before = load.reads
            await reached(tasks, lambda: load.reads > before + 20)
            dual.switch_to("new")
            now = load.reads
            await reached(tasks, lambda: load.reads > now + 20)
            load.stop()
            await asyncio.gather(*tasks)
            assert await dual.wait_for_comparisons(60.0)
            assert dual.report().reads_compared > 0
            assert dual.outstanding() == []
            assert_same(await old.read(Driver, KEYS), await new.read(Driver, KEYS))

    async def reached(tasks: Sequence[asyncio.Task[None]], condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60.0):
            while not condition() and not any(task.done() for task in tasks):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(migrate())


def test_deletes_are_refused_while_feast_serves(sqlite: FeatureStore) -> None:
    """A delete raises before it is sent to the new store; afterwards Feast is left behind."""
    new = OnlineStore.open("sqlite://", SCHEMA)
    with DualStore(FeastStore(sqlite, MAPPINGS, max_threads=1), new) as dual:
        dual.write(Driver, [driver(1)])
        with pytest.raises(InvalidStore):
            dual.delete(Driver, [1])
        assert new.get(Driver, 1)["trips"] == 7
        assert dual.outstanding() == []
        dual.switch_to("new")
        dual.delete(Driver, [1])
        assert new.get(Driver, 1).status("trips") == "missing"
        assert [each.store for each in dual.outstanding()] == ["old"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(sqlite: FeatureStore) -> None:
    """A child reads from Feast after its parent did."""
    store = FeastStore(sqlite, MAPPINGS, max_threads=1)
    assert store.read(Driver, [1])[0].status("trips") == "missing"
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read(Driver, [1], timeout=30.0)[0].status("trips") == "missing" else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.close()
