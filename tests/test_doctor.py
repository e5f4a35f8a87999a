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
from chalk_online_store.cli.doctor.checks import (
    Check,
    check_alarms,
    check_capacity,
    check_quotas,
    check_table,
)
from chalk_online_store.cli.doctor.command import _drift, _observed
from chalk_online_store.cli.doctor.live import of_permissions
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.errors import (
    AccessDenied,
    ConditionFailed,
    ConnectionFailed,
    TableNotFound,
    Throttled,
)
from chalk_online_store.planning.items import Sample, typical_rows
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.provisioning.applying import apply
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.policies import operator, reader, writer
from chalk_online_store.provisioning.spec import Alarms, TableSpec
from chalk_online_store.provisioning.state import (
    Key,
    PointInTimeRecovery,
    RegionTableState,
    Scaling,
    TableState,
    TargetTracking,
    Unknown,
)
from chalk_online_store.provisioning.terraform import table_alarms
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
SOUND = RegionTableState(
    status="ACTIVE",
    keys=(Key("pk", "HASH", "S"), Key("sk", "RANGE", "S")),
    billing_mode="PAY_PER_REQUEST",
    recovery=PointInTimeRecovery(True, 35),
    ttl="ttl",
    deletion_protection=True,
)


@features
class User:
    id: int
    name: str


USER = f"{__name__}:User"


# --- what the control plane tells ----------------------------------------------------------


def judged(state: RegionTableState, west: RegionTableState | None = None) -> dict[str, Check]:
    regions = {EAST: state} if west is None else {EAST: state, WEST: west}
    checks = check_table(TableState("features", regions), [*regions], TableLayout())
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
        ({"recovery": PointInTimeRecovery(False)}, "recovery", "warning"),
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
    checks = {c.what: c for c in check_capacity(sizing(), TableState("features", {EAST: found}))}
    assert checks["read capacity"].verdict == verdict
    assert checks["write capacity"].verdict == "ok"


def test_a_maximum_on_demand_is_held_against_the_mix() -> None:
    """On demand is enough, unless a maximum says otherwise; a region without a table is named."""
    checks = check_capacity(sizing(), TableState("f", {EAST: replace(SOUND, max_write=699)}))
    assert [check.verdict for check in checks] == ["ok", "error"]
    assert [c.verdict for c in check_capacity(sizing(), TableState("f", {}))] == ["warning"]


class Guarded(ControlPlane):
    """Credentials that may do some things."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[ControlPlaneCall] = []

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        self.asked.append(call)
        if call.operation not in self.allowed:
            raise AccessDenied("no")
        if "ConditionExpression" in call.arguments:
            raise ConditionFailed("nobody")
        return {}


def permissions(plane: ControlPlane, *, writes: bool = True) -> dict[str, Check]:
    found = of_permissions(plane, "features", [EAST], TableLayout(), writes=writes)
    return {check.what: check for check in found}


LOOKS = ("DescribeTable", "DescribeContinuousBackups", "DescribeTimeToLive", "Scan")


def test_missing_permissions_are_named() -> None:
    """Missing actions of the role are an error, and each action is requested once."""
    plane = Guarded("GetItem", "Query", "PutItem", "BatchWriteItem", *LOOKS)
    reader = permissions(plane, writes=False)["permissions"]
    assert (reader.verdict, reader.found) == ("error", "not allowed: dynamodb:BatchGetItem")
    assert len(plane.asked) == len({call.operation for call in plane.asked})
    writer = permissions(plane)["permissions"]
    assert "dynamodb:DeleteItem, dynamodb:UpdateItem" in writer.found


def test_permissions_are_those_of_the_rendered_policies() -> None:
    """Credentials with a rendered policy pass; without any one of its actions they do not."""
    spec = TableSpec("features", (EAST,))
    for policy, writes in ((reader(spec), False), (writer(spec), True)):
        actions = [name.removeprefix("dynamodb:") for name in policy.statements[0].actions]
        assert permissions(Guarded(*actions), writes=writes)["permissions"].verdict == "ok"
        for missing in actions:
            rest = [action for action in actions if action != missing]
            found = permissions(Guarded(*rest), writes=writes)["permissions"]
            assert found.verdict == ("warning" if missing == "DescribeTable" else "error")
            assert f"dynamodb:{missing}" in found.found
    allowed = [name.removeprefix("dynamodb:") for name in operator(spec).statements[0].actions]
    assert permissions(Guarded(*allowed))["operator"].verdict == "ok"
    missing_look = permissions(Guarded(*{*allowed} - {"DescribeTimeToLive"}))["operator"]
    assert (missing_look.verdict, "DescribeTimeToLive" in missing_look.found) == ("note", True)


class Failing(ControlPlane):
    """A control plane whose every request fails in one way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def serves(self, service: str, region: str) -> bool:
        return True

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        raise self.error


