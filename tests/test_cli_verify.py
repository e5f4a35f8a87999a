"""`chalk-online-store verify`: what it sees of each engine, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalk_online_store import OnlineStore, OnlineStoreError, features
from chalk_online_store.cli import main
from chalk_online_store.cli.verify import command, regions, run
from chalk_online_store.cli.verify.command import all_checks
from chalk_online_store.cli.verify.context import Check, CheckContext, Client
from chalk_online_store.cli.verify.run import price_of
from chalk_online_store.errors import RequestRefused, RequestTimeout
from chalk_online_store.testing import (
    DamagedCRC,
    Dynoxide,
    FaultProxy,
    LocalGlobalTable,
    create_table,
)
from chalk_online_store.testing.engines import Engine
from tests.helpers import exit_status
from tests.verify_differences import KNOWN_DIFFERENCES, OPERATORS

EAST, WEST = "us-east-1", "us-west-2"
PAGE = Path(__file__).parents[1] / "docs" / "verify.md"
BETWEEN_REGIONS = ("replication lag", "writes in two regions at once")
NOT_APPLICABLE = {*BETWEEN_REGIONS, "renewal of credentials"}
NAMES = ("--only", "attribute names of one character", "--only", "TTL", "--only", "JSON escapes")
QUICK = ("--only", "transactions", "--only", "numbers")


@features
class User:
    id: int
    name: str


def verify(*arguments: str) -> int:
    return exit_status("verify", *arguments)


def verified(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run the command, and return its document with the status that it exited with."""
    status = verify(*arguments, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {**found, "status": status, "checks": {each["name"]: each for each in found["checks"]}}


def items(endpoint_url: str, table: str) -> list[dict[str, Any]]:
    client = boto3.client("dynamodb", endpoint_url=endpoint_url, region_name=EAST)
    found = client.scan(TableName=table)["Items"]
    client.close()
    return sorted((dict(item) for item in found), key=lambda item: str(item.get("pk")))


def tables(endpoint_url: str) -> list[str]:
    client = boto3.client("dynamodb", endpoint_url=endpoint_url, region_name=EAST)
    found = client.list_tables()["TableNames"]
    client.close()
    return found


# --- engines -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN_DIFFERENCES)
def test_an_engine_differs_in_what_is_known(
    name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each engine differs from DynamoDB in exactly what is listed, and keeps no item."""
    engine: Engine = request.getfixturevalue(name)
    table = f"verify-{uuid.uuid4().hex}"
    create_table(engine.endpoint_url, table)
    found = verified(capsys, f"{engine.url(table)}&connect_timeout=30", "--requests", "3")
    by_verdict: dict[str, dict[str, str]] = {"ok": {}, "differs": {}, "skipped": {}}
    for check in found["checks"].values():
        by_verdict[check["verdict"]][check["name"]] = check["seen"]
    assert by_verdict["differs"] == KNOWN_DIFFERENCES[name]
    assert by_verdict["skipped"].keys() == NOT_APPLICABLE
    assert found["status"] == 1
    assert found["removed"]["left"] == 0
    assert items(engine.endpoint_url, table) == []
    if name == "dynoxide":
        check_price(found)


def check_price(found: dict[str, Any]) -> None:
    """The price has the units that were consumed, and those of refusals, which are not reported."""
    run_alone = [check for check in all_checks(3) if check.name not in NOT_APPLICABLE]
    price = price_of(run_alone, [EAST])
    assert 0 <= price.rcu - found["consumed"]["rcu"] <= 200
    assert 0 <= price.wcu - found["consumed"]["wcu"] <= 20
    assert found["price"]["wcu"] >= price.wcu


def test_every_check_is_documented() -> None:
    """The page has a row for each check, with what is expected."""
    page = PAGE.read_text()
    checks = all_checks(50)
    assert len({check.name for check in checks}) == len(checks)
    assert [c.name for c in checks if f"| {c.name} | {c.expected} |" not in page] == []


# --- what it leaves ------------------------------------------------------------------------


def test_other_rows_are_not_touched(dynoxide: Dynoxide, table: str) -> None:
    """Rows and registry of the table are as they were."""
    with OnlineStore.open(dynoxide.url(table), [User]) as store:
        store.write(User, [{"id": key, "name": "x"} for key in range(20)])
    before = items(dynoxide.endpoint_url, table)
    assert verify(dynoxide.url(table), *QUICK) == 0
    assert items(dynoxide.endpoint_url, table) == before


def interrupting(end: BaseException | signal.Signals, engine: Dynoxide, table: str) -> list[Check]:
    """Checks of which the second one ends the run while there are items."""

    def write(context: CheckContext) -> str:
        for _ in range(3):
            context.client.put(context.text(context.scratch.key()))
        return "written"

    def finish(context: CheckContext) -> str:
        assert len(items(engine.endpoint_url, context.target.table)) == 3
        if isinstance(end, signal.Signals):
            signal.raise_signal(end)
            raise AssertionError
        raise end

    return [Check("write", "written", write), Check("finish", "done", finish)]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (KeyboardInterrupt(), 130),
        (signal.SIGTERM, 130),
        (RequestTimeout("no response"), 1),
        (OnlineStoreError("gone"), 1),
    ],
)
@pytest.mark.parametrize("create", [False, True])
def test_nothing_is_left_however_it_ends(
    end: BaseException | signal.Signals,
    status: int,
    create: bool,
    dynoxide: Dynoxide,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After Ctrl-C, SIGTERM or a failing check, items and a scratch table are removed."""
    before = tables(dynoxide.endpoint_url)
    monkeypatch.setattr(command, "all_checks", lambda _: interrupting(end, dynoxide, table))
    assert verify(dynoxide.url(table), *["--create"] * create) == status
    assert items(dynoxide.endpoint_url, table) == []
    assert tables(dynoxide.endpoint_url) == before
    assert "checked that nothing is left" in capsys.readouterr().err


def test_a_bug_in_a_check_leaves_nothing(
    dynoxide: Dynoxide, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that no check may raise ends the run, after the removal."""
    end = RuntimeError("a bug")
    monkeypatch.setattr(command, "all_checks", lambda _: interrupting(end, dynoxide, table))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["verify", dynoxide.url(table)])
    assert items(dynoxide.endpoint_url, table) == []


def test_a_late_write_is_found(
    dynoxide: Dynoxide, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that arrives after the deletes is found by the look, and removed."""
    delete = Client.delete
    late: list[None] = []

    def delete_then_write(client: Client, keys: Any) -> Any:
        report = delete(client, keys)
        if not late:
            late.append(None)
            client.put(context[0].text(keys[0], "late"))
        return report

    context: list[CheckContext] = []

    def look(each: CheckContext) -> str:
        context.append(each)
        return str(each.client.item(each.scratch.key()))

    monkeypatch.setattr(Client, "delete", delete_then_write)
    monkeypatch.setattr(command, "all_checks", lambda _: [Check("look", "None", look)])
    assert verify(dynoxide.url(table)) == 0
    assert late
    assert items(dynoxide.endpoint_url, table) == []


def test_a_failed_removal_is_an_error(
    dynoxide: Dynoxide,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If the removal fails, the partitions are named, and the exit status is 1."""

    def refuse(client: Client, keys: Any) -> Any:
        raise RequestRefused("not allowed")

    monkeypatch.setattr(Client, "delete", refuse)
    found = verified(capsys, dynoxide.url(table), *QUICK)
    assert (found["status"], found["removed"]["left"], found["as_expected"]) == (1, None, False)
    assert "not allowed" in found["removed"]["error"]
    assert table in found["removed"]["place"]
    assert {check["verdict"] for check in found["checks"].values()} == {"ok"}


def test_a_scratch_table_is_created_and_deleted(
    dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--create` needs no table, uses one of its own with the names of the URL, and deletes it."""
    before = tables(dynoxide.endpoint_url)
    url = f"{dynoxide.url('nowhere')}&pk=p&sk=s&ttl=expiry"
    found = verified(capsys, url, "--create", *QUICK, *NAMES)
    assert [each for each in found["checks"].values() if each["verdict"] != "ok"] == []
    assert found["status"] == 0
    assert found["table"].startswith("nowhere-verify-")
    assert found["table"] in found["removed"]["place"]
    assert tables(dynoxide.endpoint_url) == before


def test_a_small_table_is_not_throttled(
    dynoxide: Dynoxide, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checks that a table's provisioned capacity cannot take within a minute are skipped."""
    client = boto3.client("dynamodb", endpoint_url=dynoxide.endpoint_url, region_name=EAST)
    client.update_table(
        TableName=table,
        BillingMode="PROVISIONED",
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    )
    client.close()
    large = "unprocessed keys of a 16 MB read"
    found = verified(capsys, dynoxide.url(table), *QUICK, "--only", large)
    assert found["status"] == 0
    assert found["checks"][large]["seen"] == "it needs 33,669 WCU; the table has 5"
    assert found["checks"]["numbers"]["verdict"] == "ok"


def test_no_scratch_table_in_several_regions(capsys: pytest.CaptureFixture[str]) -> None:
    """`--create` is refused for a Global Table, which AWS would not delete for a day."""
    assert verify(f"dynamodb:///features?region={EAST},{WEST}", "--create") == 2
    assert "--create takes a URL with one region" in capsys.readouterr().err


# --- what it prints ------------------------------------------------------------------------


def test_a_table_for_people(
    dynoxide: Dynoxide, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One table has check, expected, seen and verdict; why a request was refused is below it."""
    ((operators, seen),) = OPERATORS.items()
    only = ("--only", "numbers", "--only", operators, "--only", "TTL")
    assert verify(dynoxide.url(table), *only) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "check\texpected\tseen\tverdict",
        f"{operators}\t300 operators accepted, 301 refused\t{seen}\tdiffers",
        "numbers\t24 as written\t24 as written\tok",
        "TTL\ton the attribute of the URL\ton the attribute of the URL\tok",
    ]
    assert "2 ok, 1 differs" in printed.err


def test_a_missing_table_is_an_error_of_each_check(
    dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the table each check says so, and all of them run."""
    assert verify(dynoxide.url("nowhere"), *QUICK) == 1
    printed = capsys.readouterr()
    assert printed.out.count("TableNotFound (ResourceNotFoundException)\tdiffers") == 2
    assert "transactions: TransactWriteItems on table 'nowhere'" in printed.err


def test_the_price_is_shown_and_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is sent to AWS, units and dollars are shown, and nobody said yes."""
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert verify("dynamodb:///features?region=eu-west-1") == 1
    said = capsys.readouterr().err
    price = price_of(all_checks(50), ["eu-west-1"])
    assert price.text in said
    assert f"Run {len(all_checks(50))} checks in a scratch partition of table 'features'" in said


def test_the_price_counts_every_region() -> None:
    """A replicated write costs a unit in each region, and prices are those of the first region."""
    one, two = price_of(all_checks(50), [EAST]), price_of(all_checks(50), [EAST, WEST])
    assert two.wcu == 2 * one.wcu
    assert 0.02 < one.dollars < two.dollars < 0.1
    assert price_of(all_checks(50), ["moon-1"]).region == EAST


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sqlite://",), "is for a DynamoDB table"),
        (("dynamodb:///features?region=us-east-1", "--only", "nothing"), "the checks are"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another engine's URL and a check that does not exist are refused."""
    assert verify(*arguments) == 2
    assert said in capsys.readouterr().err


# --- regions, credentials, responses -------------------------------------------------------

ONLY_BETWEEN = tuple(part for name in BETWEEN_REGIONS for part in ("--only", name))


@pytest.fixture
def replicated() -> Iterator[LocalGlobalTable]:
    with LocalGlobalTable() as made:
        yield made


def left_in(made: LocalGlobalTable) -> list[int]:
    made.wait_until_replicated()
    urls = [made.region(region).engine.endpoint_url for region in (EAST, WEST)]
    return [len(items(url, made.table)) for url in urls]


def test_regions_are_compared(
    replicated: LocalGlobalTable, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lag is measured both ways, of two writes one stays, and both regions are empty afterwards."""
    found = verified(capsys, replicated.url(), *ONLY_BETWEEN)
    lag, conflict = (found["checks"][name] for name in BETWEEN_REGIONS)
    assert lag["figures"].keys() == {f"{EAST} to {WEST}", f"{WEST} to {EAST}"}
    assert None not in lag["figures"].values()
    assert conflict["verdict"] == "ok"
    assert found["removed"]["left"] == 0
    assert left_in(replicated) == [0, 0]


def test_a_region_that_does_not_replicate_is_cleaned_as_well(
    replicated: LocalGlobalTable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without replication both checks differ, and items are removed in each region by itself."""
    monkeypatch.setattr(regions, "PATIENT_SECONDS", 0.3)
    monkeypatch.setattr(run, "REPLICATED_SECONDS", 0.3)
    replicated.partition(EAST, WEST)
    try:
        found = verified(capsys, replicated.url(), *ONLY_BETWEEN)
    finally:
        replicated.heal()
    lag, conflict = (found["checks"][name] for name in BETWEEN_REGIONS)
    assert lag["seen"] == f"{EAST} to {WEST} not replicated, {WEST} to {EAST} not replicated"
    assert (lag["verdict"], conflict["seen"]) == ("differs", "the regions differ")
    assert found["removed"]["left"] == 0
    assert left_in(replicated) == [0, 0]


def test_credentials_are_renewed(
    dynoxide: Dynoxide,
    table: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Credentials that expire are loaded again, and the new ones sign a request."""
    calls = tmp_path / "calls"
    provider = tmp_path / "provider.py"
    provider.write_text(
        "import json, sys\n"
        f"open({str(calls)!r}, 'a').write('x')\n"
        "keys = {'AccessKeyId': 'made', 'SecretAccessKey': 'up', 'SessionToken': 'token'}\n"
        "print(json.dumps({'Version': 1, **keys, 'Expiration': '2099-01-01T00:00:00Z'}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[profile p]\ncredential_process = {sys.executable} {provider}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    url = f"{dynoxide.url(table)}&profile=p"
    found = verified(capsys, url, "--only", "renewal of credentials")
    assert found["checks"]["renewal of credentials"]["seen"] == "renewed, and accepted"
    assert len(calls.read_text()) >= 3


def test_damaged_responses_are_seen(
    dynoxide: Dynoxide, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A body that does not fit its CRC32 is reported, although the wire repeats the request."""
    with FaultProxy(dynoxide, seed=1) as proxy, proxy.fault(DamagedCRC(), share=0.3):
        only = ("--only", "latency of GetItem", "--only", "CRC32 headers")
        found = verified(capsys, proxy.url(table), *only)
    assert found["checks"]["CRC32 headers"]["seen"] == "wrong on some responses"
    assert items(dynoxide.endpoint_url, table) == []
