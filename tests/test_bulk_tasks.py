"""Sinks, scans and lookups, as the tasks of a distributed engine run them."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import pickle
import signal
import stat
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from chalk_online_store import Document, Feature, Namespace, OnlineStore, Vector, feature, features
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import render_item
from chalk_online_store.errors import (
    FutureTimestamp,
    InvalidSchema,
    InvalidValue,
    LoadIncomplete,
    OnlineStoreError,
    RegistryUnavailable,
    TypeConflict,
    UnknownFeature,
)
from chalk_online_store.integrations import bulk
from chalk_online_store.integrations.bulk import (
    Lookup,
    Scan,
    ScanPart,
    Sink,
    Written,
    close_shared_stores,
)
from chalk_online_store.integrations.stores import shared_store
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from chalk_online_store.writer.sending import WriteRate

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@features
class User:
    """A namespace of two groups."""

    id: int
    name: str | None
    visits: int
    risk: float | None = feature(group="realtime")
    embedding: Vector[2, "f4"]  # noqa: F821, UP037


@pytest.fixture(params=["sqlite", "dynoxide", "valkey"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/features.db"
    if request.param == "valkey":
        server: Valkey = request.getfixturevalue("valkey")
        return server.url(prefix=uuid.uuid4().hex)
    engine: Dynoxide = request.getfixturevalue("dynoxide")
    name = f"table-{uuid.uuid4().hex}"
    create_table(engine.endpoint_url, name)
    return engine.url(name)


@pytest.fixture(autouse=True)
def _closed_stores() -> Iterator[None]:
    yield
    close_shared_stores()


def users(keys: range, at: datetime = NOW, factor: int = 1) -> pa.Table:
    count = len(keys)
    return pa.table(
        {
            "id": list(keys),
            "name": [None if key % 5 == 0 else f"user {key}" for key in keys],
            "visits": [key * factor for key in keys],
            "risk": [key / 7 for key in keys],
            "embedding": pa.array([[key, 0.5] for key in keys], pa.list_(pa.float32(), 2)),
            "ts": pa.array([at] * count, pa.timestamp("us", "UTC")),
        }
    )


def stored(scan: Scan) -> pa.Table:
    parts = [pickle.loads(pickle.dumps(part)) for part in scan.parts()]
    batches = [batch for part in parts for batch in scan.read(part)]
    return pa.Table.from_batches(batches, scan.arrow_schema).sort_by("id")


def write_task(sink: Sink, table: pa.Table, partition: int) -> Written:
    return sink.write(table.to_batches(max_chunksize=40), partition=partition)


def scan_task(scan: Scan, part: ScanPart) -> pa.Table:
    return pa.Table.from_batches(scan.read(part), scan.arrow_schema)


# --- together ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pool_of_processes_writes_and_scans(dynoxide: Dynoxide, table: str) -> None:
    """Spawned processes write every row once and scan each entity once, with its exact values."""
    url, rows = dynoxide.url(table), users(range(300))
    sink = Sink(url, User, observed_at="ts").prepare(writers=2, columns=rows.schema)
    scan = Scan(url, User, segments=4)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(write_task, sink, rows.slice(n * 75, 75), n) for n in range(4)]
        total = sink.total(part.result(300) for part in parts)
        read = [pool.submit(scan_task, scan, part) for part in scan.parts()]
        found = pa.concat_tables([part.result(300) for part in read]).sort_by("id")
    assert (total.rows, total.written, total.superseded, total.dead) == (300, 300, 0, 0)
    assert total.wcu == 600
    assert found.equals(rows.drop_columns(["ts"]).cast(scan.arrow_schema))


def test_every_engine_reads_back_what_was_written(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan in several segments gives each entity once, with the declared columns."""
    monkeypatch.setattr(bulk, "_PAGE_ITEMS", 50)
    rows = users(range(300))
    sink = Sink(any_url, User, observed_at="ts").prepare(writers=1)
    assert sink.write(rows).written == 300
    scan = Scan(any_url, User, segments=3)
    found = stored(scan)
    assert found.equals(rows.drop_columns(["ts"]).cast(scan.arrow_schema))
    sizes = [sum(batch.num_rows for batch in scan.read(part)) for part in scan.parts()]
    assert sum(sizes) == 300
    assert min(sizes) > 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_task_runs_again(tmp_path: Path) -> None:
    """A task that was killed half-way and runs again leaves what one whole run leaves."""
    url, rows = f"sqlite:///{tmp_path}/features.db", users(range(4_000))
    sink = Sink(url, User, observed_at="ts").prepare(writers=1)
    task = multiprocessing.get_context("fork").Process(target=write_task, args=(sink, rows, 0))
    task.start()
    scan, deadline = Scan(url, User, ["visits"]), time.monotonic() + 60
    while not any(batch.num_rows for batch in scan) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert task.pid is not None
    os.kill(task.pid, signal.SIGKILL)
    task.join(60)
    newer = users(range(10), NOW + timedelta(hours=1), factor=100)
    assert sink.write(newer).written == 10
    again = write_task(sink, rows, 0)
    assert (again.rows, again.written, again.superseded) == (4_000, 3_990, 10)
    assert stored(scan)["visits"].to_pylist() == [n * (100 if n < 10 else 1) for n in range(4_000)]


