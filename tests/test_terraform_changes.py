"""Changes of a table's billing mode, applied by the real terraform to an account in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chalk_online_store.provisioning.spec import OnDemand, Provisioned, TableSpec, Units
from chalk_online_store.provisioning.terraform import render
from tests.terraform.running import TERRAFORM, Terraform, offline_terraform
from tests.terraform.specs import EAST, READ, WEST, WRITE

pytestmark = pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")

TABLE = "aws_dynamodb_table.online_store"
FIXED = Provisioned(Units(100), Units(50))
SCALED = Provisioned(READ, WRITE)
MIXED = Provisioned(Units(100), WRITE)


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with offline_terraform(tmp_path_factory.mktemp("terraform")) as running:
        yield running


@dataclass
class Deployed:
    """A table that terraform has created, and keeps a state of."""

    terraform: Terraform
    directory: Path
    spec: TableSpec

    def render(self, **changes: Any) -> dict[str, str]:
        self.spec = msgspec.structs.replace(self.spec, **changes)
        return render(self.spec)

    def apply(self, **changes: Any) -> None:
        self.terraform.apply(self.directory, self.render(**changes))

    def plan(self, **changes: Any) -> dict[str, list[str]]:
        """The actions of the plan by address, without no-ops and policies."""
        self.terraform.write(self.directory, self.render(**changes))
        plan = self.terraform.plan_written(self.directory)
        found = {each["address"]: each["change"]["actions"] for each in plan["resource_changes"]}
        return {
            address: actions
            for address, actions in found.items()
            if actions not in (["no-op"], ["read"]) and not address.startswith("aws_iam_policy.")
        }

    @property
    def sent(self) -> list[tuple[str, int, int]]:
        """The billing modes and units that AWS was sent, in order."""
        found = self.terraform.account.read()["sent"]
        return [(mode, read, write) for name, mode, read, write in found if name == self.spec.name]

    def autoscale(self, read: int, write: int) -> None:
        """Change the units as Application Auto Scaling does."""
        units = {"read_capacity": read, "write_capacity": write}
        self.terraform.account.set_table(self.spec.name, units)


@pytest.fixture
def deployed(terraform: Terraform, tmp_path: Path) -> Deployed:
    return Deployed(terraform, tmp_path, TableSpec(f"t.{tmp_path.name}", (EAST,)))


def kinds(changes: dict[str, list[str]]) -> set[str]:
    """The types of the resources of a plan."""
    return {address.split(".")[0] for address in changes}


SCALING = {"aws_appautoscaling_policy", "aws_appautoscaling_target"}


@pytest.mark.parametrize("regions", [(EAST,), (EAST, WEST)], ids=["single", "global"])
def test_units_through_changes_of_the_billing_mode(
    deployed: Deployed, regions: tuple[str, ...]
) -> None:
    """A live table gets the described units in one step; replicas and scaled units stay."""
    deployed.apply(regions=regions, capacity=OnDemand())
    changes = deployed.plan(capacity=SCALED)
    assert changes.pop(TABLE) == ["update"]
    assert kinds(changes) == SCALING
    deployed.apply()
    assert deployed.sent == [("PAY_PER_REQUEST", 0, 0), ("PROVISIONED", 1000, 500)]

    deployed.autoscale(3000, 700)
    assert deployed.plan() == {}
    deployed.apply(deletion_protection=False)
    assert len(deployed.sent) == 2

    changes = deployed.plan(capacity=OnDemand())
    assert changes.pop(TABLE) == ["update"]
    assert {tuple(actions) for actions in changes.values()} == {("delete",)}
    assert kinds(changes) == SCALING
    deployed.apply()
    assert deployed.plan() == {}
    deployed.apply(capacity=MIXED)
    assert deployed.sent[2:] == [("PAY_PER_REQUEST", 0, 0), ("PROVISIONED", 100, 500)]


def test_a_dimension_that_loses_its_autoscaling_gets_its_units(deployed: Deployed) -> None:
    """Without autoscaling, the description's units replace those that autoscaling has chosen."""
    deployed.apply(capacity=SCALED)
    deployed.autoscale(3000, 700)
    deployed.apply(capacity=MIXED)
    deployed.apply(capacity=FIXED)
    assert deployed.sent[1:] == [("PROVISIONED", 100, 700), ("PROVISIONED", 100, 50)]


def test_ignored_units_would_become_one(deployed: Deployed) -> None:
    """The model of the provider has the fault that the rendered files avoid."""
    deployed.apply(capacity=OnDemand())
    files = deployed.render(capacity=SCALED)
    kept = "    prevent_destroy = true\n"
    ignored = "    ignore_changes = [read_capacity, write_capacity]\n"
    assert kept in files["main.tf"]
    files["main.tf"] = files["main.tf"].replace(kept, kept + ignored)
    deployed.terraform.apply(deployed.directory, files)
    assert deployed.sent[1:] == [("PROVISIONED", 1, 1)]
