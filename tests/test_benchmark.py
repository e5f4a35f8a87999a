"""The benchmarks run, hold every client to the same values, and keep what the layout promises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import (
    breakdown,
    caching,
    cpu,
    curves,
    ideas,
    instructions,
    memory,
    report,
    results,
    tips,
    transports,
    valkey_layouts,
    writing,
)
from benchmarks import bytes as weighing
from benchmarks.check import WrongResult, check, to_columns
from benchmarks.clients import OURS
from benchmarks.crew import Crewman, WorkerFailed, crew
from benchmarks.data import Row
from benchmarks.entities import COUNTS, ENTITIES, entities
from benchmarks.layouts import feast_value
from benchmarks.server import CannedServer
from benchmarks.tables import KEYS, Tables
from benchmarks.workloads import READ_MANY, STREAM, WORKLOADS, Workload

from tests.helpers import STRESS

SMALL = [Workload(w.action, min(w.entities, 10), 20) for w in WORKLOADS if w.features == 20]


@pytest.mark.slow
def test_one_round_measures_every_client_at_everything_that_it_can_do() -> None:
    """Real workers read what they wrote, in every way, and one round yields a line for each."""
    clients = (*OURS.values(), "boto3 resource", "boto3 client", "floor")
    found, versions = cpu.run(clients, SMALL, rounds=1)
    lines = {(line["workload"], line["client"]) for line in found}
    assert {title for title, _ in lines} == {workload.title for workload in SMALL}
    assert {client for _, client in lines} == set(clients)
    assert all(line["cpu_us"] > 0 for line in found)
    assert {"chalk-online-store", "boto3"} <= versions.keys()
    table = report.cpu(found)
    assert all(client in table for client in clients)


@pytest.mark.slow
def test_streams_are_written_by_every_client_that_can() -> None:
    """Writers get all rows of a stream into the table, and are measured with their rivals."""
    clients = ("PersistenceWriter", "PersistenceWriter, durable", "boto3 batch_writer")
    with CannedServer() as server, crew(clients, server.url, None) as workers:
        for worker in workers:
            worker.do("time", workload=STREAM, times=1, at_once=1)
            assert written(server.recorded("BatchWriteItem")) == STREAM.entities
        found = writing.streams(workers, "canned server", 1, 0)
    table = report.streams(found)
    assert all(client in table for client in clients)


def written(bodies: list[Any]) -> int:
    """How many different items were put."""
    requests = [put for body in bodies for puts in body["RequestItems"].values() for put in puts]
    items = (request["PutRequest"]["Item"] for request in requests)
    return len({tuple(str(item.get(name)) for name in KEYS) for item in items})


@pytest.mark.parametrize("client", ["OnlineStore", "boto3 client"])
def test_a_client_that_reads_what_was_not_written_is_found_out(client: str) -> None:
    """A worker that wrote a quarter of the rows fails the check of all, which it passes later."""
    with CannedServer() as server, Crewman(client, server.url) as worker:
        worker.do("time", workload=Workload("write", 25), times=1, at_once=1)
        with pytest.raises(WorkerFailed, match="WrongResult"):
            worker.do("check", workload=READ_MANY)
        worker.do("fill", features=20)
        worker.do("check", workload=READ_MANY)


def _swap(rows: list[Row]) -> list[Row]:
    return [rows[1], rows[0], *rows[2:]]


def _whole_numbers(rows: list[Row]) -> list[Row]:
    return [row | {"txn_count_7d": float(row["txn_count_7d"])} for row in rows]


def _without_one_feature(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "country"} for row in rows]


def _other_dtype(rows: list[Row]) -> list[Row]:
    return [row | {"embedding": row["embedding"].astype("f8")} for row in rows]


@pytest.mark.parametrize(
    "spoil", [_swap, _whole_numbers, _without_one_feature, _other_dtype, lambda rows: rows[:-1]]
)
def test_the_check_refuses_other_values(spoil: Callable[[list[Row]], list[Row]]) -> None:
    """Order, types, features, dtypes and numbers of rows all count; rows as they are pass."""
    rows = [{k: v for k, v in row.items() if k != "id"} for row in READ_MANY.rows]
    check(rows, READ_MANY, whole_seconds=False)
    check(to_columns(rows), READ_MANY, whole_seconds=False)
    with pytest.raises(WrongResult):
        check(spoil(rows), READ_MANY, whole_seconds=False)


def test_the_canned_tables_keep_items_as_dynamodb_does() -> None:
    """What is put and updated is read again, with numbers in their shortest form."""
    tables = Tables()
    key = {"entity_id": {"S": "7"}}
    put = {"TableName": "t", "Item": key | {"a": {"N": "1.50"}, "b": {"N": "2E+3"}}}
    update = {
        "TableName": "t",
        "Key": key,
        "UpdateExpression": "SET #x = :x, c=:y",
        "ExpressionAttributeNames": {"#x": "a"},
        "ExpressionAttributeValues": {":x": {"N": "5.0"}, ":y": {"S": "z"}},
    }
    tables.perform(b"PutItem", json.dumps(put).encode())
    tables.perform(b"UpdateItem", json.dumps(update).encode())
    answer = json.loads(tables.perform(b"GetItem", b'{"TableName":"t","Key":%b}' % dump(key)))
    assert answer["Item"] == key | {"a": {"N": "5"}, "b": {"N": "2000"}, "c": {"S": "z"}}
    asked = {"TableName": "t", "Key": key, "ProjectionExpression": "#0,b"}
    asked["ExpressionAttributeNames"] = {"#0": "c"}
    answer = json.loads(tables.perform(b"GetItem", json.dumps(asked).encode()))
    assert answer["Item"] == key | {"b": {"N": "2000"}, "c": {"S": "z"}}


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_memory_is_seen_after_each_hundredth() -> None:
    """A scan reads every chunk and tells two peaks, of which the later is not the lower."""
    found = memory.run(chunks=100, chunk=10)
    assert [line["rows"] for line in found] == [1_000, 1_000]
    assert all(0 < line["first_mb"] <= line["mb"] for line in found)


@pytest.mark.slow
def test_curves_are_measured_point_by_point() -> None:
    """Each point of each axis has a line for each client; every axis of slopes can be told."""
    wanted = [
        curves.Point(axis, size, Workload("read", size), callers=size if axis == "callers" else 1)
        for axis in ("keys", "features", "callers")
        for size in (1, 2)
    ]
    found = curves.run(rounds=1, wanted=wanted)
    assert len(found) == len(wanted) * len(curves.CLIENTS)
    assert len(list(curves.slopes(found))) == 3 * len(curves.CLIENTS)


def test_calls_are_taken_apart_and_tips_are_tried() -> None:
    """Each part of a call, and both ways of each tip, take some time and have a line."""
    calls = breakdown.run(samples=1)
    assert all(time > 0 for call in calls for time in call["parts"].values())
    lines = tips.run(rounds=1)
    assert all(min(line["plain_us"], line["better_us"]) > 0 for line in lines)
    assert report.breakdown(calls).count("\n") > 5
    assert report.tips(lines).count("\n") == len(lines) + 1


@pytest.mark.slow
def test_caching_is_measured_with_the_libraries_that_are_installed() -> None:
    """Each table has its lines; the filter saves what it should, and is right about its keys."""
    found = caching.run(rounds=1, entities=400, batches=20, keys=20_000, refreshes=[0.2])
    for name, table in report.CACHING.items():
        lines = [line for line in found if f"caching {line['table']}" == name]
        assert table(found).count("\n") == len(lines) + 1
    units = {line["with"]: line for line in found if line["table"] == "rcu"}
    assert units["both"]["rcu"] < units["LRU cache"]["rcu"] < units["neither"]["rcu"]
    assert units["Bloom filter"]["absent_saved"] >= 0.95
    paths = [line for line in found if line["table"] == "paths"]
    assert all(us > 0 for line in paths for us in line["cpu_us"].values())
    filters = {line["library"]: line for line in found if line["table"] == "bloom"}
    assert {"ours", "pybloom_live.BloomFilter"} <= filters.keys()
    assert all(line["false_positive_rate"] < 0.03 for line in filters.values())
    (window,) = (line for line in found if line["table"] == "window")
    assert 0 < window["p50"] <= window["most"]
    caches = {line["library"] for line in found if line["table"] == "lru"}
    assert {"ours", "OrderedDict", "cachetools.LRUCache"} <= caches


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_a_slope_is_the_exponent_of_growth(exponent: float) -> None:
    """Of large sizes: what small ones cost does not count."""
    curve = [(size, max(1000.0, 30.0 * size**exponent)) for size in (1, 10, 100, 1000, 10_000)]
    steep = [(size, 30.0 * size**exponent) for size in (100, 1000, 10_000)]
    assert curves.slope(steep) == pytest.approx(exponent)
    assert curves.slope(curve) == pytest.approx(exponent)


def test_ratios_are_taken_round_by_round() -> None:
    """A round that was slow for both changes no ratio."""
    assert cpu.quartiles([20.0, 200.0, 20.0], [10.0, 100.0, 10.0]) == [2.0, 2.0, 2.0]
    assert cpu.quartiles([30.0], [10.0]) == [3.0, 3.0, 3.0]


def test_a_table_goes_between_its_markers_alone() -> None:
    """The text around markers stays, and so does a table whose part was not run."""
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n"
    once = results.insert(text, {"x": "new", "z": "nowhere"})
    assert once == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n"
    assert results.insert(once, {"x": "new"}) == once


def test_the_documents_tell_what_the_last_run_found() -> None:
    """The tables of both documents are those that the kept results give."""
    tables = report.tables(results.load())
    for path in results.DOCUMENTS:
        assert results.insert(path.read_text(), tables) == path.read_text()


def test_ours_is_as_much_smaller_as_was_promised() -> None:
    """At 20 features 2.3 times fewer bytes than Feast, 4.8 than JSON; at 100 half Feast's WCU."""
    lines = {(line.features, line.layout): line for line in weighing.run()}
    assert len(lines) == len(COUNTS) * 4
    assert lines[20, "Feast: protobuf"].times_bytes > 2.3
    assert lines[20, "JSON, full names"].times_bytes > 4.8
    assert lines[100, "Feast: protobuf"].times_wcu >= 2
    assert "| ours" in weighing.as_text(list(lines.values()))


