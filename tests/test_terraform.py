"""Terraform files of tables, checked and planned by the real terraform with the real schema."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning import hcl
from chalk_online_store.provisioning.policies import policies
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)
from chalk_online_store.provisioning.terraform import INSIGHTS, render, table_alarms
from chalk_online_store.urls import parse_url
from tests.helpers import stress
from tests.terraform import ACCOUNT
from tests.terraform.running import TERRAFORM, Refused, Terraform, offline_terraform
from tests.terraform.specs import EAST, ODD_TAGS, READ, SPECS, WEST, WRITE

needs_terraform = pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")

TABLE = "aws_dynamodb_table.online_store"
ROLES = ("reader", "writer", "operator")


class Planned(NamedTuple):
    """A table, and what terraform would make of it, by address."""

    spec: TableSpec
    plan: Mapping[str, Any]

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        found = self.plan["planned_values"]["root_module"]["resources"]
        return {each["address"]: each["values"] for each in found}

    @property
    def table(self) -> dict[str, Any]:
        return self.resources[TABLE]

    def named(self, kind: str) -> dict[str, dict[str, Any]]:
        """The resources of a kind, by their labels."""
        start = f"{kind}."
        found = self.resources.items()
        return {a.removeprefix(start): values for a, values in found if a.startswith(start)}

    def after(self, kind: str, label: str) -> list[str]:
        """What a resource is made after, by its own word."""
        resources = self.plan["configuration"]["root_module"]["resources"]
        (found,) = (each for each in resources if each["address"] == f"{kind}.{label}")
        return list(found.get("depends_on", ()))


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with offline_terraform(tmp_path_factory.mktemp("terraform")) as running:
        yield running


@pytest.fixture(scope="module", params=SPECS)
def planned(
    request: pytest.FixtureRequest, terraform: Terraform, tmp_path_factory: pytest.TempPathFactory
) -> Planned:
    """Each table, formatted, validated and planned."""
    spec = SPECS[request.param]
    return Planned(spec, terraform.plan(tmp_path_factory.mktemp("table"), render(spec)))


# --- every table ---------------------------------------------------------------------------


@needs_terraform
def test_the_plan_makes_what_the_table_takes_and_nothing_else(planned: Planned) -> None:
    """Terraform accepts every table's files as they are, and would make these resources alone."""
    expected = {TABLE, *(f"aws_iam_policy.{role}" for role in ROLES)}
    expected |= set(watching(planned.spec))
    expected |= {f"aws_dynamodb_table_replica.{name(r)}" for r in planned.spec.regions[1:]}
    capacity = planned.spec.capacity
    if isinstance(capacity, Provisioned):
        scaled = {
            f"read_{name(r)}" for r in planned.spec.regions if capacity.read_in(r).autoscaling
        }
        scaled |= {"write"} if capacity.write.autoscaling else set()
        expected |= {f"aws_appautoscaling_target.{label}" for label in scaled}
        expected |= {f"aws_appautoscaling_policy.{label}" for label in scaled}
    assert set(planned.resources) == expected
    changes = planned.plan["resource_changes"]
    assert [change["change"]["actions"] for change in changes] == [["create"]] * len(expected)


def watching(spec: TableSpec) -> Iterator[str]:
    """The addresses of what watches, keeps and shares a table."""
    if spec.backups:
        kinds = ("vault", "plan", "selection")
        yield from (f"aws_backup_{kind}.backup" for kind in kinds)
        yield from ("aws_iam_role.backup", "aws_iam_role_policy_attachment.backup")
    for each in table_alarms(spec):
        yield f"aws_cloudwatch_metric_alarm.{each.label}"
    for region in spec.regions:
        if spec.contributor_insights:
            yield f"aws_dynamodb_contributor_insights.{name(region)}"
        if spec.shared_with:
            yield f"aws_dynamodb_resource_policy.{name(region)}"


