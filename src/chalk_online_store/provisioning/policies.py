"""Who may do what with a table: IAM policies of least privilege, as data.

Each role may do what the ones before it may: a reader, a writer, an operator. The data plane's
actions are those of the requests that `dynamodb` sends. `TransactWriteItems` is not among them:
AWS asks for the permissions of what is in the transaction, and ours hold puts and deletes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.spec import OnDemand, TableSpec

LONGEST_DOCUMENT = 6144
"""AWS: the characters of a managed policy, white space apart."""

LONGEST_NAME = 128
"""AWS: the characters of a policy's name."""

READS = ("BatchGetItem", "GetItem", "Query")
WRITES = ("BatchWriteItem", "DeleteItem", "DescribeTable", "PutItem", "UpdateItem")
"""A writer may look up the provisioned write capacity, to keep within it."""

ADMINISTRATION = (
    "CreateTable",
    "DescribeContinuousBackups",
    "DescribeTimeToLive",
    "ListTagsOfResource",
    "Scan",
    "TagResource",
    "UntagResource",
    "UpdateContinuousBackups",
    "UpdateTable",
    "UpdateTimeToLive",
)
"""An operator makes and changes a table. The Scan is what a Bloom filter is built from.

Deleting is not part of it, neither a table nor a replica.
"""

_OF_REPLICAS = ("CreateTableReplica",)
"""AWS asks for it, and for every access to items, in each region that gets a replica.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/V2gt_IAM.html
"""

_INSIGHTS = ("DescribeContributorInsights", "UpdateContributorInsights")
_SHARING = ("DeleteResourcePolicy", "GetResourcePolicy", "PutResourcePolicy")

_KEY_READS = ("Decrypt", "DescribeKey")
_KEY_WRITES = ("Encrypt", "GenerateDataKey*", "ReEncrypt*")
"""DynamoDB uses a customer managed key with the caller's permissions.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
"""

_SCALING = (
    "DeleteScalingPolicy",
    "DeregisterScalableTarget",
    "PutScalingPolicy",
    "RegisterScalableTarget",
)
_SCALING_SEEN = ("DescribeScalableTargets", "DescribeScalingPolicies")

_SCALER = "dynamodb.application-autoscaling.amazonaws.com"
_SCALER_ROLE = "AWSServiceRoleForApplicationAutoScaling_DynamoDBTable"
_REPLICATOR = "replication.dynamodb.amazonaws.com"
_REPLICATOR_ROLE = "AWSServiceRoleForDynamoDBReplication"


class Arn(NamedTuple):
    """An ARN but for partition and account; the region is empty for a global service."""

    service: str
    region: str
    resource: str

    def text(self, partition: str, account: str) -> str:
        """The ARN in a partition (`aws`, `aws-cn`, `aws-us-gov`) and an account."""
        return ":".join(("arn", partition, self.service, self.region, account, self.resource))


class Statement(Struct, frozen=True):
    """What is allowed, on what, and if what. A resource that is a text stands as it is."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[Arn | str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]] = {}


class Policy(Struct, frozen=True):
    """An IAM policy: its role (`reader`, `writer`, `operator`), its name, what it is for."""

    role: str
    name: str
    description: str
    statements: tuple[Statement, ...]

    def document(self, account: str, partition: str = "aws") -> dict[str, object]:
        """The policy's JSON document in an account, by its twelve digits."""
        return self.written(lambda arn: arn.text(partition, account))

    def written(self, arn: Callable[[Arn], Any]) -> dict[str, Any]:
        """The document with each ARN as `arn` makes it."""
        return {
            "Version": "2012-10-17",
            "Statement": [_written(each, arn) for each in self.statements],
        }


def reader(spec: TableSpec) -> Policy:
    """What a process needs that reads features. Raises `InvalidValue` as all three do."""
    return _policy(spec, "reader", "Reads features in", READS, _key_use(spec, _KEY_READS))


