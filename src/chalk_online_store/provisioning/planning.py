"""What has to be done so that a table is as its spec wants it. Pure: state in, plan out.

The rules that decide the order are AWS's:

- the key schema of a table cannot be changed;
- UpdateTable makes one kind of change at a time, and none while another is under way;
- a Global Table is on demand, or its write capacity has an autoscaling target with a policy before
  the first replica is added ("Table write capacity should either be Pay-Per-Request or
  AutoScaled"); its stream has new and old images, and cannot be changed once there are replicas;
- ReplicaUpdates is alone in its call, and adds or removes one replica;
- capacity mode, write capacity, TTL and the kind of encryption are the whole Global Table's; each
  replica has its own recovery, tags, deletion protection, read capacity and key.

Sources: the API reference of UpdateTable, and "Throughput capacity planning for DynamoDB global
tables" and "Best practices and requirements for managing global tables" in the developer guide.
"""

from __future__ import annotations

from collections.abc import Iterator

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning import capacity_changes, region_changes, vector_indexes
from chalk_online_store.provisioning.changes import Change, Note, Plan, PlanContext
from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import TableSpec
from chalk_online_store.provisioning.state import BOTH_IMAGES, RegionTableState, TableState, Unknown

DESTRUCTIVE = (
    "replica",
    "recovery",
    "deletion-protection",
    "stream",
    "autoscaling",
    vector_indexes.DELETION,
)
"""What may be destroyed where it is named, as `replica:us-west-2`."""

_FAILED = {
    "CREATION_FAILED": "remove it by hand, then apply again",
    "REGION_DISABLED": "enable the region in your account within 20 hours",
    "REPLICATION_NOT_AUTHORIZED": "its resource policy has to allow replication",
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS": "make its KMS key usable again",
}
_GONE = ("DELETING", "ARCHIVING", "ARCHIVED")


def plan(spec: TableSpec, state: TableState, destroy: frozenset[str] = frozenset()) -> Plan:
    """What makes the table as `spec` wants it, given what there is.

    Nothing is destroyed but what `destroy` names: `replica:REGION`, `recovery:REGION` (point in
    time recovery, or a part of how far back it reaches), `deletion-protection:REGION`,
    `stream:REGION`, `autoscaling:REGION`, `vector-index:REGION` (the indexes that the spec does not
    have, in all regions). A table is never deleted. Tags that the spec does not
    have, and a stream of a table that needs none, are left alone.

    Raises `InvalidValue` for a name in `destroy` that is of no such kind.
    """
    for name in sorted(destroy):
        kind, _, region = name.partition(":")
        if kind not in DESTRUCTIVE or not region:
            known = ", ".join(DESTRUCTIVE)
            raise InvalidValue(f"destroy={name!r} is not KIND:REGION with a kind of {known}.")
    goal = PlanContext(spec, state, destroy)
    blocked = tuple(_foreign(goal))
    changes = () if blocked else tuple(_changes(goal))
    possible = [change for change in changes if change.call is not None]
    return Plan(
        spec,
        destroy,
        tuple(change for change in possible if destroy.issuperset(change.needs)),
        tuple(change for change in possible if not destroy.issuperset(change.needs)),
        blocked + tuple(change for change in changes if change.call is None),
        tuple(_notes(goal)),
    )


def _foreign(goal: PlanContext) -> Iterator[Change]:
    """What makes a table one that must not be touched: keys that are not the spec's, or its end."""
    for region in goal.spec.regions:
        now = goal.state.of(region)
        if now.exists and now.status in _GONE:
            yield Change(
                region,
                "table",
                now.status,
                "ACTIVE",
                None,
                "!",
                "wait until it is gone, or restore it",
            )
        elif now.exists and (before := now.keys) != goal.keys:
            yield Change(
                region,
                "keys",
                ", ".join(f"{key.name} ({key.type})" for key in before),
                ", ".join(f"{key.name} ({key.type})" for key in goal.keys),
                None,
                "!",
                "AWS: the key schema cannot be changed. Create a table of another name and load it",
            )


def _changes(goal: PlanContext) -> Iterator[Change]:
    home = goal.home
    if not goal.state.of(home).exists:
        yield _creation(goal)
    yield from capacity_changes.of_table(goal)
    yield from _stream(goal)
    yield from region_changes.of_table(goal)
    yield from region_changes.of_region(goal, home)
    for region in goal.spec.regions:
        if region != home:
            yield from _replica(goal, region)
    yield from _removals(goal)
    yield from vector_indexes.of_table(goal)


