"""Kinds of Global Tables, each by a fake of its regions: supported, or recognised and refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore
import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidURL,
    OnlineStore,
    OnlineStoreError,
    feature,
    features,
)
from chalk_online_store.cli.doctor.checks import check_table
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.provisioning.state import RegionTableState, TableState
from chalk_online_store.testing import Dynoxide, create_table
from tests.environments import TABLE, Environment, arn, replica
from tests.helpers import exit_status

EAST, WEST = "us-east-1", "us-west-2"
ONE, TWO = "111111111111", "222222222222"
KNOWS_ACCOUNTS = tuple(map(int, botocore.__version__.split(".")[:2])) >= (1, 43)
"""Older service models lack ReplicaArn, so boto3 leaves it out of what AWS says."""


@features
class User:
    id: int
    visits: int
    name: str | None
    risk: float = feature(group="realtime")


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Dynoxide]]:
    with Dynoxide() as east, Dynoxide() as west:
        for engine, region in ((east, EAST), (west, WEST)):
            create_table(engine.endpoint_url, TABLE, region=region)
        yield {EAST: east, WEST: west}


@contextmanager
def regions(
    engines: dict[str, Dynoxide], east: dict[str, Any], west: dict[str, Any]
) -> Iterator[dict[str, Environment]]:
    with ExitStack() as stack:
        yield {
            region: stack.enter_context(Environment(engines[region].endpoint_url, **options))
            for region, options in ((EAST, east), (WEST, west))
        }


def url_of(found: dict[str, Environment], more: str = "") -> str:
    urls = ",".join(each.url for each in found.values())
    return f"dynamodb:///{TABLE}?region={','.join(found)}&endpoint_url={urls}{more}"


def doctor(url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    exit_status("doctor", url, "--json")
    found = json.loads(capsys.readouterr().out)
    return {f"{each['where']} {each['what']}".strip(): each for each in found}


def described(region: str, *replicas: dict[str, Any], **more: Any) -> dict[str, Any]:
    account = more.pop("account", ONE)
    return {"description": {"TableArn": arn(region, account), "Replicas": [*replicas], **more}}


# --- several accounts ----------------------------------------------------------------------


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    text = "".join(
        f"[{name}]\naws_access_key_id = AKID{name.upper()}\naws_secret_access_key = s\n"
        for name in ("one", "two")
    )
    (tmp_path / "credentials").write_text(text)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def multi_account(engines: dict[str, Dynoxide]) -> Any:
    return regions(
        engines,
        {**described(EAST, replica(WEST, account=TWO)), "keys": {"AKIDONE"}},
        {**described(WEST, replica(EAST, account=ONE), account=TWO), "keys": {"AKIDTWO"}},
    )


@pytest.mark.usefixtures("profiles")
def test_each_region_has_a_profile(
    engines: dict[str, Dynoxide], capsys: pytest.CaptureFixture[str]
) -> None:
    """`profile=A,B` signs the requests of each region by its own keys, in stores and in doctor."""
    with multi_account(engines) as found:
        url = url_of(found, "&profile=one,two")
        with OnlineStore.open(url, [User]) as store:
            store.write(User, [{"id": 1, "visits": 3}])
            assert store.health().ok
            assert [region.ok for region in store.health().regions] == [True, True]
        checks = doctor(url, capsys)
        assert {name: each.seen for name, each in found.items()} == {
            EAST: {"AKIDONE"},
            WEST: {"AKIDTWO"},
        }
    assert checks[f"{WEST} replica"]["found"] == f"ACTIVE, in account {TWO}"
    assert checks[f"{WEST} replica"]["verdict"] == "ok"


@pytest.mark.parametrize("kind", [boto3.Session, "aioboto3"])
def test_each_region_has_a_session(engines: dict[str, Dynoxide], kind: Any) -> None:
    """`session=` takes a session per region, sync and async."""
    if kind == "aioboto3":
        kind = pytest.importorskip("aioboto3").Session
    sessions = {EAST: kind("AKIDONE", "s"), WEST: kind("AKIDTWO", "s")}

    async def use(url: str) -> list[bool]:
        async with AsyncOnlineStore.open(url, [User], session=sessions) as store:
            return [region.ok for region in (await store.health()).regions]

    with multi_account(engines) as found:
        assert asyncio.run(use(url_of(found))) == [True, True]
        with OnlineStore.open(url_of(found), [User], session=sessions) as store:
            assert all(region.ok for region in store.health().regions)


def test_sessions_and_profiles_are_those_of_the_regions() -> None:
    """A number that does not fit is an error of the URL, which names both lists."""
    with pytest.raises(InvalidURL, match="2 regions and 3 profiles"):
        OnlineStore.open(f"dynamodb:///t12?region={EAST},{WEST}&profile=a,b,c", [User])
    sessions = {EAST: boto3.Session("A", "s"), "eu-west-1": boto3.Session("B", "s")}
    with pytest.raises(InvalidURL, match=r"us-east-1, eu-west-1; .* us-east-1, us-west-2"):
        OnlineStore.open(f"dynamodb:///t12?region={EAST},{WEST}", [User], session=sessions)


@pytest.mark.usefixtures("profiles")
def test_doctor_says_whose_account_a_replica_is_in(
    engines: dict[str, Dynoxide], capsys: pytest.CaptureFixture[str]
) -> None:
    """Credentials of one account find no table, or another one, where the replica is."""
    absent = ("ResourceNotFoundException", "Requested resource not found")
    east = described(EAST, replica(WEST, account=TWO))
    every = dict.fromkeys(("DescribeTable", "DescribeTimeToLive", "GetItem", "Query"), absent)
    with regions(engines, east, {"refused": every}) as found:
        checks = doctor(url_of(found, "&profile=one"), capsys)
    assert "replica" in checks[f"{WEST} table"]["found"]
    if KNOWS_ACCOUNTS:
        assert TWO in checks[f"{WEST} table"]["found"]
    assert "profile=A,B" in checks[f"{WEST} table"]["advice"]
    with regions(engines, east, described(WEST, account=ONE)) as found:
        checks = doctor(url_of(found, "&profile=one"), capsys)
    assert checks[f"{WEST} replica"]["verdict"] == "error"
    if KNOWS_ACCOUNTS:
        assert "another table of this name" in checks[f"{WEST} replica"]["found"]


# --- replicas that receive nothing ---------------------------------------------------------


STATUSES = (
    "REPLICATION_NOT_AUTHORIZED",
    "REGION_DISABLED",
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS",
    "ARCHIVING",
    "ARCHIVED",
)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("seen_by", [EAST, WEST])
def test_a_replica_without_replication_is_an_error(status: str, seen_by: str) -> None:
    """Each status of a replica that gets no writes is found in the description of either region."""
    told = status if seen_by == EAST else "ACTIVE"
    own = status if seen_by == WEST else "ACTIVE"
    state = TableState(
        TABLE,
        {
            EAST: RegionTableState(status="ACTIVE", replicas={WEST: told}),
            WEST: RegionTableState(status=own, replicas={EAST: "ACTIVE"}),
        },
    )
    checks = {
        f"{each.where} {each.what}": each
        for each in check_table(state, [EAST, WEST], TableLayout())
    }
    found = checks[f"{WEST} replica"]
    assert (found.verdict, found.found) == ("error", status)
    assert found.advice


def test_a_replica_without_replication_answers_reads(
    engines: dict[str, Dynoxide], capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor` finds it by the control plane, although its reads are answered."""
    east = described(EAST, replica(WEST, STATUSES[0]))
    with regions(engines, east, described(WEST, replica(EAST))) as found:
        checks = doctor(url_of(found), capsys)
    assert checks[f"{WEST} replica"]["found"] == STATUSES[0]
    assert checks[f"{WEST} reads"]["verdict"] == "ok"