@needs_terraform
def test_alarms_are_those_of_the_data(planned: Planned) -> None:
    """Each alarm has its metrics, threshold and topic, and no two in a region share a name."""
    found = planned.named("aws_cloudwatch_metric_alarm")
    alarms = list(table_alarms(planned.spec))
    assert set(found) == {alarm.label for alarm in alarms}
    assert len({(alarm.region, alarm.name) for alarm in alarms}) == len(alarms)
    for alarm in alarms:
        values = found[alarm.label]
        assert (values["region"], values["alarm_name"]) == (alarm.region, alarm.name)
        assert values["threshold"] == pytest.approx(alarm.threshold)
        assert (values["tags"] or {}) == dict(planned.spec.tags)
        topics = planned.spec.alarms.topics if planned.spec.alarms else {}
        topic = topics.get(alarm.region)
        assert values["alarm_actions"] == ([topic] if topic else None)
        queries = {each["id"]: each for each in values["metric_query"]}
        assert set(queries) == {*alarm.metrics, *(["result"] if alarm.expression else [])}
        assert [each["return_data"] for each in queries.values()].count(True) == 1
        for identifier, metric in alarm.metrics.items():
            (measured,) = queries[identifier]["metric"]
            assert (measured["metric_name"], measured["namespace"]) == (metric.name, "AWS/DynamoDB")
            assert (measured["dimensions"] or {}) == dict(metric.dimensions)


@needs_terraform
def test_warmth_insights_and_sharing_are_as_described(planned: Planned) -> None:
    """Warm throughput, the mode of insights and resource policies reach the plan."""
    spec = planned.spec
    (warm,) = planned.table["warm_throughput"] or [None]
    units = warm and (warm["read_units_per_second"], warm["write_units_per_second"])
    assert units == (spec.warm and (spec.warm.read, spec.warm.write))
    for each in planned.named("aws_dynamodb_contributor_insights").values():
        assert each["mode"] == INSIGHTS[str(spec.contributor_insights)]
    for each in planned.named("aws_dynamodb_resource_policy").values():
        document = json.loads(each["policy"])
        admitted = {one["Sid"]: one["Principal"]["AWS"] for one in document["Statement"]}
        assert spec.shared_with is not None
        shared = {"Readers": spec.shared_with.readers, "Writers": spec.shared_with.writers}
        assert admitted == {sid: list(some) for sid, some in shared.items() if some}
        assert [one["Resource"] for one in document["Statement"]] == [
            [f"arn:aws:dynamodb:{each['region']}:{ACCOUNT}:table/{spec.name}"]
        ] * len(admitted)


@needs_terraform
def test_everything_that_can_has_the_tags(planned: Planned) -> None:
    """No resource that takes tags is left without those of the description."""
    for address, values in planned.resources.items():
        if "tags" in values:
            assert (values["tags"] or {}) == dict(planned.spec.tags), address


@needs_terraform
def test_a_table_is_as_described(planned: Planned) -> None:
    """Name, keys, TTL, recovery, encryption, protection, class and tags reach the plan."""
    spec, table = planned.spec, planned.table
    assert (table["name"], table["region"]) == (spec.name, spec.regions[0])
    assert (table["hash_key"], table["range_key"]) == (spec.pk, spec.sk)
    keys = [{"name": spec.pk, "type": "S"}, {"name": spec.sk, "type": "S"}]
    assert sorted(table["attribute"], key=str) == sorted(keys, key=str)
    assert table["ttl"] == [{"attribute_name": spec.ttl, "enabled": True}]
    days = spec.recovery_days
    recovery = {"enabled": days is not None, "recovery_period_in_days": days}
    assert table["point_in_time_recovery"] == [recovery]
    key = spec.kms_key_arns.get(spec.regions[0])
    assert table["server_side_encryption"] == [{"enabled": True, "kms_key_arn": key}]
    assert table["deletion_protection_enabled"] is spec.deletion_protection
    assert table["table_class"] == spec.table_class
    assert (table["tags"] or {}) == dict(spec.tags)


@needs_terraform
def test_capacity_is_as_described(planned: Planned) -> None:
    """A table on demand has no units but its maxima; a provisioned one has those it begins with."""
    capacity, table = planned.spec.capacity, planned.table
    units = (table.get("read_capacity"), table.get("write_capacity"))
    (maxima,) = table["on_demand_throughput"] or [None]
    if isinstance(capacity, OnDemand):
        assert (table["billing_mode"], units) == ("PAY_PER_REQUEST", (None, None))
        read, write = capacity.max_read, capacity.max_write
        described = {"max_read_request_units": read, "max_write_request_units": write}
        assert maxima == (described if read or write else None)
    else:
        read_units = capacity.read_in(planned.spec.regions[0]).units
        assert (table["billing_mode"], units) == ("PROVISIONED", (read_units, capacity.write.units))
        assert maxima is None


