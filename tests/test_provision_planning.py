"""What has to be done so that a table is as its spec wants it, and in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.applying import Progress, apply
from chalk_online_store.provisioning.changes import Plan
from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import DESTRUCTIVE, plan
from chalk_online_store.provisioning.spec import (
    Alarms,
    Autoscaling,
    Backups,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)
from chalk_online_store.provisioning.state import (
    DIMENSIONS,
    Key,
    PointInTimeRecovery,
    RegionTableState,
    Scaling,
    TableState,
    TargetTracking,
    Unknown,
)
from tests.control_plane import Aws

NAME = "features"
EAST, WEST, DUBLIN = REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
EVERYTHING = frozenset(f"{kind}:{region}" for kind in DESTRUCTIVE for region in REGIONS)
PAIR = TableSpec(NAME, (EAST, WEST))
SCALED = Units(500, Autoscaling(250, 2500))
NOTHING = TableState(NAME, {})


@st.composite
def units(draw: st.DrawFn, scaled: bool | None = None) -> Units:
    """Provisioned capacity, autoscaled or not, as stated or either."""
    bounds = sorted(draw(st.lists(st.integers(1, 40), min_size=3, max_size=3)))
    if scaled is None:
        scaled = draw(st.booleans())
    target = draw(st.sampled_from([50.0, 70.0]))
    return Units(bounds[1], Autoscaling(bounds[0], bounds[2], target) if scaled else None)


def provisioned(regions: tuple[str, ...]) -> st.SearchStrategy[Provisioned]:
    write = units(True) if len(regions) > 1 else units()
    replicas = st.dictionaries(st.sampled_from(regions), units())
    return st.builds(Provisioned, units(), write, replicas)


@st.composite
def specs(draw: st.DrawFn, own_keys: bool = False) -> TableSpec:
    """Any table in up to three regions."""
    regions = tuple(draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True)))
    most = st.none() | st.integers(1, 9)
    return TableSpec(
        NAME,
        regions,
        draw(st.builds(OnDemand, most, most) | provisioned(regions)),
        ttl=draw(st.sampled_from(["ttl", "expires_at"])),
        recovery_days=draw(st.sampled_from([None, 1, 35])),
        deletion_protection=draw(st.booleans()),
        table_class=draw(st.sampled_from(["STANDARD", "STANDARD_INFREQUENT_ACCESS"])),
        kms_key_arns={region: f"arn:aws:kms:{region}:1:key/k" for region in regions if own_keys},
        tags=draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from("12"))),
    )


@given(spec=specs() | specs(own_keys=True), delay=st.integers(0, 3))
def test_a_table_that_its_spec_made_has_no_difference(spec: TableSpec, delay: int) -> None:
    """From nothing, one plan makes any table, by AWS's rules; then nothing is left to do."""
    aws = Aws(delay)
    remaining = settle(aws, spec)
    assert remaining.empty
    assert remaining.exit_code == 0
    assert not list(remaining.lines())


@given(before=specs(), after=specs())
def test_any_table_becomes_any_other(before: TableSpec, after: TableSpec) -> None:
    """With all that may be destroyed named, plans lead from each spec to each other."""
    assume(set(before.regions) & set(after.regions))  # In other regions is another table.
    aws = Aws(delay=1)
    settle(aws, before)
    for _ in range(3):
        remaining = settle(aws, after, EVERYTHING)
    assert remaining.empty, list(remaining.lines())
    assert set(aws.tables) == set(after.regions)


@given(before=specs(), after=specs())
def test_without_names_nothing_is_destroyed(before: TableSpec, after: TableSpec) -> None:
    """Applied without a name, a plan leaves every region, protection, recovery and scaling."""
    assume(set(before.regions) & set(after.regions))
    aws = Aws()
    settle(aws, before)
    tables, targets, policies = set(aws.tables), set(aws.targets), set(aws.policies)
    guarded = {r for r, t in aws.tables.items() if t["description"]["DeletionProtectionEnabled"]}
    days = {region: table["recovery"] for region, table in aws.tables.items()}
    settle(aws, after)
    assert tables <= set(aws.tables)
    assert targets <= set(aws.targets)
    assert policies <= set(aws.policies)
    assert all(aws.tables[r]["description"]["DeletionProtectionEnabled"] for r in guarded)
    assert all((aws.tables[r]["recovery"] or 0) >= (days[r] or 0) for r in days)


