"""A table as Terraform: files for HashiCorp's AWS provider, 6.0 or newer.

Where an argument has a rule behind it that the provider does not state, its source is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.adoption import adopt
from chalk_online_store.provisioning.alarms import NAMESPACE, Alarm, table_alarms
from chalk_online_store.provisioning.hcl import (
    Attribute,
    Block,
    Call,
    Expression,
    Template,
    Value,
    attributes,
    block,
    document,
)
from chalk_online_store.provisioning.policies import Arn, Policy, policies, sharing_statements
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)

Body: TypeAlias = Iterator[Attribute | Block]

HEADER = "Written by chalk-online-store from the description of a table: change that, not this."
_LIVE_UNITS = """\
Autoscaled capacity has no `ignore_changes`: while a table is on demand, Terraform's state holds 0
units, and the provider would turn an ignored 0 into 1 unit when the table becomes provisioned.
Instead, a plan reads the units that the table has now, and keeps them. A table that is new or on
demand starts with the units of the description."""
_TABLE = "aws_dynamodb_table.online_store"
_EXISTING = "data.aws_dynamodb_table.existing"
_REPLICA = "aws_dynamodb_table_replica"
_TARGET = "aws_appautoscaling_target"
_SCALING = "aws_appautoscaling_policy"
INSIGHTS = {"all-keys": "ACCESSED_AND_THROTTLED_KEYS", "throttled-keys": "THROTTLED_KEYS"}
"""The modes of Contributor Insights by their names in a description."""

_PARTITION = Expression("data.aws_partition.current.partition")
_ACCOUNT = Expression("data.aws_caller_identity.current.account_id")


def render(spec: TableSpec, adopted: str | None = None) -> dict[str, str]:
    """The text of each file by its name, as `terraform fmt` leaves it.

    `versions.tf`, `providers.tf`, `main.tf`, `iam.tf` and `outputs.tf`; if the table has them,
    `autoscaling.tf`, `alarms.tf` (Contributor Insights included), `backup.tf` and `sharing.tf`.
    Every regional resource states its region, so that a module may leave out `providers.tf`.

    Each replica of a Global Table is a resource, in either mode, so that a change of the billing
    mode leaves it alone. Replicas of a provisioned table are created after the autoscaling of
    writes: DynamoDB refuses a replica of a table whose writes are not autoscaled yet, and
    autoscaling needs the table
    (https://github.com/terraform-aws-modules/terraform-aws-dynamodb-table/issues/109). Writes
    are autoscaled in the first region alone: AWS replicates these settings to all replicas
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-global-table-design.prescriptive-guidance.throughput.html).
    Reads are autoscaled in each region by itself.

    `adopted` is the source of a table that exists, as `adoption.adopt` takes it: then `adopt.tf`
    has its `moved` and `import` blocks. Render without it once it was applied.

    Raises `InvalidValue` for what the provider has no argument for, and for policies that are
    longer than IAM takes.
    """
    check_renderable(spec)
    scaling = (*_live_units(spec), *_scaling(spec))
    alarms = (*_alarms(spec), *_insights(spec))
    files = {
        "versions.tf": versions(),
        "providers.tf": (block("provider", "aws", region=spec.regions[0]),),
        "main.tf": (_table(spec), *_replica_resources(spec)),
        **({"autoscaling.tf": scaling} if scaling else {}),
        **({"alarms.tf": alarms} if alarms else {}),
        **({"backup.tf": tuple(_backups(spec))} if spec.backups else {}),
        **({"sharing.tf": tuple(_sharing(spec))} if spec.shared_with else {}),
        "iam.tf": tuple(_iam(spec)),
        "outputs.tf": tuple(_outputs(spec)),
        **({"adopt.tf": adopt(spec, adopted)} if adopted is not None else {}),
    }
    remarks = {"autoscaling.tf": f"{HEADER}\n\n{_LIVE_UNITS}"} if _is_live(spec) else {}
    return {name: document(remarks.get(name, HEADER), made) for name, made in files.items()}


def check_renderable(spec: TableSpec) -> None:
    """Raise `InvalidValue` for what the provider has no argument for.

    AWS: a replica begins with the read capacity of its source. The provider cannot set another.
    """
    if not isinstance(spec.capacity, Provisioned):
        return
    first, *others = map(spec.capacity.read_in, spec.regions)
    for region, units in zip(spec.regions[1:], others, strict=True):
        if units.autoscaling is None and units != first:
            raise InvalidValue(
                f"Terraform's AWS provider cannot fix the read capacity of a replica: autoscale "
                f"reads in {region}, or give it what {spec.regions[0]} has, without autoscaling."
            )


def versions() -> tuple[Block, ...]:
    """Return the block that requires a version of Terraform and of the provider."""
    aws: Value = {"source": "hashicorp/aws", "version": ">= 6.0"}
    providers = Block("required_providers", (), attributes({"aws": aws}))
    return (Block("terraform", (), (Attribute("required_version", ">= 1.5"), providers)),)


# --- the table -----------------------------------------------------------------------------


def _table(spec: TableSpec) -> Block:
    body = (*attributes(_arguments(spec)), *_settings(spec))
    tags = attributes(_tags(spec))
    return Block("resource", tuple(_TABLE.split(".")), (*body, *tags, *_lifecycle(spec)))


def _arguments(spec: TableSpec) -> dict[str, Value]:
    stream: dict[str, Value] = {"stream_enabled": True, "stream_view_type": "NEW_AND_OLD_IMAGES"}
    return {
        "name": spec.name,
        "region": spec.regions[0],
        **_capacity(spec),
        "hash_key": spec.pk,
        "range_key": spec.sk,
        "table_class": spec.table_class,
        "deletion_protection_enabled": spec.deletion_protection,
        **(stream if spec.is_global else {}),
    }


def _capacity(spec: TableSpec) -> dict[str, Value]:
    if isinstance(spec.capacity, OnDemand):
        return {"billing_mode": "PAY_PER_REQUEST"}
    return {
        "billing_mode": "PROVISIONED",
        **{
            f"{dimension}_capacity": units.units
            if units.autoscaling is None
            else Expression(f"local.{dimension}_capacity")
            for dimension, units in _first_units(spec.capacity, spec).items()
        },
    }


def _first_units(capacity: Provisioned, spec: TableSpec) -> dict[str, Units]:
    """The capacity of the first region, by dimension."""
    return {"read": capacity.read_in(spec.regions[0]), "write": capacity.write}


def _is_live(spec: TableSpec) -> bool:
    """Return True if units of the table itself are autoscaled, so that a plan has to read them."""
    if isinstance(spec.capacity, OnDemand):
        return False
    return any(units.autoscaling for units in _first_units(spec.capacity, spec).values())


def _live_units(spec: TableSpec) -> Iterator[Block]:
    """The units that autoscaling has set, read from the table if there is one.

    The list of all tables tells whether there is one: a data source of an absent table fails.
    """
    if isinstance(spec.capacity, OnDemand) or not _is_live(spec):
        return
    names = Expression("contains(data.aws_dynamodb_tables.all.names, local.table_name) ? 1 : 0")
    yield block("data", "aws_dynamodb_tables", "all", region=spec.regions[0])
    here: dict[str, Value] = {"name": Expression("local.table_name"), "region": spec.regions[0]}
    yield block("data", "aws_dynamodb_table", "existing", count=names, **here)
    units: dict[str, Value] = {"table_name": spec.name}
    for dimension, wanted in _first_units(spec.capacity, spec).items():
        if wanted.autoscaling is not None:
            name = f"{dimension}_capacity"
            now = f"[for n in {_EXISTING}[*].{name} : n if n > 0]"
            units[name] = Expression(f"concat({now}, [{wanted.units}])[0]")
    yield block("locals", **units)


def _settings(spec: TableSpec) -> Body:
    for name in (spec.pk, spec.sk):
        yield block("attribute", name=name, type="S")
    yield block("ttl", attribute_name=spec.ttl, enabled=True)
    yield block("point_in_time_recovery", **_recovery(spec))
    yield block("server_side_encryption", enabled=True, **_key(spec, spec.regions[0]))
    if maxima := _maxima(spec):
        yield block("on_demand_throughput", **maxima)
    if spec.warm is not None:
        yield block(
            "warm_throughput",
            read_units_per_second=spec.warm.read,
            write_units_per_second=spec.warm.write,
        )


def _recovery(spec: TableSpec) -> dict[str, Value]:
    days = spec.recovery_days
    return (
        {"enabled": False} if days is None else {"enabled": True, "recovery_period_in_days": days}
    )


def _key(spec: TableSpec, region: str) -> dict[str, Value]:
    key = spec.kms_key_arns.get(region)
    return {} if key is None else {"kms_key_arn": key}


def _maxima(spec: TableSpec) -> dict[str, Value]:
    if isinstance(spec.capacity, Provisioned):
        return {}
    found = {
        "max_read_request_units": spec.capacity.max_read,
        "max_write_request_units": spec.capacity.max_write,
    }
    return {name: units for name, units in found.items() if units is not None}


def _lifecycle(spec: TableSpec) -> Body:
    """Replicas are resources of their own: the table's own view of them is ignored."""
    settings: dict[str, Value] = {
        **({"ignore_changes": [Expression("replica")]} if spec.is_global else {}),
        **_protected(spec),
    }
    if settings:
        yield block("lifecycle", **settings)