def test_a_disassociated_replica_is_an_error(
    engines: dict[str, Dynoxide], capsys: pytest.CaptureFixture[str]
) -> None:
    """Both regions have to name each other."""
    with regions(engines, described(EAST), described(WEST)) as found:
        checks = doctor(url_of(found), capsys)
    assert "disassociated" in checks[f"{WEST} replica"]["found"]
    with regions(engines, described(EAST, replica(WEST)), described(WEST)) as found:
        checks = doctor(url_of(found), capsys)
    assert "does not name us-east-1" in checks[f"{WEST} replica"]["found"]
    assert checks[f"{WEST} replica"]["verdict"] == "error"


def test_old_heartbeats_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without access to the control plane, the heartbeat of an hour ago tells it."""
    from chalk_online_store.cli.doctor.live import _lag_check
    from chalk_online_store.cli.region_survey import Lag

    assert _lag_check(Lag(EAST, WEST, None, 3600.0, ""), beat=False).verdict == "error"
    assert _lag_check(Lag(EAST, WEST, None, 3600.0, "not within 5 s"), beat=True).verdict == "error"
    assert _lag_check(Lag(EAST, WEST, None, 3.0, "not within 5 s"), beat=True).verdict == "warning"
    assert _lag_check(Lag(EAST, WEST, 0.5, 3600.0, ""), beat=True).verdict == "ok"
    assert _lag_check(Lag(EAST, WEST, None, 3.0, ""), beat=False).verdict == "ok"


# --- strong consistency --------------------------------------------------------------------


def test_strong_consistency_is_recognised_and_refused(
    engines: dict[str, Dynoxide], capsys: pytest.CaptureFixture[str]
) -> None:
    """Three regions, or two and a witness, are one error; a witness in the URL is another."""
    witness = [{"RegionName": WEST, "WitnessStatus": "ACTIVE"}]
    east = described(
        EAST,
        replica("us-east-2"),
        MultiRegionConsistency="STRONG",
        GlobalTableWitnesses=witness,
    )
    absent = ("ResourceNotFoundException", "Requested resource not found")
    with regions(engines, east, {"refused": {"DescribeTable": absent}}) as found:
        checks = doctor(url_of(found), capsys)
    assert checks[f"{EAST} consistency"]["verdict"] == "error"
    assert "no transactions" in checks[f"{EAST} consistency"]["advice"]
    assert "witness" in checks[f"{WEST} table"]["found"]
    assert "remove it from region=" in checks[f"{WEST} table"]["advice"]


def test_a_write_to_a_table_without_transactions_says_why(engines: dict[str, Dynoxide]) -> None:
    """New features cannot be registered there, and the error names the operation."""

    @features
    class Unregistered:
        id: int
        value: int

    refused = {"TransactWriteItems": ("ValidationException", "Not supported on MRSC tables")}
    with Environment(engines[EAST].endpoint_url, refused=refused) as found:
        url = f"dynamodb:///{TABLE}?region={EAST}&endpoint_url={found.url}"
        with (
            OnlineStore.open(url, [Unregistered]) as store,
            pytest.raises(OnlineStoreError, match="cannot be registered: TransactWriteItems"),
        ):
            store.write(Unregistered, [{"id": 1, "value": 2}])


# --- version 2017.11.29 --------------------------------------------------------------------


def add_legacy_attributes(engine: Dynoxide) -> None:
    """Add attributes to every item, as DynamoDB does after each write to a legacy Global Table."""
    client = boto3.client("dynamodb", region_name=EAST, endpoint_url=engine.endpoint_url)
    for item in client.scan(TableName=TABLE)["Items"]:
        client.update_item(
            TableName=TABLE,
            Key={name: item[name] for name in ("pk", "sk")},
            UpdateExpression="SET #d = :d, #t = :t, #r = :r",
            ExpressionAttributeNames={
                "#d": "aws:rep:deleting",
                "#t": "aws:rep:updatetime",
                "#r": "aws:rep:updateregion",
            },
            ExpressionAttributeValues={
                ":d": {"BOOL": False},
                ":t": {"N": "1764560000.000001"},
                ":r": {"S": EAST},
            },
        )
    client.close()


def test_legacy_tables_work_and_are_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    """Attributes named aws:rep:* change neither values, nor event time, nor the registry."""
    from datetime import UTC, datetime

    later, earlier = datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)
    with Dynoxide() as engine:
        create_table(engine.endpoint_url, TABLE)
        with (
            Environment(engine.endpoint_url, {"GlobalTableVersion": "2017.11.29"}) as found,
            OnlineStore.open(
                f"dynamodb:///{TABLE}?region={EAST}&endpoint_url={found.url}", [User]
            ) as store,
        ):
            row = {"id": 1, "visits": 3, "name": "Ada", "risk": 0.5}
            store.write(User, [row], observed_at=later)
            add_legacy_attributes(engine)
            store.write(User, [{"id": 1, "visits": 2}], observed_at=earlier)
            store.write(User, [{"id": 1, "risk": 0.75}], observed_at=later)
            add_legacy_attributes(engine)
            found_row = store.read(User, [1])[0]
            assert [found_row[name] for name in ("visits", "name", "risk")] == [3, "Ada", 0.75]
            store.write(User, [{"id": 2, "name": "Bob"}], ordering="arrival")
            add_legacy_attributes(engine)
            store.rename(User, "name", "full_name")
            store.delete(User, [1], observed_at=later)
            add_legacy_attributes(engine)
            assert store.read(User, [1])[0].status("visits") == "missing"
            checks = doctor(f"dynamodb:///{TABLE}?region={EAST}&endpoint_url={found.url}", capsys)
    assert checks[f"{EAST} version"]["verdict"] == "warning"
    assert "aws:rep:" in checks[f"{EAST} attributes"]["found"]
    assert checks["registry"]["verdict"] == "ok"
