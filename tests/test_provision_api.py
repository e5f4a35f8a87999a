"""Tables by API, on engines that answer: ministack, moto and dynoxide, each for what it has."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore import xform_name
from botocore.stub import Stubber

from chalk_online_store import OnlineStore, features
from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidURL,
    RequestRefused,
    RequestTimeout,
)
from chalk_online_store.provisioning.applying import apply
from chalk_online_store.provisioning.changes import Plan
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)
from chalk_online_store.provisioning.state import PointInTimeRecovery, TableState, Unknown
from chalk_online_store.testing import Dynoxide, Engine, Ministack, Moto
from tests.control_plane import Aws

EAST, WEST, DUBLIN = "us-east-1", "us-west-2", "eu-west-1"
SCALED = Units(10, Autoscaling(5, 50))


class Mortal(ControlPlane):
    """A control plane whose user is killed after so many changes."""

    changes_left = 10_000

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        answer = super().call(call)
        if not call.operation.startswith(("Describe", "List")):
            self.changes_left -= 1
            if self.changes_left == 0:
                raise KeyboardInterrupt
        return answer


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with Ministack() as engine:
        yield engine


@pytest.fixture
def moto() -> Iterator[Moto]:
    with Moto() as engine:
        yield engine


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A table of each test's own."""
    return "provision-" + "".join(c if c.isalnum() else "-" for c in request.node.name)[:200]


def serve(engine: Engine, *regions: str) -> Mortal:
    urls = dict.fromkeys(regions or (EAST,), engine.endpoint_url)
    autoscaling = urls if isinstance(engine, Moto) else None
    return Mortal(engine.session(), endpoint_urls=urls, autoscaling_urls=autoscaling)


def planned(
    control_plane: ControlPlane, spec: TableSpec, destroy: frozenset[str] = frozenset()
) -> Plan:
    return plan(spec, observe(control_plane, spec.name, spec.regions), destroy)


def settle(
    control_plane: ControlPlane, spec: TableSpec, destroy: frozenset[str] = frozenset()
) -> Plan:
    return apply(planned(control_plane, spec, destroy), control_plane, timeout=10)


def whats(found: Plan) -> list[tuple[str, str, str]]:
    return [(change.sign, change.region, change.what) for change in found.changes]


def ask(engine: Engine, operation: str, region: str = EAST, **arguments: Any) -> Any:
    """What an engine says, and what is done behind the back of a plan."""
    service: Any = "application-autoscaling" if "Scal" in operation else "dynamodb"
    client = engine.session().client(service, endpoint_url=engine.endpoint_url, region_name=region)
    with closing(client):
        return getattr(client, xform_name(operation))(**arguments)


# --- ministack: recovery, encryption, tags, time to live, replicas ------------------------------


def global_spec(name: str, **parts: Any) -> TableSpec:
    return TableSpec(name, (EAST, WEST), **{"tags": {"team": "risk"}} | parts)


def test_a_global_table_is_made_as_its_plan_says(ministack: Ministack, name: str) -> None:
    """The diff comes first, the table is then so in both regions, and nothing is left to do."""
    spec = global_spec(name)
    with serve(ministack, EAST, WEST) as control_plane:
        before = planned(control_plane, spec)
        assert whats(before) == [
            ("+", EAST, "table"),
            ("~", EAST, "time to live"),
            ("+", EAST, "recovery days"),
            ("+", WEST, "replica"),
            ("+", WEST, "recovery days"),
            ("~", WEST, "tags"),
            ("~", WEST, "deletion protection"),
        ]
        assert before.exit_code == 2
        assert apply(before, control_plane, timeout=10).empty
        assert planned(control_plane, spec).empty
    for region in (EAST, WEST):
        table = ask(ministack, "DescribeTable", region, TableName=name)["Table"]
        assert table["DeletionProtectionEnabled"] is True
        assert table["SSEDescription"]["SSEType"] == "KMS"
        assert len(table["Replicas"]) == 1
        arn = table["TableArn"]
        tags = ask(ministack, "ListTagsOfResource", region, ResourceArn=arn)["Tags"]
        assert tags == [{"Key": "team", "Value": "risk"}]
        expiry = ask(ministack, "DescribeTimeToLive", region, TableName=name)
        assert expiry["TimeToLiveDescription"]["AttributeName"] == "ttl"
        recovery = ask(ministack, "DescribeContinuousBackups", region, TableName=name)
        description = recovery["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        assert description["PointInTimeRecoveryStatus"] == "ENABLED"


DRIFTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "recovery days": (
        "UpdateContinuousBackups",
        WEST,
        {"PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": False}},
    ),
    "deletion protection": ("UpdateTable", WEST, {"DeletionProtectionEnabled": False}),
    "encryption": ("UpdateTable", EAST, {"SSESpecification": {"Enabled": False}}),
    "table class": ("UpdateTable", EAST, {"TableClass": "STANDARD_INFREQUENT_ACCESS"}),
    "maximum": ("UpdateTable", EAST, {"OnDemandThroughput": {"MaxReadRequestUnits": 9}}),
}