# --- counts --------------------------------------------------------------------------------


def test_each_row_is_counted_once(any_url: str) -> None:
    """Written, superseded and dead rows add up to the rows that were read."""
    sink = Sink(any_url, User, observed_at="ts", max_dead=None).prepare(writers=1)
    sink.write(users(range(20), NOW))
    older = users(range(30), NOW - timedelta(days=1))  # 20 are older than what is there.
    bad = older.set_column(
        2, "visits", pa.array([None if n >= 25 else n for n in range(30)], pa.int64())
    )
    found = sink.write(bad)
    assert (found.rows, found.written, found.superseded, found.dead) == (30, 5, 20, 5)
    assert sum(found.reasons.values()) == 5
    (reason,) = found.reasons
    assert reason.startswith("InvalidValue: user.visits")


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_rows_of_one_entity_in_a_batch_are_counted(any_url: str, ordering: Any) -> None:
    """Of several rows of one entity, the one that is left is written, and the others superseded."""
    table = pa.concat_tables(users(range(3), NOW + timedelta(hours=n), n + 1) for n in range(4))
    sink = Sink(any_url, User, observed_at="ts", ordering=ordering).prepare(writers=1)
    found = sink.write(table)
    assert (found.rows, found.written, found.superseded) == (12, 3, 9)
    assert stored(Scan(any_url, User))["visits"].to_pylist() == [0, 4, 8]


def test_writing_the_same_again_is_written(any_url: str) -> None:
    """A task that runs again counts its rows as written, not as superseded."""
    sink = Sink(any_url, User, observed_at="ts").prepare(writers=1)
    first, again = sink.write(users(range(9))), sink.write(users(range(9)))
    assert (first.written, again.written) == (9, 9)


def test_a_row_of_which_one_group_is_newer_is_written(tmp_path: Path) -> None:
    """A row counts as written if any of its groups was stored."""
    url = f"sqlite:///{tmp_path}/features.db"
    sink = Sink(url, User, observed_at="ts").prepare(writers=1)
    sink.write(users(range(5)).select(["id", "risk", "ts"]))
    found = sink.write(users(range(5), NOW - timedelta(days=1)))
    assert (found.written, found.superseded) == (5, 0)


