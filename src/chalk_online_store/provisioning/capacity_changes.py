"""Changes of capacity: mode, provisioned units, maxima on demand, and autoscaling.

AWS's rules: a table may go from provisioned to on demand up to four times in 24 hours, and its
capacity may be lowered up to 27 times a day of UTC. What autoscaling has chosen between its bounds
is no difference. Write capacity is the whole Global Table's; it is autoscaled in every region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chalk_online_store.provisioning.changes import Change, PlanContext, Sign
from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)
from chalk_online_store.provisioning.state import (
    DIMENSIONS,
    ON_DEMAND,
    PROVISIONED,
    Dimension,
    Scaling,
    TargetTracking,
    Unknown,
    metric_of,
    scalable_dimension,
)

_DECREASES = 27


def at_creation(spec: TableSpec, home: str) -> dict[str, Any]:
    """What CreateTable takes."""
    capacity = spec.capacity
    if isinstance(capacity, Provisioned):
        return {
            "BillingMode": PROVISIONED,
            "ProvisionedThroughput": _throughput(
                capacity.read_in(home).units, capacity.write.units
            ),
        }
    most = _maxima({}, {"read": capacity.max_read, "write": capacity.max_write})
    return {"BillingMode": ON_DEMAND, **({"OnDemandThroughput": most} if most else {})}


def of_new_replica(goal: PlanContext, region: str) -> dict[str, Any]:
    """What a new replica has otherwise than its source."""
    capacity = goal.provisioned
    if capacity is None or capacity.read_in(region) == capacity.read_in(goal.home):
        return {}
    return {"ProvisionedThroughputOverride": {"ReadCapacityUnits": capacity.read_in(region).units}}


def of_table(goal: PlanContext) -> Iterator[Change]:
    """Changes of what the whole table has, and of what its home region has."""
    yield from _removed_autoscaling(goal, goal.home)
    if isinstance(goal.spec.capacity, OnDemand):
        yield from _on_demand(goal, goal.spec.capacity)
    else:
        yield from _provisioned(goal, goal.spec.capacity)
    yield from _autoscaling(goal, goal.home)


def of_replica(goal: PlanContext, region: str) -> Iterator[Change]:
    """Changes of what one replica has for itself."""
    yield from _removed_autoscaling(goal, region)
    if not goal.state.of(region).exists:
        pass  # It is created with what it should have.
    elif isinstance(goal.spec.capacity, OnDemand):
        yield from _max_read_override(goal, goal.spec.capacity, region)
    else:
        yield from _read_override(goal, region)
    yield from _autoscaling(goal, region)


def _on_demand(goal: PlanContext, capacity: OnDemand) -> Iterator[Change]:
    now = goal.now(goal.home)
    if now.billing_mode != ON_DEMAND:
        why = "AWS: at most 4 times in 24 hours"
        yield goal.update(
            "billing mode", now.billing_mode, ON_DEMAND, why=why, BillingMode=ON_DEMAND
        )
    before = {"read": now.max_read, "write": now.max_write}
    after = {"read": capacity.max_read, "write": capacity.max_write}
    if most := _maxima(before, after):
        yield goal.update("maximum", before, after, OnDemandThroughput=most)


def _provisioned(goal: PlanContext, capacity: Provisioned) -> Iterator[Change]:
    now = goal.now(goal.home)
    if now.billing_mode != PROVISIONED:
        read, write = capacity.read_in(goal.home).units, capacity.write.units
        yield goal.update(
            "billing mode",
            now.billing_mode,
            {"mode": PROVISIONED, "read": read, "write": write},
            BillingMode=PROVISIONED,
            ProvisionedThroughput=_throughput(read, write),
        )
        return
    read = _fitting(goal, goal.home, "read", now.read_units)
    write = _fitting(goal, goal.home, "write", now.write_units)
    if (read, write) != (now.read_units, now.write_units):
        yield _resized(goal, read, write)


def _resized(goal: PlanContext, read: int, write: int) -> Change:
    now = goal.now(goal.home)
    before = {"read": now.read_units, "write": now.write_units}
    after = {"read": read, "write": write}
    lower = read < now.read_units or write < now.write_units
    if lower and now.decreases_today >= _DECREASES:
        why = f"AWS: lowered {_DECREASES} times today, which is all. Apply again tomorrow (UTC)"
        return Change(goal.home, "capacity", before, after, None, "!", why)
    why = f"AWS: may be lowered {_DECREASES} times a day; {now.decreases_today} so far"
    return goal.update(
        "capacity",
        before,
        after,
        why=why if lower else "",
        ProvisionedThroughput=_throughput(read, write),
    )


def _fitting(goal: PlanContext, region: str, dimension: Dimension, now: int) -> int:
    """The units that a dimension should have, where it has `now`."""
    wanted = _units(goal, region, dimension)
    bounds: Autoscaling | Scaling | None = wanted.autoscaling or _remaining(goal, region, dimension)
    return wanted.units if bounds is None else max(bounds.min, min(now, bounds.max))


def _units(goal: PlanContext, region: str, dimension: Dimension) -> Units:
    wanted = goal.units(region, dimension)
    assert wanted is not None, "asked where capacity is provisioned"
    return wanted


def _remaining(goal: PlanContext, region: str, dimension: Dimension) -> Scaling | None:
    """Autoscaling that the spec does not want, but nobody allowed to remove: it would answer."""
    scaling = goal.now(region).scaling
    if isinstance(scaling, Unknown) or _name(region) in goal.destroy:
        return None
    return scaling.get(dimension)


def _read_override(goal: PlanContext, region: str) -> Iterator[Change]:
    """AWS: a replica has the read capacity of its source, unless it has its own."""
    now, home = goal.now(region), goal.now(goal.home)
    if home.billing_mode == PROVISIONED:
        settled = _fitting(goal, goal.home, "read", home.read_units)
        inherits = now.read_units == home.read_units
        before = settled if inherits else now.read_units
        after = _fitting(goal, region, "read", before)
    else:  # What it has once the mode has changed, nobody can say.
        before, after = None, _units(goal, region, "read").units
    if before != after:
        override = _member(region, ProvisionedThroughputOverride={"ReadCapacityUnits": after})
        yield goal.update(
            "read capacity", now.read_units, after, shown=region, ReplicaUpdates=[override]
        )


def _max_read_override(goal: PlanContext, capacity: OnDemand, region: str) -> Iterator[Change]:
    """AWS: a replica has the maximum of its source, unless it has its own."""
    now, home = goal.now(region), goal.now(goal.home)
    if now.max_read in (capacity.max_read, home.max_read):
        return
    most = {"MaxReadRequestUnits": _or_none(capacity.max_read)}
    yield goal.update(
        "maximum",
        {"read": now.max_read},
        {"read": capacity.max_read},
        shown=region,
        ReplicaUpdates=[_member(region, OnDemandThroughputOverride=most)],
    )


def _autoscaling(goal: PlanContext, region: str) -> Iterator[Change]:
    now = goal.now(region).scaling
    if isinstance(now, Unknown):
        return
    for dimension in DIMENSIONS:
        units = goal.units(region, dimension)
        if units is not None and units.autoscaling is not None:
            yield from _scaled(goal, region, dimension, units.autoscaling, now.get(dimension))


def _scaled(
    goal: PlanContext, region: str, dimension: Dimension, wanted: Autoscaling, now: Scaling | None
) -> Iterator[Change]:
    bounds = {"min": wanted.min, "max": wanted.max}
    if now is None or now.suspended or (now.min, now.max) != (wanted.min, wanted.max):
        yield _scaling_change(
            goal, region, dimension, "autoscaling", _bounds(now) if now else None, bounds,
            "RegisterScalableTarget",
            MinCapacity=wanted.min, MaxCapacity=wanted.max, SuspendedState=_NOT_SUSPENDED,
        )  # fmt: skip
    policy = now.policy if now else None
    name = policy.name if policy else f"{metric_of(dimension)}:table/{goal.spec.name}"
    tracking = TargetTracking(
        name, wanted.target, wanted.scale_in_cooldown, wanted.scale_out_cooldown
    )
    if policy != tracking:
        yield _scaling_change(
            goal, region, dimension, "autoscaling policy",
            _shown(policy) if policy else None, _shown(tracking), "PutScalingPolicy",
            PolicyName=name, PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=_configuration(dimension, tracking),
        )  # fmt: skip


def _removed_autoscaling(goal: PlanContext, region: str) -> Iterator[Change]:
    now = goal.now(region).scaling
    for dimension, scaling in {} if isinstance(now, Unknown) else now.items():
        units = goal.units(region, dimension)
        if units is not None and units.autoscaling is not None:
            continue
        if scaling.policy:
            yield _scaling_change(
                goal, region, dimension, "autoscaling policy", _shown(scaling.policy), None,
                "DeleteScalingPolicy", PolicyName=scaling.policy.name,
            )  # fmt: skip
        yield _scaling_change(
            goal, region, dimension, "autoscaling", _bounds(scaling), None,
            "DeregisterScalableTarget",
        )  # fmt: skip


def _scaling_change(
    goal: PlanContext,
    region: str,
    dimension: Dimension,
    what: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    operation: str,
    **arguments: Any,
) -> Change:
    where = {
        "ServiceNamespace": "dynamodb",
        "ResourceId": f"table/{goal.spec.name}",
        "ScalableDimension": scalable_dimension(dimension),
    }
    call = ControlPlaneCall(region, operation, {**where, **arguments}, "application-autoscaling")
    needs = (_name(region),) if after is None else ()
    sign: Sign = "-" if after is None else "+" if before is None else "~"
    return Change(region, f"{dimension} {what}", before, after, call, sign, "", needs)


_NOT_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}


def _name(region: str) -> str:
    return f"autoscaling:{region}"


def _bounds(scaling: Scaling) -> dict[str, Any]:
    bounds: dict[str, Any] = {"min": scaling.min, "max": scaling.max}
    return {**bounds, "suspended": True} if scaling.suspended else bounds


def _shown(policy: TargetTracking) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "target": policy.target,
        "in": policy.scale_in_cooldown,
        "out": policy.scale_out_cooldown,
    }
    return {**shown, "scale in": False} if policy.scale_in_disabled else shown


def _configuration(dimension: Dimension, policy: TargetTracking) -> dict[str, Any]:
    return {
        "TargetValue": policy.target,
        "PredefinedMetricSpecification": {"PredefinedMetricType": metric_of(dimension)},
        "ScaleInCooldown": policy.scale_in_cooldown,
        "ScaleOutCooldown": policy.scale_out_cooldown,
    }


def _throughput(read: int, write: int) -> dict[str, int]:
    return {"ReadCapacityUnits": read, "WriteCapacityUnits": write}


def _maxima(before: Mapping[str, int | None], after: Mapping[str, int | None]) -> dict[str, int]:
    """The maxima that change."""
    return {
        f"Max{dimension.title()}RequestUnits": _or_none(units)
        for dimension, units in after.items()
        if units != before.get(dimension)
    }


def _or_none(units: int | None) -> int:
    return -1 if units is None else units  # AWS's way to say none.


def _member(region: str, **settings: Any) -> dict[str, Any]:
    return {"Update": {"RegionName": region, **settings}}