@pytest.mark.parametrize("what", DRIFTS)
def test_drift_is_found_and_repaired(ministack: Ministack, name: str, what: str) -> None:
    """What somebody changed behind the spec's back is a difference, and the only one."""
    operation, region, arguments = DRIFTS[what]
    spec = global_spec(name)
    with serve(ministack, EAST, WEST) as control_plane:
        settle(control_plane, spec)
        ask(ministack, operation, region, TableName=name, **arguments)
        found = planned(control_plane, spec)
        assert {(change.region, change.what) for change in found.changes} == {(region, what)}
        assert apply(found, control_plane, timeout=10).empty


def test_tags_are_repaired_and_those_of_others_left_alone(ministack: Ministack, name: str) -> None:
    """A tag of ours that somebody changed is set again; one that somebody added stays."""
    spec = TableSpec(name, (EAST,), tags={"team": "risk"})
    with serve(ministack) as control_plane:
        settle(control_plane, spec)
        arn = ask(ministack, "DescribeTable", TableName=name)["Table"]["TableArn"]
        others = [{"Key": "team", "Value": "ads"}, {"Key": "owner", "Value": "ann"}]
        ask(ministack, "TagResource", ResourceArn=arn, Tags=others)
        found = planned(control_plane, spec)
        assert whats(found) == [("~", EAST, "tags")]
        remaining = apply(found, control_plane, timeout=10)
        assert remaining.empty
        assert any("owner" in note.text for note in remaining.notes)
    tags = ask(ministack, "ListTagsOfResource", ResourceArn=arn)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "risk", "owner": "ann"}


def test_a_key_of_ones_own_is_set_and_rotated(ministack: Ministack, name: str) -> None:
    """A table is encrypted with the key that the spec names, from its creation on."""
    keys = [f"arn:aws:kms:{EAST}:000000000000:key/{number * 8}" for number in "12"]
    with serve(ministack) as control_plane:
        for key in keys:
            assert settle(control_plane, TableSpec(name, (EAST,), kms_key_arns={EAST: key})).empty
            table = ask(ministack, "DescribeTable", TableName=name)["Table"]
            assert table["SSEDescription"]["KMSMasterKeyArn"] == key


def test_a_replica_is_added_to_a_table_that_is_there(ministack: Ministack, name: str) -> None:
    """A table in one region becomes a Global Table: its stream first, then the replica."""
    with serve(ministack, EAST, WEST) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,)))
        found = planned(control_plane, TableSpec(name, (EAST, WEST)))
        assert whats(found)[:2] == [("+", EAST, "stream"), ("+", WEST, "replica")]
        assert apply(found, control_plane, timeout=10).empty


def test_a_replica_is_not_removed_unless_it_is_named(ministack: Ministack, name: str) -> None:
    """Without its name it is held back and stays; with it, and its protection's, it goes."""
    spec = TableSpec(name, (EAST,))
    names = frozenset({f"replica:{WEST}", f"deletion-protection:{WEST}"})
    with serve(ministack, EAST, WEST) as control_plane:
        settle(control_plane, TableSpec(name, (EAST, WEST)))
        remaining = settle(control_plane, spec)
        assert [change.what for change in remaining.held] == ["deletion protection", "replica"]
        told = [line.partition("[held back; to allow it, name ")[2] for line in remaining.lines()]
        assert told[:2] == [f"replica:{WEST}, deletion-protection:{WEST}]"] * 2
        assert ask(ministack, "DescribeTable", WEST, TableName=name)
        assert settle(control_plane, spec, names).empty
        assert settle(control_plane, spec, names).empty  # Names of what is gone do no harm.
        assert list(observe(control_plane, name, (EAST,)).of(EAST).replicas) == []


