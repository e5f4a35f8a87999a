"""What a URL opens."""

from __future__ import annotations

import asyncio
import socket
import uuid
from pathlib import Path
from types import SimpleNamespace

import aioboto3
import boto3
import pytest

from chalk_online_store import (
    AsyncOnlineStore,
    InvalidCredentials,
    InvalidURL,
    OnlineStore,
    RegistryUnavailable,
    RequestTimeout,
    UnsupportedPlatform,
    features,
)
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.testing import Dynoxide, create_table
from chalk_online_store.urls import parse_url


@features
class User:
    id: int
    visits: int


ROWS = [{"id": 1, "visits": 3}, {"id": 2, "visits": 4}]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without any credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def table_on(engine: Dynoxide) -> str:
    """The URL of a new table."""
    table = f"connect-{uuid.uuid4().hex}"
    create_table(engine.endpoint_url, table)
    return engine.url(table)


@pytest.mark.usefixtures("nobody")
def test_only_the_url_changes(dynoxide: Dynoxide) -> None:
    """A script for SQLite runs on a local DynamoDB by its URL alone, without credentials."""
    for url in ("sqlite://", table_on(dynoxide)):
        with OnlineStore.open(url, [User]) as store:
            store.write(User, ROWS)
            assert store.read(User, [1, 2]).column("visits") == [3, 4]


@pytest.mark.usefixtures("nobody")
def test_elsewhere_credentials_are_needed() -> None:
    """Away from this machine nothing is made up, and nothing is sent."""
    url = "dynamodb:///features?region=us-east-1"
    with (
        OnlineStore.open(url, [User]) as store,
        pytest.raises(InvalidCredentials, match="AWS_ACCESS_KEY_ID"),
    ):
        store.read(User, [1])


@pytest.mark.parametrize("kind", [boto3.Session, aioboto3.Session])
def test_a_session_can_be_handed_in(kind: type, dynoxide: Dynoxide) -> None:
    """The async store takes credentials from a boto3 or an aioboto3 session."""
    session = kind(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-west-1")
    url = table_on(dynoxide).replace("region=us-east-1&", "")

    async def main() -> list[int]:
        async with AsyncOnlineStore.open(url, [User], session=session) as store:
            await store.write(User, ROWS)
            return (await store.read(User, [2, 1])).column("visits")

    assert asyncio.run(main()) == [4, 3]


def test_a_table_may_have_other_key_names(dynoxide: Dynoxide) -> None:
    """`pk`, `sk` and `ttl` of the URL name the attributes of a table that exists."""
    table = f"connect-{uuid.uuid4().hex}"
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=dynoxide.endpoint_url)
    client.create_table(
        TableName=table,
        KeySchema=[
            {"AttributeName": "__id__", "KeyType": "HASH"},
            {"AttributeName": "a", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("__id__", "a")
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.close()
    with OnlineStore.open(f"{dynoxide.url(table)}&pk=__id__&sk=a&ttl=b", [User]) as store:
        for ordering in ("event", "arrival"):
            store.write(User, ROWS, ordering=ordering)
            assert store.read(User, [1, 2]).column("visits") == [3, 4]
            assert store.read(User, [1]).column("visits") == [3]
        store.delete(User, [1])
        assert store.read(User, [1, 2]).column("visits") == [None, 4]


def test_limits_are_options_of_the_url() -> None:
    """Timeouts and the size of the pool are read from the URL, and have defaults."""
    assert parse_url("dynamodb:///features") == DynamoDBTarget(
        "features", (), (), (), TableLayout(), "", 1.0, 3.0, 32
    )
    limits = "connect_timeout=0.25&read_timeout=1&max_pool_connections=64"
    target = parse_url(f"dynamodb:///features?{limits}")
    assert isinstance(target, DynamoDBTarget)
    assert (target.connect_timeout, target.read_timeout) == (0.25, 1.0)
    assert target.max_pool_connections == 64


@pytest.mark.parametrize(
    "option",
    [
        "connect_timeout=0",
        "connect_timeout=fast",
        "read_timeout=-1",
        "read_timeout=inf",
        "read_timeout=nan",
        "max_pool_connections=0",
        "max_pool_connections=1.5",
    ],
)
def test_a_limit_is_a_number_above_zero(option: str) -> None:
    """What limits nothing, or everything, is refused by its name."""
    with pytest.raises(InvalidURL, match=option.partition("=")[0]):
        parse_url(f"dynamodb:///features?{option}")


@pytest.mark.parametrize("store", [OnlineStore, AsyncOnlineStore])
@pytest.mark.parametrize("url", ["sqlite://", "dynamodb:///features", "valkey://127.0.0.1"])
def test_windows_is_refused_when_a_store_is_opened(
    store: type[OnlineStore | AsyncOnlineStore], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a store on Windows raises an error that names what to use instead."""
    monkeypatch.setattr("chalk_online_store.connect.os", SimpleNamespace(name="nt"))
    with pytest.raises(UnsupportedPlatform, match=r"Windows is not supported.*WSL"):
        store.open(url, [User])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_attempt_ends_by_the_read_timeout(kind: str) -> None:
    """An engine that never answers is tried again within the call, each time for so long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        port = silent.getsockname()[1]
        url = (
            f"dynamodb:///features?region=x&endpoint_url=http://127.0.0.1:{port}&read_timeout=0.05"
        )
        with pytest.raises(RegistryUnavailable) as caught:
            _read_from(url) if kind == "sync" else asyncio.run(_aread_from(url))
        for _ in range(2):  # Two attempts or more.
            silent.accept()[0].close()
    assert isinstance(caught.value.__cause__, RequestTimeout)


def _read_from(url: str) -> None:
    with OnlineStore.open(url, [User], timeout=0.5) as store:
        store.read(User, [1])


async def _aread_from(url: str) -> None:
    async with AsyncOnlineStore.open(url, [User], timeout=0.5) as store:
        await store.read(User, [1])
