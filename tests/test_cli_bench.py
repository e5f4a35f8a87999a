"""`chalk-online-store bench`: what it measures, and that it touches its own rows alone."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import numpy as np
import pytest

from chalk_online_store import (
    LRUCache,
    Namespace,
    OnlineStore,
    OnlineStoreConfig,
    OnlineStoreError,
    features,
)
from chalk_online_store.cli import bench as bench_run
from chalk_online_store.cli.bench import Measured, measure, on_this_machine, own_keys
from chalk_online_store.errors import RequestRefused
from chalk_online_store.report import Report
from chalk_online_store.testing import Dynoxide
from tests.helpers import exit_status


@features
class User:
    id: int
    name: str
    risk: float


@features(name="cached", online_store_config=OnlineStoreConfig(lru_cache=LRUCache(1000)))
class Cached:
    id: tuple[str, UUID]
    a: int


USER, CACHED = f"{__name__}:User", f"{__name__}:Cached"
SMALL = ("--entities", "12", "--queries", "40", "--concurrency", "4")


def run(*arguments: str) -> int:
    return exit_status("bench", *arguments)


def measured(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {each["what"]: each for each in json.loads(capsys.readouterr().out)["measured"]}


def items(dynoxide: Dynoxide, table: str) -> list[dict[str, Any]]:
    client = boto3.client("dynamodb", endpoint_url=dynoxide.endpoint_url, region_name="us-east-1")
    found = client.scan(TableName=table)["Items"]
    client.close()
    return [dict(item) for item in found if item["pk"]["S"] != "!registry"]


def test_it_measures_reads_and_writes(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each call is timed, and the units are those that an engine reports."""
    assert run("--url", url, "--schema", USER, *SMALL, "--batch", "3", "--write", "--json") == 0
    found = measured(capsys)
    for each in found.values():
        assert each["queries"] == 40
        assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"] <= each["max_ms"]
        assert each["queries_per_second"] > 0
        assert each["cpu_us_per_query"] > 0
        assert each["failed"] == 0
    counts = url.startswith("dynamodb:")
    assert (found["read"]["rcu"] > 0) is counts
    assert (found["write"]["wcu"] > 0) is counts
    assert found["read"]["wcu"] == 0


