"""What there is of a table, in each region: pure data, as the control plane tells it.

A part that cannot be seen, since an engine lacks the API, is `Unknown` and says why. It is then
neither changed nor counted as drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

Dimension: TypeAlias = Literal["read", "write"]
DIMENSIONS: tuple[Dimension, ...] = ("read", "write")

ON_DEMAND = "PAY_PER_REQUEST"
PROVISIONED = "PROVISIONED"
BOTH_IMAGES = "NEW_AND_OLD_IMAGES"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part of the state that cannot be seen, and why."""

    because: str


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute of the primary key: `kind` is HASH or RANGE, `type` S, N or B."""

    name: str
    kind: str
    type: str


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """A scaling policy that holds `target` % of what is provisioned; cooldowns in seconds."""

    name: str
    target: float
    scale_in_cooldown: int
    scale_out_cooldown: int
    scale_in_disabled: bool = False


@dataclass(frozen=True, slots=True)
class Scaling:
    """What Application Auto Scaling does with one dimension: its bounds in capacity units."""

    min: int
    max: int
    suspended: bool = False
    policy: TargetTracking | None = None


@dataclass(frozen=True, slots=True)
class PointInTimeRecovery:
    """Point-in-time recovery, and how many days back; None where the engine does not tell."""

    enabled: bool
    days: int | None = None


@dataclass(frozen=True, slots=True)
class VectorIndexState:
    """A vector index in one region; `items` and `bytes` are those of AWS's last count."""

    status: str
    backfilling: bool
    attribute: str
    items: int
    bytes: int

    @property
    def ready(self) -> bool:
        """True if the index can be searched."""
        return self.status == "ACTIVE" and not self.backfilling


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTableState:
    """A table in one region; with `status` None there is none."""

    status: str | None = None
    keys: tuple[Key, ...] = ()
    billing_mode: str = PROVISIONED
    read_units: int = 0
    write_units: int = 0
    decreases_today: int = 0
    """How often provisioned capacity was lowered this day of UTC."""
    max_read: int | None = None
    max_write: int | None = None
    scaling: Mapping[Dimension, Scaling] | Unknown = field(default_factory=dict)
    recovery: PointInTimeRecovery | Unknown = PointInTimeRecovery(False)
    kms_key_arn: str | None = None
    """The KMS key, whoever manages it; None for a key that belongs to AWS alone."""
    ttl: str | Unknown | None = None
    tags: Mapping[str, str] | Unknown = field(default_factory=dict)
    table_class: str = "STANDARD"
    deletion_protection: bool = False
    stream: str | None = None
    """The view type of its stream, None without one."""
    replicas: Mapping[str, str] = field(default_factory=dict)
    """The status of the table in each other region of its Global Table."""
    global_table_version: str | None = None
    """2019.11.21, or 2017.11.29 for a legacy Global Table; None if AWS does not say it."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The type, S, N or B, of each attribute that the table or an index defines."""
    vector_indexes: Mapping[str, VectorIndexState] = field(default_factory=dict)
    consistency: str = "EVENTUAL"
    """STRONG for a Global Table with multi-Region strong consistency (MRSC)."""
    witnesses: tuple[str, ...] = ()
    """Regions of an MRSC table that hold its log and no data: they have no endpoint for it."""
    account: str | None = None
    """The AWS account of the table, by its ARN."""
    replica_accounts: Mapping[str, str] = field(default_factory=dict)
    """The account of each other replica, if AWS says it."""

    @property
    def exists(self) -> bool:
        """Whether there is a table, be it one that is still being created."""
        return self.status is not None

    def unknown(self) -> Iterator[tuple[str, Unknown]]:
        """The parts that cannot be seen."""
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Unknown):
                yield part.name, value


@dataclass(frozen=True, slots=True)
class TableState:
    """A table in all regions that were looked at."""

    name: str
    regions: Mapping[str, RegionTableState | Unknown]

    def of(self, region: str) -> RegionTableState:
        """The table in a region; none where the region was not, or could not be, looked at."""
        found = self.regions.get(region)
        return found if isinstance(found, RegionTableState) else RegionTableState()


