"""Stores under moto's in-process mock: they work against it, and nothing leaves this machine."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import moto.core.models
import pytest
from moto import mock_aws

from chalk_online_store import (
    AsyncOnlineStore,
    OnlineStore,
    PersistenceWriter,
    WriteFailed,
    features,
)

URL = "dynamodb:///features?region=us-east-1"
LATER = datetime(2026, 11, 30, tzinfo=UTC)
EARLIER = datetime(2026, 11, 29, tzinfo=UTC)


@features
class User:
    id: int
    visits: int


@pytest.fixture(autouse=True)
def refused_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Real-looking profiles, and a resolver and a connect that refuse every other machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    keys = "aws_access_key_id = AKIA{0}\naws_secret_access_key = x\n"
    profiles = f"[default]\n{keys.format('DEFAULT')}[prod]\n{keys.format('PROD')}"
    (tmp_path / "credentials").write_text(profiles)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    asked: list[str] = []

    def refuse(host: Any, *_: object, **__: object) -> Any:
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "no name is resolved in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield asked
    assert asked == []


def create_table(region: str = "us-east-1") -> None:
    boto3.client("dynamodb", region_name=region).create_table(
        TableName="features",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    )


def write_and_read(url: str, **options: Any) -> list[int | None]:
    with OnlineStore.open(url, [User], timeout=5, **options) as store:
        store.write(User, [{"id": 1, "visits": 3}], observed_at=LATER)
        store.write(User, [{"id": 1, "visits": 2}], observed_at=EARLIER)
        return store.read(User, [1, 2]).column("visits")


def write_and_read_async(url: str, **options: Any) -> list[int | None]:
    async def run() -> list[int | None]:
        async with AsyncOnlineStore.open(url, [User], timeout=5, **options) as store:
            await store.write(User, [{"id": 1, "visits": 3}], observed_at=LATER)
            await store.write(User, [{"id": 1, "visits": 2}], observed_at=EARLIER)
            return (await store.read(User, [1, 2])).column("visits")

    return asyncio.run(run())


KINDS = pytest.mark.parametrize("use", [write_and_read, write_and_read_async])


@KINDS
@pytest.mark.parametrize("more", ["", "&profile=prod"])
@pytest.mark.parametrize("config", [None, {"core": {"mock_credentials": False}}])
def test_a_store_works_against_the_mock(
    use: Callable[..., list[int | None]], more: str, config: Any
) -> None:
    """Under the mock a store writes and reads moto's table, whatever credentials there are."""
    with mock_aws(config=config):
        create_table()
        assert use(URL + more) == [3, None]
        items = boto3.client("dynamodb", region_name="us-east-1").scan(TableName="features")
    assert items["Count"] > 1


@KINDS
def test_a_session_from_before_the_mock_is_mocked_too(use: Callable[..., list[int | None]]) -> None:
    """A boto3 session that was created before the mock began does not lead around it."""
    session = boto3.Session(profile_name="prod", region_name="us-east-1")
    with mock_aws():
        create_table()
        assert use("dynamodb:///features", session=session) == [3, None]


def test_a_store_from_before_the_mock_is_mocked_too() -> None:
    """A store that was opened before the mock began sends its requests to the mock."""
    with OnlineStore.open(URL, [User]) as store, mock_aws():
        create_table()
        store.write(User, [{"id": 1, "visits": 3}])
        assert store.read(User, [1])[0]["visits"] == 3


def test_a_store_of_a_mock_that_has_ended_is_refused() -> None:
    """A store that was opened under a mock does not reach AWS once the mock is over."""
    with mock_aws():
        create_table()
        store = OnlineStore.open(URL, [User])
        store.write(User, [{"id": 1, "visits": 3}])
    with store, pytest.raises(WriteFailed, match=r"the mock .* has ended"):
        store.write(User, [{"id": 1, "visits": 4}])


def test_another_endpoint_is_refused_under_the_mock() -> None:
    """An endpoint that is neither AWS's nor on this machine is not connected to under a mock."""
    url = f"{URL}&endpoint_url=http://dynamodb.example:8000"
    with mock_aws(), OnlineStore.open(url, [User]) as store:
        assert not store.health().ok
        with pytest.raises(Exception, match="nothing is sent to another machine"):
            store.read(User, [1])


def test_regions_are_mocked_each_by_itself() -> None:
    """The mock answers for the region of a request: replicas do not share a table in moto."""
    with mock_aws():
        create_table("us-east-1")
        create_table("us-west-2")
        with OnlineStore.open("dynamodb:///features?region=us-east-1,us-west-2", [User]) as store:
            store.write(User, [{"id": 1, "visits": 3}])
            assert store.read(User, [1]).report.region == "us-east-1"
        here, other = (
            boto3.client("dynamodb", region_name=region).scan(TableName="features")["Count"]
            for region in ("us-east-1", "us-west-2")
        )
    assert other < here  # Only heartbeats are written to both.


def test_a_writer_works_against_the_mock() -> None:
    """A persistence writer's thread writes to the mock."""
    with mock_aws():
        create_table()
        with OnlineStore.open(URL, [User]) as store:
            with PersistenceWriter(store) as writer:
                writer.submit(User, [{"id": key, "visits": key} for key in range(30)])
            assert store.read(User, [7, 29]).column("visits") == [7, 29]


def test_a_moto_that_hides_its_mock_counts_as_active(monkeypatch: pytest.MonkeyPatch) -> None:
    """If moto moves the flag that tells whether a mock is active, nothing is sent to AWS."""
    monkeypatch.delattr(moto.core.models, "botocore_stubber")
    with (
        OnlineStore.open(URL, [User], timeout=1) as store,
        pytest.raises(Exception, match="nothing is sent to another machine"),
    ):
        store.read(User, [1])


def test_without_moto_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not imported moto sends through the HTTP transport itself."""
    monkeypatch.delitem(sys.modules, "moto")
    with OnlineStore.open(URL, [User]) as store:
        assert type(store.driver.transports[""]).__name__ == "HttpTransport"


@features
class Account:
    id: int
    plan: str
    visits: int


def test_partial_writes_work_on_an_engine_that_parses_no_nested_function() -> None:
    """Moto refuses the first partial update; from then on a read and an exact update replace it."""
    with mock_aws():
        create_table()
        with OnlineStore.open(URL, [Account]) as store:
            store.write(Account, [{"id": 1, "plan": "free", "visits": 1}], observed_at=EARLIER)
            first = store.write(Account, [{"id": 1, "visits": 2}], observed_at=LATER)
            second = store.write(Account, [{"id": 1, "plan": "pro"}], observed_at=LATER)
            fresh = store.write(Account, [{"id": 2, "plan": "pro"}], observed_at=LATER)
            stale = store.write(Account, [{"id": 1, "visits": 0}], observed_at=EARLIER)
            store.delete(Account, [2], features=["plan"])
            rows = store.read(Account, [1, 2])
    assert [report.requests for report in (first, second, fresh)] == [3, 2, 2]
    assert stale.superseded == 1
    assert rows.to_dict() == {"plan": ["pro", None], "visits": [2, None]}
