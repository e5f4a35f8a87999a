"""`provision plan` and `provision apply` on the command line, with an engine."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalk_online_store import OnlineStore, features
from chalk_online_store.testing import Dynoxide, create_table
from tests.helpers import exit_status

TABLE = """
name = "features"
regions = ["us-east-1"]
recovery_days = 35
deletion_protection = false
"""


@features
class User:
    id: int
    name: str


@pytest.fixture
def engine() -> Iterator[Dynoxide]:
    with Dynoxide() as engine:
        yield engine


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    return path


def run(command: str, table: Path, engine: Dynoxide, *options: str) -> int:
    arguments = ["provision", command, str(table), "--endpoint-url", engine.endpoint_url]
    return exit_status(*arguments, *options)


def test_vector_indexes_are_created(
    engine: Dynoxide,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command names what it created, and has nothing to do where all indexes are there."""
    schema = (
        "from chalk_online_store import Feature, Namespace, Vector, VectorIndex\n"
        "Point = Namespace('point', int, [Feature('at', Vector[2], index=VectorIndex())])\n"
    )
    (tmp_path / "points_of_a_command.py").write_text(schema)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = importlib.import_module("points_of_a_command")
    create_table(engine.endpoint_url, "features", schema=[points.Point])
    command = ["provision", "vector-indexes", "--schema", "points_of_a_command:Point"]
    assert exit_status(*command, "--url", engine.url("features"), "--yes", "--json") == 0
    assert told(capsys) == {"created": []}
    assert exit_status(*command, "--url", "sqlite://", "--yes") != 0
    assert "Only tables of DynamoDB" in capsys.readouterr().err


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_table_is_planned_made_and_settled(
    table: Path, engine: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan changes nothing, apply does, a second apply has nothing to do; and it serves."""
    assert run("plan", table, engine) == 2
    assert "+ us-east-1 table" in capsys.readouterr().out
    assert run("plan", table, engine) == 2
    capsys.readouterr()
    assert run("apply", table, engine, "--yes") == 0
    assert "as it should be" in capsys.readouterr().out
    assert run("plan", table, engine, "--json") == 0
    assert told(capsys)["changes"] == []
    assert run("apply", table, engine) == 0
    with OnlineStore.open(engine.url("features"), [User]) as store:
        store.write(User, [{"id": 1, "name": "Ada"}])
        assert store.read(User, [1])[0]["name"] == "Ada"


def test_drift_is_found_and_repaired(
    table: Path, engine: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody sets another mode behind its back."""
    assert run("apply", table, engine, "--yes") == 0
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=engine.endpoint_url)
    client.update_table(
        TableName="features",
        BillingMode="PROVISIONED",
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    )
    capsys.readouterr()
    assert run("plan", table, engine, "--json") == 2
    assert told(capsys)["changes"]
    assert run("apply", table, engine, "--yes", "--json") == 0
    assert told(capsys)["left"]["exit_code"] == 0


def test_apply_asks_first(table: Path, engine: Dynoxide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says no has changed nothing."""
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run("apply", table, engine) == 1
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=engine.endpoint_url)
    assert client.list_tables()["TableNames"] == []


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--endpoint-url", "mars-east-1=http://127.0.0.1:1"), 2, "no region 'mars-east-1'"),
        (("--destroy", "everything"), 1, "everything"),
        (("--profile", "nobody"), 2, "AWS_PROFILE"),
    ],
)
def test_a_mistake_has_no_traceback(
    table: Path,
    engine: Dynoxide,
    options: tuple[str, ...],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong, in one line."""
    assert run("plan", table, engine, *options) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