def test_the_entities_are_the_same_each_time() -> None:
    """So results of two versions can be compared; keys are distinct, counts as announced."""
    first, second = entities(20), entities(20)
    assert repr(first) == repr(second)
    assert len({row["id"] for row in first}) == ENTITIES
    assert {len(row) - 1 for row in first} == {20}


@pytest.mark.slow
def test_what_ideas_save_is_told() -> None:
    """Every idea is weighed at every number of features, and has a line in the table."""
    saved = ideas.savings()
    assert {(s.idea, s.features) for s in saved} == {(i, n) for i in ideas.IDEAS for n in COUNTS}
    assert all(idea in ideas.as_text(saved) for idea in ideas.IDEAS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (150, "209601"),
        (-1, "20ffffffffffffffffff01"),
        (True, "3801"),
        (False, "3800"),
        ("testing", "120774657374696e67"),
        (1.0, "29000000000000f03f"),
        (datetime(1970, 1, 1, 0, 2, 30, tzinfo=UTC), "409601"),
        (np.array([1.0], "f4"), "0a040000803f"),
    ],
)
def test_values_of_feast_are_encoded_as_protobuf_does(value: Any, message: str) -> None:
    """The hand-made messages are those of protobuf's wire format for `feast.types.Value`."""
    assert feast_value(value).hex() == message


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_one_round_measures_every_transport(tls: bool) -> None:
    """One round yields a line for each; that all gave the same answers, the run itself checked."""
    sampled = transports.run(rounds=1, tls=tls)
    names = {line.client for line in sampled}
    assert len(sampled) == len(names) * len(transports.CALLS)
    assert {"HttpTransport", "urllib3", "AsyncHttpTransport x 16", "aiohttp x 16"} <= names
    table = transports.as_text(sampled)
    assert all(name in table for name in names)