def test_units_are_those_of_the_calls(
    dynoxide: Dynoxide, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The warm-up is not counted: 40 reads of one item of less than 4 KB are 20 RCU."""
    assert run("--url", dynoxide.url(table), "--schema", USER, *SMALL, "--json") == 0
    assert measured(capsys)["read"]["rcu"] == 20


def test_a_cache_is_seen(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a cache in the schema its hits are told; keys may be of any kind."""
    arguments = ("--url", url, "--schema", CACHED, *SMALL, "--zipf", "2", "--json")
    assert run(*arguments) == 0
    assert measured(capsys)["read"]["cache_hits"] > 20


def test_other_rows_are_not_touched(dynoxide: Dynoxide, table: str) -> None:
    """What lay in the table is as it was, and nothing else is left."""
    url = dynoxide.url(table)
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": key, "name": "x", "risk": 0.5} for key in range(20)])
    before = items(dynoxide, table)
    assert run("--url", url, "--schema", USER, *SMALL, "--write") == 0
    key = lambda item: item["pk"]["S"]  # noqa: E731
    assert sorted(items(dynoxide, table), key=key) == sorted(before, key=key)


def test_rows_that_exist_are_not_taken_for_its_own(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Were there a row under a key of its own, it would stop, and leave that row."""
    monkeypatch.setattr(bench_run, "own_keys", lambda *_: [*range(12)])
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 11, "name": "x", "risk": 0.5}])
        assert run("--url", url, "--schema", USER, *SMALL, "--write") == 1
        assert "exists" in capsys.readouterr().err
        statuses = [row.status("name") for row in store.read(User, range(12))]
    assert statuses == ["missing"] * 11 + ["hit"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), signal.SIGTERM, OnlineStoreError("gone")])
def test_it_cleans_up_however_it_ends(
    end: BaseException | signal.Signals,
    dynoxide: Dynoxide,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After Ctrl-C, SIGTERM or a failure in the midst of it, its rows are gone."""

    def ending(what: str, *_: object) -> Measured:
        assert len(items(dynoxide, table)) == 12
        if isinstance(end, signal.Signals):
            signal.raise_signal(end)
            raise AssertionError
        raise end

    monkeypatch.setattr(bench_run, "measure", ending)
    status = 1 if isinstance(end, OnlineStoreError) else 130
    assert run("--url", dynoxide.url(table), "--schema", USER, *SMALL) == status
    assert items(dynoxide, table) == []


def test_a_store_elsewhere_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent to an engine that is not on this machine, the user is asked."""
    assert run("--url", "dynamodb:///features?region=us-east-1", "--schema", USER) == 1
    assert "Write 100 entities of user, make 500 reads" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("sqlite:///a.db", True),
        ("dynamodb:///table?endpoint_url=http://127.0.0.1:8000", True),
        ("dynamodb:///table?region=us-east-1", False),
        ("dynamodb:///table?endpoint_url=https://vpce.example.com", False),
        (
            "dynamodb:///table?region=a,b&endpoint_url=http://127.0.0.1:1,https://example.com",
            False,
        ),
    ],
)
def test_what_is_on_this_machine(url: str, local: bool) -> None:
    """A store counts as local where each of its engines is."""
    assert on_this_machine(url) is local


def test_a_table_for_people(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a column for reads and one for writes, and an image where one is wanted."""
    image = tmp_path / "latency.png"
    assert run("--url", url, "--schema", USER, *SMALL, "--write", "--plot", str(image)) == 0
    head, queries, *_ = capsys.readouterr().out.splitlines()
    assert (head, queries) == ("measured\tread\twrite", "queries\t40\t40")
    assert image.read_bytes().startswith(b"\x89PNG")


def test_failed_rows_are_counted(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes that fail do not end it: they are counted, and make the status 1."""
    real: Callable[..., Report] = OnlineStore.write

    def failing(store: OnlineStore, schema: Namespace, rows: Any, **options: Any) -> Report:
        if len(rows) == 12:  # Those that it prepares.
            return real(store, schema, rows, **options)
        return real(store, schema, rows, timeout=0.0)

    monkeypatch.setattr(OnlineStore, "write", failing)
    assert run("--url", url, "--schema", USER, *SMALL, "--write", "--json") == 1
    assert measured(capsys)["write"]["failed"] == 40


# --- the parts -----------------------------------------------------------------------------


def test_percentiles_are_latencies_that_occurred() -> None:
    """The nearest rank, as for 100 calls of 1 to 100 ms; rates follow from all calls together."""
    latencies = np.arange(100, 0, -1) / 1000
    found = Measured("read", latencies, elapsed=2.0, cpu=0.5, report=Report(rcu=50.0))
    assert [found.percentile(p) for p in (50, 95, 99, 100)] == [0.05, 0.095, 0.099, 0.1]
    assert (found.queries_per_second, found.cpu_per_query) == (50.0, 0.005)
    assert found.plain()["max_ms"] == 100
    assert found.plain()["rcu"] == 50


def test_every_call_is_made_once_by_several_threads() -> None:
    """So many threads are at work at once, each on its share; the reports add up."""
    together, made = threading.Barrier(3), []

    def call(number: int) -> Report:
        made.append(number)
        together.wait(60)  # Passes only where three calls are under way.
        return Report(requests=1)

    found = measure("read", call, 9, 3, lambda _: None)
    assert sorted(made) == [*range(9)]
    assert (found.queries, found.report.requests) == (9, 9)


def test_a_call_that_fails_ends_the_others() -> None:
    """The error is that of the call, and no thread goes on for long."""
    made: list[int] = []

    def call(number: int) -> Report:
        made.append(number)
        if number == 1:
            raise RequestRefused("no")
        time.sleep(0.01)
        return Report()

    with pytest.raises(RequestRefused):
        measure("read", call, 100_000, 2, lambda _: None)
    assert len(made) < 50_000


def test_own_keys_differ() -> None:
    """Keys of every kind: none twice within a run, none of another run."""
    for kind in (int, str, UUID, tuple[int, str], tuple[UUID, int]):
        namespace = Namespace("n", kind, [])
        keys = {*own_keys(namespace, 50, 1 << 61)}
        assert len(keys) == 50
        assert keys.isdisjoint(own_keys(namespace, 50, (1 << 61) + 1000))


@pytest.fixture(autouse=True)
def _no_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is at the terminal."""
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield
