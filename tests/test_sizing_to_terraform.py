"""The whole way of a platform engineer: a mix, a table that fits, Terraform that is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chalk_online_store import features
from chalk_online_store.cli import main
from tests.terraform.running import TERRAFORM, Terraform, offline_terraform

pytestmark = pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed.")


@features
class User:
    id: int
    name: str


MIX = f"""
regions = REGIONS
trough = 0.3
standby = 0.5

[[namespace]]
schema = "{__name__}:User"
entities = 5_000_000

[[namespace.query]]
per_second = 2000
entities = 20

[[namespace.write]]
per_second = 500
"""


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with offline_terraform(tmp_path_factory.mktemp("terraform")) as running:
        yield running


def run(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert not exit_.value.code


@pytest.mark.parametrize("mode", ["on-demand", "provisioned", "autoscaled"])
@pytest.mark.parametrize("regions", ['["us-east-1"]', '["us-east-1", "us-west-2"]'])
def test_a_mix_becomes_a_plan(
    terraform: Terraform, tmp_path: Path, mode: str, regions: str
) -> None:
    """In every mode, in one region and in two, Terraform would make the table that was sized."""
    mix, table, output = tmp_path / "mix.toml", tmp_path / "table.toml", tmp_path / "rendered"
    mix.write_text(MIX.replace("REGIONS", regions))
    run("capacity", mix, "--table", table, "--mode", mode)
    run("terraform", table, "--output", output)
    files = {path.name: path.read_text() for path in output.glob("*.tf")}
    plan = terraform.plan(tmp_path / "planned", files)
    created = {change["type"]: change["change"]["after"] for change in plan["resource_changes"]}
    made = created["aws_dynamodb_table"]
    if mode == "on-demand":
        assert made["billing_mode"] == "PAY_PER_REQUEST"
    else:
        # 20,000 RCU and 500 WCU at 70 %.
        assert (made["read_capacity"], made["write_capacity"]) == (28_572, 715)