@given(spec=specs(), data=st.data())
def test_an_interrupted_apply_can_be_applied_again(spec: TableSpec, data: st.DataObject) -> None:
    """Wherever a process is killed, another one plans, applies, and gets to the same end."""
    whole = Aws(delay=2)
    settle(whole, spec)
    broken = Aws(delay=2)
    last = data.draw(st.integers(1, len(whole.calls)))

    def die(_: ControlPlaneCall) -> None:
        if len(broken.calls) == last:
            raise KeyboardInterrupt

    broken.on_call = die
    with pytest.raises(KeyboardInterrupt):
        settle(broken, spec)
    assert settle(broken, spec).empty
    for region in spec.regions:
        assert broken.tables[region]["description"] == whole.tables[region]["description"]
    assert broken.policies == whole.policies


def test_a_new_global_table_is_made_in_awss_order() -> None:
    """Capacity is autoscaled before replicas are added, these one at a time, then their own."""
    capacity = Provisioned(SCALED, SCALED, {WEST: Units(7)})
    spec = TableSpec(NAME, REGIONS, capacity, recovery_days=None, deletion_protection=False)
    made = [(change.region, change.what) for change in plan(spec, NOTHING).changes]
    assert made == [
        (EAST, "table"),
        (EAST, "read autoscaling"),
        (EAST, "read autoscaling policy"),
        (EAST, "write autoscaling"),
        (EAST, "write autoscaling policy"),
        (EAST, "time to live"),
        (WEST, "replica"),
        (WEST, "write autoscaling"),
        (WEST, "write autoscaling policy"),
        (DUBLIN, "replica"),
        (DUBLIN, "read autoscaling"),
        (DUBLIN, "read autoscaling policy"),
        (DUBLIN, "write autoscaling"),
        (DUBLIN, "write autoscaling policy"),
    ]


def test_a_replica_is_made_with_what_it_has_otherwise() -> None:
    """A replica's own read capacity and key come with it, the rest from its source."""
    capacity = Provisioned(SCALED, SCALED, {WEST: Units(7)})
    keys = {region: f"arn:aws:kms:{region}:1:key/k" for region in (EAST, WEST)}
    (added,) = by_what(
        plan(TableSpec(NAME, (EAST, WEST), capacity, kms_key_arns=keys), NOTHING), "replica"
    )
    assert added["call"]["region"] == EAST
    assert added["call"]["arguments"]["ReplicaUpdates"] == [
        {
            "Create": {
                "RegionName": WEST,
                "ProvisionedThroughputOverride": {"ReadCapacityUnits": 7},
                "KMSMasterKeyId": keys[WEST],
            }
        }
    ]


def test_a_diff_has_a_line_for_each_change() -> None:
    """Creation, change, removal and what is held back each read as a line, with AWS's rule."""
    spec = TableSpec(NAME, (EAST,), recovery_days=None, tags={"team": "risk"})
    now = ready(
        billing_mode="PROVISIONED",
        read_units=5,
        write_units=5,
        recovery=PointInTimeRecovery(True, 35),
        tags={"team": "ads"},
    )
    assert list(plan(spec, TableState(NAME, {EAST: now})).lines()) == [
        (
            f"~ {EAST} billing mode: PROVISIONED -> PAY_PER_REQUEST  "
            "(AWS: at most 4 times in 24 hours)"
        ),
        f"~ {EAST} tags: team ads -> team risk",
        (
            f"- {EAST} recovery days: 35 -> none  (what was before can no longer be restored)  "
            f"[held back; to allow it, name recovery:{EAST}]"
        ),
    ]


