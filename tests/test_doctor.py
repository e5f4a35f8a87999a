"""`doctor`: each fault is found, each sound store passes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, features
from chalk_online_store.capacity.items import Sample
from chalk_online_store.capacity.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.capacity.sizing import Sizing, size
from chalk_online_store.capacity.typical import typical_rows
from chalk_online_store.cli.doctor.checks import Check, of_capacity, of_table
from chalk_online_store.cli.doctor.command import _observed
from chalk_online_store.cli.doctor.live import of_permissions
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.errors import AccessDenied, ConditionFailed, ConnectionFailed
from chalk_online_store.provision.applying import apply
from chalk_online_store.provision.control_plane import Call, ControlPlane
from chalk_online_store.provision.observing import observe
from chalk_online_store.provision.planning import plan
from chalk_online_store.provision.spec import TableSpec
from chalk_online_store.provision.state import (
    Key,
    Recovery,
    RegionState,
    Scaling,
    TableState,
    TargetTracking,
    Unknown,
)
from chalk_online_store.testing import (
    ClockSkew,
    Dynoxide,
    FaultProxy,
    LocalGlobalTable,
    create_table,
)
from tests.control_plane import Aws
from tests.helpers import exit_status

EAST, WEST = "us-east-1", "us-west-2"
SOUND = RegionState(
    status="ACTIVE",
    keys=(Key("pk", "HASH", "S"), Key("sk", "RANGE", "S")),
    billing_mode="PAY_PER_REQUEST",
    recovery=Recovery(True, 35),
    ttl="ttl",
    deletion_protection=True,
)


@features
class User:
    id: int
    name: str


USER = f"{__name__}:User"


# --- what the control plane tells ----------------------------------------------------------


def judged(state: RegionState, west: RegionState | None = None) -> dict[str, Check]:
    regions = {EAST: state} if west is None else {EAST: state, WEST: west}
    checks = of_table(TableState("features", regions), [*regions], TableLayout())
    return {f"{check.where} {check.what}": check for check in checks}


def test_a_sound_table_has_nothing_wrong() -> None:
    """All is well where all is well."""
    assert {check.verdict for check in judged(SOUND).values()} == {"ok"}


@pytest.mark.parametrize(
    ("change", "what", "verdict"),
    [
        ({"status": None}, "table", "error"),
        ({"status": "UPDATING"}, "table", "note"),
        ({"status": "DELETING"}, "table", "error"),
        ({"keys": (Key("__id__", "HASH", "S"), Key("__ns__", "RANGE", "S"))}, "keys", "error"),
        ({"keys": (Key("pk", "HASH", "S"),)}, "keys", "error"),
        ({"ttl": None}, "expiry", "warning"),
        ({"ttl": "expires"}, "expiry", "error"),
        ({"ttl": Unknown("no such operation")}, "expiry", "note"),
        ({"recovery": Recovery(False)}, "recovery", "warning"),
        ({"recovery": Unknown("no such operation")}, "recovery", "note"),
        ({"deletion_protection": False}, "deletion", "warning"),
    ],
)
def test_each_fault_of_a_table_is_found(change: Mapping[str, Any], what: str, verdict: str) -> None:
    """That one alone, and with a way out."""
    checks = judged(replace(SOUND, **change))
    assert checks[f"{EAST} {what}"].verdict == verdict
    assert checks[f"{EAST} {what}"].advice or verdict == "note"
    assert [c for c in checks.values() if c.verdict != "ok"] == [checks[f"{EAST} {what}"]]


def test_replicas_are_those_of_the_url() -> None:
    """Two tables of one name are no Global Table, and a replica that nobody asks is paid for."""
    first = replace(SOUND, replicas={WEST: "ACTIVE"})
    second = replace(SOUND, replicas={EAST: "ACTIVE"})
    assert judged(first, second)[f"{WEST} replica"].verdict == "ok"
    creating = replace(SOUND, replicas={WEST: "CREATING"})
    assert judged(creating, SOUND)[f"{WEST} replica"].verdict == "error"
    assert "no replica of" in judged(SOUND, SOUND)[f"{WEST} replica"].found
    three = replace(first, replicas={WEST: "ACTIVE", "eu-west-1": "ACTIVE"})
    assert "not in the URL" in judged(three, SOUND)["eu-west-1 replica"].found


def sizing() -> Sizing:
    """1,400 RCU and 700 WCU."""
    part = NamespaceMix("user", 1000, query=(Query(140, 20),), write=(Write(700),))
    namespace = Namespace("user", int, [Feature("name", str)])
    return size(Mix((part,)), {"user": Sample(namespace, typical_rows(namespace, 2))})


def scaling(most: int, *, target: float = 70.0, suspended: bool = False) -> Scaling:
    return Scaling(1, most, suspended, TargetTracking("reads", target, 60, 60))


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ({"read_units": 2000}, "ok"),
        ({"read_units": 1999}, "warning"),
        ({"read_units": 1399}, "error"),
        ({"read_units": 100, "scaling": {"read": scaling(2000)}}, "ok"),
        ({"read_units": 100, "scaling": {"read": scaling(2000, target=50.0)}}, "warning"),
        ({"read_units": 100, "scaling": {"read": scaling(2000, suspended=True)}}, "error"),
    ],
)
def test_provisioned_capacity_is_held_against_the_mix(
    state: Mapping[str, Any], verdict: str
) -> None:
    """What is provisioned, or may be by autoscaling, at its target."""
    found = replace(SOUND, billing_mode="PROVISIONED", write_units=1000, **state)
    checks = {c.what: c for c in of_capacity(sizing(), TableState("features", {EAST: found}))}
    assert checks["read capacity"].verdict == verdict
    assert checks["write capacity"].verdict == "ok"


def test_a_maximum_on_demand_is_held_against_the_mix() -> None:
    """On demand is enough, unless a maximum says otherwise; a region without a table is named."""
    checks = of_capacity(sizing(), TableState("f", {EAST: replace(SOUND, max_write=699)}))
    assert [check.verdict for check in checks] == ["ok", "error"]
    assert [c.verdict for c in of_capacity(sizing(), TableState("f", {}))] == ["warning"]


class Guarded(ControlPlane):
    """Credentials that may do some things."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[Call] = []

    def call(self, call: Call) -> dict[str, Any]:
        self.asked.append(call)
        if call.operation not in self.allowed:
            raise AccessDenied("no")
        if "ConditionExpression" in call.arguments:
            raise ConditionFailed("nobody")
        return {}