def _creation(goal: PlanContext) -> Change:
    arguments = {
        "TableName": goal.spec.name,
        "KeySchema": [{"AttributeName": key.name, "KeyType": key.kind} for key in goal.keys],
        "AttributeDefinitions": [
            *({"AttributeName": key.name, "AttributeType": key.type} for key in goal.keys),
            *vector_indexes.definitions(goal.spec.vector_indexes),
        ],
        **vector_indexes.at_creation(goal.spec.vector_indexes),
        **capacity_changes.at_creation(goal.spec, goal.home),
        **region_changes.at_creation(goal.spec, goal.home),
    }
    keys = ", ".join(f"{key.name} ({key.type})" for key in goal.keys)
    call = ControlPlaneCall(goal.home, "CreateTable", arguments)
    mode = "provisioned" if goal.provisioned else "on demand"
    return Change(goal.home, "table", None, f"{goal.spec.name} with {keys}, {mode}", call, "+")


def _stream(goal: PlanContext) -> Iterator[Change]:
    """The stream that a Global Table has: only until it has replicas can it be changed."""
    now = goal.now(goal.home)
    if not goal.spec.is_global or now.replicas or now.stream == BOTH_IMAGES:
        return
    if now.stream is not None:
        yield goal.update(
            "stream",
            now.stream,
            None,
            StreamSpecification={"StreamEnabled": False},
            sign="-",
            why="a Global Table has one of new and old images",
            needs=(goal.stream_name,),
        )
    yield goal.update(
        "stream",
        None,
        BOTH_IMAGES,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": BOTH_IMAGES},
        sign="+",
        needs=(goal.stream_name,) if now.stream else (),
    )


def _replica(goal: PlanContext, region: str) -> Iterator[Change]:
    status = goal.now(goal.home).replicas.get(region)
    if status in (*_FAILED, *_GONE):
        why = _FAILED.get(status, "apply again once it is gone")
        yield Change(region, "replica", status, "ACTIVE", None, "!", why)
        return
    if status is None:
        if goal.state.of(region).exists:
            why = "AWS: a table of this name is there already, and is no replica. Delete it by hand"
            yield Change(region, "replica", "a table", "a replica", None, "!", why)
            return
        addition = _addition(goal, region)
        yield addition
        if addition.call is None or not goal.destroy.issuperset(addition.needs):
            return  # There is nothing yet that has settings.
    yield from region_changes.of_region(goal, region)


def _addition(goal: PlanContext, region: str) -> Change:
    member = {
        "RegionName": region,
        **capacity_changes.of_new_replica(goal, region),
        **region_changes.of_new_replica(goal.spec, region),
    }
    now = goal.now(goal.home)
    if now.global_table_version == "2017.11.29":
        why = "a Global Table of 2017.11.29 takes no replicas so: convert it by hand"
        return Change(region, "replica", None, f"of {goal.home}", None, "!", why)
    foreign = now.stream not in (None, BOTH_IMAGES) and not now.replicas
    return goal.update(
        "replica",
        None,
        f"of {goal.home}",
        ReplicaUpdates=[{"Create": member}],
        sign="+",
        shown=region,
        needs=(goal.stream_name,) if foreign else (),
    )


def _removals(goal: PlanContext) -> Iterator[Change]:
    for region, status in goal.now(goal.home).replicas.items():
        if region in goal.spec.regions or status in _GONE:
            continue
        names = [f"replica:{region}"]
        if goal.state.of(region).deletion_protection:
            names.append(f"deletion-protection:{region}")
            yield region_changes.protection(goal, region, wanted=False, needs=tuple(names))
        yield goal.update(
            "replica",
            status,
            None,
            ReplicaUpdates=[{"Delete": {"RegionName": region}}],
            sign="-",
            shown=region,
            why="its table in that region is deleted",
            needs=tuple(names),
        )


_BY_TERRAFORM = ("warm", "alarms", "contributor_insights", "backups", "shared_with")
"""Settings of a spec that `apply` does not make."""


def _notes(goal: PlanContext) -> Iterator[Note]:
    for name in _BY_TERRAFORM:
        if getattr(goal.spec, name) is not None:
            what = name.replace("_", " ")
            yield Note(goal.home, what, "not compared: applied by Terraform only (`terraform`)")
    for region, now in goal.state.regions.items():
        if isinstance(now, Unknown):
            yield Note(region, "table", f"unknown, because {now.because}")
            continue
        for part, unknown in now.unknown():
            yield Note(region, part, f"unknown, because {unknown.because}")
        if region in goal.spec.regions:
            yield from _unmanaged(goal, region, now)


def _unmanaged(goal: PlanContext, region: str, now: RegionTableState) -> Iterator[Note]:
    if not isinstance(now.tags, Unknown):
        others = [
            tag for tag in now.tags if tag not in goal.spec.tags and not tag.startswith("aws:")
        ]
        if others:
            yield Note(region, "tags", f"left alone, as the spec does not have them: {others}")
    if now.stream is not None and not goal.spec.is_global:
        yield Note(region, "stream", f"left alone, as the spec needs none: {now.stream}")
    if region_changes.untold_recovery(goal.spec, now):
        yield Note(region, "recovery", "on; the engine does not tell how many days")