@needs_terraform
def test_every_region_but_the_first_has_one_replica(planned: Planned) -> None:
    """Replicas leave out the table's own region, and have its protection, recovery and own keys."""
    spec = planned.spec
    found = {v["region"]: v for v in planned.named("aws_dynamodb_table_replica").values()}
    assert not planned.table["replica"]
    assert set(found) == set(spec.regions[1:])
    for region, replica in found.items():
        assert replica["point_in_time_recovery"] is (spec.recovery_days is not None)
        assert replica["deletion_protection_enabled"] is spec.deletion_protection
        assert replica["kms_key_arn"] == spec.kms_key_arns.get(region)
        assert (replica["tags"] or {}) == dict(spec.tags)
    stream = (planned.table["stream_enabled"], planned.table["stream_view_type"])
    assert stream == ((True, "NEW_AND_OLD_IMAGES") if spec.is_global else (None, None))


@needs_terraform
def test_policies_are_those_of_the_data(planned: Planned) -> None:
    """What Terraform gives IAM is what `policies` says, with the account and partition found."""
    found = planned.named("aws_iam_policy")
    for policy in policies(planned.spec):
        resource = found[policy.role]
        assert json.loads(resource["policy"]) == policy.document(ACCOUNT)
        assert (resource["name"], resource["description"]) == (policy.name, policy.description)


@needs_terraform
def test_the_url_opens_the_table(planned: Planned) -> None:
    """The output `url` is one that the library takes, for this table, its regions and names."""
    outputs = planned.plan["planned_values"]["outputs"]
    assert outputs["table_name"]["value"] == planned.spec.name
    target = parse_url(outputs["url"]["value"])
    assert isinstance(target, DynamoDBTarget)
    described = (planned.spec.name, planned.spec.regions, planned.spec.layout)
    assert (target.table, target.regions, target.layout) == described


# --- autoscaling ---------------------------------------------------------------------------


@needs_terraform
def test_reads_are_autoscaled_in_each_region_and_writes_in_the_first(planned: Planned) -> None:
    """Targets are registered in their regions with their ranges, each with a policy that tracks."""
    targets = planned.named("aws_appautoscaling_target")
    tracking = planned.named("aws_appautoscaling_policy")
    for label, region, dimension, scaled in described_scaling(planned.spec):
        target, policy = targets.pop(label), tracking.pop(label)
        assert (target["region"], policy["region"]) == (region, region)
        assert (target["min_capacity"], target["max_capacity"]) == (scaled.min, scaled.max)
        assert target["resource_id"] == policy["resource_id"] == f"table/{planned.spec.name}"
        for each in (target, policy):
            assert each["scalable_dimension"] == f"dynamodb:table:{dimension}CapacityUnits"
            assert each["service_namespace"] == "dynamodb"
        (settings,) = policy["target_tracking_scaling_policy_configuration"]
        (metric,) = settings["predefined_metric_specification"]
        assert metric["predefined_metric_type"] == f"DynamoDB{dimension}CapacityUtilization"
        assert settings["target_value"] == scaled.target
        cooldowns = (settings["scale_in_cooldown"], settings["scale_out_cooldown"])
        assert cooldowns == (scaled.scale_in_cooldown, scaled.scale_out_cooldown)
    assert (targets, tracking) == ({}, {})


def described_scaling(spec: TableSpec) -> Iterator[tuple[str, str, str, Autoscaling]]:
    capacity = spec.capacity
    if isinstance(capacity, Provisioned):
        if capacity.write.autoscaling:
            yield "write", spec.regions[0], "Write", capacity.write.autoscaling
        for region in spec.regions:
            if scaled := capacity.read_in(region).autoscaling:
                yield f"read_{name(region)}", region, "Read", scaled