def test_missing_permissions_are_named() -> None:
    """Those of the role that is asked for, and each was asked once."""
    plane = Guarded("GetItem", "Query", "PutItem", "BatchWriteItem")
    layout = TableLayout()
    (reader,) = of_permissions(plane, "features", [EAST], layout, writes=False)
    assert (reader.verdict, reader.found) == ("error", "not allowed: dynamodb:BatchGetItem")
    (writer,) = of_permissions(plane, "features", [EAST], layout, writes=True)
    assert "dynamodb:UpdateItem, dynamodb:DeleteItem" in writer.found
    assert len(plane.asked) == 3 + 7


class HalfAway(Aws):
    """A Global Table one region of which does not answer."""

    def call(self, call: Call) -> dict[str, Any]:
        if call.region == WEST:
            raise ConnectionFailed("away")
        return super().call(call)


def test_a_region_that_does_not_answer_is_not_taken_for_one_without_a_table() -> None:
    """Also where the other region tells that it is a replica: nothing is known of it."""
    plane = HalfAway()
    apply(plan(TableSpec("features", (EAST,)), observe(plane, "features", [EAST])), plane)
    plane.tables[WEST] = plane.tables[EAST]
    state, failed = _observed(plane, "features", [EAST, WEST])
    assert [*state.regions] == [EAST]
    assert [(check.where, check.what) for check in failed] == [(WEST, "table")]


# --- with engines --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Dynoxide]:
    with Dynoxide() as engine:
        create_table(engine.endpoint_url, "features")
        yield engine