def test_too_many_dead_rows_fail_the_job(tmp_path: Path) -> None:
    """Totals raise above `max_dead`, with counts and reasons, after all other rows are written."""
    url = f"sqlite:///{tmp_path}/features.db"
    rows = users(range(50)).set_column(
        2, "visits", pa.array([None if n % 10 == 0 else n for n in range(50)], pa.int64())
    )
    sink = Sink(url, User, observed_at="ts", max_dead=4).prepare(writers=1)
    parts = [sink.write(rows.slice(start, 25)) for start in (0, 25)]
    with pytest.raises(LoadIncomplete, match="5 of 50 rows of 'user'") as failed:
        sink.total([*parts, None])
    assert failed.value.written.dead == 5
    assert pickle.loads(pickle.dumps(failed.value)).written == failed.value.written
    assert stored(Scan(url, User)).num_rows == 45
    assert Sink(url, User, max_dead=5).total(parts).written == 45
    assert Sink(url, User, max_dead=None).total(parts).written == 45


def test_dead_letters_are_files_of_their_partition(tmp_path: Path) -> None:
    """Each task with dead rows has a private file, which a second run of the task replaces."""
    url, letters = f"sqlite:///{tmp_path}/features.db", tmp_path / "letters"
    sink = Sink(url, User, observed_at="ts", max_dead=None, dead_letters=str(letters))
    sink = sink.prepare(writers=1)
    rows = users(range(6)).set_column(1, "name", pa.array([b"\xff"] * 2 + [None] * 4, pa.binary()))
    for _ in range(2):
        assert sink.write(rows, partition=7).dead_letters == (f"{letters}/dead-00007.jsonl",)
    assert sink.write(users(range(6)), partition=8).dead_letters == ()
    (file,) = letters.iterdir()
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["row"]["id"] for each in found] == [0, 1]
    assert {each["error"] for each in found} == {"InvalidValue"}
    assert {each["observed_at"] for each in found} == {NOW.isoformat()}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_task_that_fails_leaves_no_dead_letters(tmp_path: Path) -> None:
    """An error in the middle of a task removes the draft of its dead letters."""
    url, letters = f"sqlite:///{tmp_path}/features.db", tmp_path / "letters"
    sink = Sink(url, User, observed_at="ts", dead_letters=str(letters)).prepare(writers=1)
    bad = users(range(3)).set_column(2, "visits", pa.nulls(3, pa.int64()))
    with pytest.raises(UnknownFeature):
        sink.write([bad, bad.append_column("unknown", [[1, 2, 3]])])
    assert list(letters.iterdir()) == []


def test_reasons_are_bounded_and_hold_no_values() -> None:
    """Totals keep 20 reasons, and count the rest together."""
    one = [Written(rows=1, dead=1, reasons={f"reason {n}": 1}) for n in range(50)]
    total = sum(one, Written())
    assert total.dead == sum(total.reasons.values()) == 50
    assert len(total.reasons) == 21


# --- preparing -----------------------------------------------------------------------------


def test_a_sink_that_is_not_prepared_does_not_write(tmp_path: Path) -> None:
    """Without a fixed observed-at a repeated task would replace newer values, so it is refused."""
    with pytest.raises(InvalidValue, match="prepare"):
        Sink(f"sqlite:///{tmp_path}/features.db", User).write(users(range(2)))


def test_the_observed_at_is_fixed_once(tmp_path: Path) -> None:
    """Two runs of a task state the same observed-at: the moment of `prepare`."""
    url = f"sqlite:///{tmp_path}/features.db"
    sink = Sink(url, User).prepare(writers=1)
    rows = users(range(1)).drop_columns(["ts"])
    sink.write(rows)
    scan = Scan(url, User, ["visits"], observed_at=True)
    first = stored(scan)["visits.observed_at"].to_pylist()
    pickle.loads(pickle.dumps(sink)).write(rows)
    assert stored(scan)["visits.observed_at"].to_pylist() == first == [sink.observed_at]