@pytest.mark.parametrize("error", [TableNotFound("none"), ConnectionFailed("away"), Throttled("x")])
def test_permissions_that_nothing_proves_are_not_ok(error: Exception) -> None:
    """A missing table or region proves no permission: the result is a note, never ok."""
    assert {check.verdict for check in permissions(Failing(error)).values()} == {"note"}


def test_the_action_that_aws_names_is_shown() -> None:
    """A read that lacks the use of a key is denied for kms:Decrypt, not for the read."""
    denied = AccessDenied("no")
    denied.engine_message = "User: x is not authorized to perform: kms:Decrypt on resource: y"
    assert permissions(Failing(denied))["permissions"].found == "not allowed: kms:Decrypt"


class Reticent(Aws):
    """Credentials that may not look at some things."""

    def __init__(self, *denied: str) -> None:
        super().__init__()
        self.denied = denied

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        if call.operation in self.denied:
            raise AccessDenied(f"{call.operation}: these credentials may not")
        return super().call(call)


def test_a_denied_look_is_a_note() -> None:
    """Denied Describe calls leave their part unknown, and the rest of the table is examined."""
    plane = Reticent()
    apply(plan(TableSpec("features", (EAST,)), observe(plane, "features", [EAST])), plane)
    plane.denied = (
        "DescribeContinuousBackups",
        "DescribeTimeToLive",
        "ListTagsOfResource",
        "DescribeScalableTargets",
    )
    state, failed, unreachable = _observed(plane, "features", [EAST])
    assert (failed, unreachable) == ([], set())
    checks = {check.what: check for check in check_table(state, [EAST], TableLayout())}
    assert checks["recovery"].verdict == checks["expiry"].verdict == "note"
    assert checks["keys"].verdict == checks["deletion"].verdict == "ok"
    plane.denied = ("DescribeTable",)
    state, failed, unreachable = _observed(plane, "features", [EAST])
    assert [(check.verdict, check.what) for check in failed] == [("note", "table")]
    assert unreachable == set()
    (drift,) = _drift(TableSpec("features", (EAST,)), state, [EAST])
    assert drift.verdict == "note"


# --- the account around a table ------------------------------------------------------------


class Told(ControlPlane):
    """A control plane that answers DescribeLimits and DescribeAlarms, the latter in two pages."""

    def __init__(self, *alarms: Mapping[str, Any], quota: int = 40_000) -> None:
        self.alarms = alarms
        self.quota = quota

    def serves(self, service: str, region: str) -> bool:
        return True

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        if call.operation == "DescribeLimits":
            names = ("TableMaxRead", "TableMaxWrite", "AccountMaxRead", "AccountMaxWrite")
            return {f"{name}CapacityUnits": self.quota for name in names}
        assert (call.operation, call.service) == ("DescribeAlarms", "cloudwatch")
        if "NextToken" in call.arguments:
            return {"MetricAlarms": self.alarms[1:]}
        return {"MetricAlarms": self.alarms[:1], "NextToken": "more"}


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ({"read_units": 1000}, "ok"),
        ({"read_units": 32_001}, "warning"),
        ({"read_units": 1000, "scaling": {"read": scaling(40_001)}}, "error"),
        ({"read_units": 1000, "scaling": Unknown("denied")}, "ok"),
    ],
)
def test_capacity_is_compared_with_the_quota(state: Mapping[str, Any], verdict: str) -> None:
    """What is provisioned, or may be by autoscaling, has headroom below the account's quota."""
    found = replace(SOUND, billing_mode="PROVISIONED", write_units=10, **state)
    table = TableState("features", {EAST: found})
    checks = {check.what: check for check in check_quotas(Told(), table, [EAST])}
    assert checks["read quota"].verdict == verdict
    assert checks["write quota"].verdict == "ok"
    denied = list(check_quotas(Failing(AccessDenied("no")), table, [EAST]))
    assert [check.verdict for check in denied] == ["note"]
    on_demand = TableState("features", {EAST: replace(SOUND, billing_mode="PAY_PER_REQUEST")})
    assert not list(check_quotas(Told(), on_demand, [EAST]))