def _protected(spec: TableSpec) -> dict[str, Value]:
    return {"prevent_destroy": True} if spec.prevent_destroy else {}


# --- replicas ------------------------------------------------------------------------------


def _replica_resources(spec: TableSpec) -> Iterator[Block]:
    """The provider's own region has none: it is not a replica of itself."""
    after = [] if isinstance(spec.capacity, OnDemand) else [Expression(f"{_SCALING}.write")]
    for region in spec.regions[1:]:
        arguments: dict[str, Value] = {
            "region": region,
            "global_table_arn": Expression(f"{_TABLE}.arn"),
            **_replica(spec, region),
            **_tags(spec),
            **({"depends_on": after} if after else {}),
        }
        kept = (block("lifecycle", **_protected(spec)),) if spec.prevent_destroy else ()
        body = (*attributes(arguments), *kept)
        yield Block("resource", (_REPLICA, _label(region)), body)


def _replica(spec: TableSpec, region: str) -> dict[str, Value]:
    """What AWS does not copy from the table. Replicas recover over 35 days, AWS's default."""
    return {
        "point_in_time_recovery": spec.recovery_days is not None,
        "deletion_protection_enabled": spec.deletion_protection,
        **_key(spec, region),
    }


# --- autoscaling ---------------------------------------------------------------------------