def test_preparing_registers_and_sends_nothing_else(dynoxide: Dynoxide, table: str) -> None:
    """Ids are registered once, by the driver: a task's first write is all that it sends."""
    sink = Sink(dynoxide.url(table), User, observed_at="ts").prepare(writers=1)
    close_shared_stores()  # As in another process.
    assert stored(Scan(dynoxide.url(table), User)).num_rows == 0
    assert sink.write(users(range(3))).wcu == 6


def test_the_rate_is_divided() -> None:
    """Each writer of a prepared sink has its share of the rate."""
    sink = Sink("sqlite://", User, wcu_per_second=100).prepare(writers=8)
    assert sink.wcu_per_second == 12.5


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"visits": pa.string()}, InvalidValue),
        ({"name": pa.int64()}, InvalidValue),
        ({"id": pa.string()}, InvalidValue),
        ({"risk": pa.timestamp("us", "UTC")}, InvalidValue),
        ({"visits": pa.list_(pa.int64())}, InvalidValue),
        ({"unknown": pa.int64()}, UnknownFeature),
    ],
)
def test_columns_of_the_wrong_type_are_refused_at_once(
    columns: dict[str, pa.DataType], error: type[OnlineStoreError]
) -> None:
    """A column that no value of its feature can be in is an error of the job, not of each row."""
    schema = pa.schema({"id": pa.int64(), **columns})
    with pytest.raises(error, match=next(iter(columns))):
        Sink("sqlite://", User).prepare(writers=1, columns=schema)


def test_columns_that_fit_are_accepted() -> None:
    """Dictionaries, narrow and wide numbers, large strings and nulls pass the check."""
    schema = pa.schema(
        {
            "id": pa.uint8(),
            "name": pa.dictionary(pa.int8(), pa.large_string()),
            "visits": pa.float64(),
            "risk": pa.null(),
            "embedding": pa.list_(pa.float64()),
        }
    )
    assert Sink("sqlite://", User).prepare(writers=1, columns=schema).is_prepared


def test_a_conflict_with_the_registry_is_found_by_the_driver(tmp_path: Path) -> None:
    """A feature that is registered with another type fails `prepare`, not each task."""
    url = f"sqlite:///{tmp_path}/features.db"
    Sink(url, Namespace("user", int, [Feature("visits", str)])).prepare(writers=1)
    with pytest.raises(TypeConflict):
        Sink(url, User).prepare(writers=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"observed_at": 7}, InvalidValue),
        ({"observed_at": datetime(2026, 1, 1)}, InvalidValue),  # noqa: DTZ001
        ({"ordering": "newest"}, InvalidValue),
        ({"wcu_per_second": 0}, InvalidValue),
        ({"wcu_per_second": "fast"}, InvalidValue),
        ({"max_dead": -1}, InvalidValue),
        ({"max_dead": 0.5}, InvalidValue),
        ({"dead_letters": 3}, InvalidValue),
        ({"key": ["a", "b"]}, InvalidValue),
    ],
)
def test_bad_options_of_a_sink_are_refused(
    options: dict[str, Any], error: type[OnlineStoreError]
) -> None:
    """A sink cannot be made with options that its tasks could not use."""
    with pytest.raises(error):
        Sink("sqlite://", User, **options)


@pytest.mark.parametrize("name", ["no_such_module:User", f"{__name__}:Missing", "User", ":"])
def test_a_schema_that_cannot_be_imported_is_refused(name: str) -> None:
    """The name of a feature class that is not there is refused where the sink is made."""
    with pytest.raises(InvalidSchema):
        Sink("sqlite://", name)


def test_a_sink_pickles_and_shows_no_password() -> None:
    """A sink with its class of features survives pickle; its URL is not in its repr."""
    sink = Sink("valkey://me:secret@127.0.0.1/0", User, observed_at="ts")
    assert pickle.loads(pickle.dumps(sink)) == sink
    assert "secret" not in repr(sink) + repr(Scan(sink.url, User)) + repr(Lookup(sink.url, User))