@needs_terraform
def test_replicas_wait_for_the_autoscaling_of_writes(terraform: Terraform, tmp_path: Path) -> None:
    """AWS refuses them sooner; their own autoscaling waits for them, as there is no table yet."""
    spec = SPECS["global, scaled"]
    planned = Planned(spec, terraform.plan(tmp_path, render(spec)))
    replica = "aws_dynamodb_table_replica"
    assert planned.after(replica, "us_west_2") == ["aws_appautoscaling_policy.write"]
    assert planned.after(replica, "eu_west_1") == ["aws_appautoscaling_policy.write"]
    target = "aws_appautoscaling_target"
    assert planned.after(target, "read_us_west_2") == [f"{replica}.us_west_2"]
    assert planned.after(target, "read_us_east_1") == []


@pytest.mark.parametrize("kind", SPECS)
def test_only_replicas_are_ignored(kind: str) -> None:
    """Units are never ignored, since an ignored 0 of a table on demand would become 1 unit."""
    found = re.findall(r"ignore_changes +=[^\n]+", render(SPECS[kind])["main.tf"])
    assert [re.findall(r"\[(.+)\]", each) for each in found] == [["replica"]] * SPECS[
        kind
    ].is_global


@pytest.mark.parametrize("kind", SPECS)
def test_a_table_and_its_replicas_are_not_destroyed(kind: str) -> None:
    """Terraform refuses a plan that would destroy a table or a replica, by default."""
    spec = SPECS[kind]
    found = re.findall(r"prevent_destroy += true", render(spec)["main.tf"])
    assert len(found) == (len(spec.regions) if spec.prevent_destroy else 0)


@pytest.mark.parametrize(
    "capacity",
    [
        Provisioned(Units(100), WRITE, {WEST: Units(200)}),
        Provisioned(READ, WRITE, {WEST: Units(1000)}),
        Provisioned(Units(100), WRITE, {EAST: Units(200)}),
    ],
)
def test_a_replica_with_fixed_reads_of_its_own_is_refused(capacity: Provisioned) -> None:
    """The provider could not set them, so nothing is rendered that AWS would not do."""
    with pytest.raises(InvalidValue, match="autoscale reads in us-west-2"):
        render(TableSpec("features", (EAST, WEST), capacity))


# --- files ---------------------------------------------------------------------------------


def test_files_have_the_usual_names() -> None:
    """A platform engineer finds things where they are looked for; no file stands empty."""
    usual = {"versions.tf", "providers.tf", "main.tf", "iam.tf", "outputs.tf"}
    assert set(render(SPECS["on demand"])) == usual
    assert set(render(SPECS["fixed"])) == usual
    assert set(render(SPECS["reads scaled"])) == usual | {"autoscaling.tf"}


@needs_terraform
def test_files_without_a_provider_make_a_module(terraform: Terraform, tmp_path: Path) -> None:
    """Without `providers.tf` they are a module: every regional resource states its region."""
    files = render(SPECS["global, scaled"])
    del files["providers.tf"]
    caller = [
        hcl.block("provider", "aws", region="ap-south-1"),
        hcl.block("module", "table", source="./table"),
    ]
    placed = {f"table/{file}": text for file, text in files.items()}
    plan = terraform.plan(tmp_path, {"main.tf": hcl.document("The caller", caller), **placed})
    (module,) = plan["planned_values"]["root_module"]["child_modules"]
    regions = {
        each["address"].removeprefix("module.table."): each["values"].get("region")
        for each in module["resources"]
        if not each["address"].startswith("module.table.aws_iam_policy")
    }
    assert None not in regions.values()
    assert regions[TABLE] == EAST


# --- the stand-in is strict ----------------------------------------------------------------


