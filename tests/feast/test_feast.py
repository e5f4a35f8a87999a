"""The Feast online store, through Feast, on every engine, sync and async."""

from __future__ import annotations

import asyncio
import copy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from feast import Field
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String, UnixTimestamp

from chalk_online_store import (
    InvalidSchema,
    InvalidURL,
    OnlineStore,
    OnlineStoreError,
    UnknownFeature,
)
from chalk_online_store.drivers.sync import SyncDriver
from chalk_online_store.effects import Operation
from chalk_online_store.errors import InvalidKey, InvalidValue, TypeConflict, WriteFailed
from chalk_online_store.integrations.feast import ChalkOnlineStore
from chalk_online_store.integrations.feast.writes import FeastRow
from chalk_online_store.testing import Dynoxide, create_table
from tests.feast.world import (
    DRIVER,
    NOW,
    PLACE,
    STATS,
    VISITS,
    WEATHER,
    Cell,
    Project,
    ago,
    key,
    view,
)

Start = Callable[..., Project]

ONE, TWO, THREE = ({"driver_id": number} for number in (1, 2, 3))


NOWHERE = "dynamodb:///none?region=us-east-1&endpoint_url=http://127.0.0.1:9"

on_dynoxide = pytest.mark.parametrize("url", ["dynoxide"], indirect=True)


def trips(number: int | None) -> dict[str, Value]:
    return {"trips": Value() if number is None else Value(int64_val=number)}


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/features.db"
    engine: Dynoxide = request.getfixturevalue("dynoxide")
    table = f"feast-{tmp_path.name}"
    create_table(engine.endpoint_url, table)
    return engine.url(table)


@pytest.fixture(params=["sync", "async"])
def start(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts projects on the table; they are closed at the end."""
    projects: list[Project] = []
    with asyncio.Runner() as runner:

        def start(**options: Any) -> Project:
            found = options.pop("url", url)
            projects.append(Project(found, tmp_path, runner, request.param == "async", options))
            return projects[-1]

        yield start
        for project in projects:
            project.close()


def test_what_is_written_is_read(start: Start) -> None:
    """Values, nulls and what was never written are told apart, in the order asked."""
    project = start()
    project.write(STATS, [(ONE, {**trips(7), "rating": Value(double_val=0.5)}), (TWO, trips(None))])
    found = project.get(["stats:trips", "stats:rating"], [THREE, TWO, ONE, TWO])
    nothing, null = Cell(None, "NOT_FOUND"), Cell(None, "NULL_VALUE")
    assert found == {
        "trips": [nothing, null, Cell(7, "PRESENT"), null],
        "rating": [nothing, nothing, Cell(0.5, "PRESENT"), nothing],
    }


def test_online_read_answers_as_other_stores_do(start: Start) -> None:
    """An event time and values where there are some, and two Nones where there are none."""
    project = start()
    project.write(STATS, [(ONE, {**trips(7), "rating": Value()})])
    assert project.read_rows(STATS, [ONE, TWO]) == [
        (NOW, {"trips": Value(int64_val=7), "rating": Value()}),
        (None, None),
    ]
    assert project.read_rows(STATS, [ONE], ["trips"]) == [(NOW, trips(7))]
    assert project.read_rows(STATS, []) == []


def test_views_of_different_entities_are_read_together(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four views of three kinds of entities take one operation: their requests go out at once."""
    project = start()
    both = {"driver_id": 1, "city": "Rome"}
    project.write(STATS, [(ONE, trips(7))])
    project.write(PLACE, [(ONE, {"street": Value(string_val="Main")})])
    project.write(WEATHER, [({"city": "Rome"}, {"degrees": Value(double_val=31.5)})])
    project.write(VISITS, [({"city": "Rome", "driver_id": 1}, {"count": Value(int64_val=3)})])
    operations = []
    run = SyncDriver.run

    def counted(driver: SyncDriver, operation: Operation[Any]) -> Any:
        operations.append(operation)
        return run(driver, operation)

    monkeypatch.setattr(SyncDriver, "run", counted)
    names = ["stats:trips", "place:street", "weather:degrees", "visits:count"]
    found = project.get(names, [both])
    assert {name: cells[0].value for name, cells in found.items()} == {
        "trips": 7,
        "street": "Main",
        "degrees": 31.5,
        "count": 3,
    }
    assert len(operations) == (not project.is_async)


def test_full_names_and_versions_are_told(start: Start) -> None:
    """`full_feature_names` and the metadata of versions are answered as Feast's stores do."""
    project = start()
    options = {"full_feature_names": True, "include_feature_view_version_metadata": True}
    metadata = project.respond(["stats:trips"], [ONE], **options).proto.metadata
    assert list(metadata.feature_names.val) == ["driver_id", "stats__trips"]
    assert [known.name for known in metadata.feature_view_metadata] == ["stats"]


def test_event_times_are_told(start: Start) -> None:
    """Each row has the event time of its view, to the microsecond; none where there is nothing."""
    project = start()
    project.write(STATS, [(ONE, trips(7))])
    response = project.respond(["stats:trips"], [TWO, ONE]).proto
    times = {result.event_timestamps[1].ToMicroseconds() for result in response.results[1:]}
    assert times == {int(NOW.timestamp() * 1_000_000)}
    assert response.results[1].event_timestamps[0].ToMicroseconds() == 0


def test_a_late_older_write_changes_nothing(start: Start) -> None:
    """The newest event time wins, whatever arrives last; between equal ones the last."""
    project = start()
    project.write(STATS, [(ONE, trips(7))])
    project.write(STATS, [(ONE, trips(1))], ago(hours=1))
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    project.write(STATS, [(ONE, trips(8))])
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(8, "PRESENT")]