def test_a_plan_is_json_with_an_exit_code() -> None:
    """A command can print a plan as JSON, calls included; 2 says that there are differences."""
    found = json.loads(json.dumps(plan(PAIR, NOTHING).plain()))
    assert (found["table"], found["exit_code"]) == (NAME, 2)
    assert found["changes"][0]["call"]["operation"] == "CreateTable"
    assert found["held"] == found["impossible"] == found["notes"] == []


def test_other_keys_cannot_be_changed_and_nothing_else_is() -> None:
    """A table with another primary key is somebody else's: it is not touched at all."""
    now = ready(keys=(Key("id", "HASH", "S"),), ttl="expires", deletion_protection=False)
    found = plan(PAIR, TableState(NAME, {EAST: now}))
    assert not found.changes
    (line,) = found.lines()
    assert line == (
        "! us-east-1 keys: id (S) -> pk (S), sk (S)  (AWS: the key schema cannot be changed. "
        "Create a table of another name and load it)"
    )
    assert found.exit_code == 2


def test_keys_of_another_type_are_other_keys() -> None:
    """A sort key that is a number does for no item of ours."""
    now = ready(keys=(Key("pk", "HASH", "S"), Key("sk", "RANGE", "N")))
    assert plan(PAIR, TableState(NAME, {EAST: now})).impossible


@pytest.mark.parametrize("status", ["DELETING", "ARCHIVED"])
def test_a_table_at_its_end_is_not_touched(status: str) -> None:
    """While a table is going, nothing can be made of it, and the plan says so."""
    found = plan(PAIR, TableState(NAME, {EAST: ready(status=status)}))
    assert (len(found.impossible), len(found.changes)) == (1, 0)


def test_a_table_in_the_way_of_a_replica_is_told() -> None:
    """A table of the same name that is no replica has to be removed by hand."""
    state = TableState(NAME, {EAST: ready(), WEST: ready()})
    (change,) = plan(PAIR, state).impossible
    assert (change.region, change.before) == (WEST, "a table")