@needs_terraform
@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (
            "on demand",
            {"main.tf": ("range_key ", "sort_key  ")},
            'An argument named "sort_key" is not expected here',
        ),
        (
            "on demand",
            {"main.tf": ('    name = "pk"\n', "")},
            'The argument "name" is required',
        ),
        (
            "reads scaled",
            {"autoscaling.tf": ("  min_capacity       = 500\n", "")},
            'The argument "min_capacity" is required',
        ),
        (
            "fixed",
            {
                "main.tf": (
                    "read_capacity               = 100",
                    'read_capacity               = "many"',
                )
            },
            'Inappropriate value for attribute "read_capacity": a number is required',
        ),
        (
            "on demand",
            {"main.tf": ("  ttl {", "  ttl {\n    enabled = true\n  }\n\n  ttl {")},
            'No more than 1 "ttl" blocks are allowed',
        ),
        (
            "global, scaled",
            {
                "main.tf": (
                    "  global_table_arn            = aws_dynamodb_table.online_store.arn\n",
                    "",
                )
            },
            'The argument "global_table_arn" is required',
        ),
    ],
    ids=["unknown", "missing in a block", "missing", "type", "block twice", "missing reference"],
)
def test_what_is_wrong_is_refused(
    terraform: Terraform,
    tmp_path: Path,
    kind: str,
    wrong: Mapping[str, tuple[str, str]],
    said: str,
) -> None:
    """Terraform with the stand-in finds what it would find with the provider itself."""
    files = render(SPECS[kind])
    for file, (right, instead) in wrong.items():
        assert right in files[file]
        files[file] = files[file].replace(right, instead, 1)
    with pytest.raises(Refused) as refused:
        terraform.check(tmp_path, files)
    complaint = re.sub(r"[\s│╷╵]+", " ", str(refused.value))
    assert said in complaint


@needs_terraform
def test_another_version_of_the_provider_is_refused(terraform: Terraform, tmp_path: Path) -> None:
    """The version that the files require is checked against the provider's real one."""
    files = render(SPECS["on demand"])
    files["versions.tf"] = files["versions.tf"].replace(">= 6.0", ">= 7.0")
    with pytest.raises(Refused, match="no available releases match"):
        terraform.check(tmp_path, files)


@needs_terraform
def test_files_out_of_format_are_refused(terraform: Terraform, tmp_path: Path) -> None:
    """The check of the format sees a single blank."""
    files = render(SPECS["on demand"])
    right = "enabled        = true"
    assert right in files["main.tf"]
    files["main.tf"] = files["main.tf"].replace(right, "enabled = true")
    with pytest.raises(Refused, match=r"main\.tf"):
        terraform.check(tmp_path, files)


# --- HCL -----------------------------------------------------------------------------------

# Terraform keeps texts in Unicode's form NFC; lone surrogates are no text at all.
texts = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: unicodedata.normalize("NFC", text)
)
tricky = st.lists(st.sampled_from(["$", "%", "{", "}", "\\", '"', "\n", "u", "~", " "])).map(
    "".join
)


@needs_terraform
@settings(max_examples=stress(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(texts | tricky, max_size=30),
    tags=st.dictionaries(texts | tricky, texts | tricky),
)
def test_any_text_survives(
    terraform: Terraform, tmp_path: Path, values: list[str], tags: dict[str, str]
) -> None:
    """Terraform reads back every text that we write, as a value and as a key, well formatted."""
    written: dict[str, hcl.Value] = {"values": values, "tags": tags, "all": "".join(values)}
    text = hcl.document("Any", [hcl.block("locals", written=written)])
    assert terraform.run(tmp_path, "fmt", "-", given=text) == text
    (tmp_path / "main.tf").write_text(text)
    asked = "base64encode(jsonencode(local.written))"
    answer = terraform.run(tmp_path, "console", given=asked)
    assert json.loads(base64.b64decode(answer.strip().strip('"'))) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", '"plain"'),
        ("${a}", '"$${a}"'),
        ("%{a}", '"%%{a}"'),
        ("100% for $5 {", '"100% for $5 {"'),
        ('"\\\n', '"\\"\\\\\\n"'),
        ("Zürich", '"Zürich"'),
        ("\u200b\U000e0001", '"\\u200b\\U000e0001"'),
        (True, "true"),
        (70.0, "70"),
        (66.5, "66.5"),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_how_values_are_written(value: hcl.Value, written: str) -> None:
    """Values are written as people write them, and escaped only where they have to be."""
    assert hcl.document("A value", [hcl.block("a", b=value)]).splitlines()[3] == f"  b = {written}"


def test_tags_come_from_a_file_as_from_python(tmp_path: Path) -> None:
    """A description that went through TOML's types renders the same text."""
    spec = TableSpec("features", (EAST,), tags=ODD_TAGS)
    again = msgspec.convert(msgspec.to_builtins(spec), TableSpec)
    assert render(again) == render(spec)


def name(region: str) -> str:
    return region.replace("-", "_")