@pytest.mark.slow
def test_an_unreachable_engine_fails_the_task() -> None:
    """A task whose engine is unreachable from its start raises, and does not wait."""
    sink = Sink("sqlite://", User).prepare(writers=1)
    object.__setattr__(sink, "url", "valkey://127.0.0.1:1/0")
    with pytest.raises(RegistryUnavailable):
        sink.write(users(range(1)).drop_columns(["ts"]))


def test_rows_too_far_ahead_are_dead() -> None:
    """A row whose observed-at is ahead of the clock is dead, and counted by that reason."""
    sink = Sink("sqlite://", User, observed_at="ts", max_dead=None).prepare(writers=1)
    found = sink.write(users(range(3), datetime.now(UTC) + timedelta(days=1)))
    assert found.dead == 3
    assert [reason.partition(":")[0] for reason in found.reasons] == [FutureTimestamp.__name__]


# --- the rate ------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [1.0, 4.0])
def test_short_writers_in_a_row_keep_the_rate(cost: float) -> None:
    """Forty tasks one after the other take as long as the rate says, however little each writes.

    `cost` is what an estimated unit turns out to cost.
    """
    now = sent = 0.0
    for task in range(40):
        rate = WriteRate(200, prepaid=True)
        for _ in range(1 + task % 3):
            while (wait := rate.wait(now, backfill=True)) > 0:
                now += wait
            rate.spend(25)
            rate.settle(25, 25 * cost, throttled=False, now=now)
            sent += 25 * cost
        while (wait := rate.debt(now)) > 0:
            now += wait
    assert sent / now == pytest.approx(200, rel=0.26 if cost == 1 else 0.07)
    assert sent / now <= 200 * 1.26


def test_tasks_of_a_sink_keep_the_rate(dynoxide: Dynoxide, table: str) -> None:
    """Tasks that follow each other take at least the time that the rate says for their WCU."""
    sink = Sink(dynoxide.url(table), User, observed_at="ts", wcu_per_second=400)
    sink = sink.prepare(writers=1)
    sink.write(users(range(1)))
    started = time.monotonic()
    parts = [sink.write(users(range(n * 30, n * 30 + 30))) for n in range(8)]
    assert sum(part.wcu for part in parts) == 480
    assert time.monotonic() - started >= 480 / 400


# --- scanning ------------------------------------------------------------------------------


def test_deleted_and_stale_entities_are_left_out(any_url: str) -> None:
    """A scan has the entities of which something can be served; statuses say what is null."""
    old = datetime.now(UTC) - timedelta(hours=2)
    ns = Namespace(
        "user",
        int,
        [Feature("visits", int | None), Feature("risk", float, max_staleness="1h")],
    )
    with OnlineStore.open(any_url, [ns]) as store:
        rows = [{"id": n, "visits": None if n == 1 else n, "risk": 0.5} for n in range(5)]
        store.write(ns, rows, observed_at=old)
        store.write(ns, [{"id": 9, "risk": 0.5}], observed_at=old)
        store.delete(ns, [2])
    found = stored(Scan(any_url, ns, statuses=True, segments=2))
    assert found["id"].to_pylist() == [0, 1, 3, 4]
    assert found["visits"].to_pylist() == [0, None, 3, 4]
    assert found["visits.status"].to_pylist() == ["hit", "null", "hit", "hit"]
    assert set(found["risk.status"].to_pylist()) == {"stale"}
    fresh = Scan(any_url, ns, ["risk"], max_staleness={"risk": "1d"})
    assert stored(fresh)["id"].to_pylist() == [0, 1, 3, 4, 9]