def run(*arguments: str | Path) -> int:
    return exit_status("doctor", *map(str, arguments))


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, dict[str, Any]]:
    run(*arguments, "--json")
    found = json.loads(capsys.readouterr().out)
    return {f"{check['where']} {check['what']}".strip(): check for check in found}


def test_it_changes_nothing(engine: Dynoxide, capsys: pytest.CaptureFixture[str]) -> None:
    """Permissions are asked for in ways that leave no item behind."""
    checks = told(capsys, engine.url("features"))
    assert checks["us-east-1 permissions"]["found"] == "those of a writer"
    client = boto3.client("dynamodb", region_name=EAST, endpoint_url=engine.endpoint_url)
    assert client.scan(TableName="features")["Count"] == 0


def test_people_see_the_worst_first(engine: Dynoxide, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that is not there is an error, and so is the status of the command."""
    assert run(engine.url("features")) == 0
    assert run(engine.url("nowhere")) == 1
    lines = capsys.readouterr().out.split("verdict")[2].splitlines()
    assert lines[1].startswith("error\tus-east-1\ttable\tthere is no table 'nowhere'")


def test_a_schema_is_held_against_the_registry(
    engine: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not registered, as registered, and in conflict."""
    url = engine.url("features")
    assert told(capsys, url, "--schema", USER)["user schema"]["verdict"] == "note"
    with OnlineStore.open(url, [User]) as store:
        store.write(User, [{"id": 1, "name": "Ada"}])
    assert told(capsys, url, "--schema", USER)["user schema"]["verdict"] == "ok"
    other = Namespace("user", int, [Feature("name", float)])
    globals()["Other"] = other
    found = told(capsys, url, "--schema", f"{__name__}:Other")["user schema"]
    assert found["verdict"] == "error"
    assert "user.name is float in the schema" in found["found"]


def test_drift_is_told(
    engine: Dynoxide, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a description wants, and another table's description is refused."""
    path = tmp_path / "table.toml"
    text = f'name = "features"\nregions = ["{EAST}"]\ndeletion_protection = false\n'
    path.write_text(text)
    assert told(capsys, engine.url("features"), "--table", path)["us-east-1 drift"]["found"]
    path.write_text(text.replace("features", "others"))
    assert run(engine.url("features"), "--table", path) == 2
    assert "describes the table 'others'" in capsys.readouterr().err


def test_a_mix_is_held_against_the_table(
    engine: Dynoxide, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its file, in the regions of the URL."""
    path = tmp_path / "mix.toml"
    path.write_text(f'[[namespace]]\nschema = "{USER}"\nentities = 10\n')
    found = told(capsys, engine.url("features"), "--mix", path)
    assert found["us-east-1 read capacity"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0.0, "ok"), (-60.0, "warning"), (60.0, "warning"), (280.0, "error")]
)
def test_a_clock_that_is_off_is_found(
    engine: Dynoxide, seconds: float, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In either direction, by the Date of an answer."""
    with FaultProxy(engine) as proxy, proxy.fault(ClockSkew(seconds)):
        checks = told(capsys, proxy.url("features"))
        assert checks["us-east-1 clock"]["verdict"] == verdict


def test_regions_and_their_lag_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    """A heartbeat arrives; a lost region is an error, and what it is is said."""
    with LocalGlobalTable() as table:
        checks = told(capsys, table.url(), "--beat")
        assert checks[f"{WEST} reads"]["verdict"] == "ok"
        assert checks[f"{EAST} to {WEST} lag"]["verdict"] == "ok"
        assert "no replica of" in checks[f"{WEST} replica"]["found"]
        table.lose(WEST)
        checks = told(capsys, table.url())
        assert checks[f"{WEST} table"]["verdict"] == checks[f"{WEST} reads"]["verdict"] == "error"
        assert checks[f"{EAST} table"]["verdict"] == "ok"


def test_sqlite_has_a_registry_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no table that could be described."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    assert set(told(capsys, url)) == {"registry"}
    assert run(url, "--mix", "mix.toml") == 2
    assert "for a DynamoDB table" in capsys.readouterr().err
