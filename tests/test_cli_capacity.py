"""`capacity` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from chalk_online_store import feature, features
from chalk_online_store.provisioning.spec import OnDemand, Provisioned, read_spec
from tests.helpers import exit_status


@features
class User:
    id: int
    name: str
    risk: float = feature(group="realtime")


MIX = f"""
regions = ["us-east-1", "us-west-2"]
trough = 0.3

[[namespace]]
schema = "{__name__}:User"
entities = 5_000_000

[[namespace.query]]
per_second = 2000
entities = 20

[[namespace.write]]
per_second = 500
features = ["risk"]
"""


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    path = tmp_path / "mix.toml"
    path.write_text(MIX)
    return path


def run(*arguments: str | Path) -> int:
    return exit_status("capacity", *map(str, arguments))


def test_it_tells_people(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Items, arithmetic, regions, groups, modes and Valkey, with the date of the prices."""
    assert run(mix) == 0
    out, err = capsys.readouterr()
    assert "2,000/s x 20 entities x 0.5 RCU\t20,000 RCU" in out
    assert "us-west-2\t0\t40,000\t500" in out
    assert "1 instead of 2 would save" in out
    assert "Recommended:" in out
    assert "In Valkey:" in out
    assert re.search(r"cost the same at [0-9.]+ times this load", out)
    assert "Prices as of 2025-08-28" in err


def test_it_tells_programs(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON."""
    assert run(mix, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["regions"][0]["rcu"] == 40_000
    assert {mode["mode"] for mode in told["modes"]} == {"on-demand", "provisioned", "autoscaled"}
    assert told["groups"][0]["best"]["groups"] == [["name", "risk"]]


def test_it_writes_the_table(mix: Path, tmp_path: Path) -> None:
    """In the recommended mode, or the one that is named."""
    table = tmp_path / "table.toml"
    assert run(mix, "--table", table, "--name", "features", "--mode", "provisioned") == 0
    spec = read_spec(table)
    assert spec.name == "features"
    assert isinstance(spec.capacity, Provisioned)
    assert run(mix, "--table", table, "--mode", "on-demand") == 0
    assert read_spec(table).capacity == OnDemand()
    assert run(mix, "--table", table, "--mode", "free") == 2


def test_rows_of_a_file_size_items(
    tmp_path: Path, mix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample of 300 bytes a row, without any schema."""
    sample = tmp_path / "sample.parquet"
    rows = pa.table({"id": range(50), "blob": [b"x" * 300] * 50})
    pyarrow.parquet.write_table(rows, sample)
    mix.write_text(
        f'[[namespace]]\nschema = "user"\nsample = "{sample}"\nkey = ["id"]\nentities = 10\n'
    )
    assert run(mix, "--json") == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert 300 < item["bytes"] < 340


def test_what_cannot_be_served_is_an_error(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One entity that takes more than a partition has: status 1, and why."""
    mix.write_text(MIX.replace("entities = 20", "entities = 20\nhottest = 0.9"))
    assert run(mix) == 1
    assert "its partition has 3,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((f"{__name__}:User", "user"), "name it module:Class"),
        (("per_second = 2000", "per_secund = 2000"), "per_secund"),
        (('["risk"]', '["rsk"]'), "no feature 'rsk'"),
    ],
)
def test_a_mistake_has_no_traceback(
    mix: Path, change: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, where, and the way out, in one line."""
    mix.write_text(MIX.replace(*change))
    assert run(mix) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_region_without_prices_yields_units(
    mix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units are printed, dollars are not, the table is written, and the status is 0."""
    mix.write_text(MIX.replace('"us-east-1", "us-west-2"', '"eu-west-9"'))
    assert run(mix, "--table", tmp_path / "table.toml") == 0
    out, err = capsys.readouterr()
    assert "20,000 RCU" in out
    assert "no prices" in out
    assert "everything in eu-west-9" in out
    assert "No prices for eu-west-9" in err
    assert "eu-west-9" in (tmp_path / "table.toml").read_text()
    assert run(mix, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [mode["dollars"] for mode in found["modes"]] == [None, None, None]
    assert found["unpriced_regions"] == ["eu-west-9"]


def test_the_bill_is_whole(mix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Components add up to the recommended mode's bill, and what is left out has a reason."""
    assert run(mix, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (mode,) = (m for m in found["modes"] if m["mode"] == found["recommended"]["mode"])
    monthly = [c["dollars"] for c in found["components"] if not c["is_once"]]
    assert sum(monthly) == pytest.approx(mode["dollars"])
    assert all(each["reason"] for each in found["not_counted"])
    assert {"DAX", "MemoryDB"} <= {each["name"] for each in found["not_counted"]}
    assert "gb_month" in found["confirmed_prices"]["us-east-1"]
    assert found["confirmed_prices"]["us-west-2"] == ["rcu_hour", "wcu_hour"]
    assert run(mix) == 0
    out = capsys.readouterr().out
    for each in found["not_counted"]:
        assert each["reason"] in out
    for each in found["components"]:
        assert each["arithmetic"] in out