def test_other_namespaces_are_left_out(any_url: str) -> None:
    """A scan has the entities of its namespace alone, whatever else is in the table."""
    other = Namespace("item", str, [Feature("price", Decimal)])
    with OnlineStore.open(any_url, [other, User]) as store:
        store.write(other, [{"id": f"i{n}", "price": Decimal(n)} for n in range(30)])
        store.write(User, [{"id": n, "visits": n} for n in range(20)])
    assert stored(Scan(any_url, User, ["visits"], segments=2)).num_rows == 20
    found = stored(Scan(any_url, other))
    assert sorted(found["price"].to_pylist()) == sorted(str(n) for n in range(30))


def test_keys_of_several_parts_come_back(any_url: str) -> None:
    """Tuple keys with separators in them, UUIDs included, come back in their columns."""
    ns = Namespace("pair", tuple[int, str, uuid.UUID], [Feature("n", int)])
    uid = uuid.uuid4()
    keys = [(n, text, uid) for n in (-1, 2**40) for text in ("", "a:b", "\\", "é")]
    with OnlineStore.open(any_url, [ns]) as store:
        store.write(ns, [{"id": key, "n": n} for n, key in enumerate(keys)])
    scan = Scan(any_url, ns, segments=3, key=["a", "b", "c"])
    found = pa.Table.from_batches(iter(scan), scan.arrow_schema).sort_by("n").to_pylist()
    assert found == [{"a": a, "b": b, "c": str(c), "n": n} for n, (a, b, c) in enumerate(keys)]
    assert Scan(any_url, ns).arrow_schema.names == ["id.0", "id.1", "id.2", "n"]


