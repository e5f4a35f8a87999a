"""The module form: several environments of one module, which create what the flat form creates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning import hcl
from chalk_online_store.provisioning.spec import Provisioned
from chalk_online_store.provisioning.terraform import iam_sources, render
from chalk_online_store.provisioning.terraform_module import MODULE, module_call, render_module
from chalk_online_store.urls import parse_url
from tests.helpers import exit_status
from tests.terraform.running import TERRAFORM, Terraform, offline_terraform
from tests.terraform.specs import EAST, SPECS, WEST

pytestmark = pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")

COMPARED = (
    "with one maximum",
    "fixed",
    "both scaled",
    "global, own reads",
    "global, scaled, own keys",
    "no recovery",
    "unprotected",
    "other attributes",
    "warm",
    "alarms",
    "alarms, global",
    "insights",
    "backups, global",
    "shared, global",
    "everything",
)
"""Tables that between them have every argument of the module."""

LABELS = {kind: f"t{number}" for number, kind in enumerate(COMPARED)}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with offline_terraform(tmp_path_factory.mktemp("terraform")) as running:
        yield running


@pytest.fixture(scope="module")
def planned(
    terraform: Terraform, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Tables by the module and by the flat form, in one plan: child modules by name."""
    files = {name: text for name, text in render_module({}).items() if name.startswith(MODULE)}
    calls = []
    for kind in COMPARED:
        spec = SPECS[kind]
        calls.append(module_call(LABELS[kind], f"./{MODULE}", spec))
        flat = f"flat_{LABELS[kind]}"
        calls.append(hcl.block("module", flat, source=f"./{flat}"))
        for name, text in render(spec).items():
            if name != "providers.tf":
                files[f"{flat}/{name}"] = text
    blocks = (hcl.block("provider", "aws", region=EAST), *iam_sources(), *calls)
    files["main.tf"] = hcl.document("Every table", blocks)
    plan = terraform.plan(tmp_path_factory.mktemp("module"), files)
    return {
        each["address"].removeprefix("module."): each
        for each in plan["planned_values"]["root_module"]["child_modules"]
    }