def _scaling(spec: TableSpec) -> Iterator[Block]:
    capacity = spec.capacity
    if isinstance(capacity, OnDemand):
        return
    if capacity.write.autoscaling:
        scaled = capacity.write.autoscaling
        yield from _tracking(spec, "write", "Write", spec.regions[0], scaled, ())
    for region in spec.regions:
        reads = capacity.read_in(region).autoscaling
        after = () if region == spec.regions[0] else (f"{_REPLICA}.{_label(region)}",)
        if reads:
            yield from _tracking(spec, f"read_{_label(region)}", "Read", region, reads, after)


def _tracking(
    spec: TableSpec,
    label: str,
    dimension: str,
    region: str,
    scaled: Autoscaling,
    after: tuple[str, ...],
) -> Iterator[Block]:
    """A scalable target, and the policy that keeps it at a share of use."""
    target: dict[str, Value] = {
        "region": region,
        "service_namespace": "dynamodb",
        "resource_id": Template(("table/", Expression(f"{_TABLE}.name"))),
        "scalable_dimension": f"dynamodb:table:{dimension}CapacityUnits",
        "min_capacity": scaled.min,
        "max_capacity": scaled.max,
        **_tags(spec),
        **({"depends_on": [Expression(name) for name in after]} if after else {}),
    }
    yield block("resource", _TARGET, label, **target)
    metric = f"DynamoDB{dimension}CapacityUtilization"
    of_target = ("region", "service_namespace", "resource_id", "scalable_dimension")
    policy: dict[str, Value] = {
        "name": Template((f"{metric}:table/", Expression(f"{_TABLE}.name"))),
        "policy_type": "TargetTrackingScaling",
        **{name: Expression(f"{_TARGET}.{label}.{name}") for name in of_target},
    }
    body: tuple[Attribute | Block, ...] = (*attributes(policy), _tracked(metric, scaled))
    yield Block("resource", (_SCALING, label), body)


