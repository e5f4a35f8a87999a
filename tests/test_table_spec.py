"""A table as it should be: what a file may say, and what a sizing makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store import Feature, Namespace
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.items import Sample, typical_rows
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.provisioning import spec as module
from chalk_online_store.provisioning.spec import (
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
    read_spec,
    render_spec,
    spec_for,
)

USER = Namespace("user", int, [Feature("name", str)])
HEAD = 'name = "abc"\nregions = ["us-east-1"]'
MODE = '[capacity]\nmode = "provisioned"\n'


def sized(*regions: str, trough: float = 0.25, standby: float = 1.0) -> Sizing:
    part = NamespaceMix("user", 1000, query=(Query(140, 20),), write=(Write(700),))
    mix = Mix((part,), regions=regions, trough=trough, standby=standby)
    return size(mix, {"user": Sample(USER, typical_rows(USER, 2))})


def test_a_file_is_what_its_docstring_shows(tmp_path: Path) -> None:
    """The example of the module is a table."""
    path = tmp_path / "table.toml"
    path.write_text((module.__doc__ or "").split("TOML:")[1])
    spec = read_spec(path)
    assert spec.regions == ("us-east-1", "us-west-2")
    assert isinstance(spec.capacity, Provisioned)
    assert spec.capacity.write.autoscaling == Autoscaling(250, 2500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "ab"\nregions = ["us-east-1"]', r"\$.name"),
        ('name = "abc"\nregions = ["useast"]', "'useast' is no AWS region"),
        ('name = "abc"\nregions = []', "name one"),
        ('name = "abc"\nregions = ["us-east-1", "us-east-1"]', "named twice"),
        ('name = "abc"\nregions = ["us-east-1"]\npk = "sk"', "three names"),
        ('name = "abc"\nregions = ["us-east-1"]\ncolour = "red"', "colour"),
        (f'{HEAD}\nconsistency = "strong"', "neither transactions nor TTL"),
        (f'{HEAD}\n[replica_accounts]\nus-east-1 = "123456789012"', "GlobalTableSourceArn"),
        (f"{HEAD}\n[warm]\nread = 11999\nwrite = 4000", r"\$.warm.read"),
        (f'{HEAD}\n[alarms.topics]\neu-west-1 = "arn"', "alarms.topics names 'eu-west-1'"),
        (f'{HEAD}\n[backups]\nschedule = "daily"', r"\$.backups.schedule"),
        (f'{HEAD}\n[shared_with]\nreaders = ["*"]', r"\$.shared_with.readers"),
        (
            'name = "abc"\nregions = ["us-east-1"]\n[kms_key_arns]\neu-west-1 = "arn"',
            "'eu-west-1', which is none of the regions",
        ),
        (
            'name = "abc"\nregions = ["us-east-1", "eu-west-1"]\n[kms_key_arns]\neu-west-1 = "arn"',
            "in all regions or none",
        ),
        (
            f'{HEAD[:-1]}, "eu-west-1"]\n{MODE}read = {{units = 1}}\nwrite = {{units = 1}}',
            "write capacity is autoscaled",
        ),
        (
            f"{HEAD}\n{MODE}read = {{units = 1, autoscaling = {{min = 2, max = 3}}}}",
            "units=1 must lie in",
        ),
        ("name = ", "table.toml"),
    ],
)
def test_what_aws_would_refuse_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Before anything is rendered or sent, and with the place in the file."""
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(InvalidValue, match=message):
        read_spec(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(InvalidValue, match=r"nowhere.toml cannot be read"):
        read_spec(tmp_path / "nowhere.toml")


units = st.builds(
    lambda least, more, target: Units(
        least + more, Autoscaling(least, least + 2 * more, float(target))
    ),
    st.integers(1, 1000),
    st.integers(0, 1000),
    st.integers(20, 90),
)
specs = st.builds(
    TableSpec,
    st.from_regex(r"[A-Za-z0-9_.-]{3,20}", fullmatch=True),
    st.just(("us-east-1", "eu-west-1")),
    st.builds(OnDemand, st.none() | st.integers(1, 10**6))
    | st.builds(Provisioned, units, units, st.just({}) | units.map(lambda u: {"eu-west-1": u})),
    recovery_days=st.integers(1, 35),
    deletion_protection=st.booleans(),
    tags=st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
)


@given(specs)
def test_a_table_written_is_the_table_read(
    tmp_path_factory: pytest.TempPathFactory, spec: TableSpec
) -> None:
    """Any table survives its file."""
    path = tmp_path_factory.mktemp("spec") / "table.toml"
    path.write_text(render_spec(spec))
    assert read_spec(path) == spec


def test_a_sizing_becomes_a_table() -> None:
    """1,400 RCU and 700 WCU at 70 %: 2,000 and 1,000; autoscaled from the trough to twice that."""
    fixed = spec_for("abc", sized("us-east-1"), "provisioned")
    assert fixed.capacity == Provisioned(Units(2000), Units(1000))
    scaled = spec_for("abc", sized("us-east-1"), "autoscaled")
    assert scaled.capacity == Provisioned(
        Units(2000, Autoscaling(500, 4000)), Units(1000, Autoscaling(250, 2000))
    )
    assert spec_for("abc", sized("us-east-1"), "on-demand").capacity == OnDemand()


def test_a_region_is_ready_for_the_loss_of_another() -> None:
    """A passive region holds all that the active one serves, or what the mix says."""
    ready = spec_for("abc", sized("us-east-1", "us-west-2"), "autoscaled").capacity
    assert isinstance(ready, Provisioned)
    assert ready.read_in("us-west-2") == Units(2000, Autoscaling(2000, 4000))
    half = spec_for("abc", sized("us-east-1", "us-west-2", standby=0.5), "autoscaled").capacity
    assert isinstance(half, Provisioned)
    assert half.read_in("us-west-2") == Units(2000, Autoscaling(1000, 4000))


def test_writes_of_several_regions_are_autoscaled() -> None:
    """As AWS demands, also where the capacity is said to be provisioned."""
    capacity = spec_for("abc", sized("us-east-1", "us-west-2"), "provisioned").capacity
    assert isinstance(capacity, Provisioned)
    assert capacity.read.autoscaling is None
    assert capacity.write.autoscaling == Autoscaling(250, 2000)


def test_replicas_that_serve_less_are_autoscaled() -> None:
    """Terraform cannot fix a read capacity of a replica that differs: the provider has no way."""
    sizing = sized("us-east-1", "us-west-2", standby=0.0)
    capacity = spec_for("abc", sizing, "provisioned").capacity
    assert isinstance(capacity, Provisioned)
    assert capacity.read == Units(2000)
    assert capacity.read_in("us-west-2") == Units(2000, Autoscaling(1, 4000))