def table_part(description: Mapping[str, Any], region: str) -> dict[str, Any]:
    """What DescribeTable tells, as arguments of `RegionTableState`."""
    throughput = description.get("ProvisionedThroughput", {})
    most = description.get("OnDemandThroughput", {})
    return {
        "status": description["TableStatus"],
        "keys": _keys(description),
        "billing_mode": description.get("BillingModeSummary", {}).get("BillingMode", PROVISIONED),
        "read_units": throughput.get("ReadCapacityUnits", 0),
        "write_units": throughput.get("WriteCapacityUnits", 0),
        "decreases_today": throughput.get("NumberOfDecreasesToday", 0),
        "max_read": _maximum(most.get("MaxReadRequestUnits")),
        "max_write": _maximum(most.get("MaxWriteRequestUnits")),
        "kms_key_arn": _kms_key(description.get("SSEDescription", {})),
        "table_class": description.get("TableClassSummary", {}).get("TableClass", "STANDARD"),
        "deletion_protection": description.get("DeletionProtectionEnabled", False),
        "stream": _stream(description.get("StreamSpecification", {})),
        "replicas": _replicas(description, region),
        "attributes": {
            each["AttributeName"]: each["AttributeType"]
            for each in description["AttributeDefinitions"]
        },
        "vector_indexes": {
            each["IndexName"]: vector_index(each) for each in description.get("VectorIndexes", ())
        },
        "global_table_version": description.get("GlobalTableVersion"),
        "consistency": description.get("MultiRegionConsistency", "EVENTUAL"),
        "witnesses": tuple(
            each["RegionName"] for each in description.get("GlobalTableWitnesses", ())
        ),
        "account": _account(description.get("TableArn")),
        "replica_accounts": _replica_accounts(description, region),
    }


def vector_index(description: Mapping[str, Any]) -> VectorIndexState:
    """What DescribeTable tells of one vector index."""
    return VectorIndexState(
        status=description.get("IndexStatus", ""),
        backfilling=description.get("Backfilling", False),
        attribute=description.get("VectorAttribute", {}).get("AttributeName", ""),
        items=description.get("ItemCount", 0),
        bytes=description.get("IndexSizeBytes", 0),
    )


def _keys(description: Mapping[str, Any]) -> tuple[Key, ...]:
    types = {a["AttributeName"]: a["AttributeType"] for a in description["AttributeDefinitions"]}
    return tuple(
        Key(key["AttributeName"], key["KeyType"], types[key["AttributeName"]])
        for key in description["KeySchema"]
    )


def _maximum(units: int | None) -> int | None:
    return None if units is None or units < 0 else units  # -1 is AWS's way to say none.


def _kms_key(description: Mapping[str, Any]) -> str | None:
    if description.get("Status") not in ("ENABLED", "UPDATING", "ENABLING"):
        return None
    arn: str | None = description.get("KMSMasterKeyArn")
    return arn


def _stream(specification: Mapping[str, Any]) -> str | None:
    view: str | None = specification.get("StreamViewType")
    return view if specification.get("StreamEnabled") else None


def _replicas(description: Mapping[str, Any], region: str) -> dict[str, str]:
    found = description.get("Replicas", [])
    every = {one["RegionName"]: one.get("ReplicaStatus", "ACTIVE") for one in found}
    every.pop(region, None)
    return every


def _replica_accounts(description: Mapping[str, Any], region: str) -> dict[str, str]:
    found = {
        each["RegionName"]: _account(each.get("ReplicaArn"))
        for each in description.get("Replicas", ())
        if each["RegionName"] != region
    }
    return {name: account for name, account in found.items() if account is not None}


def _account(arn: str | None) -> str | None:
    """Return the account of arn:aws:dynamodb:REGION:ACCOUNT:table/NAME."""
    parts = (arn or "").split(":")
    return parts[4] if len(parts) > 5 and parts[4].isdigit() else None


def scaling_part(
    targets: list[Mapping[str, Any]], policies: list[Mapping[str, Any]]
) -> dict[Dimension, Scaling]:
    """What DescribeScalableTargets and DescribeScalingPolicies tell of a table."""
    tracking = dict(filter(None, map(_tracking, policies)))
    found: dict[Dimension, Scaling] = {}
    for target in targets:
        dimension = dimension_of(target["ScalableDimension"])
        if dimension is not None:
            found[dimension] = Scaling(
                target["MinCapacity"],
                target["MaxCapacity"],
                any(target.get("SuspendedState", {}).values()),
                tracking.get(dimension),
            )
    return found


def _tracking(policy: Mapping[str, Any]) -> tuple[Dimension, TargetTracking] | None:
    """A policy of the kind that is ours to set; others are left alone."""
    dimension = dimension_of(policy["ScalableDimension"])
    settings = policy.get("TargetTrackingScalingPolicyConfiguration", {})
    metric = settings.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
    if dimension is None or metric != metric_of(dimension):
        return None
    return dimension, TargetTracking(
        policy["PolicyName"],
        settings["TargetValue"],
        settings.get("ScaleInCooldown", 0),
        settings.get("ScaleOutCooldown", 0),
        settings.get("DisableScaleIn", False),
    )


def scalable_dimension(dimension: Dimension) -> str:
    """Application Auto Scaling's name of a dimension."""
    return f"dynamodb:table:{dimension.title()}CapacityUnits"


def dimension_of(name: str) -> Dimension | None:
    """The dimension of a table that Application Auto Scaling names so."""
    return next((each for each in DIMENSIONS if scalable_dimension(each) == name), None)


def metric_of(dimension: Dimension) -> str:
    """The predefined metric that a target tracking policy follows."""
    return f"DynamoDB{dimension.title()}CapacityUtilization"