def alarm_of(metric: str, table: str = "features") -> dict[str, Any]:
    dimensions = [{"Name": "TableName", "Value": table}]
    measured = {"Namespace": "AWS/DynamoDB", "MetricName": metric, "Dimensions": dimensions}
    return {"Metrics": [{"Id": "m", "MetricStat": {"Metric": measured}}]}


def test_missing_alarms_are_found() -> None:
    """Alarms count by their metrics, direct or in an expression, of this table alone."""
    table = TableState("features", {EAST: replace(SOUND, replicas={WEST: "ACTIVE"})})
    direct = alarm_of("SystemErrors")["Metrics"][0]["MetricStat"]["Metric"]
    some = Told(alarm_of("ReadThrottleEvents"), alarm_of("SystemErrors", "other"))
    (found,) = check_alarms(some, table, [EAST])
    assert (found.verdict, found.found) == ("warning", "none on system errors, replication")
    every = Told(alarm_of("ReadThrottleEvents"), direct, alarm_of("ReplicationLatency"))
    (found,) = check_alarms(every, table, [EAST])
    assert found.verdict == "ok"
    (found,) = check_alarms(Failing(AccessDenied("no")), table, [EAST])
    assert found.verdict == "note"


def test_rendered_alarms_are_enough() -> None:
    """The alarms that `terraform` renders are those that this looks for."""
    spec = TableSpec("features", (EAST, WEST), alarms=Alarms())
    rendered = [
        alarm_of(metric.name)
        for alarm in table_alarms(spec)
        for metric in alarm.metrics.values()
        if alarm.region == EAST and "TableName" in metric.dimensions
    ]
    table = TableState("features", {EAST: replace(SOUND, replicas={WEST: "ACTIVE"})})
    (found,) = check_alarms(Told(*rendered), table, [EAST])
    assert found.verdict == "ok"


class HalfAway(Aws):
    """A Global Table one region of which does not answer."""

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        if call.region == WEST:
            raise ConnectionFailed("away")
        return super().call(call)


def test_a_region_that_does_not_answer_is_not_taken_for_one_without_a_table() -> None:
    """Also where the other region tells that it is a replica: nothing is known of it."""
    plane = HalfAway()
    apply(plan(TableSpec("features", (EAST,)), observe(plane, "features", [EAST])), plane)
    plane.tables[WEST] = plane.tables[EAST]
    state, failed, unreachable = _observed(plane, "features", [EAST, WEST])
    assert [*state.regions] == [EAST]
    assert [(check.where, check.what) for check in failed] == [(WEST, "table")]
    assert unreachable == {WEST}


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


def test_a_missing_table_has_no_permissions(
    engine: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that does not exist is an error, and nothing about permissions is ok."""
    checks = told(capsys, engine.url("nowhere"))
    assert checks["us-east-1 table"]["verdict"] == "error"
    assert checks["us-east-1 permissions"]["verdict"] == "note"
    assert checks["us-east-1 operator"]["verdict"] == "note"


def test_three_denials_do_not_end_the_examination(
    engine: Dynoxide, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Credentials that may describe nothing get notes, and every other check."""
    call = ControlPlane.call

    def guarded(self: ControlPlane, asked: ControlPlaneCall) -> dict[str, Any]:
        if asked.operation.startswith(("Describe", "List")):
            raise AccessDenied(f"{asked.operation}: these credentials may not")
        return call(self, asked)

    monkeypatch.setattr(ControlPlane, "call", guarded)
    checks = told(capsys, engine.url("features"), "--no-writes", "--schema", USER)
    assert checks["us-east-1 table"]["verdict"] == "note"
    assert checks["us-east-1 permissions"]["found"] == "those of a reader"
    assert checks["us-east-1 operator"]["verdict"] == "note"
    assert checks["registry"]["verdict"] == "ok"
    assert "error" not in {check["verdict"] for check in checks.values()}
    assert run(engine.url("features"), "--no-writes") == 0


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