@pytest.mark.parametrize(
    ("status", "advice"),
    [("CREATION_FAILED", "by hand"), ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", "KMS key")],
)
def test_a_replica_that_failed_needs_a_hand(status: str, advice: str) -> None:
    """What AWS itself calls failed is told, with what to do, and its settings are left alone."""
    found = plan(PAIR, TableState(NAME, {EAST: ready(replicas={WEST: status})}))
    (change,) = found.impossible
    assert advice in change.why
    assert {change.region for change in found.changes} <= {EAST}


def test_a_replica_that_is_being_created_is_not_created_again() -> None:
    """After an interruption, what is under way is waited for, not asked for twice."""
    now = ready(replicas={WEST: "CREATING"}, stream="NEW_AND_OLD_IMAGES")
    found = plan(PAIR, TableState(NAME, {EAST: now, WEST: ready(status="CREATING")}))
    assert not by_what(found, "replica")


def test_a_replica_is_removed_by_name_alone() -> None:
    """A region that the spec has not is held back; named, it goes; protected, both are named."""
    spec = TableSpec(NAME, (EAST,))
    east = ready(replicas={WEST: "ACTIVE"}, stream="NEW_AND_OLD_IMAGES")
    bare, safe = ready(deletion_protection=False), ready()
    assert [c.needs for c in plan(spec, pair(east, bare)).held] == [(f"replica:{WEST}",)]
    found = plan(spec, pair(east, bare), frozenset({f"replica:{WEST}"}))
    assert [(c.sign, c.region, c.what) for c in found.changes] == [("-", WEST, "replica")]
    assert not plan(spec, pair(east, safe), frozenset({f"replica:{WEST}"})).changes
    both = frozenset({f"replica:{WEST}", f"deletion-protection:{WEST}"})
    assert [c.what for c in plan(spec, pair(east, safe), both).changes] == [
        "deletion protection",
        "replica",
    ]


@pytest.mark.parametrize(
    ("wanted", "held"), [(None, True), (7, True), (35, False)], ids=["off", "shorter", "longer"]
)
def test_recovery_is_not_shortened_unless_named(wanted: int | None, held: bool) -> None:
    """To reach back less far destroys what was before; to reach further destroys nothing."""
    state = TableState(NAME, {EAST: ready(recovery=PointInTimeRecovery(True, 14))})
    found = plan(TableSpec(NAME, (EAST,), recovery_days=wanted), state)
    assert bool(found.held) is held
    assert bool(found.changes) is not held
    named = frozenset({f"recovery:{EAST}"})
    assert plan(TableSpec(NAME, (EAST,), recovery_days=wanted), state, named).changes


@pytest.mark.parametrize(
    "name", ["replica", "replica:", "table:us-east-1", "us-west-2", "Replica:us-west-2"]
)
def test_a_name_of_no_kind_is_refused(name: str) -> None:
    """A slip in a name is told at once; above all, no name deletes a table."""
    with pytest.raises(InvalidValue, match="KIND:REGION"):
        plan(PAIR, NOTHING, frozenset({name}))


@pytest.mark.parametrize(
    ("read", "write", "after"),
    [
        (250, 2500, None),
        (700, 251, None),
        (249, 300, {"read": 250, "write": 300}),
        (9000, 1, {"read": 2500, "write": 250}),
    ],
)
def test_what_autoscaling_chose_is_no_drift(
    read: int, write: int, after: dict[str, int] | None
) -> None:
    """Units between the bounds stay; outside of them, the nearest bound is set."""
    spec = TableSpec(NAME, (EAST,), Provisioned(SCALED, SCALED))
    now = ready(billing_mode="PROVISIONED", read_units=read, write_units=write)
    changes = by_what(plan(spec, TableState(NAME, {EAST: now})), "capacity")
    assert [change["after"] for change in changes] == ([after] if after else [])


def test_autoscaling_that_stays_is_not_fought() -> None:
    """Where nobody allows to remove autoscaling, units that it chose are left alone."""
    aws = Aws()
    settle(aws, TableSpec(NAME, (EAST,), Provisioned(SCALED, SCALED)))
    fixed = TableSpec(NAME, (EAST,), Provisioned(Units(300), Units(300)))
    seen = observe(aws, NAME, (EAST,))
    assert not plan(fixed, seen).changes
    named = frozenset({f"autoscaling:{EAST}"})
    assert [change.what for change in plan(fixed, seen, named).changes] == [
        "read autoscaling policy",
        "read autoscaling",
        "write autoscaling policy",
        "write autoscaling",
        "capacity",
    ]


FIXED_READ: dict[str, Any] = {"capacity": Provisioned(Units(5), SCALED)}


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (FIXED_READ, {"capacity": Provisioned(Units(9), SCALED)}, "capacity"),
        ({}, {"capacity": OnDemand(9)}, "maximum"),
        ({}, {"table_class": "STANDARD_INFREQUENT_ACCESS"}, "table class"),
    ],
)
def test_what_replicas_take_from_their_source_is_changed_once(
    before: dict[str, Any], after: dict[str, Any], what: str
) -> None:
    """A replica without settings of its own follows: no call of its own, and no drift."""
    aws = Aws()
    settle(aws, TableSpec(NAME, (EAST, WEST), **before))
    found = made(aws, TableSpec(NAME, (EAST, WEST), **after))
    assert [(change.region, change.what) for change in found.changes] == [(EAST, what)]
    assert apply(found, aws).empty


def test_a_replica_with_a_capacity_of_its_own_keeps_it() -> None:
    """Where a replica has what its source leaves, it is told to stay in the same plan."""
    aws = Aws()
    settle(aws, TableSpec(NAME, (EAST, WEST), **FIXED_READ))
    apart = Provisioned(Units(9), SCALED, {WEST: Units(5)})
    assert settle(aws, TableSpec(NAME, (EAST, WEST), apart)).empty
    units = aws.tables[WEST]["description"]["ProvisionedThroughput"]
    assert units["ReadCapacityUnits"] == 5


