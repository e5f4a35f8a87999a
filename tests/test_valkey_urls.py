"""URLs of Valkey: what they name, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import InvalidURL, OnlineStore, Routing, features
from chalk_online_store.connect import connect
from chalk_online_store.urls import parse_url
from chalk_online_store.valkey.urls import ValkeyTarget


@features
class User:
    id: int


HOME = (("localhost", 6379),)
V6 = (("::1", 7),)
FILES = (("ssl_ca_certs", "/ca"),)
SENTINELS = (("one", 26379), ("two", 5))
SEVERAL = (("one", 6379), ("two", 5))
FIRST, NEAREST = "primary-preferred", "nearest"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("valkey://localhost", {"nodes": HOME}),
        ("redis://localhost:6379/2", {"nodes": HOME, "db": 2}),
        ("valkey://localhost?db=3&prefix=dev%3A", {"nodes": HOME, "db": 3, "prefix": "dev:"}),
        ("valkey://me:p%40w@[::1]:7", {"nodes": V6, "username": "me", "password": "p@w"}),
        ("valkey://:secret@localhost", {"nodes": HOME, "password": "secret"}),
        ("rediss://localhost", {"nodes": HOME, "tls": True}),
        ("valkeys://localhost?ssl_ca_certs=/ca", {"nodes": HOME, "tls": True, "files": FILES}),
        ("valkey+unix:///run/valkey.sock?db=1", {"path": "/run/valkey.sock", "db": 1}),
        ("valkey+sentinel://one,two:5/main?db=1", {"nodes": SENTINELS, "service": "main", "db": 1}),
        ("valkey://one,two:5/3", {"nodes": SEVERAL, "db": 3, "read_from": FIRST}),
        ("valkey://one,two:5?read_from=primary", {"nodes": SEVERAL}),
        ("valkey://one,two:5?read_from=nearest", {"nodes": SEVERAL, "read_from": NEAREST}),
        (
            "valkey+sentinel://one,two:5/main?read_from=nearest&replicas=2",
            {"nodes": SENTINELS, "service": "main", "read_from": NEAREST, "replicas": 2},
        ),
        (
            "valkey://localhost?read_timeout=0.5&max_pool_connections=4&keep_expired=0",
            {"nodes": HOME, "read_timeout": 0.5, "max_pool_connections": 4, "keep_expired": 0},
        ),
    ],
)  # fmt: skip
def test_what_a_url_names(url: str, expected: dict[str, Any]) -> None:
    """Each form of a URL says where the server is, who asks, and with which settings."""
    assert parse_url(url) == ValkeyTarget(**expected)


@pytest.mark.parametrize(
    "url",
    [
        "valkey://",
        "valkey://localhost:99999",
        "valkey://localhost:x",
        "valkey://localhost/name",
        "valkey://localhost/1?db=1",
        "valkey://localhost?db=-1",
        "valkey://localhost?nonsense=1",
        "valkey://localhost?prefix=",
        "valkey://localhost?prefix=a&prefix=b",
        "valkey://localhost?prefix=%7Ba%7D",
        "valkey://localhost?read_timeout=0",
        "valkey://localhost?max_pool_connections=0",
        "valkey://localhost?keep_expired=-1",
        "valkey://localhost?connect_timeout=inf",
        "valkey://localhost?ssl_ca_certs=/ca.pem",
        "valkey+unix://",
        "valkey+unix://localhost/path",
        "valkeys+unix:///path",
        "valkey+sentinel://one,two",
        "valkey+sentinel:///main",
        "valkey+smoke://localhost",
        "valkey://user:secret@/0",
        "valkey://one,one",
        "valkey://one,two?read_from=somewhere",
        "valkey://one?read_from=nearest",
        "valkey+unix:///path?read_from=nearest",
        "valkey+cluster://one,two?read_from=replica-preferred",
        "valkey://one,two?replicas=2",
        "valkey+sentinel://one/main?replicas=2",
        "valkey+sentinel://one/main?read_from=nearest&replicas=0",
    ],
)
def test_what_is_no_url(url: str) -> None:
    """What cannot be understood is refused, without what may be a secret."""
    with pytest.raises(InvalidURL) as raised:
        parse_url(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "order"),
    [
        ("valkey://one,two:5", ["one:6379", "two:5"]),
        ("valkey://one,two:5?read_from=replica-preferred", ["two:5", "one:6379"]),
        ("valkey+sentinel://one/main?read_from=primary-preferred", ["primary", "replica-1"]),
        (
            "valkey+sentinel://one/main?read_from=replica-preferred&replicas=2",
            ["replica-1", "replica-2", "primary"],
        ),
    ],
)
def test_nodes_are_regions(url: str, order: list[str]) -> None:
    """The nodes that are read from have names and an order; the primary alone takes writes."""
    with OnlineStore.open(url, [User]) as store:
        regions = store.regions()
        assert [region.name for region in regions] == order
        assert [region.name for region in regions if region.reads] == order[:1]
        primary = order[0] if order[0] in ("one:6379", "primary") else order[-1]
        assert [region.name for region in regions if region.writes] == [primary]


def test_one_server_is_routed_only_where_that_is_asked_for() -> None:
    """With `routing=` a server is a region by itself, so that reads are hedged there."""
    with OnlineStore.open("valkey://one", [User]) as store:
        assert store.regions() == []
    with OnlineStore.open("valkey://one", [User], routing=Routing()) as store:
        assert [region.name for region in store.regions()] == ["one:6379/0"]


def test_a_target_keeps_its_password_to_itself() -> None:
    """Neither what is printed of a target, nor what a table is called, has the password in it."""
    target = parse_url("valkey://me:secret@localhost/1?prefix=dev:")
    assert "secret" not in repr(target)
    backend, transports, _ = connect("valkey://me:secret@localhost/1?prefix=dev:", None)
    assert backend.identity == "valkey localhost:6379/1 dev:"
    transports[""].close()


def test_a_valkey_url_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on Valkey opens without redis-py and hiredis."""
    for package in ("redis", "hiredis"):
        monkeypatch.setitem(sys.modules, package, None)
    OnlineStore.open("valkey://localhost", [User]).close()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_an_unreadable_file_is_reported_when_the_store_opens(option: str, tmp_path: Path) -> None:
    """A TLS file that does not exist is an invalid URL."""
    with pytest.raises(InvalidURL, match=f"{option}.*No such file"):
        OnlineStore.open(f"valkeys://localhost?{option}={tmp_path}/none.pem", [User])
