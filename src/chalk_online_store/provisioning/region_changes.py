"""Changes of what a table has beside keys and capacity.

AWS's rules: the attribute of the time to live changes by disabling it first, and UpdateTimeToLive
is refused within an hour of another; tags, recovery, deletion protection and the KMS key are each
region's own (a key is rotated in its region, never by ReplicaUpdates); the class of a table counts
for replicas that have none of their own, and changes twice in 30 days at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalk_online_store.provisioning import capacity_changes
from chalk_online_store.provisioning.changes import Change, PlanContext
from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import TableSpec
from chalk_online_store.provisioning.state import (
    BOTH_IMAGES,
    PointInTimeRecovery,
    RegionTableState,
    Unknown,
)

_ONE_HOUR = "AWS: refused within an hour of another change of it"


def at_creation(spec: TableSpec, home: str) -> dict[str, Any]:
    """What CreateTable takes."""
    made: dict[str, Any] = {
        "SSESpecification": _encryption(spec, home),
        "TableClass": spec.table_class,
        "DeletionProtectionEnabled": spec.deletion_protection,
    }
    if spec.tags:
        made["Tags"] = [{"Key": key, "Value": value} for key, value in spec.tags.items()]
    if spec.is_global:
        made["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": BOTH_IMAGES}
    return made


def of_new_replica(spec: TableSpec, region: str) -> dict[str, Any]:
    """What a new replica has otherwise than its source."""
    key = spec.kms_key_arns.get(region)
    return {"KMSMasterKeyId": key} if key else {}


def of_table(goal: PlanContext) -> Iterator[Change]:
    """Changes of what the whole table has."""
    now, wanted = goal.now(goal.home), goal.spec.table_class
    if now.table_class != wanted:
        why = "AWS: twice in 30 days at most"
        yield goal.update("table class", now.table_class, wanted, why=why, TableClass=wanted)
    yield from _ttl(goal)


def of_region(goal: PlanContext, region: str) -> Iterator[Change]:
    """Changes of what each region has for itself."""
    if region != goal.home:
        yield from capacity_changes.of_replica(goal, region)
        yield from _class_override(goal, region)
    yield from _key(goal, region)
    yield from _recovery(goal, region)
    yield from _tags(goal, region)
    now, wanted = goal.now(region), goal.spec.deletion_protection
    if now.deletion_protection != wanted:
        needs = () if wanted else (f"deletion-protection:{region}",)
        yield protection(goal, region, wanted=wanted, needs=needs)


def protection(goal: PlanContext, region: str, *, wanted: bool, needs: tuple[str, ...]) -> Change:
    """Deletion protection on or off."""
    return goal.update(
        "deletion protection",
        not wanted,
        wanted,
        region=region,
        sign="~" if wanted else "-",
        needs=needs,
        DeletionProtectionEnabled=wanted,
    )


def _ttl(goal: PlanContext) -> Iterator[Change]:
    now, wanted = goal.now(goal.home).ttl, goal.spec.ttl
    if isinstance(now, Unknown) or now == wanted:
        return
    if now is not None:
        yield _time_to_live(goal, now, now, None)
    yield _time_to_live(goal, wanted, None, wanted)


def _time_to_live(
    goal: PlanContext, attribute: str, before: str | None, after: str | None
) -> Change:
    setting = {"Enabled": after is not None, "AttributeName": attribute}
    arguments = {"TableName": goal.spec.name, "TimeToLiveSpecification": setting}
    call = ControlPlaneCall(goal.home, "UpdateTimeToLive", arguments)
    return Change(goal.home, "time to live", before, after, call, "~", _ONE_HOUR)


def _class_override(goal: PlanContext, region: str) -> Iterator[Change]:
    now, home, wanted = goal.now(region), goal.now(goal.home), goal.spec.table_class
    if now.table_class in (wanted, home.table_class):  # It follows its source.
        return
    member = {"RegionName": region, "TableClassOverride": wanted}
    yield goal.update(
        "table class",
        now.table_class,
        wanted,
        shown=region,
        why="AWS: twice in 30 days at most",
        ReplicaUpdates=[{"Update": member}],
    )


def _key(goal: PlanContext, region: str) -> Iterator[Change]:
    """The KMS key. Of one that the spec does not name, DescribeTable does not tell whose it is."""
    now, wanted = goal.now(region).kms_key_arn, goal.spec.kms_key_arns.get(region)
    if now is not None and wanted in (None, now):
        return
    yield goal.update(
        "encryption",
        now or "AWS's own key",
        wanted or "aws/dynamodb",
        region=region,
        SSESpecification=_encryption(goal.spec, region),
    )


def _encryption(spec: TableSpec, region: str) -> dict[str, Any]:
    key = spec.kms_key_arns.get(region)
    return {"Enabled": True, "SSEType": "KMS", **({"KMSMasterKeyId": key} if key else {})}


def untold_recovery(spec: TableSpec, now: RegionTableState) -> bool:
    """Whether an engine has recovery, but not for how many days."""
    found = now.recovery
    return (
        isinstance(found, PointInTimeRecovery)
        and found == PointInTimeRecovery(True)
        and spec.recovery_days is not None
    )


def _recovery(goal: PlanContext, region: str) -> Iterator[Change]:
    now, wanted = goal.now(region), goal.spec.recovery_days
    found = now.recovery
    if isinstance(found, Unknown) or untold_recovery(goal.spec, now):
        return
    before = (found.days or "on") if found.enabled else None
    if before == wanted:
        return
    setting: dict[str, Any] = {"PointInTimeRecoveryEnabled": wanted is not None}
    if wanted is not None:
        setting["RecoveryPeriodInDays"] = wanted
    arguments = {"TableName": goal.spec.name, "PointInTimeRecoverySpecification": setting}
    call = ControlPlaneCall(region, "UpdateContinuousBackups", arguments)
    less = found.enabled and (wanted is None or (found.days or 0) > wanted)
    yield Change(
        region,
        "recovery days",
        before,
        wanted,
        call,
        "-" if wanted is None else "~" if found.enabled else "+",
        "what was before can no longer be restored" if less else "",
        (f"recovery:{region}",) if less else (),
    )


def _tags(goal: PlanContext, region: str) -> Iterator[Change]:
    now, wanted = goal.now(region).tags, goal.spec.tags
    if isinstance(now, Unknown):
        return
    missing = {key: value for key, value in wanted.items() if now.get(key) != value}
    if missing:
        tags = [{"Key": key, "Value": value} for key, value in missing.items()]
        call = ControlPlaneCall(region, "TagResource", {"TableName": goal.spec.name, "Tags": tags})
        yield Change(region, "tags", {key: now.get(key) for key in missing}, missing, call)