def test_a_policy_keeps_the_name_that_it_has() -> None:
    """A policy that Terraform or the console made is changed, not joined by a second one."""
    policy = TargetTracking("made-by-the-console", 50.0, 60, 60)
    scaling = {dimension: Scaling(250, 2500, False, policy) for dimension in DIMENSIONS}
    now = ready(billing_mode="PROVISIONED", read_units=500, write_units=500, scaling=scaling)
    spec = TableSpec(NAME, (EAST,), Provisioned(SCALED, SCALED))
    changes = plan(spec, TableState(NAME, {EAST: now})).plain()["changes"]
    names = [change["call"]["arguments"]["PolicyName"] for change in changes]
    assert names == ["made-by-the-console"] * 2


def test_a_global_table_with_another_stream_takes_a_replica() -> None:
    """Its stream cannot be changed, and does not have to be: the next replica is not held back."""
    east = ready(replicas={WEST: "ACTIVE"}, stream="NEW_IMAGE")
    found = plan(TableSpec(NAME, REGIONS), pair(east, ready(replicas={EAST: "ACTIVE"})))
    assert not found.held
    assert [change["region"] for change in by_what(found, "replica")] == [DUBLIN]


def test_capacity_is_lowered_27_times_a_day() -> None:
    """AWS's limit is known before the call, and told with the way out."""
    spec = TableSpec(NAME, (EAST,), Provisioned(Units(1), Units(1)))
    now = ready(billing_mode="PROVISIONED", read_units=2, write_units=1, decreases_today=27)
    (change,) = plan(spec, TableState(NAME, {EAST: now})).impossible
    assert "tomorrow" in change.why
    fewer = replace(now, decreases_today=26)
    assert plan(spec, TableState(NAME, {EAST: fewer})).changes
    raised = replace(now, read_units=1, write_units=1)
    up = TableSpec(NAME, (EAST,), Provisioned(Units(2), Units(1)))
    assert plan(up, TableState(NAME, {EAST: raised})).changes


def test_time_to_live_is_disabled_before_it_gets_another_attribute() -> None:
    """AWS refuses a second attribute: the first one goes in a call of its own."""
    found = plan(TableSpec(NAME, (EAST,)), TableState(NAME, {EAST: ready(ttl="old")}))
    settings = [c["call"]["arguments"]["TimeToLiveSpecification"] for c in found.plain()["changes"]]
    assert settings == [
        {"Enabled": False, "AttributeName": "old"},
        {"Enabled": True, "AttributeName": "ttl"},
    ]


def test_a_stream_of_another_kind_is_not_replaced_unless_named() -> None:
    """Whoever reads that stream loses it: replicas wait until it is named, with all of theirs."""
    state = TableState(NAME, {EAST: ready(stream="KEYS_ONLY")})
    found = plan(PAIR, state)
    assert not found.changes
    assert {change.needs for change in found.held} == {(f"stream:{EAST}",)}
    named = plan(PAIR, state, frozenset({f"stream:{EAST}"}))
    assert [change.what for change in named.changes[:3]] == ["stream", "stream", "replica"]


def test_a_stream_of_replicas_is_left_alone() -> None:
    """AWS lets nobody change the stream of a Global Table, so it is no difference."""
    east = ready(replicas={WEST: "ACTIVE"}, stream="NEW_IMAGE")
    west = ready(replicas={EAST: "ACTIVE"})
    assert plan(PAIR, pair(east, west)).empty


def test_what_the_spec_does_not_have_is_left_alone_and_told() -> None:
    """Tags that others have set, and a stream that others read, stay; AWS's own are not told."""
    now = ready(tags={"owner": "ads", "aws:cloudformation:stack-name": "x"}, stream="NEW_IMAGE")
    found = plan(TableSpec(NAME, (EAST,)), TableState(NAME, {EAST: now}))
    assert found.empty
    assert list(found.lines()) == [
        "? us-east-1 tags: left alone, as the spec does not have them: ['owner']",
        "? us-east-1 stream: left alone, as the spec needs none: NEW_IMAGE",
    ]