def test_recovery_and_protection_stay_unless_they_are_named(
    ministack: Ministack, name: str
) -> None:
    """A spec that has them no longer takes them from nobody, until they are named."""
    bare = TableSpec(name, (EAST,), recovery_days=None, deletion_protection=False)
    names = frozenset({f"recovery:{EAST}", f"deletion-protection:{EAST}"})
    with serve(ministack) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,)))
        assert len(settle(control_plane, bare).held) == 2
        now = observe(control_plane, name, (EAST,)).of(EAST)
        assert now.deletion_protection
        assert now.recovery == PointInTimeRecovery(True)
        assert settle(control_plane, bare, names).empty
        now = observe(control_plane, name, (EAST,)).of(EAST)
        assert (now.deletion_protection, now.recovery) == (False, PointInTimeRecovery(False))


def test_an_interrupted_global_table_is_finished(ministack: Ministack, name: str) -> None:
    """Killed after each single step in turn, another apply gets to the end."""
    spec = global_spec(name)
    with serve(ministack, EAST, WEST) as control_plane:
        steps = len(planned(control_plane, spec).changes)
        assert steps == 7
    for last in range(1, steps + 1):
        each = global_spec(f"{name}-{last}")
        with serve(ministack, EAST, WEST) as control_plane:
            control_plane.changes_left = last
            with pytest.raises(KeyboardInterrupt):
                settle(control_plane, each)
        with serve(ministack, EAST, WEST) as control_plane:
            left = planned(control_plane, each)
            assert len(left.changes) == steps - last
            assert apply(left, control_plane, timeout=10).empty


def test_days_that_an_engine_does_not_tell_are_no_drift(ministack: Ministack, name: str) -> None:
    """An engine has recovery but not its days: that is told, and apply does not try for ever."""
    with serve(ministack) as control_plane:
        remaining = settle(control_plane, TableSpec(name, (EAST,), recovery_days=7))
    assert remaining.empty
    assert any("does not tell how many days" in note.text for note in remaining.notes)


# --- moto: autoscaling ----------------------------------------------------------------------------


def scaled_spec(name: str) -> TableSpec:
    return TableSpec(name, (EAST,), Provisioned(SCALED, SCALED))


def test_autoscaling_is_made_as_its_plan_says(moto: Moto, name: str) -> None:
    """Both dimensions get a target and a policy, and a second plan is empty."""
    with serve(moto) as control_plane:
        assert settle(control_plane, scaled_spec(name)).empty
        assert planned(control_plane, scaled_spec(name)).empty
    targets = ask(moto, "DescribeScalableTargets", ServiceNamespace="dynamodb")["ScalableTargets"]
    assert {target["ScalableDimension"] for target in targets} == {
        "dynamodb:table:ReadCapacityUnits",
        "dynamodb:table:WriteCapacityUnits",
    }
    assert {(t["MinCapacity"], t["MaxCapacity"]) for t in targets} == {(5, 50)}
    policies = ask(moto, "DescribeScalingPolicies", ServiceNamespace="dynamodb")["ScalingPolicies"]
    settings = [policy["TargetTrackingScalingPolicyConfiguration"] for policy in policies]
    assert [setting["TargetValue"] for setting in settings] == [70.0, 70.0]
    metrics = [setting["PredefinedMetricSpecification"] for setting in settings]
    assert sorted(metric["PredefinedMetricType"] for metric in metrics) == [
        "DynamoDBReadCapacityUtilization",
        "DynamoDBWriteCapacityUtilization",
    ]