def test_arrival_ordering_keeps_what_arrives_last(start: Start) -> None:
    """With `ordering: arrival` an older write replaces what is there."""
    project = start(ordering="arrival")
    project.write(STATS, [(ONE, trips(7))])
    project.write(STATS, [(ONE, trips(1))], ago(hours=1))
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(1, "PRESENT")]


def test_within_a_batch_the_newest_row_wins(start: Start) -> None:
    """Event times decide, then created times, not the order; parts are put together."""
    project = start()
    rating = {"rating": Value(double_val=0.5)}
    rows = [
        (key(ONE), trips(9), NOW, ago(minutes=1)),
        (key(ONE), trips(8), NOW, ago(minutes=2)),
        (key(ONE), trips(1), ago(hours=1), NOW),
        (key(ONE), rating, ago(hours=2), None),
        (key(TWO), trips(2), NOW.replace(tzinfo=None), None),
    ]
    project.write_rows(STATS, rows)
    found = project.get(["stats:trips", "stats:rating"], [ONE, TWO])
    assert [cell.value for cell in found["trips"]] == [9, 2]
    assert [cell.value for cell in found["rating"]] == [0.5, None]


def test_a_write_expires_after_key_ttl_seconds(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is served for so long after its write, whatever its event time; then it is expired."""
    project = start(key_ttl_seconds=60)
    project.write(STATS, [(ONE, trips(7))], ago(days=3))
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    later(monkeypatch, 61)
    found = project.get(["stats:trips", "stats:rating"], [ONE, TWO])
    assert found["trips"] == [Cell(None, "OUTSIDE_MAX_AGE"), Cell(None, "NOT_FOUND")]
    assert found["rating"] == [Cell(None, "NOT_FOUND")] * 2
    assert project.read_rows(STATS, [ONE]) == [(None, None)]
    project.write(STATS, [(ONE, trips(8))])
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(8, "PRESENT")]


@on_dynoxide
def test_the_table_removes_what_has_expired(
    start: Start, dynoxide: Dynoxide, tmp_path: Path
) -> None:
    """DynamoDB is told when an item expires: `key_ttl_seconds` after its write."""
    project = start(key_ttl_seconds=60)
    before = time.time()
    project.write(STATS, [(ONE, trips(7))], ago(days=3))
    client = boto3.client("dynamodb", "us-east-1", endpoint_url=dynoxide.endpoint_url)
    items = client.scan(TableName=f"feast-{tmp_path.name}")["Items"]
    client.close()
    (ttl,) = [int(item["ttl"]["N"]) for item in items if "ttl" in item]
    assert before + 60 <= ttl <= time.time() + 62


@pytest.mark.parametrize(("enforced", "status"), [(True, "OUTSIDE_MAX_AGE"), (False, "PRESENT")])
def test_a_views_ttl_is_enforced_where_that_is_asked_for(
    start: Start, enforced: bool, status: str
) -> None:
    """`enforce_view_ttl` has values served only for `ttl` after their event time."""
    project = start(enforce_view_ttl=enforced)
    fields = [Field(name="trips", dtype=Int64), Field(name="rating", dtype=Float64)]
    brief = view("brief", fields, ttl=timedelta(hours=1))
    project.features.apply([brief])
    project.write(brief, [(ONE, trips(7))], ago(hours=2))
    project.write(brief, [(TWO, trips(8))], ago(minutes=2))
    found = project.get(["brief:trips", "brief:rating"], [ONE, TWO])
    assert [cell.status for cell in found["trips"]] == [status, "PRESENT"]
    assert [cell.status for cell in found["rating"]] == ["NOT_FOUND"] * 2


def test_a_deleted_view_takes_its_values_along(start: Start) -> None:
    """Applied once more, a deleted view has no values; others of its entity keep theirs."""
    project = start()
    project.write(STATS, [(ONE, trips(7))])
    project.write(PLACE, [(ONE, {"street": Value(string_val="Main")})])
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    project.features.apply([], objects_to_delete=[STATS], partial=False)
    project.features.apply([DRIVER, STATS])
    found = project.get(["stats:trips", "place:street"], [ONE])
    assert found == {"trips": [Cell(None, "NOT_FOUND")], "street": [Cell("Main", "PRESENT")]}
    project.write(STATS, [(ONE, trips(8))], ago(hours=1))
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(8, "PRESENT")]


def test_a_view_may_change(start: Start) -> None:
    """A field that is new, gone, back, or of another type has the values it was written since."""
    project = start()
    names = ["stats:trips", "stats:rating"]
    project.write(STATS, [(ONE, {**trips(7), "rating": Value(double_val=0.5)})])
    other = view("stats", [Field(name="trips", dtype=String), Field(name="rank", dtype=Int64)])
    project.features.apply([other])
    project.write(other, [(ONE, {"trips": Value(string_val="many"), "rank": Value(int64_val=1)})])
    found = project.get(["stats:trips", "stats:rank"], [ONE])
    assert found == {"trips": [Cell("many", "PRESENT")], "rank": [Cell(1, "PRESENT")]}
    project.features.apply([STATS])
    assert project.get(names, [ONE]) == {
        "trips": [Cell(None, "NOT_FOUND")],
        "rating": [Cell(None, "NOT_FOUND")],
    }


def test_teardown_leaves_the_table(start: Start) -> None:
    """After a teardown nothing is read, and a project can begin anew in the same table."""
    project = start()
    project.write(STATS, [(ONE, trips(7))])
    project.store.teardown(project.config, [STATS], [])
    assert project.read_rows(STATS, [ONE]) == [(None, None)]
    project.write(STATS, [(ONE, trips(8))])
    assert project.read_rows(STATS, [ONE], ["trips"]) == [(NOW, trips(8))]


def test_entity_keys_are_known_by_their_names_and_values(start: Start) -> None:
    """Join keys may come in any order; strings, integers and bytes are different entities."""
    project = start()
    count = {"count": Value(int64_val=3)}
    project.write(VISITS, [({"driver_id": 1, "city": "a:b"}, count)])
    (found,) = project.read_rows(VISITS, [{"city": "a:b", "driver_id": 1}])
    assert found == (NOW, count)
    assert project.read_rows(VISITS, [{"city": "1", "driver_id": 1}]) == [(None, None)]
    assert project.read_rows(VISITS, [{"driver_id": "1", "city": "a:b"}]) == [(None, None)]


def test_an_entity_key_that_cannot_be_one_is_refused(start: Start) -> None:
    """A float is no key, nor are an int and a string of one join key in one request."""
    project = start()
    mixed = [key({"driver_id": 1}), key({"driver_id": "a"})]
    with pytest.raises(InvalidKey, match="'driver_id' is in string_val"):
        project.store.online_read(project.config, STATS, mixed)
    floating = EntityKey(join_keys=["driver_id"], entity_values=[Value(double_val=0.5)])
    with pytest.raises(InvalidKey, match="double_val"):
        project.store.online_read(project.config, STATS, [floating])


def test_a_bad_row_writes_nothing(start: Start) -> None:
    """A value of another type, or of no field, is refused by name before anything is sent."""
    project = start()
    wrong = {"trips": Value(string_val="seven")}
    with pytest.raises(InvalidValue, match="'trips' is declared to be in int64_val"):
        project.write(STATS, [(ONE, trips(7)), (TWO, wrong)])
    with pytest.raises(UnknownFeature, match="no field 'nothing'"):
        project.write(STATS, [(ONE, {"nothing": Value(int64_val=1)})])
    assert project.read_rows(STATS, [ONE]) == [(None, None)]


EVENT_TIMES: list[Any] = [
    None,
    pd.NaT,
    datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(1, 1, 1),  # noqa: DTZ001 - Feast has such times mean UTC.
    pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(1, "ns"),
    "2026-01-01",
    datetime(2999, 1, 1, tzinfo=UTC),
]


@pytest.mark.parametrize("event_time", EVENT_TIMES, ids=map(str, EVENT_TIMES))
def test_an_event_time_that_is_none_refuses_its_row_alone(start: Start, event_time: Any) -> None:
    """Rows whose event time is null, before 1970 or far ahead are refused, all others written."""
    project = start()
    times = [NOW] * 1500
    times[1] = times[1200] = event_time
    rows = [(key({"driver_id": n}), trips(n), at, None) for n, at in enumerate(times)]
    with pytest.raises(WriteFailed, match=r"2 rows .* The first is at position 1: ") as caught:
        project.write_rows(STATS, rows)
    assert caught.value.failed.keys() == {1, 1200}
    assert all(isinstance(error, InvalidValue) for error in caught.value.failed.values())
    found = project.get(["stats:trips"], [{"driver_id": n} for n in (0, 1, 2, 1200, 1499)])
    assert [cell.value for cell in found["trips"]] == [0, None, 2, None, 1499]


def test_the_first_moment_of_1970_is_an_event_time(start: Start) -> None:
    """An event time of 0 is stored."""
    project = start()
    project.write(STATS, [(ONE, trips(7))], at=datetime(1970, 1, 1, tzinfo=UTC))
    assert project.get(["stats:trips"], [ONE])["trips"][0].value == 7


def test_a_created_time_that_is_nat_counts_as_none(start: Start) -> None:
    """Rows without a created time are ordered by their event times."""
    project = start()
    rows = [(key(ONE), trips(n), NOW, at) for n, at in ((1, ago(days=1)), (2, pd.NaT))]
    project.write_rows(STATS, rows)
    assert project.get(["stats:trips"], [ONE])["trips"][0].value == 2


def test_progress_is_told_and_batches_may_be_large(start: Start) -> None:
    """2,500 rows are all written, and `progress` hears of each."""
    project = start()
    rows: list[FeastRow] = [
        (key({"driver_id": number}), trips(number), NOW, None) for number in range(2500)
    ]
    heard: list[int] = []
    project.store.online_write_batch(project.config, STATS, rows, heard.append)
    assert sum(heard) == 2500
    entities = [{"driver_id": number} for number in (0, 1234, 2499)]
    found = project.get(["stats:trips"], entities)
    assert [cell.value for cell in found["trips"]] == [0, 1234, 2499]


def test_whole_services_are_precomputed(start: Start) -> None:
    """Feast's precomputed vectors, which come in a view without entities, are kept."""
    project = start()
    store, config = project.store, project.config
    store.write_precomputed_vector(config, "service", "shop", key(ONE), b"vector")
    found = store.read_precomputed_vectors(config, "service", "shop", [key(TWO), key(ONE)])
    assert found == [None, b"vector"]


@on_dynoxide
def test_a_store_that_cannot_be_reached_is_no_empty_store(start: Start) -> None:
    """A read that fails says so; it does not answer that nothing is there."""
    project = start(timeout=0.5)
    project.config.online_store.url = NOWHERE
    project.close()
    with pytest.raises(OnlineStoreError) as refused:
        project.get(["stats:trips"], [ONE])
    assert not isinstance(refused.value, UnknownFeature)


def test_plan_sends_nothing_and_refuses_what_apply_would(tmp_path: Path) -> None:
    """`plan` needs no table; a bad URL, or a name that is too long, is refused by it."""
    with asyncio.Runner() as runner:
        project = Project(f"sqlite:///{tmp_path}/features.db", tmp_path, runner, False)
        registry = project.features.registry.proto()
        project.config.online_store.url = NOWHERE
        assert project.store.plan(project.config, registry) == []
        project.config.online_store.url = "http://table"
        with pytest.raises(InvalidURL):
            project.store.plan(project.config, registry)
        project.config.online_store.url = NOWHERE
        registry.feature_views.append(
            view("v" * 300, [Field(name="moment", dtype=UnixTimestamp)]).to_proto()
        )
        with pytest.raises(InvalidSchema):
            project.store.plan(project.config, registry)
        project.close()


def test_what_another_process_has_changed_is_noticed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads sees fields that another process dropped and registered anew, by new ids."""
    here, there = start(), start()
    here.write(STATS, [(ONE, trips(7))])
    assert there.get(["stats:trips"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    texts = view("stats", [Field(name="trips", dtype=String), Field(name="rating", dtype=Float64)])
    here.features.apply([texts])
    here.write(texts, [(ONE, {"trips": Value(string_val="many")})])
    there.features.refresh_registry()
    assert there.get(["stats:trips"], [ONE])["trips"] == [Cell("many", "PRESENT")]
    here.features.apply([], objects_to_delete=[texts], partial=False)
    here.features.apply([texts])
    there.features.refresh_registry()
    much_later(monkeypatch)
    assert there.get(["stats:trips"], [ONE])["trips"] == [Cell(None, "NOT_FOUND")]


def test_a_server_may_open_its_connections_first(start: Start) -> None:
    """`initialize` connects, what it opened serves, and `close` may be repeated."""
    project = start()
    project.runner.run(project.store.initialize(project.config))
    project.write(STATS, [(ONE, trips(7))])
    assert project.get(["stats:trips"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    assert project.store.async_supported.read
    assert project.store.async_supported.write
    project.close()


def test_an_online_store_per_batch_opens_one_store(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast's engines make an online store for each batch: one store is opened for all of them."""
    with asyncio.Runner() as runner:
        project = Project(url, tmp_path, runner, False)
        project.close()
    opened = []
    original = OnlineStore.open.__func__  # type: ignore[attr-defined]

    def counting(cls: Any, url: str, *more: Any, **options: Any) -> OnlineStore:
        opened.append(url)
        found: OnlineStore = original(cls, url, *more, **options)
        return found

    monkeypatch.setattr(OnlineStore, "open", classmethod(counting))
    config = project.config
    stores = [ChalkOnlineStore() for _ in range(10)]
    for number, store in enumerate(stores):
        table = copy.deepcopy(STATS)
        data: list[FeastRow] = [(key({"driver_id": number}), trips(number), NOW, None)]
        store.online_write_batch(config, table, data, None)
    assert len(opened) == 1
    entities = [key({"driver_id": number}) for number in range(10)]
    found = stores[0].online_read(config, STATS, entities, ["trips"])
    assert [values["trips"].int64_val for _, values in found if values] == [*range(10)]
    for store in stores[1:]:
        asyncio.run(store.close())
    assert stores[0].online_read(config, STATS, entities[:1], ["trips"])[0][1]
    asyncio.run(stores[0].close())
    stores[1].online_read(config, STATS, entities[:1], ["trips"])
    assert len(opened) == 2
    asyncio.run(stores[1].close())


def test_nothing_else_needs_feast() -> None:
    """The library and its command line are imported without Feast."""
    code = "import chalk_online_store.cli.app, sys; sys.exit('feast' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_definition_that_is_out_of_date_harms_no_other_view(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who still has a field's former type is refused for that view, and served the others."""
    here, there = start(), start()
    here.write(STATS, [(ONE, trips(7))])
    here.write(PLACE, [(ONE, {"street": Value(string_val="Main")})])
    assert there.get(["stats:trips", "place:street"], [ONE])["trips"] == [Cell(7, "PRESENT")]
    here.features.apply([view("stats", [Field(name="trips", dtype=String)])])
    much_later(monkeypatch)
    for _ in range(2):
        assert there.read_rows(PLACE, [ONE])[0][1] == {"street": Value(string_val="Main")}
        there.write(PLACE, [(TWO, {"street": Value(string_val="High")})])
        with pytest.raises(TypeConflict, match="stats@trips"):
            there.write(STATS, [(ONE, trips(8))])
        with pytest.raises(TypeConflict, match="stats@trips"):
            there.read_rows(STATS, [ONE])


def test_threads_may_meet_views_at_once(url: str, tmp_path: Path) -> None:
    """Threads that each begin with another view of the same entities all read what is there."""
    views = [view(f"view_{n}", [Field(name="trips", dtype=Int64)]) for n in range(8)]
    with asyncio.Runner() as runner, ThreadPoolExecutor(8) as threads:
        project = Project(url, tmp_path, runner, False)
        project.features.apply(views)
        for number, table in enumerate(views):
            project.write(table, [(ONE, trips(number))])
        for _ in range(5):
            project.close()  # What it has met is forgotten.
            found = threads.map(lambda table: project.read_rows(table, [ONE]), views)
            assert list(found) == [[(NOW, trips(number))] for number in range(8)]
        project.close()


def much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let enough time have passed for the registry to be read again."""
    now = time.monotonic
    monkeypatch.setattr("chalk_online_store.drivers.steps.time.monotonic", lambda: now() + 6)


def later(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Let time have passed, by the clock on the wall."""
    now = time.time_ns
    monkeypatch.setattr(
        "chalk_online_store.drivers.steps.time.time_ns", lambda: now() + seconds * 10**9
    )