def test_items_of_an_entity_on_two_pages_meet(
    dynoxide: Dynoxide, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entity whose groups are on two pages of a scan comes once, with the values of both."""
    monkeypatch.setattr(bulk, "_PAGE_ITEMS", 3)
    url = dynoxide.url(table)
    Sink(url, User, observed_at="ts").prepare(writers=1).write(users(range(20)))
    scan = Scan(url, User, ["visits", "risk"], segments=2)
    expected = users(range(20)).select(["id", "visits", "risk"])
    assert stored(scan).equals(expected.cast(scan.arrow_schema))


def test_a_scan_keeps_its_read_rate(
    dynoxide: Dynoxide, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of a scan take the time that the rate says for the RCU of those before them."""
    monkeypatch.setattr(bulk, "_PAGE_ITEMS", 20)
    url = dynoxide.url(table)
    Sink(url, User, observed_at="ts").prepare(writers=1).write(users(range(100)))
    scan = Scan(url, User, rcu_per_second=5)
    started = time.monotonic()
    assert sum(batch.num_rows for batch in scan) == 100
    assert time.monotonic() - started >= 9 * 0.5 / 5


def test_an_empty_table_has_no_entities(any_url: str) -> None:
    """A scan of a table that nothing was written to yields nothing, and creates nothing."""
    assert list(Scan(any_url, User, segments=2)) == []


def test_documents_cannot_be_scanned() -> None:
    """A feature that has no Arrow type of its own is refused by name where the scan is made."""
    ns = Namespace("user", int, [Feature("n", int), Feature("anything", Document)])
    with pytest.raises(InvalidSchema, match=r"user\.anything"):
        Scan("sqlite://", ns)
    assert Scan("sqlite://", ns, ["n"]).arrow_schema.names == ["id", "n"]


def test_an_integer_of_more_than_64_bits_is_refused(tmp_path: Path) -> None:
    """A value that its column cannot hold is an error that names the column, not the value."""
    url, ns = f"sqlite:///{tmp_path}/features.db", Namespace("user", int, [Feature("n", int)])
    with OnlineStore.open(url, [ns]) as store:
        store.write(ns, [{"id": 1, "n": 2**70}])
    with pytest.raises(InvalidValue, match="Column 'n'") as failed:
        list(Scan(url, ns))
    assert str(2**70) not in str(failed.value)


# --- exports -------------------------------------------------------------------------------


def exported(url: str, directory: Path, files: int) -> Path:
    """Write the items of a table as DynamoDB exports them to S3."""
    export = directory / "AWSDynamoDB" / "01234567890123-abcdef"
    (export / "data").mkdir(parents=True)
    with OnlineStore.open(url, [User]) as store:
        items: list[bytes] = []
        start = b""
        while not items or start:
            call = Call(time.monotonic() + 60)
            page = store.driver.run(store.core.backend.scan_items(0, 1, start, 100, call))
            items += [b'{"Item":%b}\n' % render_item(item) for item in page.items]
            start = page.next
    manifest = []
    for number in range(files):
        some = items[number::files]
        name = f"{number:026}.json.gz"
        (export / "data" / name).write_bytes(gzip.compress(b"".join(some)))
        manifest.append({"itemCount": len(some), "dataFileS3Key": f"{export}/data/{name}"})
    lines = "\n".join(map(json.dumps, manifest))
    (export / "manifest-files.json").write_text(lines)
    return export


def test_an_export_is_scanned(dynoxide: Dynoxide, table: str, tmp_path: Path) -> None:
    """Parts of an export have each entity once, with its values, and other items are left out."""
    url, other = dynoxide.url(table), Namespace("item", int, [Feature("price", int)])
    Sink(url, User, observed_at="ts").prepare(writers=1).write(users(range(150)))
    Sink(url, other).prepare(writers=1).write(pa.table({"id": [1], "price": [2]}))
    export = exported(url, tmp_path, files=5)
    for directory in (str(export), export.as_uri()):
        scan = Scan(url, User, ["visits", "embedding"], segments=3, export=directory)
        expected = users(range(150)).select(["id", "visits", "embedding"])
        assert stored(scan).equals(expected.cast(scan.arrow_schema))
    risks = stored(Scan(url, User, ["risk"], export=str(export)))
    assert risks["risk"].to_pylist() == [n / 7 for n in range(150)]


def test_an_export_of_several_groups_is_refused() -> None:
    """Features of two groups cannot be joined from the files of an export."""
    with pytest.raises(InvalidValue, match="'default', 'realtime'"):
        Scan("sqlite://", User, export="/tmp/none")


@pytest.mark.parametrize("damage", ["missing file", "cut off", "fewer items", "no manifest"])
def test_an_incomplete_export_is_refused(
    dynoxide: Dynoxide, table: str, tmp_path: Path, damage: str
) -> None:
    """An export that lost a file, a part of one or its manifest raises an error."""
    url = dynoxide.url(table)
    Sink(url, User, observed_at="ts").prepare(writers=1).write(users(range(20)))
    export = exported(url, tmp_path, files=2)
    file = export / "data" / f"{0:026}.json.gz"
    if damage == "missing file":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "fewer items":
        lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
        file.write_bytes(gzip.compress(b"".join(lines[1:])))
    else:
        (export / "manifest-files.json").unlink()
    with pytest.raises(InvalidValue, match="export"):
        stored(Scan(url, User, ["visits"], export=str(export)))


# --- lookups -------------------------------------------------------------------------------


def test_a_lookup_adds_features_by_key(any_url: str) -> None:
    """Rows keep their order and duplicates; a row without a key or an entity gets nulls."""
    Sink(any_url, User, observed_at="ts").prepare(writers=1).write(users(range(10)))
    lookup = Lookup(any_url, User, ["visits", "embedding"], key=["who"], prefix="user_")
    batch = pa.table({"who": [3, None, 99, 3, 0], "x": ["a", "b", "c", "d", "e"]})
    found = pickle.loads(pickle.dumps(lookup))(batch)
    assert found.schema == lookup.arrow_schema(batch.schema)
    assert found.to_pylist() == [
        {"who": 3, "x": "a", "user_visits": 3, "user_embedding": [3.0, 0.5]},
        {"who": None, "x": "b", "user_visits": None, "user_embedding": None},
        {"who": 99, "x": "c", "user_visits": None, "user_embedding": None},
        {"who": 3, "x": "d", "user_visits": 3, "user_embedding": [3.0, 0.5]},
        {"who": 0, "x": "e", "user_visits": 0, "user_embedding": [0.0, 0.5]},
    ]
    (first, second) = lookup.batches(batch.to_batches(max_chunksize=3))
    assert pa.Table.from_batches([first, second]).equals(found)
    empty = lookup(batch.slice(0, 0))
    assert (empty.num_rows, empty.schema) == (0, found.schema)


def test_a_lookup_does_not_replace_a_column(tmp_path: Path) -> None:
    """A feature of the name of a column is refused, unless it has a prefix."""
    url, batch = f"sqlite:///{tmp_path}/features.db", pa.table({"id": [1], "visits": [2]})
    with pytest.raises(InvalidValue, match="'visits'"):
        Lookup(url, User, ["visits"])(batch)
    assert Lookup(url, User, ["visits"], prefix="f.")(batch).column_names[-1] == "f.visits"
    with pytest.raises(InvalidValue, match="'uid'"):
        Lookup(url, User, ["risk"], key=["uid"])(batch)


# --- shared stores -------------------------------------------------------------------------


def test_tasks_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of one process open one store for a URL, whatever copies of a namespace they have."""
    opened: Counter[str] = Counter()
    original = OnlineStore.open.__func__  # type: ignore[attr-defined]

    def counting(cls: Any, url: str, *more: Any, **options: Any) -> OnlineStore:
        opened[url] += 1
        found: OnlineStore = original(cls, url, *more, **options)
        return found

    monkeypatch.setattr(OnlineStore, "open", classmethod(counting))
    url = f"sqlite:///{tmp_path}/features.db"
    sink = Sink(url, User, observed_at="ts").prepare(writers=1)
    for n in range(10):
        pickle.loads(pickle.dumps(sink)).write(users(range(n, n + 1)))
    store, namespace = shared_store(url, pickle.loads(pickle.dumps(sink.namespace)))
    assert opened == {url: 1}
    assert len(store.core._declared) == 1
    assert [row["visits"] for row in store.read(namespace, range(10))] == [*range(10)]


def test_versions_of_a_namespace_share_a_store(tmp_path: Path) -> None:
    """Tasks with an older and a newer schema of one namespace use one store in turn."""
    url = f"sqlite:///{tmp_path}/features.db"
    old = Namespace("user", int, [Feature("a", int)])
    new = Namespace("user", int, [Feature("a", int), Feature("b", int)])
    for n in range(3):
        Sink(url, old).prepare(writers=1).write(pa.table({"id": [n], "a": [n]}))
        Sink(url, new).prepare(writers=1).write(pa.table({"id": [n + 10], "a": [n], "b": [n]}))
    assert stored(Scan(url, new))["b"].to_pylist() == [None, None, None, 0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_uses_the_stores_of_its_parent(dynoxide: Dynoxide, table: str) -> None:
    """A child that was forked with an open store writes by it, and so does its parent."""
    sink = Sink(dynoxide.url(table), User, observed_at="ts").prepare(writers=1)
    sink.write(users(range(5)))
    child = multiprocessing.get_context("fork").Process(
        target=write_task, args=(sink, users(range(5, 10)), 1)
    )
    child.start()
    sink.write(users(range(10, 15)))
    child.join(60)
    assert child.exitcode == 0
    assert stored(Scan(dynoxide.url(table), User)).num_rows == 15


def test_closed_stores_are_opened_again(tmp_path: Path) -> None:
    """After the shared stores are closed, the next task opens another."""
    url = f"sqlite:///{tmp_path}/features.db"
    sink = Sink(url, User, observed_at="ts").prepare(writers=1)
    first, _ = shared_store(url, sink.namespace)
    close_shared_stores()
    assert first.core.closed
    assert sink.write(users(range(2))).written == 2