def test_autoscaling_that_drifted_is_repaired(moto: Moto, name: str) -> None:
    """Other bounds, a suspension and another target are found, and a policy keeps its name."""
    where = {
        "ServiceNamespace": "dynamodb",
        "ResourceId": f"table/{name}",
        "ScalableDimension": "dynamodb:table:ReadCapacityUnits",
    }
    with serve(moto) as control_plane:
        settle(control_plane, scaled_spec(name))
        suspended = {"DynamicScalingInSuspended": True}
        ask(moto, "RegisterScalableTarget", **where, MaxCapacity=9, SuspendedState=suspended)
        found = planned(control_plane, scaled_spec(name))
        assert whats(found) == [("~", EAST, "read autoscaling")]
        assert found.changes[0].before == {"min": 5, "max": 9, "suspended": True}
        assert apply(found, control_plane, timeout=10).empty
        tracking = {
            "TargetValue": 40.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "DynamoDBReadCapacityUtilization"
            },
        }
        ask(moto, "PutScalingPolicy", **where, PolicyType="TargetTrackingScaling",
            PolicyName=f"DynamoDBReadCapacityUtilization:table/{name}",
            TargetTrackingScalingPolicyConfiguration=tracking)  # fmt: skip
        found = planned(control_plane, scaled_spec(name))
        assert whats(found) == [("~", EAST, "read autoscaling policy")]
        assert apply(found, control_plane, timeout=10).empty


def test_capacity_that_autoscaling_chose_stays(moto: Moto, name: str) -> None:
    """Units within the bounds are no drift; beyond them they are, and are brought back."""
    with serve(moto) as control_plane:
        settle(control_plane, scaled_spec(name))
        for read, lines in ((49, 0), (51, 1)):
            units = {"ReadCapacityUnits": read, "WriteCapacityUnits": 10}
            ask(moto, "UpdateTable", TableName=name, ProvisionedThroughput=units)
            assert len(planned(control_plane, scaled_spec(name)).changes) == lines
        assert settle(control_plane, scaled_spec(name)).empty
        assert observe(control_plane, name, (EAST,)).of(EAST).read_units == 50


def test_autoscaling_stays_unless_it_is_named(moto: Moto, name: str) -> None:
    """On demand again, a table keeps its policies until their removal is named."""
    spec = TableSpec(name, (EAST,))
    with serve(moto) as control_plane:
        settle(control_plane, scaled_spec(name))
        assert len(settle(control_plane, spec).held) == 4
        assert len(ask(moto, "DescribeScalingPolicies", ServiceNamespace="dynamodb")
                   ["ScalingPolicies"]) == 2  # fmt: skip
        assert settle(control_plane, spec, frozenset({f"autoscaling:{EAST}"})).empty
    assert not ask(moto, "DescribeScalableTargets", ServiceNamespace="dynamodb")["ScalableTargets"]


def test_interrupted_autoscaling_is_finished(moto: Moto, name: str) -> None:
    """Killed after each single step in turn, another apply gets to the end."""
    with serve(moto) as control_plane:
        steps = len(planned(control_plane, scaled_spec(name)).changes)
    for last in range(1, steps + 1):
        spec = scaled_spec(f"{name}-{last}")
        with serve(moto) as control_plane:
            control_plane.changes_left = last
            with pytest.raises(KeyboardInterrupt):
                settle(control_plane, spec)
            assert settle(control_plane, spec).empty


def test_recovery_days_are_set_and_not_shortened(moto: Moto, name: str) -> None:
    """On moto, which keeps the days, more are set, fewer are held back until they are named."""

    def days(number: int) -> TableSpec:
        return TableSpec(name, (EAST,), recovery_days=number)

    with serve(moto) as control_plane:
        assert settle(control_plane, days(7)).empty
        assert settle(control_plane, days(14)).empty
        assert settle(control_plane, days(7)).held
        assert settle(control_plane, days(14)).empty
        assert settle(control_plane, days(7), frozenset({f"recovery:{EAST}"})).empty


def test_a_replica_that_never_comes_ends_the_wait(moto: Moto, name: str) -> None:
    """An engine accepts a replica and makes none: that is an error with a reason, not a hang."""
    control_plane = serve(moto, EAST, WEST)
    with control_plane:
        found = planned(control_plane, TableSpec(name, (EAST, WEST)))
        with pytest.raises(RequestTimeout, match=f"UpdateTable in {EAST}.*apply again later"):
            apply(found, control_plane, timeout=10, sleep=lambda _: None)
        with pytest.raises(RequestRefused, match=f"given up on the replica in {WEST}"):
            apply(planned(control_plane, TableSpec(name, (EAST, WEST))), control_plane,
                  sleep=lambda _: None)  # fmt: skip


# --- dynoxide: creation, keys, billing mode, streams ----------------------------------------------


@features
class Account:
    id: int
    balance: float