def writer(spec: TableSpec) -> Policy:
    """What a process needs that writes features as well, in the foreground or background."""
    keys = _key_use(spec, _KEY_READS + _KEY_WRITES)
    return _policy(spec, "writer", "Reads and writes features in", READS + WRITES, keys)


def operator(spec: TableSpec) -> Policy:
    """What whoever provisions the table needs, by Terraform or API, and for all commands.

    Deleting it is not among that, and neither is writing these policies: whoever may do so may
    grant themselves anything. Autoscaling, and the alarms that it keeps in CloudWatch, are where
    the description has autoscaling.
    """
    actions = READS + WRITES + ADMINISTRATION + (_OF_REPLICAS if spec.is_global else ())
    if spec.contributor_insights:
        actions += _INSIGHTS
    more = (*_operators_keys(spec), *_replication(spec), *_scaling(spec), *_watching(spec))
    return _policy(spec, "operator", "Provisions and maintains", actions, more)


def policies(spec: TableSpec) -> tuple[Policy, Policy, Policy]:
    """Reader, writer and operator."""
    return reader(spec), writer(spec), operator(spec)


def sharing_statements(
    spec: TableSpec,
) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Yield the id, the principals and the actions of each statement of the resource policy."""
    shared = spec.shared_with
    if shared is None:
        return
    for sid, principals, actions in (
        ("Readers", shared.readers, READS),
        ("Writers", shared.writers, READS + WRITES),
    ):
        if principals:
            yield sid, principals, _actions("dynamodb", actions)


# --- statements ----------------------------------------------------------------------------


def _policy(
    spec: TableSpec, role: str, does: str, actions: Iterable[str], more: Iterable[Statement]
) -> Policy:
    table = Statement("Table", _actions("dynamodb", actions), _in_each(spec, "dynamodb", "table/"))
    search = tuple(_searches(spec))
    policy = Policy(role, f"{spec.name}-{role}", f"{does} {spec.name}.", (table, *search, *more))
    _check(policy)
    return policy


def _searches(spec: TableSpec) -> Iterator[Statement]:
    """Searches of vector indexes, in a statement of their own.

    AWS: conditions such as dynamodb:LeadingKeys never match a search, and would deny it.
    """
    if spec.vector_indexes:
        indexes = _in_each(spec, "dynamodb", "table/", "/index/*")
        yield Statement("Search", ("dynamodb:SearchVectors",), indexes)


def _check(policy: Policy) -> None:
    if len(policy.name) > LONGEST_NAME:
        raise InvalidValue(
            f"AWS takes {LONGEST_NAME} characters for a policy's name, and {policy.name!r} has "
            f"{len(policy.name)}: shorten the table's name."
        )
    size = len(msgspec.json.encode(policy.document("0" * 12, "aws-us-gov")))
    if size > LONGEST_DOCUMENT:
        raise InvalidValue(
            f"AWS takes {LONGEST_DOCUMENT} characters for a policy, and that of the {policy.role} "
            f"of {policy.name!r} has {size}: shorten the table's name, or write policies by hand."
        )


def _key_use(spec: TableSpec, actions: Iterable[str], sid: str = "Keys") -> Iterator[Statement]:
    """Own keys, used by DynamoDB alone."""
    if spec.kms_key_arns:
        keys = tuple(spec.kms_key_arns[region] for region in spec.regions)
        via = {
            "kms:ViaService": tuple(f"dynamodb.{region}.amazonaws.com" for region in spec.regions)
        }
        yield Statement(sid, _actions("kms", actions), keys, {"StringEquals": via})


def _operators_keys(spec: TableSpec) -> Iterator[Statement]:
    """Terraform looks up which key is AWS's; DynamoDB is granted the use of an own one."""
    yield from _key_use(spec, (*_KEY_READS, *_KEY_WRITES, "CreateGrant"))
    alias = {"StringEquals": {"kms:RequestAlias": ("alias/aws/dynamodb",)}}
    keys = tuple(Arn("kms", region, "key/*") for region in spec.regions)
    yield Statement("DefaultKey", ("kms:DescribeKey",), keys, alias)