def _tracked(metric: str, scaled: Autoscaling) -> Block:
    settings: Mapping[str, Value] = {
        "target_value": scaled.target,
        "scale_in_cooldown": scaled.scale_in_cooldown,
        "scale_out_cooldown": scaled.scale_out_cooldown,
    }
    tracked = block("predefined_metric_specification", predefined_metric_type=metric)
    name = "target_tracking_scaling_policy_configuration"
    return Block(name, (), (*attributes(settings), tracked))


# --- alarms, insights ----------------------------------------------------------------------


def _alarms(spec: TableSpec) -> Iterator[Block]:
    topics = spec.alarms.topics if spec.alarms else {}
    for alarm in table_alarms(spec):
        actions = [topics[alarm.region]] if alarm.region in topics else []
        arguments: dict[str, Value] = {
            "region": alarm.region,
            "alarm_name": alarm.name,
            "alarm_description": alarm.description,
            "comparison_operator": "GreaterThanOrEqualToThreshold",
            "threshold": alarm.threshold,
            "evaluation_periods": alarm.periods,
            "datapoints_to_alarm": alarm.datapoints,
            "treat_missing_data": "notBreaching",
            **({"alarm_actions": actions, "ok_actions": actions} if actions else {}),
            **_tags(spec),
        }
        body: tuple[Attribute | Block, ...] = (*attributes(arguments), *_queries(alarm))
        yield Block("resource", ("aws_cloudwatch_metric_alarm", alarm.label), body)


def _queries(alarm: Alarm) -> Iterator[Block]:
    """One form for all alarms: the metrics, and the expression over them."""
    for identifier, metric in alarm.metrics.items():
        measured: dict[str, Value] = {
            "namespace": NAMESPACE,
            "metric_name": metric.name,
            "dimensions": metric.dimensions,
            "stat": metric.statistic,
            "period": metric.period,
        }
        result: dict[str, Value] = {} if alarm.expression else {"return_data": True}
        head = attributes({"id": identifier, **result})
        yield Block("metric_query", (), (*head, block("metric", **measured)))
    if alarm.expression:
        yield block(
            "metric_query",
            id="result",
            expression=alarm.expression,
            label=alarm.name,
            return_data=True,
        )


def _insights(spec: TableSpec) -> Iterator[Block]:
    if spec.contributor_insights is None:
        return
    for region in spec.regions:
        yield block(
            "resource",
            "aws_dynamodb_contributor_insights",
            _label(region),
            region=region,
            table_name=Expression(f"{_TABLE}.name"),
            mode=INSIGHTS[spec.contributor_insights],
            **_after_replica(spec, region),
        )


def _after_replica(spec: TableSpec, region: str) -> dict[str, Value]:
    """The table of another region exists once its replica does."""
    if region == spec.regions[0]:
        return {}
    return {"depends_on": [Expression(f"{_REPLICA}.{_label(region)}")]}


# --- backups -------------------------------------------------------------------------------


def _backups(spec: TableSpec) -> Iterator[Block]:
    """A vault, a plan and a role of AWS Backup, in the first region."""
    wanted = spec.backups
    assert wanted is not None, "asked for a table with backups"
    name = backup_name(spec)
    region = spec.regions[0]
    tags = _tags(spec)
    trust: Value = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "backup.amazonaws.com"},
            }
        ],
    }
    yield block("resource", "aws_backup_vault", "backup", region=region, name=name, **tags)
    rule: dict[str, Value] = {
        "rule_name": "regular",
        "target_vault_name": Expression("aws_backup_vault.backup.name"),
        "schedule": wanted.schedule,
    }
    kept = block("lifecycle", delete_after=wanted.keep_days)
    plan = attributes({"region": region, "name": name, **tags})
    rules = Block("rule", (), (*attributes(rule), kept))
    yield Block("resource", ("aws_backup_plan", "backup"), (*plan, rules))
    yield block(
        "resource",
        "aws_iam_role",
        "backup",
        name=name,
        assume_role_policy=Call("jsonencode", trust),
        **tags,
    )
    role = "policy/service-role/AWSBackupServiceRolePolicyForBackup"
    yield block(
        "resource",
        "aws_iam_role_policy_attachment",
        "backup",
        role=Expression("aws_iam_role.backup.name"),
        policy_arn=Template(("arn:", _PARTITION, f":iam::aws:{role}")),
    )
    yield block(
        "resource",
        "aws_backup_selection",
        "backup",
        region=region,
        name=name,
        plan_id=Expression("aws_backup_plan.backup.id"),
        iam_role_arn=Expression("aws_iam_role.backup.arn"),
        resources=[Expression(f"{_TABLE}.arn")],
    )