def test_what_cannot_be_seen_is_told_and_is_no_drift() -> None:
    """A part that an engine lacks is a note with its reason, and nothing that apply must settle."""
    why = Unknown("the engine has no such operation")
    now = ready(recovery=why, scaling=why, ttl=why, tags=why)
    spec = TableSpec(NAME, (EAST,), tags={"a": "b"})
    found = plan(spec, TableState(NAME, {EAST: now}))
    assert found.empty
    assert len(found.notes) == 4
    assert all(why.because in note.text for note in found.notes)


@pytest.mark.parametrize(
    ("now", "spec_key", "after"),
    [
        (None, None, "aws/dynamodb"),
        (None, "arn:mine", "arn:mine"),
        ("arn:aws-managed", None, None),
        ("arn:mine", "arn:mine", None),
        ("arn:other", "arn:mine", "arn:mine"),
    ],
)
def test_a_table_is_encrypted_with_a_kms_key(
    now: str | None, spec_key: str | None, after: str | None
) -> None:
    """A key of AWS's own is none of KMS; any KMS key does where the spec names none."""
    spec = TableSpec(NAME, (EAST,), kms_key_arns={EAST: spec_key} if spec_key else {})
    found = plan(spec, TableState(NAME, {EAST: ready(kms_key_arn=now)}))
    assert [change["after"] for change in by_what(found, "encryption")] == [after] * bool(after)


def test_a_table_is_updated_where_it_is() -> None:
    """Where the spec's first region has no table yet, it is a replica of the one that has."""
    (added,) = by_what(plan(PAIR, TableState(NAME, {WEST: ready()})), "replica")
    assert (added["region"], added["call"]["region"]) == (EAST, WEST)


def test_a_legacy_global_table_takes_no_replicas() -> None:
    """A Global Table of 2017 has to be converted by hand."""
    now = ready(global_table_version="2017.11.29")
    (change,) = plan(PAIR, TableState(NAME, {EAST: now})).impossible
    assert "2017.11.29" in change.why


def test_progress_tells_what_is_made_and_what_is_waited_for() -> None:
    """Every change begins and is done, in order, with AWS's states in between."""
    heard: list[Progress] = []
    aws = Aws(delay=2)
    apply(made(aws, PAIR), aws, progress=heard.append, sleep=lambda _: None)
    numbers = count(1)
    assert [p.number for p in heard if p.stage == "begins"] == [
        next(numbers) for p in heard if p.stage == "done"
    ]
    assert {p.total for p in heard} == {len(aws.calls)}
    assert any("CREATING" in p.status for p in heard if p.stage == "waits")


def settle(aws: Aws, spec: TableSpec, destroy: frozenset[str] = frozenset()) -> Plan:
    """Plan and apply; what remains."""
    return apply(made(aws, spec, destroy), aws, sleep=lambda _: None)


def made(aws: Aws, spec: TableSpec, destroy: frozenset[str] = frozenset()) -> Plan:
    return plan(spec, observe(aws, NAME, spec.regions), destroy)


def ready(**parts: Any) -> RegionTableState:
    """A table as `TableSpec(NAME, …)` wants it, but for `parts`."""
    usual: dict[str, Any] = {
        "status": "ACTIVE",
        "keys": (Key("pk", "HASH", "S"), Key("sk", "RANGE", "S")),
        "billing_mode": "PAY_PER_REQUEST",
        "recovery": PointInTimeRecovery(True, 35),
        "kms_key_arn": "arn:aws:kms:us-east-1:1:key/aws",
        "ttl": "ttl",
        "deletion_protection": True,
    }
    return RegionTableState(**usual | parts)


def pair(east: RegionTableState, west: RegionTableState) -> TableState:
    return TableState(NAME, {EAST: east, WEST: west})


def by_what(found: Plan, what: str) -> list[dict[str, Any]]:
    return [change for change in found.plain()["changes"] if change["what"] == what]


def test_settings_of_terraform_alone_are_noted() -> None:
    """A plan by API says that it neither compares nor makes alarms, backups and the like."""
    spec = TableSpec("features", ("us-east-1",), alarms=Alarms(), backups=Backups())
    notes = {note.what: note.text for note in plan(spec, TableState("features", {})).notes}
    assert set(notes) == {"alarms", "backups"}
    assert "by Terraform only" in notes["alarms"]