def test_layouts_in_valkey_are_measured() -> None:
    """Every layout is read and weighed on a real server, and ours is the smallest."""
    ours, *others = found = valkey_layouts.run(rounds=1, times=1)
    assert all(ours.bytes < other.bytes for other in others)
    table = valkey_layouts.report(found)
    assert all(measured.layout in table for measured in found)


def test_more_instructions_than_committed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that takes 2 % more instructions than the committed count is named."""
    monkeypatch.setattr(instructions, "COMMITTED", tmp_path / "counts.json")
    assert instructions.compared({"read": 100}) == []
    instructions.save({"read": 100, "write": 100})
    assert instructions.compared({"read": 102, "write": 103, "new": 5}) == [
        "write: 103 instructions, 100 before"
    ]


def test_the_counted_calls_work() -> None:
    """Each call whose instructions are counted reads or writes what it says."""
    calls = instructions.calls()
    found = {name: call() for name, call in calls.items()}
    assert len(found["BatchGetItem 100 x 20, rows"]) == 100
    assert found["BatchGetItem 100 x 20, matrix"].values.shape == (100, 48)
    assert found["cached 100 x 20, matrix"].statuses.shape == (100, 17)
    assert len(found["GetItem 1 x 20, columns"]) == 20
    assert len(found["BatchWriteItem 25 x 20"]) == 25


@pytest.mark.slow
@pytest.mark.skipif(STRESS <= 1 or not shutil.which("valgrind"), reason="takes 10 s of CPU")
def test_instructions_are_counted() -> None:
    """Callgrind counts the same calls twice within 2 %."""
    once, twice = instructions.run(), instructions.run()
    assert once.keys() == twice.keys() == instructions.calls().keys()
    assert all(abs(twice[name] / count - 1) < 0.02 for name, count in once.items())