def backup_name(spec: TableSpec) -> str:
    """Return the name of vault, plan and role: AWS Backup takes 50 letters, digits, - and _."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', spec.name)[:43]}-backup"


# --- sharing -------------------------------------------------------------------------------


def _sharing(spec: TableSpec) -> Iterator[Block]:
    """A resource policy in each region: AWS does not replicate them."""
    for region in spec.regions:
        first = region == spec.regions[0]
        table = _TABLE if first else f"{_REPLICA}.{_label(region)}"
        yield block(
            "resource",
            "aws_dynamodb_resource_policy",
            _label(region),
            region=region,
            resource_arn=Expression(f"{table}.arn"),
            policy=Call("jsonencode", resource_policy(spec, region)),
        )


def resource_policy(spec: TableSpec, region: str) -> Value:
    """Return the resource policy of a table in a region, with the account as an expression."""
    arn = _arn(Arn("dynamodb", region, f"table/{spec.name}"))
    statements: list[Value] = [
        {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": list(principals)},
            "Action": list(actions),
            "Resource": [arn],
        }
        for sid, principals, actions in sharing_statements(spec)
    ]
    return {"Version": "2012-10-17", "Statement": statements}


# --- IAM -----------------------------------------------------------------------------------


def _iam(spec: TableSpec) -> Iterator[Block]:
    yield from iam_sources()
    for policy in policies(spec):
        yield block("resource", "aws_iam_policy", policy.role, **_policy(spec, policy))


def iam_sources() -> tuple[Block, ...]:
    """Return the data sources that `policy_document` refers to."""
    return (
        block("data", "aws_partition", "current"),
        block("data", "aws_caller_identity", "current"),
    )


def _policy(spec: TableSpec, policy: Policy) -> dict[str, Value]:
    return {
        "name": policy.name,
        "description": policy.description,
        "policy": Call("jsonencode", policy_document(policy)),
        **_tags(spec),
    }


def policy_document(policy: Policy) -> Value:
    """Return the document of a policy, with the account and the partition as expressions."""
    document: Value = policy.written(_arn)
    return document


def _tags(spec: TableSpec) -> dict[str, Value]:
    return {"tags": spec.tags} if spec.tags else {}


def _arn(arn: Arn) -> Value:
    service, region, path = arn
    return Template(("arn:", _PARTITION, f":{service}:{region}:", _ACCOUNT, f":{path}"))


# --- outputs -------------------------------------------------------------------------------


def _outputs(spec: TableSpec) -> Iterator[Block]:
    yield _output("table_name", "The name of the table.", Expression(f"{_TABLE}.name"))
    yield _output("table_arn", "Its ARN in the first region.", Expression(f"{_TABLE}.arn"))
    yield _output("url", "What OnlineStore.open takes.", _url(spec))
    for policy in policies(spec):
        arn = Expression(f"aws_iam_policy.{policy.role}.arn")
        yield _output(f"{policy.role}_policy_arn", policy.description, arn)


def _output(name: str, description: str, value: Value) -> Block:
    return block("output", name, description=description, value=value)


def _url(spec: TableSpec) -> str:
    """Names of tables, regions and attributes need no escape in a URL."""
    usual = TableSpec("usual", ("us-east-1",))
    names = [
        f"&{option}={getattr(spec, option)}"
        for option in ("pk", "sk", "ttl")
        if getattr(spec, option) != getattr(usual, option)
    ]
    return f"dynamodb:///{spec.name}?region={','.join(spec.regions)}{''.join(names)}"


def _label(region: str) -> str:
    return region.replace("-", "_")