def test_a_provisioned_table_serves_a_store(dynoxide: Dynoxide, name: str) -> None:
    """A table that a spec made, with names of its own, takes rows and gives them back."""
    spec = TableSpec(name, (EAST,), pk="__id__", sk="__ns__", ttl="__exp__")
    with serve(dynoxide) as control_plane:
        assert settle(control_plane, spec).empty
    url = f"{dynoxide.url(name)}&pk=__id__&sk=__ns__&ttl=__exp__"
    with OnlineStore.open(url, schema=[Account], session=dynoxide.session()) as store:
        store.write(Account, [{"id": 1, "balance": 0.5}])
        assert store.read(Account, [1])[0]["balance"] == 0.5


def test_what_dynoxide_lacks_is_told_and_not_tried(dynoxide: Dynoxide, name: str) -> None:
    """No recovery, no autoscaling: known before there is a table, told, and no drift."""
    spec = TableSpec(name, (EAST,), Provisioned(SCALED, SCALED))
    with serve(dynoxide) as control_plane:
        before = planned(control_plane, spec)
        assert whats(before) == [("+", EAST, "table"), ("~", EAST, "time to live")]
        remaining = apply(before, control_plane, timeout=10)
    assert remaining.empty
    told = {note.what: note.text for note in remaining.notes}
    assert "the engine has no such operation" in told["recovery"]
    assert "no endpoint of application-autoscaling is stated" in told["scaling"]


def test_an_engine_without_autoscaling_is_told(dynoxide: Dynoxide, name: str) -> None:
    """An engine whose autoscaling endpoint knows nothing of it does not end the look."""
    urls = {EAST: dynoxide.endpoint_url}
    session = dynoxide.session()
    with ControlPlane(session, endpoint_urls=urls, autoscaling_urls=urls) as control_plane:
        found = observe(control_plane, name, (EAST,)).of(EAST)
    assert isinstance(found.scaling, Unknown)
    assert not found.exists


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (OnDemand(), Provisioned(Units(3), Units(4)), "billing mode"),
        (Provisioned(Units(3), Units(4)), OnDemand(), "billing mode"),
        (Provisioned(Units(3), Units(4)), Provisioned(Units(5), Units(4)), "capacity"),
        (Provisioned(Units(3), Units(4)), Provisioned(Units(1), Units(1)), "capacity"),
        (OnDemand(), OnDemand(7, 8), "maximum"),
        (OnDemand(7, 8), OnDemand(None, 8), "maximum"),
    ],
)
def test_capacity_becomes_what_the_spec_says(
    dynoxide: Dynoxide,
    name: str,
    before: OnDemand | Provisioned,
    after: OnDemand | Provisioned,
    what: str,
) -> None:
    """From each mode to each, up and down, in one change; and so it stays."""
    with serve(dynoxide) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,), before))
        found = planned(control_plane, TableSpec(name, (EAST,), after))
        assert whats(found) == [("~", EAST, what)]
        assert apply(found, control_plane, timeout=10).empty


def test_time_to_live_gets_another_attribute(dynoxide: Dynoxide, name: str) -> None:
    """An engine refuses a second attribute, as AWS does: the first one is disabled before."""
    with serve(dynoxide) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,), ttl="old"))
        assert settle(control_plane, TableSpec(name, (EAST,))).empty
        assert observe(control_plane, name, (EAST,)).of(EAST).ttl == "ttl"


def test_a_table_with_other_keys_is_not_touched(dynoxide: Dynoxide, name: str) -> None:
    """A foreign table of that name is told of, and no call changes anything of it."""
    with serve(dynoxide) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,), pk="id", tags={"a": "b"}))
        before = observe(control_plane, name, (EAST,))
        remaining = settle(control_plane, TableSpec(name, (EAST,), ttl="expires"))
        assert observe(control_plane, name, (EAST,)) == before
    assert [change.what for change in remaining.impossible] == ["keys"]