def _replication(spec: TableSpec) -> Iterator[Statement]:
    if spec.is_global:
        yield _role("ReplicationRole", _REPLICATOR, _REPLICATOR_ROLE)


def _scaling(spec: TableSpec) -> Iterator[Statement]:
    """Application Auto Scaling, and the alarms of its target tracking, whose names it gives."""
    if not is_autoscaled(spec):
        return
    service = "application-autoscaling"
    targets = tuple(Arn(service, region, "scalable-target/*") for region in spec.regions)
    ours = {"StringEquals": {f"{service}:service-namespace": ("dynamodb",)}}
    yield Statement("Scaling", _actions(service, _SCALING), targets, ours)
    yield Statement("ScalingTags", (f"{service}:ListTagsForResource",), targets)
    yield Statement("ScalingSeen", _actions(service, _SCALING_SEEN), ("*",))
    alarms = ("cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm")
    tracked = _in_each(spec, "cloudwatch", "alarm:TargetTracking-table/", "-*")
    yield Statement("Alarms", alarms, tracked)
    # A plan reads autoscaled units from the table, and looks for it in the list of all tables.
    yield Statement("TablesSeen", ("dynamodb:ListTables",), ("*",))
    yield _role("ScalingRole", _SCALER, _SCALER_ROLE)


def _watching(spec: TableSpec) -> Iterator[Statement]:
    """What `doctor` looks at beside the table, and alarms where the description has some."""
    seen = tuple(Arn("cloudwatch", region, "alarm:*") for region in spec.regions)
    yield Statement("AlarmsSeen", ("cloudwatch:DescribeAlarms",), seen)
    yield Statement("QuotasSeen", ("dynamodb:DescribeLimits",), ("*",))
    if spec.shared_with is not None:
        # AWS checks both kinds of resources: a stream can have a resource policy too.
        streams = _in_each(spec, "dynamodb", "table/", "/stream/*")
        tables = _in_each(spec, "dynamodb", "table/")
        yield Statement("Sharing", _actions("dynamodb", _SHARING), (*tables, *streams))
    if spec.alarms is not None:
        ours = _in_each(spec, "cloudwatch", "alarm:", "-*")
        tags = ("ListTagsForResource", "TagResource", "UntagResource")
        kept = ("DeleteAlarms", "PutMetricAlarm", *tags)
        yield Statement("OwnAlarms", _actions("cloudwatch", kept), ours)


def is_autoscaled(spec: TableSpec) -> bool:
    """Whether reads or writes are autoscaled in any region."""
    capacity = spec.capacity
    if isinstance(capacity, OnDemand):
        return False
    units = (capacity.write, *map(capacity.read_in, spec.regions))
    return any(each.autoscaling for each in units)


def _role(sid: str, service: str, role: str) -> Statement:
    """AWS makes the service's role for whoever first needs it, if they may have that done."""
    arn = Arn("iam", "", f"role/aws-service-role/{service}/{role}")
    named = {"StringEquals": {"iam:AWSServiceName": (service,)}}
    return Statement(sid, ("iam:CreateServiceLinkedRole",), (arn,), named)


def _actions(service: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{service}:{name}" for name in sorted(names))


def _in_each(spec: TableSpec, service: str, before: str, after: str = "") -> tuple[Arn, ...]:
    return tuple(Arn(service, region, f"{before}{spec.name}{after}") for region in spec.regions)


def _written(statement: Statement, arn: Callable[[Arn], Any]) -> dict[str, Any]:
    resources = [arn(each) if isinstance(each, Arn) else each for each in statement.resources]
    conditions = {
        operator: {key: list(values) for key, values in keys.items()}
        for operator, keys in statement.conditions.items()
    }
    return {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": list(statement.actions),
        "Resource": resources,
        **({"Condition": conditions} if conditions else {}),
    }