def resources(module: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The values of the resources of a module, by type, in an order of their own."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in module["resources"]:
        if each["mode"] == "managed":
            # Empty tags, an empty list of actions, and none are the same to AWS.
            values = each["values"].items()
            stated = {name: value for name, value in values if value not in (None, {}, [])}
            found.setdefault(each["type"], []).append(stated)
    return {
        kind: sorted(some, key=lambda each: json.dumps(each, sort_keys=True))
        for kind, some in found.items()
    }


@pytest.mark.parametrize("kind", COMPARED)
def test_the_module_creates_what_the_flat_form_creates(
    planned: dict[str, dict[str, Any]], kind: str
) -> None:
    """Each table has the same resources with the same values in both forms."""
    label = LABELS[kind]
    assert resources(planned[label]) == resources(planned[f"flat_{label}"])


def test_environments_share_a_module(terraform: Terraform, tmp_path: Path) -> None:
    """Each environment is a root module with its own table, and outputs what its users need."""
    environments = {"production": SPECS["global, scaled"], "staging": SPECS["other attributes"]}
    files = render_module(environments)
    for name, spec in environments.items():
        directory = tmp_path / "environments" / name
        for file, text in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        terraform.run(directory, "init", "-input=false", "-no-color")
        outputs = terraform.plan_written(directory)["planned_values"]["outputs"]
        assert set(outputs) == {"table_name", "table_arn", "url", "policy_arns"}
        target = parse_url(outputs["url"]["value"])
        assert isinstance(target, DynamoDBTarget)
        assert (target.table, target.regions, target.layout) == (
            spec.name,
            spec.regions,
            spec.layout,
        )
    terraform.run(tmp_path, "fmt", "-check", "-list=true", "-recursive")


def test_the_command_names_environments_after_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--module` renders every file given as an environment; without it one file is accepted."""
    tables = [tmp_path / "production.toml", tmp_path / "staging.toml"]
    for path in tables:
        path.write_text(f'name = "features-{path.stem}"\nregions = ["us-east-1"]\n')
    output = tmp_path / "infra"
    names = list(map(str, tables))
    assert exit_status("terraform", *names, "--module", "--output", str(output)) == 0
    main = (output / "environments" / "staging" / "main.tf").read_text()
    assert "features-staging" in main
    assert (output / MODULE / "variables.tf").exists()
    assert exit_status("terraform", names[0], "--module", "--output", str(output), "--prune") == 0
    assert not (output / "environments" / "staging" / "main.tf").exists()
    assert exit_status("terraform", *names) == 2
    assert exit_status("terraform", *names, "--module", "--adopt", "import") == 2
    again = tmp_path / "again"
    again.mkdir()
    (again / "staging.toml").write_text(tables[1].read_text())
    assert exit_status("terraform", *names, str(again / "staging.toml"), "--module") == 2
    assert "one file name" in capsys.readouterr().err


def test_an_environment_that_may_be_destroyed_is_refused() -> None:
    """The module protects every table, since Terraform takes no variable for prevent_destroy."""
    with pytest.raises(InvalidValue, match="production: prevent_destroy"):
        render_module({"production": SPECS["may be destroyed"]})


def test_an_environment_has_a_name_of_a_directory() -> None:
    """A name that would leave the directory is refused."""
    with pytest.raises(InvalidValue, match="not an environment's name"):
        render_module({"../up": SPECS["on demand"]})


# --- adoption ------------------------------------------------------------------------------

# The table of the sizing page of Chalk's documentation.
PAGE = """\
resource "aws_dynamodb_table" "chalk_online_store" {
  name             = "chalk-online-store"
  billing_mode     = "PROVISIONED"
  read_capacity    = 1000
  write_capacity   = 500
  hash_key         = "pk"
  range_key        = "sk"
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  replica {
    region_name = "us-west-2"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled = true
  }
}
"""
SCALED = """
resource "aws_appautoscaling_target" "{read}_target" {{
  max_capacity       = 5000
  min_capacity       = 500
  resource_id        = "table/chalk-online-store"
  scalable_dimension = "dynamodb:table:ReadCapacityUnits"
  service_namespace  = "dynamodb"
}}

resource "aws_appautoscaling_target" "{write}_target" {{
  max_capacity       = 2500
  min_capacity       = 250
  resource_id        = "table/chalk-online-store"
  scalable_dimension = "dynamodb:table:WriteCapacityUnits"
  service_namespace  = "dynamodb"
}}
"""
PROVIDER = 'provider "aws" {\n  region = "us-east-1"\n}\n'
CALL = 'module "old" {\n  source = "./old"\n}\n'

# A module with the addresses of Chalk's (main) or of terraform-aws-modules/dynamodb-table.
MODULE_TABLE = """\
resource "aws_dynamodb_table" "NAME" {
  name         = "chalk-online-store"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "__id__"
  range_key    = "__ns__"
}
"""
TARGETS = SCALED.format(read="table_read", write="table_write").replace(
    '_target" {\n', '" {\n  count              = 1\n'
)
COUNTED = MODULE_TABLE.replace("{\n", "{\n  count        = 1\n", 1)


def changes(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["address"]: each for each in plan["resource_changes"]}


def spec_of(kind: str, **layout: str) -> Any:
    return msgspec.structs.replace(SPECS[kind], name="chalk-online-store", **layout)


CHALK = {"pk": "__id__", "sk": "__ns__", "ttl": "__exp__"}


@pytest.mark.parametrize("as_module", [False, True], ids=["flat", "module"])
@pytest.mark.parametrize(
    ("before", "source", "spec"),
    [
        (
            {"main.tf": PAGE + SCALED.format(read="read", write="write")},
            "aws_dynamodb_table.chalk_online_store",
            spec_of("global, scaled"),
        ),
        (
            {"main.tf": CALL, "old/main.tf": MODULE_TABLE.replace("NAME", "main")},
            "module.old.aws_dynamodb_table.main",
            spec_of("on demand", **CHALK),
        ),
        (
            {"main.tf": CALL, "old/main.tf": COUNTED.replace("NAME", "this")},
            "module.old.aws_dynamodb_table.this[0]",
            spec_of("on demand", **CHALK),
        ),
        (
            {"main.tf": CALL, "old/main.tf": COUNTED.replace("NAME", "autoscaled") + TARGETS},
            "module.old.aws_dynamodb_table.autoscaled[0]",
            spec_of("both scaled", **CHALK),
        ),
    ],
    ids=["page", "chalk", "terraform-aws-modules", "terraform-aws-modules autoscaled"],
)
def test_a_table_of_another_configuration_is_adopted(
    terraform: Terraform,
    tmp_path: Path,
    before: dict[str, str],
    source: str,
    spec: Any,
    as_module: bool,
) -> None:
    """The table keeps its data: it is updated at a new address, and its replicas are imported."""
    root = tmp_path
    terraform.account.edit(tables={})
    terraform.apply(root, {"providers.tf": PROVIDER, **before})
    if as_module:
        rendered = render_module({"production": spec}, source)
        prefix = "environments/production/"
        files = {
            name.removeprefix(prefix): text.replace("../../modules", "./modules")
            for name, text in rendered.items()
        }
    else:
        files = render(spec, source)
    terraform.write(root, files)
    terraform.run(root, "init", "-input=false", "-no-color")
    plan = terraform.plan_written(root)
    found = changes(plan)
    inside = "module.online_store." if as_module else ""
    table = found[f"{inside}aws_dynamodb_table.online_store"]
    assert table["previous_address"] == source
    for address, change in found.items():
        assert "delete" not in change["change"]["actions"], address
        if "aws_dynamodb_table" in address and change["mode"] == "managed":
            assert "create" not in change["change"]["actions"] or change["change"]["importing"]
    replicas = [each for each in found.values() if each["type"] == "aws_dynamodb_table_replica"]
    assert len(replicas) == len(spec.regions) - 1
    assert all("importing" in each["change"] for each in replicas)
    targets = [each for each in found.values() if each["type"] == "aws_appautoscaling_target"]
    moved = [each for each in targets if "previous_address" in each]
    assert len(moved) == (2 if isinstance(spec.capacity, Provisioned) else 0)


def test_a_table_made_by_hand_is_imported(terraform: Terraform, tmp_path: Path) -> None:
    """An import block reads a table that no state has, and a plan updates it."""
    spec = spec_of("on demand")
    attributes = {
        "name": spec.name,
        "billing_mode": "PAY_PER_REQUEST",
        "hash_key": "pk",
        "range_key": "sk",
        "read_capacity": 0,
        "write_capacity": 0,
    }
    terraform.account.edit(tables={spec.name: attributes})
    found = changes(terraform.plan(tmp_path, render(spec, "import")))
    table = found["aws_dynamodb_table.online_store"]["change"]
    assert table["importing"] == {"id": f"{spec.name}@{EAST}"}
    assert table["actions"] == ["update"]


@pytest.mark.parametrize("source", ["", "module.online_store", "aws_s3_bucket.a", 'x" }'])
def test_an_address_of_no_table_is_refused(source: str) -> None:
    """Only the address of a table, or "import", is a source of a table."""
    with pytest.raises(InvalidValue, match="terraform state list"):
        render(SPECS["on demand"], source)


def test_replicas_are_imported_in_their_regions() -> None:
    """The provider wants the table and the main region; the replica's region follows the @."""
    text = render(SPECS["no recovery"], "import")["adopt.tf"]
    assert f'"features:{EAST}@{WEST}"' in text