def test_a_stream_of_others_is_left_alone(dynoxide: Dynoxide, name: str) -> None:
    """A stream that somebody reads stays; a Global Table would need it replaced by name."""
    stream = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    spec = TableSpec(name, (EAST,))
    with serve(dynoxide, EAST, WEST) as control_plane:
        settle(control_plane, spec)
        ask(dynoxide, "UpdateTable", TableName=name, StreamSpecification=stream)
        assert settle(control_plane, spec).empty
        state = observe(control_plane, name, (EAST,))
        assert state.of(EAST).stream == "KEYS_ONLY"
        held = plan(TableSpec(name, (EAST, WEST)), state).held
        assert {change.needs for change in held} == {(f"stream:{EAST}",)}


def test_an_interrupted_creation_is_finished(dynoxide: Dynoxide, name: str) -> None:
    """Killed right after CreateTable, the next apply sets what is missing."""
    with serve(dynoxide) as control_plane:
        control_plane.changes_left = 1
        with pytest.raises(KeyboardInterrupt):
            settle(control_plane, TableSpec(name, (EAST,)))
        left = planned(control_plane, TableSpec(name, (EAST,)))
        assert whats(left) == [("~", EAST, "time to live")]
        assert apply(left, control_plane, timeout=10).empty


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_refusal_has_the_engines_reason(dynoxide: Dynoxide, name: str) -> None:
    """What cannot be done is told with the operation, the region and the engine's own words."""
    with serve(dynoxide) as control_plane:
        settle(control_plane, TableSpec(name, (EAST,)))
        refused = ControlPlaneCall(EAST, "UpdateTimeToLive", {
            "TableName": name,
            "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "other"},
        })  # fmt: skip
        with pytest.raises(RequestRefused, match=r"UpdateTimeToLive in us-east-1: .*different"):
            control_plane.call(refused)


def test_a_missing_permission_is_named(ministack: Ministack) -> None:
    """Of an access that is denied, the IAM action is told."""
    arn = f"arn:aws:dynamodb:{EAST}:000000000000:table/nobody-has-this"
    with (
        serve(ministack) as control_plane,
        pytest.raises(AccessDenied, match="Allow them dynamodb:ListTagsOfResource"),
    ):
        control_plane.call(ControlPlaneCall(EAST, "ListTagsOfResource", {"ResourceArn": arn}))


def test_the_permission_that_aws_names_is_told(dynoxide: Dynoxide) -> None:
    """CreateTable with tags may be denied for TagResource: that one is named, not CreateTable."""
    said = "User: arn:aws:iam::1:user/ann is not authorized to perform: dynamodb:TagResource on x"
    found = plan(TableSpec("tagged", (EAST,)), TableState("tagged", {}))
    with serve(dynoxide) as control_plane:
        client = control_plane._client("dynamodb", EAST)
        with Stubber(client) as stub:
            stub.add_client_error("create_table", "AccessDeniedException", said)
            with pytest.raises(AccessDenied, match=r"CreateTable .* dynamodb:TagResource"):
                apply(found, control_plane)


def test_a_region_without_an_endpoint_is_not_aws(dynoxide: Dynoxide, name: str) -> None:
    """Where one region is an engine's, no other is looked up in an AWS account by mistake."""
    with serve(dynoxide) as control_plane, pytest.raises(InvalidURL, match="eu-west-1 has none"):
        observe(control_plane, name, (EAST, DUBLIN))


def test_an_engine_that_is_not_there_is_told() -> None:
    """A refused connection is an error of ours, with the operation and the region."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            ControlPlane(endpoint_urls={EAST: url}) as control_plane,
            pytest.raises(ConnectionFailed, match="DescribeTable in us-east-1"),
        ):
            observe(control_plane, "nowhere", (EAST,))


def test_local_engines_need_no_credentials(
    dynoxide: Dynoxide, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session without credentials gets made-up ones for an engine on this machine."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with ControlPlane(endpoint_urls={EAST: dynoxide.endpoint_url}) as control_plane:
        assert settle(control_plane, TableSpec(name, (EAST,))).empty


def test_a_change_that_goes_on_is_left_after_the_timeout() -> None:
    """Waiting ends, told with what is waited for; nothing is undone."""
    aws = Aws(delay=1000)
    made: Callable[[], Plan] = lambda: planned(aws, TableSpec("features", (EAST,)))  # noqa: E731
    with pytest.raises(RequestTimeout, match="the table is CREATING"):
        apply(made(), aws, timeout=5, sleep=lambda _: None)
    aws.delay = aws.tables[EAST]["busy"] = 0
    assert apply(made(), aws, sleep=lambda _: None).empty
